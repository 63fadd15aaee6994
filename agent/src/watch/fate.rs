//! How a watched process ends, and how that is known: its parent alone is told, so the evidence is gathered from `/proc`,
//! the pidfd, the control groups and the kernel's OOM killer while it lives.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::now_ns;
use crate::config::nanoseconds;
use crate::discover::cgroup::{self, MemoryGroup};
use crate::discover::process::Process;
use crate::probe::OomVictims;
use crate::record::{Exit, ExitKind};
use crate::session::{EndReason, Session};

use super::recording::now;

/// See the module.
#[derive(Debug)]
pub struct Fate {
    process: Arc<Process>,
    memory: Option<MemoryGroup>,
    oom_kills: OomKills,
    victims: Option<OomVictims>,
    begun_ns: u64,
}

/// Processes killed for lack of memory: in the process's control group, and on the host.
type Counts = (Option<u64>, Option<u64>);

/// Such counts while the process lived. The kernel counts a kill before the process is gone, so the last count may be of its
/// own end: what counts is the one before, after which it was seen alive once more.
#[derive(Debug)]
struct OomKills {
    before: Counts,
    last: Counts,
}

impl OomKills {
    fn new(now: Counts) -> Self {
        Self { before: now, last: now }
    }

    fn looked(&mut self, now: Counts) {
        self.before = self.last;
        self.last = now;
    }

    /// Whether the counts have risen.
    fn rose(&self, now: Counts) -> (Option<bool>, Option<bool>) {
        let rose = |before: Option<u64>, after: Option<u64>| Some(after? > before?);
        (rose(self.before.0, now.0), rose(self.before.1, now.1))
    }
}

/// Longest time from the OOM killer's choice to the process's end: a thread may be in the middle of a slow read.
const DIES_WITHIN: Duration = Duration::from_secs(60);

impl Fate {
    /// Begins to follow a process; `victims` tell whom the OOM killer chose.
    pub fn of(process: Arc<Process>, victims: Option<OomVictims>) -> Self {
        let memory = MemoryGroup::of(&process);
        let oom_kills = OomKills::new(oom_kills(memory.as_ref()));
        Self { process, memory, oom_kills, victims, begun_ns: now_ns() }
    }

    /// The process.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Takes note of how things are while the process lives.
    pub fn looked(&mut self) {
        if !self.process.has_exited() {
            self.oom_kills.looked(oom_kills(self.memory.as_ref()));
        }
    }

    /// The limit of the process's memory control group.
    pub fn memory_limit_bytes(&self) -> Option<u64> {
        self.memory.as_ref().and_then(MemoryGroup::limit_bytes)
    }

    /// How the process ended, if its session has ended because it did. Where this host alone cannot tell whether its memory ran
    /// out, `container_oom` is asked for what the cluster says of its container; it may take its time.
    pub fn exit(&self, session: &Session, container_oom: impl FnOnce() -> bool) -> Option<Exit> {
        let at = now().at_mono(session.now_ns());
        let (kind, evidence) = match session.end()?.reason {
            EndReason::TargetExited => {
                let (group, host) = self.oom_kills.rose(oom_kills(self.memory.as_ref()));
                let chosen = self.chosen();
                Evidence { status: self.process.wait_status(), chosen, group, host }.how(container_oom)
            }
            EndReason::TargetReplaced => (ExitKind::Replaced, "it executed another program"),
            EndReason::Elapsed | EndReason::Interrupted => return None,
        };
        Some(Exit { at, kind, evidence: evidence.to_owned() })
    }

    /// Whether the kernel's OOM killer chose the process; none where nobody told.
    fn chosen(&self) -> Option<bool> {
        let recent = self.begun_ns.max(now_ns().saturating_sub(nanoseconds(DIES_WITHIN)));
        Some(self.victims.as_ref()?.chosen_ns(self.process.pid()).is_some_and(|at| at >= recent))
    }
}

const SIGKILL: i32 = 9;

/// What is known of a process's end. None is what cannot be known.
#[derive(Clone, Copy, Debug)]
struct Evidence {
    /// As `wait` tells it.
    status: Option<i32>,
    /// Whether the kernel's OOM killer chose the process.
    chosen: Option<bool>,
    /// Whether the kernel has counted a kill for lack of memory since the last look: in the process's control group.
    group: Option<bool>,
    /// The same, on the host.
    host: Option<bool>,
}

