//! What a session is fed: the same values live, saved and replayed.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::cause::Cause;
use crate::config::{Mode, ModeChoice};
use crate::discover::halted::Halted;
use crate::discover::info::TargetInfo;
use crate::discover::usage::ProcessNumbers;
use crate::golang::Frame;
use crate::golang::sites::SiteClass;
use crate::governor::Budget;
use crate::memory::kinds::HeapKind;
use crate::memory::labels::Labelled;
use crate::memory::look::CensusTaken;
use crate::registry::{CreationSiteCount, Held};
use crate::runtime::vitals::Vitals;

/// One attached probe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeInfo {
    /// Index in the counters and records.
    pub index: u16,
    /// The runtime function it is in.
    pub function: String,
    /// Its address as the process sees it.
    pub address: u64,
    /// What a hit costs the kernel.
    pub site_class: SiteClass,
}

/// A probe's counters, summed over CPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeReading {
    /// See [`ProbeInfo::index`].
    pub index: u16,
    /// Hits and losses.
    #[serde(with = "Counters")]
    pub counters: parkwarden_common::counters::ProbeCounters,
    /// What its hits have cost the target, in nanoseconds, by what was measured on this host.
    pub cost_ns: u64,
    /// Of that, what telling of the calls has cost that led to creations.
    pub stacks_ns: u64,
}

/// The shape of the kernel's counters for serde, which the shared crate does not know.
#[derive(Serialize, Deserialize)]
#[serde(remote = "parkwarden_common::counters::ProbeCounters")]
struct Counters {
    hits: u64,
    ring_full: u64,
    read_fault: u64,
    map_full: u64,
    stacks: u64,
}

/// How a session begins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// The watched program.
    pub target: TargetInfo,
    /// The probes attached first; none when only censuses are taken.
    pub probes: Vec<ProbeInfo>,
    /// In which modes it is watched.
    pub modes: Modes,
    /// The runtime's wait reasons by number.
    pub wait_reasons: Vec<String>,
    /// When the probes were attached, `CLOCK_MONOTONIC` nanoseconds.
    pub started_ns: u64,
    /// The same moment, nanoseconds since the Unix epoch.
    pub started_unix_ns: u64,
    /// Size of the ring buffer.
    pub ring_bytes: u64,
    /// The `--threshold` it was watched with, nanoseconds.
    pub threshold_ns: u64,
    /// The `--interval` it was watched with, nanoseconds.
    pub interval_ns: u64,
}

/// In which modes a target is watched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Modes {
    /// What was asked for.
    pub choice: ModeChoice,
    /// Where it begins.
    pub first: Mode,
    /// Why there can be no probes, where there can be none and some were asked for.
    pub no_probes: Option<String>,
    /// Modes with probes that this kernel does not allow, and why.
    pub refused: Vec<(Mode, String)>,
    /// What hits may cost.
    pub budget: Budget,
}

/// The target is watched in another mode from now on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModeMove {
    /// When, `CLOCK_MONOTONIC` nanoseconds.
    pub time_ns: u64,
    /// In which.
    pub mode: Mode,
    /// Why.
    pub reason: String,
    /// The probes that are attached now.
    pub probes: Vec<ProbeInfo>,
    /// What the probes before cost while they were being removed, as far as no program counted it: an estimate.
    pub uncounted_ns: u64,
}

/// What was found out about some goroutines from the target's memory: why they are stuck.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explained {
    /// Their ids.
    pub goids: Vec<u64>,
    /// The cause, where there is a name for it.
    pub cause: Option<Cause>,
    /// Sentences with numbers.
    pub evidence: Vec<String>,
    /// Bytes of heap that they alone keep, where that was counted.
    pub heap_bytes: Option<u64>,
    /// What most of that heap is.
    pub heap_kinds: Vec<HeapKind>,
}

/// A look at what the running program can still reach.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UnreachedTaken {
    /// When it ended, `CLOCK_MONOTONIC` nanoseconds.
    pub time_ns: u64,
    /// Processor time it took, in seconds.
    pub cpu_seconds: f64,
    /// Goroutines that wait for what nothing was found to lead to, or why there was no look.
    pub outcome: Result<Vec<Explained>, String>,
    /// Goroutines that a timer wakes, and to whose other cases nothing was found to lead.
    #[serde(default)]
    pub timed: Vec<Explained>,
}

