//! Waits inside libraries, Go's own and others': what such a wait means for the program, and what it has to do. Each is a file in
//! `waits`, which says only what is certain of everybody who waits there; CONTRIBUTING.md has how to add one.
//!
//! Deliberately absent: whether a goroutine is stuck. Most of what is known here is a normal rest as long as it does not pile up.

use std::sync::LazyLock;

use serde::Deserialize;

use super::io::{Direction, File, Io};
use super::{Case, CauseKind, Words};
use crate::golang::Frame;

/// A wait inside a library.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Known {
    /// The file's name, without its ending.
    #[serde(skip)]
    pub name: &'static str,
    /// The cause's name.
    pub kind: CauseKind,
    /// The runtime's words for it; more than one where versions differ.
    pub waits: Vec<String>,
    /// In IO wait, what for.
    pub io: Option<Wanted>,
    /// One of these is the innermost function that is no plumbing.
    #[serde(default)]
    pub innermost: Vec<String>,
    /// One of these is anywhere on the stack; "A called by B" are two frames, one after the other.
    #[serde(default)]
    pub through: Vec<String>,
    /// One of these too.
    #[serde(default)]
    pub from: Vec<String>,
    /// Whether a timer wakes it as a matter of course, and not as a time limit.
    #[serde(default)]
    pub timer: bool,
    /// Entries that fit as well, and say less.
    #[serde(default)]
    pub instead_of: Vec<String>,
    /// What the goroutine does.
    pub does: String,
    /// What cannot happen any more, if that is proven; only where it can be.
    pub cannot: Option<String>,
    /// What does not happen, if not.
    pub does_not: String,
    /// What to do, in a line for a Go developer.
    pub remedy: String,
    /// Whether that many wait so means that many clients are there, and nothing else.
    #[serde(default)]
    pub load: bool,
    /// Whether one alone may wait so for as long as it likes, as the second of a pair of servers does.
    #[serde(default)]
    pub standby: bool,
    /// What it waits to get, if it is a sign that something is wrong when for a while nobody got any.
    pub resource: Option<String>,
    /// Goroutines of which this is to be said, and no other entry.
    pub examples: Vec<Example>,
}

/// What IO a goroutine waits for.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    /// In which direction.
    pub direction: Direction,
    /// With what.
    pub file: File,
}

/// A goroutine as Go's tracebacks show one.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Example {
    /// The runtime's words for its wait.
    pub wait: String,
    /// Functions, one a line, innermost first.
    pub stack: String,
}

/// The files, by their names.
macro_rules! files {
    ($($name:literal)*) => {
        &[$(($name, include_str!(concat!("waits/", $name, ".toml")))),*]
    };
}

const FILES: &[(&str, &str)] = files! {
    "amqp-call"
    "amqp-confirm"
    "amqp-consumer"
    "amqp-consumer-idle"
    "amqp-heartbeat"
    "amqp-notify"
    "amqp-notify-timed"
    "amqp-read"
    "client-go-informer"
    "client-go-queue"
    "client-go-reflector"
    "client-go-watch"
    "client-go-worker"
    "confluent-kafka-events"
    "confluent-kafka-poll"
    "context-foreign"
    "dns-cgo"
    "dns-server"
    "dns-wait"
    "errgroup-limit"
    "errgroup-wait"
    "exec-context"
    "exec-input"
    "exec-output"
    "exec-wait-copy"
    "franz-go-client"
    "franz-go-poll"
    "franz-go-produce"
    "fsnotify-deliver"
    "fsnotify-read"
    "grpc-client-answer"
    "grpc-client-callbacks"
    "grpc-client-connection"
    "grpc-client-names"
    "grpc-client-read"
    "grpc-client-stream"
    "grpc-client-streams"
    "grpc-client-write-idle"
    "grpc-flow"
    "grpc-server-keepalive"
    "grpc-server-limit"
    "grpc-server-message"
    "grpc-server-read"
    "grpc-server-stop"
    "grpc-server-worker"
    "grpc-server-write-idle"
    "http-client-body"
    "http-client-body-open"
    "http-client-connection"
    "http-client-handshake"
    "http-client-header"
    "http-client-idle"
    "http-client-write"
    "http-client-write-idle"
    "http-proxy-upgrade"
    "http-server-body"
    "http-server-handshake"
    "http-server-idle"
    "http-server-request"
    "http-server-response"
    "http-server-shutdown"
    "http-server-watch"
    "http2-client-body"
    "http2-client-flow"
    "http2-client-header"
    "http2-client-idle"
    "http2-client-stream"
    "http2-client-streams"
    "http2-server-body"
    "http2-server-connection"
    "http2-server-flow"
    "http2-server-read"
    "http2-server-write"
    "io-pipe-read"
    "io-pipe-write"
    "kafka-go-deliver"
    "kafka-go-fetch"
    "kafka-go-reader"
    "kafka-go-write"
    "kafka-go-writer"
    "pgx-answer"
    "pgx-dial"
    "pgx-pool"
    "pgx-pool-open"
    "process-wait"
    "redis-pool"
    "redis-subscription"
    "redis-subscription-read"
    "rpc-call"
    "rpc-client"
    "sarama-client"
    "sarama-consumer"
    "sarama-producer"
    "sarama-results"
    "sarama-send"
    "semaphore"
    "signal-context"
    "singleflight"
    "sql-cleaner"
    "sql-opener"
    "sql-pool"
    "sql-rows"
    "sql-tx"
    "sync-once"
    "syscall-close"
    "syscall-connect"
    "syscall-fcntl"
    "syscall-flock"
    "syscall-fsync"
    "syscall-mkdir"
    "syscall-mount"
    "syscall-open"
    "syscall-rename"
    "syscall-stat"
    "syscall-statfs"
    "syscall-unlink"
};

