//! A program of `tests/go` in a directory of its own, so that an agent can be told to watch nothing else, and so that any
//! user may execute it, wherever the source tree is.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use xtask::toolchain;

use crate::{BuildFlags, fixture};

/// See the module. The directory goes with it.
#[derive(Debug)]
pub struct Copied {
    /// The directory.
    pub dir: tempfile::TempDir,
    /// The program in it.
    pub program: PathBuf,
}

impl Copied {
    /// A stripped program, built with the newest Go.
    ///
    /// # Panics
    ///
    /// When it cannot be built or copied.
    pub fn of(name: &str) -> Self {
        Self::file(&fixture(name, toolchain::NEWEST, BuildFlags::Stripped), name)
    }

    /// A copy of any program.
    ///
    /// # Panics
    ///
    /// When it cannot be copied.
    pub fn file(program: &Path, name: &str) -> Self {
        let dir = tempfile::Builder::new().permissions(Permissions::from_mode(0o755)).tempdir().expect("a directory");
        let copy = dir.path().join(name);
        fs::copy(program, &copy).expect("copied");
        fs::set_permissions(&copy, Permissions::from_mode(0o755)).expect("it is ours");
        Self { dir, program: copy }
    }

    /// A pattern for this copy's path.
    pub fn pattern(&self) -> String {
        format!("{}/*", self.dir.path().display())
    }
}
