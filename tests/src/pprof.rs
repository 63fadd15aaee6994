//! Profiles as `go tool pprof` reads them.

use std::path::Path;

use xtask::toolchain::{self, NEWEST};

/// What `go tool pprof` prints of a file.
///
/// # Panics
///
/// When it cannot be run, or does not understand the file.
pub fn pprof(arguments: &[&str], file: &Path) -> String {
    let goroot = toolchain::goroot(NEWEST).expect("a toolchain");
    let mut go = toolchain::go_command(&goroot.join("bin/go")).expect("go");
    let output = go.args(["tool", "pprof"]).args(arguments).arg(file).output().expect("go tool pprof runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}
