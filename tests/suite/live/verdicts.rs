//! `proven`, `likely` and `idle` in `watch` on live programs: what piles up is told, what merely waits is not.

use std::collections::BTreeSet;

use parkwarden::detect::Verdict;
use parkwarden::report::{Group, Report};
use parkwarden_tests::agent::{binary, run};
use parkwarden_tests::control_group::ControlGroup;
use parkwarden_tests::target::Target;
use parkwarden_tests::turn::turn;
use parkwarden_tests::{BuildFlags, fixture};
use serde::Deserialize;
use serde_json::Value;
use xtask::toolchain;

use super::recording::wait_for_samples;

const WATCH: [&str; 6] = ["--interval", "1s", "--threshold", "200ms", "--format", "json"];

/// Five windows of a second, which is what it takes to judge, and two more.
const ENOUGH: &str = "7s";

/// As many on a machine that is busy, where looks are late.
const BUSY: &str = "30s";

/// What leaks that stay reachable are said to do.
const CAUSES: [(&str, &str); 8] = [
    ("main.uncollectedResult", "sends on an unbuffered channel that nobody receives from"),
    ("main.abandonedQueue", "sends on a full channel that nobody receives from"),
    (
        "main.ticking",
        "waits for a timer or ticker (time.After, time.Tick) for long, or again and again, and its case for a context's Done, \
         or another channel of struct{}, does not happen",
    ),
    (
        "main.afterLoop",
        "waits for a timer or ticker (time.After, time.Tick) for long, or again and again, and its case for a context's Done, \
         or another channel of struct{}, does not happen",
    ),
    ("main.polling", "sleeps for long, or again and again in a loop that nothing ends"),
    ("main.waitsForAll", "waits for a sync.WaitGroup whose counter does not reach zero"),
    ("main.wantsLock", "wants a sync.Mutex that is locked, and whoever has it keeps it"),
    ("main.uncancelled", "receives from a channel of struct{}, as a context's Done is one, that nobody closes"),
];

#[derive(Deserialize)]
struct Piling {
    classes: BTreeSet<String>,
}

fn watch(pid: u32, how_long: &str, arguments: &[&str]) -> Report {
    let pid = pid.to_string();
    let output = run(["watch", "--pid", &pid, "--for", how_long].iter().chain(&WATCH).chain(arguments));
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("a report")
}

/// The `go` statements of the groups with a verdict.
fn makers(report: &Report, verdict: Verdict) -> BTreeSet<String> {
    let groups = report.groups.iter().filter(|group| group.verdict == verdict);
    groups.filter_map(|group| group.created_by.as_ref()).map(|place| place.function.clone()).collect()
}

/// Leaks of which everything stays reachable, and one of which nothing does, which is proven.
#[test]
fn leaks_are_likely_within_five_windows_and_proven_where_that_is_possible() {
    let _turn = turn();
    let directory = tempfile::tempdir().expect("a directory");
    let capture = directory.path().join("capture");
    let capture = capture.to_str().expect("UTF-8");
    for version in toolchain::VERSIONS {
        let program = fixture("piling", version, BuildFlags::Default);
        let (target, Piling { mut classes }): (_, Piling) = Target::ready(&program, ["orphans"]);
        classes.remove("main.orphan");
        let arguments = ["--prove", "--max-pause", "5s", "--save", capture];
        let missed = |report: &Report| -> Vec<String> {
            classes.difference(&makers(report, Verdict::Likely)).cloned().collect()
        };
        let is_few = |missed: &[String]| missed.len() * 10 <= classes.len();
        let mut report = watch(target.pid(), ENOUGH, &arguments);
        if !is_few(&missed(&report)) {
            report = watch(target.pid(), BUSY, &arguments);
        }
        let missed = missed(&report);
        assert!(is_few(&missed), "Go {version}: {missed:?} of {} are missed", classes.len());
        let likely = makers(&report, Verdict::Likely);
        // Nothing else leaks: the goroutines that start the others, and main, do not.
        let wrong: Vec<_> = likely.difference(&classes).collect();
        assert!(wrong.is_empty(), "Go {version}: {wrong:?} are no leaks");
        eprintln!("Go {version}: {} of {} classes", likely.len(), classes.len());
        for (class, sentence) in CAUSES.iter().filter(|(class, _)| likely.contains(*class)) {
            let made_here = |group: &&Group| group.created_by.as_ref().is_some_and(|place| place.function == *class);
            let causes: Vec<_> = report.groups.iter().filter(made_here).flat_map(|group| &group.cause).collect();
            assert!(causes.iter().any(|cause| cause.sentence == *sentence), "Go {version}, {class}: {causes:#?}");
        }

        let asleep =
            report.groups.iter().filter(|group| group.verdict == Verdict::Likely && group.wait_reason == "sleep");
        for group in asleep {
            let bounded = group.evidence.iter().any(|sentence| sentence.contains("they level off at about"));
            assert!(bounded, "Go {version}: {group:#?}");
        }

        let proofs = report.observed.proofs.as_ref().expect("a proof was tried");
        assert!(proofs.taken > 0 && proofs.contradicted == 0, "Go {version}: {proofs:?}");
        assert!(proofs.longest_pause_seconds > 0.0, "Go {version}: {proofs:?}");
        assert_eq!(makers(&report, Verdict::Proven), BTreeSet::from(["main.orphan".to_owned()]), "Go {version}");
        for group in &report.groups {
            let proven = group.verdict == Verdict::Proven;
            // Those who came after the proof are not proven.
            assert_eq!(group.proven > 0 && group.proven <= group.count, proven, "Go {version}: {group:#?}");
        }

        let output = run(["watch", "--replay", capture, "--threshold", "200ms", "--format", "json"]);
        let replayed: Report = serde_json::from_slice(&output.stdout).expect("a report");
        assert_eq!(replayed, report, "Go {version}");
        // The program has not been harmed.
        assert!(target.exit().success(), "Go {version}");
    }
}

