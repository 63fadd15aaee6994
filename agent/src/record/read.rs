//! Reading a recording: what it holds, and the history of a process.
//!
//! A recording can be read while it is written to, and from a copy. It is a file like any other: what is in it is
//! checked, and what makes no sense is refused rather than guessed.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::{Connection, OpenFlags, Row};

use super::error::RecordError;
use super::history::{GroupHistory, History, IncidentHistory, Sample, Verdicts, Watched};
use super::interval::{
    CreationSite, Example, Exit, ExitKind, Gap, Judgement, Moment, ProcessIdentity, RecordedGroup, RuntimeSample, Usage,
};
use super::schema::{self, Unusable};
use crate::detect::Verdict;
use crate::words::Place;

/// A process in a recording.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordedProcess {
    /// Names it in this recording.
    pub id: i64,
    /// What it is.
    pub process: ProcessIdentity,
    /// The host it ran on.
    pub host: String,
    /// Which boot, in the order they were recorded.
    pub boot: u64,
    /// The first and the last look.
    pub looks: Option<(Moment, Moment)>,
    /// How many looks.
    pub samples: u64,
    /// Goroutines at the last look.
    pub live: u64,
    /// The strongest verdict any of its groups had last.
    pub verdict: Option<Verdict>,
    /// How it ended.
    pub exit: Option<Exit>,
}

/// See the module.
#[derive(Debug)]
pub struct Reader {
    path: PathBuf,
    db: Connection,
}

impl Reader {
    /// Opens a recording.
    pub fn open(path: &Path) -> Result<Self, RecordError> {
        std::fs::metadata(path).map_err(|source| RecordError::Open { path: path.to_owned(), source })?;
        let db = connect(path).map_err(|source| match source.sqlite_error_code() {
            Some(rusqlite::ErrorCode::NotADatabase) => foreign(path, "another kind of file, or a damaged one"),
            _ => RecordError::Read { path: path.to_owned(), source },
        })?;
        match schema::check_current(&db) {
            Ok(0) => Err(foreign(path, "an empty database")),
            Ok(_) => Ok(Self { path: path.to_owned(), db }),
            Err(Unusable::Newer(found)) => {
                Err(RecordError::Newer { path: path.to_owned(), found, known: schema::VERSION })
            }
            Err(Unusable::Foreign) => Err(foreign(path, "another program's database")),
            Err(Unusable::Database(source)) => Err(RecordError::Read { path: path.to_owned(), source }),
        }
    }

    /// Every process of the recording, oldest first.
    pub fn entries(&self) -> Result<Vec<RecordedProcess>, RecordError> {
        self.failed(self.read_entries())
    }

    /// The history of one process; of samples from `since` to `until`, wall-clock nanoseconds, those included.
    pub fn history(
        &self,
        entry: &RecordedProcess,
        since: Option<u64>,
        until: Option<u64>,
    ) -> Result<History, RecordError> {
        self.failed(self.read_history(entry, since.unwrap_or(0), until.unwrap_or(i64::MAX.cast_unsigned())))
    }

    fn failed<T>(&self, result: rusqlite::Result<T>) -> Result<T, RecordError> {
        result.map_err(|source| RecordError::Read { path: self.path.clone(), source })
    }

