//! Recording one watch: what a recording needs besides the session, gathered from `/proc` and the control groups.

use std::path::Path;

use crate::config::{RecordConfig, WatchConfig, nanoseconds};
use crate::discover::cgroup::{self, MemoryGroup};
use crate::discover::process::{OpenError, Process};
use crate::discover::usage::{Stat, Usage, start_mono_ns};
use crate::discover::{container, host};
use crate::record::{self, Exit, ExitKind, Gap, GapCause, Interval, Moment, RecordError, Recorder, Run, WatchId};
use crate::report::Report;
use crate::report::words::serde_word;
use crate::session::{EndReason, Session};
use crate::target::{now_ns, unix_now_ns};

/// See the module.
#[derive(Debug)]
pub struct Recording {
    recorder: Recorder,
    watched: Option<Watched>,
}

/// The process, and what its end is told from.
#[derive(Debug)]
struct Watched {
    id: WatchId,
    process: Process,
    memory: Option<MemoryGroup>,
    /// Processes killed for lack of memory until the last look: in the process's control group, and on the host.
    oom_kills: (Option<u64>, Option<u64>),
    looked_ns: u64,
}

impl Recording {
    /// Opens the file.
    pub fn open(path: &Path, config: &WatchConfig, record: RecordConfig) -> Result<Self, RecordError> {
        let run = Run {
            // Without an id, each run counts as a boot of its own: then only the wall clock relates them.
            boot_id: host::boot_id().unwrap_or_else(|| format!("unknown-{}", unix_now_ns())),
            host: host::name(),
            started: now(),
            interval_ns: nanoseconds(config.interval),
            threshold_ns: nanoseconds(config.threshold),
        };
        Ok(Self { recorder: Recorder::open(path, record, run)?, watched: None })
    }

    /// Records what the last look found; the first time, also which process it is.
    pub fn looked(&mut self, session: &Session, report: &Report) {
        if self.watched.is_none() {
            match self.begin(session) {
                Ok(watched) => self.watched = Some(watched),
                // It has just exited; the watch will say so.
                Err(error) => return log::debug!("nothing is recorded: {error}"),
            }
        }
        let Some(watched) = &mut self.watched else { return };
        let usage = Usage::of(watched.process.pid());
        let Some(interval) = Interval::of(session, report, usage, now()) else { return };
        if interval.at.mono_ns == watched.looked_ns {
            return;
        }
        let before_ns = std::mem::replace(&mut watched.looked_ns, interval.at.mono_ns);
        if !watched.process.has_exited() {
            watched.oom_kills = oom_kills(watched.memory.as_ref());
        }
        self.recorder.interval(watched.id, &interval);
        for gap in reduced(session, now()).into_iter().filter(|gap| gap.to.mono_ns >= before_ns) {
            self.recorder.gap(watched.id, gap);
        }
    }

    /// Ends the recording of a session that has ended.
    pub fn ended(mut self, session: &Session, report: &Report) {
        // The last look may be newer than the last interval.
        self.looked(session, report);
        let Some(watched) = &self.watched else { return };
        let reason = session.end().map(|end| end.reason);
        let exit = match reason {
            Some(EndReason::TargetExited) => Some(watched.exit(session)),
            Some(EndReason::TargetReplaced) => {
                let evidence = "it executed another program".to_owned();
                Some(Exit { at: now().at_mono(session.now_ns()), kind: ExitKind::Replaced, evidence })
            }
            _ => None,
        };
        self.recorder.end(watched.id, exit.as_ref());
    }

    fn begin(&mut self, session: &Session) -> Result<Watched, OpenError> {
        let target = &session.header().target;
        let process = Process::open(target.pid)?;
        let pid = process.pid();
        let memory = MemoryGroup::of(pid);
        let start_ticks = Stat::of(pid).map_or(0, |stat| stat.start_ticks);
        let cgroup = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        let identity = container::identity(&cgroup);
        let id = self.recorder.begin(record::Process {
            pid,
            start_ticks,
            started: Some(now().at_mono(start_mono_ns(start_ticks))),
            exe: target.exe.clone(),
            go_version: target.go_version.clone(),
            arch: serde_word(&target.arch),
            container: identity.container,
            pod_uid: identity.pod_uid,
            pod_name: None,
            pod_namespace: None,
            unit: identity.unit,
            memory_limit_bytes: memory.as_ref().and_then(MemoryGroup::limit_bytes),
        });
        let oom_kills = oom_kills(memory.as_ref());
        Ok(Watched { id, process, memory, oom_kills, looked_ns: 0 })
    }
}

impl Watched {
    fn exit(&self, session: &Session) -> Exit {
        let (group, host) = oom_kills(self.memory.as_ref());
        let rose = |before: Option<u64>, after: Option<u64>| Some(after? > before?);
        let (kind, evidence) =
            how(self.process.wait_status(), rose(self.oom_kills.0, group), rose(self.oom_kills.1, host));
        Exit { at: now().at_mono(session.now_ns()), kind, evidence: evidence.to_owned() }
    }
}

/// Times in which the target was watched in a cheaper mode than at first, the last one until `now` if it goes on.
fn reduced(session: &Session, now: Moment) -> Vec<Gap> {
    let first = session.header().modes.first;
    let mut gaps: Vec<Gap> = Vec::new();
    let mut open: Option<Gap> = None;
    for entered in session.moves().0 {
        let at = now.at_mono(entered.time_ns);
        if let Some(gap) = open.take() {
            gaps.push(Gap { to: at, ..gap });
        }
        open = (entered.mode < first).then(|| {
            let detail = format!("in mode {}: {}", serde_word(&entered.mode), entered.reason);
            Gap { from: at, to: now, cause: GapCause::BudgetReached, detail }
        });
    }
    gaps.extend(open);
    gaps
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

fn oom_kills(memory: Option<&MemoryGroup>) -> (Option<u64>, Option<u64>) {
    (memory.and_then(MemoryGroup::oom_kills), cgroup::host_oom_kills())
}

fn now() -> Moment {
    Moment { mono_ns: now_ns(), unix_ns: unix_now_ns() }
}

#[cfg(test)]
mod tests {
    use super::*;

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
