//! Addresses of a handful of symbols from the ELF symbol table.
//!
//! Deliberately absent: a table of all symbols. A large program has hundreds of thousands; functions are in the
//! pclntab anyway. Both tables are read in pieces.

use object::elf;

use super::Source;
use super::bytes::{u16_at, u32_at, u64_at};
use super::elf::{Elf, ElfError, Section};

/// Largest string or symbol table searched.
const MAX_TABLE: u64 = 1 << 30;
/// At how many places of the string table one name may occur: linkers share tails.
const MAX_PLACES: usize = 256;
const CHUNK: usize = 256 * 1024;
const SYM_SIZE: usize = 24;

/// A defined symbol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Symbol {
    /// Link-time address.
    pub address: u64,
    /// Size in bytes; 0 when the linker did not say.
    pub size: u64,
}

/// The symbol table of `elf`, if it has one.
pub fn table(elf: &Elf) -> Option<&Section> {
    elf.sections.iter().find(|section| section.kind == elf::SHT_SYMTAB.0)
}

/// Finds each of `names` in the symbol table, in their order. Without a table, finds none.
pub fn lookup(source: &dyn Source, elf: &Elf, names: &[&str]) -> Result<Vec<Option<Symbol>>, ElfError> {
    let mut found = vec![None; names.len()];
    let Some(symtab) = table(elf) else { return Ok(found) };
    let strtab = elf.sections.get(symtab.link as usize);
    let strtab = strtab.ok_or(ElfError::Malformed { what: "symbol table link", offset: symtab.offset })?;
    let places = name_places(source, strtab, names)?;
    each_chunk(source, symtab, SYM_SIZE, 0, |_, chunk| {
        for symbol in chunk.chunks_exact(SYM_SIZE) {
            let name = u32_at(symbol, 0).unwrap_or_default();
            let Ok(at) = places.binary_search_by_key(&name, |(place, _)| *place) else { continue };
            let (Some(section), Some(address), Some(size)) = (u16_at(symbol, 6), u64_at(symbol, 8), u64_at(symbol, 16))
            else {
                continue;
            };
            if let (true, Some(slot)) = (section != 0, found.get_mut(places[at].1)) {
                slot.get_or_insert(Symbol { address, size });
            }
        }
    })?;
    Ok(found)
}

/// Offsets in the string table at which one of `names` stands, sorted, each with the index of its name.
fn name_places(source: &dyn Source, strtab: &Section, names: &[&str]) -> Result<Vec<(u32, usize)>, ElfError> {
    let overlap = names.iter().map(|name| name.len() + 1).max().unwrap_or(0);
    let mut places: Vec<(u32, usize)> = Vec::new();
    each_chunk(source, strtab, 1, overlap, |start, chunk| {
        for end in memchr::memchr_iter(0, chunk) {
            for (index, name) in names.iter().enumerate() {
                if !chunk[..end].ends_with(name.as_bytes()) || places.len() >= MAX_PLACES * names.len() {
                    continue;
                }
                if let Ok(place) = u32::try_from(start + (end - name.len()) as u64) {
                    places.push((place, index));
                }
            }
        }
    })?;
    places.sort_unstable();
    places.dedup();
    Ok(places)
}

/// Calls `visit` with the section's bytes piece by piece (and the offset of each piece), pieces overlapping by
/// `overlap` bytes and otherwise whole multiples of `unit`.
fn each_chunk(
    source: &dyn Source,
    section: &Section,
    unit: usize,
    overlap: usize,
    mut visit: impl FnMut(u64, &[u8]),
) -> Result<(), ElfError> {
    let malformed = |what| ElfError::Malformed { what, offset: section.offset };
    let end = section.offset.checked_add(section.size).ok_or(malformed("table size"))?;
    if section.size > MAX_TABLE {
        return Err(ElfError::TooLarge { what: section.name.clone(), limit: MAX_TABLE });
    }
    if end > source.len() || section.kind == elf::SHT_NOBITS.0 {
        return Err(malformed("table beyond the end of the file"));
    }
    let mut buf = vec![0; CHUNK / unit * unit + overlap];
    let mut at = 0;
    while at < section.size {
        let len = (section.size - at).min(buf.len() as u64) as usize;
        let chunk = &mut buf[..len];
        source.read_exact_at(section.offset + at, chunk).map_err(ElfError::read(section.name.as_str()))?;
        visit(at, chunk);
        at += if at + len as u64 == section.size { len as u64 } else { (len - overlap) as u64 };
    }
    Ok(())
}
