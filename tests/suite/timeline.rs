//! Timelines of recordings: of an incident with a known truth, in every format.

use std::path::{Path, PathBuf};

use parkwarden::detect::Verdict;
use parkwarden::record::{ExitKind, GapCause};
use parkwarden::timeline::{Listing, MarkKind, Timeline};
use parkwarden_tests::agent::run;
use parkwarden_tests::incident::{self, CAUSE, CULPRIT, GAP, ONSET, OOM, RATE, REMEDY};

pub(crate) fn timeline(arguments: &[&str]) -> String {
    let output = run([&["timeline"], arguments].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// The synthetic incident, in a directory of its own.
pub(crate) fn incident_file() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("incident.db");
    incident::record(&file);
    (dir, file)
}

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

#[test]
fn an_incident_is_told_as_it_was() {
    let (_dir, file) = incident_file();
    let json = timeline(&["--record", text(&file), "--exe", "shop", "--format", "json"]);
    let timeline: Timeline = serde_json::from_str(&json).expect("a timeline");

    let culprit = &timeline.groups[timeline.culprit.expect("there is one")];
    assert_eq!(culprit.created_by.as_ref().map(|place| (place.function.as_str(), place.line)), Some((CULPRIT, 24)));
    assert_eq!(culprit.strongest, Some(Verdict::Likely));
    let onset = culprit.onset.expect("it grew");
    assert!(onset.ms.abs_diff(ONSET * 1000) <= 10_000, "{onset:?}");
    assert!((onset.earliest_ms..=onset.latest_ms).contains(&(ONSET * 1000)), "{onset:?}");
    assert!(!onset.before_first_look);
    assert_eq!((culprit.cause.as_deref(), culprit.remedy.as_deref()), (Some(CAUSE), Some(REMEDY)));
    let growth = culprit.growth_per_second.expect("it grew");
    assert!((growth / RATE as f64 - 1.0).abs() < 0.01, "{growth}");
    assert_eq!(
        timeline.headline,
        "main.(*Hub).subscribe most likely leaked 119 411 goroutines from 02:41, 65/s, until the OOM kill at 03:12 UTC."
    );

    let [first, second] = &timeline.lives[..] else { panic!("two processes") };
    assert_eq!((first.pid, second.pid, first.lane, second.lane), (4711, 4790, 0, 0));
    let ended = first.ended.as_ref().expect("it ended");
    assert_eq!((ended.kind, ended.ms), (ExitKind::OomKilled, OOM * 1000));
    assert_eq!((first.leaked, first.culprit, second.culprit), (119_411, timeline.culprit, None));
    assert_eq!(first.segments.len(), 2, "the gap parts them");
    let [gap] = &timeline.gaps[..] else { panic!("{:?}", timeline.gaps) };
    assert_eq!((gap.cause, gap.from_ms, gap.to_ms), (GapCause::NotRunning, (GAP.0 - 10) * 1000, GAP.1 * 1000));
    let kinds: Vec<MarkKind> = timeline.marks.iter().map(|mark| mark.kind).collect();
    assert_eq!(kinds, [MarkKind::Start, MarkKind::Onset, MarkKind::Verdict, MarkKind::OomKill, MarkKind::Restart]);
}

#[test]
fn the_text_says_the_same() {
    let (_dir, file) = incident_file();
    let said = timeline(&["--record", text(&file), "--pid", "4711"]);
    for part in [
        "main.(*Hub).subscribe most likely leaked 119 411 goroutines from 02:41, 65/s, until the OOM kill at 03:12 UTC.",
        "pid 4711 /srv/shop on node-3 (go1.27.3, pod shop-7d4b9c-x2x8q, limit 512 MiB)",
        "gap until 2026-11-23 01:58:10: not running",
        "created by  main.(*Hub).subscribe /src/shop/hub.go:24",
        "2026-11-23 03:12:04  pid 4711: the OOM kill",
    ] {
        assert!(said.contains(part), "{part}\n{said}");
    }
}

#[test]
fn without_a_selection_the_recording_is_listed() {
    let (_dir, file) = incident_file();
    let said = timeline(&["--record", text(&file)]);
    let row = said.lines().find(|line| line.starts_with("4711")).unwrap_or_else(|| panic!("{said}"));
    for part in ["likely", "OOM kill", "/srv/shop", "shop-7d4b9c-x2x8q"] {
        assert!(row.contains(part), "{part}: {row}");
    }
    let listing: Listing =
        serde_json::from_str(&timeline(&["--record", text(&file), "--format", "json"])).expect("a listing");
    assert_eq!(listing.processes.iter().map(|listed| listed.pid).collect::<Vec<_>>(), [4711, 4790]);
    assert_eq!(listing.processes[0].ended, Some(ExitKind::OomKilled));
}

#[test]
fn a_part_of_the_time_is_a_timeline_too() {
    let (_dir, file) = incident_file();
    let json = timeline(&[
        "--record",
        text(&file),
        "--exe",
        "/srv/shop",
        "--format",
        "json",
        "--since",
        "2026-11-23T00:45:00Z",
        "--until",
        "2026-11-23 02:30:00",
    ]);
    let timeline: Timeline = serde_json::from_str(&json).expect("a timeline");
    assert_eq!(timeline.culprit, None, "{}", timeline.headline);
    assert!(timeline.headline.starts_with("Nothing behaves like a leak"), "{}", timeline.headline);
    assert_eq!(timeline.lives.len(), 1);
    assert_eq!(timeline.lives[0].ended, None);
}

#[test]
fn what_is_not_there_is_said() {
    let (dir, file) = incident_file();
    let errors = |arguments: &[&str]| {
        let output = run([&["timeline", "--record"], arguments].concat());
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let said = errors(&[text(&file), "--pid", "1"]);
    assert!(said.contains("holds no such process") && said.contains("parkwarden timeline --record"), "{said}");
    let said = errors(&[text(&dir.path().join("absent"))]);
    assert!(said.contains("No such file"), "{said}");
    let said = errors(&[text(&file), "--format", "html"]);
    assert!(said.contains("name one"), "{said}");
}

#[test]
fn before_and_after_are_compared() {
    let (_dir, file) = incident_file();
    let said = timeline(&[
        "--record",
        text(&file),
        "--pid",
        "4711",
        "--since",
        "2026-11-23T02:30:00Z",
        "--compare",
        "--compare-pid",
        "4711",
        "--compare-until",
        "2026-11-23T02:30:00Z",
    ]);
    let grew: Vec<&str> = said.lines().filter(|line| line.starts_with("grew") || line.starts_with("new")).collect();
    assert_eq!(grew.len(), 1, "{said}");
    assert!(grew[0].contains(CULPRIT) && grew[0].contains("+65/s"), "{said}");
    // Both sides mean the process that is named once.
    let times = ["--since", "2026-11-23T02:30:00Z", "--compare", "--compare-until", "2026-11-23T02:30:00Z"];
    let once = timeline(&[&["--record", text(&file), "--pid", "4711"], &times[..]].concat());
    assert_eq!(once, said);
    let itself = run(["timeline", "--record", text(&file), "--pid", "4711", "--compare"]);
    let why = String::from_utf8_lossy(&itself.stderr);
    assert!(itself.status.code() == Some(2) && why.contains("--compare-until"), "{why}");
    let backwards =
        timeline(&["--record", text(&file), "--pid", "4790", "--compare", text(&file), "--compare-pid", "4711"]);
    assert!(backwards.lines().any(|line| line.starts_with("shrank") && line.contains(CULPRIT)), "{backwards}");
}

/// The events of a trace, which is checked for what every event must have.
fn events(trace: &str) -> Vec<serde_json::Value> {
    let trace: serde_json::Value = serde_json::from_str(trace).expect("JSON");
    let events = trace["traceEvents"].as_array().expect("events").clone();
    for event in &events {
        let kind = event["ph"].as_str().expect("a kind");
        assert!(event["pid"].is_u64() && event["name"].is_string(), "{event}");
        match kind {
            "M" => assert!(event["args"]["name"].is_string(), "{event}"),
            "C" => assert!(event["ts"].is_number() && event["args"]["value"].is_number(), "{event}"),
            "X" => assert!(event["ts"].is_number() && event["dur"].as_f64().is_some_and(|d| d >= 0.0), "{event}"),
            "i" => assert!(event["ts"].is_number() && event["s"].is_string(), "{event}"),
            "s" | "f" => assert!(event["ts"].is_number() && event["id"].is_u64(), "{event}"),
            other => panic!("{other}: {event}"),
        }
    }
    events
}

#[test]
fn the_trace_has_counters_instants_gaps_and_goroutines() {
    let (_dir, file) = incident_file();
    let events = events(&timeline(&["--record", text(&file), "--exe", "shop", "--format", "perfetto"]));
    let named = |kind: &str, part: &str| {
        let fits = |event: &&serde_json::Value| {
            event["ph"] == kind && event["name"].as_str().is_some_and(|name| name.contains(part))
        };
        events.iter().filter(fits).collect::<Vec<_>>()
    };
    let counts = named("C", &format!("site {CULPRIT}:24"));
    let most = counts.iter().filter_map(|event| event["args"]["value"].as_f64()).fold(0.0, f64::max);
    assert_eq!(most, 120_061.0);
    assert_eq!(named("i", "the OOM kill")[0]["ts"], serde_json::json!(OOM as f64 * 1e6));
    assert_eq!(named("X", "not running").len(), 1);
    assert_eq!(named("X", "parked: select").len(), 8);
}

#[test]
fn a_saved_watch_is_a_trace_of_its_goroutines() {
    let capture = xtask::root().join("tests/golden/leaks.capture");
    let trace = timeline(&["--capture", text(&capture)]);
    let events = events(&trace);
    let kinds = |kind: &str| events.iter().filter(|event| event["ph"] == kind).count();
    assert!(kinds("X") > 50 && kinds("s") > 0, "{} slices, {} arrows", kinds("X"), kinds("s"));
    assert_eq!(kinds("s"), kinds("f"));
    for name in ["runnable or running", "parked: chan send", "parked: select"] {
        assert!(events.iter().any(|event| event["ph"] == "X" && event["name"] == name), "{name}");
    }
    let named = |part: &str| {
        events.iter().any(|event| {
            event["name"] == "thread_name" && event["args"]["name"].as_str().is_some_and(|name| name.contains(part))
        })
    };
    assert!(named("created by main."), "goroutines have the names of their go statements");
}

#[test]
fn times_that_end_before_they_begin_are_wrong_usage() {
    let (_dir, file) = incident_file();
    let of = |times: &[&str]| run([&["timeline", "--record", text(&file)], times].concat());
    for (times, name) in [
        (&["--since", "1h", "--until", "2h"][..], "--until is before --since"),
        (&["--since", "2026-01-02", "--until", "2026-01-01"], "--until is before --since"),
        (&["--compare", "--compare-since", "1h", "--compare-until", "2h"], "--compare-until is before --compare-since"),
    ] {
        let output = of(times);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(2) && said.contains(name), "{times:?}: {said}");
    }
    assert_eq!(of(&["--since", "2h", "--until", "1h"]).status.code(), Some(0));
    let output = of(&["--since", "soon"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(2) && said.contains("2026-11-23"), "{said}");
}
