//! The same watch again, from a capture file.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use crate::capture::{Error, Reader};
use crate::session::{Input, Session};

/// Why a capture cannot be replayed.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// There is no such file, or it cannot be read.
    #[error("cannot open the capture file {path}")]
    Open {
        /// Which.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It is not a whole capture.
    #[error("{path}: {source}")]
    Capture {
        /// Which.
        path: String,
        /// What is wrong, and where.
        source: Error,
    },
}

/// The session that was saved to `path`.
pub fn replay(path: &Path) -> Result<Session, ReplayError> {
    let name = || path.display().to_string();
    let file = File::open(path).map_err(|source| ReplayError::Open { path: name(), source })?;
    let wrong = |source| ReplayError::Capture { path: name(), source };
    session(Reader::new(BufReader::new(file)).map_err(wrong)?).map_err(wrong)
}

fn session<R: std::io::Read>(mut reader: Reader<R>) -> Result<Session, Error> {
    let Some(Input::Begin(header)) = reader.next_input()? else {
        // The reader refuses any other first input.
        return Err(Error::Magic);
    };
    let mut session = Session::new(header);
    while let Some(input) = reader.next_input()? {
        session.feed(&input);
    }
    Ok(session)
}