    fn read_entries(&self) -> rusqlite::Result<Vec<RecordedProcess>> {
        let mut select = self.db.prepare(
            "SELECT process.*, boot.host,
               (SELECT min(first.id) FROM watch JOIN sample AS first ON first.watch = watch.id
                WHERE watch.process = process.id) AS first_sample,
               (SELECT max(last_sample) FROM watch WHERE watch.process = process.id) AS last_sample,
               (SELECT count(*) FROM watch JOIN sample ON sample.watch = watch.id
                WHERE watch.process = process.id) AS samples
             FROM process JOIN boot ON boot.id = process.boot ORDER BY process.id",
        )?;
        let mut rows = select.query([])?;
        let mut entries = Vec::new();
        while let Some(row) = rows.next()? {
            let id = row.get("id")?;
            let look = |sample: Option<i64>| -> rusqlite::Result<Option<(Moment, u64)>> {
                let Some(sample) = sample else { return Ok(None) };
                self.db
                    .prepare_cached("SELECT mono_ns, unix_ns, live FROM sample WHERE id = ?1")?
                    .query_row([sample], |row| Ok(Some((moment(row, "mono_ns", "unix_ns")?, row.get("live")?))))
            };
            let first = look(row.get("first_sample")?)?;
            let last = look(row.get("last_sample")?)?;
            entries.push(RecordedProcess {
                id,
                process: process(row)?,
                host: row.get("host")?,
                boot: row.get("boot")?,
                looks: first.zip(last).map(|((first, _), (last, _))| (first, last)),
                samples: row.get("samples")?,
                live: last.map_or(0, |(_, live)| live),
                verdict: self.strongest(id)?,
                exit: exit(row)?,
            });
        }
        Ok(entries)
    }

    fn strongest(&self, process: i64) -> rusqlite::Result<Option<Verdict>> {
        let mut select = self.db.prepare_cached(
            "SELECT (SELECT verdict FROM verdict WHERE goroutine_group = goroutine_group.id ORDER BY id DESC LIMIT 1) \
             FROM goroutine_group WHERE process = ?1",
        )?;
        let words = select.query_map([process], |row| row.get::<_, Option<String>>(0))?;
        let mut strongest = None;
        for word in words {
            strongest = strongest.max(word?.and_then(|word| word.parse().ok()));
        }
        Ok(strongest)
    }

    fn read_history(&self, entry: &RecordedProcess, since: u64, until: u64) -> rusqlite::Result<History> {
        let (sites, site_index) = self.read_sites(entry.id)?;
        let (groups, group_index) = self.read_groups(entry.id, &sites, &site_index)?;
        let mut watches = Vec::new();
        let mut select = self.db.prepare(
            "SELECT watch.id, interval_ns, threshold_ns, ended FROM watch JOIN run ON run.id = run \
             WHERE process = ?1 ORDER BY watch.id",
        )?;
        let mut rows = select.query([entry.id])?;
        while let Some(row) = rows.next()? {
            let ended: Option<String> = row.get("ended")?;
            watches.push(Watched {
                interval_ns: row.get("interval_ns")?,
                threshold_ns: row.get("threshold_ns")?,
                samples: self.read_samples(row.get("id")?, since, until, &site_index, &group_index)?,
                ended: ended.and_then(|word| word.parse().ok()),
            });
        }
        watches.retain(|watch| !watch.samples.is_empty());
        let mut history = History {
            process: entry.process.clone(),
            host: entry.host.clone(),
            boot: entry.boot,
            watches,
            sites,
            groups,
            incidents: self.read_incidents(entry.id, &group_index)?,
            gaps: self.read_gaps(entry.id)?,
            exit: entry.exit.clone(),
        };
        let inside = |at: &Moment| at.unix_ns >= since && at.unix_ns <= until;
        history.gaps.retain(|gap| gap.to.unix_ns >= since && gap.from.unix_ns <= until);
        history.incidents.retain(|one| one.ended.unwrap_or(one.seen).unix_ns >= since && one.from.unix_ns <= until);
        history.exit = history.exit.filter(|exit| inside(&exit.at));
        // What was said before that time may still hold in it; what was said after it does not.
        history.groups.iter_mut().for_each(|group| group.verdicts.retain(|verdict| verdict.at.unix_ns <= until));
        Ok(history)
    }

    fn read_sites(&self, process: i64) -> rusqlite::Result<(Vec<CreationSite>, HashMap<i64, usize>)> {
        let mut select = self.db.prepare(
            "SELECT id, function, ifnull(file, '') AS file, ifnull(line, 0) AS line, start_function FROM site \
             WHERE process = ?1 ORDER BY id",
        )?;
        let mut rows = select.query([process])?;
        let (mut sites, mut index) = (Vec::new(), HashMap::new());
        while let Some(row) = rows.next()? {
            index.insert(row.get("id")?, sites.len());
            let function: Option<String> = row.get("function")?;
            let (file, line) = (row.get("file")?, row.get("line")?);
            let created_by = function.map(|function| Place { function, file, line });
            sites.push(CreationSite { created_by, start_function: row.get("start_function")? });
        }
        Ok((sites, index))
    }

