//! The header of the pclntab (`runtime.pcHeader`).

use crate::golang::bytes::{u32_at, u64_at};

use super::PcLnTabError;

/// Bytes of the header that carry anything.
pub(super) const HEADER_SIZE: usize = 8 + 8 * 8;

/// Most functions accepted; the largest Go programs have some hundred thousand.
const MAX_FUNCS: u64 = 8 << 20;

/// What differs between the formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// Go 1.18 and 1.19.
    Go118,
    /// Go 1.20 and later.
    Go120,
}

impl Format {
    /// Size of `runtime._func` before its arrays.
    pub(super) fn func_size(self) -> usize {
        match self {
            Self::Go118 => 40,
            Self::Go120 => 44,
        }
    }
}

/// The first four bytes of each format that parkwarden reads.
pub(super) const MAGICS: [([u8; 4], Format); 2] =
    [(0xffff_fff0u32.to_le_bytes(), Format::Go118), (0xffff_fff1u32.to_le_bytes(), Format::Go120)];
const MAGIC_GO_116: u32 = 0xffff_fffa;
const MAGIC_GO_12: u32 = 0xffff_fffb;

/// The decoded header. Offsets count from its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) format: Format,
    /// Instruction alignment: program counter deltas count in it.
    pub(super) quantum: u32,
    pub(super) nfunc: usize,
    /// Zero from Go 1.26 on, and in position-independent programs.
    pub(super) text_start: u64,
    pub(super) funcname: usize,
    pub(super) cutab: usize,
    pub(super) filetab: usize,
    pub(super) pctab: usize,
    pub(super) functab: usize,
}

impl Header {
    pub(super) fn parse(data: &[u8]) -> Result<Self, PcLnTabError> {
        Self::parse_sized(data, data.len() as u64)
    }

    /// `data` holds the header of a table of `size` bytes.
    pub(super) fn parse_sized(data: &[u8], size: u64) -> Result<Self, PcLnTabError> {
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        let malformed = |what, offset| PcLnTabError::Malformed { what, offset };
        let magic = u32_at(data, 0).ok_or(malformed("header", 0))?;
        let format = match MAGICS.iter().find(|(bytes, _)| u32::from_le_bytes(*bytes) == magic) {
            Some((_, format)) => *format,
            None if magic == MAGIC_GO_116 => return Err(PcLnTabError::TooOld("Go 1.16 or 1.17")),
            None if magic == MAGIC_GO_12 => return Err(PcLnTabError::TooOld("Go 1.15 or earlier")),
            None => return Err(malformed("magic number", 0)),
        };
        let (quantum, pointer) = match data.get(4..8) {
            Some(&[0, 0, quantum @ (1 | 2 | 4), pointer]) => (u32::from(quantum), pointer),
            _ => return Err(malformed("header padding or instruction size", 4)),
        };
        if pointer != 8 {
            return Err(malformed("pointer size", 7));
        }
        let word = |index: usize| u64_at(data, 8 + index * 8).ok_or(malformed("header", 8));
        let nfunc = word(0)?;
        if nfunc == 0 || nfunc > MAX_FUNCS {
            return Err(malformed("number of functions", 8));
        }
        let offset = |index: usize| {
            let value = usize::try_from(word(index)?).ok();
            value.filter(|value| *value < size && *value >= HEADER_SIZE).ok_or(malformed("table offset", index * 8))
        };
        let header = Self {
            format,
            quantum,
            nfunc: nfunc as usize,
            text_start: word(2)?,
            funcname: offset(3)?,
            cutab: offset(4)?,
            filetab: offset(5)?,
            pctab: offset(6)?,
            functab: offset(7)?,
        };
        // A pair for each function, and the end of the last one.
        match (header.nfunc * 8 + 4).checked_add(header.functab) {
            Some(end) if end <= size => Ok(header),
            _ => Err(malformed("function table beyond the end", header.functab)),
        }
    }
}
