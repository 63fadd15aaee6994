//! Capture files: a session's inputs, saved by `watch --save` and read by `watch --replay`, so that a watch can be
//! looked at again on another machine, without the target, the kernel or root.
//!
//! A file is the magic `PKWCAPT\n`, the format version (u32), and frames to the end. A frame is the payload's length
//! (u32), its CRC-32 (u32), and the payload: one [`Input`] in postcard's encoding. Integers are little-endian.
//! The first frame is [`Input::Begin`]; a complete capture ends with [`Input::End`].
//!
//! A file is untrusted: lengths are checked before use and memory grows with what was read, not with what a length
//! says. Every error names the offset.

pub mod frame;
mod read;
mod write;

pub use frame::{Error, MAX_PAYLOAD};
pub use read::Reader;
pub use write::Writer;

/// First bytes of a capture file.
pub const MAGIC: [u8; 8] = *b"PKWCAPT\n";

/// Version of the format; a reader refuses any other.
pub const VERSION: u32 = 8;

#[cfg(test)]
pub(crate) mod tests;
