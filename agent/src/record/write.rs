//! The recorder: one file, the processes being watched, and what to do when the file cannot be written.
//!
//! Nothing here fails its caller once the recorder is open: what happens to the file must not end a watch. While it
//! cannot be written, [`Recorder::status`] says so, each interval tries again, and a gap tells of it afterwards.

use std::collections::HashMap;
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode, OpenFlags, Transaction};

use super::error::RecordError;
use super::interval::{Exit, Gap, GapCause, Interval, Moment, ProcessIdentity, Run, WatchEnd};
use super::retention::Retention;
use super::schema::{self, Unusable};
use super::store::{self, Ids, WatchIds};
use crate::config::RecordConfig;
use crate::files;

/// A watch of one process by this recorder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WatchId(u64);

/// Whether what is seen is being kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecorderState {
    /// It is.
    Recording,
    /// It is not, for this reason; every interval tries again.
    Stopped(String),
}

/// For metrics and logs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecorderStatus {
    /// See [`State`].
    pub state: RecorderState,
    /// Intervals that were recorded.
    pub intervals: u64,
    /// Intervals that could not be.
    pub intervals_dropped: u64,
    /// How often recording stopped.
    pub stops: u64,
    /// Damaged files that were set aside, by their new names.
    pub set_aside: Vec<PathBuf>,
}

/// See the module.
#[derive(Debug)]
pub struct Recorder {
    path: PathBuf,
    run: Run,
    config: RecordConfig,
    db: Option<Database>,
    ids: Ids,
    watches: HashMap<WatchId, Watch>,
    next: u64,
    status: RecorderStatus,
}

/// The open file.
#[derive(Debug)]
struct Database {
    connection: Connection,
    retention: Retention,
    /// Held as long as the file is written to, so that two recorders do not set aside each other's file. Closing any
    /// descriptor of the file would drop SQLite's own locks: this one goes last.
    _lock: File,
}

#[derive(Debug)]
struct Watch {
    process: ProcessIdentity,
    ids: Option<WatchIds>,
    /// Gaps that are not yet in the file.
    pending: Vec<Gap>,
    last: Option<Moment>,
    events_lost: u64,
    /// Since when intervals of this watch could not be recorded.
    stopped: bool,
}

/// An interval that comes later than this many times the interval is late.
const LATE: u64 = 3;

impl Recorder {
    /// Opens `path` to record to, and creates it if it is not there. A damaged file is renamed.
    pub fn open(path: &Path, config: RecordConfig, run: Run) -> Result<Self, RecordError> {
        let mut recorder = Self {
            path: path.to_owned(),
            run,
            config,
            db: None,
            ids: Ids::default(),
            watches: HashMap::new(),
            next: 0,
            status: RecorderStatus {
                state: RecorderState::Recording,
                intervals: 0,
                intervals_dropped: 0,
                stops: 0,
                set_aside: Vec::new(),
            },
        };
        match recorder.ensure_open() {
            Ok(()) => {}
            Err(Trouble::Refused(error)) => return Err(error),
            Err(Trouble::Database(error)) if is_about_room(&error) => recorder.stop(&error),
            Err(Trouble::Database(source)) => {
                return Err(RecordError::Read { path: path.to_owned(), source });
            }
        }
        Ok(recorder)
    }

    /// How it goes.
    pub fn status(&self) -> &RecorderStatus {
        &self.status
    }

    /// Begins to record a process.
    pub fn begin(&mut self, process: ProcessIdentity) -> WatchId {
        let id = WatchId(self.next);
        self.next += 1;
        let watch = Watch { process, ids: None, pending: Vec::new(), last: None, events_lost: 0, stopped: false };
        self.watches.insert(id, watch);
        id
    }

    /// Records one look.
    pub fn interval(&mut self, id: WatchId, interval: &Interval) {
        let interval_ns = self.run.interval_ns;
        let Some(watch) = self.watches.get_mut(&id) else { return };
        if let Some(last) = watch.last {
            let late = interval.at.mono_ns.saturating_sub(last.mono_ns);
            if !watch.stopped && late > interval_ns.saturating_mul(LATE) {
                let detail = format!("no look for {:.1} s", late as f64 / 1e9);
                watch.pending.push(Gap { from: last, to: interval.at, cause: GapCause::Stalled, detail });
            }
            let lost = interval.events_lost.saturating_sub(watch.events_lost);
            if lost > 0 {
                let detail = format!("{lost} events lost");
                watch.pending.push(Gap { from: last, to: interval.at, cause: GapCause::EventsLost, detail });
            }
        }
        watch.events_lost = interval.events_lost;
        let done = self.transact(id, |db, ids, known, watch| {
            if watch.first
                && let Some(last) = store::last_look(db, known)?
            {
                // An earlier run, or this one before its file could not be written any more.
                let cause = if watch.stopped { GapCause::RecordingStopped } else { GapCause::NotRunning };
                let seconds = interval.at.mono_ns.saturating_sub(last.mono_ns) as f64 / 1e9;
                let detail = format!("nothing recorded for {seconds:.1} s");
                store::gap(db, known, &Gap { from: last, to: interval.at, cause, detail })?;
            }
            store::interval(db, ids, known, interval)
        });
        let Some(watch) = self.watches.get_mut(&id) else { return };
        if done {
            watch.last = Some(interval.at);
            watch.stopped = false;
            self.status.intervals += 1;
            self.retain(interval.at);
        } else {
            watch.stopped = true;
            self.status.intervals_dropped += 1;
        }
    }

