//! Rows: how what is recorded becomes inserts and updates, with the ids of what is stored once kept at hand.

use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension as _, Transaction, params};

use super::incidents::OpenIncidents;
use super::interval::{
    CreationSite, Exit, ExitKind, Gap, GroupCount, Interval, Moment, ProcessIdentity, RecordedGroup, Run,
    RuntimeSample, WatchEnd,
};
use crate::detect::Verdict;
use crate::golang::Frame;

/// Sites, and groups, of one process that a recording tells apart; a program has hundreds, a hostile one any number.
const MAX_OF_PROCESS: usize = 5_000;

/// Ids of rows that are stored once. Valid only for what has been committed: forgotten when a transaction fails or rows
/// that nothing speaks of any more are removed.
#[derive(Debug, Default)]
pub struct Ids {
    run: Option<i64>,
    stacks: HashMap<Vec<Frame>, i64>,
}

impl Ids {
    /// Forgets stacks, which may have been removed.
    pub fn forget_stacks(&mut self) {
        self.stacks.clear();
    }
}

/// What is kept at hand of one watch.
#[derive(Debug)]
pub struct WatchIds {
    watch: i64,
    process: i64,
    sites: HashMap<CreationSite, i64>,
    groups: HashMap<RecordedGroup, i64>,
    /// The last verdict of each group: its row, and what it says.
    verdicts: HashMap<i64, (i64, Verdict)>,
    incidents: OpenIncidents,
}

/// Stacks kept at hand; beyond it they are looked up again.
const MAX_STACKS: usize = 20_000;

