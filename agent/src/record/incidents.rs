//! Rows of incidents: each is one row from the look that first told of it to the last.

use rusqlite::{Connection, params};

use super::interval::{IncidentCount, Moment};
use super::store::{int, json};

/// Incidents kept of one process, the newest.
const MAX_OF_PROCESS: i64 = 1_000;

/// One that had not ended at the last look.
#[derive(Clone, Debug)]
struct Open {
    row: i64,
    roots: Vec<u64>,
    groups: Vec<i64>,
    goroutines: u64,
}

impl Open {
    /// Whether it is the one that a look tells of: of the same roots, or of the same groups where nobody is known to be one.
    fn is(&self, roots: &[u64], groups: &[i64]) -> bool {
        match (self.roots.as_slice(), roots) {
            ([], []) => self.groups == groups,
            (known, told) => known.iter().any(|root| told.contains(root)),
        }
    }
}

/// Those of one process that had not ended at the last look.
#[derive(Debug, Default)]
pub struct OpenIncidents(Vec<Open>);

impl OpenIncidents {
    /// As an earlier watch of the process has left them.
    pub fn of(db: &Connection, process: i64) -> rusqlite::Result<Self> {
        let mut select = db.prepare_cached(
            "SELECT id, roots, chain, goroutines FROM incident WHERE process = ?1 AND ended_mono_ns IS NULL",
        )?;
        let open = |row: &rusqlite::Row<'_>| {
            // What is no list of numbers is nobody's.
            let (roots, groups): (String, String) = (row.get(1)?, row.get(2)?);
            let roots = serde_json::from_str(&roots).unwrap_or_default();
            let groups = serde_json::from_str(&groups).unwrap_or_default();
            Ok(Open { row: row.get(0)?, roots, groups, goroutines: row.get(3)? })
        };
        select.query_map([process], open)?.collect::<rusqlite::Result<_>>().map(Self)
    }

    /// Takes what one look tells, each with the ids of its groups: some begin, some go on, and of which nothing is told have ended.
    pub fn take(
        &mut self,
        db: &Connection,
        process: i64,
        told: &[(&IncidentCount, Vec<i64>)],
        at: Moment,
    ) -> rusqlite::Result<()> {
        let mut before = std::mem::take(&mut self.0);
        for (incident, groups) in told {
            let known = before.iter().position(|open| open.is(&incident.roots, groups));
            let open = match known.map(|index| before.swap_remove(index)) {
                Some(open) => go_on(db, open, incident, groups, at)?,
                None => begin(db, process, incident, groups, at)?,
            };
            self.0.push(open);
        }
        let mut end = db.prepare_cached("UPDATE incident SET ended_mono_ns = ?2, ended_unix_ns = ?3 WHERE id = ?1")?;
        before.iter().try_for_each(|open| end.execute([open.row, int(at.mono_ns), int(at.unix_ns)]).map(drop))
    }
}

fn begin(
    db: &Connection,
    process: i64,
    incident: &IncidentCount,
    groups: &[i64],
    at: Moment,
) -> rusqlite::Result<Open> {
    db.prepare_cached(
        "INSERT INTO incident (process, from_mono_ns, from_unix_ns, seen_mono_ns, seen_unix_ns, headline, goroutines, \
         cycle, roots, chain) VALUES (?1, ?2, ?3, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    )?
    .execute(params![
        process,
        int(at.mono_ns),
        int(at.unix_ns),
        incident.headline,
        int(incident.goroutines),
        incident.cycle,
        json(&incident.roots),
        json(&groups),
    ])?;
    let row = db.last_insert_rowid();
    db.prepare_cached(
        "DELETE FROM incident WHERE process = ?1 AND id <= \
         (SELECT id FROM incident WHERE process = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2)",
    )?
    .execute([process, MAX_OF_PROCESS])?;
    Ok(Open { row, roots: incident.roots.clone(), groups: groups.to_vec(), goroutines: incident.goroutines })
}

fn go_on(db: &Connection, open: Open, incident: &IncidentCount, groups: &[i64], at: Moment) -> rusqlite::Result<Open> {
    db.prepare_cached("UPDATE incident SET seen_mono_ns = ?2, seen_unix_ns = ?3, roots = ?4 WHERE id = ?1")?
        .execute(params![open.row, int(at.mono_ns), int(at.unix_ns), json(&incident.roots)])?;
    let roots = incident.roots.clone();
    if incident.goroutines < open.goroutines {
        return Ok(Open { roots, ..open });
    }
    db.prepare_cached("UPDATE incident SET headline = ?2, goroutines = ?3, cycle = ?4, chain = ?5 WHERE id = ?1")?
        .execute(params![open.row, incident.headline, int(incident.goroutines), incident.cycle, json(&groups)])?;
    Ok(Open { roots, groups: groups.to_vec(), goroutines: incident.goroutines, ..open })
}
