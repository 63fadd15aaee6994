//! Two snapshots compared: what grew, and what went away.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{SCHEMA, Snapshot};
use crate::words::Place;
use crate::words::numbers::signed_rate;
use crate::words::{blocker, creator};

/// Changes shown as text; the others are counted in one line.
const MAX_SHOWN: usize = 40;

/// Why an earlier snapshot cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DiffError {
    /// The file cannot be read.
    #[error("cannot read the earlier snapshot {path}")]
    Read {
        /// Which.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It is something else.
    #[error("{path} is not a snapshot of schema {SCHEMA}; write one with `parkwarden snapshot --format json -o FILE`")]
    NotASnapshot {
        /// Which.
        path: String,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// It was written by another version.
    #[error("{path} is a snapshot of schema {found}; this parkwarden compares those of schema {SCHEMA}")]
    Schema {
        /// Which.
        path: String,
        /// As it says.
        found: u32,
    },
}

/// Reads a snapshot written with `--format json`.
pub fn read(path: &Path) -> Result<Snapshot, DiffError> {
    let name = || path.display().to_string();
    let bytes = std::fs::read(path).map_err(|source| DiffError::Read { path: name(), source })?;
    let snapshot: Snapshot =
        serde_json::from_slice(&bytes).map_err(|source| DiffError::NotASnapshot { path: name(), source })?;
    if snapshot.schema != SCHEMA {
        return Err(DiffError::Schema { path: name(), found: snapshot.schema });
    }
    Ok(snapshot)
}

/// What changed between two snapshots.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Diff {
    /// Of this document.
    pub schema: u32,
    /// When the earlier one was taken, seconds since the Unix epoch.
    pub before_unix: f64,
    /// When the later one was taken.
    pub after_unix: f64,
    /// The program's goroutines in the earlier one.
    pub before: u64,
    /// The program's goroutines in the later one.
    pub after: u64,
    /// Creation sites whose count changed; most growth first.
    pub changes: Vec<Change>,
}

/// What changed at one creation site and blocking place.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Change {
    /// The `go` statement.
    pub created_by: Option<Place>,
    /// Where its goroutines block.
    pub blocked_at: Option<Place>,
    /// Goroutines then.
    pub before: u64,
    /// Goroutines now.
    pub after: u64,
    /// The difference.
    pub change: i64,
    /// The difference over the time between the two.
    pub per_second: f64,
}

/// Compares two snapshots. They need not be of the same process: a restarted one has the same places in its code.
pub fn diff(before: &Snapshot, after: &Snapshot) -> Diff {
    let seconds = after.taken_unix - before.taken_unix;
    let mut places: BTreeMap<_, (u64, u64, Option<Place>, Option<Place>)> = BTreeMap::new();
    for (snapshot, later) in [(before, false), (after, true)] {
        for group in &snapshot.groups {
            let key =
                (group.created_by.as_ref().map(Place::to_string), group.blocked_at.as_ref().map(Place::to_string));
            let entry = places.entry(key).or_insert_with(|| (0, 0, group.created_by.clone(), group.blocked_at.clone()));
            *(if later { &mut entry.1 } else { &mut entry.0 }) += group.count;
        }
    }
    let mut changes: Vec<Change> = places
        .into_values()
        .filter(|(before, after, ..)| before != after)
        .map(|(before, after, created_by, blocked_at)| {
            let change = after.cast_signed().saturating_sub(before.cast_signed());
            let per_second = if seconds > 0.0 { change as f64 / seconds } else { 0.0 };
            Change { created_by, blocked_at, before, after, change, per_second }
        })
        .collect();
    changes.sort_by_key(|change| std::cmp::Reverse(change.change));
    let own = |snapshot: &Snapshot| snapshot.goroutines.live.saturating_sub(snapshot.goroutines.system);
    Diff {
        schema: SCHEMA,
        before_unix: before.taken_unix,
        after_unix: after.taken_unix,
        before: own(before),
        after: own(after),
        changes,
    }
}

/// The comparison for a person.
pub fn render(diff: &Diff) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = write(&mut out, diff);
    out
}

fn write(out: &mut String, diff: &Diff) -> std::fmt::Result {
    let seconds = diff.after_unix - diff.before_unix;
    writeln!(out, "goroutines: {} before, {} now, {seconds:.1} s later", diff.before, diff.after)?;
    if diff.changes.is_empty() {
        return writeln!(out, "No creation site has more or fewer goroutines than before.");
    }
    for change in diff.changes.iter().take(MAX_SHOWN) {
        writeln!(
            out,
            "\n{:+} ({} before, {} now, {})",
            change.change,
            change.before,
            change.after,
            signed_rate(change.per_second)
        )?;
        writeln!(out, "  created by  {}", creator(change.created_by.as_ref()))?;
        if change.blocked_at.is_some() {
            writeln!(out, "  blocked at  {}", blocker(change.blocked_at.as_ref()))?;
        }
    }
    if diff.changes.len() > MAX_SHOWN {
        writeln!(out, "\n… and {} more changes (all of them: --format json).", diff.changes.len() - MAX_SHOWN)?;
    }
    Ok(())
}
