//! `parkwarden snapshot` on live Go programs.

use parkwarden::snapshot::Snapshot;
use parkwarden::snapshot::diff::Diff;
use parkwarden_tests::agent::run;
use parkwarden_tests::leaks::{Statement, assert_snapshot_as_said};
use parkwarden_tests::pprof::pprof;
use parkwarden_tests::target::Target;
use parkwarden_tests::{BuildFlags, fixture};
use serde_json::Value;
use xtask::toolchain::{self, NEWEST};

use crate::live::watch::EACH;

fn snapshot(pid: u32, arguments: &[&str]) -> Snapshot {
    let pid = pid.to_string();
    let output = run(["snapshot", "--pid", &pid, "--format", "json"].iter().chain(arguments));
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("a snapshot")
}

#[test]
fn a_snapshot_is_what_the_program_says_of_itself() {
    for version in toolchain::VERSIONS {
        let program = fixture("leaks", version, BuildFlags::Default);
        let (target, statement): (_, Statement) = Target::ready(&program, ["-n", EACH]);
        assert_snapshot_as_said(&snapshot(target.pid(), &[]), &statement, version);
    }
}

#[test]
fn groups_can_be_made_by_one_side_alone() {
    let program = fixture("leaks", NEWEST, BuildFlags::Default);
    let (target, statement): (_, Statement) = Target::ready(&program, ["-n", EACH]);
    let total = statement.num_goroutine as u64;
    for (by, created, blocked) in [("created", true, false), ("blocked", false, true), ("both", true, true)] {
        let snapshot = snapshot(target.pid(), &["--group-by", by]);
        assert_eq!(snapshot.groups.iter().map(|group| group.count).sum::<u64>(), total, "{by}");
        assert_eq!(snapshot.groups.iter().any(|group| group.created_by.is_some()), created, "{by}");
        assert_eq!(snapshot.groups.iter().any(|group| group.blocked_at.is_some()), blocked, "{by}");
    }
}

#[test]
fn two_snapshots_tell_what_grew() {
    let dir = tempfile::tempdir().expect("a directory");
    let earlier = dir.path().join("earlier.json");
    let earlier = earlier.to_str().expect("UTF-8");
    let program = fixture("leaks", NEWEST, BuildFlags::Default);
    let (mut target, _): (_, Value) = Target::ready(&program, ["-wait", "-n", EACH, "-only", "chan-send"]);
    let pid = target.pid().to_string();
    let output = run(["snapshot", "--pid", &pid, "--format", "json", "-o", earlier]);
    assert_eq!(output.status.code(), Some(0));
    let _: Statement = target.ask("go");
    let output = run(["snapshot", "--pid", &pid, "--format", "json", "--diff", earlier]);
    let diff: Diff = serde_json::from_slice(&output.stdout).expect("a comparison");
    let first = diff.changes.first().expect("something grew");
    assert_eq!((first.before, first.after, first.change), (0, 3, 3));
    assert_eq!(first.created_by.as_ref().map(|place| place.function.as_str()), Some("main.startChanSend"));

    std::fs::write(earlier, "{\"schema\": 1}").expect("written");
    let output = run(["snapshot", "--pid", &pid, "--diff", earlier]);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert!(errors.contains("is not a snapshot"), "{errors}");
}

#[test]
fn a_profile_opens_in_go_tool_pprof_with_the_same_counts() {
    let dir = tempfile::tempdir().expect("a directory");
    let profile = dir.path().join("goroutines.pb.gz");
    let program = fixture("leaks", NEWEST, BuildFlags::Default);
    let (target, statement): (_, Statement) = Target::ready(&program, ["-n", EACH]);
    let pid = target.pid().to_string();
    let file = profile.to_str().expect("UTF-8");
    let take = |by| {
        let output = run(["snapshot", "--pid", &pid, "--format", "pprof", "--group-by", by, "-o", file]);
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    };
    take("both");

    let pprof = |arguments: &[&str]| pprof(arguments, &profile);
    // `traces` prints each sample: its labels, then its value and its frames.
    let traces = pprof(&["-traces"]);
    for group in statement.classes.iter().filter(|group| !group.class.is_empty()) {
        let place = group.created_by.as_ref().expect("a go statement");
        let created = format!("created_by:  {} {}:{}\n", place.function, place.file, place.line);
        let sample = traces
            .split("-----------+")
            .find(|sample| sample.contains(&created) && sample.contains(&group.wait_reason))
            .unwrap_or_else(|| panic!("no sample with {created}:\n{traces}"));
        let blocked = group.blocked_at.as_ref().expect("a place");
        assert!(sample.contains(&blocked.function), "{sample}");
        assert!(sample.lines().any(|line| line.trim_start().starts_with(&format!("{} ", group.count))), "{sample}");
    }
    let top = pprof(&["-top", "-sample_index=goroutine"]);
    assert!(top.contains(&format!("of {} total", statement.num_goroutine)), "{top}");

    // By creation the go statement is all that is left of a stack; by blocking it is not told.
    take("created");
    let traces = pprof(&["-traces"]);
    assert!(traces.contains("created_by:") && traces.contains("main.startChanSend\n"), "{traces}");
    assert!(!traces.contains("wait_reason:") && !traces.contains("runtime.gopark"), "{traces}");
    take("blocked");
    let traces = pprof(&["-traces"]);
    assert!(!traces.contains("created_by:"), "{traces}");
    assert!(traces.contains("wait_reason:") && traces.contains("runtime.gopark"), "{traces}");
}
