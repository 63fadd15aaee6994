//! Reading a capture file.

use std::io::Read;

use super::frame::FrameReader;
use super::{Error, MAGIC, VERSION};
use crate::session::Input;

/// Reads a session's inputs, frame by frame.
#[derive(Debug)]
pub struct Reader<R: Read> {
    frames: FrameReader<R>,
    read: u64,
    ended: bool,
}

impl<R: Read> Reader<R> {
    /// Begins to read a file.
    pub fn new(from: R) -> Result<Self, Error> {
        Ok(Self { frames: FrameReader::new(from, MAGIC, VERSION)?, read: 0, ended: false })
    }

    /// The next input; `None` after the last, [`Input::End`].
    pub fn next_input(&mut self) -> Result<Option<Input>, Error> {
        let input: Input = match self.frames.read()? {
            Some(input) => input,
            None if self.ended => return Ok(None),
            None => {
                let inside = "the session: its end is missing";
                return Err(Error::Truncated { offset: self.frames.offset(), inside });
            }
        };
        if self.ended {
            return Err(self.frames.corrupt("comes after the end of the session"));
        }
        if matches!(input, Input::Begin(_)) != (self.read == 0) {
            return Err(self.frames.corrupt("is not in its place: a session begins once, with its header"));
        }
        self.read += 1;
        self.ended = matches!(input, Input::End(_));
        Ok(Some(input))
    }
}
