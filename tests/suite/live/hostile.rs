//! Live targets that lie about their goroutines: parkwarden answers in bounded time, with what is true or with a reason.

use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use parkwarden_tests::agent::{binary, run};
use parkwarden_tests::target::Target;
use parkwarden_tests::{BuildFlags, fixture, wait};
use serde_json::Value;

/// Far more than any answer takes, far less than following a lie would.
const BOUND: Duration = Duration::from_secs(30);

#[test]
fn a_process_that_lies_costs_bounded_time_and_yields_a_reason() {
    let program = fixture("hostile", "1.22.10", BuildFlags::Default);
    // Built before the clock runs.
    binary();
    for lie in ["length", "cycle", "unmapped", "null", "stacks", "bounds"] {
        let (target, _): (_, Value) = Target::ready(&program, [lie]);
        let pid = target.pid().to_string();
        for command in [
            &["snapshot", "--format", "json", "--pid", &pid][..],
            &["watch", "--format", "json", "--for", "1s", "--threshold", "0s", "--pid", &pid],
            &["ps", "--format", "json"],
        ] {
            let begun = Instant::now();
            let output = run(command);
            let errors = String::from_utf8_lossy(&output.stderr);
            assert!(begun.elapsed() < BOUND, "{lie}: {command:?} took {:?}", begun.elapsed());
            assert!(!errors.contains("panicked"), "{lie}: {command:?}: {errors}");
            match output.status.code() {
                Some(0) => {
                    let document: Value = serde_json::from_slice(&output.stdout).expect("a document");
                    assert_eq!(document["schema"], 1, "{lie}: {command:?}");
                }
                Some(4) => assert!(errors.contains(&format!("pid {pid}")), "{lie}: {command:?}: {errors}"),
                other => panic!("{lie}: {command:?} ended with {other:?}: {errors}"),
            }
        }
        // A list that cannot be one is refused; nothing was attached to it.
        if matches!(lie, "length" | "null" | "cycle") {
            let output = run(["watch", "--for", "1s", "--pid", &pid]);
            assert_eq!(output.status.code(), Some(4), "{lie}: {}", String::from_utf8_lossy(&output.stderr));
        }
    }
}

#[test]
fn one_that_never_answers_holds_up_nobody() {
    let (hanging, _): (_, Value) = Target::ready(&fixture("hostile", "1.22.10", BuildFlags::Default), ["hang"]);
    let (honest, _): (_, Value) = Target::ready(&fixture("leaks", "1.22.10", BuildFlags::Default), ["-n", "3"]);
    let output = run(["ps", "--format", "json"]);
    let listing: Value = serde_json::from_slice(&output.stdout).expect("a document");
    let of = |pid: u32| {
        let mut processes = listing["processes"].as_array().expect("a list").iter();
        processes.find(|process| process["pid"] == pid).unwrap_or_else(|| panic!("{pid} is not listed: {listing}"))
    };
    assert!(of(honest.pid())["goroutines"].as_u64() > Some(3), "{listing}");
    let reason = of(hanging.pid())["reason"].as_str().unwrap_or_default();
    assert!(reason.contains("did not answer"), "{reason}");

    // Whoever watches it can end that.
    let mut watch = Command::new(binary());
    watch.args(["watch", "--pid", &hanging.pid().to_string()]).stdout(Stdio::null()).stderr(Stdio::null());
    let mut watch = watch.spawn().expect("parkwarden runs");
    let pid = watch.id();
    let is_caught = || {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let caught = status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("SigCgt:")?.trim(), 16).ok());
        caught.is_some_and(|caught| caught & 1 << (Signal::SIGINT as u32 - 1) != 0)
    };
    wait::until("its listening for signals", BOUND, || is_caught().then_some(()));
    let status = wait::until("its end", BOUND, || {
        kill(Pid::from_raw(pid.cast_signed()), Signal::SIGINT).expect("signalled");
        watch.try_wait().expect("waited for")
    });
    assert_eq!(status.signal(), Some(Signal::SIGINT as i32), "{status}");
}
