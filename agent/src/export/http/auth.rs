//! The bearer token: read from a file, and again when that changes.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};

use super::HttpError;

/// Shortest token that is taken: shorter ones are guessed.
pub const MIN_TOKEN: usize = 16;

/// How old what was read of the file may be.
const READ_EVERY: Duration = Duration::from_secs(2);

/// See the module.
#[derive(Debug)]
pub struct Token {
    path: PathBuf,
    known: Mutex<(Instant, Digested)>,
}

/// Tokens are compared by their digests, so that the time it takes tells nothing of them.
type Digested = [u8; 32];

impl Token {
    /// Reads the file.
    pub fn open(path: &Path) -> Result<Self, HttpError> {
        let digest = read(path)?;
        Ok(Self { path: path.to_owned(), known: Mutex::new((Instant::now(), digest)) })
    }

    /// Whether the value of an `Authorization` field has the token.
    pub fn admits(&self, authorization: Option<&[u8]>) -> bool {
        let Some((scheme, given)) = authorization.and_then(|value| value.split_at_checked(7)) else { return false };
        scheme.eq_ignore_ascii_case(b"bearer ") && digest(given.trim_ascii()) == self.digest()
    }

    fn digest(&self) -> Digested {
        let mut known = self.known.lock();
        if known.0.elapsed() >= READ_EVERY {
            match read(&self.path) {
                Ok(digest) => known.1 = digest,
                // In the middle of being replaced, for one.
                Err(error) => log::warn!("the token stays as it was: {}", crate::exit::chain(&error)),
            }
            known.0 = Instant::now();
        }
        known.1
    }
}

fn read(path: &Path) -> Result<Digested, HttpError> {
    let text = fs::read(path).map_err(|source| HttpError::Read {
        setting: "http.token_file",
        path: path.to_owned(),
        source,
    })?;
    let token = text.trim_ascii();
    if token.len() < MIN_TOKEN || !token.iter().all(u8::is_ascii_graphic) {
        return Err(HttpError::Token { path: path.to_owned() });
    }
    Ok(digest(token))
}

fn digest(token: &[u8]) -> Digested {
    Sha256::digest(token).into()
}
