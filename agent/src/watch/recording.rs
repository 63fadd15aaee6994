//! Recording one watch: what a recording needs besides the session, gathered from `/proc` and the control groups.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::fate::Fate;
use crate::config::{RecordConfig, WatchConfig, nanoseconds};
use crate::discover::host;
use crate::discover::usage::{Usage, start_mono_ns};
use crate::discover::workload::Workload;
use crate::record::{self, Exit, Gap, GapCause, Interval, Moment, RecordError, Recorder, Run, Status, WatchId};
use crate::report::Report;
use crate::report::words::serde_word;
use crate::session::Session;
use crate::target::{now_ns, unix_now_ns};

/// A recording that any number of watches write to. Its clones are the same.
#[derive(Clone, Debug)]
pub struct Recordings(Arc<Mutex<Recorder>>);

impl Recordings {
    /// Opens the file, for processes of this host; `host` is its name if there is a better one than it has for us.
    pub fn open(
        path: &Path,
        config: &WatchConfig,
        record: RecordConfig,
        host: Option<String>,
    ) -> Result<Self, RecordError> {
        let run = Run {
            // Without an id, each run counts as a boot of its own: then only the wall clock relates them.
            boot_id: host::boot_id().unwrap_or_else(|| format!("unknown-{}", unix_now_ns())),
            host: host.unwrap_or_else(host::name),
            started: now(),
            interval_ns: nanoseconds(config.interval),
            threshold_ns: nanoseconds(config.threshold),
        };
        Ok(Self(Arc::new(Mutex::new(Recorder::open(path, record, run)?))))
    }

    /// How it goes.
    pub fn status(&self) -> Status {
        self.recorder().status().clone()
    }

    /// The recording of one process.
    pub fn of(&self, workload: Workload) -> Recording {
        Recording { recordings: self.clone(), workload, watched: None }
    }

    fn recorder(&self) -> MutexGuard<'_, Recorder> {
        // It is made for being interrupted anywhere: what matters is in the file.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// See the module.
#[derive(Debug)]
pub struct Recording {
    recordings: Recordings,
    workload: Workload,
    watched: Option<Watched>,
}

#[derive(Clone, Copy, Debug)]
struct Watched {
    id: WatchId,
    looked_ns: u64,
}

impl Recording {
    /// Records what the last look found; the first time, also which process it is.
    pub fn looked(&mut self, session: &Session, report: &Report, fate: &Fate) {
        let watched = match self.watched.take() {
            Some(watched) => watched,
            None => self.begin(session, fate),
        };
        let Watched { id, looked_ns } = *self.watched.insert(watched);
        let usage = fate.process().by_pid(Usage::of);
        let Some(interval) = Interval::of(session, report, usage, now()) else { return };
        if interval.at.mono_ns == looked_ns {
            return;
        }
        self.watched = Some(Watched { id, looked_ns: interval.at.mono_ns });
        let mut recorder = self.recordings.recorder();
        recorder.interval(id, &interval);
        for gap in reduced(session, now()).into_iter().filter(|gap| gap.to.mono_ns >= looked_ns) {
            recorder.gap(id, gap);
        }
    }

    /// Ends the recording of a session that has ended, because the process did in that way or for another reason.
    pub fn ended(mut self, session: &Session, report: &Report, fate: &Fate, exit: Option<&Exit>) {
        // The last look may be newer than the last interval.
        self.looked(session, report, fate);
        if let Some(watched) = &self.watched {
            self.recordings.recorder().end(watched.id, exit);
        }
    }

    fn begin(&self, session: &Session, fate: &Fate) -> Watched {
        let target = &session.header().target;
        let start_ticks = fate.process().start_ticks();
        let id = self.recordings.recorder().begin(record::Process {
            pid: target.pid,
            start_ticks,
            started: Some(now().at_mono(start_mono_ns(start_ticks))),
            exe: target.exe.clone(),
            go_version: target.go_version.clone(),
            arch: serde_word(&target.arch),
            container: self.workload.container_id.clone(),
            pod_uid: self.workload.pod_uid.clone(),
            pod_name: self.workload.pod.clone(),
            pod_namespace: self.workload.namespace.clone(),
            unit: self.workload.unit.clone(),
            memory_limit_bytes: fate.memory_limit_bytes(),
        });
        Watched { id, looked_ns: 0 }
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

pub(super) fn now() -> Moment {
    Moment { mono_ns: now_ns(), unix_ns: unix_now_ns() }
}
