//! `parkwarden watch` on live Go programs: what it reports is what the programs say of themselves.

use std::io::{Read as _, Seek as _};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use parkwarden::report::Report;
use parkwarden_tests::agent::{Watch, run};
use parkwarden_tests::copied::Copied;
pub(crate) use parkwarden_tests::leaks::assert_as_said;
use parkwarden_tests::leaks::{CLASSES, Statement, group_of};
use parkwarden_tests::target::DEADLINE;
use parkwarden_tests::target::{Target, spawn};
use parkwarden_tests::{BuildFlags, fixture, wait};
use serde::Deserialize;
use xtask::toolchain::{self, NEWEST};

#[derive(Debug, Deserialize)]
pub(crate) struct Ready {
    #[expect(dead_code, reason = "its presence is what matters")]
    ready: bool,
    url: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Churned {
    created: u64,
    exited: u64,
}

#[derive(Debug, Deserialize)]
struct Stats {
    #[serde(alias = "requests")]
    iterations: u64,
}

/// Goroutines of each class; more than a report lists ids of would hide some.
pub(crate) const EACH: &str = "3";

fn assert_no_loss(report: &Report) {
    assert_eq!(report.observed.lost, parkwarden::report::Lost::default());
    let events = report.observed.events;
    let hits: Vec<u64> = report.observed.probes.iter().map(|probe| probe.hits).collect();
    assert_eq!(hits, [events.created, events.parked, events.readied, events.exited]);
}

#[test]
fn leaks_made_while_watched_are_reported_as_the_program_says() {
    for version in toolchain::VERSIONS {
        let program = fixture("leaks", version, BuildFlags::Default);
        let (mut target, Ready { .. }) = Target::ready(&program, ["-wait", "-n", EACH]);
        let watch = Watch::start(target.pid(), &["--mode", "trace", "--threshold", "0s"]);
        let said: Statement = target.ask("go");
        let ended = watch.interrupt();
        assert_eq!(ended.code, Some(0), "{version}: {:?}", ended.errors);
        let report = ended.report();
        assert_as_said(&report, &said, version);
        assert_no_loss(&report);
        assert_eq!(report.target.go_version, format!("go{version}"));
        for group in CLASSES.iter().flat_map(|class| said.of_class(class)).filter_map(|said| group_of(&report, said)) {
            assert!(!group.evidence.iter().any(|sentence| sentence.contains("lower bound")), "{version}: {group:#?}");
        }
    }
}

#[test]
fn leaks_made_before_the_attach_are_reported_as_the_program_says() {
    for version in toolchain::VERSIONS {
        let program = fixture("leaks", version, BuildFlags::Default);
        let (target, said): (_, Statement) = Target::ready(&program, ["-n", EACH]);
        let report = Watch::start(target.pid(), &["--threshold", "0s"]).interrupt().report();
        assert_as_said(&report, &said, version);
    }
}

#[test]
fn a_replay_gives_the_same_report() {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    let path = file.path().to_str().expect("UTF-8");
    let program = fixture("leaks", NEWEST, BuildFlags::Default);
    let (mut target, Ready { .. }) = Target::ready(&program, ["-wait", "-n", EACH]);
    let watch = Watch::start(target.pid(), &["--threshold", "0s", "--save", path]);
    let said: Statement = target.ask("go");
    let live = watch.interrupt();
    let replayed = run(["watch", "--replay", path, "--threshold", "0s", "--format", "json"]);
    assert_eq!(replayed.status.code(), Some(0));
    assert_eq!(String::from_utf8_lossy(&replayed.stdout), live.output);
    assert_as_said(&live.report(), &said, "replay");
}

#[test]
fn created_and_exited_are_counted_exactly() {
    const GOROUTINES: u64 = 100_000;
    for version in toolchain::VERSIONS {
        let program = fixture("churn", version, BuildFlags::Default);
        let (mut target, Ready { .. }) = Target::ready(&program, ["-n".to_owned(), GOROUTINES.to_string()]);
        let watch = Watch::start(target.pid(), &["--mode", "trace"]);
        let said: Churned = target.ask("go");
        let report = watch.interrupt().report();
        assert_eq!((said.created, said.exited), (GOROUTINES, GOROUTINES));
        assert_no_loss(&report);
        // The runtime starts goroutines of its own now and then (garbage collection workers): those are told apart.
        let system = report.goroutines.system;
        let extra = report.observed.events.created - said.created;
        assert!(extra <= system, "{version}: {extra} more created than the program's, {system} system goroutines");
        assert_eq!(report.observed.events.exited, said.exited, "{version}");
    }
}

#[test]
fn what_overflows_a_small_ring_is_counted_and_repaired() {
    let program = fixture("churn", NEWEST, BuildFlags::Default);
    let (mut target, Ready { .. }) = Target::ready(&program, ["-n", "100000"]);
    let watch = Watch::start(target.pid(), &["--mode", "trace", "--ring", "4"]);
    let _: Churned = target.ask("go");
    let report = watch.interrupt().report();
    let lost = report.observed.lost;
    assert!(lost.ring_full > 0, "a ring of 4 KiB did not overflow: {report:#?}");
    let events = report.observed.events;
    let hits: u64 = report.observed.probes.iter().map(|probe| probe.hits).sum();
    let delivered = events.created + events.parked + events.readied + events.exited;
    assert_eq!(hits, delivered + lost.ring_full + lost.read_fault);
}

#[test]
fn a_busy_keep_alive_server_has_nothing_parked() {
    let program = fixture("keepalive", NEWEST, BuildFlags::Default);
    let (mut server, ready): (_, Ready) = Target::ready(&program, [] as [&str; 0]);
    let url = ready.url.expect("the server says where it listens");
    let (_client, Ready { .. }) = Target::ready(&program, ["-client", &url]);
    let before: Stats = server.ask("stats");
    let ended = run([
        "watch",
        "--mode",
        "trace",
        "--pid",
        &server.pid().to_string(),
        "--threshold",
        "2s",
        "--for",
        "6s",
        "--interval",
        "1s",
        "--format",
        "json",
    ]);
    let after: Stats = server.ask("stats");
    assert!(after.iterations > before.iterations + 1000, "the server was not busy");
    let report: Report = serde_json::from_slice(&ended.stdout).expect("a report");
    let serving: Vec<_> = report
        .groups
        .iter()
        .filter(|group| group.stack.iter().any(|frame| frame.function.contains("net/http.(*conn).serve")))
        .collect();
    assert!(serving.is_empty(), "connections in use are reported as parked: {serving:#?}");
    assert!(report.groups.iter().all(|group| group.verdict == parkwarden::detect::Verdict::Idle));
    assert_no_loss(&report);
}

/// The program's bytes at its probe sites, from its memory.
pub(crate) fn bytes_at_sites(pid: u32, report: &Report) -> Vec<[u8; 5]> {
    let mut memory = std::fs::File::open(format!("/proc/{pid}/mem")).expect("readable");
    report
        .observed
        .probes
        .iter()
        .map(|probe| {
            let address = probe.address.trim_start_matches("0x");
            let address = u64::from_str_radix(address, 16).expect("hexadecimal");
            let mut bytes = [0; 5];
            memory.seek(std::io::SeekFrom::Start(address)).expect("seekable");
            memory.read_exact(&mut bytes).expect("mapped");
            bytes
        })
        .collect()
}

#[test]
fn however_parkwarden_ends_the_target_runs_on_without_probes() {
    let program = fixture("spin", NEWEST, BuildFlags::Default);
    let (mut target, Ready { .. }) = Target::ready(&program, [] as [&str; 0]);
    // One that nothing takes the probes from before they are looked at.
    let pid = target.pid();
    let start = || Watch::start(pid, &["--mode", "filter"]);
    // Where the probes are and what was there before is in the report of a first watch, once it has ended.
    let report = start().interrupt().report();
    let clean = bytes_at_sites(target.pid(), &report);
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGKILL] {
        let watch = start();
        assert_ne!(bytes_at_sites(target.pid(), &report), clean, "{signal}: no probe was attached");
        watch.signal(signal);
        let ended = watch.ended();
        let expected = if signal == Signal::SIGKILL { None } else { Some(0) };
        assert_eq!(ended.code, expected, "{signal}: {:?}", ended.errors);
        let is_clean = || bytes_at_sites(target.pid(), &report) == clean;
        // Who is told to end removes them first; after a SIGKILL the kernel does, in its own time.
        if signal == Signal::SIGKILL {
            wait::until("the kernel to remove the probes", DEADLINE, || is_clean().then_some(()));
        }
        assert!(is_clean(), "{signal}: a probe is left");
        let before: Stats = target.ask("stats");
        wait::until(format!("the target to go on after {signal}"), DEADLINE, || {
            (target.ask::<Stats>("stats").iterations != before.iterations).then_some(())
        });
    }
    assert!(target.exit().success());
}

