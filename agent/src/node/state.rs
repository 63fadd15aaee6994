//! What the agent knows of the Go processes of its node: written by the threads that watch them, read by whoever shows it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};

use super::history::{History, Point};
use super::totals::Totals;
use crate::clock::unix_now_ns;
use crate::discover::describe::Description;
use crate::discover::workload::Workload;
use crate::record::Exit;
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
#[derive(Clone, Debug, PartialEq, Eq, strum::IntoStaticStr)]
#[strum(serialize_all = "lowercase")]
pub enum WatchState {
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
pub struct NodeProcess {
    /// Which.
    pub key: ProcessKey,
    /// Path of its executable.
    pub exe: String,
    /// User, command line and control groups.
    pub described: Description,
    /// For example `go1.27.3`.
    pub go_version: Option<String>,
    /// Without a symbol table.
    pub stripped: Option<bool>,
    now: Mutex<Now>,
}

#[derive(Debug)]
struct Now {
    state: WatchState,
    workload: Workload,
    report: Option<Arc<Report>>,
    history: History,
    /// When, by the clock of durations and by that of people in nanoseconds since the Unix epoch.
    looked: Option<(Instant, u64)>,
}

impl NodeProcess {
    /// A process that has just been found.
    pub fn new(
        key: ProcessKey,
        exe: String,
        described: Description,
        go_version: Option<String>,
        stripped: Option<bool>,
    ) -> Self {
        let workload = Workload::local(&described.identity);
        let (state, history) = (WatchState::Starting, History::default());
        let now = Now { state, workload, report: None, history, looked: None };
        Self { key, exe, described, go_version, stripped, now: Mutex::new(now) }
    }

    /// Base name of its executable, without the kernel's mark of a deleted file.
    pub fn exe_name(&self) -> &str {
        let path = self.exe.strip_suffix(" (deleted)").unwrap_or(&self.exe);
        path.rsplit('/').next().unwrap_or(path)
    }

    /// What it has in common with those that come after it: namespace, pod, container and the executable's name.
    pub fn kind(&self) -> [String; 4] {
        let workload = self.workload();
        let [namespace, pod, container] = workload.labels();
        [namespace, pod, container, self.exe_name()].map(str::to_owned)
    }

    /// What becomes of it.
    pub fn state(&self) -> WatchState {
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

    /// What the looks of the last hour came to, as far as they are kept.
    pub fn history(&self) -> Vec<Point> {
        self.now().history.points()
    }

    /// Time since the last look.
    pub fn looked_ago(&self) -> Option<Duration> {
        self.now().looked.map(|(looked, _)| looked.elapsed())
    }

    /// When the last look was, in nanoseconds since the Unix epoch.
    pub fn looked_unix_ns(&self) -> Option<u64> {
        self.now().looked.map(|(_, at)| at)
    }

    /// Something else becomes of it. What was seen of one that is not watched any more is of no use: it gets older and older.
    pub fn set_state(&self, state: WatchState) {
        let mut now = self.now();
        if matches!(state, WatchState::Unselected { .. } | WatchState::Refused { .. }) {
            (now.report, now.looked) = (None, None);
        }
        now.state = state;
    }

    /// More is known of whom it belongs to.
    pub fn set_workload(&self, workload: Workload) {
        self.now().workload = workload;
    }

    fn now(&self) -> MutexGuard<'_, Now> {
        // Each assignment leaves it whole.
        self.now.lock()
    }
}

/// See the module.
#[derive(Debug, Default)]
pub struct Node {
    processes: Mutex<BTreeMap<u32, Arc<NodeProcess>>>,
    totals: Mutex<Totals>,
    ready: AtomicBool,
    unseen: AtomicUsize,
}

impl Node {
    /// Every Go process known, by pid.
    pub fn processes(&self) -> Vec<Arc<NodeProcess>> {
        self.processes.lock().values().cloned().collect()
    }

    /// The Go process with that pid.
    pub fn process(&self, pid: u32) -> Option<Arc<NodeProcess>> {
        self.processes.lock().get(&pid).cloned()
    }

    /// A process has been found, in the place of any that had its pid.
    pub fn insert(&self, process: Arc<NodeProcess>) {
        self.processes.lock().insert(process.key.pid, process);
    }

    /// A process is gone.
    pub fn remove(&self, key: ProcessKey) {
        let mut map = self.processes.lock();
        if map.get(&key.pid).is_some_and(|process| process.key == key) {
            map.remove(&key.pid);
        }
    }

    /// A process has been looked at.
    pub fn looked(&self, process: &NodeProcess, report: Arc<Report>) {
        let mut now = process.now();
        self.totals.lock().looked(now.report.as_deref(), &report);
        now.state = WatchState::Watched;
        let at_ns = unix_now_ns();
        now.looked = Some((Instant::now(), at_ns));
        now.history.push(Point::of(at_ns / 1_000_000, &report));
        now.report = Some(report);
    }

    /// What has been seen in all.
    pub fn totals(&self) -> Totals {
        self.totals.lock().clone()
    }

    /// A process that was watched has ended.
    pub fn exited(&self, process: &NodeProcess, exit: Option<&Exit>) {
        let how = exit.map_or("unknown", |exit| exit.kind.into());
        log::info!("pid {} ({}) has ended: {how}", process.key.pid, process.exe);
        self.totals.lock().ended(process.kind(), how);
    }

    /// The first search for processes is done.
    pub fn set_ready(&self) {
        self.ready.store(true, Ordering::Release);
    }

    /// Whether the first search for processes is done.
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }

    /// So many processes may not be looked at.
    pub fn set_unseen(&self, count: usize) {
        self.unseen.store(count, Ordering::Relaxed);
    }

    /// How many processes may not be looked at: whether they are Go programs is not known.
    pub fn unseen(&self) -> usize {
        self.unseen.load(Ordering::Relaxed)
    }
}
