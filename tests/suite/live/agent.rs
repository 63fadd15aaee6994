//! `parkwarden agent`: it finds processes by itself, watches those that are chosen, serves what it sees, and is never in the
//! way.

use std::fs;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use parkwarden_tests::copied::Copied;
use parkwarden_tests::leaks::Statement;
use parkwarden_tests::node::Node;
use parkwarden_tests::target::Target;
use serde_json::Value;

use super::watch::{EACH, assert_as_said};

#[test]
fn processes_are_found_watched_and_let_go_of() {
    let copied = Copied::of("leaks");
    let (before, _): (_, Value) = Target::ready(&copied.program, ["-wait", "-n", EACH]);
    let recording = copied.dir.path().join("recording.db");
    let record = recording.to_str().expect("a path");
    let node = Node::start(&copied.pattern(), &["--threshold", "0s", "--interval", "500ms", "--record", record]);
    node.wait_for_state(before.pid(), "watched");
    let (mut after, _): (_, Value) = Target::ready(&copied.program, ["-wait", "-n", EACH]);
    let entry = node.wait_for_state(after.pid(), "watched");
    assert_eq!(entry["exe"], copied.program.to_str().expect("a path"));
    assert!(entry["go_version"].as_str().is_some_and(|version| version.starts_with("go1.")), "{entry}");
    node.wait_for("readiness", |node| (node.get("/readyz").0 == 200).then_some(()));

    let said: Statement = after.ask("go");
    let parked = said.classes.iter().filter(|group| !matches!(&*group.class, "" | "syscall"));
    let in_all = parked.map(|group| group.count as u64).sum();
    let report = node.wait_for("all leaks in the report", |node| {
        let report = node.report(after.pid())?;
        (report.groups.iter().map(|group| group.count).sum::<u64>() >= in_all).then_some(report)
    });
    assert_as_said(&report, &said, "agent");

    kill(Pid::from_raw(after.pid().cast_signed()), Signal::SIGKILL).expect("killed");
    node.wait_for("its end", |node| node.process(after.pid()).is_none().then_some(()));
    let (status, took) = node.end();
    assert!(status.success(), "{status}");
    assert!(took < Duration::from_secs(5), "it took {took:?} to end");
    assert!(recording.exists() && !recording.with_extension("db-wal").exists(), "all of it is in one file");
    assert!(before.exit().success(), "the target ran on");
}

#[test]
fn a_changed_configuration_is_taken_and_a_wrong_one_is_not() {
    let copied = Copied::of("leaks");
    let (target, _): (_, Value) = Target::ready(&copied.program, ["-wait", "-n", EACH]);
    let file = copied.dir.path().join("parkwarden.toml");
    let executables = |pattern: &str| {
        let text = format!("[watch]\ninterval = \"500ms\"\n[select]\nexecutables = [\"{pattern}\"]\n");
        fs::write(&file, text).expect("written");
    };
    executables(&copied.pattern());
    let node = Node::start("", &["--config", file.to_str().expect("a path")]);
    node.wait_for_state(target.pid(), "watched");

    executables("/nowhere/*");
    node.signal(Signal::SIGHUP);
    let entry = node.wait_for_state(target.pid(), "unselected");
    assert!(entry["message"].as_str().is_some_and(|why| why.contains("select.executables")), "{entry}");
    // What was seen of it is not shown as if it were of now.
    assert!(node.report(target.pid()).is_none());
    assert_eq!(node.series("parkwarden_goroutines"), []);

    fs::write(&file, "[watch]\nintervall = \"1s\"\n").expect("written");
    node.signal(Signal::SIGHUP);
    let said = node.wait_for("the error", |node| {
        node.said().into_iter().find(|line| line.contains("the configuration stays as it was"))
    });
    assert!(said.contains("parkwarden.toml") && said.contains("line 2"), "{said}");
    assert_eq!(node.process(target.pid()).expect("known")["state"], "unselected");

    executables(&copied.pattern());
    node.signal(Signal::SIGHUP);
    node.wait_for_state(target.pid(), "watched");
}

#[test]
fn a_process_there_is_no_place_for_gets_the_next_that_is_free() {
    let copied = Copied::of("leaks");
    let (first, _): (_, Value) = Target::ready(&copied.program, ["-wait", "-n", EACH]);
    let node = Node::start(&copied.pattern(), &["--max-processes", "1"]);
    node.wait_for_state(first.pid(), "watched");
    let (second, _): (_, Value) = Target::ready(&copied.program, ["-wait", "-n", EACH]);
    let entry = node.wait_for_state(second.pid(), "refused");
    assert_eq!(entry["reason"], "limit", "{entry}");
    let freed = Instant::now();
    first.kill();
    node.wait_for_state(second.pid(), "watched");
    assert!(freed.elapsed() < Duration::from_secs(20), "it waited as if there were no place");
}

#[test]
fn an_agent_that_has_as_much_memory_as_it_may_watches_no_more_until_it_may_have_more() {
    let copied = Copied::of("leaks");
    let directory = tempfile::tempdir().expect("a directory");
    let config = directory.path().join("parkwarden.toml");
    std::fs::write(&config, "[limits]\nmemory_mib = 1\n").expect("written");
    let (target, _): (_, Value) = Target::ready(&copied.program, ["-wait", "-n", EACH]);
    let node = Node::start(&copied.pattern(), &["--config", config.to_str().expect("UTF-8")]);
    let entry = node.wait_for_state(target.pid(), "refused");
    assert!(entry["message"].as_str().is_some_and(|why| why.contains("limits.memory_mib allows (1)")), "{entry}");
    std::fs::write(&config, "[limits]\nmemory_mib = 0\n").expect("written");
    node.signal(Signal::SIGHUP);
    node.wait_for_state(target.pid(), "watched");
}

#[test]
fn a_process_with_few_goroutines_waits_until_it_has_more() {
    let copied = Copied::of("leaks");
    let (target, _): (_, Value) = Target::ready(&copied.program, ["-wait", "-n", EACH]);
    let node = Node::start(&copied.pattern(), &["--min-goroutines", "1000000"]);
    let entry = node.wait_for_state(target.pid(), "unselected");
    assert!(entry["message"].as_str().is_some_and(|why| why.contains("min_goroutines")), "{entry}");
}
