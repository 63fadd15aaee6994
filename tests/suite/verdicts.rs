//! `likely` and `idle` on live programs: what piles up is told, what merely waits is not.

use std::collections::BTreeSet;

use parkwarden::detect::Verdict;
use parkwarden::report::{Group, Report};
use parkwarden_tests::agent::run;
use parkwarden_tests::target::Target;
use parkwarden_tests::{BuildFlags, fixture};
use serde::Deserialize;
use serde_json::Value;
use xtask::toolchain;

/// Five windows of 400 ms, which is what it takes to judge.
const WATCH: [&str; 8] = ["--for", "2s", "--interval", "400ms", "--threshold", "200ms", "--format", "json"];

#[derive(Deserialize)]
struct Piling {
    classes: BTreeSet<String>,
}

fn watch(pid: u32, arguments: &[&str]) -> Report {
    let pid = pid.to_string();
    let output = run(["watch", "--pid", &pid].iter().chain(&WATCH).chain(arguments));
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("a report")
}

fn likely(report: &Report) -> impl Iterator<Item = &Group> {
    report.groups.iter().filter(|group| group.verdict == Verdict::Likely)
}

#[test]
fn leaks_that_stay_reachable_are_likely_within_five_windows() {
    for version in toolchain::VERSIONS {
        let program = fixture("piling", version, BuildFlags::Default);
        let (target, Piling { classes }): (_, Piling) = Target::ready(&program, [] as [&str; 0]);
        let report = watch(target.pid(), &[]);
        let found: BTreeSet<String> =
            likely(&report).filter_map(|group| group.created_by.as_ref()).map(|place| place.function.clone()).collect();
        let missed: Vec<_> = classes.difference(&found).collect();
        assert!(missed.len() * 10 <= classes.len(), "Go {version}: {missed:?} of {} are missed", classes.len());
        // Nothing else leaks: the goroutines that start the others, and main, do not.
        let wrong: Vec<_> = found.difference(&classes).collect();
        assert!(wrong.is_empty(), "Go {version}: {wrong:?} are no leaks");
        eprintln!("Go {version}: {} of {} classes", found.len(), classes.len());
    }
}

#[test]
fn goroutines_that_wait_for_good_reasons_are_idle() {
    for version in toolchain::VERSIONS {
        let (target, _): (_, Value) =
            Target::ready(&fixture("benign", version, BuildFlags::Default), std::iter::empty::<&str>());
        let report = watch(target.pid(), &[]);
        let wrong: Vec<_> = likely(&report).collect();
        assert!(wrong.is_empty(), "Go {version}: {wrong:#?}");
        assert!(report.goroutines.parked_over_threshold > 1000, "Go {version}: {:?}", report.goroutines);
    }
}

#[test]
fn a_leak_sets_the_exit_status_when_asked_and_too_short_a_watch_says_so() {
    let program = fixture("piling", toolchain::NEWEST, BuildFlags::Default);
    let (target, _): (_, Piling) = Target::ready(&program, [] as [&str; 0]);
    let pid = target.pid().to_string();
    let watch = ["watch", "--pid", &pid, "--format", "json", "--threshold", "100ms", "--fail-on-leak"];
    let output = run(watch.iter().chain(&["--for", "2s", "--interval", "400ms"]));
    assert_eq!(output.status.code(), Some(3), "{}", String::from_utf8_lossy(&output.stderr));
    // Two looks make one window.
    let output = run(watch.iter().chain(&["--for", "400ms", "--interval", "1m"]));
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Report = serde_json::from_slice(&output.stdout).expect("a report");
    let said = |group: &Group| group.evidence.iter().any(|sentence| sentence.contains("takes 5 windows"));
    assert!(report.groups.iter().any(said), "{:#?}", report.groups);
    // Unless that is enough for the user.
    let output = run(watch.iter().chain(&["--for", "1s", "--interval", "300ms", "--windows", "2"]));
    assert_eq!(output.status.code(), Some(3), "{}", String::from_utf8_lossy(&output.stderr));
}
