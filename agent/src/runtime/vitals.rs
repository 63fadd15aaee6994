//! What a watch reads of a runtime at every look: its scheduler, memory and collector; and what two such readings say of the
//! time between them.
//!
//! A watch keeps several, and most of a reading is of use only while it is the newest ([`Vitals::shorten`]).

use serde::{Deserialize, Serialize};

use super::RuntimeError;
use super::mem::{self, Memories};
use super::sched::{self, Scheduler};
use crate::golang::layout::Structs;
use crate::memory::Memory;

/// Threads that a watch keeps of a reading.
const MAX_THREADS: usize = 1000;

/// Where everything is that is read.
#[derive(Clone, Copy, Debug)]
pub struct Places {
    /// Of the scheduler.
    pub sched: sched::Places,
    /// Of memory and collector.
    pub mem: mem::Places,
}

/// One reading.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Vitals {
    /// Memory and collector.
    pub memory: Memories,
    /// The scheduler.
    pub scheduler: Scheduler,
}

/// What passed between two readings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Between {
    /// Collections that ended.
    pub collections: u64,
    /// The longest of their pauses that the runtime still remembers.
    pub longest_pause_ns: Option<u64>,
    /// Collections whose pauses it does not remember any more.
    pub pauses_unseen: u64,
    /// The collector's share of the CPU, if a collection ended: the runtime adds it up then.
    pub gc_cpu_share: Option<f64>,
    /// Time that one in a hundred goroutines waited for a P or longer, if there were samples.
    pub latency_p99_ns: Option<u64>,
}

impl Vitals {
    /// Reads them.
    pub fn read(memory: &dyn Memory, structs: &Structs, places: &Places, now_ns: u64) -> Result<Self, RuntimeError> {
        let mut scheduler = sched::read(memory, structs, &places.sched, now_ns)?;
        scheduler.machines.truncate(MAX_THREADS);
        Ok(Self { memory: mem::read(memory, structs, &places.mem, now_ns)?, scheduler })
    }

    /// What passed since an earlier reading. A ring that went around has lost pauses, which is counted.
    pub fn since(&self, earlier: &Self) -> Between {
        let (now, then) = (&self.memory, &earlier.memory);
        let collections = now.stats.num_gc.saturating_sub(then.stats.num_gc);
        let fresh = now.pauses.iter().take(usize::try_from(collections).unwrap_or(usize::MAX));
        let cpu = |of: &Memories| (of.gc_cpu_ns, of.total_cpu_ns);
        let ((gc, total), (gc_then, total_then)) = (cpu(now), cpu(then));
        let passed = total.saturating_sub(total_then);
        let latency = self.scheduler.latency.as_ref().zip(earlier.scheduler.latency.as_ref());
        Between {
            collections,
            longest_pause_ns: fresh.map(|pause| pause.ns).max(),
            pauses_unseen: collections.saturating_sub(now.pauses.len() as u64),
            gc_cpu_share: (passed > 0).then(|| gc.saturating_sub(gc_then) as f64 / passed as f64),
            latency_p99_ns: latency.and_then(|(now, then)| now.since(then).quantile(0.99)),
        }
    }

    /// Leaves out what only the newest reading is asked for.
    pub fn shorten(&mut self) {
        self.memory.pauses = Vec::new();
        self.memory.stop_times.clear();
        self.memory.cpu_classes_ns.clear();
        (self.memory.allocs_by_size, self.memory.frees_by_size) = (Vec::new(), Vec::new());
    }

    /// Minimum, quartiles and maximum of the pauses that the runtime remembers, as `debug.ReadGCStats` gives them.
    pub fn pause_quantiles_ns(&self) -> [u64; 5] {
        let mut sorted: Vec<u64> = self.memory.pauses.iter().map(|pause| pause.ns).collect();
        sorted.sort_unstable();
        let at = |quarter: usize| sorted.get((sorted.len() * quarter / 4).min(sorted.len().saturating_sub(1)));
        [0, 1, 2, 3, 4].map(|quarter| at(quarter).copied().unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::super::histogram::Histogram;
    use super::super::mem::{MemStats, Pause};
    use super::*;

    fn after(collections: u64, pauses: &[u64]) -> Vitals {
        let pauses = pauses.iter().map(|ns| Pause { ns: *ns, end_unix_ns: 0 }).collect();
        let stats = MemStats { num_gc: collections, ..MemStats::default() };
        Vitals { memory: Memories { stats, pauses, ..Memories::default() }, ..Vitals::default() }
    }

    #[test]
    fn no_pause_is_counted_twice_and_those_that_are_gone_are_told() {
        let between = |then, now: &Vitals| now.since(&after(then, &[]));
        let now = after(12, &[5, 9, 70]);
        assert_eq!(between(12, &now).longest_pause_ns, None);
        assert_eq!((between(10, &now).longest_pause_ns, between(10, &now).pauses_unseen), (Some(9), 0));
        assert_eq!((between(2, &now).longest_pause_ns, between(2, &now).pauses_unseen), (Some(70), 7));
        assert_eq!(between(12, &after(5, &[1])).collections, 0, "another program");
    }

    #[test]
    fn shares_and_latencies_are_those_of_the_time_between() {
        let mut then = after(1, &[]);
        (then.memory.gc_cpu_ns, then.memory.total_cpu_ns) = (100, 1000);
        then.scheduler.latency = Some(Histogram { counts: vec![0, 50], ..Histogram::default() });
        let mut now = then.clone();
        assert_eq!((now.since(&then).gc_cpu_share, now.since(&then).latency_p99_ns), (None, None));
        (now.memory.gc_cpu_ns, now.memory.total_cpu_ns) = (350, 2000);
        now.scheduler.latency = Some(Histogram { counts: vec![1, 50], ..Histogram::default() });
        assert_eq!((now.since(&then).gc_cpu_share, now.since(&then).latency_p99_ns), (Some(0.25), Some(64)));
    }

    #[test]
    fn quantiles_are_those_of_read_gc_stats() {
        assert_eq!(after(0, &[]).pause_quantiles_ns(), [0; 5]);
        assert_eq!(after(1, &[7]).pause_quantiles_ns(), [7; 5]);
        // By `ReadGCStats` of Go 1.27.3: sorted[len * i / 4], and the last.
        assert_eq!(after(6, &[6, 5, 4, 3, 2, 1]).pause_quantiles_ns(), [1, 2, 4, 5, 6]);
    }
}
