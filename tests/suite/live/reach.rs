//! `parkwarden prove` against the truth: the runtime's own leak profile where there is one, and programs that are known
//! to leak or not to.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};
use std::sync::Mutex;

use parkwarden::cause::CauseKind;
use parkwarden::detect::Verdict;
use parkwarden::prove::ProofReport;
use parkwarden::report::Report;
use parkwarden_tests::agent::{binary, run};
use parkwarden_tests::corpus::{PARTS, corpus};
use parkwarden_tests::target::{DEADLINE, Target};
use parkwarden_tests::{BuildFlags, fixture, wait};
use serde::Deserialize;
use xtask::toolchain::{self, NEWEST};

/// Versions a proof works for.
fn versions() -> impl Iterator<Item = &'static str> {
    toolchain::VERSIONS.iter().copied().filter(|version| *version >= "1.21")
}

#[derive(Debug, Deserialize)]
struct Ready {
    #[expect(dead_code, reason = "its presence is what matters")]
    ready: bool,
    /// What the runtime's profile found; -1 without one.
    #[serde(default)]
    runtime: i64,
}

#[derive(Debug, Deserialize)]
struct Said {
    runtime: Option<Vec<u64>>,
}

/// Tests share a small machine: a pause longer than the default is no failure here.
const PATIENT: [&str; 4] = ["--max-pause", "20s", "--format", "json"];

fn prove(pid: u32) -> ProofReport {
    let pid = pid.to_string();
    let output = run(["prove", "--pid", &pid].into_iter().chain(PATIENT));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("a report")
}

fn proven(report: &ProofReport) -> BTreeSet<u64> {
    report.leaks.iter().flat_map(|group| group.goids.iter().copied()).collect()
}

/// What was found in one program. Some go on to get stuck, so the runtime looks before and after.
struct Found {
    before: Option<BTreeSet<u64>>,
    ours: BTreeSet<u64>,
    /// Those of ours that wait for a mutex.
    mutex: BTreeSet<u64>,
    after: Option<BTreeSet<u64>>,
}

/// One program of the corpus: what the runtime found and what parkwarden proved; `None` when it ended by itself.
fn compare(binary: &std::path::Path, program: &str) -> Option<Found> {
    if ENDS.contains(&program) {
        return None;
    }
    let mut command = Command::new(binary);
    command.arg(program).stderr(Stdio::null());
    let mut target = Target::spawn_command(command);
    let pid = target.pid();
    let mut look = || target.ask::<Said>("look").runtime.map(|ids| ids.into_iter().collect());
    let before = look();
    let report = prove(pid);
    let of_mutex = report.leaks.iter().filter(|group| group.wait_reason == "sync.Mutex.Lock");
    let mutex = of_mutex.flat_map(|group| group.goids.iter().copied()).collect();
    Some(Found { before, ours: proven(&report), mutex, after: look() })
}

/// `SelectNoCasesMain` blocks the main goroutine itself; `SpawnGC` needs the profile, and panics without it.
const ENDS: [&str; 2] = ["SelectNoCasesMain", "SpawnGC"];

/// Runs every program of a corpus, a few at a time, and gives for each what was found.
fn whole_corpus(from: &str, version: &str) -> BTreeMap<String, Found> {
    let found = Mutex::new(BTreeMap::new());
    for part in PARTS {
        let corpus = corpus(part, from, version);
        let todo = Mutex::new(corpus.programs.iter());
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    loop {
                        let Some(program) = todo.lock().expect("no panic").next() else { return };
                        if let Some(result) = compare(&corpus.binary, program) {
                            found.lock().expect("no panic").insert(program.clone(), result);
                        }
                    }
                });
            }
        });
    }
    found.into_inner().expect("no panic")
}

