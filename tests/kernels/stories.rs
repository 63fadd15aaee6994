//! What is tried on each kernel, and what has to come of it.

use std::collections::{BTreeMap, BTreeSet};

use parkwarden::config::{Mode, ModeChoice};
use parkwarden::doctor;
use parkwarden::prove::ProofReport;
use parkwarden::record::ExitKind;
use parkwarden::report::{Lost, Report};
use parkwarden::snapshot::Snapshot;
use parkwarden::timeline::Timeline;
use parkwarden_tests::BuildFlags;
use parkwarden_tests::leaks::{Statement, assert_as_said, assert_snapshot_as_said};
use parkwarden_tests::pprof::pprof;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use xtask::dist::Target;
use xtask::kernels::{Kernel, Probes};
use xtask::toolchain::{self, NEWEST};

use crate::machine::Outcome;

/// A Go program in the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Program {
    /// Its directory in `tests/go`.
    pub name: &'static str,
    /// Of Go.
    pub version: &'static str,
    /// How it is built.
    pub flags: BuildFlags,
}

impl Program {
    /// Its path in the machine.
    pub fn path(&self) -> String {
        format!("/go/{}-{}-{}", self.name, self.version, self.flags.name())
    }
}

/// What the guest does; see `tests/go/guest`.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Step {
    /// Of the outcome that belongs to it.
    pub name: String,
    kind: &'static str,
    arguments: Vec<String>,
    program: Vec<String>,
    tries: u32,
    r#as: &'static str,
}

impl Step {
    /// Tells what machine it is.
    pub fn system() -> Self {
        Self { name: "system".into(), kind: "system", ..Self::default() }
    }
}

/// A step and what is expected of it.
pub struct Story {
    /// The column of the table; several may share one.
    pub column: &'static str,
    /// What it is about, within the column.
    pub detail: String,
    /// What is done.
    pub step: Step,
    /// The program it takes.
    pub program: Option<Program>,
    /// Panics unless the outcome is right; a word or two for the table.
    pub check: Box<dyn Fn(&Outcome) -> String>,
}

impl Story {
    fn new(
        column: &'static str,
        kind: &'static str,
        arguments: &[&str],
        check: impl Fn(&Outcome) -> String + 'static,
    ) -> Self {
        let arguments = arguments.iter().map(|word| (*word).to_owned()).collect();
        let step = Step { kind, arguments, ..Step::default() };
        Self { column, detail: String::new(), step, program: None, check: Box::new(check) }
    }

    fn of(mut self, program: Program, arguments: &[&str]) -> Self {
        self.step.program =
            std::iter::once(program.path()).chain(arguments.iter().map(|word| (*word).to_owned())).collect();
        self.program = Some(program);
        self
    }

    fn about(mut self, detail: impl Into<String>) -> Self {
        self.detail = detail.into();
        self
    }
}

/// The columns of the table, in its order.
pub const COLUMNS: [&str; 17] = [
    "doctor",
    "census",
    "births",
    "filter",
    "trace",
    "auto",
    "snapshot",
    "prove",
    "sched",
    "mem",
    "profile",
    "agent",
    "OOM kill",
    "signals",
    "tracefs",
    "kernel's log",
    "AppArmor",
];

/// Goroutines of each class of the program `leaks`.
const EACH: &str = "3";

const SUCCESS: &str = "yes";

