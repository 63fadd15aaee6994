//! What is recorded: plain values, made from a session by `build`, by the agent, and by tests.

use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};

use crate::detect::Verdict;
pub use crate::discover::usage::Usage;
use crate::golang::Frame;
use crate::words::Place;

/// A moment by both clocks. The monotonic one orders what happened since a boot; the wall clock is for people.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Moment {
    /// `CLOCK_MONOTONIC` nanoseconds.
    pub mono_ns: u64,
    /// Nanoseconds since the Unix epoch.
    pub unix_ns: u64,
}

impl Moment {
    /// The moment that was at `mono_ns` if `self` is now.
    pub const fn at_mono(self, mono_ns: u64) -> Self {
        let unix_ns = if mono_ns <= self.mono_ns {
            self.unix_ns.saturating_sub(self.mono_ns - mono_ns)
        } else {
            self.unix_ns.saturating_add(mono_ns - self.mono_ns)
        };
        Self { mono_ns, unix_ns }
    }
}

/// One run of parkwarden on one boot of one host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// The kernel's id of this boot: monotonic times of different boots cannot be compared.
    pub boot_id: String,
    /// The host's name. It tells no hosts apart: parkwarden in a container may know the container's only.
    pub host: String,
    /// When it began.
    pub started: Moment,
    /// Time between two looks, nanoseconds.
    pub interval_ns: u64,
    /// Parked longer than this counts as long, nanoseconds.
    pub threshold_ns: u64,
}

/// A recorded process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProcessIdentity {
    /// Process id in parkwarden's PID namespace.
    pub pid: u32,
    /// Start time in clock ticks since boot: with the pid and the boot it names the process for good.
    pub start_ticks: u64,
    /// When it started.
    pub started: Option<Moment>,
    /// Path of its executable as the kernel names it.
    pub exe: String,
    /// For example `go1.27.3`.
    pub go_version: String,
    /// For example `amd64`.
    pub arch: String,
    /// Container id.
    pub container: Option<String>,
    /// Uid of the Kubernetes pod.
    pub pod_uid: Option<String>,
    /// Name of the pod.
    pub pod_name: Option<String>,
    /// Namespace of the pod.
    pub pod_namespace: Option<String>,
    /// systemd unit.
    pub unit: Option<String>,
    /// Limit of its memory control group.
    pub memory_limit_bytes: Option<u64>,
}

/// A `go` statement together with the function it starts.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct CreationSite {
    /// Where; none for goroutines that no `go` statement made.
    pub created_by: Option<Place>,
    /// What it starts.
    pub start_function: String,
}

/// What goroutines of one group have in common: the `go` statement, the stack they wait in, and why.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RecordedGroup {
    /// The `go` statement.
    pub site: CreationSite,
    /// The runtime's words.
    pub wait_reason: String,
    /// Innermost first.
    pub stack: Vec<Frame>,
}

/// Goroutines of one `go` statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreationSiteCount {
    /// The `go` statement.
    pub site: CreationSite,
    /// Alive.
    pub live: u64,
    /// Created since the watch began, by events.
    pub created: u64,
    /// Exited since the watch began, by events.
    pub exited: u64,
}

/// What was said of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// The verdict.
    pub verdict: Verdict,
    /// Sentences with numbers.
    pub evidence: Vec<String>,
    /// Why it leaks, if that is known.
    pub cause: Option<String>,
    /// What to do about it.
    pub remedy: Option<String>,
}

/// One parked goroutine of a group that leaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Example {
    /// Its id.
    pub goid: u64,
    /// When it was created, if that was seen; monotonic nanoseconds.
    pub created_ns: Option<u64>,
    /// Since when it is parked, monotonic nanoseconds.
    pub parked_ns: u64,
    /// Whether its parking was seen; else it was parked at least since then.
    pub exact: bool,
}

/// Waiting goroutines of one group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupCount {
    /// The group.
    pub group: RecordedGroup,
    /// How many wait.
    pub waiting: u64,
    /// Of these, parked beyond the threshold.
    pub parked: u64,
    /// The verdict; none while no member is parked beyond the threshold.
    pub judgement: Option<Judgement>,
    /// The longest parked of a group that is more than idle.
    pub examples: Vec<Example>,
}

/// Goroutines that wait for one another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IncidentCount {
    /// What is wrong, in one sentence.
    pub headline: String,
    /// How many.
    pub goroutines: u64,
    /// Whether some of them wait for one another in a circle.
    pub cycle: bool,
    /// Ids of those that the others wait for, ascending; none where that is not known.
    pub roots: Vec<u64>,
    /// The groups they are in, those of the roots first.
    pub groups: Vec<RecordedGroup>,
}

