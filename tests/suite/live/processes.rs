//! Processes come and go, share binaries and hide in namespaces: `watch` reports the one that was meant.

use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use parkwarden::discover::cgroup::MemoryGroup;
use parkwarden::discover::process::Process;
use parkwarden::discover::usage::{Stat, Usage};
use parkwarden::session::EndReason;
use parkwarden_tests::agent::{Watch, run};
use parkwarden_tests::leaks::Statement;
use parkwarden_tests::target::{DEADLINE, Target};
use parkwarden_tests::{BuildFlags, fixture, wait};
use serde_json::Value;
use xtask::toolchain::NEWEST;

use super::watch::{EACH, assert_as_said};

#[test]
fn of_two_processes_of_one_binary_only_the_chosen_one_is_reported() {
    let program = fixture("churn", NEWEST, BuildFlags::Default);
    let (mut chosen, _): (_, Value) = Target::ready(&program, ["-n", "1000"]);
    let (mut other, _): (_, Value) = Target::ready(&program, ["-n", "20000"]);
    let watch = Watch::start(chosen.pid(), &[]);
    let _: Value = other.ask("go");
    let _: Value = chosen.ask("go");
    let report = watch.interrupt().report();
    assert_eq!(report.observed.events.exited, 1000);
}

#[test]
fn a_binary_that_is_deleted_after_the_start_is_watched() {
    let dir = tempfile::tempdir().expect("a directory");
    let program = dir.path().join("leaks");
    std::fs::copy(fixture("leaks", NEWEST, BuildFlags::Default), &program).expect("copied");
    let (mut target, _): (_, Value) = Target::ready(&program, ["-wait", "-n", EACH]);
    std::fs::remove_file(&program).expect("removed");
    // Another file at the same path must not be taken for it.
    std::fs::write(&program, "not a program").expect("written");
    let watch = Watch::start(target.pid(), &["--threshold", "0s"]);
    let said: Statement = target.ask("go");
    let report = watch.interrupt().report();
    assert_as_said(&report, &said, "deleted binary");
    assert!(report.target.exe.ends_with(" (deleted)"), "{}", report.target.exe);
}

#[test]
fn a_target_in_other_namespaces_is_watched() {
    let dir = tempfile::tempdir().expect("a directory");
    let program = fixture("leaks", NEWEST, BuildFlags::Default);
    // Its own PID and mount namespaces, and its binary on a file system that only it sees. The shell stays as the
    // namespace's init; the program is its child.
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--mount-proc", "sh", "-c"]);
    command.arg("mount -t tmpfs tmpfs \"$0\" && cp \"$1\" \"$0/leaks\" && \"$0/leaks\" -wait -n \"$2\" <&0; exit $?");
    command.arg(dir.path()).arg(&program).arg(EACH);
    let mut target = Target::spawn_command(command);
    let _: Value = target.answer();
    let pid = descendant_named("leaks", target.pid());
    let watch = Watch::start(pid, &["--threshold", "0s"]);
    let said: Statement = target.ask("go");
    let report = watch.interrupt().report();
    assert_as_said(&report, &said, "namespaces");
    assert!(!std::path::Path::new(&report.target.exe).exists(), "the binary is visible here too");
    target.exit();
}

/// The pid, in this namespace, of the process below `ancestor` that runs `command`.
fn descendant_named(command: &str, ancestor: u32) -> u32 {
    let mut generation = vec![ancestor];
    while !generation.is_empty() {
        let mut next = Vec::new();
        for pid in generation {
            let comm = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            if comm.trim() == command {
                return pid;
            }
            let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
            next.extend(children.split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
        }
        generation = next;
    }
    panic!("no process {command} below {ancestor}");
}

#[test]
fn a_stopped_target_is_reported_and_left_stopped() {
    let program = fixture("leaks", NEWEST, BuildFlags::Default);
    let (target, said): (_, Statement) = Target::ready(&program, ["-n", EACH]);
    let pid = Pid::from_raw(target.pid().cast_signed());
    kill(pid, Signal::SIGSTOP).expect("it lives");
    wait_for_state(target.pid(), 'T');
    let report = Watch::start(target.pid(), &["--threshold", "0s"]).interrupt().report();
    assert_as_said(&report, &said, "stopped");
    assert_eq!(state(target.pid()), 'T');
    kill(pid, Signal::SIGCONT).expect("it lives");
    assert!(target.exit().success());
}

fn state(pid: u32) -> char {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("it lives");
    stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next()).expect("a state")
}

fn wait_for_state(pid: u32, expected: char) {
    wait::until(format!("pid {pid} in state {expected}"), DEADLINE, || (state(pid) == expected).then_some(()));
}

#[test]
fn an_exec_of_another_program_ends_the_watch_with_what_was_seen() {
    for next in ["spin", "exec"] {
        let program = fixture("exec", NEWEST, BuildFlags::Default);
        let next = fixture(next, NEWEST, BuildFlags::Default);
        let (mut target, _): (_, Value) = Target::ready(&program, [] as [&str; 0]);
        let watch = Watch::start(target.pid(), &["--interval", "100ms"]);
        let _: Value = target.ask(&format!("exec {}", next.display()));
        let ended = watch.ended();
        assert_eq!(ended.code, Some(4), "{:?}", ended.errors);
        assert!(ended.errors.iter().any(|line| line.contains("executed another program")), "{:?}", ended.errors);
        assert_eq!(ended.report().observed.ended, Some(EndReason::TargetReplaced));
        // And the new program can be watched at once.
        let report = Watch::start(target.pid(), &[]).interrupt().report();
        assert_eq!(report.target.exe, next.display().to_string());
    }
}

