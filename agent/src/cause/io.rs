//! What a goroutine in IO wait does, as its stack tells it: in which direction, and with what kind of file. A pipe, a terminal and
//! a regular file are all an `os.File` and look the same.

use crate::golang::Frame;

/// In which direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// It reads.
    Read,
    /// It writes.
    Write,
    /// It accepts connections.
    Accept,
    /// It connects.
    Connect,
}

/// With what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum File {
    /// A socket of package net.
    Network,
    /// An `os.File`.
    Os,
}

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Io {
    /// `None` where the stack does not tell.
    pub direction: Option<Direction>,
    /// As well.
    pub file: Option<File>,
}

/// Of a frame that begins so, what that says; the innermost such frame counts. An accept waits as a read does and a connect as a
/// write does, further in, so that they come first.
const DIRECTIONS: [(&str, Direction); 4] = [
    ("internal/poll.(*FD).Accept", Direction::Accept),
    ("net.(*netFD).connect", Direction::Connect),
    ("internal/poll.(*pollDesc).waitRead", Direction::Read),
    ("internal/poll.(*pollDesc).waitWrite", Direction::Write),
];
const FILES: [(&str, File); 2] = [("net.", File::Network), ("os.", File::Os)];

impl Io {
    /// Whether it waits to be sent something over the network.
    pub fn reads_network(self) -> bool {
        self == Self { direction: Some(Direction::Read), file: Some(File::Network) }
    }

    /// What a goroutine with this stack does, innermost frame first.
    pub fn of(stack: &[Frame]) -> Self {
        let through = |start: &str| stack.iter().any(|frame| frame.function.starts_with(start));
        let file = |frame: &Frame| FILES.iter().find(|(start, _)| frame.function.starts_with(start));
        Self {
            direction: DIRECTIONS.iter().find(|(start, _)| through(start)).map(|(_, direction)| *direction),
            file: stack.iter().find(|frame| !frame.is_plumbing()).and_then(file).map(|(_, file)| *file),
        }
    }
}
