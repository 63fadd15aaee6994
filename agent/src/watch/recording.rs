//! Recording one watch: what a recording needs besides the session, gathered from `/proc` and the control groups.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};

use super::fate::Fate;
use crate::clock::{now_ns, unix_now_ns};
use crate::config::{RecordConfig, WatchConfig, nanoseconds};
use crate::discover::host;
use crate::discover::usage::{Usage, start_mono_ns};
use crate::discover::workload::Workload;
use crate::record::{self, Exit, Gap, GapCause, Interval, Moment, RecordError, Recorder, RecorderStatus, Run, WatchId};
use crate::report::Report;
use crate::session::Session;

/// A recording that any number of watches write to, one after the other. Its clones are the same.
#[derive(Clone, Debug)]
pub struct Recordings {
    recorder: Arc<Mutex<Recorder>>,
    path: PathBuf,
    progress: RecordingProgress,
}

/// How a recording goes, for who must not wait for the disk: as of the last write. Its clones are the same.
#[derive(Clone, Debug)]
pub struct RecordingProgress(Arc<Mutex<Written>>);

#[derive(Debug)]
struct Written {
    status: RecorderStatus,
    bytes: u64,
    /// Since when something is being written.
    writing: Option<Instant>,
}

/// A write that takes longer is one that the disk does not answer.
const WRITES_WITHIN: Duration = Duration::from_secs(30);

impl RecordingProgress {
    /// Its state, and the size of its file.
    pub fn get(&self) -> (RecorderStatus, u64) {
        let written = self.written();
        let mut status = written.status.clone();
        if written.writing.is_some_and(|since| since.elapsed() > WRITES_WITHIN) {
            status.state = record::RecorderState::Stopped("the disk does not answer".to_owned());
        }
        (status, written.bytes)
    }

    fn written(&self) -> MutexGuard<'_, Written> {
        // Each assignment leaves it whole.
        self.0.lock()
    }
}

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
        let recorder = Recorder::open(path, record, run)?;
        let written = Written { status: recorder.status().clone(), bytes: size(path), writing: None };
        let progress = RecordingProgress(Arc::new(Mutex::new(written)));
        Ok(Self { recorder: Arc::new(Mutex::new(recorder)), path: path.to_owned(), progress })
    }

    /// How it goes, from now on.
    pub fn progress(&self) -> RecordingProgress {
        self.progress.clone()
    }

    /// The recording of one process.
    pub fn of(&self, workload: Workload) -> Recording {
        Recording { recordings: self.clone(), workload, watched: None }
    }

    /// Has the recorder do something, which may take as long as the disk does.
    fn write<T>(&self, write: impl FnOnce(&mut Recorder) -> T) -> T {
        // It is made for being interrupted anywhere: what matters is in the file.
        let mut recorder = self.recorder.lock();
        self.progress.written().writing = Some(Instant::now());
        let done = write(&mut recorder);
        let written = Written { status: recorder.status().clone(), bytes: size(&self.path), writing: None };
        *self.progress.written() = written;
        done
    }
}

fn size(path: &Path) -> u64 {
    path.metadata().map_or(0, |metadata| metadata.len())
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
        self.recordings.write(|recorder| {
            recorder.interval(id, &interval);
            for gap in reduced(session, now()).into_iter().filter(|gap| gap.to.mono_ns >= looked_ns) {
                recorder.gap(id, gap);
            }
        });
    }

    /// Ends the recording of a session that has ended, because the process did in that way or for another reason.
    pub fn ended(mut self, session: &Session, report: &Report, fate: &Fate, exit: Option<&Exit>) {
        // The last look may be newer than the last interval.
        self.looked(session, report, fate);
        if let Some(watched) = &self.watched {
            self.recordings.write(|recorder| recorder.end(watched.id, exit));
        }
    }

    fn begin(&self, session: &Session, fate: &Fate) -> Watched {
        let target = &session.header().target;
        let start_ticks = fate.process().start_ticks();
        let process = record::ProcessIdentity {
            pid: target.pid,
            start_ticks,
            started: Some(now().at_mono(start_mono_ns(start_ticks))),
            exe: target.exe.clone(),
            go_version: target.go_version.clone(),
            arch: target.arch.to_string(),
            container: self.workload.container_id.clone(),
            pod_uid: self.workload.pod_uid.clone(),
            pod_name: self.workload.pod.clone(),
            pod_namespace: self.workload.namespace.clone(),
            unit: self.workload.unit.clone(),
            memory_limit_bytes: fate.memory_limit_bytes(),
        };
        let id = self.recordings.write(|recorder| recorder.begin(process));
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
            let detail = format!("in mode {}: {}", entered.mode, entered.reason);
            Gap { from: at, to: now, cause: GapCause::BudgetReached, detail }
        });
    }
    gaps.extend(open);
    gaps
}

pub(super) fn now() -> Moment {
    Moment { mono_ns: now_ns(), unix_ns: unix_now_ns() }
}
