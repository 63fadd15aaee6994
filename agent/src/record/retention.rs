//! Keeping a recording bounded: by age, by size, and with fewer intervals the older they are.
//!
//! Thinning removes whole samples: those that stay are as they were, so that nothing in an old part of a timeline is an
//! average. Samples have ascending ids, and so all of this goes through them from the oldest, some at a time.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OptionalExtension as _, Transaction};

use super::interval::Moment;
use super::store::int;
use crate::config::{RecordConfig, nanoseconds};

/// Time between two steps.
const EVERY_NS: u64 = 10_000_000_000;

/// Samples judged or removed in one step; a step takes some milliseconds.
const STEP: usize = 1_000;

/// The part of the size limit at which the oldest samples begin to go: the rest is for the write-ahead log and for what
/// is recorded until then.
const FULL: f64 = 0.9;

/// See the module.
#[derive(Debug)]
pub struct Retention {
    config: RecordConfig,
    path: PathBuf,
    stepped: Option<u64>,
    /// For each thinning, the last bucket of each watch of which a sample stays.
    kept: Vec<HashMap<i64, u64>>,
}

/// A sample as retention sees it.
struct Old {
    id: i64,
    watch: i64,
    mono_ns: u64,
    age_ns: u64,
    is_last: bool,
}

impl Retention {
    /// For a database at `path`.
    pub fn new(db: &Connection, path: &Path, config: &RecordConfig) -> rusqlite::Result<Self> {
        let page: u64 = db.pragma_query_value(None, "page_size", |row| row.get(0))?;
        // Should retention ever fall behind, the file stops growing all the same.
        let pages = (config.max_bytes / page.max(1)).max(64);
        db.pragma_update_and_check(None, "max_page_count", int(pages), |_| Ok(()))?;
        let kept = config.thin.iter().map(|_| HashMap::new()).collect();
        Ok(Self { config: config.clone(), path: path.to_owned(), stepped: None, kept })
    }

    /// Does some of what there is to do; called after each interval. `now` is of the boot named. Returns whether rows
    /// that are stored once went too.
    pub fn step(&mut self, db: &mut Connection, boot_id: &str, now: Moment) -> rusqlite::Result<bool> {
        if self.stepped.is_some_and(|last| now.mono_ns.saturating_sub(last) < EVERY_NS) {
            return Ok(false);
        }
        self.stepped = Some(now.mono_ns);
        let transaction = db.transaction()?;
        let mut removed = 0;
        for tier in 0..self.config.thin.len() {
            removed += self.thin(&transaction, tier, boot_id, now)?;
        }
        let max_age = nanoseconds(self.config.max_age);
        let oldest = samples(&transaction, 0, boot_id, now)?;
        let aged: Vec<i64> = oldest.iter().take_while(|old| old.age_ns > max_age).map(|old| old.id).collect();
        if let Some(last) = aged.last() {
            removed += remove_through(&transaction, *last)?;
        }
        let full = (self.config.max_bytes as f64 * FULL) as u64;
        for some in oldest.get(aged.len()..).unwrap_or_default().chunks(STEP / 50) {
            if size(&transaction, &self.path)? <= full {
                break;
            }
            if let Some(last) = some.last() {
                removed += remove_through(&transaction, last.id)?;
            }
        }
        let orphans = removed > 0 && remove_orphans(&transaction)?;
        transaction.commit()?;
        if removed > 0 {
            // Gives free pages back, as many as a step may cost.
            db.prepare("PRAGMA incremental_vacuum(1000)")?.query_map([], |_| Ok(()))?.for_each(drop);
        }
        Ok(orphans)
    }

    /// Leaves one sample of each watch in each bucket of time.
    fn thin(&mut self, db: &Transaction<'_>, tier: usize, boot_id: &str, now: Moment) -> rusqlite::Result<usize> {
        let (Some(thin), Some(kept)) = (self.config.thin.get(tier), self.kept.get_mut(tier)) else { return Ok(0) };
        let (age, bucket) = (nanoseconds(thin.after), nanoseconds(thin.keep_one_per).max(1));
        let from: i64 = db
            .query_row("SELECT sample FROM thinned WHERE age_ns = ?1", [int(age)], |row| row.get(0))
            .optional()?
            .unwrap_or(0);
        let mut removed = 0;
        let mut judged = from;
        for old in samples(db, from, boot_id, now)?.iter().take_while(|old| old.age_ns > age) {
            judged = old.id;
            if kept.insert(old.watch, old.mono_ns / bucket) == Some(old.mono_ns / bucket) && !old.is_last {
                remove_sample(db, old.id)?;
                removed += 1;
            }
        }
        if judged > from {
            db.execute("INSERT OR REPLACE INTO thinned VALUES (?1, ?2)", [int(age), judged])?;
            if kept.len() > 10_000 {
                // Watches that ended long ago; a bucket more may stay of the others.
                kept.clear();
            }
        }
        Ok(removed)
    }
}

