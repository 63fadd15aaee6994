//! Where `runtime.firstmoduledata` is in a binary without symbols: it begins with pointers to the pclntab and its
//! parts, which no other variable does.
//!
//! Deliberately absent: its later fields, which move between versions: a layout says where they are.

use super::Source;
use super::bytes::u64_at;
use super::elf::{Elf, ElfError, Image};

/// Most places looked at more closely.
const MAX_CANDIDATES: usize = 64;
/// Most initialised data searched. Programs that embed files have hundreds of megabytes of it, but read-only.
const MAX_SEARCH: u64 = 512 << 20;
const CHUNK: usize = 256 * 1024;

/// Words from the start of the struct at which each of the seven pointers stands.
const PLACES: [usize; 7] = [0, 1, 4, 7, 10, 13, 16];

/// Finds the struct that begins with `pointers`.
pub fn find(source: &dyn Source, elf: &Elf, pointers: &[u64; 7]) -> Result<Option<u64>, ElfError> {
    let mut candidates = Vec::new();
    elf.each_relative(source, |place, value| {
        if value == pointers[0] && candidates.len() < MAX_CANDIDATES {
            candidates.push(place);
        }
    })?;
    in_place(source, elf, pointers[0], &mut candidates)?;
    let in_file = |at: &u64| elf.file_range(*at).is_some_and(|(_, left)| left >= SIZE as u64);
    let mut images: Vec<Image> = candidates.into_iter().filter(in_file).map(|at| Image::at(at, SIZE)).collect();
    elf.read_images(source, &mut images)?;
    let fits = |image: &&Image| {
        PLACES.iter().zip(pointers).all(|(word, pointer)| u64_at(&image.bytes, word * 8) == Some(*pointer))
    };
    Ok(images.iter().find(fits).map(|image| image.vaddr))
}

/// As much as the pointers take.
const SIZE: usize = 17 * 8;

/// Adds the places in writable data that hold `value` without a relocation.
fn in_place(source: &dyn Source, elf: &Elf, value: u64, candidates: &mut Vec<u64>) -> Result<(), ElfError> {
    let value = value.to_le_bytes();
    let mut budget = MAX_SEARCH;
    let mut buf = vec![0; CHUNK];
    for segment in elf.segments.iter().filter(|segment| segment.write) {
        let len = segment.filesz.min(source.len().saturating_sub(segment.offset)).min(budget);
        budget -= len;
        let mut at = 0;
        while at < len {
            let chunk = &mut buf[..(len - at).min(CHUNK as u64) as usize];
            source.read_exact_at(segment.offset + at, chunk).map_err(ElfError::read("initialised data"))?;
            for (index, _) in chunk.chunks_exact(8).enumerate().filter(|(_, word)| **word == value) {
                if candidates.len() < MAX_CANDIDATES {
                    candidates.push(segment.vaddr.saturating_add(at + index as u64 * 8));
                }
            }
            at += chunk.len() as u64;
        }
    }
    Ok(())
}