/// Everything that is tried on a kernel, in this order.
pub fn stories(kernel: &Kernel, quick: bool) -> Vec<Story> {
    let flags = if kernel.target == Target::Aarch64 { BuildFlags::Arm64 } else { BuildFlags::Default };
    let program = |name| Program { name, version: NEWEST, flags };
    let leaks = program("leaks");
    if kernel.name.ends_with("apparmor") {
        let filter = ["watch", "--pid", "{pid}", "--mode", "filter"];
        return numbered(vec![
            confined(leaks, "blind", &["snapshot", "--pid", "{pid}"]),
            confined(leaks, "onlooker", &["snapshot", "--pid", "{pid}"]),
            confined(leaks, "onlooker", &["prove", "--pid", "{pid}", "--max-pause", "20s"]),
            confined(leaks, "reader", &filter),
            reader(leaks),
            messages(),
        ]);
    }
    let probes = kernel.probes;
    let mut stories = vec![doctor(probes, "doctor")];
    for choice in ["census", "births", "filter", "trace", "auto"] {
        stories.push(watch(probes, leaks, choice, choice));
    }
    stories.push(snapshot(leaks));
    stories.push(prove(program("stuck")));
    // Debian's and Ubuntu's kernels keep soft-dirty bits on x86-64, and on arm64 none can.
    let tells = kernel.target != Target::Aarch64;
    stories.push(prove_tracked(program("stuck"), tells));
    for again in 0..if quick { 1 } else { 5 } {
        stories.push(prove_moving(program("movers"), tells).about(format!("pointers that move, {again}")));
    }
    stories.push(sched(program("vitals")));
    stories.push(mem(program("vitals")));
    stories.push(profile(program("vitals")));
    stories.push(agent(leaks));
    stories.push(oom(program("incident")));
    if probes != Probes::None {
        // All over the window on the newest kernels of those that are most used, some of it on the others.
        let tries = match kernel.name {
            _ if quick => 8,
            "6.1" | "6.12" | "newest" => 100,
            _ => 30,
        };
        stories.push(signals(leaks, tries));
    }
    if kernel.target == Target::Aarch64 && !quick {
        for version in toolchain::available() {
            for flags in [flags, BuildFlags::Arm64Stripped] {
                let program = Program { name: "leaks", version, flags };
                for mode in ["census", "births", "filter", "trace"] {
                    stories.push(watch(probes, program, mode, mode).about(format!("Go {version}, {}", flags.name())));
                }
            }
        }
    }
    // The steps before had no tracefs, as in most containers.
    stories
        .push(Story::new("tracefs", "mount", &["tracefs", "/sys/kernel/tracing"], |_| SUCCESS.into()).about("mount"));
    stories.push(doctor(probes, "tracefs").about("doctor"));
    stories.push(watch(probes, leaks, "filter", "tracefs").about("filter"));
    stories.push(messages());
    numbered(stories)
}

/// Steps have names, so that a lost outcome is noticed.
fn numbered(mut stories: Vec<Story>) -> Vec<Story> {
    for (number, story) in stories.iter_mut().enumerate() {
        story.step.name = format!("{number}");
    }
    stories
}

fn parse<'a, T: Deserialize<'a>>(outcome: &'a Outcome) -> T {
    serde_json::from_str(&outcome.stdout).unwrap_or_else(|error| {
        panic!("status {}, no document ({error}): {}\n{}", outcome.code, outcome.stdout, outcome.stderr)
    })
}

fn said(outcome: &Outcome) -> Statement {
    serde_json::from_value(outcome.said.clone()).expect("what the program says of itself")
}

/// Whether probes can be used is said, and is so.
fn doctor(probes: Probes, column: &'static str) -> Story {
    Story::new(column, "run", &["doctor", "--format", "json"], move |outcome| {
        let report: doctor::Report = parse(outcome);
        let missing: Vec<_> =
            report.checks.iter().filter(|check| check.status == doctor::CheckStatus::Missing).collect();
        assert_eq!(report.watch_possible, probes != Probes::None, "{missing:#?}");
        assert_eq!(report.hit_costs.is_some(), report.watch_possible, "{:#?}", report.checks);
        if report.watch_possible {
            let all = [ModeChoice::Auto, ModeChoice::Trace, ModeChoice::Filter, ModeChoice::Births, ModeChoice::Census];
            assert!(all.iter().all(|choice| report.modes.contains(choice)), "{:?}: {:#?}", report.modes, report.checks);
            return SUCCESS.into();
        }
        assert!(missing.iter().all(|check| check.remedy.is_some()), "{missing:#?}");
        "no probes, and why".into()
    })
}