/// SQLite's integers are signed; no count or time here comes near their end.
pub fn int(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Begins the watch of a process, which may be known from an earlier one.
pub fn begin(db: &Transaction<'_>, ids: &mut Ids, run: &Run, process: &ProcessIdentity) -> rusqlite::Result<WatchIds> {
    let run_id = match ids.run {
        Some(id) => id,
        None => insert_run(db, run)?,
    };
    ids.run = Some(run_id);
    let boot: i64 = db.query_row("SELECT boot FROM run WHERE id = ?1", [run_id], |row| row.get(0))?;
    let process_id = process_id(db, boot, process)?;
    db.execute("INSERT INTO watch (run, process) VALUES (?1, ?2)", [run_id, process_id])?;
    let watch = db.last_insert_rowid();
    let mut known = WatchIds {
        watch,
        process: process_id,
        sites: HashMap::new(),
        groups: HashMap::new(),
        verdicts: HashMap::new(),
        incidents: OpenIncidents::of(db, process_id)?,
    };
    let mut last = db.prepare_cached(
        "SELECT goroutine_group, verdict.id, verdict FROM verdict \
         JOIN goroutine_group ON goroutine_group.id = goroutine_group \
         WHERE process = ?1 ORDER BY verdict.id",
    )?;
    let mut rows = last.query([process_id])?;
    while let Some(row) = rows.next()? {
        if let Ok(verdict) = row.get::<_, String>(2)?.parse() {
            known.verdicts.insert(row.get(0)?, (row.get(1)?, verdict));
        }
    }
    drop(rows);
    Ok(known)
}

fn insert_run(db: &Connection, run: &Run) -> rusqlite::Result<i64> {
    db.execute("INSERT OR IGNORE INTO boot (boot_id, host) VALUES (?1, ?2)", params![run.boot_id, run.host])?;
    db.execute(
        "INSERT INTO run (boot, version, started_mono_ns, started_unix_ns, interval_ns, threshold_ns) \
         SELECT id, ?2, ?3, ?4, ?5, ?6 FROM boot WHERE boot_id = ?1",
        params![
            run.boot_id,
            env!("CARGO_PKG_VERSION"),
            int(run.started.mono_ns),
            int(run.started.unix_ns),
            int(run.interval_ns),
            int(run.threshold_ns),
        ],
    )?;
    Ok(db.last_insert_rowid())
}

fn process_id(db: &Connection, boot: i64, process: &ProcessIdentity) -> rusqlite::Result<i64> {
    let key = params![boot, process.pid, int(process.start_ticks), process.exe];
    let select = "SELECT id FROM process WHERE boot = ?1 AND pid = ?2 AND start_ticks = ?3 AND exe = ?4";
    if let Some(id) = db.query_row(select, key, |row| row.get(0)).optional()? {
        return Ok(id);
    }
    db.execute(
        "INSERT INTO process (boot, pid, start_ticks, exe, go_version, arch, started_mono_ns, started_unix_ns, \
         container, pod_uid, pod_name, pod_namespace, unit, memory_limit_bytes) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)",
        params![
            boot,
            process.pid,
            int(process.start_ticks),
            process.exe,
            process.go_version,
            process.arch,
            process.started.map(|at| int(at.mono_ns)),
            process.started.map(|at| int(at.unix_ns)),
            process.container,
            process.pod_uid,
            process.pod_name,
            process.pod_namespace,
            process.unit,
            process.memory_limit_bytes.map(int),
        ],
    )?;
    Ok(db.last_insert_rowid())
}

/// When the process was last looked at, by whatever run.
pub fn last_look(db: &Connection, known: &WatchIds) -> rusqlite::Result<Option<Moment>> {
    db.query_row(
        "SELECT mono_ns, unix_ns FROM watch JOIN sample ON sample.id = last_sample WHERE process = ?1 \
         ORDER BY last_sample DESC LIMIT 1",
        [known.process],
        |row| Ok(Moment { mono_ns: row.get(0)?, unix_ns: row.get(1)? }),
    )
    .optional()
}

/// Adds one look.
pub fn interval(
    db: &Transaction<'_>,
    ids: &mut Ids,
    known: &mut WatchIds,
    interval: &Interval,
) -> rusqlite::Result<()> {
    let (mut sites, mut listed) = (Vec::new(), Vec::new());
    let mut unlisted = interval.unlisted;
    for count in &interval.sites {
        match site_id(db, known, &count.site)? {
            Some(id) => sites.push((id, count)),
            None => unlisted += 1,
        }
    }
    for count in &interval.groups {
        match group_id(db, ids, known, &count.group)? {
            Some(id) => listed.push((id, count)),
            None => unlisted += 1,
        }
    }
    let runtime = |number: fn(&RuntimeSample) -> Option<u64>| interval.runtime.as_ref().and_then(number).map(int);
    db.prepare_cached(
        "INSERT INTO sample (watch, mono_ns, unix_ns, live, system, parked, events_lost, unlisted, rss_bytes, cpu_ns, \
         heap_live_bytes, heap_goal_bytes, go_memory_limit_bytes, collections, gc_cpu_ns, available_cpu_ns, gc_pause_ns, \
         longest_pause_ns, runnable, latency_p99_ns, threads) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21)",
    )?
    .execute(params![
        known.watch,
        int(interval.at.mono_ns),
        int(interval.at.unix_ns),
        int(interval.live),
        int(interval.system),
        int(interval.parked),
        int(interval.events_lost),
        int(unlisted),
        interval.usage.map(|usage| int(usage.rss_bytes)),
        interval.usage.map(|usage| int(usage.cpu_ns)),
        runtime(|runtime| Some(runtime.heap_live_bytes)),
        runtime(|runtime| runtime.heap_goal_bytes),
        runtime(|runtime| runtime.memory_limit_bytes),
        runtime(|runtime| Some(runtime.collections)),
        runtime(|runtime| Some(runtime.gc_cpu_ns)),
        runtime(|runtime| Some(runtime.available_cpu_ns)),
        runtime(|runtime| Some(runtime.gc_pause_ns)),
        runtime(|runtime| runtime.longest_pause_ns),
        runtime(|runtime| Some(runtime.runnable)),
        runtime(|runtime| runtime.latency_p99_ns),
        runtime(|runtime| Some(runtime.threads)),
    ])?;
    let sample = db.last_insert_rowid();
    db.prepare_cached("UPDATE watch SET last_sample = ?2, ended = NULL WHERE id = ?1")?
        .execute([known.watch, sample])?;
    let mut insert = db.prepare_cached("INSERT INTO site_sample VALUES (?1, ?2, ?3, ?4, ?5)")?;
    for (site, count) in sites {
        insert.execute([sample, site, int(count.live), int(count.created), int(count.exited)])?;
    }
    let mut insert = db.prepare_cached("INSERT INTO group_sample VALUES (?1, ?2, ?3, ?4, ?5)")?;
    for (id, count) in listed {
        let verdict = count.judgement.as_ref().map(|judgement| judgement.verdict.to_string());
        insert.execute(params![sample, id, int(count.waiting), int(count.parked), verdict])?;
        judge(db, known, id, count, interval.at)?;
        examples(db, id, count, interval.at)?;
    }
    let mut told = Vec::new();
    for incident in &interval.incidents {
        let mut groups = Vec::new();
        for group in &incident.groups {
            groups.extend(group_id(db, ids, known, group)?);
        }
        told.push((incident, groups));
    }
    known.incidents.take(db, known.process, &told, interval.at)
}

/// Notes a change of verdict, or what the same verdict now rests on.
fn judge(db: &Connection, known: &mut WatchIds, group: i64, count: &GroupCount, at: Moment) -> rusqlite::Result<()> {
    let Some(judgement) = &count.judgement else { return Ok(()) };
    let evidence = json(&judgement.evidence);
    match known.verdicts.get(&group) {
        Some((row, verdict)) if *verdict == judgement.verdict => {
            // What rests unchanged needs no write, and idle groups are not asked for their evidence.
            if judgement.verdict > Verdict::Idle {
                db.prepare_cached(
                    "UPDATE verdict SET latest_evidence = ?2, cause = ?3, remedy = ?4 \
                     WHERE id = ?1 AND (latest_evidence, ifnull(cause, ''), ifnull(remedy, '')) \
                     IS NOT (?2, ifnull(?3, ''), ifnull(?4, ''))",
                )?
                .execute(params![row, evidence, judgement.cause, judgement.remedy])?;
            }
        }
        _ => {
            db.prepare_cached(
                "INSERT INTO verdict (goroutine_group, mono_ns, unix_ns, verdict, evidence, latest_evidence, cause, \
                 remedy) VALUES (?1, ?2, ?3, ?4, ?5, ?5, ?6, ?7)",
            )?
            .execute(params![
                group,
                int(at.mono_ns),
                int(at.unix_ns),
                judgement.verdict.to_string(),
                evidence,
                judgement.cause,
                judgement.remedy,
            ])?;
            known.verdicts.insert(group, (db.last_insert_rowid(), judgement.verdict));
        }
    }
    Ok(())
}

/// Goroutines recorded of one group over its whole life.
const MAX_EXAMPLES_OF_GROUP: usize = 100;

fn examples(db: &Connection, group: i64, count: &GroupCount, at: Moment) -> rusqlite::Result<()> {
    let mut update =
        db.prepare_cached("UPDATE goroutine SET seen_mono_ns = ?3 WHERE goroutine_group = ?1 AND goid = ?2")?;
    let mut insert = db.prepare_cached(
        "INSERT INTO goroutine SELECT ?1, ?2, ?4, ?5, ?6, ?3 \
         WHERE (SELECT count(*) FROM goroutine WHERE goroutine_group = ?1) < ?7",
    )?;
    for example in &count.examples {
        let (goid, seen) = (int(example.goid), int(at.mono_ns));
        if update.execute([group, goid, seen])? == 0 {
            insert.execute(params![
                group,
                goid,
                seen,
                example.created_ns.map(int),
                int(example.parked_ns),
                example.exact,
                MAX_EXAMPLES_OF_GROUP,
            ])?;
        }
    }
    Ok(())
}

/// Adds a gap, or says that it goes on.
pub fn gap(db: &Connection, known: &WatchIds, gap: &Gap) -> rusqlite::Result<()> {
    db.prepare_cached(
        "INSERT INTO gap (process, from_mono_ns, from_unix_ns, to_mono_ns, to_unix_ns, cause, detail) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT DO UPDATE SET to_mono_ns = excluded.to_mono_ns, \
         to_unix_ns = excluded.to_unix_ns, detail = excluded.detail",
    )?
    .execute(params![
        known.process,
        int(gap.from.mono_ns),
        int(gap.from.unix_ns),
        int(gap.to.mono_ns),
        int(gap.to.unix_ns),
        gap.cause.to_string(),
        gap.detail,
    ])?;
    Ok(())
}

/// Notes how a watch ended.
pub fn end(db: &Connection, known: &WatchIds, how: WatchEnd) -> rusqlite::Result<()> {
    db.execute("UPDATE watch SET ended = ?2 WHERE id = ?1", params![known.watch, how.to_string()])?;
    Ok(())
}

/// Notes how a process ended.
pub fn exit(db: &Connection, known: &WatchIds, exit: &Exit) -> rusqlite::Result<()> {
    let (kind, code, signal) = match exit.kind {
        ExitKind::Exited(code) => ("exited", Some(code), None),
        ExitKind::Signaled(signal) => ("signaled", None, Some(signal)),
        ExitKind::OomKilled => ("oom_killed", None, None),
        ExitKind::PerhapsOomKilled => ("perhaps_oom_killed", None, None),
        ExitKind::Replaced => ("replaced", None, None),
        ExitKind::Unknown => ("unknown", None, None),
    };
    db.execute(
        "UPDATE process SET exited_mono_ns = ?2, exited_unix_ns = ?3, exit_kind = ?4, exit_code = ?5, \
         exit_signal = ?6, exit_evidence = ?7 WHERE id = ?1",
        params![known.process, int(exit.at.mono_ns), int(exit.at.unix_ns), kind, code, signal, exit.evidence],
    )?;
    Ok(())
}

/// None when the process has too many sites already.
fn site_id(db: &Connection, known: &mut WatchIds, site: &CreationSite) -> rusqlite::Result<Option<i64>> {
    if let Some(id) = known.sites.get(site) {
        return Ok(Some(*id));
    }
    let place = site.created_by.as_ref();
    let (function, file) = (place.map(|place| &place.function), place.map(|place| &place.file));
    let line = place.map(|place| place.line);
    db.prepare_cached(
        "INSERT OR IGNORE INTO site (process, start_function, function, file, line) SELECT ?1, ?2, ?3, ?4, ?5 \
         WHERE (SELECT count(*) FROM site WHERE process = ?1) < ?6",
    )?
    .execute(params![known.process, site.start_function, function, file, line, MAX_OF_PROCESS])?;
    let id = db
        .prepare_cached(
            "SELECT id FROM site WHERE process = ?1 AND start_function = ?2 AND ifnull(function, '') = ifnull(?3, '') \
             AND ifnull(file, '') = ifnull(?4, '') AND ifnull(line, 0) = ifnull(?5, 0)",
        )?
        .query_row(params![known.process, site.start_function, function, file, line], |row| row.get(0))
        .optional()?;
    if let Some(id) = id {
        known.sites.insert(site.clone(), id);
    }
    Ok(id)
}

fn stack_id(db: &Connection, ids: &mut Ids, stack: &[Frame]) -> rusqlite::Result<i64> {
    if let Some(id) = ids.stacks.get(stack) {
        return Ok(*id);
    }
    let frames = json(&stack);
    db.prepare_cached("INSERT OR IGNORE INTO stack (frames) VALUES (?1)")?.execute([&frames])?;
    let id = db.prepare_cached("SELECT id FROM stack WHERE frames = ?1")?.query_row([&frames], |row| row.get(0))?;
    if ids.stacks.len() >= MAX_STACKS {
        ids.stacks.clear();
    }
    ids.stacks.insert(stack.to_vec(), id);
    Ok(id)
}

/// None when the process has too many groups already.
fn group_id(
    db: &Connection,
    ids: &mut Ids,
    known: &mut WatchIds,
    group: &RecordedGroup,
) -> rusqlite::Result<Option<i64>> {
    if let Some(id) = known.groups.get(group) {
        return Ok(Some(*id));
    }
    let Some(site) = site_id(db, known, &group.site)? else { return Ok(None) };
    let stack = stack_id(db, ids, &group.stack)?;
    let key = params![known.process, site, stack, group.wait_reason];
    db.prepare_cached(
        "INSERT OR IGNORE INTO goroutine_group (process, site, stack, wait_reason) SELECT ?1, ?2, ?3, ?4 \
         WHERE (SELECT count(*) FROM goroutine_group WHERE process = ?1) < ?5",
    )?
    .execute(params![known.process, site, stack, group.wait_reason, MAX_OF_PROCESS])?;
    let id = db
        .prepare_cached(
            "SELECT id FROM goroutine_group WHERE process = ?1 AND site = ?2 AND stack = ?3 AND wait_reason = ?4",
        )?
        .query_row(key, |row| row.get(0))
        .optional()?;
    if let Some(id) = id {
        known.groups.insert(group.clone(), id);
    }
    Ok(id)
}

/// Values that have only strings and numbers always have a JSON form.
pub fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}
