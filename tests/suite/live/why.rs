//! `parkwarden why` on programs whose goroutines wait for one another.

use std::path::PathBuf;
use std::process::Command;

use parkwarden::why::{Link, WhyReport};
use parkwarden_tests::agent::run;
use parkwarden_tests::target::Target;
use parkwarden_tests::{BuildFlags, fixture, wait};
use serde::Deserialize;
use xtask::toolchain::{NEWEST, VERSIONS};

const ALL: [BuildFlags; 3] = [BuildFlags::Default, BuildFlags::Stripped, BuildFlags::Unoptimized];

fn case(name: &str, flags: BuildFlags) -> PathBuf {
    fixture(&format!("cases/{name}"), NEWEST, flags)
}

/// What is said of a program once that is as wanted; it has to come to where it hangs first.
fn why_when(program: &PathBuf, as_wanted: impl Fn(&WhyReport) -> bool) -> WhyReport {
    let target = Target::spawn_command(Command::new(program));
    let pid = target.pid().to_string();
    wait::until(format!("{} as wanted", program.display()), std::time::Duration::from_secs(60), || {
        let output = run(["why", "--pid", &pid, "--format", "json", "--for", "300ms"]);
        let report = serde_json::from_slice(&output.stdout).ok()?;
        Some(report).filter(&as_wanted)
    })
}

#[test]
fn the_holder_of_a_lock_is_the_root_and_what_it_does_the_headline() {
    for flags in ALL {
        let report = why_when(&case("ticketer", flags), |report| {
            report.incidents.first().is_some_and(|incident| incident.goroutines > 3)
        });
        let incident = &report.incidents[0];
        let root = &incident.groups[0];
        assert_eq!((root.count, root.distance, root.wait_reason.as_str()), (1, 0, "chan send"), "{incident:#?}");
        let behind = &incident.groups[1];
        assert_eq!((behind.distance, behind.wait_reason.as_str()), (1, "sync.Mutex.Lock"), "{incident:#?}");
        assert_eq!(behind.count + 1, incident.goroutines, "{incident:#?}");
        assert!(incident.waits.iter().all(|waits| waits.to == root.goids[0]), "{incident:#?}");
        assert!(incident.waits.iter().all(|waits| waits.link == Link::Holds), "{incident:#?}");
        assert!(incident.headline.contains("sends on an unbuffered channel"), "{}", incident.headline);
        assert!(incident.headline.contains("main.(*watcher).deliver"), "{}", incident.headline);
    }
}

#[test]
fn locks_in_two_orders_are_a_circle_with_the_others_behind() {
    // Without optimization several stacks refer to both locks, and nobody is said to hold them.
    for flags in [BuildFlags::Default, BuildFlags::Stripped] {
        let report = why_when(&case("abba", flags), |report| {
            report.incidents.first().is_some_and(|incident| incident.goroutines == 7)
        });
        let incident = &report.incidents[0];
        assert!(incident.cycle, "{incident:#?}");
        let behind: u64 = incident.groups.iter().filter(|group| group.distance > 0).map(|group| group.count).sum();
        assert_eq!(behind, 5, "{incident:#?}");
        assert!(incident.headline.contains("in a circle"), "{}", incident.headline);
    }
}

#[test]
fn who_reads_twice_holds_what_it_wants() {
    let report = why_when(&case("rlocktwice", BuildFlags::Default), |report| {
        report.incidents.first().is_some_and(|incident| incident.goroutines == 6)
    });
    assert!(report.incidents[0].headline.contains("that it holds itself"), "{}", report.incidents[0].headline);
    let groups = &report.incidents[0].groups;
    let said: Vec<String> = groups.iter().flat_map(|group| &group.waits_for).map(ToString::to_string).collect();
    assert!(
        said.iter().all(|said| said.contains("a writer waits, 1 reader holds it, 5 readers wait behind it")),
        "{said:#?}"
    );
}

#[test]
fn members_of_a_wait_group_are_those_whose_done_is_yet_to_come() {
    for flags in ALL {
        let report = why_when(&case("errlimit", flags), |report| {
            report.incidents.first().is_some_and(|incident| incident.goroutines == 4)
        });
        let incident = &report.incidents[0];
        assert_eq!(incident.waits.len(), 3, "{incident:#?}");
        assert!(incident.waits.iter().all(|waits| waits.link == Link::Member), "{incident:#?}");
        assert_eq!(incident.groups[0].wait_reason, "chan send", "{incident:#?}");
    }
}

#[test]
fn one_goroutine_its_graph_and_whoever_does_not_stand() {
    let target = Target::spawn_command(Command::new(case("abba", BuildFlags::Default)));
    let pid = target.pid().to_string();
    let report: WhyReport = wait::until("a circle", std::time::Duration::from_secs(60), || {
        let output = run(["why", "--pid", &pid, "--format", "json"]);
        serde_json::from_slice(&output.stdout).ok().filter(|report: &WhyReport| !report.incidents.is_empty())
    });
    let goid = report.incidents[0].groups[0].goids[0].to_string();
    let dot = run(["why", "--pid", &pid, "--goid", &goid, "--format", "dot"]);
    let dot = String::from_utf8_lossy(&dot.stdout);
    assert!(dot.starts_with("digraph why {") && dot.trim_end().ends_with('}'), "{dot}");
    assert!(dot.contains(&format!("g{goid} -> g")), "{dot}");
    let text = run(["why", "--pid", &pid, "--goid", &goid]);
    assert!(String::from_utf8_lossy(&text.stdout).contains("INCIDENT "), "{}", String::from_utf8_lossy(&text.stdout));
    let none = run(["why", "--pid", &pid, "--goid", "999999"]);
    assert_eq!(none.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&none.stderr).contains("snapshot"), "{}", String::from_utf8_lossy(&none.stderr));
}

