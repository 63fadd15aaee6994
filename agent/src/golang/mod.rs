//! What a Go binary says of itself: version, runtime struct layouts, function tables, and where to probe it.
//!
//! Bytes in, values out. Deliberately absent: I/O (bytes come through [`Source`]), clocks, and trust: every length
//! and offset is the binary author's word, so it is checked before it is used, and nothing is allocated by it.
//!
//! All addresses are the binary's own (link time). Where the process runs them is the caller's business: a
//! position-independent binary is loaded at a slide that `discover` reads from the process.

pub mod binary;
pub mod buildinfo;
mod bytes;
pub(crate) mod code;
pub mod dwarf;
pub mod elf;
mod elf_data;
pub mod goroutine;
pub mod layout;
pub mod layout_table;
pub mod moduledata;
pub mod names;
pub mod pclntab;
pub mod proof_layout;
pub mod references;
pub mod sites;
pub mod symbols;
pub mod table;
pub mod variables;
pub mod version;
pub mod wait_reasons;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use std::io;

/// Where the bytes of a binary come from: a file, or a slice in tests and fuzzing.
pub trait Source {
    /// Total length in bytes.
    fn len(&self) -> u64;

    /// Fills `buf` from `offset`, or fails when the source ends before.
    fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()>;

    /// Whether there are no bytes at all.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Source for [u8] {
    fn len(&self) -> u64 {
        <[u8]>::len(self) as u64
    }

    fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let bytes = usize::try_from(offset)
            .ok()
            .and_then(|start| self.get(start..start.checked_add(buf.len())?))
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        buf.copy_from_slice(bytes);
        Ok(())
    }
}

impl<S: Source + ?Sized> Source for &S {
    fn len(&self) -> u64 {
        (**self).len()
    }

    fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        (**self).read_exact_at(offset, buf)
    }
}

/// Instruction set of a binary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
#[derive(strum::Display, strum::VariantArray)]
#[strum(serialize_all = "lowercase")]
pub enum Arch {
    /// x86-64; Go's name for it.
    Amd64,
    /// AArch64; Go's name for it.
    Arm64,
}

/// One line of a stack: a function and where in its source the program counter stands.
#[derive(Clone, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Frame {
    /// Full name, for example `net/http.(*conn).serve`.
    pub function: String,
    /// Path as the compiler recorded it.
    pub file: String,
    /// 1-based; 0 when the tables do not know.
    pub line: u32,
    /// Whether the compiler inlined this function into the next frame of the list.
    pub inlined: bool,
}
