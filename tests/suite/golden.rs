//! Reports of saved sessions, compared with the files beside them.
//!
//! `UPDATE_GOLDEN=1 cargo test --package parkwarden-tests golden` rewrites the expected reports; read the diff.
//! `UPDATE_GOLDEN=capture` first records the session anew, which needs what any live test needs.

use std::path::{Path, PathBuf};

use parkwarden_tests::agent::{Watch, run};
use parkwarden_tests::leaks::Statement;
use parkwarden_tests::target::Target;
use parkwarden_tests::{BuildFlags, fixture};
use xtask::toolchain::NEWEST;

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(name)
}

/// A session with every class of leak: three goroutines of each made before the attach, and the program idle since.
fn record(capture: &Path) {
    // A path that is the same wherever the source tree is; the capture names it.
    let dir = Path::new("/tmp/parkwarden-golden");
    std::fs::create_dir_all(dir).expect("a directory");
    let program = dir.join("leaks");
    std::fs::copy(fixture("leaks", NEWEST, BuildFlags::Trimpath), &program).expect("copied");
    let (mut target, _): (_, serde_json::Value) = Target::ready(&program, ["-wait", "-n", "3"]);
    let capture = capture.to_str().expect("UTF-8");
    let watch =
        Watch::start(target.pid(), &["--mode", "trace", "--threshold", "0s", "--interval", "200ms", "--save", capture]);
    let _: Statement = target.ask("go");
    assert_eq!(watch.interrupt().code, Some(0));
    std::fs::remove_dir_all(dir).expect("removed");
}

#[test]
fn reports_of_a_saved_session_are_as_they_were() {
    let update = std::env::var("UPDATE_GOLDEN").ok();
    let capture = file("leaks.capture");
    if update.as_deref() == Some("capture") {
        record(&capture);
    }
    let ways: [(&[&str], &str); 3] = [
        (&["--format", "json"], "leaks.json"),
        (&["--format", "text"], "leaks.txt"),
        (&["--details", "--package", "main", "--reason", "sync"], "leaks-details.txt"),
    ];
    for (how, name) in ways {
        let fixed = ["watch".as_ref(), "--replay".as_ref(), capture.as_os_str(), "--threshold".as_ref(), "0s".as_ref()];
        let output = run(fixed.into_iter().chain(how.iter().map(std::ffi::OsStr::new)));
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        let report = String::from_utf8(output.stdout).expect("UTF-8");
        if update.is_some() {
            std::fs::write(file(name), &report).expect("written");
        }
        let expected = std::fs::read_to_string(file(name)).expect("the golden file");
        assert!(
            report == expected,
            "the report of {how:?} is not tests/golden/{name}; if it should not be, run with UPDATE_GOLDEN=1 and read \
             the diff\n{report}"
        );
    }
}
