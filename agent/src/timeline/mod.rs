//! Leak timelines: what a recording holds of a process, as one value, and that value as a page, JSON, a trace or text.
//!
//! [`Timeline::of`] is a pure function of histories: which `go` statement began to leak, when, how fast, and how it ended.
//! Times are on one axis of Unix milliseconds that never runs backwards (`axis`); the onset of a leak is computed with
//! its uncertainty (`trend`). Nothing is interpolated: where nothing was recorded there is a gap.
//!
//! Deliberately absent: reading files, and local time zones. Times are shown in UTC, as logs have them.

mod axis;
mod build;
pub mod compare;
pub mod goroutines;
mod headline;
mod html;
mod incidents;
mod list;
mod lives;
mod perfetto;
#[cfg(test)]
mod tests;
mod text;
mod trace;
mod trend;

use serde::{Deserialize, Serialize};

use crate::detect::Verdict;
use crate::golang::Frame;
use crate::record::{ExitKind, GapCause};
use crate::words::Place;

pub use html::{CHART, STYLE, render as render_html};
pub use list::{Listed, Listing, render as render_list};
pub use perfetto::render as render_perfetto;
pub use text::render as render_text;
pub use trend::{Fit, fit};

/// Version of the document's shape; it changes when a field changes its meaning or goes away.
pub const SCHEMA: u32 = 1;

/// The document. `*_ms` are Unix milliseconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Timeline {
    /// [`SCHEMA`]
    pub schema: u32,
    /// What happened, in one sentence.
    pub headline: String,
    /// The strongest verdict.
    pub verdict: Option<Verdict>,
    /// Index of the group the headline is about.
    pub culprit: Option<usize>,
    /// Where the axis begins.
    pub from_ms: u64,
    /// Where it ends.
    pub to_ms: u64,
    /// The processes, oldest first.
    pub lives: Vec<Life>,
    /// `go` statements, leaking ones first, then largest first. Those beyond the limit are summed in the last.
    pub sites: Vec<SiteLine>,
    /// Groups, strongest verdict first, then largest first.
    pub groups: Vec<GroupLine>,
    /// Goroutines that waited for one another, the most first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub incidents: Vec<IncidentLine>,
    /// What happened at one moment, oldest first.
    pub marks: Vec<Mark>,
    /// Times of which less is known, oldest first.
    pub gaps: Vec<GapSpan>,
    /// What is not in this document, in sentences.
    pub notes: Vec<String>,
}

/// One process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Life {
    /// Process id.
    pub pid: u32,
    /// Its executable.
    pub exe: String,
    /// For example `go1.27.3`.
    pub go_version: String,
    /// For example `amd64`.
    pub arch: String,
    /// The host it ran on.
    pub host: String,
    /// Container id.
    pub container: Option<String>,
    /// Uid of the pod.
    pub pod_uid: Option<String>,
    /// Name of the pod.
    pub pod_name: Option<String>,
    /// Namespace of the pod.
    pub pod_namespace: Option<String>,
    /// systemd unit.
    pub unit: Option<String>,
    /// Limit of its memory control group.
    pub memory_limit_bytes: Option<u64>,
    /// When it started.
    pub started_ms: Option<u64>,
    /// How it ended, if it did while it was watched.
    pub ended: Option<Ended>,
    /// Goroutines in groups that leak or behave like it, parked beyond the threshold at its last look: what a report of that look
    /// says.
    #[serde(default)]
    pub leaked: u64,
    /// The same of groups that are stuck.
    #[serde(default)]
    pub stuck: u64,
    /// Index of the group that leaks most surely in it, and of those the largest.
    #[serde(default)]
    pub culprit: Option<usize>,
    /// Time between two looks.
    pub interval_seconds: f64,
    /// Parked longer than this counts as long.
    pub threshold_seconds: f64,
    /// Lives of one lane do not overlap.
    pub lane: usize,
    /// Looks without a gap in between, oldest first.
    pub segments: Vec<Segment>,
}

