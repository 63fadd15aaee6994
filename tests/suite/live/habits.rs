//! Services of whose goroutines one stands, or all do, that used to move: what is wrong is called stuck, and what rests, or is
//! meant to stay, is not.

use parkwarden::detect::Verdict;
use parkwarden::report::Report;
use parkwarden_tests::agent::run;
use parkwarden_tests::target::Target;
use parkwarden_tests::turn::turn;
use parkwarden_tests::{BuildFlags, fixture};
use serde_json::Value;
use xtask::toolchain::NEWEST;

/// What is wrong: the habit, the function that stands, and words of what is said of it.
const WRONG: [(&str, &str, &str); 3] = [
    ("one of many gets no reply", "main.ask", "were seen to wait here and went on; this one has stood here for"),
    ("the loop gets no reply", "main.ask", "The only goroutine of this go statement has stood here for"),
    ("no worker gets a reply", "main.ask", "All 6 goroutines of this go statement have stood here for"),
];

fn watched(program: &std::path::Path, habit: &str) -> Report {
    let (target, _): (_, Value) = Target::ready(program, [habit]);
    let pid = target.pid().to_string();
    let often = ["--for", "25s", "--threshold", "3s", "--interval", "1s", "--format", "json"];
    let output = run(["watch", "--pid", &pid].iter().chain(&often));
    assert_eq!(output.status.code(), Some(0), "{habit}: {}", String::from_utf8_lossy(&output.stderr));
    assert!(target.exit().success(), "{habit}");
    serde_json::from_slice(&output.stdout).expect("a report")
}

#[test]
fn what_used_to_move_and_stands_is_told_from_what_rests() {
    let _turn = turn();
    let program = fixture("habits", NEWEST, BuildFlags::Default);
    let (_, habits): (_, Vec<String>) = Target::ready(&program, [] as [&str; 0]);
    assert!(WRONG.iter().all(|(wrong, ..)| habits.iter().any(|habit| habit == wrong)), "{habits:?}");
    let reports: Vec<(String, Report)> = std::thread::scope(|scope| {
        let watches: Vec<_> =
            habits.into_iter().map(|habit| scope.spawn(|| (watched(&program, &habit), habit))).collect();
        let ended =
            watches.into_iter().map(|watch| watch.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        ended.map(|(report, habit)| (habit, report)).collect()
    });
    for (habit, report) in reports {
        let accused: Vec<_> = report.groups.iter().filter(|group| group.verdict > Verdict::Idle).collect();
        let Some((_, function, words)) = WRONG.iter().find(|(wrong, ..)| **wrong == habit) else {
            assert!(accused.is_empty(), "{habit}: {accused:#?}");
            continue;
        };
        let found = accused.iter().find(|group| group.blocked_at.as_ref().is_some_and(|at| at.function == *function));
        let found = found.unwrap_or_else(|| panic!("{habit}: {:#?}", report.groups));
        assert_eq!(found.verdict, Verdict::Stuck, "{habit}: {found:#?}");
        assert!(found.evidence.iter().any(|sentence| sentence.contains(words)), "{habit}: {:#?}", found.evidence);
    }
}