/// Goroutines that were seen to run at one look after the other, looked at many times at short intervals.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Busy {
    /// How often each was looked at.
    pub samples: u32,
    /// Those of them that ran or were ready to run each time.
    pub goids: Vec<u64>,
}

/// A lock before which goroutines stand, and who holds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holding {
    /// Id of the goroutine that holds it.
    pub holder: u64,
    /// Whether a deferred unlock shows that; else it may.
    pub shown: bool,
    /// Address of the lock.
    pub lock: u64,
    /// Ids of those that want it, as many as are told.
    pub waiting: Vec<u64>,
    /// How many they are.
    pub count: u64,
}

/// Goroutines that wait for one another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tied {
    /// What is wrong, in one sentence.
    pub headline: String,
    /// Whether some of them wait for one another in a circle.
    pub cycle: bool,
    /// How many.
    pub count: u64,
    /// The ids of those that the others wait for.
    pub roots: Vec<u64>,
    /// The ids of some of all, those of the roots first.
    pub members: Vec<u64>,
}

/// An attempt to prove leaks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProofTaken {
    /// When the target stood still, or was left alone, `CLOCK_MONOTONIC` nanoseconds.
    pub time_ns: u64,
    /// What was proven, or why nothing was.
    pub outcome: Result<Proven, String>,
}

/// What was proven.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Proven {
    /// How long the target stood still.
    pub pause_seconds: f64,
    /// Goroutines that can never run again.
    pub leaks: Vec<Explained>,
}

/// A look at the target's runtime.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RuntimeTaken {
    /// What its memory tells, or why that is not known.
    pub vitals: Result<Box<Vitals>, String>,
    /// What the kernel tells of the process.
    pub process: Option<ProcessNumbers>,
    /// Use and limit of its memory control group, where that has a limit.
    pub memory_group: Option<(u64, u64)>,
    /// For how long its CPU control group has kept it from running since that group began.
    pub throttled_ns: Option<u64>,
}

/// Why a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum EndReason {
    /// The time asked for has passed.
    Elapsed,
    /// The user ended it.
    Interrupted,
    /// The target exited.
    TargetExited,
    /// The target executed another program.
    TargetReplaced,
}

/// The end of a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// When, `CLOCK_MONOTONIC` nanoseconds.
    pub time_ns: u64,
    /// Why.
    pub reason: EndReason,
}

/// One step of a session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Input {
    /// Always the first, and only the first.
    Begin(Header),
    /// Records as the kernel wrote them, one after the other.
    Events {
        /// See [`parkwarden_common::record`].
        records: Vec<u8>,
        /// Bytes the ring buffer held when it was drained, record headers included.
        ring_fill: u64,
    },
    /// The probes' counters.
    Probes(Vec<ProbeReading>),
    /// The target's goroutines are about to be read.
    CensusBegins,
    /// Names of addresses.
    Symbols(Vec<(u64, Arc<[Frame]>)>),
    /// New stacks; the first has the id after the last one known.
    Stacks(Vec<Vec<u64>>),
    /// The goroutines, read. All events that happened before have been fed.
    Census(Arc<CensusTaken>),
    /// What some goroutines of the last census wait for.
    Waits(Vec<Explained>),
    /// Leaks were proven, or could not be.
    Proof(ProofTaken),
    /// Always the last.
    End(End),
    /// CPU time that the target has used. What the probes' counters were then has been fed.
    Cpu {
        /// When, `CLOCK_MONOTONIC` nanoseconds.
        time_ns: u64,
        /// Of all its threads, since it began.
        cpu_ns: u64,
    },
    /// Another mode. The last reading of the probes before has been fed.
    Mode(ModeMove),
    /// Parks that have not ended.
    Held(Vec<Held>),
    /// Counts of `go` statements.
    Sites(Vec<CreationSiteCount>),
    /// A look at what the running program can still reach.
    Unreached(UnreachedTaken),
    /// Who of those that run did so all the time.
    Busy(Busy),
    /// Who holds the locks that goroutines stand before.
    Holdings(Vec<Holding>),
    /// What the runtime and the kernel tell of the target, besides its goroutines.
    Runtime(RuntimeTaken),
    /// Who waits for whom.
    Incidents(Vec<Tied>),
    /// The labels of goroutines of the last census.
    Labels(Labelled),
    /// The target does not run at all: its runtime was not looked at.
    Halted(Halted),
}
