//! Reading a capture file.

use std::io::{self, Read};

use super::{MAGIC, MAX_PAYLOAD, VERSION};
use crate::session::Input;

/// Why a file is not a capture, or not a whole one.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not written by parkwarden.
    #[error("not a parkwarden capture: the first 8 bytes (offset 0) are not its magic")]
    Magic,
    /// Written by another version of parkwarden.
    #[error(
        "capture format version {found} (at offset 8), this parkwarden reads version {VERSION}: \
         use the parkwarden that wrote it"
    )]
    Version {
        /// As the file says.
        found: u32,
    },
    /// The file ends inside a frame or before the end frame.
    #[error("the capture is truncated: it ends at offset {offset} inside {inside}")]
    Truncated {
        /// Where the file ends.
        offset: u64,
        /// What is cut.
        inside: &'static str,
    },
    /// A frame is damaged.
    #[error("the capture is corrupt: the frame at offset {offset} {what}")]
    Corrupt {
        /// Where the frame begins.
        offset: u64,
        /// What is wrong with it.
        what: String,
    },
    /// The file cannot be read.
    #[error("reading the capture failed at offset {offset}")]
    Io {
        /// Where.
        offset: u64,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Reads a session's inputs, frame by frame.
#[derive(Debug)]
pub struct Reader<R: Read> {
    from: R,
    offset: u64,
    frames: u64,
    ended: bool,
    payload: Vec<u8>,
}

impl<R: Read> Reader<R> {
    /// Begins to read a file.
    pub fn new(from: R) -> Result<Self, Error> {
        let mut reader = Self { from, offset: 0, frames: 0, ended: false, payload: Vec::new() };
        let mut magic = [0; MAGIC.len()];
        match reader.fill(&mut magic)? {
            Filled::All if magic == MAGIC => {}
            _ => return Err(Error::Magic),
        }
        let version = reader.word("the file's header")?;
        if version != VERSION {
            return Err(Error::Version { found: version });
        }
        Ok(reader)
    }

    /// The next input; `None` after the last, [`Input::End`].
    pub fn next_input(&mut self) -> Result<Option<Input>, Error> {
        let start = self.offset;
        let corrupt = |what: String| Error::Corrupt { offset: start, what };
        let mut length = [0; 4];
        match self.fill(&mut length)? {
            Filled::Nothing if self.ended => return Ok(None),
            Filled::Nothing => {
                return Err(Error::Truncated { offset: self.offset, inside: "the session: its end is missing" });
            }
            Filled::Part => {
                return Err(Error::Truncated { offset: self.offset, inside: "a frame's header" });
            }
            Filled::All if self.ended => return Err(corrupt("comes after the end of the session".to_owned())),
            Filled::All => {}
        }
        let length = u32::from_le_bytes(length);
        if length > MAX_PAYLOAD {
            return Err(corrupt(format!("says it is {length} bytes long, more than any frame can be")));
        }
        let checksum = self.word("a frame's header")?;
        self.payload.clear();
        // Grows with the bytes that are there, whatever the length says.
        let read = (&mut self.from)
            .take(u64::from(length))
            .read_to_end(&mut self.payload)
            .map_err(|source| Error::Io { offset: self.offset, source })?;
        self.offset += read as u64;
        if read < length as usize {
            return Err(Error::Truncated { offset: self.offset, inside: "a frame" });
        }
        // A fuzzer does not find checksums; what they protect is what it is to try.
        if !cfg!(fuzzing) && crc32fast::hash(&self.payload) != checksum {
            return Err(corrupt("does not match its checksum".to_owned()));
        }
        let input: Input = match postcard::take_from_bytes(&self.payload) {
            Ok((input, [])) => input,
            Ok((_, rest)) => return Err(corrupt(format!("has {} bytes too many", rest.len()))),
            Err(error) => return Err(corrupt(format!("cannot be decoded: {error}"))),
        };
        if matches!(input, Input::Begin(_)) != (self.frames == 0) {
            return Err(corrupt("is not in its place: a session begins once, with its header".to_owned()));
        }
        self.frames += 1;
        self.ended = matches!(input, Input::End(_));
        Ok(Some(input))
    }

    fn word(&mut self, inside: &'static str) -> Result<u32, Error> {
        let mut word = [0; 4];
        match self.fill(&mut word)? {
            Filled::All => Ok(u32::from_le_bytes(word)),
            _ => Err(Error::Truncated { offset: self.offset, inside }),
        }
    }

    fn fill(&mut self, buf: &mut [u8]) -> Result<Filled, Error> {
        let mut filled = 0;
        while filled < buf.len() {
            match self.from.read(&mut buf[filled..]) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(Error::Io { offset: self.offset + filled as u64, source }),
            }
        }
        self.offset += filled as u64;
        Ok(match filled {
            0 => Filled::Nothing,
            n if n == buf.len() => Filled::All,
            _ => Filled::Part,
        })
    }
}

enum Filled {
    Nothing,
    Part,
    All,
}
