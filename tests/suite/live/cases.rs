//! Programs with the mechanisms of public bug reports (`tests/go/cases`): a watch that proves says of each what is wrong, where,
//! and of nothing else that anything is.

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use parkwarden::detect::Verdict::{self, Idle, Likely, Proven, Stuck};
use parkwarden::report::{Group, Report};
use parkwarden_tests::agent::run;
use parkwarden_tests::target::Target;
use parkwarden_tests::turn::turn;
use parkwarden_tests::{BuildFlags, fixture, wait};
use xtask::toolchain::NEWEST;

/// Watches at once.
const AT_ONCE: usize = 5;

/// One program.
struct Case {
    name: &'static str,
    mode: Option<&'static str>,
    /// Of goroutines that start in, or stand in, a function with this in its name and wait so, what they are; nothing else may be
    /// more than idle.
    right: &'static [(&'static str, &'static str, Verdict)],
    /// Words that have to be said of the first, and words that must not be said of any.
    said: &'static [&'static str],
    unsaid: &'static [&'static str],
    /// Words of the one incident that there has to be, if there has to be one.
    incident: Option<&'static str>,
}

const NOTHING: Case = Case { name: "", mode: None, right: &[], said: &[], unsaid: &[], incident: None };

const CASES: [Case; 22] = [
    Case {
        name: "abba",
        right: &[
            ("main.ship", "sync.Mutex.Lock", Proven),
            ("main.restock", "sync.Mutex.Lock", Proven),
            ("main.report", "sync.Mutex.Lock", Proven),
        ],
        said: &["cycle of locks"],
        incident: Some("wait for one another's locks in a circle; 5 goroutines more behind them"),
        ..NOTHING
    },
    Case {
        name: "rlocktwice",
        right: &[("main.(*store).size", "sync.RWMutex.RLock", Proven), ("main.reconcile", "sync.RWMutex.Lock", Proven)],
        said: &["holds"],
        ..NOTHING
    },
    Case {
        name: "errlimit",
        right: &[("main.(*group).Go", "chan send", Proven), ("main.crawl", "sync.WaitGroup.Wait", Proven)],
        ..NOTHING
    },
    Case { name: "poolfill", right: &[("main.call", "chan receive", Proven)], ..NOTHING },
    Case {
        name: "sqlpool",
        right: &[("database/sql.(*DB).conn", "select", Stuck)],
        said: &["connection of the database pool"],
        ..NOTHING
    },
    Case {
        name: "ticketer",
        right: &[
            ("main.(*watcher).deliver", "chan send", Stuck),
            ("main.(*watcher).deliver", "sync.Mutex.Lock", Likely),
        ],
        said: &["holds the lock", "others want"],
        incident: Some("nobody receives from at main.(*watcher).deliver"),
        ..NOTHING
    },
    Case {
        name: "shardlock",
        right: &[("main.get", "sync.Mutex.Lock", Proven)],
        said: &["returned or ended without unlocking"],
        unsaid: &["cycle"],
        ..NOTHING
    },
    Case {
        name: "stdmade",
        right: &[
            ("main.fetchAll", "chan send", Proven),
            ("main.arm.func1", "chan receive", Proven),
            ("main.watchCtx.func1", "sync.Mutex.Lock", Proven),
        ],
        unsaid: &["cycle"],
        ..NOTHING
    },
    Case {
        name: "bytesres",
        right: &[("main.wait", "chan receive", Proven), ("main.waitSel", "select", Proven)],
        unsaid: &["timer", "ticker"],
        ..NOTHING
    },
    Case {
        name: "subleak",
        right: &[("main.(*session).run", "chan receive", Likely)],
        unsaid: &["timer", "ticker"],
        ..NOTHING
    },
    Case {
        name: "bodyleak",
        mode: Some("body"),
        right: &[("readLoop", "select", Likely), ("writeLoop", "select", Likely)],
        said: &["response body"],
        unsaid: &["timer", "ticker"],
        incident: Some("belong together"),
    },
    Case {
        name: "bodyleak",
        mode: Some("transport"),
        right: &[("readLoop", "IO wait", Likely), ("writeLoop", "select", Likely)],
        said: &["Transport"],
        unsaid: &["timer", "ticker"],
        incident: Some("belong together"),
    },
    Case { name: "customctx", right: &[("propagateCancel", "select", Likely)], said: &["cancel function"], ..NOTHING },
    Case {
        name: "execgrand",
        right: &[("main.probe", "chan receive", Likely), ("os/exec.(*Cmd).Start", "IO wait", Likely)],
        said: &["pipe"],
        unsaid: &["network"],
        incident: Some("belong together"),
        ..NOTHING
    },
    Case { name: "flocksys", right: &[("main.usage", "syscall", Likely)], said: &["system call", "flock"], ..NOTHING },
    Case {
        name: "cgores",
        right: &[("main._Cfunc", "C call", Stuck), ("main.acquire", "chan send", Likely)],
        said: &["one call into C", "8 threads"],
        ..NOTHING
    },
    Case { name: "spinclosed", right: &[("main.main", "running", Stuck)], said: &["run all the time"], ..NOTHING },
    Case { name: "wsramp", ..NOTHING },
    Case { name: "pollers", right: &[("main.poll", "sleep", Likely)], ..NOTHING },
    Case { name: "slow60", right: &[("main.watchFile", "chan receive", Proven)], ..NOTHING },
    Case { name: "sound", ..NOTHING },
    Case { name: "warmup", ..NOTHING },
];

