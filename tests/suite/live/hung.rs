//! Services that hang and do not grow: a watch without any hint says of each that something is wrong, and where.

use std::collections::BTreeMap;
use std::sync::Mutex;

use parkwarden::detect::Verdict;
use parkwarden::report::Report;
use parkwarden_tests::agent::run;
use parkwarden_tests::target::Target;
use parkwarden_tests::turn::turn;
use parkwarden_tests::{BuildFlags, fixture};
use serde::Deserialize;
use xtask::toolchain::NEWEST;

/// Watches at once.
const AT_ONCE: usize = 4;

#[derive(Debug, Deserialize)]
struct Ready {
    #[expect(dead_code, reason = "its presence is what matters")]
    ready: bool,
}

/// What each hang is found as.
fn found() -> BTreeMap<String, Report> {
    let program = fixture("hung", NEWEST, BuildFlags::Default);
    let (_, names): (_, Vec<String>) = Target::ready(&program, [] as [&str; 0]);
    let todo = Mutex::new(names.into_iter());
    let found = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let Some(name) = todo.lock().expect("nobody panics").next() else { break };
                    let (target, Ready { .. }) = Target::ready(&program, [&name]);
                    let report = watched(&target);
                    assert!(target.exit().success(), "{name}");
                    found.lock().expect("nobody panics").insert(name, report);
                }
            });
        }
    });
    found.into_inner().expect("nobody panics")
}

fn watched(target: &Target) -> Report {
    let pid = target.pid().to_string();
    let often = ["--for", "15s", "--threshold", "3s", "--interval", "1s", "--format", "json"];
    let output = run(["watch", "--pid", &pid, "--fail-on-stuck"].iter().chain(&often));
    assert!(
        matches!(output.status.code(), Some(0 | 3)),
        "{:?} {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    let report: Report = serde_json::from_slice(&output.stdout).expect("a report");
    let wrong = report.groups.iter().any(|group| group.verdict >= Verdict::Stuck);
    assert_eq!(output.status.code(), Some(if wrong { 3 } else { 0 }));
    report
}

/// Of some hangs: what is said of the goroutines that wait so.
const SAID: [(&str, &str, Verdict); 7] = [
    ("finalizer that does not return", "chan send", Verdict::Stuck),
    ("two locks in two orders", "sync.Mutex.Lock", Verdict::Stuck),
    ("group whose members wait for a lock", "sync.WaitGroup.Wait", Verdict::Stuck),
    ("rows that nobody closes", "select", Verdict::Stuck),
    ("workers that have died", "chan send", Verdict::Stuck),
    ("answer that never comes", "chan receive", Verdict::Likely),
    ("condition nobody signals", "sync.Cond.Wait", Verdict::Likely),
];

#[test]
fn nine_of_ten_services_that_hang_are_not_called_idle() {
    let _turn = turn();
    let found = found();
    assert!(found.len() >= 20, "{:?}", found.keys());
    let is_idle = |report: &Report| report.groups.iter().all(|group| group.verdict == Verdict::Idle);
    let idle: Vec<&String> = found.iter().filter(|(_, report)| is_idle(report)).map(|(name, _)| name).collect();
    assert!(10 * idle.len() <= found.len(), "{} of {} are said to be idle: {idle:?}", idle.len(), found.len());
    for (name, reason, verdict) in SAID {
        let said = found[name].groups.iter().filter(|group| group.wait_reason == reason).map(|group| group.verdict);
        assert_eq!(said.max(), Some(verdict), "{name}");
    }
    for (name, report) in &found {
        // Workers without work, and whoever accepts connections, are in all of them.
        let workers = report.groups.iter().filter(|group| group.start_function == "main.main.func2");
        workers.for_each(|group| assert_eq!(group.verdict, Verdict::Idle, "{name}: {:#?}", group.evidence));
        let proven = report.groups.iter().any(|group| group.verdict == Verdict::Proven);
        assert!(!proven || name.contains("nil"), "{name}: nothing was stopped");
    }
}