#[test]
fn goroutines_that_wait_for_good_reasons_are_idle() {
    let cells = toolchain::VERSIONS.map(|version| (version, BuildFlags::Default));
    // With cgo there is one class more: C threads that call back.
    for (version, flags) in cells.into_iter().chain([(toolchain::NEWEST, BuildFlags::Cgo)]) {
        let (target, _): (_, Value) = Target::ready(&fixture("benign", version, flags), std::iter::empty::<&str>());
        let report = watch(target.pid(), ENOUGH, &["--prove", "--max-pause", "5s"]);
        // Some want locks that nobody gives back before the program ends, or send what nobody takes before: from outside that is
        // what a hang is.
        let unserved = |group: &Group| group.wait_reason.starts_with("sync.") || group.wait_reason == "chan send";
        let held = |group: &&Group| group.verdict == Verdict::Stuck && unserved(group);
        let suspected = report.groups.iter().filter(|group| group.verdict > Verdict::Idle);
        let wrong: Vec<_> = suspected.filter(|group| !held(group)).collect();
        assert!(wrong.is_empty(), "Go {version}: {wrong:#?}");
        assert!(report.goroutines.parked_over_threshold > 1000, "Go {version}: {:?}", report.goroutines);
        // Nothing was suspicious, so nothing was stopped.
        assert_eq!(report.observed.proofs, None, "Go {version}");
    }
}

/// Cursors that are opened, kept and asked for values look as unmoved as those that everybody forgot: a switch between coroutines
/// leaves no trace.
#[test]
fn iterators_that_pile_up_are_not_said_to_be_unmoved() {
    for version in toolchain::VERSIONS.into_iter().filter(|version| *version >= "1.23") {
        let program = fixture("iterators", version, BuildFlags::Default);
        let (target, _): (_, Value) = Target::ready(&program, ["cursors"]);
        let report = watch(target.pid(), ENOUGH, &[]);
        let iterators: Vec<&Group> = report.groups.iter().filter(|group| group.wait_reason == "coroutine").collect();
        assert!(iterators.iter().any(|group| group.count > 10), "Go {version}: {:#?}", report.groups);
        for group in iterators {
            assert_eq!(group.verdict, Verdict::Idle, "Go {version}: {group:#?}");
            let unmoved = |sentence: &String| sentence.contains("not moved");
            assert!(!group.evidence.iter().any(unmoved), "Go {version}: {group:#?}");
            assert!(group.evidence.iter().any(|sentence| sentence.contains("no trace")), "Go {version}: {group:#?}");
        }
    }
}

/// Looks that come later than they should, as on a host that is short of CPU, are as good as others.
#[test]
fn growth_is_told_by_looks_that_are_late_on_the_whole() {
    let _turn = turn();
    let program = fixture("piling", toolchain::NEWEST, BuildFlags::Default);
    let (target, _): (_, Piling) = Target::ready(&program, [] as [&str; 0]);
    let group = ControlGroup::of_cpu(20);
    let mut command = group.command(binary());
    command.args(["watch", "--pid", &target.pid().to_string(), "--interval", "50ms", "--threshold", "500ms"]);
    command.args(["--mode", "census", "--reach-window-mib", "0", "--for", "20s", "--format", "json"]);
    let output = command.output().expect("parkwarden runs");
    let report: Report = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    let likely = makers(&report, Verdict::Likely);
    assert!(likely.contains("main.uncollectedResult") && likely.contains("main.wantsLock"), "{likely:?}");
}

