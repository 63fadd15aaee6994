//! How a watched process ends, and how that is known: its parent alone is told, so the evidence is gathered from `/proc`,
//! the pidfd and the control groups while it lives.

use crate::discover::cgroup::{self, MemoryGroup};
use crate::discover::process::{OpenError, Process};
use crate::record::{Exit, ExitKind};
use crate::session::{EndReason, Session};

use super::recording::now;

/// See the module.
#[derive(Debug)]
pub struct Fate {
    process: Process,
    memory: Option<MemoryGroup>,
    oom_kills: OomKills,
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

impl Fate {
    /// Begins to follow process `pid`.
    pub fn of(pid: u32) -> Result<Self, OpenError> {
        let process = Process::open(pid)?;
        let memory = MemoryGroup::of(pid);
        let oom_kills = OomKills::new(oom_kills(memory.as_ref()));
        Ok(Self { process, memory, oom_kills })
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

    /// How the process ended, if its session has ended because it did.
    pub fn exit(&self, session: &Session) -> Option<Exit> {
        let at = now().at_mono(session.now_ns());
        let (kind, evidence) = match session.end()?.reason {
            EndReason::TargetExited => {
                let (group, host) = self.oom_kills.rose(oom_kills(self.memory.as_ref()));
                how(self.process.wait_status(), group, host)
            }
            EndReason::TargetReplaced => (ExitKind::Replaced, "it executed another program"),
            EndReason::Elapsed | EndReason::Interrupted => return None,
        };
        Some(Exit { at, kind, evidence: evidence.to_owned() })
    }
}

const SIGKILL: i32 = 9;

/// How a process ended, by its status and by whether the kernel has counted a kill for lack of memory since the last
/// look: in the process's control group, and on the host. None is what cannot be known.
fn how(status: Option<i32>, group_rose: Option<bool>, host_rose: Option<bool>) -> (ExitKind, &'static str) {
    let signal = status.map(|status| status & 0x7f);
    match (signal, group_rose, host_rose) {
        (Some(0), ..) => (ExitKind::Exited(status.unwrap_or_default() >> 8 & 0xff), "its exit status"),
        (Some(SIGKILL), Some(true), _) => {
            (ExitKind::OomKilled, "SIGKILL, and its memory control group counts one more process killed for memory")
        }
        // The group goes with the process when a container ends.
        (Some(SIGKILL), None, Some(true)) => {
            (ExitKind::OomKilled, "SIGKILL, and the kernel counts one more process of this host killed for memory")
        }
        (Some(signal), ..) => (ExitKind::Signaled(signal), "its exit status"),
        (None, Some(true), _) => (
            ExitKind::OomKilled,
            "its memory control group counts one more process killed for memory; its exit status cannot be seen",
        ),
        (None, ..) => (ExitKind::Unknown, "its exit status cannot be seen: Linux 6.15 or later shows it"),
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

    #[test]
    fn an_oom_kill_is_told_from_other_kills() {
        let kind = |status, group, host| how(status, group, host).0;
        assert_eq!(kind(Some(9), Some(true), Some(true)), ExitKind::OomKilled);
        assert_eq!(kind(Some(9), Some(false), Some(true)), ExitKind::Signaled(9));
        assert_eq!(kind(Some(9), None, Some(true)), ExitKind::OomKilled);
        assert_eq!(kind(Some(9), None, None), ExitKind::Signaled(9));
        assert_eq!(kind(None, Some(true), Some(true)), ExitKind::OomKilled);
        assert_eq!(kind(None, Some(false), Some(true)), ExitKind::Unknown);
        assert_eq!(kind(Some(2 << 8), Some(true), Some(true)), ExitKind::Exited(2));
        assert_eq!(kind(Some(0x80 | 11), Some(false), None), ExitKind::Signaled(11));
    }
}