#[test]
fn what_a_forked_child_does_is_not_the_targets() {
    let program = fixture("fork", NEWEST, BuildFlags::Default);
    let (mut target, _): (_, Value) = Target::ready(&program, [] as [&str; 0]);
    let watch = Watch::start(target.pid(), &[]);
    let child: Value = target.ask("fork 1000");
    assert_ne!(child["pid"], target.pid());
    let _: Value = target.ask("churn 100");
    let report = watch.interrupt().report();
    let events = report.observed.events;
    assert_eq!((events.created, events.exited), (100, 100));
    assert_eq!(report.observed.lost, parkwarden::report::Lost::default());
    assert!(target.exit().success());
}

#[test]
fn a_forked_child_is_a_target_like_any_other() {
    let program = fixture("fork", NEWEST, BuildFlags::Stripped);
    let (mut target, _): (_, Value) = Target::ready(&program, [] as [&str; 0]);
    let child: Value = target.ask("stay 50");
    let pid = child["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok()).expect("a pid");
    let report = Watch::start(pid, &["--threshold", "0s"]).interrupt().report();
    let leaked: Vec<_> = report.groups.iter().filter(|group| group.wait_reason == "chan send").collect();
    assert_eq!(leaked.iter().map(|group| group.count).sum::<u64>(), 50, "{:#?}", report.groups);
    assert!(target.exit().success());
}

#[test]
fn a_process_that_gets_the_targets_pid_is_not_taken_for_it() {
    let program = fixture("leaks", NEWEST, BuildFlags::Default);
    let (target, said): (_, Statement) = Target::ready(&program, ["-n", EACH]);
    let pid = target.pid();
    let watch = Watch::start(pid, &["--threshold", "0s", "--interval", "100ms"]);
    // It must not notice before another process has the number.
    watch.signal(Signal::SIGSTOP);
    target.kill();
    let other = spawn_as(pid, &program);
    watch.signal(Signal::SIGCONT);
    let ended = watch.ended();
    assert_eq!(ended.code, Some(0), "{:?}", ended.errors);
    let report = ended.report();
    assert_eq!(report.observed.ended, Some(EndReason::TargetExited));
    assert_eq!(report.goroutines.live - report.goroutines.system, said.num_goroutine as u64);
    // The new process can be watched, as itself.
    let report = Watch::start(pid, &["--threshold", "0s"]).interrupt().report();
    assert_eq!(report.goroutines.live - report.goroutines.system, 1);
    assert!(other.exit().success());
}

#[test]
fn an_executable_names_the_one_process_that_runs_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let program = dir.path().join("named-by-its-executable");
    std::fs::copy(fixture("leaks", NEWEST, BuildFlags::Default), &program).expect("copied");
    let snapshot = || run(["snapshot", "--exe", "named-by-its-executable", "--format", "json"]);
    let output = snapshot();
    assert_eq!(output.status.code(), Some(4), "none runs it");
    let (one, _): (_, Statement) = Target::ready(&program, ["-n", EACH]);
    let seen: Value = serde_json::from_slice(&snapshot().stdout).expect("a snapshot");
    assert_eq!(seen["target"]["pid"], one.pid());
    let (other, _): (_, Statement) = Target::ready(&program, ["-n", EACH]);
    let output = snapshot();
    assert_eq!(output.status.code(), Some(2), "two run it");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!([&one, &other].iter().all(|target| said.contains(&target.pid().to_string())), "{said}");
}

#[test]
fn what_is_read_of_another_process_with_its_pid_is_not_its_own() {
    let mut own = waiting();
    let pid = own.id();
    let process = Process::open(pid).expect("it lives");
    assert_eq!(process.by_pid(Stat::of).map(|stat| stat.start_ticks), Some(process.start_ticks()));
    own.kill().expect("it lives");
    // It stays its own until its parent knows.
    a_zombie(pid);
    assert!(process.by_pid(Stat::of).is_some_and(|stat| stat.is_zombie));
    own.wait().expect("it has ended");
    let status = process.wait_status();

    let mut other = with_pid(pid, || {
        let mut other = waiting();
        if other.id() == pid {
            return Some(other);
        }
        other.kill().and_then(|()| other.wait()).expect("it ends");
        None
    });
    assert!(Stat::of(pid).is_some(), "the other one lives");
    assert_eq!(process.by_pid(Stat::of), None);
    assert_eq!(process.by_pid(Usage::of), None);
    assert!(!process.has_executed(), "the other one's program is none of its");
    assert!(MemoryGroup::of(&process).is_none());
    drop(other.stdin.take());
    a_zombie(pid);
    assert_eq!(process.wait_status(), status, "how the other one ended is none of its");
    other.wait().expect("it has ended");
}

/// A process that waits for its input's end.
fn waiting() -> Child {
    Command::new("cat").stdin(Stdio::piped()).spawn().expect("cat runs")
}

fn a_zombie(pid: u32) {
    wait::until(format!("the end of {pid}"), DEADLINE, || Stat::of(pid)?.is_zombie.then_some(()));
}

/// The program `leaks`, without leaks, as a process with id `pid`, which must be free.
fn spawn_as(pid: u32, program: &std::path::Path) -> Target {
    let mut target = with_pid(pid, || {
        let target = Target::spawn(program, ["-wait", "-n", EACH]);
        (target.pid() == pid).then_some(target)
    });
    let _: Value = target.answer();
    target
}

/// What `spawn` starts as soon as it gets `pid`, which must be free.
fn with_pid<T>(pid: u32, mut spawn: impl FnMut() -> Option<T>) -> T {
    wait::until(format!("a process with pid {pid}"), DEADLINE, || {
        // The next process of this namespace gets the number after this one, unless another is faster.
        std::fs::write("/proc/sys/kernel/ns_last_pid", (pid - 1).to_string()).expect("it can be chosen");
        spawn()
    })
}