/// What the runtime proves of the corpus, parkwarden proves; and it proves nothing that the runtime does not.
#[test]
fn the_corpus_is_proven_as_the_runtime_proves_it() {
    let mut table = String::new();
    for version in ["1.26.6", NEWEST] {
        let found = whole_corpus(version, version);
        assert!(found.len() > 80, "the corpus of Go {version} has {} programs", found.len());
        let (mut all, mut missed) = (0, 0);
        for (program, Found { before, ours, mutex, after }) in &found {
            let runtime = before.as_ref().expect("a runtime with the profile");
            let extra = ours.difference(after.as_ref().expect("it still has it"));
            // A mutex alone shares its block of 16 bytes with another value, and what leads to that keeps it from being found by
            // the runtime (Cockroach9935, for one, has a hundred of them).
            let extra: Vec<_> = extra.filter(|goid| !mutex.contains(*goid)).collect();
            assert!(extra.is_empty(), "Go {version}, {program}: proven, but not by the runtime: {extra:?}");
            assert!(runtime.is_empty() || !ours.is_empty(), "Go {version}, {program}: {} missed", runtime.len());
            all += runtime.len();
            missed += runtime.difference(ours).count();
            let _ = writeln!(table, "| {version} | {program} | {} | {} |", runtime.len(), ours.len());
        }
        assert!(missed * 100 <= all, "Go {version}: {missed} of {all} goroutines were not proven");
        let _ = writeln!(table, "| **{version}** | **all {}** | **{all}** | **{}** |", found.len(), all - missed);
    }
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        let page = format!("{CORPUS_HEAD}{table}");
        std::fs::write(xtask::root().join("tests/leak-corpus.md"), page).expect("written");
    }
}

const CORPUS_HEAD: &str = "# Proofs compared with the Go runtime's own\n\n\
    Generated by `UPDATE_GOLDEN=1 cargo test --package parkwarden-tests corpus`; not edited by hand.\n\n\
    The programs are those of the Go toolchain's `src/runtime/testdata/testgoroutineleakprofile`. Each ran once; then the\n\
    runtime's `goroutineleak` profile looked for leaked goroutines in the process, and `parkwarden prove` from outside. The\n\
    programs race with themselves, so that the numbers differ a little from run to run.\n\n\
    | Go | program | runtime | parkwarden |\n|---|---|---|---|\n";

/// Where there is no profile to compare with, what the newest runtime proves is expected of every version. A program
/// that leaks only by a race is left out.
#[test]
fn the_corpus_is_proven_on_older_versions_too() {
    const RELIABLE: [&str; 12] = [
        "ChanRecv",
        "ChanSend",
        "Cond",
        "MutexHeap",
        "NilRecv",
        "NilSend",
        "NoCloseRange",
        "RWMutexLock",
        "RWMutexRLock",
        "Select",
        "SelectNoCases",
        "WaitGroup",
    ];
    for version in versions().filter(|version| *version < "1.26") {
        let corpus = corpus("examples", NEWEST, version);
        for program in RELIABLE {
            let Found { ours, .. } = compare(&corpus.binary, program).expect("it stands by");
            assert!(!ours.is_empty(), "Go {version}, {program}: not proven");
        }
        let Found { ours, .. } = compare(&corpus.binary, "NoLeakGlobal").expect("it stands by");
        assert!(ours.is_empty(), "Go {version}: a wait on a global channel is no leak: {ours:?}");
    }
}

/// The pattern that Go 1.27.3 itself does not prove: the value sent is a captured variable.
#[test]
fn senders_of_captured_variables_are_proven() {
    for version in versions() {
        let (target, _): (_, Ready) = Target::ready(&fixture("stuck", version, BuildFlags::Default), ["captured=400"]);
        let report = prove(target.pid());
        assert_eq!(report.goroutines.proven, 400, "Go {version}");
        assert_eq!(report.leaks.len(), 1, "Go {version}: one group");
        assert_eq!(report.leaks[0].cause.as_ref().map(|cause| cause.kind), Some(CauseKind::SendNobodyReceives));
    }
}