/// Iterators that nobody can resume are proven although no look at the running program could suspect them.
#[test]
fn iterators_are_proven_where_nothing_else_can_tell() {
    let program = fixture("iterators", toolchain::NEWEST, BuildFlags::Default);
    let (target, _): (_, Value) = Target::ready(&program, [""; 0]);
    let report = watch(target.pid(), ENOUGH, &["--prove", "--max-pause", "2s", "--reach-window-mib", "0"]);
    let proven = report.groups.iter().filter(|group| group.wait_reason == "coroutine").map(|group| group.proven);
    assert!(proven.sum::<u64>() > 0, "{:#?}", report.groups);
    assert_eq!(report.observed.reach, None);
}

#[test]
fn a_leak_sets_the_exit_status_when_asked_and_too_short_a_watch_says_so() {
    let program = fixture("piling", toolchain::NEWEST, BuildFlags::Default);
    let (target, _): (_, Piling) = Target::ready(&program, [] as [&str; 0]);
    let pid = target.pid().to_string();
    let watch = ["watch", "--pid", &pid, "--format", "json", "--threshold", "100ms", "--fail-on-leak"];
    // Two looks make one window.
    let output = run(watch.iter().chain(&["--for", "1s", "--interval", "1s"]));
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Report = serde_json::from_slice(&output.stdout).expect("a report");
    let said = |group: &Group| group.evidence.iter().any(|sentence| sentence.contains("takes 5 windows"));
    assert!(report.groups.iter().any(said), "{:#?}", report.groups);
    // Unless that is enough for the user.
    let output = run(watch.iter().chain(&["--for", "2s", "--interval", "1s", "--windows", "2"]));
    assert_eq!(output.status.code(), Some(3), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Exit status and words of a watch whose target is killed once there were some looks at it.
fn watch_of_a_killed_target(arguments: &[&str]) -> (Option<i32>, String) {
    let program = fixture("piling", toolchain::NEWEST, BuildFlags::Default);
    let (target, _): (_, Piling) = Target::ready(&program, [] as [&str; 0]);
    let directory = tempfile::tempdir().expect("a directory");
    let record = directory.path().join("recording.db");
    let pid = target.pid().to_string();
    let watch = ["watch", "--pid", &pid, "--format", "json", "--threshold", "100ms", "--interval", "500ms"];
    let further = ["--windows", "2", "--record", record.to_str().expect("UTF-8")];
    let watch: Vec<String> = watch.iter().chain(&further).chain(arguments).map(ToString::to_string).collect();
    let watching = std::thread::spawn(move || run(watch));
    wait_for_samples(&record, 5);
    target.kill();
    let output = watching.join().expect("parkwarden runs");
    let report: Report = serde_json::from_slice(&output.stdout).expect("a report");
    assert!(report.groups.iter().any(|group| group.verdict > Verdict::Idle), "{:#?}", report.groups);
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn a_target_that_ends_is_a_failure_only_of_a_watch_that_was_to_last_longer_and_a_leak_comes_first() {
    const EXITED: &str = "exited while it was being watched";
    for (arguments, status, failed) in [
        (&["--for", "0s"][..], 0, false),
        (&["--for", "0s", "--fail-on-leak"], 3, false),
        (&["--for", "1h"], 4, true),
        (&["--for", "1h", "--fail-on-leak"], 3, true),
    ] {
        let (found, said) = watch_of_a_killed_target(arguments);
        assert_eq!(found, Some(status), "{arguments:?}: {said}");
        assert_eq!(said.contains(EXITED), failed, "{arguments:?}: {said}");
    }
}

#[test]
fn a_proof_that_would_take_too_long_is_said_to_be_refused() {
    let program = fixture("piling", toolchain::NEWEST, BuildFlags::Default);
    let (target, _): (_, Piling) = Target::ready(&program, [] as [&str; 0]);
    let report = watch(target.pid(), ENOUGH, &["--windows", "2", "--prove", "--max-pause", "1us"]);
    let proofs = report.observed.proofs.expect("a proof was tried");
    assert_eq!(proofs.taken, 0);
    assert!(proofs.refusal.is_some_and(|refusal| refusal.contains("--max-pause")), "{}", proofs.refused);
}

#[test]
fn what_the_runtime_itself_has_proven_counts() {
    let program = fixture("stuck", toolchain::NEWEST, BuildFlags::Default);
    let (target, _): (_, Value) = Target::ready(&program, ["send=5"]);
    let report = watch(target.pid(), ENOUGH, &[]);
    let proven: Vec<_> = report.groups.iter().filter(|group| group.verdict == Verdict::Proven).collect();
    assert_eq!(proven.len(), 1, "{:#?}", report.groups);
    assert_eq!((proven[0].count, proven[0].proven), (5, 5));
    let said = "The runtime's own leak profile has found 5 of them.";
    assert!(proven[0].evidence.iter().any(|sentence| sentence == said), "{:#?}", proven[0]);
}
