//! An incident from beginning to end: what is recorded of it explains it afterwards.

use std::time::SystemTime;

use nix::sys::signal::Signal;
use parkwarden::record::{ExitKind, GapCause, Reader};
use parkwarden::timeline::Timeline;
use parkwarden_tests::agent::Watch;
use parkwarden_tests::control_group::ControlGroup;
use parkwarden_tests::{BuildFlags, Target, fixture};
use serde::Deserialize;
use xtask::toolchain::NEWEST;

use super::recording::wait_for_samples;
use super::watch::Ready;
use crate::timeline::{text, timeline};

#[derive(Debug, Deserialize)]
struct Began {
    unix_ns: u64,
    line: u32,
}

#[derive(Debug, Deserialize)]
struct Leaked {
    leaked: u64,
    unix_ns: u64,
}

/// A service with a memory limit leaks until the kernel kills it, parkwarden is killed and started again in
/// between, and the binary is gone when the timeline is made from a copy of the recording.
#[test]
fn an_oom_killed_service_is_explained_from_a_copy_of_the_recording() {
    const INTERVAL_MS: u64 = 1000;
    const LEAKS_PER_SECOND: f64 = 200.0;
    let dir = tempfile::tempdir().expect("a directory");
    let recording = dir.path().join("recording.db");
    let binary = dir.path().join("service");
    std::fs::copy(fixture("incident", NEWEST, BuildFlags::Stripped), &binary).expect("copied");
    let group = ControlGroup::of_memory(400 << 20);
    let mut command = group.command(&binary);
    command.args(["-rate", "200", "-hold", "65536"]);
    let mut service = Target::spawn_command(command);
    let Ready { .. } = service.answer();

    let arguments = ["--record", text(&recording), "--interval", "1s", "--threshold", "2s"];
    let watch = Watch::start(service.pid(), &arguments);
    wait_for_samples(&recording, 4);
    let began: Began = service.ask("leak");
    let samples = || Reader::open(&recording).and_then(|r| r.entries()).expect("readable")[0].samples;
    wait_for_samples(&recording, samples() + 6);
    watch.signal(Signal::SIGKILL);
    watch.ended();
    let before = samples();
    // Two more seconds of the leak go by unseen.
    let killed = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_nanos();
    while u128::from(service.answer::<Leaked>().unix_ns) < killed + 2_000_000_000 {}
    let watch = Watch::start(service.pid(), &arguments);
    wait_for_samples(&recording, before + 3);
    // Everything it says until it is killed; the last is the truth about how many there were.
    let mut last = None;
    while let Some(said) = service.try_answer::<Leaked>() {
        last = Some(said);
    }
    let last = last.expect("it leaked for a while");
    assert_eq!(watch.ended().code, Some(0), "the service is gone");
    drop(service);
    drop(group);

    let copy = dir.path().join("copy.db");
    std::fs::copy(&recording, &copy).expect("copied");
    std::fs::remove_file(&recording).expect("removed");
    std::fs::remove_file(&binary).expect("removed");
    let arguments = ["--record", text(&copy), "--exe", "service"];
    let json = timeline(&[&arguments[..], &["--format", "json"]].concat());
    let told: Timeline = serde_json::from_str(&json).expect("a timeline");
    let said = timeline(&arguments);

    let culprit = &told.groups[told.culprit.unwrap_or_else(|| panic!("{said}"))];
    let place = culprit.created_by.as_ref().expect("a go statement");
    assert_eq!((place.function.as_str(), place.line), ("main.(*hub).subscribe", began.line), "{said}");
    let onset = culprit.onset.expect("it grew");
    assert!(onset.ms.abs_diff(began.unix_ns / 1_000_000) <= INTERVAL_MS, "{onset:?}, in truth {began:?}\n{said}");
    let truth = last.leaked as f64 / ((last.unix_ns - began.unix_ns) as f64 / 1e9);
    assert!((truth / LEAKS_PER_SECOND - 1.0).abs() < 0.2, "the service leaks as it was told: {truth}");
    let growth = culprit.growth_per_second.expect("it grew");
    assert!((growth / truth - 1.0).abs() <= 0.1, "{growth}/s, in truth {truth}/s\n{said}");
    let gaps: Vec<_> = told.gaps.iter().filter(|gap| gap.cause == GapCause::NotRunning).collect();
    assert_eq!(gaps.len(), 1, "{said}");
    assert!(gaps[0].to_ms - gaps[0].from_ms >= 2_000, "{:?}", gaps[0]);
    let ended = told.lives[0].ended.as_ref().expect("it ended");
    assert_eq!(ended.kind, ExitKind::OomKilled, "{said}");
    assert!(ended.ms >= last.unix_ns / 1_000_000 && ended.ms <= last.unix_ns / 1_000_000 + 3_000, "{said}");
    assert!(told.headline.contains("until the OOM kill at"), "{}", told.headline);
    assert_eq!(told.lives[0].memory_limit_bytes, Some(400 << 20));
}