    fn read_groups(
        &self,
        process: i64,
        sites: &[CreationSite],
        site_index: &HashMap<i64, usize>,
    ) -> rusqlite::Result<(Vec<GroupHistory>, HashMap<i64, usize>)> {
        let mut select = self.db.prepare(
            "SELECT goroutine_group.id AS id, site, wait_reason, frames FROM goroutine_group \
             JOIN stack ON stack.id = stack WHERE process = ?1 ORDER BY goroutine_group.id",
        )?;
        let mut rows = select.query([process])?;
        let (mut groups, mut index) = (Vec::new(), HashMap::new());
        while let Some(row) = rows.next()? {
            let id = row.get("id")?;
            let Some(site) = site_index.get(&row.get("site")?).and_then(|site| sites.get(*site)) else { continue };
            let stack = json(row, "frames")?;
            index.insert(id, groups.len());
            groups.push(GroupHistory {
                group: Arc::new(RecordedGroup { site: site.clone(), wait_reason: row.get("wait_reason")?, stack }),
                verdicts: self.read_verdicts(id)?,
                examples: self.read_examples(id)?,
            });
        }
        Ok((groups, index))
    }

    fn read_verdicts(&self, group: i64) -> rusqlite::Result<Vec<Verdicts>> {
        let mut select = self.db.prepare_cached("SELECT * FROM verdict WHERE goroutine_group = ?1 ORDER BY id")?;
        let mut rows = select.query([group])?;
        let mut verdicts = Vec::new();
        while let Some(row) = rows.next()? {
            let Ok(verdict) = row.get::<_, String>("verdict")?.parse() else { continue };
            verdicts.push(Verdicts {
                at: moment(row, "mono_ns", "unix_ns")?,
                judgement: Judgement {
                    verdict,
                    evidence: json(row, "evidence")?,
                    cause: row.get("cause")?,
                    remedy: row.get("remedy")?,
                },
                latest_evidence: json(row, "latest_evidence")?,
            });
        }
        Ok(verdicts)
    }