impl Evidence {
    fn how(self, container_oom: impl FnOnce() -> bool) -> (ExitKind, &'static str) {
        let Self { status, chosen, group, host } = self;
        let signal = status.map(|status| status & 0x7f);
        match signal {
            Some(0) => return (ExitKind::Exited(status.unwrap_or_default() >> 8 & 0xff), "its exit status"),
            Some(SIGKILL) | None => {}
            Some(signal) => return (ExitKind::Signaled(signal), "its exit status"),
        }
        // A process that dies already can be chosen too, so as to die sooner: nothing is killed and counted then.
        if chosen == Some(true) && host != Some(false) {
            return (ExitKind::OomKilled, "the kernel's OOM killer chose it");
        }
        match (signal, group) {
            (Some(_), Some(true)) => {
                let evidence = "SIGKILL, and its memory control group counts one more process killed for memory";
                return (ExitKind::OomKilled, evidence);
            }
            (None, Some(true)) => {
                let evidence = "its memory control group counts one more process killed for memory; its exit status cannot be seen";
                return (ExitKind::OomKilled, evidence);
            }
            _ => {}
        }
        // The group goes with the process when a container ends, and is not seen from within another.
        let doubtful = chosen.is_none() && group.is_none() && host == Some(true);
        if doubtful && container_oom() {
            return (ExitKind::OomKilled, "Kubernetes says that its container was OOM-killed");
        }
        match signal {
            Some(_) if doubtful => {
                let evidence = "SIGKILL, and the kernel counts one more process of this host killed for memory, which may be \
                                this one or another";
                (ExitKind::PerhapsOomKilled, evidence)
            }
            Some(signal) => (ExitKind::Signaled(signal), "its exit status"),
            None => (ExitKind::Unknown, "its exit status cannot be seen: Linux 6.15 or later shows it"),
        }
    }
}

fn oom_kills(memory: Option<&MemoryGroup>) -> Counts {
    (memory.and_then(MemoryGroup::oom_kills), cgroup::host_oom_kills())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kill_that_was_counted_while_the_process_was_still_there_is_its_own() {
        let mut kills = OomKills::new((Some(0), Some(7)));
        kills.looked((Some(0), Some(7)));
        kills.looked((Some(1), Some(8)));
        assert_eq!(kills.rose((Some(1), Some(8))), (Some(true), Some(true)));
        // It lives on: that was another.
        kills.looked((Some(1), Some(8)));
        assert_eq!(kills.rose((Some(1), Some(8))), (Some(false), Some(false)));
        assert_eq!(kills.rose((None, Some(9))), (None, Some(true)));
    }

    /// How a process ended whose container the cluster says was OOM-killed, or not, and whether the cluster was asked.
    fn how(
        status: Option<i32>,
        chosen: Option<bool>,
        group: Option<bool>,
        host: Option<bool>,
        container_oom: bool,
    ) -> (ExitKind, bool) {
        let mut asked = false;
        let ask = || {
            asked = true;
            container_oom
        };
        let kind = Evidence { status, chosen, group, host }.how(ask).0;
        (kind, asked)
    }

    #[test]
    fn an_oom_kill_is_told_from_other_kills_where_something_tells() {
        let kind = |status, chosen, group, host| {
            let (kind, asked) = how(status, chosen, group, host, true);
            assert!(!asked, "{status:?} {chosen:?} {group:?} {host:?} leave no doubt");
            kind
        };
        let (yes, no) = (Some(true), Some(false));
        // The OOM killer's own word, in a pod whose group nobody sees.
        assert_eq!(kind(Some(9), yes, None, yes), ExitKind::OomKilled);
        assert_eq!(kind(None, yes, None, yes), ExitKind::OomKilled);
        assert_eq!(kind(Some(9), no, None, yes), ExitKind::Signaled(9), "another process of this host was killed");
        assert_eq!(kind(None, no, None, yes), ExitKind::Unknown);
        assert_eq!(kind(Some(9), yes, None, no), ExitKind::Signaled(9), "it was dying already");
        // The group's count.
        assert_eq!(kind(Some(9), None, yes, yes), ExitKind::OomKilled);
        assert_eq!(kind(Some(9), no, yes, yes), ExitKind::OomKilled, "it went with another of its group");
        assert_eq!(kind(Some(9), None, no, yes), ExitKind::Signaled(9));
        assert_eq!(kind(None, None, yes, yes), ExitKind::OomKilled);
        assert_eq!(kind(None, None, no, yes), ExitKind::Unknown);
        // Nothing of the kind happened.
        assert_eq!(kind(Some(9), None, None, no), ExitKind::Signaled(9));
        assert_eq!(kind(Some(9), None, None, None), ExitKind::Signaled(9));
        // It ended otherwise, whatever else happened.
        assert_eq!(kind(Some(2 << 8), yes, yes, yes), ExitKind::Exited(2));
        assert_eq!(kind(Some(0x80 | 11), None, None, yes), ExitKind::Signaled(11));
    }

    #[test]
    fn where_nothing_here_tells_the_cluster_is_asked_and_a_doubt_stays_one() {
        let host = Some(true);
        assert_eq!(how(Some(9), None, None, host, true), (ExitKind::OomKilled, true));
        assert_eq!(how(Some(9), None, None, host, false), (ExitKind::PerhapsOomKilled, true));
        assert_eq!(how(None, None, None, host, true), (ExitKind::OomKilled, true));
        assert_eq!(how(None, None, None, host, false), (ExitKind::Unknown, true));
    }
}
