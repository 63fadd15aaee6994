//! What the agent knows of the Go processes of its node: written by the threads that watch them, read by whoever shows it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::discover::container::Identity;
use crate::discover::workload::Workload;
use crate::report::Report;

/// One process, of all that have ever had its pid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProcessKey {
    /// In parkwarden's PID namespace.
    pub pid: u32,
    /// When it began, in the kernel's clock ticks since boot.
    pub start_ticks: u64,
}

/// What becomes of a Go process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// It is being opened and attached to.
    Starting,
    /// It is watched.
    Watched,
    /// It was not chosen.
    Unselected {
        /// By which setting, in words.
        why: String,
    },
    /// It cannot be watched.
    Refused {
        /// One word of a fixed set, for counting.
        reason: &'static str,
        /// In full.
        message: String,
    },
}

/// A Go process of the node.
#[derive(Debug)]
pub struct Process {
    /// Which.
    pub key: ProcessKey,
    /// Path of its executable.
    pub exe: String,
    /// Its command line.
    pub command: String,
    /// For example `go1.27.3`.
    pub go_version: Option<String>,
    /// Without a symbol table.
    pub stripped: Option<bool>,
    /// What its control groups say.
    pub identity: Identity,
    now: Mutex<Now>,
}

#[derive(Debug)]
struct Now {
    state: State,
    workload: Workload,
    report: Option<Arc<Report>>,
}

impl Process {
    /// Base name of its executable, without the kernel's mark of a deleted file.
    pub fn exe_name(&self) -> &str {
        let path = self.exe.strip_suffix(" (deleted)").unwrap_or(&self.exe);
        path.rsplit('/').next().unwrap_or(path)
    }

    /// What becomes of it.
    pub fn state(&self) -> State {
        self.now().state.clone()
    }

    /// Who it belongs to.
    pub fn workload(&self) -> Workload {
        self.now().workload.clone()
    }

    /// What the last look found.
    pub fn report(&self) -> Option<Arc<Report>> {
        self.now().report.clone()
    }

    fn now(&self) -> MutexGuard<'_, Now> {
        // Each assignment leaves it whole.
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// See the module.
#[derive(Debug, Default)]
pub struct Node {
    processes: Mutex<BTreeMap<u32, Arc<Process>>>,
    ready: AtomicBool,
}

impl Node {
    /// Every Go process known, by pid.
    pub fn processes(&self) -> Vec<Arc<Process>> {
        self.map().values().cloned().collect()
    }

    /// The Go process with that pid.
    pub fn process(&self, pid: u32) -> Option<Arc<Process>> {
        self.map().get(&pid).cloned()
    }

    /// Whether the first search for processes is done.
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }

    fn map(&self) -> MutexGuard<'_, BTreeMap<u32, Arc<Process>>> {
        self.processes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
