//! Where a binary keeps its pclntab. Each finder knows one sign of it; the first that holds wins.

use crate::golang::Source;
use crate::golang::elf::{Elf, ElfError};
use crate::golang::symbols::Symbol;

use super::header::HEADER_SIZE;
use super::{PcLnTab, looks_like_header};

/// Largest pclntab read. That of a 100 MB program is some 30 MB.
const MAX_SIZE: u64 = 512 << 20;
/// How much of the file is searched for the magic number.
const MAX_SEARCH: u64 = 2 << 30;
const CHUNK: usize = 256 * 1024;

/// Sections that hold the table and nothing before it.
const SECTIONS: [&str; 2] = [".gopclntab", ".data.rel.ro.gopclntab"];

/// A found table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CodePosition {
    /// Link-time address.
    pub vaddr: u64,
    /// Size in bytes; it may include what follows the table.
    pub size: u64,
}

/// Finds the pclntab by its section, by its symbols (`runtime.pclntab`, `runtime.epclntab`), or by its header.
pub fn locate(source: &dyn Source, elf: &Elf, start: Option<Symbol>, end: Option<Symbol>) -> Option<CodePosition> {
    let in_file = |vaddr: u64, size: u64| {
        let (_, left) = elf.file_range(vaddr)?;
        let place = CodePosition { vaddr, size: size.min(left).min(MAX_SIZE) };
        is_table(source, elf, place).then_some(place)
    };
    let by_section = || {
        SECTIONS.iter().find_map(|name| {
            let section = elf.section(name)?;
            in_file(section.addr, section.size)
        })
    };
    let by_symbol = || {
        let start = start?.address;
        in_file(start, end.map_or(u64::MAX, |end| end.address.saturating_sub(start)))
    };
    by_section().or_else(by_symbol).or_else(|| by_header(source, elf, &in_file))
}

/// The table's bytes.
pub fn read(source: &dyn Source, elf: &Elf, place: CodePosition) -> Result<Vec<u8>, ElfError> {
    let size = place.size.min(MAX_SIZE).min(source.len());
    let mut data = vec![0; size as usize];
    elf.read_at_vaddr(source, place.vaddr, &mut data)?;
    Ok(data)
}

/// Whether the header at `place` makes sense by itself.
fn is_table(source: &dyn Source, elf: &Elf, place: CodePosition) -> bool {
    let mut header = [0; HEADER_SIZE];
    elf.read_at_vaddr(source, place.vaddr, &mut header).is_ok() && PcLnTab::is_header(&header, place.size)
}

/// Searches the segments for the header.
fn by_header(
    source: &dyn Source,
    elf: &Elf,
    in_file: &dyn Fn(u64, u64) -> Option<CodePosition>,
) -> Option<CodePosition> {
    let mut budget = MAX_SEARCH;
    let mut buf = vec![0; CHUNK];
    for segment in &elf.segments {
        let len = segment.filesz.min(source.len().saturating_sub(segment.offset));
        let mut at = 0;
        while at < len && budget > 0 {
            let chunk = &mut buf[..(len - at).min(CHUNK as u64) as usize];
            source.read_exact_at(segment.offset + at, chunk).ok()?;
            // Aligned to at least eight bytes in every version, and so are segments and chunks.
            for (index, _) in chunk.chunks(8).enumerate().filter(|(_, header)| looks_like_header(header)) {
                let vaddr = segment.vaddr.checked_add(at)?.checked_add(index as u64 * 8)?;
                if let Some(place) = in_file(vaddr, u64::MAX) {
                    return Some(place);
                }
            }
            at += chunk.len() as u64;
            budget = budget.saturating_sub(chunk.len() as u64);
        }
    }
    None
}