/// The oldest samples after `from`.
///
/// The age of those of this boot is by the clock that never steps. Of an earlier boot there is only the wall clock.
fn samples(db: &Connection, from: i64, boot_id: &str, now: Moment) -> rusqlite::Result<Vec<Old>> {
    let mut select = db.prepare_cached(
        "SELECT sample.id, sample.watch, sample.mono_ns, sample.unix_ns, boot.boot_id = ?2, \
         sample.id = watch.last_sample \
         FROM sample JOIN watch ON watch.id = sample.watch JOIN run ON run.id = watch.run \
         JOIN boot ON boot.id = run.boot WHERE sample.id > ?1 ORDER BY sample.id LIMIT ?3",
    )?;
    let old = |row: &rusqlite::Row<'_>| {
        let (mono_ns, unix_ns): (u64, u64) = (row.get(2)?, row.get(3)?);
        let age_ns =
            if row.get(4)? { now.mono_ns.saturating_sub(mono_ns) } else { now.unix_ns.saturating_sub(unix_ns) };
        let is_last = row.get::<_, Option<bool>>(5)?.unwrap_or(false);
        Ok(Old { id: row.get(0)?, watch: row.get(1)?, mono_ns, age_ns, is_last })
    };
    select.query_map(rusqlite::params![from, boot_id, STEP as i64], old)?.collect()
}

/// Bytes on disk.
fn size(db: &Connection, path: &Path) -> rusqlite::Result<u64> {
    let pages: u64 = db.pragma_query_value(None, "page_count", |row| row.get(0))?;
    let free: u64 = db.pragma_query_value(None, "freelist_count", |row| row.get(0))?;
    let page: u64 = db.pragma_query_value(None, "page_size", |row| row.get(0))?;
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    let log = std::fs::metadata(log).map_or(0, |metadata| metadata.len());
    Ok(pages.saturating_sub(free).saturating_mul(page).saturating_add(log))
}

fn remove_sample(db: &Connection, id: i64) -> rusqlite::Result<()> {
    for delete in [
        "DELETE FROM group_sample WHERE sample = ?1",
        "DELETE FROM site_sample WHERE sample = ?1",
        "DELETE FROM sample WHERE id = ?1",
    ] {
        db.prepare_cached(delete)?.execute([id])?;
    }
    Ok(())
}

/// Removes all samples up to one.
fn remove_through(db: &Connection, last: i64) -> rusqlite::Result<usize> {
    db.execute("DELETE FROM group_sample WHERE sample <= ?1", [last])?;
    db.execute("DELETE FROM site_sample WHERE sample <= ?1", [last])?;
    db.execute("DELETE FROM sample WHERE id <= ?1", [last])
}

/// Removes what no sample speaks of any more: watches that have ended, processes, groups and stacks. Returns whether a
/// process went.
fn remove_orphans(db: &Connection) -> rusqlite::Result<bool> {
    // A watch of the newest run may just have begun.
    db.execute_batch(
        "DELETE FROM watch WHERE (run < (SELECT max(id) FROM run) OR ended IS NOT NULL)
           AND NOT EXISTS (SELECT 1 FROM sample WHERE sample.watch = watch.id);
         DELETE FROM run WHERE id < (SELECT max(id) FROM run)
           AND NOT EXISTS (SELECT 1 FROM watch WHERE watch.run = run.id);
         CREATE TEMP TABLE IF NOT EXISTS gone (process INTEGER PRIMARY KEY);
         INSERT OR IGNORE INTO gone SELECT id FROM process
           WHERE NOT EXISTS (SELECT 1 FROM watch WHERE watch.process = process.id);",
    )?;
    let gone: i64 = db.query_row("SELECT count(*) FROM gone", [], |row| row.get(0))?;
    if gone > 0 {
        db.execute_batch(
            "DELETE FROM verdict WHERE goroutine_group IN
               (SELECT id FROM goroutine_group WHERE process IN (SELECT process FROM gone));
             DELETE FROM goroutine WHERE goroutine_group IN
               (SELECT id FROM goroutine_group WHERE process IN (SELECT process FROM gone));
             DELETE FROM goroutine_group WHERE process IN (SELECT process FROM gone);
             DELETE FROM site WHERE process IN (SELECT process FROM gone);
             DELETE FROM gap WHERE process IN (SELECT process FROM gone);
             DELETE FROM incident WHERE process IN (SELECT process FROM gone);
             DELETE FROM process WHERE id IN (SELECT process FROM gone);
             DELETE FROM stack WHERE id NOT IN (SELECT stack FROM goroutine_group);
             DELETE FROM gone;",
        )?;
    }
    Ok(gone > 0)
}
