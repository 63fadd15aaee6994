//! Exit statuses. They are an interface: scripts rely on them.

use std::process::ExitCode;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Done = 0,
    /// parkwarden failed.
    Failed = 1,
    /// Wrong usage; clap exits with the same number.
    Usage = 2,
    /// `--fail-on-leak`, and a leak was found.
    Leak = 3,
    /// The target cannot be watched.
    Unwatchable = 4,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}
