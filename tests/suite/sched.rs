//! `parkwarden sched` against what the runtime prints of itself, and with schedulers that something is wrong with.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use parkwarden::detect::Verdict;
use parkwarden_tests::agent::{Watch, binary, run};
use parkwarden_tests::control_group::ControlGroup;
use parkwarden_tests::target::{DEADLINE, Target};
use parkwarden_tests::{BuildFlags, fixture, wait};
use serde_json::Value;
use xtask::toolchain::{self, NEWEST};

/// Starts the program with a `GODEBUG`, its standard error in a file.
fn start(program: &Path, godebug: &str, errors: &Path, arguments: &[&str]) -> Target {
    let mut command = Command::new(program);
    command.args(arguments).env("GODEBUG", godebug).env("GOMAXPROCS", "2");
    command.stderr(File::create(errors).expect("a file"));
    let mut target = Target::spawn_command(command);
    let _: Value = target.answer();
    target
}

fn sched(target: &Target, arguments: &[&str]) -> String {
    let pid = target.pid().to_string();
    let output = run(["sched", "--pid", &pid].iter().chain(arguments));
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// What is said without the time, and without what the thread that prints it holds while it prints.
fn timeless(text: &str) -> String {
    let line = |line: &str| match line.split_once("ms: ") {
        Some((_, rest)) => rest.to_owned(),
        None if line.starts_with("  M1: ") => line.split(" locks=").next().unwrap_or_default().to_owned(),
        None => line.to_owned(),
    };
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}

fn milliseconds(text: &str) -> u64 {
    let number = text.strip_prefix("SCHED ").and_then(|text| text.split_once("ms: ")).expect("a line of schedtrace").0;
    number.parse().expect("a number")
}

/// The last whole trace in what the program has printed.
fn last_trace(errors: &Path) -> Option<String> {
    let text = fs::read_to_string(errors).ok()?;
    let mut traces: Vec<&str> = text.split("SCHED ").skip(1).collect();
    // The last may not be all there yet.
    traces.pop()?;
    Some(format!("SCHED {}", traces.pop()?))
}

#[test]
fn the_lines_are_those_that_the_runtime_prints() {
    let dir = tempfile::tempdir().expect("a directory");
    let errors = dir.path().join("stderr");
    for version in toolchain::available() {
        for flags in [BuildFlags::Default, BuildFlags::Stripped] {
            let program = fixture("vitals", version, flags);
            for (godebug, arguments) in
                [("schedtrace=100", &[][..]), ("schedtrace=100,scheddetail=1", &["--detail"][..])]
            {
                let said = format!("Go {version}, {}, {godebug}", flags.name());
                let target = start(&program, godebug, &errors, &[]);
                // The program is quiet, but not from its first moment on.
                let ours = wait::within(DEADLINE, || {
                    let ours = sched(&target, arguments);
                    match last_trace(&errors) {
                        Some(theirs) if timeless(&theirs) == timeless(&ours) => Ok(ours),
                        theirs => Err((theirs, ours)),
                    }
                });
                let ours = ours.unwrap_or_else(|(theirs, ours)| panic!("{said}:\n{theirs:?}\n{ours}"));
                let later = wait::until(&said, DEADLINE, || {
                    last_trace(&errors).map(|trace| milliseconds(&trace)).filter(|ms| *ms + 50 >= milliseconds(&ours))
                });
                assert!(later < milliseconds(&ours) + 1000, "{said}: {later} {ours}");
            }
        }
    }
}

/// The rules whose signs a program shows, and what they say.
fn signs(target: &Target) -> Vec<(String, String)> {
    let document: Value = serde_json::from_str(&sched(target, &["--format", "json"])).expect("JSON");
    assert!(document["looks"].as_u64().is_some_and(|looks| looks == 20), "{document}");
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    document["signs"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|sign| (text(&sign["rule"]), text(&sign["says"])))
        .collect()
}

/// What is wrong with a program, and how that is told.
struct Fault {
    godebug: &'static str,
    arguments: &'static [&'static str],
    flags: BuildFlags,
    rule: &'static str,
    words: [&'static str; 2],
}

const FAULTS: [Fault; 4] = [
    Fault {
        godebug: "",
        arguments: &["-fault", "spin", "-n", "2"],
        flags: BuildFlags::Stripped,
        rule: "occupied",
        words: ["2 goroutines (2 of main.spin faults.go:", "all 2 Ps"],
    },
    Fault {
        godebug: "",
        arguments: &["-fault", "syscalls", "-n", "500"],
        flags: BuildFlags::Stripped,
        rule: "in system calls",
        words: ["500 of main.block", "each holds a thread"],
    },
    Fault {
        godebug: "asyncpreemptoff=1",
        arguments: &["-fault", "stop"],
        flags: BuildFlags::Stripped,
        rule: "stopping",
        words: ["1 goroutine (main.unstoppable faults.go:", "1 of 2 Ps"],
    },
    Fault {
        godebug: "",
        arguments: &["-fault", "c", "-n", "3"],
        flags: BuildFlags::Cgo,
        rule: "in C",
        words: ["3 goroutines (3 of main.callC ", "each holds a thread"],
    },
];

#[test]
fn each_fault_is_named_in_a_sentence() {
    let dir = tempfile::tempdir().expect("a directory");
    let errors = dir.path().join("stderr");
    for version in [toolchain::VERSIONS[0], "1.25.5", NEWEST] {
        for fault in &FAULTS {
            let program = fixture("vitals", version, fault.flags);
            let target = start(&program, fault.godebug, &errors, fault.arguments);
            let named = wait::within(DEADLINE, || {
                let signs = signs(&target);
                let says = |(rule, says): &(String, String)| {
                    rule == fault.rule && fault.words.iter().all(|word| says.contains(word))
                };
                if signs.iter().any(says) { Ok(()) } else { Err(signs) }
            });
            assert_eq!(named, Ok(()), "Go {version}, {:?}", fault.arguments);
        }
    }
}

#[test]
fn a_thread_that_cannot_be_stopped_is_told_with_its_time() {
    let dir = tempfile::tempdir().expect("a directory");
    let errors = dir.path().join("stderr");
    for version in toolchain::available() {
        let program = fixture("vitals", version, BuildFlags::Stripped);
        let target = start(&program, "asyncpreemptoff=1", &errors, &["-fault", "spin", "-n", "1"]);
        wait::until(format!("Go {version}"), DEADLINE, || {
            let signs = signs(&target);
            let (_, says) = signs.iter().find(|(rule, _)| rule == "not preempted")?;
            assert!(says.starts_with("1 goroutine (main.spin faults.go:") && says.contains(") has run for "), "{says}");
            Some(())
        });
    }
}

/// The rules whose signs a program shows, once that is one of them.
fn rules_with(target: &Target, wanted: &str) -> Vec<String> {
    wait::until(format!("the sign {wanted}"), DEADLINE, || {
        let rules: Vec<String> = signs(target).into_iter().map(|(rule, _)| rule).collect();
        rules.iter().any(|rule| rule == wanted).then_some(rules)
    })
}

/// Nothing of it runs, which looks as if nobody were preempted.
#[test]
fn a_process_that_a_signal_has_stopped_is_told_as_that_alone() {
    let dir = tempfile::tempdir().expect("a directory");
    let errors = dir.path().join("stderr");
    let target = start(&fixture("vitals", NEWEST, BuildFlags::Stripped), "", &errors, &["-fault", "spin", "-n", "2"]);
    let pid = Pid::from_raw(target.pid().cast_signed());
    kill(pid, Signal::SIGSTOP).expect("it runs");
    let rules = rules_with(&target, "stopped");
    kill(pid, Signal::SIGCONT).expect("it is there");
    assert_eq!(rules, ["stopped"]);
}

/// As by `docker pause`: the same to whoever looks.
#[test]
fn a_process_whose_control_group_is_frozen_is_told_as_that_alone_and_nobody_in_it_is_stuck() {
    let dir = tempfile::tempdir().expect("a directory");
    let group = ControlGroup::of_freezer();
    let mut command = group.command(fixture("vitals", NEWEST, BuildFlags::Stripped));
    command.args(["-fault", "spin", "-n", "2"]).stderr(File::create(dir.path().join("stderr")).expect("a file"));
    let mut target = Target::spawn_command(command);
    let _: Value = target.answer();
    group.freeze(true);
    let rules = rules_with(&target, "frozen");
    let report = Watch::start(target.pid(), &["--threshold", "0s"]).interrupt().report();
    group.freeze(false);
    assert_eq!(rules, ["frozen"]);
    let signs = report.runtime.map(|runtime| runtime.signs).unwrap_or_default();
    assert_eq!(signs.iter().map(|sign| sign.rule.as_str()).collect::<Vec<_>>(), ["frozen"]);
    let verdicts: Vec<Verdict> = report.groups.iter().map(|group| group.verdict).collect();
    assert!(verdicts.iter().all(|verdict| *verdict == Verdict::Idle), "{verdicts:?}");
    target.kill();
}

#[test]
fn a_quota_that_slows_it_down_is_told() {
    let dir = tempfile::tempdir().expect("a directory");
    let group = ControlGroup::of_cpu(20);
    let mut command = group.command(fixture("vitals", NEWEST, BuildFlags::Stripped));
    command.args(["-fault", "spin", "-n", "2"]).stderr(File::create(dir.path().join("stderr")).expect("a file"));
    let mut target = Target::spawn_command(command);
    let _: Value = target.answer();
    let says = wait::until("throttling", DEADLINE, || {
        signs(&target).into_iter().find(|(rule, _)| rule == "throttled").map(|(_, says)| says)
    });
    assert!(says.starts_with("the CPU quota of its control group has kept its threads from running for "), "{says}");
    target.kill();
}

#[test]
fn c_that_waits_for_events_is_no_sign() {
    let mut target = Target::spawn_command(Command::new(fixture("cloop", NEWEST, BuildFlags::Cgo)));
    let _: Value = target.answer();
    let pid = target.pid().to_string();
    let look = || {
        let output = run(["sched", "--pid", &pid, "--format", "json"]);
        serde_json::from_slice::<Value>(&output.stdout).expect("JSON")
    };
    let document = wait::until("three threads in C", DEADLINE, || {
        let document = look();
        let machines = document["scheduler"]["machines"].as_array().expect("a list");
        (machines.iter().filter(|m| m["in_c"] == true).count() == 3).then_some(document)
    });
    let rules: Vec<&Value> = document["signs"].as_array().expect("a list").iter().map(|sign| &sign["rule"]).collect();
    assert_eq!(rules, Vec::<&Value>::new());
    let by_status = document["by_status"].as_object().expect("counts");
    // Who waits for a line is in one as well.
    assert_eq!(by_status["syscall"], 4, "{by_status:?}");
    assert!(by_status["waiting"].as_u64() >= Some(1) && !by_status.contains_key("dead"), "{by_status:?}");
}

#[test]
fn a_busy_server_that_is_healthy_shows_no_sign() {
    let dir = tempfile::tempdir().expect("a directory");
    let errors = dir.path().join("stderr");
    for version in toolchain::available() {
        let program = fixture("vitals", version, BuildFlags::Default);
        let target = start(&program, "", &errors, &["-fault", "healthy", "-n", "2"]);
        for _ in 0..2 {
            assert_eq!(signs(&target), [], "Go {version}");
        }
    }
}

#[test]
fn lines_come_until_the_process_ends() {
    let dir = tempfile::tempdir().expect("a directory");
    let target = start(&fixture("vitals", NEWEST, BuildFlags::Default), "", &dir.path().join("stderr"), &[]);
    let pid = target.pid().to_string();
    let mut sched = Command::new(binary());
    sched.args(["sched", "--pid", &pid, "--interval", "100ms", "--format", "json"]).stdout(Stdio::piped());
    let mut sched = sched.spawn().expect("parkwarden runs");
    let mut lines = BufReader::new(sched.stdout.take().expect("a pipe")).lines().map(|line| line.expect("UTF-8"));
    let first: Vec<String> = lines.by_ref().take(2).collect();
    assert!(target.exit().success());
    let rest: Vec<String> = lines.collect();
    assert_eq!(sched.wait().expect("it ends").code(), Some(0));
    assert_eq!(first.len(), 2, "{first:?}");
    for line in first.iter().chain(&rest) {
        let document: Value = serde_json::from_str(line).expect("one document a line");
        assert_eq!(document["scheduler"]["gomaxprocs"], 2);
    }
}

#[test]
fn what_cannot_be_looked_at_is_refused_with_the_reason() {
    let output = run(["sched", "--pid", &std::process::id().to_string()]);
    assert_eq!(output.status.code(), Some(4));
    assert!(String::from_utf8_lossy(&output.stderr).contains("not a Go program"));
    let output = run(["sched", "--pid", "1", "--interval", "1ms"]);
    assert_eq!(output.status.code(), Some(2));
    // A number of a thread names no process.
    let other = std::thread::spawn(|| {
        let output = run(["sched", "--pid", &nix::unistd::gettid().to_string()]);
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    });
    let (code, said) = other.join().expect("it does not panic");
    assert_eq!(code, Some(4), "{said}");
    assert!(said.contains(&format!("is a thread of process {}", std::process::id())), "{said}");
}