/// Who stands at a channel, by the program's own word.
#[derive(Debug, Deserialize)]
struct Sides {
    sender: u64,
    receiver: u64,
}

/// What is said of `partners` in this way, once its goroutines stand.
fn partners(version: &str, flags: BuildFlags, way: &str, standing: u64) -> (Sides, WhyReport) {
    let (target, sides): (_, Sides) = Target::ready(&fixture("partners", version, flags), [way]);
    let pid = target.pid().to_string();
    let report = wait::until(format!("{way} to stand"), std::time::Duration::from_secs(60), || {
        let output = run(["why", "--pid", &pid, "--format", "json", "--for", "200ms"]);
        let report: WhyReport = serde_json::from_slice(&output.stdout).ok()?;
        Some(report).filter(|report| report.standing == standing)
    });
    (sides, report)
}

/// The group that one goroutine is in.
fn standing(report: &WhyReport, goid: u64) -> &parkwarden::why::Standing {
    let in_incidents = report.incidents.iter().flat_map(|incident| &incident.groups);
    in_incidents.chain(&report.others).find(|group| group.goids.contains(&goid)).expect("it stands")
}

#[test]
fn a_lock_and_a_channel_make_a_circle_too() {
    for version in VERSIONS {
        for flags in ALL {
            let (Sides { sender, receiver }, report) = partners(version, flags, "lock", 3);
            let [incident] = &report.incidents[..] else { panic!("Go {version}, {flags:?}: {report:#?}") };
            assert!(incident.cycle && incident.goroutines == 2, "Go {version}, {flags:?}: {incident:#?}");
            assert!(incident.headline.contains("may wait for one another in a circle"), "{}", incident.headline);
            let links: Vec<(u64, u64, Link)> =
                incident.waits.iter().map(|waits| (waits.from, waits.to, waits.link)).collect();
            assert!(links.contains(&(receiver, sender, Link::Holds)), "Go {version}, {flags:?}: {links:?}");
            assert!(links.contains(&(sender, receiver, Link::MayServe)), "Go {version}, {flags:?}: {links:?}");
            assert_eq!(standing(&report, sender).could, [receiver], "Go {version}, {flags:?}");
        }
    }
}

#[test]
fn who_could_send_is_named_and_nobody_accused() {
    for flags in ALL {
        let (Sides { sender, receiver }, report) = partners(NEWEST, flags, "rest", 4);
        assert!(report.incidents.is_empty(), "{flags:?}: {report:#?}");
        assert_eq!(standing(&report, receiver).could, [sender], "{flags:?}");
        let (Sides { sender, .. }, report) = partners(NEWEST, flags, "none", 2);
        assert!(report.incidents.is_empty(), "{flags:?}: {report:#?}");
        assert!(standing(&report, sender).could.is_empty(), "{flags:?}");
        assert_eq!(standing(&report, sender).wait_reason, "chan send", "{flags:?}");
    }
}

/// The first handler of `served` sends a request of its own, whose path is not the one it serves.
#[test]
fn the_requests_of_handlers_that_hang_are_told_without_their_queries() {
    for version in VERSIONS {
        for (flags, protocol) in [(BuildFlags::Default, "h1"), (BuildFlags::Stripped, "h2")] {
            let what = format!("Go {version}, {flags:?}, {protocol}");
            let (target, _): (_, serde_json::Value) = Target::ready(&fixture("served", version, flags), [protocol]);
            let pid = target.pid().to_string();
            let report: WhyReport =
                wait::until(format!("{what}: handlers"), std::time::Duration::from_secs(60), || {
                    let output = run(["why", "--pid", &pid, "--format", "json", "--for", "200ms"]);
                    let report: WhyReport = serde_json::from_slice(&output.stdout).ok()?;
                    let hangs = |incident: &parkwarden::why::Incident| incident.goroutines == 4;
                    report.incidents.iter().any(hangs).then_some(report)
                });
            let incident = report.incidents.iter().find(|incident| incident.goroutines == 4).expect("it was there");
            let mut served: Vec<&String> = incident.groups.iter().flat_map(|group| &group.serves).collect();
            served.sort();
            let expected: Vec<String> = (0..4).map(|nth| format!("POST /orders/{nth}")).collect();
            assert_eq!(served, expected.iter().collect::<Vec<_>>(), "{what}: {incident:#?}");
            let root = &incident.groups[0];
            assert_eq!(root.serves, ["POST /orders/0"], "{what}: the holder has sent a request of its own");
        }
    }
}

#[test]
fn a_watch_has_the_request_of_a_handler_that_hangs_as_evidence() {
    let program = fixture("served", NEWEST, BuildFlags::Default);
    let (target, _): (_, serde_json::Value) = Target::ready(&program, [""; 0]);
    let pid = target.pid().to_string();
    let watch = ["watch", "--pid", &pid, "--for", "6s", "--interval", "1s", "--threshold", "1s", "--format", "json"];
    let output = run(watch);
    let report: parkwarden::report::Report = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    let waiting = report.groups.iter().find(|group| group.wait_reason == "sync.Mutex.Lock").expect("they stand");
    let evidence = waiting.evidence.join("\n");
    assert!(evidence.contains(" serves POST /orders/") && !evidence.contains("secret"), "{waiting:#?}");
}
