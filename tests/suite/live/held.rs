//! What a leak keeps: as much as the program's own numbers grew by.

use parkwarden::prove::ProofReport;
use parkwarden_tests::agent::run;
use parkwarden_tests::target::Target;
use parkwarden_tests::{BuildFlags, fixture};
use serde::Deserialize;
use xtask::toolchain::VERSIONS;

/// By how much they grew, in bytes.
#[derive(Debug, Deserialize)]
struct Grown {
    heap: u64,
    stack: u64,
}

/// Bytes that 10 000 nodes of 64 bytes take.
const SHARED: u64 = 640_000;

/// What `g`s take, which are the runtime's and no goroutine leads to: they are of some 400 to 500 bytes, and there are 2000.
const GS: u64 = 2000 * 512;

fn near(told: u64, measured: u64) -> bool {
    told.abs_diff(measured) <= measured / 10
}

#[test]
fn what_leaked_goroutines_keep_is_what_the_program_has_grown_by() {
    for version in VERSIONS {
        for flags in [BuildFlags::Default, BuildFlags::Stripped] {
            let (target, grown): (_, Grown) = Target::ready(&fixture("held", version, flags), [] as [&str; 0]);
            let pid = target.pid().to_string();
            let output = run(["prove", "--pid", &pid, "--max-pause", "2s", "--format", "json"]);
            let report: ProofReport = serde_json::from_slice(&output.stdout)
                .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
            assert_eq!(report.goroutines.proven, 2000, "Go {version}, {flags:?}: {report:#?}");
            let own: Vec<u64> = report.leaks.iter().filter_map(|group| group.heap_bytes).collect();
            assert_eq!(own.len(), 2, "{own:?}");
            let text = report.leaks[0].evidence.join("\n");
            assert!(text.contains("625 KiB more are shared among leaks"), "Go {version}, {flags:?}: {text}");
            let heap = own.iter().sum::<u64>() + SHARED;
            assert!(near(heap, grown.heap.saturating_sub(GS)), "Go {version}, {flags:?}: {heap} of {grown:?}, {own:?}");
            let stack: u64 = report.leaks.iter().map(|group| group.stack_bytes).sum();
            assert!(near(stack, grown.stack), "Go {version}, {flags:?}: {stack} of {grown:?}");
        }
    }
}