#[track_caller]
fn assert_refused(arguments: &[&str], message: &str) {
    let output = run(arguments);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(4), "{arguments:?}: {errors}");
    assert!(errors.contains(message), "{arguments:?}: {errors}");
    assert!(output.stdout.is_empty(), "{arguments:?}: nothing was watched, so there is no report");
}

#[test]
fn what_cannot_be_watched_is_refused_with_the_reason() {
    assert_refused(&["watch", "--pid", "4194305"], "there is no process with pid 4194305");
    assert_refused(&["watch", "--pid", "0"], "there is no process with pid 0");
    let cat = Command::new("cat").stdin(std::process::Stdio::piped()).spawn();
    let mut cat = cat.expect("cat runs");
    assert_refused(&["watch", "--pid", &cat.id().to_string()], "not a Go program");
    drop(cat.stdin.take());
    cat.wait().expect("it ends");
    // Whatever runs as pid 1 here, it is not a Go program, or not one that root may look at.
    let init = run(["watch", "--pid", "1"]);
    assert_eq!(init.status.code(), Some(4), "{}", String::from_utf8_lossy(&init.stderr));
}

#[test]
fn parkwarden_does_not_watch_itself() {
    // A shell that becomes parkwarden keeps its pid.
    let output = Command::new("sh")
        .args(["-c", "exec \"$0\" watch --pid $$"])
        .arg(parkwarden_tests::agent::binary())
        .output()
        .expect("sh runs");
    assert_eq!(output.status.code(), Some(4));
    assert!(String::from_utf8_lossy(&output.stderr).contains("parkwarden itself"));
}

