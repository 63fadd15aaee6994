//! `parkwarden watch -- COMMAND`: a program that is started for the watch.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use parkwarden::report::Report;
use parkwarden_tests::agent::{binary, run};
use parkwarden_tests::{BuildFlags, fixture};
use xtask::toolchain::NEWEST;

/// A watch that begins with the program; its output is theirs.
fn watch(program: &std::path::Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.args(["watch", "--format", "jsonl", "--interval", "200ms", "--threshold", "0s", "--mode", "trace", "--"]);
    command.arg(program).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
    command
}

/// Lines that are read until a report is as wanted: at five a second, more than anybody waits.
const MOST_LINES: usize = 500;

#[test]
fn its_first_goroutines_are_seen_however_it_is_built() {
    for flags in [BuildFlags::Default, BuildFlags::Stripped, BuildFlags::Pie, BuildFlags::External] {
        let program = fixture("leaks", NEWEST, flags);
        let mut child = watch(&program, &["-wait", "-n", "3"]).spawn().expect("it starts");
        let mut input = child.stdin.take().expect("a pipe");
        writeln!(input, "go").expect("it listens");
        // The program's own lines are among them.
        let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines().map_while(Result::ok).take(MOST_LINES);
        let mut reports = lines.filter_map(|line| serde_json::from_str::<Report>(&line).ok());
        let all = |report: &Report| report.groups.iter().map(|group| group.count).sum::<u64>() >= 50;
        assert!(reports.any(|report| all(&report)), "{flags:?}: its leaks are not seen");
        writeln!(input, "exit").expect("it listens");
        let report = reports.last().expect("the last report");
        // The runtime's own begin before any of the program's: who comes later has not seen all of them begin.
        let (events, living) = (report.observed.events, &report.goroutines);
        assert!(events.created >= living.live, "{flags:?}: {events:?} of {living:?}");
        let lost = report.observed.lost;
        assert_eq!(lost.unknown_goroutine, 0, "{flags:?}: {lost:?}");
        assert_eq!(child.wait().expect("it ends").code(), Some(0), "{flags:?}");
    }
}

#[test]
fn a_signal_is_for_the_command_and_its_end_is_told() {
    let program = fixture("leaks", NEWEST, BuildFlags::Default);
    let mut child =
        watch(&program, &["-wait"]).stderr(Stdio::piped()).stdout(Stdio::null()).spawn().expect("it starts");
    let mut errors = BufReader::new(child.stderr.take().expect("a pipe")).lines();
    assert!(errors.by_ref().map_while(Result::ok).any(|line| line.contains("until it exits")), "it is watched");
    kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM).expect("it runs");
    let said: Vec<String> = errors.map_while(Result::ok).collect();
    assert!(said.iter().any(|line| line.contains("the command ended with signal: 15")), "{said:?}");
    assert_eq!(child.wait().expect("it ends").code(), Some(0), "{said:?}");
}

#[test]
fn what_is_no_go_program_is_not_run() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("ran");
    let output = run(["watch".as_ref(), "--".as_ref(), "touch".as_ref(), file.as_os_str()]);
    assert_eq!(output.status.code(), Some(4), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(!file.exists());
    let output = run(["watch", "--", "/nowhere"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && said.contains("/nowhere cannot be started"), "{said}");
}
