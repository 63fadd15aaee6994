//! What a leak keeps: as much as the program's own numbers grew by.

use parkwarden::prove::ProofReport;
use parkwarden::report::Report;
use parkwarden_tests::agent::run;
use parkwarden_tests::control_group::ControlGroup;
use parkwarden_tests::target::Target;
use parkwarden_tests::{BuildFlags, fixture};
use serde::Deserialize;
use serde_json::Value;
use xtask::toolchain::{NEWEST, VERSIONS};

/// By how much they grew, in bytes.
#[derive(Debug, Deserialize)]
struct Grown {
    heap: u64,
    stack: u64,
}

/// Bytes that 10 000 nodes of 64 bytes take.
const SHARED: u64 = 640_000;

/// What `g`s take, which are the runtime's and no goroutine leads to: they are of some 400 to 500 bytes, and there are 2000.
const GS: u64 = 2000 * 512;

fn near(told: u64, measured: u64) -> bool {
    told.abs_diff(measured) <= measured / 10
}

#[test]
fn what_leaked_goroutines_keep_is_what_the_program_has_grown_by() {
    for version in VERSIONS {
        for flags in [BuildFlags::Default, BuildFlags::Stripped] {
            let (target, grown): (_, Grown) = Target::ready(&fixture("held", version, flags), [] as [&str; 0]);
            let pid = target.pid().to_string();
            let output = run(["prove", "--pid", &pid, "--max-pause", "2s", "--format", "json"]);
            let report: ProofReport = serde_json::from_slice(&output.stdout)
                .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
            assert_eq!(report.goroutines.proven, 2000, "Go {version}, {flags:?}: {report:#?}");
            let own: Vec<u64> = report.leaks.iter().filter_map(|group| group.heap_bytes).collect();
            assert_eq!(own.len(), 2, "{own:?}");
            let text = report.leaks[0].evidence.join("\n");
            assert!(text.contains("625 KiB more are shared among leaks"), "Go {version}, {flags:?}: {text}");
            let heap = own.iter().sum::<u64>() + SHARED;
            assert!(near(heap, grown.heap.saturating_sub(GS)), "Go {version}, {flags:?}: {heap} of {grown:?}, {own:?}");
            let stack: u64 = report.leaks.iter().map(|group| group.stack_bytes).sum();
            assert!(near(stack, grown.stack), "Go {version}, {flags:?}: {stack} of {grown:?}");
        }
    }
}

/// The report of a watch with these further arguments.
fn watch(target: &Target, arguments: &[&str]) -> Report {
    let pid = target.pid().to_string();
    let often = ["watch", "--pid", &pid, "--interval", "500ms", "--threshold", "1s", "--format", "json"];
    let output = run(often.iter().chain(arguments));
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)))
}

#[test]
fn a_watch_tells_what_its_leaks_hold_of_the_program() {
    let (target, grown): (_, Grown) = Target::ready(&fixture("held", NEWEST, BuildFlags::Default), [] as [&str; 0]);
    let report = watch(&target, &["--for", "4s", "--prove", "--max-pause", "2s"]);
    let memory = report.memory.expect("a leak");
    let heap = memory.heap_bytes.expect("proven") + SHARED;
    assert!(
        near(heap, grown.heap.saturating_sub(GS)) && near(memory.stack_bytes, grown.stack),
        "{memory:?} of {grown:?}"
    );
    let (in_use, resident) = (memory.heap_in_use_bytes.expect("read"), memory.resident_bytes.expect("told"));
    assert!((grown.heap..2 * grown.heap).contains(&in_use), "{memory:?} of {grown:?}");
    assert!(resident > in_use, "{memory:?}");
    assert_eq!(memory.limit, None);
}

#[test]
fn a_watch_tells_when_the_limit_of_memory_is_reached() {
    const LIMIT: u64 = 1 << 30;
    const RATE: u64 = 200;
    const HOLD: u64 = 64 << 10;
    let group = ControlGroup::of_memory(LIMIT);
    let mut command = group.command(fixture("incident", NEWEST, BuildFlags::Default));
    command.args(["-rate", &RATE.to_string(), "-hold", &HOLD.to_string()]);
    let mut target = Target::spawn_command(command);
    let _: Value = target.answer();
    let _: Value = target.ask("leak");
    let report = watch(&target, &["--for", "10s"]);
    let limit = report.memory.and_then(|memory| memory.limit).expect("it grows");
    // Their stacks come on top: 2 KiB each.
    let rate = (RATE * (HOLD + 2048)) as f64;
    assert!((0.7 * rate..1.4 * rate).contains(&limit.growth_bytes_per_second), "{limit:?}");
    assert_eq!(limit.limit_bytes, LIMIT);
    let left = (LIMIT - limit.used_bytes) as f64;
    assert!((limit.seconds - left / limit.growth_bytes_per_second).abs() < 0.1, "{limit:?}");
}