#[test]
fn long_chains_are_proven_or_live_as_a_whole() {
    let program = fixture("stuck", NEWEST, BuildFlags::Default);
    for (way, expected) in [("chain=10000", 10_000), ("live chain=10000", 0)] {
        let (target, ready): (_, Ready) = Target::ready(&program, [way]);
        let report = prove(target.pid());
        assert_eq!(report.goroutines.proven, expected, "{way}");
        assert_eq!(ready.runtime, expected.cast_signed(), "{way}: the runtime agrees");
    }
}

#[test]
fn causes_are_named() {
    let expected = [
        ("send", CauseKind::SendNobodyReceives, 1),
        ("send full", CauseKind::SendFull, 1),
        ("receive", CauseKind::ReceiveNobodySends, 1),
        ("range", CauseKind::ReceiveNobodySends, 1),
        ("nil channel", CauseKind::NilChannel, 1),
        ("empty select", CauseKind::EmptySelect, 1),
        ("select", CauseKind::DeadSelect, 1),
        ("wait group", CauseKind::WaitGroupNeverDone, 1),
        ("mutex", CauseKind::MutexNeverUnlocked, 1),
        ("lock order", CauseKind::MutexNeverUnlocked, 2),
        ("rwmutex", CauseKind::RwMutexNeverUnlocked, 1),
        ("cond", CauseKind::CondNeverSignalled, 1),
        ("stopped timer", CauseKind::TimerNeverFires, 1),
    ];
    for version in versions() {
        let program = fixture("stuck", version, BuildFlags::Default);
        for (way, cause, each) in expected {
            let (target, _): (_, Ready) = Target::ready(&program, [format!("{way}=2")]);
            let report = prove(target.pid());
            assert_eq!(report.goroutines.proven, 2 * each, "Go {version}, {way}: {report:#?}");
            assert_eq!(report.leaks[0].cause.as_ref().map(|found| found.kind), Some(cause), "Go {version}, {way}");
            assert_eq!(report.precision.conservative_objects, 0, "Go {version}, {way}: {:?}", report.precision);
        }
    }
}

/// Frames that were not put right yet lead to where the stack was, and what lies there is not looked at: only words tell.
#[test]
fn what_lies_on_a_stack_that_is_being_moved_is_led_to() {
    for version in ["1.21.13", NEWEST] {
        for (mode, proofs) in [(None, 15), (Some("-shrink"), 5)] {
            let (target, _): (_, Ready) = Target::ready(&fixture("growing", version, BuildFlags::Default), mode);
            for _ in 0..proofs {
                let report = prove(target.pid());
                assert!(report.goroutines.candidates > 0, "Go {version}: {:?}", report.goroutines);
                assert!(report.leaks.is_empty(), "Go {version}, {mode:?}: {:#?}", report.leaks);
            }
        }
    }
}

/// What they wait for can be reached by everybody, so nothing is proven of them: but whoever has it can never run again.
#[test]
fn who_waits_for_what_a_proven_goroutine_has_is_told_as_held_up() {
    for version in versions() {
        for flags in [BuildFlags::Default, BuildFlags::Stripped] {
            let (target, _): (_, Ready) = Target::ready(&fixture("stuck", version, flags), ["registry=5"]);
            let report = prove(target.pid());
            let said = format!("Go {version}, {}: {report:#?}", flags.name());
            assert_eq!(report.goroutines.proven, 1, "{said}");
            let holder = report.leaks[0].goids[0];
            let held_up: BTreeMap<(&str, &str), u64> = report
                .held_up
                .iter()
                .map(|group| ((group.verdict.as_str(), group.wait_reason.as_str()), group.count))
                .collect();
            // Since Go 1.24 waiting for a group has a reason of its own.
            let group = if version < "1.24" { "semacquire" } else { "sync.WaitGroup.Wait" };
            assert_eq!(held_up, [(("stuck", group), 1), (("stuck", "sync.Mutex.Lock"), 3)].into(), "{said}");
            for group in &report.held_up {
                let sentence = group.evidence.last().expect("evidence");
                assert!(sentence.starts_with(&format!("waits for goroutine {holder}, whose deferred ")), "{said}");
                assert!(sentence.ends_with("and which can never run again"), "{said}");
            }
            let text = run(["prove", "--pid", &target.pid().to_string(), "--max-pause", "20s"]);
            let text = String::from_utf8_lossy(&text.stdout);
            assert!(text.contains("can never run again; 4 more wait for what they hold."), "{text}");
        }
    }
}

