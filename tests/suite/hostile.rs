//! Live targets that lie about their goroutines: parkwarden answers in bounded time, with what is true or with a reason.

use std::time::{Duration, Instant};

use parkwarden_tests::agent::run;
use parkwarden_tests::target::Target;
use parkwarden_tests::{BuildFlags, fixture};
use serde_json::Value;

/// Far more than any answer takes, far less than following a lie would.
const BOUND: Duration = Duration::from_secs(30);

#[test]
fn a_process_that_lies_costs_bounded_time_and_yields_a_reason() {
    let program = fixture("hostile", "1.22.10", BuildFlags::Default);
    for lie in ["length", "cycle", "unmapped", "null", "stacks", "bounds"] {
        let (target, _): (_, Value) = Target::ready(&program, [lie]);
        let pid = target.pid().to_string();
        for command in [
            &["snapshot", "--format", "json", "--pid", &pid][..],
            &["watch", "--format", "json", "--for", "1s", "--threshold", "0s", "--pid", &pid],
            &["ps", "--format", "json"],
        ] {
            let begun = Instant::now();
            let output = run(command);
            let errors = String::from_utf8_lossy(&output.stderr);
            assert!(begun.elapsed() < BOUND, "{lie}: {command:?} took {:?}", begun.elapsed());
            assert!(!errors.contains("panicked"), "{lie}: {command:?}: {errors}");
            match output.status.code() {
                Some(0) => {
                    let document: Value = serde_json::from_slice(&output.stdout).expect("a document");
                    assert_eq!(document["schema"], 1, "{lie}: {command:?}");
                }
                Some(4) => assert!(errors.contains(&format!("pid {pid}")), "{lie}: {command:?}: {errors}"),
                other => panic!("{lie}: {command:?} ended with {other:?}: {errors}"),
            }
        }
        // A list that cannot be one is refused; nothing was attached to it.
        if matches!(lie, "length" | "null" | "cycle") {
            let output = run(["watch", "--for", "1s", "--pid", &pid]);
            assert_eq!(output.status.code(), Some(4), "{lie}: {}", String::from_utf8_lossy(&output.stderr));
        }
    }
}
