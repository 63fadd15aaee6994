//! Writing a capture file.

use std::io::{self, Write};

use super::frame::FrameWriter;
use super::{MAGIC, VERSION};
use crate::session::Input;

/// Writes a session's inputs, frame by frame.
#[derive(Debug)]
pub struct Writer<W: Write> {
    frames: FrameWriter<W>,
}

impl<W: Write> Writer<W> {
    /// Begins a file.
    pub fn new(out: W) -> io::Result<Self> {
        Ok(Self { frames: FrameWriter::new(out, MAGIC, VERSION)? })
    }

    /// Adds one input.
    pub fn write(&mut self, input: &Input) -> io::Result<()> {
        self.frames.write(input)
    }

    /// Writes through to the file.
    pub fn flush(&mut self) -> io::Result<()> {
        self.frames.flush()
    }
}