/// Before Go 1.26 a condition is found on its waiters' stacks, beside words that only look like one.
#[test]
fn waiters_of_one_condition_are_proven_all_or_none() {
    for version in versions() {
        let program = fixture("stuck", version, BuildFlags::Default);
        let (target, _): (_, Ready) = Target::ready(&program, ["crowded conditions=50"]);
        let report = prove(target.pid());
        assert_eq!(report.goroutines.proven, 400, "Go {version}: {report:#?}");
        assert_eq!(report.goroutines.undecided, 0, "Go {version}");
    }
}

#[test]
fn goroutines_that_wait_for_good_reasons_are_never_proven() {
    // With cgo there is one class more: C threads that call back.
    for (version, flags) in versions().map(|version| (version, BuildFlags::Default)).chain([(NEWEST, BuildFlags::Cgo)])
    {
        let (mut target, _): (_, Ready) = Target::ready(&fixture("benign", version, flags), std::iter::empty::<&str>());
        for _ in 0..3 {
            let report = prove(target.pid());
            assert!(report.goroutines.candidates > 1000, "Go {version}: {:?}", report.goroutines);
            assert!(report.leaks.is_empty(), "Go {version}: {:#?}", report.leaks);
            // One has a timer beside a channel that nobody else has.
            let timed: u64 = report.timer_loops.iter().map(|group| group.count).sum();
            assert!(timed <= 1, "Go {version}: {:#?}", report.timer_loops);
        }
        target.tell("exit");
    }
}

#[test]
fn what_moves_all_the_time_is_never_proven() {
    for (version, runs) in [(NEWEST, 40), ("1.24.11", 30), ("1.21.13", 30)] {
        let (mut target, _): (_, Ready) =
            Target::ready(&fixture("movers", version, BuildFlags::Default), std::iter::empty::<&str>());
        let mut woken = 0;
        for attempt in 0..runs {
            let report = prove(target.pid());
            assert!(report.leaks.is_empty(), "Go {version}, attempt {attempt}: {:#?}", report.leaks);
            let now: u64 = target.ask("woken");
            assert!(now > woken, "Go {version}: it does not run on");
            woken = now;
        }
    }
}

/// The stacks of parked goroutines are read before the target is stopped: those that ran meanwhile and parked where they were
/// hold something else by then.
#[test]
fn what_lies_on_the_stacks_of_goroutines_that_park_again_is_never_proven() {
    for (version, runs) in [(NEWEST, 50), ("1.25.5", 50), ("1.21.13", 50)] {
        let (mut target, _): (_, Ready) =
            Target::ready(&fixture("boxes", version, BuildFlags::Default), std::iter::empty::<&str>());
        for attempt in 0..runs {
            let report = prove(target.pid());
            let others: Vec<_> = report.leaks.iter().filter(|group| group.start_function != "main.leaked").collect();
            assert!(others.is_empty(), "Go {version}, attempt {attempt}: {others:#?}");
            assert!(report.goroutines.proven > 900, "Go {version}, attempt {attempt}: {:?}", report.goroutines);
        }
        assert!(target.ask::<u64>("woken") > 0, "Go {version}");
    }
}

#[test]
fn a_goroutine_that_runs_keeps_what_its_variables_lead_to_and_no_more() {
    for version in versions() {
        let program = fixture("running", version, BuildFlags::Default);
        let (target, _): (_, Ready) = Target::ready(&program, ["dead"]);
        let found: Vec<usize> = (0..10).map(|_| proven(&prove(target.pid())).len()).collect();
        // It may be stopped in the middle of anything, seldom where its variables are not known.
        assert!(found.iter().all(|count| [0, 50].contains(count)), "Go {version}: {found:?}");
        assert!(found.iter().filter(|count| **count == 50).count() >= 8, "Go {version}: {found:?}");

        let (mut target, _): (_, Ready) = Target::ready(&program, ["live"]);
        for attempt in 0..10 {
            let report = prove(target.pid());
            assert!(report.leaks.is_empty(), "Go {version}, attempt {attempt}: {:#?}", report.leaks);
        }
        assert!(target.ask::<u64>("woken") > 0);
    }
}

