//! How a command ends: its exit status, which is an interface that scripts rely on, and what it says when it fails.

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

/// The error and what caused it, in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let message = cause.to_string();
        // Some libraries repeat their cause in their own text.
        if !text.contains(&message) {
            text.push_str(": ");
            text.push_str(&message);
        }
        source = cause.source();
    }
    text
}