/// The end of a process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Ended {
    /// When it was noticed.
    pub ms: u64,
    /// How.
    pub kind: ExitKind,
    /// How, in words: "the OOM kill".
    pub how: String,
    /// The same in a word or two: "OOM kill".
    #[serde(default)]
    pub label: String,
    /// What that is known from.
    pub evidence: String,
}

/// Counts at successive looks; all lists are as long as `ms`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Segment {
    /// When.
    pub ms: Vec<u64>,
    /// Goroutines alive, without the runtime's own.
    pub live: Vec<u64>,
    /// Goroutines parked beyond the threshold.
    pub parked: Vec<u64>,
    /// Resident memory.
    pub rss_bytes: Vec<Option<u64>>,
    /// CPUs in use since the look before.
    pub cpus: Vec<Option<f64>>,
    /// What the runtime knew of itself, if it could be read at any of these looks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime: Option<RuntimeLines>,
    /// Goroutines alive by index of the site; sites without any are left out.
    pub sites: Vec<Counts>,
    /// Goroutines waiting by index of the group; groups without any are left out.
    pub groups: Vec<Counts>,
}

/// What the Go runtime knew of itself at successive looks; all lists are as long as [`Segment::ms`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct RuntimeLines {
    /// Bytes of the heap that are live.
    pub heap_live_bytes: Vec<Option<u64>>,
    /// Its size at which the next collection is to be done.
    pub heap_goal_bytes: Vec<Option<u64>>,
    /// `GOMEMLIMIT`.
    pub memory_limit_bytes: Vec<Option<u64>>,
    /// The collector's share of the CPU since the look before, if a collection ended.
    pub gc_cpu_share: Vec<Option<f64>>,
    /// The longest pause of a collection since the look before.
    pub longest_pause_ms: Vec<Option<f64>>,
    /// Goroutines that were ready and had no P.
    pub runnable: Vec<Option<u64>>,
    /// One in a hundred waited longer for a P.
    pub latency_p99_ms: Vec<Option<f64>>,
    /// Threads.
    pub threads: Vec<Option<u64>>,
}

/// One count at successive looks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Counts {
    /// Index of what is counted.
    pub of: usize,
    /// Its counts.
    pub counts: Vec<u64>,
}

/// A `go` statement.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SiteLine {
    /// Its function, or what it starts, or "other go statements".
    pub name: String,
    /// Where it is.
    pub created_by: Option<Place>,
    /// What it starts.
    pub start_function: String,
    /// Whether one of its groups is more than idle.
    pub leaking: bool,
    /// Alive at the last look.
    pub at_end: u64,
    /// The most that were alive at a look.
    pub peak: u64,
}

/// Goroutines that one `go` statement made and that wait at the same place for the same reason.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct GroupLine {
    /// Index of the `go` statement.
    pub site: usize,
    /// The `go` statement.
    pub created_by: Option<Place>,
    /// What it starts.
    pub start_function: String,
    /// Why they wait.
    pub wait_reason: String,
    /// First frame outside the runtime.
    pub blocked_at: Option<Place>,
    /// First frame of the program's own.
    #[serde(default)]
    pub in_program: Option<Place>,
    /// Innermost first.
    pub stack: Vec<Frame>,
    /// The life of which onset, growth and the counts at the end are told: the last in which it was large.
    pub life: usize,
    /// The last verdict; none if no member was ever parked beyond the threshold.
    pub verdict: Option<Verdict>,
    /// The strongest verdict it ever had.
    pub strongest: Option<Verdict>,
    /// Every change, oldest first.
    pub verdicts: Vec<Change>,
    /// What the last verdict rests on.
    pub evidence: Vec<String>,
    /// Why it leaks, if that is known.
    pub cause: Option<String>,
    /// What to do about it.
    pub remedy: Option<String>,
    /// When it began to grow, if it did.
    pub onset: Option<Onset>,
    /// How fast it grew from then on.
    pub growth_per_second: Option<f64>,
    /// How many waited before that, as a rule.
    pub level: u64,
    /// Waiting at the life's last look.
    pub at_end: u64,
    /// Of these, parked beyond the threshold.
    pub parked_at_end: u64,
    /// The most that waited at a look.
    pub peak: u64,
    /// The same of each process that had it, oldest first.
    #[serde(default)]
    pub lives: Vec<GroupLife>,
    /// Some of its goroutines.
    pub examples: Vec<Example>,
}