#[test]
fn loops_that_only_a_timer_wakes_are_told_from_those_that_something_can_end() {
    for version in versions().filter(|version| *version >= "1.23") {
        for flags in [BuildFlags::Default, BuildFlags::Stripped] {
            let program = fixture("loops", version, flags);
            for (way, expected) in
                [("alone", 10), ("that ends", 0), ("beside another", 0), ("with a helper", 0), ("with an end", 0)]
            {
                let (target, _): (_, Ready) = Target::ready(&program, [way]);
                let report = prove(target.pid());
                let what = format!("Go {version}, {}, {way}: {report:#?}", flags.name());
                assert!(report.leaks.is_empty(), "{what}");
                let loops: u64 = report.timer_loops.iter().map(|group| group.count).sum();
                // One may just be running.
                assert!(loops <= expected && loops + 1 >= expected, "{what}");
            }
        }
    }
}

/// The same in a watch, which stops nothing: a loop that does not grow is likely when it was woken often enough.
#[test]
fn loops_that_only_a_timer_wakes_are_likely_in_a_watch() {
    for (way, likely) in [("alone", true), ("that ends", false), ("with a helper", false)] {
        let program = fixture("loops", NEWEST, BuildFlags::Stripped);
        let (target, _): (_, Ready) = Target::ready(&program, [way]);
        let pid = target.pid().to_string();
        let often = ["--for", "40s", "--threshold", "3s", "--interval", "1s", "--format", "json"];
        let output = run(["watch", "--pid", &pid].iter().chain(&often));
        let report: Report = serde_json::from_slice(&output.stdout).expect("a report");
        let mut said = report.groups.iter().filter(|group| group.verdict == Verdict::Likely);
        match said.next() {
            Some(group) => {
                assert!(likely, "{way}: {group:#?}");
                assert!(group.evidence.iter().any(|sentence| sentence.starts_with("Only a timer wakes")), "{group:#?}");
                assert_eq!(group.cause.as_ref().map(|cause| cause.kind), Some(CauseKind::TimerLoop));
            }
            None => assert!(!likely, "{way}: {:#?}", report.groups),
        }
    }
}

/// A plugin is a module of its own, with variables, function tables and types of its own.
#[test]
fn programs_with_plugins_are_proven_and_their_variables_followed() {
    let dir = tempfile::tempdir().expect("a directory");
    let image = dir.path().join("image");
    let image = image.to_str().expect("UTF-8");
    for version in ["1.21.13", "1.24.11", NEWEST] {
        let plugin = fixture("plug", version, BuildFlags::Plugin);
        let (mut target, _): (_, Ready) = Target::ready(&fixture("plug", version, BuildFlags::Cgo), [&plugin]);
        let is_right = |report: &ProofReport| {
            let [group] = &report.leaks[..] else { panic!("Go {version}: {:#?}", report.leaks) };
            assert!(group.start_function.ends_with(".loses") && group.count == 1, "Go {version}: {group:#?}");
            assert!(group.blocked_at.as_ref().is_some_and(|place| place.file.ends_with("pl.go")), "{group:#?}");
            assert_eq!(report.precision.conservative_objects, 0, "Go {version}: {:?}", report.precision);
        };
        let pid = target.pid().to_string();
        let output = run(["prove", "--pid", &pid, "--save-image", image].into_iter().chain(PATIENT));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        // It holds the program's memory.
        assert_eq!(std::fs::metadata(image).expect("the image").permissions().mode() & 0o777, 0o600);
        is_right(&serde_json::from_slice(&output.stdout).expect("a report"));
        let output = run(["prove", "--image", image, "--format", "json"]);
        is_right(&serde_json::from_slice(&output.stdout).expect("a report"));
        let _: serde_json::Value = target.ask("stop");
        is_right(&prove(target.pid()));
    }
}

