//! The framing of parkwarden's files: a magic and a version, then frames with a length and a checksum, each one value.
//!
//! A file is untrusted: lengths are checked before use and memory grows with what was read, not with what a length
//! says. Every error names the offset.

use std::io::{self, Read, Write};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Largest payload of a frame. A census of four million goroutines fits.
pub const MAX_PAYLOAD: u32 = 1 << 30;

/// Why a file is not of the kind it should be, or not a whole one.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not written by parkwarden.
    #[error(
        "not a parkwarden capture or image of the kind expected here: the first 8 bytes (offset 0) are not its magic"
    )]
    Magic,
    /// Written by another version of parkwarden.
    #[error(
        "format version {found} (at offset 8), this parkwarden reads version {known}: use the parkwarden that wrote it"
    )]
    Version {
        /// As the file says.
        found: u32,
        /// As it should be.
        known: u32,
    },
    /// The file ends inside a frame or before the end frame.
    #[error("the file is truncated: it ends at offset {offset} inside {inside}")]
    Truncated {
        /// Where the file ends.
        offset: u64,
        /// What is cut.
        inside: &'static str,
    },
    /// A frame is damaged.
    #[error("the file is corrupt: the frame at offset {offset} {what}")]
    Corrupt {
        /// Where the frame begins.
        offset: u64,
        /// What is wrong with it.
        what: String,
    },
    /// The file cannot be read.
    #[error("reading the file failed at offset {offset}")]
    Io {
        /// Where.
        offset: u64,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Writes values, a frame each.
#[derive(Debug)]
pub struct FrameWriter<W: Write> {
    out: W,
    payload: Vec<u8>,
}

impl<W: Write> FrameWriter<W> {
    /// Begins a file.
    pub fn new(mut out: W, magic: [u8; 8], version: u32) -> io::Result<Self> {
        out.write_all(&magic)?;
        out.write_all(&version.to_le_bytes())?;
        Ok(Self { out, payload: Vec::new() })
    }

    /// Adds one value.
    pub fn write(&mut self, value: &impl Serialize) -> io::Result<()> {
        let mut payload = std::mem::take(&mut self.payload);
        payload.clear();
        let payload = postcard::to_extend(value, payload).map_err(io::Error::other)?;
        let length = u32::try_from(payload.len())
            .ok()
            .filter(|length| *length <= MAX_PAYLOAD)
            .ok_or_else(|| io::Error::other("a value is too large for a frame"))?;
        self.out.write_all(&length.to_le_bytes())?;
        self.out.write_all(&crc32fast::hash(&payload).to_le_bytes())?;
        self.out.write_all(&payload)?;
        self.payload = payload;
        Ok(())
    }

    /// Writes through to the file.
    pub fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Reads values, a frame each.
#[derive(Debug)]
pub struct FrameReader<R: Read> {
    from: R,
    offset: u64,
    start: u64,
    payload: Vec<u8>,
}

impl<R: Read> FrameReader<R> {
    /// Begins to read a file.
    pub fn new(from: R, magic: [u8; 8], version: u32) -> Result<Self, Error> {
        let mut reader = Self { from, offset: 0, start: 0, payload: Vec::new() };
        let mut found = [0; 8];
        match reader.fill(&mut found)? {
            Filled::All if found == magic => {}
            _ => return Err(Error::Magic),
        }
        let found = reader.word("the file's header")?;
        if found != version {
            return Err(Error::Version { found, known: version });
        }
        Ok(reader)
    }

    /// The next value; `None` where the file ends after a frame.
    pub fn read<T: DeserializeOwned>(&mut self) -> Result<Option<T>, Error> {
        self.start = self.offset;
        let mut length = [0; 4];
        match self.fill(&mut length)? {
            Filled::Nothing => return Ok(None),
            Filled::Part => {
                return Err(Error::Truncated { offset: self.offset, inside: "a frame's header" });
            }
            Filled::All => {}
        }
        let length = u32::from_le_bytes(length);
        if length > MAX_PAYLOAD {
            return Err(self.corrupt(format!("says it is {length} bytes long, more than any frame can be")));
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
            return Err(self.corrupt("does not match its checksum"));
        }
        match postcard::take_from_bytes(&self.payload) {
            Ok((value, [])) => Ok(Some(value)),
            Ok((_, rest)) => Err(self.corrupt(format!("has {} bytes too many", rest.len()))),
            Err(error) => Err(self.corrupt(format!("cannot be decoded: {error}"))),
        }
    }

    /// How far the file was read.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// An error about the frame that was read last.
    pub fn corrupt(&self, what: impl Into<String>) -> Error {
        Error::Corrupt { offset: self.start, what: what.into() }
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
