//! What the heap is that a leak keeps: as many bytes of each type as the program has made.

use std::collections::BTreeMap;

use parkwarden::memory::kinds::HeapKind;
use parkwarden::prove::ProofReport;
use parkwarden_tests::agent::run;
use parkwarden_tests::target::Target;
use parkwarden_tests::{BuildFlags, fixture};
use xtask::toolchain::VERSIONS;

/// What has no type that can be told: its size, and whether it holds pointers. Until Go 1.21 that is more.
const UNTYPED: [(&str, u64, bool); 2] = [("buffers", 16 << 10, false), ("nodes", 144, true)];
const UNTYPED_AT_FIRST: [(&str, u64, bool); 5] = [
    ("main.record", 1152, true),
    ("main.tag", 64, true),
    ("main.point", 32, false),
    ("[]interface {}", 3200, true),
    ("[]*main.point", 64 << 10, true),
];

#[test]
fn the_heap_of_a_leak_is_told_by_types_and_sizes() {
    for version in VERSIONS {
        for flags in [BuildFlags::Default, BuildFlags::Stripped, BuildFlags::Pie] {
            let (target, made): (_, BTreeMap<String, u64>) =
                Target::ready(&fixture("kinds", version, flags), [] as [&str; 0]);
            let report = prove(&target);
            let is = format!("Go {version}, {flags:?}");
            assert_eq!(report.leaks.len(), 5, "{is}: {report:#?}");
            let kinds: Vec<&HeapKind> = report.leaks.iter().flat_map(|group| &group.heap_kinds).collect();
            let at_first = if version.starts_with("1.21") { UNTYPED_AT_FIRST.as_slice() } else { &[] };
            let untyped: Vec<_> = UNTYPED.iter().chain(at_first).collect();
            for (name, made) in &made {
                let by_size = untyped.iter().find(|(untyped, ..)| untyped == name);
                let found = kinds.iter().find(|kind| match by_size {
                    Some((_, size, pointers)) => {
                        kind.type_name.is_none() && kind.size_class == Some(*size) && kind.pointers == *pointers
                    }
                    None => kind.type_name.as_ref() == Some(name),
                });
                let found = found.unwrap_or_else(|| panic!("{is}: no {name} among {kinds:#?}"));
                assert!(found.bytes.abs_diff(*made) <= made / 10, "{is}: {found:?} of {made} bytes of {name}");
            }
            for group in &report.leaks {
                let told: u64 = group.heap_kinds.iter().map(|kind| kind.bytes).sum();
                assert!(group.heap_bytes.is_some_and(|all| told <= all && told >= all - all / 20), "{is}: {group:#?}");
            }
        }
    }
}

fn prove(target: &Target) -> ProofReport {
    let pid = target.pid().to_string();
    let output = run(["prove", "--pid", &pid, "--max-pause", "2s", "--format", "json"]);
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)))
}