/// The allocator puts a lone mutex and the number made next into one block.
#[test]
fn a_value_that_shares_an_allocation_hides_no_lock_before_it() {
    for version in versions() {
        for flags in [BuildFlags::Default, BuildFlags::Stripped] {
            let program = fixture("stuck", version, flags);
            for (way, proven, sharing) in [("mutex before a number", 40, 0), ("mutex behind a number", 0, 40)] {
                let (target, _): (_, Ready) = Target::ready(&program, [format!("{way}=40")]);
                let report = prove(target.pid());
                let what = format!("Go {version}, {}, {way}: {report:#?}", flags.name());
                assert_eq!((report.goroutines.proven, report.goroutines.sharing), (proven, sharing), "{what}");
            }
        }
    }
}

#[test]
fn whoever_has_a_lock_is_named() {
    let says = |report: &ProofReport, part: &str| {
        let said: Vec<&String> = report.leaks.iter().flat_map(|group| &group.evidence).collect();
        said.iter().any(|sentence| sentence.contains(part)).then_some(()).ok_or(format!("{said:#?}"))
    };
    for version in versions() {
        let program = fixture("stuck", version, BuildFlags::Default);
        for (way, sentence) in [
            ("lock order=1", "perhaps a cycle of locks: goroutine"),
            ("lock pile=3", "which is stuck itself, may hold it"),
            ("mutex=1", "by one that has returned or ended without unlocking it, or twice by the same"),
        ] {
            let (target, _): (_, Ready) = Target::ready(&program, [way]);
            says(&prove(target.pid()), sentence).unwrap_or_else(|said| panic!("Go {version}, {way}: {said}"));
        }
    }
}

#[test]
fn position_independent_and_cgo_programs_are_proven() {
    for flags in [BuildFlags::Pie, BuildFlags::Cgo, BuildFlags::Unoptimized, BuildFlags::Race] {
        let (target, _): (_, Ready) = Target::ready(&fixture("stuck", NEWEST, flags), ["send=5", "cond=2"]);
        assert_eq!(prove(target.pid()).goroutines.proven, 7, "{}", flags.name());
    }
}

#[derive(Debug, Deserialize)]
struct Iterators {
    #[expect(dead_code, reason = "its presence is what matters")]
    ready: bool,
    lost: u64,
}

/// The bodies of `iter.Pull`, which are switched to without the scheduler: those that nobody can resume are proven, and no other
/// while iterators are pulled and moved about.
#[test]
fn iterators_that_nobody_can_resume_are_proven() {
    for version in versions().filter(|version| *version >= "1.23") {
        for flags in [BuildFlags::Default, BuildFlags::Stripped, BuildFlags::Unoptimized] {
            let what = format!("Go {version}, {}", flags.name());
            let (mut target, said): (_, Iterators) = Target::ready(&fixture("iterators", version, flags), [""; 0]);
            let (mut most, mut found) = (0, BTreeSet::new());
            for _ in 0..10 {
                let report = prove(target.pid());
                // What runs may be stopped where its variables are not known: then one that is dead may lead to an iterator.
                assert!(report.goroutines.proven <= said.lost, "{what}: {:#?}", report.leaks);
                most = most.max(report.goroutines.proven);
                found.extend(proven(&report));
                let suspended = report.leaks.iter().filter(|group| group.wait_reason == "coroutine");
                for group in suspended {
                    let cause = group.cause.as_ref().map(|cause| cause.kind);
                    let nested = group.stack.iter().any(|frame| frame.function.contains("next"));
                    assert!(cause == Some(CauseKind::IteratorNotStopped) || nested, "{what}: {group:#?}");
                }
            }
            assert_eq!(most, said.lost, "{what}");
            let _: serde_json::Value = target.ask("resume");
            let after: BTreeSet<u64> = (0..10).flat_map(|_| proven(&prove(target.pid()))).collect();
            assert!(found.is_subset(&after), "{what}: {found:?}, {after:?}");
        }
    }
}