/// Goroutines that waited for one another, as looks at their stacks have told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct IncidentLine {
    /// Index of the process.
    pub life: usize,
    /// The first look that told of it.
    pub from_ms: u64,
    /// The first look that did not any more; none if the last of all did.
    pub ended_ms: Option<u64>,
    /// The last look that told of it.
    pub seen_ms: u64,
    /// What was wrong when they were the most, in one sentence.
    pub headline: String,
    /// The most at a look.
    pub goroutines: u64,
    /// Whether some of them waited for one another in a circle.
    pub cycle: bool,
    /// Ids of those that the others waited for, at most 20.
    pub roots: Vec<u64>,
    /// Indices of the groups they were in, those of the roots first.
    pub groups: Vec<usize>,
}

/// A group in one process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct GroupLife {
    /// Index of the process.
    pub life: usize,
    /// The last verdict.
    pub verdict: Option<Verdict>,
    /// The strongest verdict.
    pub strongest: Option<Verdict>,
    /// When it was first said that it leaks.
    pub told_ms: Option<u64>,
    /// When it began to grow, if it did.
    pub onset: Option<Onset>,
    /// How fast it grew from then on.
    pub growth_per_second: Option<f64>,
    /// How many waited before that, as a rule.
    pub level: u64,
    /// Waiting at the last look.
    pub at_end: u64,
    /// Of these, parked beyond the threshold.
    pub parked_at_end: u64,
    /// The most that waited at a look.
    pub peak: u64,
}

/// When a group began to grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Onset {
    /// The best estimate.
    pub ms: u64,
    /// Not before.
    pub earliest_ms: u64,
    /// Not after.
    pub latest_ms: u64,
    /// It grew already at the first look: then this is where its growth leads back to.
    pub before_first_look: bool,
}

/// A change of verdict.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Change {
    /// When.
    pub ms: u64,
    /// Index of its process.
    pub life: usize,
    /// To what.
    pub verdict: Verdict,
    /// What it rested on then.
    pub evidence: Vec<String>,
}

/// One parked goroutine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Example {
    /// Its id.
    pub goid: u64,
    /// Index of its process.
    pub life: usize,
    /// When it was created, if that was seen.
    pub created_ms: Option<u64>,
    /// Since when it is parked.
    pub parked_ms: u64,
    /// Whether its parking was seen; else it was parked at least since then.
    pub exact: bool,
    /// When it was last seen there.
    pub seen_ms: u64,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Mark {
    /// When.
    pub ms: u64,
    /// What kind of thing.
    pub kind: MarkKind,
    /// What, in words.
    pub text: String,
    /// Index of the process.
    pub life: usize,
}

/// What kind of thing a mark marks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum MarkKind {
    /// A process started.
    Start,
    /// A process started after another had ended.
    Restart,
    /// A process exited.
    Exit,
    /// A signal killed a process.
    Killed,
    /// A process is gone, and how is not known; or it is another program now.
    End,
    /// The kernel killed a process for lack of memory.
    OomKill,
    /// A group began to leak, as far as its growth tells.
    Onset,
    /// A verdict changed.
    Verdict,
    /// Goroutines wait for one another from then on.
    Incident,
    /// The wall clock was set.
    Clock,
}

/// A time of which less is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct GapSpan {
    /// Its beginning.
    pub from_ms: u64,
    /// Its end.
    pub to_ms: u64,
    /// Why.
    pub cause: GapCause,
    /// Whether there are no counts in between.
    pub blind: bool,
    /// More about it.
    pub text: String,
    /// Index of the process.
    pub life: usize,
}
