//! Where a live watch puts what it sees: into its session, and into a capture file if it is being saved.

use std::fs::File;
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};

use crate::capture::Writer;
use crate::files;
use crate::session::{Header, Input, Session};

/// See the module.
#[derive(Debug)]
pub struct Sink {
    session: Session,
    save: Option<Save>,
}

#[derive(Debug)]
struct Save {
    path: PathBuf,
    writer: Writer<BufWriter<File>>,
}

/// A capture file that could not be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write the capture file {path}")]
pub struct SaveError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

impl Sink {
    /// A sink for a session that begins, saved to `path` if one is given.
    pub fn new(header: Header, path: Option<&Path>) -> Result<Self, SaveError> {
        let save = path
            .map(|path| {
                let failed = |source| SaveError { path: path.to_owned(), source };
                let file = files::create(path).map_err(failed)?;
                let mut writer = Writer::new(BufWriter::new(file)).map_err(failed)?;
                writer.write(&Input::Begin(header.clone())).map_err(failed)?;
                Ok(Save { path: path.to_owned(), writer })
            })
            .transpose()?;
        Ok(Self { session: Session::new(header), save })
    }

    /// Takes the next input.
    pub fn feed(&mut self, input: &Input) -> Result<(), SaveError> {
        self.session.feed(input);
        let Some(save) = &mut self.save else { return Ok(()) };
        let written = save.writer.write(input).and_then(|()| match input {
            // A watch that is killed leaves at least everything up to its last census.
            Input::Census(_) | Input::End(_) => save.writer.flush(),
            _ => Ok(()),
        });
        written.map_err(|source| SaveError { path: save.path.clone(), source })
    }

    /// The session so far.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// The session, when there is no more to come.
    pub fn into_session(self) -> Session {
        self.session
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::tests::header;

    #[test]
    fn a_capture_is_for_its_owner() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("capture");
        Sink::new(header(), Some(&path)).expect("a sink");
        assert_eq!(files::mode(&path), 0o600);
    }
}
