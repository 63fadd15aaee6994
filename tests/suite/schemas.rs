//! What is printed as JSON, against the schemas in `docs/schemas`; and those against the types that are printed.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use parkwarden::export::http;
use parkwarden::prove::ProofReport;
use parkwarden::report::Report;
use parkwarden::report::documents::{MemDocument, SchedDocument};
use parkwarden::snapshot::{Snapshot, diff::Diff};
use parkwarden::timeline::{self, Timeline, compare::Comparison};
use parkwarden::why::WhyReport;
use parkwarden::{doctor, ps};
use parkwarden_tests::agent::run;
use parkwarden_tests::copied::Copied;
use parkwarden_tests::leaks::Statement;
use parkwarden_tests::node::Node;
use parkwarden_tests::target::Target;
use parkwarden_tests::{BuildFlags, fixture, incident};
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema};
use serde_json::{Value, json};
use xtask::toolchain::NEWEST;

fn schema<T: JsonSchema>() -> Schema {
    SchemaSettings::draft2020_12().for_serialize().into_generator().into_root_schema_for::<T>()
}

/// All documents, by the names of their files.
fn schemas() -> BTreeMap<&'static str, Schema> {
    BTreeMap::from([
        ("doctor", schema::<doctor::Report>()),
        ("history", schema::<http::History>()),
        ("mem", schema::<MemDocument>()),
        ("processes", schema::<http::Listing>()),
        ("prove", schema::<ProofReport>()),
        ("ps", schema::<ps::Listing>()),
        ("sched", schema::<SchedDocument>()),
        ("snapshot", schema::<Snapshot>()),
        ("snapshot-diff", schema::<Diff>()),
        ("timeline", schema::<Timeline>()),
        ("timeline-compare", schema::<Comparison>()),
        ("timeline-list", schema::<timeline::Listing>()),
        ("watch", schema::<Report>()),
        ("why", schema::<WhyReport>()),
    ])
}

fn file(name: &str) -> PathBuf {
    xtask::root().join(format!("docs/schemas/{name}.schema.json"))
}

#[test]
fn the_files_are_what_the_types_say() {
    let schemas = schemas();
    for (name, schema) in &schemas {
        let text = format!("{}\n", serde_json::to_string_pretty(schema).expect("JSON"));
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(file(name), &text).expect("written");
        }
        let kept = fs::read_to_string(file(name)).unwrap_or_default();
        assert!(kept == text, "docs/schemas/{name}.schema.json is not what the types say: run with UPDATE_GOLDEN=1");
    }
    let listed = fs::read_to_string(xtask::root().join("docs/schemas/README.md")).expect("readable");
    for entry in fs::read_dir(xtask::root().join("docs/schemas")).expect("a directory") {
        let name = entry.expect("readable").file_name().into_string().expect("UTF-8");
        let Some(document) = name.strip_suffix(".schema.json") else { continue };
        assert!(schemas.contains_key(document), "nobody prints {name}");
        assert!(listed.contains(&format!("({name})")), "docs/schemas/README.md does not list {name}");
    }
}

/// Has a schema refuse what it does not name, wherever it names something. Ways of which one applies beside properties that all have
/// (`is_part`) leave that to the whole.
fn strict(schema: &mut Value, is_part: bool) {
    match schema {
        Value::Object(fields) => {
            let names = fields.get("properties").is_some_and(Value::is_object);
            for (name, value) in fields.iter_mut() {
                strict(value, names && ["oneOf", "anyOf", "allOf"].contains(&name.as_str()));
            }
            if names && !is_part {
                fields.insert("unevaluatedProperties".to_owned(), json!(false));
            }
        }
        Value::Array(parts) => parts.iter_mut().for_each(|part| strict(part, is_part)),
        _ => {}
    }
}

