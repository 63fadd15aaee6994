//! Labels of goroutines are those that the program's own profile has, in all the forms that versions of Go keep them in.

use std::collections::BTreeMap;

use parkwarden::export::goroutine_text;
use parkwarden::live::Target as Live;
use parkwarden::snapshot::{GroupBy, Look, Snapshot};
use parkwarden_tests::agent::{Watch, run};
use parkwarden_tests::copied::Copied;
use parkwarden_tests::node::Node;
use parkwarden_tests::pprof::pprof;
use parkwarden_tests::target::Target;
use parkwarden_tests::{BuildFlags, fixture};
use serde::Deserialize;
use xtask::toolchain::{self, NEWEST};

#[derive(Debug, Deserialize)]
struct Ready {
    #[expect(dead_code, reason = "its presence is what matters")]
    ready: bool,
}

#[derive(Debug, Deserialize)]
struct Profile {
    text: String,
}

/// How many goroutines have which labels, by the line that a profile with debug=1 has for them.
fn by_labels(profile: &str) -> BTreeMap<&str, u64> {
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    let mut lines = profile.lines().peekable();
    while let Some(line) = lines.next() {
        let Some((count, _)) = line.split_once(" @") else { continue };
        if let Some(labels) = lines.peek().and_then(|line| line.strip_prefix("# labels: ")) {
            *counts.entry(labels).or_default() += count.parse::<u64>().expect("a count");
        }
    }
    counts
}

#[test]
fn labels_are_those_of_the_programs_own_profile() {
    for version in toolchain::VERSIONS {
        for flags in [BuildFlags::Default, BuildFlags::Stripped] {
            let what = format!("{version} {}", flags.name());
            let (mut target, Ready { .. }) = Target::ready::<&str, _>(&fixture("labels", version, flags), []);
            let Profile { text: said } = target.ask("profile");
            let mut live = Live::open(target.pid()).expect("a Go process");
            let look = Look::at(&mut live).expect("a look");
            assert_eq!(look.labels.unread, 0, "{what}");
            let text = goroutine_text::counts(&look);
            let said = by_labels(&said);
            assert!(said.len() > 20, "{what}: {said:#?}");
            assert_eq!(by_labels(&text), said, "{what}");
        }
    }
}

#[test]
fn a_snapshot_a_profile_and_a_report_have_the_most_frequent_labels() {
    let program = fixture("labels", NEWEST, BuildFlags::Default);
    let (target, Ready { .. }) = Target::ready::<&str, _>(&program, []);
    let pid = target.pid().to_string();
    let snapshot = run(["snapshot", "--pid", &pid, "--format", "json"]);
    let snapshot: Snapshot = serde_json::from_slice(&snapshot.stdout).expect("a snapshot");
    assert_eq!(snapshot.group_by, GroupBy::Both);
    let tenant = snapshot.groups[0].labels.iter().find(|label| label.key == "tenant").expect("most have one");
    assert_eq!((tenant.count, tenant.distinct), (85, 3));
    let values: Vec<(&str, u64)> = tenant.values.iter().map(|(value, count)| (&**value, *count)).collect();
    assert_eq!(values, [("a", 50), ("b", 30), ("", 5)]);

    let file = tempfile::NamedTempFile::new().expect("a file");
    let path = file.path().to_str().expect("UTF-8");
    assert!(run(["snapshot", "--pid", &pid, "--format", "pprof", "-o", path]).status.success());
    let tags = pprof(&["-tags", "-sample_index=goroutine"], file.path());
    for line in ["tenant: Total 80 of", ": a\n", ": b\n", "quo\"te"] {
        assert!(tags.contains(line), "{line}: {tags}");
    }

    let watch = Watch::start(target.pid(), &["--mode", "census", "--threshold", "0s"]);
    let report = watch.interrupt().report();
    let of_tenants = report.groups.iter().find(|group| group.labels.iter().any(|label| label.key == "tenant"));
    let labels = &of_tenants.expect("a group").labels;
    assert_eq!(labels[0].line(), "tenant = a (50), b (30), \"\" (5)");
    assert_eq!(labels[1].line(), "handler = /search (80)");
}

#[test]
fn metrics_have_the_labels_that_were_asked_for_and_no_others() {
    let program = Copied::file(&fixture("labels", NEWEST, BuildFlags::Default), "labelled");
    let (mut target, Ready { .. }) = Target::ready::<&str, _>(&program.program, []);
    let Ready { .. } = target.ask("leak");
    let pattern = program.program.display().to_string();
    let prove = ["--prove", "true", "--max-pause", "2s", "--interval", "500ms", "--threshold", "500ms"];
    let node = Node::start(&pattern, &[&prove[..], &["--metrics-goroutine-labels", "tenant,other"]].concat());
    let proven = format!("pid=\"{}\",verdict=\"proven\",key=\"tenant\"", target.pid());
    let told = node.wait_for("its labels", |node| {
        let series = node.series("parkwarden_labelled_goroutines");
        series.iter().any(|(labels, _)| labels.contains(&proven)).then_some(series)
    });
    let value = |value: &str| {
        let of_it = format!("{proven},value=\"{value}\"");
        told.iter().find(|(labels, _)| labels.contains(&of_it)).map(|(_, count)| *count)
    };
    assert_eq!((value("x"), value("y")), (Some(3.0), Some(2.0)), "{told:?}");
    assert!(told.iter().all(|(labels, _)| labels.contains("key=\"tenant\"")), "{told:?}");
}