static KNOWN: LazyLock<Vec<Known>> = LazyLock::new(|| {
    let read = |(name, text): &(&'static str, &str)| {
        let known: Known = toml::from_str(text).unwrap_or_else(|error| panic!("waits/{name}.toml: {error}"));
        Known { name, ..known }
    };
    FILES.iter().map(read).collect()
});

/// All of them.
pub fn known() -> &'static [Known] {
    &KNOWN
}

/// The words for a wait inside a library.
pub(super) fn words(case: &Case<'_>) -> Option<(CauseKind, Words)> {
    let known = Known::of(case.wait_reason, case.stack)?;
    Some((known.kind, known.words()))
}

impl Known {
    /// What is known of goroutines that wait so with this stack, innermost frame first.
    pub fn of(wait_reason: &str, stack: &[Frame]) -> Option<&'static Self> {
        let fitting = || known().iter().filter(|known| known.fits(wait_reason, stack));
        fitting().find(|known| !fitting().any(|other| other.instead_of.iter().any(|name| name == known.name)))
    }

    /// Whether it can be said of such goroutines.
    pub fn fits(&self, wait_reason: &str, stack: &[Frame]) -> bool {
        let innermost = stack.iter().position(|frame| !frame.is_plumbing());
        self.waits.iter().any(|wait| wait == wait_reason)
            && self.io.is_none_or(|io| io.fits(stack))
            && one_in(&self.innermost, innermost.map_or(&[], |at| &stack[at..=at]))
            && one_in(&self.through, stack)
            && one_in(&self.from, stack)
    }

    fn words(&'static self) -> Words {
        let Self { does, cannot, does_not, remedy, .. } = self;
        Words { does, cannot: cannot.as_ref().unwrap_or(does_not), does_not, remedy }
    }
}

impl Wanted {
    fn fits(self, stack: &[Frame]) -> bool {
        Io::of(stack) == Io { direction: Some(self.direction), file: Some(self.file) }
    }
}

/// Between a function and its caller in a pattern.
const CALLED_BY: &str = " called by ";

/// Whether one of the patterns is among these frames; if there are any patterns.
fn one_in(patterns: &[String], frames: &[Frame]) -> bool {
    let among = |pattern: &String| match pattern.split_once(CALLED_BY) {
        Some((function, caller)) => {
            frames.windows(2).any(|pair| is_of(&pair[0].function, function) && is_of(&pair[1].function, caller))
        }
        None => frames.iter().any(|frame| is_of(&frame.function, pattern)),
    };
    patterns.is_empty() || patterns.iter().any(among)
}

/// Whether a function is this one or a closure of it.
fn is_of(function: &str, of: &str) -> bool {
    function.strip_prefix(of).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}