#[test]
fn a_user_without_rights_is_told_what_is_missing() {
    use std::os::unix::process::CommandExt as _;
    let program = fixture("spin", NEWEST, BuildFlags::Default);
    let (target, Ready { .. }) = Target::ready(&program, [] as [&str; 0]);
    let copy = Copied::file(parkwarden_tests::agent::binary(), "parkwarden");
    let mut command = Command::new(&copy.program);
    command.args(["watch", "--pid", &target.pid().to_string()]).uid(65534).gid(65534);
    let child = spawn(command.stdout(Stdio::piped()).stderr(Stdio::piped())).expect("parkwarden runs");
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(4));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("no permission") && errors.contains("CAP_SYS_PTRACE"), "{errors}");
}

#[test]
fn a_target_that_exits_while_watched_is_reported_up_to_then() {
    let program = fixture("leaks", NEWEST, BuildFlags::Default);
    let (target, said): (_, Statement) = Target::ready(&program, ["-n", EACH]);
    let watch = Watch::start(target.pid(), &["--threshold", "0s", "--interval", "100ms"]);
    assert!(target.exit().success());
    let ended = watch.ended();
    // Without a duration that is how a watch is meant to end.
    assert_eq!(ended.code, Some(0), "{:?}", ended.errors);
    assert!(ended.errors.iter().all(|line| !line.contains("exited while")), "{:?}", ended.errors);
    let report = ended.report();
    assert_eq!(report.observed.ended, Some(parkwarden::session::EndReason::TargetExited));
    drop(said);
}

