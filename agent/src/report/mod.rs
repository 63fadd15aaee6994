//! What parkwarden tells its user of one target: the document of `watch --format json`, and its text form.
//!
//! [`Report::of`] is a pure function of a session, so a replayed session gives the same document.

mod beside;
mod build;
mod cost;
pub mod documents;
mod labels;
mod load;
mod memory;
mod numbers;
mod runtime;
mod shown;
mod started;
mod text;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::cause::primitive::Primitive;
use crate::cause::{Case, Cause, Handler};
pub use crate::config::{Mode, ModeChoice};
use crate::detect::Verdict;
use crate::discover::info::TargetInfo;
use crate::golang::sites::SiteClass;
use crate::memory::kinds::HeapKind;
use crate::registry::durations::Durations;
use crate::registry::{Anomalies, EventCounts};
use crate::session::{EndReason, GroupKey};
use crate::words::Place;

pub use labels::LabelValues;
pub(crate) use labels::most as most_labels;
pub use memory::{LeakedMemory, LimitReached};
pub use numbers::{Numbers, held};
pub use runtime::Runtime;
pub use shown::{Filter, Shown};
pub use started::{Ancestor, MAX_WAYS, StartedBy, Way};
#[cfg(feature = "agent")]
pub(crate) use text::{losses, place};
pub use text::{render, render_group};

/// Version of the document's shape; it changes when a field changes its meaning or goes away.
pub const SCHEMA: u32 = 1;

/// Goids listed for each group; the count tells how many there are.
pub const MAX_GOIDS: usize = 100;

/// The document. Addresses are hexadecimal strings, durations seconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Report {
    /// [`SCHEMA`]
    pub schema: u32,
    /// What was watched.
    pub target: TargetInfo,
    /// How it was watched.
    pub observed: Observed,
    /// The goroutines at the last census.
    pub goroutines: Goroutines,
    /// Goroutines that wait for one another, as far as something is wrong with one of them; the most goroutines first.
    #[serde(default)]
    pub incidents: Vec<Incident>,
    /// Goroutines parked beyond the threshold, and such that pile up although they wake up now and then; by creation site,
    /// blocking stack and wait reason; largest first.
    pub groups: Vec<Group>,
    /// What leaks hold of the program's memory, if there are any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<LeakedMemory>,
    /// Ended parks by wait reason. Modes `census` and `births` see none end, and `filter` none that was shorter than `--min-park`.
    #[serde(default)]
    pub park_durations: Vec<ParkDurations>,
    /// What its runtime tells of itself at the last look, and what is unusual about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime: Option<Runtime>,
}

impl Report {
    /// Its groups: those with the worst verdict first, and of these the largest; timelines have the same order.
    pub fn worst_first(&self) -> Vec<&Group> {
        fn place(group: &Group) -> (&Option<Place>, &str, &str) {
            (&group.created_by, &group.start_function, &group.wait_reason)
        }
        let mut groups: Vec<&Group> = self.groups.iter().collect();
        groups.sort_by(|a, b| (b.verdict, b.count).cmp(&(a.verdict, a.count)).then_with(|| place(a).cmp(&place(b))));
        groups
    }
}

/// Goroutines that wait for one another. `parkwarden why` tells more of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Incident {
    /// What is wrong, in one sentence.
    pub headline: String,
    /// How often there is the same, of other goroutines.
    pub times: u64,
    /// How many, in all of them.
    pub goroutines: u64,
    /// Whether some of them wait for one another in a circle.
    pub cycle: bool,
    /// The ids of those that the others wait for; at most [`MAX_GOIDS`].
    pub roots: Vec<u64>,
    /// Which of the groups they are in, counted from 0; those of the roots first.
    pub groups: Vec<usize>,
}

/// How the target was watched, and what was lost.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Observed {
    /// How long.
    pub seconds: f64,
    /// In which mode it was watched in the end.
    pub mode: Mode,
    /// Which modes there were.
    pub modes: Modes,
    /// What of the numbers below is exact.
    #[serde(default)]
    pub known: Precision,
    /// What it has cost the target.
    pub cost: Cost,
    /// Parked longer than this counts as long.
    pub threshold_seconds: f64,
    /// Why the watch ended, once it has.
    pub ended: Option<EndReason>,
    /// Events that reached the agent.
    pub events: EventCounts,
    /// Losses by cause.
    pub lost: Lost,
    /// Disagreements between events and censuses, repaired.
    pub anomalies: Anomalies,
    /// The last look at all goroutines.
    pub census: LastCensus,
    /// The ring buffer.
    pub ring: Ring,
    /// The attached probes.
    pub probes: Vec<Probe>,
    /// Attempts to prove leaks, if there were any.
    pub proofs: Option<Proofs>,
    /// Looks at what the running program can still reach, if there were any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reach: Option<Reach>,
}

