//! What `/api/v1/processes` and the stream of events tell of the node's processes.

use serde::Serialize;

use crate::config::Mode;
use crate::detect::Verdict;
use crate::discover::workload::Workload;
use crate::node::totals::Counts;
use crate::node::{Node, NodeProcess, Point, WatchState};
use crate::report::{Lost, Numbers, Report};

/// Version of the shape of what `/api/v1/processes` and the history of a process answer.
const SCHEMA: u32 = 1;

/// The answer of `/api/v1/processes`.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Listing {
    schema: u32,
    ready: bool,
    agent: AgentAnswer,
    processes: Vec<ProcessAnswer>,
}

/// The answer of `/api/v1/processes/PID/history`: the last hour of a process, recorded or not.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct History {
    schema: u32,
    /// Oldest first. Of many looks some stand for all.
    points: Vec<Point>,
}

impl History {
    /// Of one process.
    pub fn of(process: &NodeProcess) -> Self {
        Self { schema: SCHEMA, points: process.history() }
    }
}

/// What the agent tells of itself there.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct AgentAnswer {
    version: &'static str,
    /// Whether what is seen is recorded.
    records: bool,
    /// Processes that may not be looked at.
    unseen: usize,
    /// Losses by cause, of all processes there were.
    losses: Counts,
    /// Moves from one mode to another.
    moves: u64,
    /// Proofs that were given up.
    proofs_refused: u64,
    /// Goroutines proven to be leaked that ran all the same.
    contradicted: u64,
}

impl Listing {
    /// What is known now.
    pub fn of(node: &Node, records: bool) -> Self {
        let processes = node.processes().iter().map(|process| ProcessAnswer::of(process)).collect();
        Self { schema: SCHEMA, ready: node.is_ready(), agent: AgentAnswer::of(node, records), processes }
    }
}

impl AgentAnswer {
    /// What is known now.
    pub fn of(node: &Node, records: bool) -> Self {
        let totals = node.totals();
        Self {
            version: env!("CARGO_PKG_VERSION"),
            records,
            unseen: node.unseen(),
            losses: totals.losses,
            moves: totals.moves,
            proofs_refused: totals.proofs_refused,
            contradicted: totals.contradicted,
        }
    }
}

/// One process in it.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ProcessAnswer {
    pub pid: u32,
    /// With the pid it names the process, of all that have ever had that pid.
    start_ticks: u64,
    exe: String,
    command: String,
    user: String,
    go_version: Option<String>,
    stripped: Option<bool>,
    #[serde(flatten)]
    workload: Workload,
    /// `starting`, `watched`, `unselected` or `refused`.
    state: &'static str,
    /// Of `refused`: one word.
    reason: Option<&'static str>,
    /// Of `refused` and `unselected`: in full.
    message: Option<String>,
    mode: Option<Mode>,
    goroutines: Option<u64>,
    parked_over_threshold: Option<u64>,
    /// The worst of its groups.
    verdict: Option<Verdict>,
    /// How long it has been watched.
    watched_seconds: Option<f64>,
    /// How long ago it was looked at.
    looked_seconds_ago: Option<f64>,
    /// When that was, in Unix milliseconds.
    looked_ms: Option<u64>,
    /// What the last look came to.
    numbers: Option<Numbers>,
    /// The collector's share of the CPU, if a collection ended between the last two looks.
    gc_cpu_share: Option<f64>,
    /// By how many goroutines the groups that leak or are stuck grow a second.
    growth_per_second: Option<f64>,
    /// What was lost, in all.
    lost: Option<Lost>,
}

impl ProcessAnswer {
    /// Of one process.
    pub fn of(process: &NodeProcess) -> Self {
        let state = process.state();
        let (reason, message) = match &state {
            WatchState::Starting | WatchState::Watched => (None, None),
            WatchState::Unselected { why } => (None, Some(why.clone())),
            WatchState::Refused { reason, message } => (Some(*reason), Some(message.clone())),
        };
        let report = process.report();
        let report = report.as_deref();
        let numbers = report.map(Numbers::of);
        Self {
            pid: process.key.pid,
            start_ticks: process.key.start_ticks,
            exe: process.exe.clone(),
            command: process.described.command.clone(),
            user: process.described.user.clone(),
            go_version: process.go_version.clone(),
            stripped: process.stripped,
            workload: process.workload(),
            state: state.into(),
            reason,
            message,
            mode: report.map(|report| report.observed.mode),
            goroutines: report.map(|report| report.goroutines.live),
            parked_over_threshold: report.map(|report| report.goroutines.parked_over_threshold),
            verdict: numbers.and_then(|numbers| numbers.verdict),
            watched_seconds: report.map(|report| report.observed.seconds),
            looked_seconds_ago: process.looked_ago().map(|ago| ago.as_secs_f64()),
            looked_ms: process.looked_unix_ns().map(|at| at / 1_000_000),
            numbers,
            gc_cpu_share: report.and_then(|report| report.runtime.as_ref()?.between?.gc_cpu_share),
            growth_per_second: report.map(growth),
            lost: report.map(|report| report.observed.lost),
        }
    }

    /// The same without what changes when nothing happens.
    pub fn unchanging(mut self) -> Self {
        self.looked_seconds_ago = None;
        self
    }
}

fn growth(report: &Report) -> f64 {
    report.groups.iter().filter(|group| group.verdict > Verdict::Idle).map(|group| group.growth_per_second).sum()
}