#[test]
fn a_target_that_exits_while_it_is_attached_to_is_told() {
    let program = fixture("leaks", NEWEST, BuildFlags::Default);
    // From before the first look to after the attach: the target is killed at ever later moments.
    for step in 0..20u64 {
        let (target, _): (_, Statement) = Target::ready(&program, ["-n", "1"]);
        let watcher = std::thread::spawn({
            let pid = target.pid().to_string();
            move || run(["watch", "--pid", &pid, "--format", "json"])
        });
        // Not a wait for a condition: the moment itself is what varies.
        wait::nothing_for(Duration::from_millis(step * 20));
        target.kill();
        let output = watcher.join().expect("parkwarden runs");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(4), "{errors}");
        assert!(errors.contains("exit") || errors.contains("there is no process"), "{errors}");
        assert!(!errors.contains("panicked"), "{errors}");
    }
}

#[test]
fn a_damaged_capture_is_refused_with_the_offset() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("capture");
    let program = fixture("leaks", NEWEST, BuildFlags::Default);
    let (target, _): (_, Statement) = Target::ready(&program, ["-n", EACH]);
    Watch::start(target.pid(), &["--save", path.to_str().expect("UTF-8")]).interrupt();
    let whole = std::fs::read(&path).expect("saved");
    let replay = |bytes: &[u8]| {
        std::fs::write(&path, bytes).expect("written");
        let output = run(["watch", "--replay", path.to_str().expect("UTF-8")]);
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let half = whole.len() / 2;
    let (code, errors) = replay(&whole[..half]);
    assert_eq!(code, Some(1), "{errors}");
    assert!(errors.contains("truncated") && errors.contains(&format!("offset {half}")), "{errors}");
    let mut damaged = whole.clone();
    damaged[half] ^= 0xff;
    let (code, errors) = replay(&damaged);
    assert_eq!(code, Some(1), "{errors}");
    assert!(errors.contains("offset"), "{errors}");
    let (code, errors) = replay(b"something else altogether");
    assert_eq!(code, Some(1), "{errors}");
    assert!(errors.contains("not a parkwarden capture"), "{errors}");
    assert_eq!(replay(&whole).0, Some(0));
}

#[test]
fn the_host_can_be_watched_from() {
    let output = run(["doctor", "--format", "json"]);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(report["watch_possible"], true, "{report:#}");
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn the_bpf_programs_log_when_asked() {
    let program = fixture("leaks", NEWEST, BuildFlags::Default);
    let (mut target, Ready { .. }) = Target::ready(&program, ["-wait", "-n", EACH]);
    let watch = Watch::start(target.pid(), &["--mode", "trace", "-vvv"]);
    let _: Statement = target.ask("go");
    let ended = watch.interrupt();
    let hits: u64 = ended.report().observed.probes.iter().map(|probe| probe.hits).sum();
    let logged = ended.errors.iter().filter(|line| line.contains("parkwarden_ebpf") && line.contains(" hit")).count();
    assert!(logged > 0 && logged as u64 <= hits, "{logged} of {hits} hits logged");

    // What is lost is told with less.
    let program = fixture("churn", NEWEST, BuildFlags::Default);
    let (mut target, Ready { .. }) = Target::ready(&program, ["-n", "100000"]);
    let watch = Watch::start(target.pid(), &["--mode", "trace", "-vv", "--ring", "4"]);
    let _: Churned = target.ask("go");
    let errors = watch.interrupt().errors;
    assert!(errors.iter().any(|line| line.contains("the event ring is full")), "no loss was logged");
    assert!(!errors.iter().any(|line| line.ends_with(" hit")), "hits are logged although only losses were asked for");
}