/// A program leaks while it is watched, and the report has exactly what it says of itself.
fn watch(probes: Probes, program: Program, choice: &'static str, column: &'static str) -> Story {
    let arguments =
        ["watch", "--pid", "{pid}", "--for", "0s", "--format", "json", "--threshold", "0s", "--mode", choice];
    let needs_probes = matches!(choice, "births" | "filter" | "trace");
    Story::new(column, "watch", &arguments, move |outcome| {
        if needs_probes && probes == Probes::None {
            assert_eq!(outcome.code, 4, "{}", outcome.stderr);
            assert!(outcome.stderr.contains("Linux 5.15 or later"), "{}", outcome.stderr);
            return "refused".into();
        }
        assert_eq!(outcome.code, 0, "{}", outcome.stderr);
        let report: Report = parse(outcome);
        assert_as_said(&report, &said(outcome), choice);
        assert_eq!(report.observed.lost, Lost::default());
        let modes = &report.observed.modes;
        match choice {
            "auto" => {
                // Under emulation a hit costs so much that the budget may allow no probes.
                let first = if probes == Probes::None { Mode::Census } else { Mode::Filter };
                assert_eq!(modes.first, first, "{modes:?}");
                assert_eq!(modes.no_probes.is_some(), probes == Probes::None, "{modes:?}");
            }
            _ => assert_eq!((serde_json::json!(report.observed.mode), modes.moves), (choice.into(), 0), "{modes:?}"),
        }
        SUCCESS.into()
    })
    .of(program, &["-wait", "-n", EACH])
}

fn snapshot(program: Program) -> Story {
    Story::new("snapshot", "look", &["snapshot", "--pid", "{pid}", "--format", "json"], |outcome| {
        assert_snapshot_as_said(&parse::<Snapshot>(outcome), &said(outcome), "snapshot");
        SUCCESS.into()
    })
    .of(program, &["-n", EACH])
}

/// Goroutines of the program `stuck` that can never run again, in each way.
const STUCK: [(&str, u64); 5] = [("send", 5), ("mutex", 2), ("cond", 2), ("select", 2), ("wait group", 1)];

const PROVE: [&str; 7] = ["prove", "--pid", "{pid}", "--format", "json", "--max-pause", "20s"];
const PROVE_TRACKED: [&str; 8] =
    ["prove", "--pid", "{pid}", "--format", "json", "--max-pause", "20s", "--track-writes"];

fn prove(program: Program) -> Story {
    prove_stuck(program, &PROVE, |_| ())
}

/// The same when the heap is copied while the program runs.
fn prove_tracked(program: Program, tells: bool) -> Story {
    prove_stuck(program, &PROVE_TRACKED, move |report| assert_tracked(report, tells))
        .about("what is written is tracked")
}

fn assert_tracked(report: &ProofReport, tells: bool) {
    let (tracked, why_not) = (report.pause.tracked_bytes, &report.untracked);
    assert_eq!((tracked > 0, why_not.is_none()), (tells, tells), "{why_not:?} {:?}", report.pause);
}

fn prove_stuck(program: Program, arguments: &[&str], check: impl Fn(&ProofReport) + 'static) -> Story {
    let leaks: Vec<String> = STUCK.iter().map(|(way, count)| format!("{way}={count}")).collect();
    let leaks: Vec<&str> = leaks.iter().map(String::as_str).collect();
    Story::new("prove", "look", arguments, move |outcome| {
        let report: ProofReport = parse(outcome);
        let proven: BTreeSet<u64> = report.leaks.iter().flat_map(|group| group.goids.iter().copied()).collect();
        let expected: u64 = STUCK.iter().map(|(_, count)| count).sum();
        assert_eq!((report.goroutines.proven, proven.len() as u64), (expected, expected), "{:#?}", report.leaks);
        check(&report);
        SUCCESS.into()
    })
    .of(program, &leaks)
}

/// Nobody can be proven to be leaked where all can be woken, however fast what leads to them moves while it is copied.
fn prove_moving(program: Program, tells: bool) -> Story {
    Story::new("prove", "look", &PROVE_TRACKED, move |outcome| {
        let report: ProofReport = parse(outcome);
        assert!(report.goroutines.candidates > 0, "{:?}", report.goroutines);
        assert_eq!(report.goroutines.proven, 0, "{:#?}", report.leaks);
        assert_tracked(&report, tells);
        assert!(!tells || report.pause.written_bytes > 0, "{:?}", report.pause);
        SUCCESS.into()
    })
    .of(program, &["rest"])
}

