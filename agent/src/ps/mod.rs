//! Every Go process of the host: `parkwarden ps`.
//!
//! One odd process never spoils the list: each is looked at by itself, within a limit of time, and one that cannot be
//! watched is listed with the reason. Binaries are understood once, however many processes run them.

mod text;

use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

pub use text::render;

use crate::discover::container::Identity;
use crate::discover::describe::{Description, pids};
use crate::discover::usage::Usage;
use crate::golang::buildinfo::BuildInfo;
use crate::live::examine::{Examined, Found, examine};
use crate::live::{Binaries, Target, TargetError};

/// Version of the document's shape; it changes when a field changes its meaning or goes away.
pub const SCHEMA: u32 = 1;

/// How long the whole list may take; processes that have not answered by then are listed as such.
pub const TIME_LIMIT: Duration = Duration::from_secs(10);

/// Processes looked at at once.
const WORKERS: usize = 4;

/// The document of `ps --format json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Listing {
    /// [`SCHEMA`]
    pub schema: u32,
    /// Go processes, those with most goroutines first.
    pub processes: Vec<ProcessRow>,
    /// Processes that this user may not look at: whether they are Go programs is not known.
    pub not_permitted: u64,
}

/// One Go process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ProcessRow {
    /// In parkwarden's PID namespace.
    pub pid: u32,
    /// Name of its user, or the number where it has none.
    pub user: String,
    /// Its command line.
    pub command: String,
    /// For example `go1.27.3`.
    pub go_version: Option<String>,
    /// Main module, as `path@version`.
    pub main_module: Option<String>,
    /// Without a symbol table.
    pub stripped: Option<bool>,
    /// The program's goroutines now, those of the runtime not counted.
    pub goroutines: Option<u64>,
    /// Its resident memory.
    #[serde(default)]
    pub rss_bytes: Option<u64>,
    /// Bytes of its heap that hold an object or a part of one's span.
    #[serde(default)]
    pub heap_bytes: Option<u64>,
    /// The collector's share of its CPU time since it began, as of the last collection.
    #[serde(default)]
    pub gc_cpu_share: Option<f64>,
    /// Whether it can be watched.
    pub supported: bool,
    /// Why it cannot.
    pub reason: Option<String>,
    /// Container, pod or unit.
    #[serde(flatten)]
    pub identity: Identity,
}

/// By what a list is ordered: largest first, pids from the smallest on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Sort {
    /// Goroutines.
    #[default]
    Goroutines,
    /// Resident memory.
    Rss,
    /// Heap in use.
    Heap,
    /// The collector's share of the CPU.
    Gc,
    /// Process ids.
    Pid,
}

impl Listing {
    /// Puts the processes into that order; those of which it is not known come last.
    pub fn sort(&mut self, by: Sort) {
        let key = |row: &ProcessRow| match by {
            Sort::Goroutines => row.goroutines,
            Sort::Rss => row.rss_bytes,
            Sort::Heap => row.heap_bytes,
            // A share is at least 0, and such numbers are ordered as their bits are.
            Sort::Gc => row.gc_cpu_share.map(|share| share.max(0.0).to_bits()),
            Sort::Pid => None,
        };
        self.processes.sort_by_key(|row| (std::cmp::Reverse(key(row)), row.pid));
    }
}

/// What a pid turned out to be.
enum Seen {
    Go(Box<ProcessRow>),
    NotGo,
    NotPermitted,
}

/// Lists the Go processes of this host.
pub fn list() -> std::io::Result<Listing> {
    Ok(look_at(pids()?, Instant::now() + TIME_LIMIT))
}

fn look_at(pids: Vec<u32>, deadline: Instant) -> Listing {
    let mut waiting: std::collections::BTreeSet<u32> = pids.iter().copied().collect();
    let queue = Arc::new(Mutex::new(pids.into_iter()));
    let binaries: Arc<Binaries> = Arc::default();
    let (sender, results) = channel();
    for _ in 0..WORKERS {
        let (queue, binaries, sender) = (Arc::clone(&queue), Arc::clone(&binaries), sender.clone());
        // Not joined: one that is stuck in a process's file system must not hold up the list.
        std::thread::spawn(move || work(&queue, &binaries, &sender));
    }
    drop(sender);
    let mut listing = Listing { schema: SCHEMA, processes: Vec::new(), not_permitted: 0 };
    loop {
        match results.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok((pid, seen)) => {
                waiting.remove(&pid);
                match seen {
                    Seen::Go(entry) => listing.processes.push(*entry),
                    Seen::NotGo => {}
                    Seen::NotPermitted => listing.not_permitted += 1,
                }
            }
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                listing.processes.extend(waiting.iter().map(|pid| ProcessRow {
                    reason: Some(format!(
                        "did not answer within {TIME_LIMIT:?}: whether it is a Go program is not known"
                    )),
                    ..described(*pid, Description::at(*pid))
                }));
                break;
            }
        }
    }
    listing.sort(Sort::default());
    listing
}