/// What the Go runtime knew of itself at one look. What it does between two looks is told by running totals, so that a thinned
/// recording still tells it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RuntimeSample {
    /// Marked by the last collection or allocated since.
    pub heap_live_bytes: u64,
    /// Size of the heap at which the next collection is to be done; none if none is.
    pub heap_goal_bytes: Option<u64>,
    /// `GOMEMLIMIT`, if there is one.
    pub memory_limit_bytes: Option<u64>,
    /// Collections since the process started.
    pub collections: u64,
    /// CPU time of the collector, as of the last collection.
    pub gc_cpu_ns: u64,
    /// CPU time that there was, as of the last collection.
    pub available_cpu_ns: u64,
    /// Pauses of all collections.
    pub gc_pause_ns: u64,
    /// The longest of those since the look before, if there were any.
    pub longest_pause_ns: Option<u64>,
    /// Goroutines that are ready and have no P.
    pub runnable: u64,
    /// One in a hundred waited longer for a P since the look before, if there were samples.
    pub latency_p99_ns: Option<u64>,
    /// Threads.
    pub threads: u64,
}

/// One look at one process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interval {
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
    /// Memory and CPU, when `/proc` had them.
    pub usage: Option<Usage>,
    /// What its runtime knew of itself, where that could be read.
    pub runtime: Option<RuntimeSample>,
    /// By `go` statement.
    pub sites: Vec<CreationSiteCount>,
    /// By `go` statement, stack and wait reason.
    pub groups: Vec<GroupCount>,
    /// Who waits for whom, where that was looked at and something is wrong.
    pub incidents: Vec<IncidentCount>,
    /// Sites and groups left out because there were too many.
    pub unlisted: u64,
}

/// How a process ended. Its words are for counting, shorter than those of documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
#[derive(strum::IntoStaticStr, strum::VariantNames)]
pub enum ExitKind {
    /// It exited with a code.
    #[strum(serialize = "exit")]
    Exited(i32),
    /// A signal killed it.
    #[strum(serialize = "signal")]
    Signaled(i32),
    /// The kernel killed it because memory ran out.
    #[strum(serialize = "oom")]
    OomKilled,
    /// SIGKILL ended it, and somebody's memory ran out at the time: whose is not known.
    #[strum(serialize = "perhaps_oom")]
    PerhapsOomKilled,
    /// It executed another program.
    #[strum(serialize = "exec")]
    Replaced,
    /// It is gone, and how cannot be said.
    #[strum(serialize = "unknown")]
    Unknown,
}

impl ExitKind {
    /// The same in a word or two.
    pub fn label(self) -> String {
        match self {
            Self::Exited(code) => format!("exit with code {code}"),
            Self::Signaled(signal) => match Signal::try_from(signal) {
                Ok(signal) => signal.as_str().to_owned(),
                Err(_) => format!("signal {signal}"),
            },
            Self::OomKilled => "OOM kill".to_owned(),
            Self::PerhapsOomKilled => "SIGKILL, perhaps for lack of memory".to_owned(),
            Self::Replaced => "exec of another program".to_owned(),
            Self::Unknown => "ended".to_owned(),
        }
    }

    /// The same as it stands behind "until".
    pub fn ending(self) -> String {
        let label = self.label();
        match self {
            Self::Exited(_) | Self::Replaced => format!("its {label}"),
            Self::Signaled(_) => format!("its end by {label}"),
            Self::OomKilled => format!("the {label}"),
            Self::PerhapsOomKilled => format!("its end by {label},"),
            Self::Unknown => "its end".to_owned(),
        }
    }
}

/// The end of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exit {
    /// When it was noticed.
    pub at: Moment,
    /// How.
    pub kind: ExitKind,
    /// What that is known from.
    pub evidence: String,
}

/// Why there is nothing, or less than everything, for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
#[derive(strum::Display, strum::VariantArray, strum::EnumString)]
#[strum(serialize_all = "snake_case")]
pub enum GapCause {
    /// No parkwarden was running.
    NotRunning,
    /// The recording could not be written.
    RecordingStopped,
    /// parkwarden ran and could not look, or came to it late.
    Stalled,
    /// Events were lost; goroutines were still counted.
    EventsLost,
    /// Probes were removed to keep the cost under its budget; goroutines were still counted.
    BudgetReached,
}

impl GapCause {
    /// Whether there are no counts in between.
    pub const fn is_blind(self) -> bool {
        matches!(self, Self::NotRunning | Self::RecordingStopped | Self::Stalled)
    }
}

/// A time of which less is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// Its beginning.
    pub from: Moment,
    /// Its end.
    pub to: Moment,
    /// Why.
    pub cause: GapCause,
    /// More about it, for people.
    pub detail: String,
}

/// How the watch of a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[derive(strum::Display, strum::VariantArray, strum::EnumString)]
#[strum(serialize_all = "snake_case")]
pub enum WatchEnd {
    /// parkwarden was told to stop.
    Stopped,
    /// The process ended.
    ProcessEnded,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_their_names() {
        assert_eq!(ExitKind::Signaled(15).ending(), "its end by SIGTERM");
        assert_eq!(ExitKind::Signaled(64).ending(), "its end by signal 64");
        assert_eq!(ExitKind::Signaled(9).label(), "SIGKILL");
    }
}