/// What the numbers of a watch are worth, over all modes it was in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Precision {
    /// How many goroutines were created and exited.
    pub creations_and_exits: Bound,
    /// How long those have been parked that parked since the watch began. Of those that were parked before it is a lower bound in
    /// any case.
    pub parked_times: Bound,
}

/// What a number is worth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    /// It is what it is.
    Exact,
    /// It may be more: there was a time in which it was not seen, or something was lost.
    #[default]
    LowerBound,
}

/// Looks at what the running program can still reach.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Reach {
    /// Looks.
    pub taken: u64,
    /// Looks that were given up.
    pub refused: u64,
    /// Why the last one was, if it was.
    pub refusal: Option<String>,
    /// Processor time that all of them took parkwarden.
    pub cpu_seconds: f64,
}

/// How the attempts to prove leaks went.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Proofs {
    /// Those that worked.
    pub taken: u64,
    /// Those that were given up.
    pub refused: u64,
    /// Why the last was given up, if it was.
    pub refusal: Option<String>,
    /// How long the target stood still in all.
    pub paused_seconds: f64,
    /// The longest time it stood still.
    pub longest_pause_seconds: f64,
    /// Goroutines proven to be leaked that ran or ended all the same: parkwarden was wrong about them.
    pub contradicted: u64,
}

/// In which modes a target was watched.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Modes {
    /// What was asked for.
    pub choice: ModeChoice,
    /// Where it began.
    pub first: Mode,
    /// Why there were no probes, where there could be none.
    pub no_probes: Option<String>,
    /// Modes that this kernel does not allow.
    #[serde(default)]
    pub refused: Vec<RefusedMode>,
    /// Moves from one mode to another.
    pub moves: u64,
    /// The moves, at most [`MAX_MOVES`](crate::session::MAX_MOVES).
    pub history: Vec<Moved>,
}

/// A mode that cannot be used on this host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct RefusedMode {
    /// Which.
    pub mode: Mode,
    /// Why.
    pub reason: String,
}

/// One move to another mode.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Moved {
    /// When, from the beginning.
    pub seconds: f64,
    /// In which mode.
    pub mode: Mode,
    /// Why.
    pub reason: String,
}

/// What watching has cost the target: the hits of its probes times what a hit costs on this host, an estimate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Cost {
    /// Time that hits took.
    pub target_seconds: f64,
    /// That as a share of one core.
    pub percent_of_core: f64,
    /// That as a share of the CPU time the target used.
    pub percent_of_target: f64,
    /// CPU time the target used while it was watched.
    pub target_cpu_seconds: f64,
    /// What `auto` keeps to, as a share of the target's CPU time.
    pub budget: String,
    /// Time in which hits cost more.
    pub over_budget_seconds: f64,
    /// The longest such time without an end.
    pub longest_over_budget_seconds: f64,
}

/// Losses by cause. All zero means that nothing was missed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Lost {
    /// Events the ring buffer had no room for.
    pub ring_full: u64,
    /// Events whose goroutine could not be read in the kernel.
    pub read_fault: u64,
    /// Parks and creation sites that found no room where the kernel keeps them in modes `filter` and `births`.
    #[serde(default)]
    pub map_full: u64,
    /// Records that could not be decoded.
    pub decode_error: u64,
    /// Events of goroutines nothing was known of.
    pub unknown_goroutine: u64,
    /// Events dropped because the registry was full.
    pub registry_full: u64,
    /// Goroutines a census could not read.
    pub census_read_fault: u64,
    /// Stacks whose outer part is missing, in the last census.
    pub stack_cut: u64,
    /// Goroutines of whose stack nothing could be read, in the last census.
    pub stack_unknown: u64,
    /// Groups not followed because there were too many.
    pub groups_dropped: u64,
}

/// The last look at all goroutines, through the process's memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct LastCensus {
    /// How long it took; the target was not stopped.
    pub seconds: f64,
    /// Dead goroutines, whose `g` waits to be used again.
    pub dead: u64,
    /// Goroutines that moved on while their stack was read: they are not parked.
    pub moved: u64,
}