/// A program, and what it started: both end with this.
struct Running(Target);

impl Drop for Running {
    fn drop(&mut self) {
        // It leads a process group of its own.
        let _ = killpg(Pid::from_raw(self.0.pid().cast_signed()), Signal::SIGKILL);
    }
}

fn watched(case: &Case) -> Report {
    let flags = if case.name == "cgores" { BuildFlags::Cgo } else { BuildFlags::Default };
    let mut command = Command::new(fixture(&format!("cases/{}", case.name), NEWEST, flags));
    command.args(case.mode).process_group(0);
    let mut running = Running(Target::spawn_command(command));
    running.0.line().unwrap_or_else(|| panic!("{} ended at once", case.name));
    // What grows at the start and then no more has to have come to its end: 40 of its 40 goroutines.
    if case.name == "warmup" {
        wait::nothing_for(Duration::from_secs(45));
    }
    let pid = running.0.pid().to_string();
    let often = ["--for", "27s", "--threshold", "3s", "--interval", "2s", "--format", "json"];
    // Beside so many others a pause takes longer than the default allows.
    let prove = ["--prove", "--max-pause", "2s"];
    let output = run(["watch", "--pid", &pid].iter().chain(&often).chain(&prove));
    let stderr = String::from_utf8_lossy(&output.stderr);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{}: {error}: {stderr}", case.name))
}

fn is_of(group: &Group, (function, reason, _): &(&str, &str, Verdict)) -> bool {
    let stands = || group.stack.iter().any(|frame| frame.function.contains(function));
    group.wait_reason == *reason && (group.start_function.contains(function) || stands())
}

/// What is wrong with what was said of a case.
fn wrong(case: &Case, report: &Report) -> Vec<String> {
    let mut wrong = Vec::new();
    for group in report.groups.iter().filter(|group| group.verdict > Idle) {
        if !case.right.iter().any(|right| is_of(group, right)) {
            wrong.push(format!("accuses {} [{}]: {:#?}", group.start_function, group.wait_reason, group.evidence));
        }
    }
    for right @ (function, reason, verdict) in case.right {
        let said = report.groups.iter().filter(|group| is_of(group, right)).map(|group| group.verdict).max();
        if said != Some(*verdict) {
            wrong.push(format!("{function} [{reason}] is {verdict}, and called {said:?}"));
        }
    }
    let words = |group: &Group| {
        let cause = group.cause.as_ref().map(|cause| format!("{} {}", cause.sentence, cause.remedy));
        cause.into_iter().chain(group.evidence.iter().cloned()).collect::<Vec<String>>().join("\n")
    };
    if let Some(first) = case.right.first() {
        let of_first: String = report.groups.iter().filter(|group| is_of(group, first)).map(words).collect();
        let missing = case.said.iter().filter(|said| !of_first.contains(**said));
        wrong.extend(missing.map(|said| format!("does not say {said:?} of {}: {of_first}", first.0)));
    }
    if let Some(words) = case.incident {
        let headlines: Vec<&str> = report.incidents.iter().map(|incident| incident.headline.as_str()).collect();
        if !matches!(headlines[..], [one] if one.contains(words)) {
            wrong.push(format!("of one incident with {words:?} there is {headlines:?}"));
        }
    }
    let all: String = report.groups.iter().filter(|group| group.verdict > Idle).map(words).collect();
    wrong.extend(
        case.unsaid.iter().filter(|unsaid| all.contains(**unsaid)).map(|unsaid| format!("says {unsaid:?}: {all}")),
    );
    wrong
}

#[test]
fn public_reports_are_told_right() {
    let _turn = turn();
    let todo = Mutex::new(CASES.iter());
    let found = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let Some(case) = todo.lock().expect("nobody panics").next() else { break };
                    let wrong = wrong(case, &watched(case));
                    let name = format!("{} {}", case.name, case.mode.unwrap_or_default());
                    found.lock().expect("nobody panics").insert(name, wrong);
                }
            });
        }
    });
    let mut found = found.into_inner().expect("nobody panicked");
    assert_eq!(found.len(), CASES.len());
    found.retain(|_, wrong| !wrong.is_empty());
    assert!(found.is_empty(), "{found:#?}");
}