#[test]
fn a_saved_image_proves_the_same_without_the_process() {
    let dir = tempfile::tempdir().expect("a directory");
    let image = dir.path().join("image");
    let image = image.to_str().expect("UTF-8");
    for version in versions() {
        let (target, _): (_, Ready) = Target::ready(
            &fixture("stuck", version, BuildFlags::Default),
            ["send=5", "mutex=2", "cond=2", "select=2", "wait group=1", "heap=3", "registry=4"],
        );
        let pid = target.pid().to_string();
        let output = run(["prove", "--pid", &pid, "--save-image", image].into_iter().chain(PATIENT));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let live: ProofReport = serde_json::from_slice(&output.stdout).expect("a report");
        target.kill();
        let output = run(["prove", "--image", image, "--format", "json"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let saved: ProofReport = serde_json::from_slice(&output.stdout).expect("a report");
        assert_eq!(live.goroutines.proven, 13, "Go {version}");
        assert_eq!(live.held_up.iter().map(|group| group.count).sum::<u64>(), 3, "Go {version}");
        assert_eq!(ProofReport { from_image: false, ..saved }, live, "Go {version}");
    }
}

#[test]
fn a_target_too_large_for_the_pause_is_left_alone() {
    let (mut target, _): (_, Ready) = Target::ready(&fixture("stuck", NEWEST, BuildFlags::Default), ["heap=200"]);
    let pid = target.pid().to_string();
    let output = run(["prove", "--pid", &pid, "--max-pause", "1ms"]);
    assert_eq!(output.status.code(), Some(4));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("--max-pause is 1ms") && said.contains("was not stopped"), "{said}");
    let enough = said.split("; --max-pause ").nth(1).and_then(|rest| rest.split_once("ms would do")).map(|(ms, _)| ms);
    assert!(enough.is_some_and(|ms| ms.parse::<u64>().is_ok_and(|ms| ms > 1)), "{said}");
    let _: serde_json::Value = target.ask("ping");
}

#[test]
fn a_target_whose_copy_would_take_too_much_memory_is_left_alone() {
    let (mut target, _): (_, Ready) = Target::ready(&fixture("stuck", NEWEST, BuildFlags::Default), ["heap=200"]);
    let pid = target.pid().to_string();
    let output = run(["prove", "--pid", &pid, "--max-pause", "20s", "--prove-memory-mib", "100"]);
    assert_eq!(output.status.code(), Some(4));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains("was not stopped") && said.contains("--prove-memory-mib") && said.contains("is 100"),
        "{said}"
    );
    let _: serde_json::Value = target.ask("ping");
    let output = run(["prove", "--pid", &pid, "--max-pause", "20s", "--prove-memory-mib", "300"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// parkwarden is killed while the target stands still: it runs on.
#[test]
fn a_target_survives_the_end_of_parkwarden() {
    let (mut target, _): (_, Ready) = Target::ready(&fixture("stuck", NEWEST, BuildFlags::Default), ["heap=300"]);
    let pid = target.pid().to_string();
    let is_stopped = || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("it lives");
        stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('t'))
    };
    let mut killed = 0;
    for attempt in 0..1000 {
        let mut prove = Command::new(binary())
            .args(["prove", "--pid", &pid])
            .args(PATIENT)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("parkwarden runs");
        let stopped = wait::until("the target's standing still, or the end of it all", DEADLINE, || {
            let ended = || prove.try_wait().expect("it can be waited for").map(|_| false);
            is_stopped().then_some(true).or_else(ended)
        });
        let _ = prove.kill();
        prove.wait().expect("it can be waited for");
        let _: serde_json::Value = target.ask("ping");
        assert!(!is_stopped(), "attempt {attempt}");
        killed += u32::from(stopped);
        if killed == 100 {
            return;
        }
    }
    panic!("only {killed} attempts were killed while the target stood still");
}