/// The ring buffer between the kernel and the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Ring {
    /// Its size.
    pub size_bytes: u64,
    /// The most it held when it was drained.
    pub fill_max_bytes: u64,
    /// Events it had no room for.
    pub lost: u64,
}

/// One attached probe.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Probe {
    /// Runtime function it is in.
    pub function: String,
    /// Where, in the process.
    pub address: String,
    /// What a hit costs the kernel.
    pub site_class: SiteClass,
    /// How often it was hit, in all modes.
    pub hits: u64,
    /// What a hit has cost the target on average.
    pub hit_nanoseconds: u32,
    /// What all hits cost it.
    pub target_seconds: f64,
    /// Creations that told which calls led to them.
    #[serde(default)]
    pub stacks: u64,
    /// What that cost, of `target_seconds`.
    #[serde(default)]
    pub stacks_target_seconds: f64,
}

/// Goroutine counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Goroutines {
    /// Alive, those of the runtime included.
    pub live: u64,
    /// Of these, the runtime's own.
    pub system: u64,
    /// Created while watched.
    pub created: u64,
    /// Exited while watched.
    pub exited: u64,
    /// User goroutines parked beyond the threshold.
    pub parked_over_threshold: u64,
    /// Alive, by status.
    pub by_state: BTreeMap<String, u64>,
    /// Of the program's own, those that wait, by the runtime's words for why.
    #[serde(default)]
    pub by_wait_reason: BTreeMap<String, u64>,
}

/// How long parks lasted that have ended while they were watched by probes, of one wait reason.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ParkDurations {
    /// The runtime's words for why they waited.
    pub wait_reason: String,
    /// Counted by length.
    pub lasted: Durations,
}

/// Shortest and longest of something, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Span {
    /// Shortest.
    pub min: f64,
    /// Longest.
    pub max: f64,
}

/// Goroutines that one `go` statement made and that wait at the same place for the same reason.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Group {
    /// Which of the session's groups it is; not in JSON.
    #[serde(skip)]
    pub key: Option<GroupKey>,
    /// What they are.
    pub verdict: Verdict,
    /// How many are parked beyond the threshold; if `loops`, how many wait here.
    pub count: u64,
    /// How many wait here in all.
    pub waiting: u64,
    /// None of them is parked beyond the threshold: they wake up again and again, but never end.
    pub loops: bool,
    /// Slope of `waiting` over the watch.
    pub growth_per_second: f64,
    /// The runtime's words for why they wait.
    pub wait_reason: String,
    /// The `go` statement.
    pub created_by: Option<Place>,
    /// Who ran it.
    #[serde(default)]
    pub started_by: StartedBy,
    /// The labels that the program has put on them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<LabelValues>,
    /// The function it started.
    pub start_function: String,
    /// First frame outside runtime, sync and internal packages.
    pub blocked_at: Option<Place>,
    /// The innermost frame of the main module, else the first outside the standard library.
    #[serde(default)]
    pub in_program: Option<Place>,
    /// Innermost first.
    pub stack: Vec<crate::golang::Frame>,
    /// How long they have been parked. A goroutine that was parked before the watch began counts from the first
    /// proof of it, so its time is a lower bound.
    pub parked_seconds: Span,
    /// Their ids, the longest parked first, at most [`MAX_GOIDS`].
    pub goids: Vec<u64>,
    /// Bytes of the stacks of all that wait here.
    #[serde(default)]
    pub stack_bytes: u64,
    /// Bytes of heap that the proven ones alone keep, as the last proof counted them.
    #[serde(default)]
    pub heap_bytes: Option<u64>,
    /// What most of that heap is, the largest first, at most five.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub heap_kinds: Vec<HeapKind>,
    /// Of `count`, how many can never run again: proven by parkwarden, or by the runtime's own leak profile.
    pub proven: u64,
    /// Why they are stuck and what to do about it; for leaks, where there is a name for it.
    pub cause: Option<Cause>,
    /// Sentences with numbers.
    pub evidence: Vec<String>,
    /// Whether more would be said if it were known what they wait for.
    #[serde(skip)]
    pub(crate) asks: bool,
}

impl Group {
    /// The cause, from what one of its goroutines waits for.
    pub(crate) fn explain(&self, primitives: &[Primitive], handler: Option<Handler>) -> Option<Cause> {
        Cause::of(&Case {
            wait_reason: &self.wait_reason,
            primitives,
            stack: &self.stack,
            creator: self.created_by.as_ref().map(|place| place.function.as_str()),
            handler,
            loops: self.loops,
            proven: self.verdict == Verdict::Proven,
        })
    }
}