/// Two values that are to be the same, by the name of both.
fn same<'a>(ours: &'a Value, theirs: &'a Value, name: &str) {
    assert!(!theirs.is_null() && ours == theirs, "{name}: {ours}, not {theirs}");
}

/// The same, but for what the program allocates to tell its numbers: a refill of a P's cache counts what was taken from it, and a
/// stack that grows meanwhile takes the heap's memory.
fn same_but_for_its_own(ours: &Value, theirs: &Value, name: &str) {
    const ITS_OWN: u64 = 64 << 10;
    const ITS_STACKS: u64 = 256 << 10;
    let lower = name.to_ascii_lowercase();
    let of_objects = ["alloc", "free", "objects", "unused", "inuse", "scan"].iter().any(|word| lower.contains(word));
    let of_stacks = lower.contains("stack") || lower == "heapsys";
    match (ours.as_u64(), theirs.as_u64()) {
        (Some(ours), Some(theirs)) if of_objects || of_stacks => {
            let most = if of_stacks { ITS_STACKS } else { ITS_OWN };
            assert!(ours.abs_diff(theirs) <= most, "{name}: {ours}, not {theirs}");
        }
        _ => same(ours, theirs, name),
    }
}

/// What `sched` tells is what `runtime/metrics` says. The program runs when it asks itself, and is in a system call when it is looked
/// at.
fn sched(program: Program) -> Story {
    Story::new("sched", "vitals", &["sched", "--pid", "{pid}", "--format", "json"], |outcome| {
        assert_eq!(outcome.code, 0, "{}", outcome.stderr);
        let document: Value = parse(outcome);
        let (scheduler, metrics) = (&document["scheduler"], &outcome.said["metrics"]);
        same(&scheduler["gomaxprocs"], &metrics["/sched/gomaxprocs:threads"], "GOMAXPROCS");
        same(&scheduler["created"], &metrics["/sched/goroutines-created:goroutines"], "goroutines created");
        same(&scheduler["threads"], &metrics["/sched/threads/total:threads"], "threads");
        assert_eq!((&scheduler["running"], &scheduler["runnable"]), (&0.into(), &0.into()), "{scheduler}");
        assert_eq!(scheduler["not_in_go"], 1, "{scheduler}");
        // One may have been ready to run while it asked.
        let by_status: BTreeMap<String, u64> = serde_json::from_value(document["by_status"].clone()).expect("counts");
        same(&by_status.values().sum::<u64>().into(), &metrics["/sched/goroutines:goroutines"], "goroutines");
        SUCCESS.into()
    })
    .of(program, &[])
}

/// What `mem` tells is what `runtime.ReadMemStats` and `runtime/metrics` say, but for what the scavenger gives back meanwhile.
fn mem(program: Program) -> Story {
    Story::new("mem", "vitals", &["mem", "--pid", "{pid}", "--format", "json"], |outcome| {
        assert_eq!(outcome.code, 0, "{}", outcome.stderr);
        let document: Value = parse(outcome);
        let stats = document["memory"]["stats"].as_object().expect("numbers");
        let returned = ["HeapReleased", "HeapIdle", "NextGC"];
        for (name, ours) in stats.iter().filter(|(name, _)| !returned.contains(&name.as_str())) {
            same_but_for_its_own(ours, &outcome.said["memory"][name], name);
        }
        let metrics = document["metrics"].as_object().expect("numbers");
        for (name, ours) in
            metrics.iter().filter(|(name, _)| !name.contains("/heap/free") && !name.contains("/released"))
        {
            same_but_for_its_own(ours, &outcome.said["metrics"][name], name);
        }
        assert!(stats.len() > 20 && metrics.len() > 30, "{document}");
        SUCCESS.into()
    })
    .of(program, &[])
}