    /// Records a time of which less is known. One with the cause and the beginning of an earlier one continues that.
    pub fn gap(&mut self, id: WatchId, gap: Gap) {
        if let Some(watch) = self.watches.get_mut(&id) {
            watch.pending.push(gap);
        }
        self.transact(id, |_, _, _, _| Ok(()));
    }

    /// Ends a watch; with the process's end if that is why.
    pub fn end(&mut self, id: WatchId, exit: Option<&Exit>) {
        self.transact(id, |db, _, known, _| match exit {
            Some(exit) => {
                store::exit(db, known, exit)?;
                store::end(db, known, WatchEnd::ProcessEnded)
            }
            None => store::end(db, known, WatchEnd::Stopped),
        });
        self.watches.remove(&id);
    }

    /// Does `work` for a watch in one transaction. What fails leaves the file as it was.
    fn transact(
        &mut self,
        id: WatchId,
        work: impl Fn(&Transaction<'_>, &mut Ids, &mut WatchIds, Standing) -> rusqlite::Result<()>,
    ) -> bool {
        // A damaged file is set aside once; should the new one fail too, that is for the next interval.
        for _ in 0..2 {
            match self.try_transact(id, &work) {
                Ok(()) => {
                    self.resume();
                    return true;
                }
                Err(Trouble::Refused(error)) => {
                    self.forget();
                    self.stop(&error);
                    return false;
                }
                Err(Trouble::Database(error)) if is_damage(&error) => {
                    self.forget();
                    self.db = None;
                    if let Err(error) = self.set_aside(&error) {
                        self.stop(&error);
                        return false;
                    }
                }
                Err(Trouble::Database(error)) => {
                    self.forget();
                    self.stop(&error);
                    return false;
                }
            }
        }
        false
    }

    fn try_transact(
        &mut self,
        id: WatchId,
        work: impl Fn(&Transaction<'_>, &mut Ids, &mut WatchIds, Standing) -> rusqlite::Result<()>,
    ) -> Result<(), Trouble> {
        self.ensure_open()?;
        let (Some(db), Some(watch)) = (&mut self.db, self.watches.get_mut(&id)) else { return Ok(()) };
        let transaction = db.connection.transaction()?;
        let standing = Standing { first: watch.ids.is_none(), stopped: watch.stopped };
        let mut known = match watch.ids.take() {
            Some(known) => known,
            None => store::begin(&transaction, &mut self.ids, &self.run, &watch.process)?,
        };
        work(&transaction, &mut self.ids, &mut known, standing)?;
        for gap in &watch.pending {
            store::gap(&transaction, &known, gap)?;
        }
        transaction.commit()?;
        watch.pending.clear();
        watch.ids = Some(known);
        Ok(())
    }

    /// Ids from a transaction that failed, or of a file that is gone, mean nothing.
    fn forget(&mut self) {
        self.ids = Ids::default();
        for watch in self.watches.values_mut() {
            watch.ids = None;
        }
    }

    fn ensure_open(&mut self) -> Result<(), Trouble> {
        if self.db.is_some() {
            return Ok(());
        }
        match open(&self.path, &self.config) {
            Ok(db) => self.db = Some(db),
            Err(Trouble::Database(error)) if is_damage(&error) => {
                self.set_aside(&error).map_err(Trouble::Refused)?;
                self.db = Some(open(&self.path, &self.config)?);
            }
            Err(trouble) => return Err(trouble),
        }
        Ok(())
    }

    /// Renames a damaged file and what belongs to it.
    fn set_aside(&mut self, why: &rusqlite::Error) -> Result<(), RecordError> {
        let aside = (1u32..)
            .map(|number| with_suffix(&self.path, &format!(".corrupt-{number}")))
            .find(|aside| !aside.exists())
            .unwrap_or_else(|| with_suffix(&self.path, ".corrupt"));
        let failed = |source| RecordError::Open { path: self.path.clone(), source };
        std::fs::rename(&self.path, &aside).map_err(failed)?;
        for suffix in ["-wal", "-shm"] {
            // Usually there are none.
            let _ = std::fs::rename(with_suffix(&self.path, suffix), with_suffix(&aside, suffix));
        }
        log::warn!(
            "the recording {} is damaged ({why}): it is set aside as {}, and a new one begins",
            self.path.display(),
            aside.display()
        );
        self.status.set_aside.push(aside);
        Ok(())
    }

    fn stop(&mut self, why: &dyn std::error::Error) {
        let reason = match why.source() {
            Some(source) => format!("{why}: {source}"),
            None => why.to_string(),
        };
        if self.status.state == RecorderState::Recording {
            log::warn!("nothing can be recorded to {} for now: {reason}", self.path.display());
            self.status.stops += 1;
        }
        self.status.state = RecorderState::Stopped(reason);
    }

    fn resume(&mut self) {
        if self.status.state != RecorderState::Recording {
            log::warn!("recording to {} again", self.path.display());
            self.status.state = RecorderState::Recording;
        }
    }

    fn retain(&mut self, now: Moment) {
        let Some(db) = &mut self.db else { return };
        match db.retention.step(&mut db.connection, &self.run.boot_id, now) {
            Ok(true) => self.ids.forget_stacks(),
            Ok(false) => {}
            // The next interval's transaction meets the same trouble and deals with it.
            Err(error) => log::debug!("old intervals could not be removed: {error}"),
        }
    }
}

/// How a watch stands when an interval comes.
#[derive(Clone, Copy)]
struct Standing {
    /// This recorder has not written of the watch yet, or lost what it knew.
    first: bool,
    /// The last interval could not be recorded.
    stopped: bool,
}

/// What kept the recorder from writing.
#[derive(Debug)]
enum Trouble {
    /// The file is none to record to.
    Refused(RecordError),
    /// SQLite failed.
    Database(rusqlite::Error),
}

impl From<rusqlite::Error> for Trouble {
    fn from(error: rusqlite::Error) -> Self {
        Self::Database(error)
    }
}

/// Bytes up to which a file is checked as a whole when it is opened: about a tenth of a second.
const CHECKED_WHOLE: u64 = 64 << 20;

/// How long to wait for another recorder to let go of the file.
const LOCK_WAIT: Duration = Duration::from_secs(1);

fn open(path: &Path, config: &RecordConfig) -> Result<Database, Trouble> {
    let failed = |source| Trouble::Refused(RecordError::Open { path: path.to_owned(), source });
    // SQLite gives its files beside it the same permissions.
    let lock = files::open(path).map_err(failed)?;
    // Who is just ending, or starting another program, lets go of it in a moment.
    let deadline = Instant::now() + LOCK_WAIT;
    loop {
        match lock.try_lock() {
            Ok(()) => break,
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(10));
            }
            Err(TryLockError::WouldBlock) => {
                return Err(Trouble::Refused(RecordError::InUse { path: path.to_owned() }));
            }
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
    }
    let metadata = lock.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(failed(std::io::Error::other("it is no regular file")));
    }
    refuse_captures(path, &lock)?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags)?;
    schema::prepare(&mut connection).map_err(|unusable| unusable.at(path))?;
    if metadata.len() <= CHECKED_WHOLE {
        let found: String = connection.pragma_query_value(None, "quick_check", |row| row.get(0))?;
        if found != "ok" {
            let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT);
            return Err(Trouble::Database(rusqlite::Error::SqliteFailure(code, Some(found))));
        }
    }
    let retention = Retention::new(&connection, path, config)?;
    Ok(Database { connection, retention, _lock: lock })
}

/// A capture or an image that was named by mistake is not a damaged recording.
fn refuse_captures(path: &Path, file: &File) -> Result<(), Trouble> {
    use std::os::unix::fs::FileExt as _;
    let mut magic = [0; 8];
    if file.read_exact_at(&mut magic, 0).is_ok() && magic.starts_with(b"PKW") {
        let what = "a file of `watch --save` or `prove --save-image`";
        return Err(Trouble::Refused(RecordError::Foreign { path: path.to_owned(), what }));
    }
    Ok(())
}

impl Unusable {
    fn at(self, path: &Path) -> Trouble {
        let path = path.to_owned();
        match self {
            Self::Newer(found) => Trouble::Refused(RecordError::Newer { path, found, known: schema::VERSION }),
            Self::Foreign => Trouble::Refused(RecordError::Foreign { path, what: "another program's database" }),
            Self::Database(error) => Trouble::Database(error),
        }
    }
}

fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
}

/// A full disk shows as any of these, depending on what could not be written.
fn is_about_room(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::DiskFull | ErrorCode::SystemIoFailure | ErrorCode::CannotOpen | ErrorCode::DatabaseBusy)
    )
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
