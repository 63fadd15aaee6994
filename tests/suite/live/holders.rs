//! Who holds a lock: what a proof says beside what the program says of itself, shape of locking by shape.

use std::collections::BTreeMap;

use parkwarden::prove::ProofReport;
use parkwarden_tests::agent::run;
use parkwarden_tests::target::Target;
use parkwarden_tests::{BuildFlags, fixture};
use serde::Deserialize;
use xtask::toolchain;

#[derive(Debug, Deserialize)]
struct Said {
    #[expect(dead_code, reason = "its presence is what matters")]
    ready: bool,
    shapes: Vec<Shape>,
}

#[derive(Debug, Deserialize)]
struct Shape {
    name: String,
    waiter: u64,
    /// 0 when nobody holds it any more.
    holder: u64,
    /// Whether that goroutine's deferred unlock is pending.
    deferred: bool,
}

/// Who a proof says holds the lock that a goroutine waits for, for sure; nobody if the goroutine is not proven, because a dead
/// variable still leads to the lock.
fn shown(report: &ProofReport, waiter: u64, what: &str) -> Option<u64> {
    let group = report.leaks.iter().find(|group| group.goids.contains(&waiter))?;
    assert_eq!(group.goids, [waiter], "{what}: a group of its own");
    let names = |sentence: &&String| sentence.starts_with("goroutine ") && sentence.contains(" holds it");
    let holds = group.evidence.iter().find(|sentence| names(sentence) || sentence.contains(" has, "))?;
    let number = holds.split("goroutine ").nth(1).and_then(|rest| rest.split([' ', ',']).next());
    Some(number.and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("{what}: {holds}")))
}

#[test]
fn whoever_is_said_to_hold_a_lock_does_and_deferred_unlocks_are_found() {
    let (mut missed, mut deferred, mut programs) = (Vec::new(), 0, 0);
    let mut shapes: BTreeMap<String, u32> = BTreeMap::new();
    for flags in [BuildFlags::Default, BuildFlags::Stripped, BuildFlags::Unoptimized] {
        for version in toolchain::VERSIONS {
            let program = fixture("holders", version, flags);
            let (target, said): (_, Said) = Target::ready(&program, [] as [&str; 0]);
            let pid = target.pid().to_string();
            let output = run(["prove", "--pid", &pid, "--max-pause", "20s", "--format", "json"]);
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            let report: ProofReport = serde_json::from_slice(&output.stdout).expect("a report");
            for shape in &said.shapes {
                let what = format!("{version} {flags:?}, {}", shape.name);
                match shown(&report, shape.waiter, &what) {
                    Some(holder) => assert_eq!(holder, shape.holder, "{what}"),
                    None if shape.deferred => {
                        missed.push(what);
                        *shapes.entry(shape.name.clone()).or_default() += 1;
                    }
                    None => {}
                }
            }
            programs += 1;
            deferred += said.shapes.iter().filter(|shape| shape.deferred).count();
        }
    }
    assert!(10 * missed.len() <= deferred, "not found: {missed:?} of {deferred}");
    // No shape is one that is not understood.
    assert!(
        shapes.values().all(|missed| 2 * missed <= programs),
        "not found in so many of {programs} programs: {shapes:?}"
    );
}
