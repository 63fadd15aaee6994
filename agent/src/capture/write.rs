//! Writing a capture file.

use std::io::{self, Write};

use super::{MAGIC, MAX_PAYLOAD, VERSION};
use crate::session::Input;

/// Writes a session's inputs, frame by frame.
#[derive(Debug)]
pub struct Writer<W: Write> {
    out: W,
    payload: Vec<u8>,
}

impl<W: Write> Writer<W> {
    /// Begins a file.
    pub fn new(mut out: W) -> io::Result<Self> {
        out.write_all(&MAGIC)?;
        out.write_all(&VERSION.to_le_bytes())?;
        Ok(Self { out, payload: Vec::new() })
    }

    /// Adds one input.
    pub fn write(&mut self, input: &Input) -> io::Result<()> {
        let mut payload = std::mem::take(&mut self.payload);
        payload.clear();
        let payload = postcard::to_extend(input, payload).map_err(io::Error::other)?;
        let length = u32::try_from(payload.len())
            .ok()
            .filter(|length| *length <= MAX_PAYLOAD)
            .ok_or_else(|| io::Error::other("an input is too large for a capture file"))?;
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
