//! The file: opening it as a database of ours, its version, and how an older one becomes current.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension as _};

/// Version of the format this parkwarden writes.
pub const VERSION: i64 = MIGRATIONS.len() as i64;

/// Marks a database as a recording (`PRAGMA application_id`): "PKWD".
const APPLICATION_ID: i64 = 0x504b_5744;

/// What leads from each version to the next; the first makes an empty file version 1.
const MIGRATIONS: [&str; 3] = [include_str!("schema.sql"), include_str!("schema-2.sql"), include_str!("schema-3.sql")];

/// A file as version 1 had it, empty.
#[cfg(test)]
pub fn first_version(db: &mut Connection) -> Result<(), Unusable> {
    db.pragma_update(None, "application_id", APPLICATION_ID)?;
    migrate(db, &MIGRATIONS[..1])
}

/// How long to wait for somebody else's transaction, a reader's checkpoint for one.
const BUSY: Duration = Duration::from_secs(5);

/// Pages of the write-ahead log after which it is copied into the file: 1 MiB, so that the file alone is rarely far behind.
const CHECKPOINT_PAGES: u32 = 256;

/// What is wrong with a database that is none of ours, or none we can use.
#[derive(Debug)]
pub enum Unusable {
    /// Its version.
    Newer(i64),
    /// Another program's.
    Foreign,
    /// SQLite says no.
    Database(rusqlite::Error),
}

impl From<rusqlite::Error> for Unusable {
    fn from(error: rusqlite::Error) -> Self {
        Self::Database(error)
    }
}

/// Makes a connection ready to write, and the database current.
pub fn prepare(db: &mut Connection) -> Result<(), Unusable> {
    db.busy_timeout(BUSY)?;
    check(db, &MIGRATIONS)?;
    // Room that retention frees is given back; this must come before the first table.
    db.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    db.pragma_update(None, "journal_mode", "WAL")?;
    // With WAL, what a killed parkwarden had committed is kept, and a power failure loses the last moments but harms
    // nothing.
    db.pragma_update(None, "synchronous", "NORMAL")?;
    db.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
    db.pragma_update(None, "journal_size_limit", 4 << 20)?;
    db.pragma_update(None, "application_id", APPLICATION_ID)?;
    migrate(db, &MIGRATIONS)?;
    Ok(())
}

/// Whether a database is a recording of a version in `migrations`' reach; returns its version, 0 for an empty one.
pub fn check(db: &Connection, migrations: &[&str]) -> Result<i64, Unusable> {
    let version: i64 = db.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let application: i64 = db.pragma_query_value(None, "application_id", |row| row.get(0))?;
    let has_tables = db.query_row("SELECT 1 FROM sqlite_schema LIMIT 1", [], |_| Ok(())).optional()?.is_some();
    match application {
        APPLICATION_ID if version > migrations.len() as i64 => Err(Unusable::Newer(version)),
        APPLICATION_ID if version >= 0 => Ok(version),
        0 if !has_tables => Ok(0),
        _ => Err(Unusable::Foreign),
    }
}

/// As [`check`], for those who only read.
pub fn check_current(db: &Connection) -> Result<i64, Unusable> {
    check(db, &MIGRATIONS)
}

/// Brings a database to the version after the last of `migrations`, each step wholly or not at all.
fn migrate(db: &mut Connection, migrations: &[&str]) -> Result<(), Unusable> {
    let from = check(db, migrations)?;
    for (version, step) in migrations.iter().enumerate().skip(usize::try_from(from).unwrap_or_default()) {
        let transaction = db.transaction()?;
        transaction.execute_batch(step)?;
        transaction.pragma_update(None, "user_version", version as i64 + 1)?;
        transaction.commit()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(db: &Connection) -> i64 {
        db.pragma_query_value(None, "user_version", |row| row.get(0)).expect("a version")
    }

    #[test]
    fn an_empty_file_becomes_current() {
        let mut db = Connection::open_in_memory().expect("memory");
        prepare(&mut db).expect("usable");
        assert_eq!(version(&db), VERSION);
        prepare(&mut db).expect("again");
    }

    #[test]
    fn an_older_one_is_brought_up_step_by_step_and_keeps_its_content() {
        let mut db = Connection::open_in_memory().expect("memory");
        db.pragma_update(None, "application_id", APPLICATION_ID).expect("settable");
        let steps = ["CREATE TABLE a (x)", "ALTER TABLE a ADD y DEFAULT 7", "CREATE TABLE b (z)"];
        migrate(&mut db, &steps[..1]).expect("first");
        db.execute("INSERT INTO a VALUES (1)", []).expect("a row");
        migrate(&mut db, &steps).expect("the others");
        assert_eq!(version(&db), 3);
        let row: (i64, i64) =
            db.query_row("SELECT x, y FROM a", [], |row| Ok((row.get(0)?, row.get(1)?))).expect("the row");
        assert_eq!(row, (1, 7));
    }

    #[test]
    fn a_step_that_fails_changes_nothing() {
        let mut db = Connection::open_in_memory().expect("memory");
        db.pragma_update(None, "application_id", APPLICATION_ID).expect("settable");
        let steps = ["CREATE TABLE a (x)", "CREATE TABLE b (y); CREATE TABLE a (x)"];
        assert!(migrate(&mut db, &steps).is_err());
        assert_eq!(version(&db), 1);
        migrate(&mut db, &["CREATE TABLE a (x)", "CREATE TABLE b (y)"]).expect("b is not there yet");
    }

    #[test]
    fn newer_and_foreign_ones_are_refused() {
        let mut db = Connection::open_in_memory().expect("memory");
        prepare(&mut db).expect("usable");
        db.pragma_update(None, "user_version", VERSION + 1).expect("settable");
        assert!(matches!(prepare(&mut db), Err(Unusable::Newer(found)) if found == VERSION + 1));
        let mut db = Connection::open_in_memory().expect("memory");
        db.execute_batch("CREATE TABLE notes (text)").expect("a table");
        assert!(matches!(prepare(&mut db), Err(Unusable::Foreign)));
    }
}
