//! What the numbers in `g.waitreason` mean, read from the binary's own table. Without symbols, [`super::table`] knows.
//!
//! Deliberately absent: what a reason says about a leak.

use super::Source;
use super::bytes::u64_at;
use super::elf::{Elf, ElfError, Image};
use super::symbols::Symbol;

/// `waitReason` is a `uint8`.
const MAX_REASONS: usize = 255;
/// Twice the longest in any version.
const MAX_TEXT: u64 = 64;

/// A pointer and a length.
const STRING_HEADER: usize = 16;

/// How to read `runtime.waitReasonStrings`: the request for its string headers, if `symbol` looks like that array.
pub(super) fn request(symbol: Symbol) -> Option<Image> {
    let len = usize::try_from(symbol.size).ok()?;
    let plausible = len > 0 && len.is_multiple_of(STRING_HEADER) && len / STRING_HEADER <= MAX_REASONS;
    plausible.then(|| Image::at(symbol.address, len))
}

/// The strings behind the headers that [`request`] asked for. `None` when they are not wait reasons.
pub(super) fn from_headers(source: &dyn Source, elf: &Elf, headers: &Image) -> Result<Option<Vec<String>>, ElfError> {
    let mut reasons = Vec::new();
    for header in headers.bytes.chunks_exact(STRING_HEADER) {
        let (Some(pointer), Some(len)) = (u64_at(header, 0), u64_at(header, 8)) else { return Ok(None) };
        if len > MAX_TEXT {
            return Ok(None);
        }
        let mut text = vec![0; len as usize];
        if len > 0 {
            elf.read_at_vaddr(source, pointer, &mut text)?;
        }
        let Ok(text) = String::from_utf8(text) else { return Ok(None) };
        reasons.push(text);
    }
    // Number 0 is the empty reason and 2 is "IO wait" in every version: an array that differs is something else.
    let known = reasons.first().is_some_and(String::is_empty) && reasons.get(2).is_some_and(|text| text == "IO wait");
    Ok(known.then_some(reasons))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn implausible_arrays_are_not_requested() {
        for size in [0, 8, 24, 16 * 256, u64::MAX] {
            assert_eq!(request(Symbol { address: 1, size }), None, "{size}");
        }
        assert!(request(Symbol { address: 1, size: 752 }).is_some());
    }
}
