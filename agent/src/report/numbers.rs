//! What a report comes to, in a few numbers: for tables of many processes.

use serde::Serialize;

use super::{Group, Report};
use crate::detect::Verdict;

/// What a look comes to.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Numbers {
    /// Time since the watch began.
    pub seconds: f64,
    /// The worst verdict, if any goroutine has one.
    pub verdict: Option<Verdict>,
    /// Goroutines of the program, the runtime's own left out.
    pub goroutines: u64,
    /// Those that are stuck.
    pub stuck: u64,
    /// Those that leak or behave like it.
    pub leaked: u64,
    /// Bytes that those two hold.
    pub held: u64,
    /// Bytes of heap objects.
    pub heap: Option<u64>,
    /// CPU time of the collector so far, and all there was.
    pub gc: Option<(u64, u64)>,
    /// Goroutines that are ready and have no P.
    pub runnable: Option<u64>,
    /// What the probes cost, in percent of a core.
    pub cost: f64,
}

impl Numbers {
    /// Of a report.
    pub fn of(report: &Report) -> Self {
        let in_trouble = || report.groups.iter().filter(|group| group.verdict > Verdict::Idle);
        let sum = |wanted: fn(Verdict) -> bool| {
            report.groups.iter().filter(|group| wanted(group.verdict)).map(|group| group.count).sum()
        };
        let runtime = report.runtime.as_ref();
        let memory = runtime.and_then(|runtime| Some(&runtime.now.as_ref()?.memory));
        Self {
            seconds: report.observed.seconds,
            verdict: report.groups.iter().map(|group| group.verdict).max(),
            goroutines: report.goroutines.live.saturating_sub(report.goroutines.system),
            stuck: sum(|verdict| verdict == Verdict::Stuck),
            leaked: sum(Verdict::is_leak),
            held: in_trouble().map(held).fold(0, u64::saturating_add),
            heap: memory.map(|memory| memory.stats.heap_alloc),
            gc: memory.map(|memory| (memory.gc_cpu_ns, memory.total_cpu_ns)),
            runnable: runtime.filter(|runtime| runtime.now.is_some()).map(|runtime| runtime.runnable),
            cost: report.observed.cost.percent_of_core,
        }
    }
}

/// Bytes that a group holds.
pub fn held(group: &Group) -> u64 {
    group.stack_bytes.saturating_add(group.heap_bytes.unwrap_or(0))
}
