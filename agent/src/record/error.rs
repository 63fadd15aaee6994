//! Why a recording cannot be used.

use std::path::PathBuf;

/// See the module. A full disk and a damaged file are no errors of a recorder: it deals with them.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// Written by a newer parkwarden.
    #[error(
        "{path} was written by a newer parkwarden (format {found}, this one knows up to {known}): use that version, or \
         record to another file"
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: i64,
        /// Ours.
        known: i64,
    },
    /// An SQLite database of something else, or another kind of file of ours.
    #[error("{path} is not a recording but {what}: name another file")]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// Somebody records to it already.
    #[error("another parkwarden records to {path}: stop it, or name another file")]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// It cannot be opened, created or locked.
    #[error("cannot open the recording {path}")]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Its content is damaged, or cannot be read.
    #[error("cannot read the recording {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: rusqlite::Error,
    },
}
