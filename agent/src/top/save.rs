//! `s`: a report as JSON, in a file of the current directory that was not there before.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use crate::clock::unix_now_ns;
use crate::files;
use crate::report::Report;
use crate::words::numbers::full;

/// Names that are tried.
const TRIES: u32 = 100;

/// Saves a report; the file's name. Its owner alone may read it: it has the program's words.
pub fn save(directory: &Path, report: &Report) -> io::Result<PathBuf> {
    let (name, mut file) = create(directory, report.target.pid, unix_now_ns() / 1_000_000)?;
    serde_json::to_writer_pretty(&mut file, report)?;
    writeln!(file)?;
    Ok(name)
}

fn create(directory: &Path, pid: u32, now_ms: u64) -> io::Result<(PathBuf, File)> {
    let at = full(now_ms).replace(' ', "T").replace(':', "");
    let mut tried = 0;
    loop {
        let number = if tried == 0 { String::new() } else { format!("-{tried}") };
        let name = PathBuf::from(format!("parkwarden-{pid}-{at}{number}.json"));
        match files::create_new(&directory.join(&name)) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && tried < TRIES => tried += 1,
            opened => return Ok((name, opened?)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    #[test]
    fn no_file_is_written_over_and_nobody_else_may_read_it() {
        let directory = tempfile::tempdir().expect("a directory");
        let name = |name: &str| directory.path().join(name);
        symlink(name("elsewhere"), name("parkwarden-7-2026-11-23T024107.json")).expect("a link");
        let create = || create(directory.path(), 7, 1_795_401_667_000).expect("a file");
        assert_eq!(create().0, PathBuf::from("parkwarden-7-2026-11-23T024107-1.json"));
        let (second, file) = create();
        assert_eq!(second, PathBuf::from("parkwarden-7-2026-11-23T024107-2.json"));
        assert_eq!(file.metadata().expect("there").permissions().mode() & 0o777, 0o600);
        assert!(!name("elsewhere").exists());
    }
}