    fn read_examples(&self, group: i64) -> rusqlite::Result<Vec<(Example, u64)>> {
        let mut select = self.db.prepare_cached("SELECT * FROM goroutine WHERE goroutine_group = ?1 ORDER BY goid")?;
        let example = |row: &Row<'_>| {
            let example = Example {
                goid: row.get("goid")?,
                created_ns: row.get("created_mono_ns")?,
                parked_ns: row.get("parked_mono_ns")?,
                exact: row.get("parked_exact")?,
            };
            Ok((example, row.get("seen_mono_ns")?))
        };
        select.query_map([group], example)?.collect()
    }

    fn read_samples(
        &self,
        watch: i64,
        since: u64,
        until: u64,
        site_index: &HashMap<i64, usize>,
        group_index: &HashMap<i64, usize>,
    ) -> rusqlite::Result<Vec<Sample>> {
        let mut select = self.db.prepare_cached("SELECT * FROM sample WHERE watch = ?1 ORDER BY id")?;
        let mut of_sites =
            self.db.prepare_cached("SELECT site, live, created, exited FROM site_sample WHERE sample = ?1")?;
        let mut of_groups = self
            .db
            .prepare_cached("SELECT goroutine_group, waiting, parked, verdict FROM group_sample WHERE sample = ?1")?;
        let mut rows = select.query([watch])?;
        let mut samples = Vec::new();
        while let Some(row) = rows.next()? {
            let at = moment(row, "mono_ns", "unix_ns")?;
            if at.unix_ns < since || at.unix_ns > until {
                continue;
            }
            let id: i64 = row.get("id")?;
            let mut sites = Vec::new();
            let mut found = of_sites.query([id])?;
            while let Some(row) = found.next()? {
                if let Some(site) = site_index.get(&row.get(0)?) {
                    sites.push((*site, row.get(1)?, row.get(2)?, row.get(3)?));
                }
            }
            let mut groups = Vec::new();
            let mut found = of_groups.query([id])?;
            while let Some(row) = found.next()? {
                if let Some(group) = group_index.get(&row.get(0)?) {
                    let verdict = row.get_ref(3)?.as_str_or_null().ok().flatten().and_then(|word| word.parse().ok());
                    groups.push((*group, row.get(1)?, row.get(2)?, verdict));
                }
            }
            sites.sort_unstable();
            groups.sort_unstable();
            let rss: Option<u64> = row.get("rss_bytes")?;
            let cpu: Option<u64> = row.get("cpu_ns")?;
            samples.push(Sample {
                at,
                live: row.get("live")?,
                system: row.get("system")?,
                parked: row.get("parked")?,
                events_lost: row.get("events_lost")?,
                unlisted: row.get("unlisted")?,
                usage: rss.zip(cpu).map(|(rss_bytes, cpu_ns)| Usage { rss_bytes, cpu_ns }),
                runtime: runtime(row)?,
                sites,
                groups,
            });
        }
        Ok(samples)
    }

    /// None in files of before version 3, which do not have the table.
    fn read_incidents(
        &self,
        process: i64,
        group_index: &HashMap<i64, usize>,
    ) -> rusqlite::Result<Vec<IncidentHistory>> {
        let has_them =
            self.db.query_row("SELECT count(*) FROM sqlite_schema WHERE name = 'incident'", [], |row| row.get(0));
        if !has_them? {
            return Ok(Vec::new());
        }
        let mut select = self.db.prepare("SELECT * FROM incident WHERE process = ?1 ORDER BY from_mono_ns, id")?;
        let incident = |row: &Row<'_>| {
            let ended: Option<u64> = row.get("ended_mono_ns")?;
            let groups: Vec<i64> = json(row, "chain")?;
            Ok(IncidentHistory {
                from: moment(row, "from_mono_ns", "from_unix_ns")?,
                seen: moment(row, "seen_mono_ns", "seen_unix_ns")?,
                ended: ended.map(|_| moment(row, "ended_mono_ns", "ended_unix_ns")).transpose()?,
                headline: row.get("headline")?,
                goroutines: row.get("goroutines")?,
                cycle: row.get("cycle")?,
                roots: json(row, "roots")?,
                groups: groups.iter().filter_map(|id| group_index.get(id).copied()).collect(),
            })
        };
        select.query_map([process], incident)?.collect()
    }

    fn read_gaps(&self, process: i64) -> rusqlite::Result<Vec<Gap>> {
        let mut select = self.db.prepare("SELECT * FROM gap WHERE process = ?1 ORDER BY from_mono_ns, id")?;
        let mut rows = select.query([process])?;
        let mut gaps = Vec::new();
        while let Some(row) = rows.next()? {
            let word: String = row.get("cause")?;
            let Ok(cause) = word.parse() else { continue };
            gaps.push(Gap {
                from: moment(row, "from_mono_ns", "from_unix_ns")?,
                to: moment(row, "to_mono_ns", "to_unix_ns")?,
                cause,
                detail: row.get("detail")?,
            });
        }
        Ok(gaps)
    }
}

fn foreign(path: &Path, what: &'static str) -> RecordError {
    RecordError::Foreign { path: path.to_owned(), what }
}

/// A connection that does not write. A recording in a directory that cannot be written to is opened as it is, without
/// the files SQLite shares between readers and writers.
fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(path, flags)?;
    db.busy_timeout(std::time::Duration::from_secs(5))?;
    let probe = db.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()));
    let Err(error) = probe else { return Ok(db) };
    use rusqlite::ErrorCode::{CannotOpen, ReadOnly};
    if !matches!(error.sqlite_error_code(), Some(CannotOpen | ReadOnly)) {
        return Err(error);
    }
    let escaped: String = std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str())
        .iter()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' => char::from(*byte).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect();
    // A relative path must not look like a host.
    let uri = format!("file:{escaped}?immutable=1");
    Connection::open_with_flags(uri, flags | OpenFlags::SQLITE_OPEN_URI)
}