/// The heap profile is the one that the program writes of itself, line by line of what `go tool pprof -top` prints.
fn profile(program: Program) -> Story {
    const ARGUMENTS: [&str; 6] = ["profile", "heap", "--pid", "{pid}", "-o", "/ours.pb.gz"];
    Story::new("profile", "vitals", &ARGUMENTS, |outcome| {
        assert_eq!(outcome.code, 0, "{}", outcome.stderr);
        let directory = tempfile::tempdir().expect("a directory");
        let top = |name: &str, index: &str| {
            let file = directory.path().join("profile.pb.gz");
            let bytes: Vec<u8> = serde_json::from_value(outcome.found[name].clone()).expect("bytes");
            std::fs::write(&file, bytes).expect("written");
            let shown = pprof(&["-top", "-nodecount=1000", &format!("-sample_index={index}")], &file);
            let (_, lines) = shown.split_once("flat%").unwrap_or_else(|| panic!("no table: {shown}"));
            lines.lines().map(str::to_owned).collect::<BTreeSet<_>>()
        };
        for index in ["inuse_space", "alloc_objects"] {
            let (ours, theirs) = (top("/ours.pb.gz", index), top("/theirs.pb.gz", index));
            assert!(theirs.iter().any(|line| line.contains("main.medium")), "{theirs:#?}");
            assert_eq!(ours, theirs, "{index}");
        }
        SUCCESS.into()
    })
    .of(program, &[])
}

fn text<'a>(found: &'a Value, what: &str) -> &'a str {
    found[what].as_str().unwrap_or_else(|| panic!("nothing is told of {what}: {found}"))
}

/// The agent finds a program by itself, and reports and exports what the program says of itself.
fn agent(program: Program) -> Story {
    let arguments = [
        "agent",
        "--listen",
        "127.0.0.1:9465",
        "--kubernetes",
        "off",
        "--exe",
        "/go/*",
        "--threshold",
        "0s",
        "--interval",
        "1s",
    ];
    Story::new("agent", "agent", &arguments, |outcome| {
        assert_eq!(outcome.code, 0, "{}", outcome.stderr);
        let said = said(outcome);
        let report: Report = serde_json::from_str(text(&outcome.found, "report")).expect("a report");
        assert_as_said(&report, &said, "agent");
        assert_eq!((&outcome.found["readyz_status"], &outcome.found["healthz_status"]), (&200.into(), &200.into()));
        let metrics = text(&outcome.found, "metrics");
        let series = |name: &str| {
            let of_ours = metrics.lines().filter(|line| line.starts_with(&format!("{name}{{")));
            of_ours.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).collect::<Vec<_>>()
        };
        let live = said.num_goroutine as u64 + report.goroutines.system;
        assert_eq!(series("parkwarden_goroutines"), [live], "{metrics}");
        let lost = series("parkwarden_losses_total");
        assert!(!lost.is_empty() && lost.iter().all(|count| *count == 0), "{metrics}");
        SUCCESS.into()
    })
    .of(program, &["-n", EACH])
}

/// The kernel kills a leaking program for lack of memory, and the timeline names the leak and the end.
fn oom(program: Program) -> Story {
    let arguments = [
        "watch",
        "--pid",
        "{pid}",
        "--for",
        "0s",
        "--interval",
        "1s",
        "--threshold",
        "1s",
        "--record",
        "/recording.db",
        "--format",
        "json",
    ];
    Story::new("OOM kill", "oom", &arguments, |outcome| {
        assert_eq!(outcome.code, 0, "{}", outcome.stderr);
        let events = text(&outcome.found, "events");
        assert!(events.lines().any(|line| line == "oom_kill 1"), "{events}");
        let timeline: Timeline = serde_json::from_str(text(&outcome.found, "timeline"))
            .unwrap_or_else(|error| panic!("no timeline: {error}: {}\n{}", outcome.found, outcome.stderr));
        let [life] = &timeline.lives[..] else { panic!("one process was recorded: {:#?}", timeline.lives) };
        let ended = life.ended.as_ref().unwrap_or_else(|| panic!("no end is known: {life:#?}"));
        assert_eq!(ended.kind, ExitKind::OomKilled, "{}", ended.evidence);
        assert_eq!(life.memory_limit_bytes, Some(64 << 20));
        let leak = timeline.groups.iter().filter_map(|group| group.created_by.as_ref());
        let functions: Vec<_> = leak.map(|place| place.function.as_str()).collect();
        assert!(functions.contains(&"main.(*hub).subscribe"), "{functions:?}");
        SUCCESS.into()
    })
    .of(program, &["-rate", "60", "-hold", "131072"])
}