/// A document has to be as the kept schema says, and may have nothing that it does not name.
fn is_valid(name: &str, document: &Value) {
    let text = fs::read_to_string(file(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    let mut schema: Value = serde_json::from_str(&text).expect("JSON");
    strict(&mut schema, false);
    let validator = jsonschema::validator_for(&schema).unwrap_or_else(|error| panic!("{name}: {error}"));
    let errors: Vec<String> =
        validator.iter_errors(document).map(|error| format!("{}: {error}", error.instance_path())).collect();
    assert!(errors.is_empty(), "{name}: {errors:#?}");
    let mut odd = document.clone();
    odd["no-such-field"] = json!(1);
    assert!(!validator.is_valid(&odd), "{name}: it takes anything");
}

/// What a command prints has to be valid, document by document.
fn prints(name: &str, arguments: &[&str]) -> Value {
    let output = run(arguments);
    let said = String::from_utf8_lossy(&output.stderr);
    let documents = serde_json::Deserializer::from_slice(&output.stdout).into_iter::<Value>();
    let documents: Vec<Value> = documents.map(|document| document.expect("JSON")).collect();
    assert!(!documents.is_empty(), "{arguments:?}: {said}");
    documents.iter().for_each(|document| is_valid(name, document));
    documents.into_iter().next_back().unwrap_or_default()
}

#[test]
fn what_is_told_of_a_process_is_as_its_schema_says() {
    let copied = Copied::file(&fixture("leaks", NEWEST, BuildFlags::Default), "leaks");
    let (target, _): (_, Statement) = Target::ready(&copied.program, ["-n", "3"]);
    let pid = target.pid().to_string();
    let json = ["--pid", &pid, "--format", "json"];
    let with = |command: &'static str, more: &[&'static str]| [&[command], &json[..], more].concat();
    let report = prints("watch", &with("watch", &["--for", "2s", "--threshold", "0s", "--interval", "500ms"]));
    assert!(report["runtime"]["now"].is_object() && !report["groups"].as_array().expect("a list").is_empty());
    let lines = ["watch", "--pid", &pid, "--for", "2s", "--interval", "500ms", "--format", "jsonl"];
    prints("watch", &lines);
    prints("mem", &with("mem", &[]));
    prints("sched", &with("sched", &["--detail"]));
    prints("why", &with("why", &[]));
    prints("prove", &with("prove", &["--max-pause", "20s"]));
    let snapshot = prints("snapshot", &with("snapshot", &[]));
    let earlier = tempfile::NamedTempFile::new().expect("a file");
    serde_json::to_writer(&earlier, &snapshot).expect("written");
    let earlier = earlier.path().to_str().expect("UTF-8");
    prints("snapshot-diff", &["snapshot", "--pid", &pid, "--format", "json", "--diff", earlier]);
    prints("ps", &["ps", "--format", "json"]);
    prints("doctor", &["doctor", "--format", "json"]);
    let node = Node::start(&copied.pattern(), &["--threshold", "0s", "--interval", "500ms"]);
    node.wait_for_state(target.pid(), "watched");
    let of = |part: &str| format!("/api/v1/processes/{pid}{part}");
    for (name, path) in [("processes", "/api/v1/processes"), ("watch", &of("")), ("history", &of("/history"))] {
        let document = node.wait_for(path, |node| serde_json::from_str(&node.get(path).1).ok());
        is_valid(name, &document);
    }
}

#[test]
fn incidents_and_proofs_are_as_their_schemas_say() {
    let target = Target::spawn_command(Command::new(fixture("cases/ticketer", NEWEST, BuildFlags::Default)));
    let pid = target.pid().to_string();
    prints("why", &["why", "--pid", &pid, "--format", "json"]);
    let stuck = fixture("stuck", NEWEST, BuildFlags::Default);
    let (target, _): (_, Value) = Target::ready(&stuck, ["send=5", "mutex=2", "cond=2", "select=2"]);
    let pid = target.pid().to_string();
    let proof = prints("prove", &["prove", "--pid", &pid, "--max-pause", "20s", "--format", "json"]);
    assert_eq!(proof["goroutines"]["proven"], 11);
}

#[test]
fn what_is_told_of_a_recording_is_as_its_schema_says() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("recording.db");
    incident::record(&path);
    let record = ["timeline", "--record", path.to_str().expect("UTF-8"), "--format", "json"];
    prints("timeline-list", &record);
    prints("timeline", &[&record[..], &["--exe", "shop"]].concat());
    prints("timeline-compare", &[&record[..], &["--pid", "4790", "--compare", "--compare-pid", "4711"]].concat());
}