fn moment(row: &Row<'_>, mono: &str, unix: &str) -> rusqlite::Result<Moment> {
    Ok(Moment { mono_ns: row.get(mono)?, unix_ns: row.get(unix)? })
}

/// What the runtime knew of itself; none in files of before version 2, which do not have the columns.
fn runtime(row: &Row<'_>) -> rusqlite::Result<Option<RuntimeSample>> {
    if row.as_ref().column_index("heap_live_bytes").is_err() {
        return Ok(None);
    }
    let Some(heap_live_bytes) = row.get("heap_live_bytes")? else { return Ok(None) };
    Ok(Some(RuntimeSample {
        heap_live_bytes,
        heap_goal_bytes: row.get("heap_goal_bytes")?,
        memory_limit_bytes: row.get("go_memory_limit_bytes")?,
        collections: row.get("collections")?,
        gc_cpu_ns: row.get("gc_cpu_ns")?,
        available_cpu_ns: row.get("available_cpu_ns")?,
        gc_pause_ns: row.get("gc_pause_ns")?,
        longest_pause_ns: row.get("longest_pause_ns")?,
        runnable: row.get("runnable")?,
        latency_p99_ns: row.get("latency_p99_ns")?,
        threads: row.get("threads")?,
    }))
}

/// A column that holds JSON.
fn json<T: serde::de::DeserializeOwned>(row: &Row<'_>, column: &str) -> rusqlite::Result<T> {
    let index = row.as_ref().column_index(column)?;
    let text = row.get_ref(index)?.as_str()?;
    serde_json::from_str(text)
        .map_err(|error| rusqlite::Error::FromSqlConversionFailure(index, rusqlite::types::Type::Text, Box::new(error)))
}

fn process(row: &Row<'_>) -> rusqlite::Result<ProcessIdentity> {
    let started: Option<u64> = row.get("started_mono_ns")?;
    let started_unix: Option<u64> = row.get("started_unix_ns")?;
    Ok(ProcessIdentity {
        pid: row.get("pid")?,
        start_ticks: row.get("start_ticks")?,
        started: started.zip(started_unix).map(|(mono_ns, unix_ns)| Moment { mono_ns, unix_ns }),
        exe: row.get("exe")?,
        go_version: row.get("go_version")?,
        arch: row.get("arch")?,
        container: row.get("container")?,
        pod_uid: row.get("pod_uid")?,
        pod_name: row.get("pod_name")?,
        pod_namespace: row.get("pod_namespace")?,
        unit: row.get("unit")?,
        memory_limit_bytes: row.get("memory_limit_bytes")?,
    })
}

fn exit(row: &Row<'_>) -> rusqlite::Result<Option<Exit>> {
    let kind: Option<String> = row.get("exit_kind")?;
    let (code, signal): (Option<i32>, Option<i32>) = (row.get("exit_code")?, row.get("exit_signal")?);
    let kind = match (kind.as_deref(), code, signal) {
        (None, ..) => return Ok(None),
        (Some("exited"), Some(code), _) => ExitKind::Exited(code),
        (Some("signaled"), _, Some(signal)) => ExitKind::Signaled(signal),
        (Some("oom_killed"), ..) => ExitKind::OomKilled,
        (Some("perhaps_oom_killed"), ..) => ExitKind::PerhapsOomKilled,
        (Some("replaced"), ..) => ExitKind::Replaced,
        _ => ExitKind::Unknown,
    };
    let evidence: Option<String> = row.get("exit_evidence")?;
    let at = moment(row, "exited_mono_ns", "exited_unix_ns")?;
    Ok(Some(Exit { at, kind, evidence: evidence.unwrap_or_default() }))
}