fn work(queue: &Mutex<std::vec::IntoIter<u32>>, binaries: &Binaries, results: &Sender<(u32, Seen)>) {
    loop {
        let next = queue.lock().next();
        let Some(pid) = next else { return };
        // The receiver goes away when the time is up.
        let seen = match examine(pid, binaries) {
            Examined::Other => Seen::NotGo,
            Examined::Denied => Seen::NotPermitted,
            Examined::Go(found) => entry(pid, *found).map_or(Seen::NotGo, |entry| Seen::Go(Box::new(entry))),
        };
        if results.send((pid, seen)).is_err() {
            return;
        }
    }
}

/// What is to be listed of a Go process; none of one that has gone.
fn entry(pid: u32, found: Found) -> Option<ProcessRow> {
    let (go_version, stripped, main_module) = (found.go_version(), found.stripped(), found.build().and_then(module));
    let Found { process, described, binary } = found;
    let entry = ProcessRow { go_version, main_module, stripped, ..self::described(pid, described) };
    let mut brief = None;
    let counted = match binary {
        Ok(binary) => Target::of(process, binary).and_then(|target| {
            brief = target.memory_in_brief().ok();
            target.own_goroutines()
        }),
        Err(refused) => return Some(ProcessRow { reason: Some(refused.refusal.to_string()), ..entry }),
    };
    match counted {
        Ok(count) => Some(ProcessRow {
            goroutines: Some(count),
            heap_bytes: brief.map(|brief| brief.heap_inuse),
            gc_cpu_share: brief.map(|brief| brief.gc_cpu_fraction),
            supported: true,
            ..entry
        }),
        Err(TargetError::Exited { .. } | TargetError::Replaced { .. }) => None,
        Err(error) => Some(ProcessRow { reason: Some(error.to_string()), ..entry }),
    }
}

fn module(build: &BuildInfo) -> Option<String> {
    let main = build.main.as_ref()?;
    Some(if main.version.is_empty() { main.path.clone() } else { format!("{}@{}", main.path, main.version) })
}

/// What can be said of a process without its binary.
fn described(pid: u32, description: Description) -> ProcessRow {
    let Description { user, command, identity, .. } = description;
    ProcessRow {
        pid,
        user,
        command,
        go_version: None,
        main_module: None,
        stripped: None,
        goroutines: None,
        rss_bytes: Usage::of(pid).map(|usage| usage.rss_bytes),
        heap_bytes: None,
        gc_cpu_share: None,
        supported: false,
        reason: None,
        identity,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_in_the_order_asked_for_and_the_unknown_last() {
        let row = |pid, goroutines, rss_bytes, heap_bytes, gc_cpu_share| ProcessRow {
            goroutines,
            rss_bytes,
            heap_bytes,
            gc_cpu_share,
            ..described(pid, Description::default())
        };
        let rows = vec![
            row(9, Some(1), Some(3), None, Some(0.25)),
            row(8, Some(2), None, Some(7), Some(0.5)),
            row(7, None, Some(4), Some(6), None),
        ];
        let mut listing = Listing { schema: SCHEMA, processes: rows, not_permitted: 0 };
        let mut order = |by| {
            listing.sort(by);
            listing.processes.iter().map(|row| row.pid).collect::<Vec<_>>()
        };
        assert_eq!(order(Sort::Goroutines), [8, 9, 7]);
        assert_eq!(order(Sort::Rss), [7, 9, 8]);
        assert_eq!(order(Sort::Heap), [8, 7, 9]);
        assert_eq!(order(Sort::Gc), [8, 9, 7]);
        assert_eq!(order(Sort::Pid), [7, 8, 9]);
    }
}
