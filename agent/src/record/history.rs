//! What a recording holds of one process, as it is read back.
//!
//! The same value follows from the intervals that were recorded; that is what recording and reading must preserve.

use std::sync::Arc;

use super::interval::{
    CreationSite, Example, Exit, Gap, Judgement, Moment, ProcessIdentity, RecordedGroup, RuntimeSample, Usage, WatchEnd,
};
use crate::detect::Verdict;

/// Counts of one look at the process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// When.
    pub at: Moment,
    /// Goroutines alive, without the runtime's own.
    pub live: u64,
    /// The runtime's own.
    pub system: u64,
    /// Goroutines parked beyond the threshold.
    pub parked: u64,
    /// Events lost since the watch began.
    pub events_lost: u64,
    /// Sites and groups left out.
    pub unlisted: u64,
    /// Memory and CPU.
    pub usage: Option<Usage>,
    /// What the runtime knew of itself.
    pub runtime: Option<RuntimeSample>,
    /// Index into [`History::sites`], alive, created and exited since the watch began.
    pub sites: Vec<(usize, u64, u64, u64)>,
    /// Index into [`History::groups`], waiting, parked beyond the threshold, verdict.
    pub groups: Vec<(usize, u64, u64, Option<Verdict>)>,
}

/// One run's watch of the process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watched {
    /// Time between two looks, nanoseconds.
    pub interval_ns: u64,
    /// Parked longer than this counts as long, nanoseconds.
    pub threshold_ns: u64,
    /// Oldest first.
    pub samples: Vec<Sample>,
    /// How it ended; none while it runs, or when parkwarden was killed.
    pub ended: Option<WatchEnd>,
}

/// A change of verdict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdicts {
    /// When.
    pub at: Moment,
    /// What was said then.
    pub judgement: Judgement,
    /// The evidence at the last look that said the same.
    pub latest_evidence: Vec<String>,
}

/// A group with everything that is not counted at each look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupHistory {
    /// The group.
    pub group: Arc<RecordedGroup>,
    /// Oldest first.
    pub verdicts: Vec<Verdicts>,
    /// Some of its goroutines, each with the moment it was last seen there, by goid.
    pub examples: Vec<(Example, u64)>,
}

/// Goroutines that waited for one another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IncidentHistory {
    /// The first look that told of it.
    pub from: Moment,
    /// The last that did.
    pub seen: Moment,
    /// The look after that; none where that was the last of all.
    pub ended: Option<Moment>,
    /// What was wrong when they were the most.
    pub headline: String,
    /// The most at a look.
    pub goroutines: u64,
    /// Whether some of them waited for one another in a circle.
    pub cycle: bool,
    /// Ids of those that the others waited for.
    pub roots: Vec<u64>,
    /// Indices into [`History::groups`], those of the roots first.
    pub groups: Vec<usize>,
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct History {
    /// The process.
    pub process: ProcessIdentity,
    /// The host it ran on.
    pub host: String,
    /// Which boot of which host, numbered in the order they were recorded.
    pub boot: u64,
    /// Oldest first.
    pub watches: Vec<Watched>,
    /// The `go` statements that samples refer to.
    pub sites: Vec<CreationSite>,
    /// The groups that samples refer to.
    pub groups: Vec<GroupHistory>,
    /// Oldest first.
    pub incidents: Vec<IncidentHistory>,
    /// Oldest first.
    pub gaps: Vec<Gap>,
    /// How it ended, if it did while it was watched.
    pub exit: Option<Exit>,
}
