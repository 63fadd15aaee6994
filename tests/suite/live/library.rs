//! A program that waits inside the standard library in many ways, more and more: a watch tells each by what is known of it.

use std::collections::{BTreeMap, BTreeSet};

use parkwarden::cause::library::Known;
use parkwarden::detect::Verdict;
use parkwarden::report::{Group, Report};
use parkwarden_tests::agent::run;
use parkwarden_tests::target::{DEADLINE, Target};
use parkwarden_tests::turn::turn;
use parkwarden_tests::{BuildFlags, fixture, wait};
use xtask::toolchain::{NEWEST, VERSIONS};

const WATCH: [&str; 8] = ["--for", "8s", "--interval", "1s", "--threshold", "200ms", "--format", "json"];

fn known_of(group: &Group) -> Option<&'static Known> {
    Known::of(&group.wait_reason, &group.stack)
}

fn watched(pid: u32) -> Report {
    let pid = pid.to_string();
    let output = run(["watch", "--pid", &pid].iter().chain(&WATCH));
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("a report")
}

#[test]
fn waits_inside_the_standard_library_are_told_by_their_entries() {
    let _turn = turn();
    // net/http's HTTP/2 has other names since the newest.
    for version in [VERSIONS[0], NEWEST] {
        let folder = tempfile::tempdir().expect("a folder");
        let program = fixture("library", version, BuildFlags::Default);
        let (target, waits): (_, BTreeSet<String>) = Target::ready(&program, [folder.path()]);
        // Some of them wake up now and then, and on a busy machine may not wait again by the last look.
        let told = wait::within(DEADLINE, || {
            let report = watched(target.pid());
            let found: BTreeSet<&str> = report.groups.iter().filter_map(known_of).map(|known| known.name).collect();
            let missed: Vec<String> = waits.iter().filter(|name| !found.contains(name.as_str())).cloned().collect();
            if missed.is_empty() { Ok(report) } else { Err(missed) }
        });
        let report = told.unwrap_or_else(|missed| panic!("Go {version}: {missed:?} are not told"));
        assert!(target.exit().success(), "Go {version}");

        let mut found: BTreeMap<&str, Verdict> = BTreeMap::new();
        for group in &report.groups {
            let Some(known) = known_of(group) else { continue };
            let verdict = found.entry(known.name).or_insert(group.verdict);
            *verdict = group.verdict.max(*verdict);
            if group.verdict > Verdict::Idle {
                let cause = group.cause.as_ref().unwrap_or_else(|| panic!("{} has no cause: {group:#?}", known.name));
                assert_eq!(cause.kind, known.kind, "Go {version}, {}", known.name);
                assert!(cause.sentence.starts_with(&known.does), "Go {version}, {}: {cause:?}", known.name);
            }
        }
        let accused = waits.iter().filter(|name| found[name.as_str()] > Verdict::Idle).count();
        assert!(accused > waits.len() / 2, "Go {version}: {found:?}");
    }
}