/// A watch that was told to end and killed while it did, as the guest tells it.
#[derive(Debug, Deserialize)]
struct Trial {
    #[expect(dead_code, reason = "told when something is wrong")]
    mode: String,
    #[expect(dead_code, reason = "told when something is wrong")]
    delay_ms: f64,
    code: i32,
    probed: u64,
    left: u64,
    seconds: f64,
}

/// However parkwarden is killed, the program's code is in the end as it was.
fn signals(program: Program, tries: u32) -> Story {
    let arguments = ["watch", "--pid", "{pid}", "--interval", "1s"];
    let mut story = Story::new("signals", "signals", &arguments, move |outcome| {
        let trials: Vec<Trial> = parse(outcome);
        assert_eq!(trials.len(), tries as usize);
        assert!(trials.iter().all(|trial| trial.probed > 0), "there were no probes: {trials:#?}");
        let left: Vec<&Trial> = trials.iter().filter(|trial| trial.left > 0).collect();
        assert!(left.is_empty(), "{} of {tries} left breakpoints: {left:#?}", left.len());
        let killed = trials.iter().filter(|trial| trial.code < 0).count();
        let longest = trials.iter().map(|trial| trial.seconds).fold(0.0, f64::max);
        eprintln!(
            "      {killed} of {tries} were killed while they ended; probes were gone after {longest:.1} s at most"
        );
        assert!(killed > 0, "every watch ended before it was killed: {trials:#?}");
        format!("{tries} tries, clean within {longest:.1} s")
    });
    story.step.tries = tries;
    story.of(program, &["-wait", "-n", EACH])
}

/// The kernel has nothing to say about all that.
fn messages() -> Story {
    const WORDS: [&str; 6] = ["uprobe", "BUG:", "WARNING:", "Oops", "general protection", "soft lockup"];
    Story::new("kernel's log", "messages", &[], |outcome| {
        let bad: Vec<_> = outcome.stdout.lines().filter(|line| WORDS.iter().any(|word| line.contains(word))).collect();
        assert!(bad.is_empty(), "{bad:#?}");
        assert!(outcome.stdout.contains("Linux version"), "that is not all of it");
        SUCCESS.into()
    })
}

/// Under a profile that forbids it something is refused, and the refusal names the profile.
fn confined(program: Program, profile: &'static str, arguments: &[&str]) -> Story {
    let mut story = Story::new("AppArmor", "apparmor", arguments, move |outcome| {
        assert_eq!(outcome.code, 4, "{}\n{}\n{}", outcome.found, outcome.stdout, outcome.stderr);
        let named = format!("parkwarden by the AppArmor profile {profile} (enforce)");
        assert!(outcome.stderr.contains(&named), "{}", outcome.stderr);
        SUCCESS.into()
    })
    .of(program, &["-n", EACH])
    .about(format!("{profile}: {}", arguments[0]));
    story.step.r#as = match profile {
        "blind" => "/bin/blind",
        "onlooker" => "/bin/onlooker",
        _ => "/bin/reader",
    };
    story
}

/// Without the right to load programs, `auto` does with the memory alone.
fn reader(program: Program) -> Story {
    let arguments =
        ["watch", "--pid", "{pid}", "--for", "2s", "--interval", "1s", "--threshold", "0s", "--format", "json"];
    let mut story = Story::new("AppArmor", "apparmor", &arguments, |outcome| {
        assert_eq!(outcome.code, 0, "{}", outcome.stderr);
        let report: Report = parse(outcome);
        assert_as_said(&report, &said(outcome), "reader");
        assert!(report.observed.modes.no_probes.is_some(), "{:?}", report.observed.modes);
        SUCCESS.into()
    })
    .of(program, &["-n", EACH])
    .about("reader: watch in mode auto");
    story.step.r#as = "/bin/reader";
    story
}
