//! The ELF file around a Go program: sections, segments, and how link-time addresses map to file offsets.
//!
//! Read through [`Source`] piece by piece: a binary can be hundreds of megabytes and only a few sections matter.
//! Deliberately absent: anything but 64-bit little-endian executables, and mapping the file into memory (a file
//! that is truncated while mapped kills the reader).

use std::io;

use object::elf;

use super::bytes::{u16_at, u32_at, u64_at};
use super::{Arch, Source};

pub use super::elf_data::{Image, SectionReader};

/// More program headers than any linker writes.
const MAX_SEGMENTS: u16 = 1024;
/// More section headers than a Go program has.
const MAX_SECTIONS: u64 = 16 * 1024;
/// Longest section name table accepted.
const MAX_NAMES: u64 = 1 << 20;

/// Why a file could not be read as an ELF executable.
#[derive(Debug, thiserror::Error)]
pub enum ElfError {
    /// No ELF magic.
    #[error("not an ELF file")]
    NotElf,
    /// ELF, but not one that parkwarden knows.
    #[error("{0}; parkwarden reads 64-bit little-endian executables for x86-64 and AArch64")]
    Unsupported(String),
    /// A header contradicts itself or the file's length.
    #[error("malformed ELF file: {what} at offset {offset:#x}")]
    Malformed {
        /// What is wrong.
        what: &'static str,
        /// Where it was read.
        offset: u64,
    },
    /// The file has no bytes for this address.
    #[error("address {address:#x} has no {len} bytes in the file")]
    NotInFile {
        /// Link-time address.
        address: u64,
        /// How many bytes were asked for.
        len: usize,
    },
    /// Larger than what is read of one binary.
    #[error("{what} exceeds the limit of {limit} bytes")]
    TooLarge {
        /// What is too large.
        what: String,
        /// The limit.
        limit: u64,
    },
    /// The bytes could not be had.
    #[error("cannot read {what}: {source}")]
    Read {
        /// What was being read.
        what: String,
        /// The cause.
        source: io::Error,
    },
}

impl ElfError {
    pub(super) fn read(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Read { what, source }
    }
}

/// One section header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// For example `.gopclntab`.
    pub name: String,
    /// Link-time address; 0 when not loaded.
    pub addr: u64,
    /// File offset.
    pub offset: u64,
    /// Bytes in the file (in memory for `SHT_NOBITS`).
    pub size: u64,
    /// `SHF_*`.
    pub flags: u64,
    /// `SHT_*`.
    pub kind: u32,
    /// Index of a related section: the string table of a symbol table.
    pub link: u32,
}

/// One `PT_LOAD` program header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Link-time address.
    pub vaddr: u64,
    /// Bytes in memory.
    pub memsz: u64,
    /// File offset.
    pub offset: u64,
    /// Bytes in the file; the rest is zero.
    pub filesz: u64,
    /// Mapped executable.
    pub exec: bool,
    /// Mapped writable.
    pub write: bool,
}

impl Segment {
    /// Whether the segment's memory holds `address`.
    pub fn contains(&self, address: u64) -> bool {
        address.checked_sub(self.vaddr).is_some_and(|at| at < self.memsz)
    }
}

/// The tables of an ELF executable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Elf {
    /// Instruction set.
    pub arch: Arch,
    /// `ET_DYN`: loaded at a slide.
    pub pie: bool,
    /// Link-time address of the first instruction.
    pub entry: u64,
    /// Section headers, by index. Empty when the file was stripped of them.
    pub sections: Vec<Section>,
    /// `PT_LOAD` segments in file order.
    pub segments: Vec<Segment>,
    /// Address and size of the dynamic section.
    pub(super) dynamic: Option<(u64, u64)>,
}

impl Elf {
    /// Reads the header tables.
    pub fn parse(source: &dyn Source) -> Result<Self, ElfError> {
        let mut header = [0; 64];
        source.read_exact_at(0, &mut header).map_err(|_| ElfError::NotElf)?;
        if header[..4] != elf::ELFMAG {
            return Err(ElfError::NotElf);
        }
        if header[4] != elf::ELFCLASS64.0 || header[5] != elf::ELFDATA2LSB.0 {
            return Err(ElfError::Unsupported("a 32-bit or big-endian ELF file".into()));
        }
        let half = |at| u16_at(&header, at).unwrap_or_default();
        let word = |at| u64_at(&header, at).unwrap_or_default();
        let pie = match half(16) {
            kind if kind == elf::ET_EXEC.0 => false,
            kind if kind == elf::ET_DYN.0 => true,
            kind => return Err(ElfError::Unsupported(format!("an ELF file of type {kind}, not an executable"))),
        };
        let arch = match half(18) {
            machine if machine == elf::EM_X86_64.0 => Arch::Amd64,
            machine if machine == elf::EM_AARCH64.0 => Arch::Arm64,
            machine => return Err(ElfError::Unsupported(format!("an executable for ELF machine {machine}"))),
        };
        let (segments, dynamic) = program_headers(source, word(32), half(54), half(56))?;
        let sections = section_headers(source, word(40), half(58), half(60), half(62))?;
        Ok(Self { arch, pie, entry: word(24), sections, segments, dynamic })
    }

    /// The section of that name.
    pub fn section(&self, name: &str) -> Option<&Section> {
        self.sections.iter().find(|section| section.name == name)
    }

    /// The segment that holds `vaddr`.
    pub fn segment(&self, vaddr: u64) -> Option<&Segment> {
        self.segments.iter().find(|segment| segment.contains(vaddr))
    }

    /// Where the byte at `vaddr` is in the file.
    pub fn file_offset(&self, vaddr: u64) -> Option<u64> {
        self.file_range(vaddr).map(|(offset, _)| offset)
    }

    /// File offset of `vaddr`, and how many bytes of its segment the file holds from there.
    pub fn file_range(&self, vaddr: u64) -> Option<(u64, u64)> {
        self.segments.iter().find_map(|segment| {
            let at = vaddr.checked_sub(segment.vaddr)?;
            let left = segment.filesz.checked_sub(at).filter(|left| *left > 0)?;
            Some((segment.offset.checked_add(at)?, left))
        })
    }

    /// Fills `buf` from the link-time address `vaddr`, as in the file: relocations are not applied.
    pub fn read_at_vaddr(&self, source: &dyn Source, vaddr: u64, buf: &mut [u8]) -> Result<(), ElfError> {
        let len = buf.len();
        match self.file_range(vaddr) {
            Some((offset, left)) if len as u64 <= left => {
                source.read_exact_at(offset, buf).map_err(ElfError::read(format!("{len} bytes at {vaddr:#x}")))
            }
            _ => Err(ElfError::NotInFile { address: vaddr, len }),
        }
    }
}

type ProgramHeaders = (Vec<Segment>, Option<(u64, u64)>);

fn program_headers(source: &dyn Source, at: u64, entsize: u16, count: u16) -> Result<ProgramHeaders, ElfError> {
    if count > MAX_SEGMENTS || (count > 0 && entsize != 56) {
        return Err(ElfError::Malformed { what: "program header table", offset: at });
    }
    let mut table = vec![0; usize::from(count) * 56];
    source
        .read_exact_at(at, &mut table)
        .map_err(|_| ElfError::Malformed { what: "program header table", offset: at })?;
    let mut segments = Vec::new();
    let mut dynamic = None;
    for header in table.chunks_exact(56) {
        let word = |at| u64_at(header, at).unwrap_or_default();
        let kind = u32_at(header, 0).unwrap_or_default();
        let flags = u32_at(header, 4).unwrap_or_default();
        if kind == elf::PT_LOAD.0 {
            segments.push(Segment {
                vaddr: word(16),
                memsz: word(40),
                offset: word(8),
                filesz: word(32).min(word(40)),
                exec: flags & elf::PF_X.0 != 0,
                write: flags & elf::PF_W.0 != 0,
            });
        } else if kind == elf::PT_DYNAMIC.0 {
            dynamic = Some((word(16), word(32)));
        }
    }
    Ok((segments, dynamic))
}

fn section_headers(
    source: &dyn Source,
    at: u64,
    entsize: u16,
    count: u16,
    names: u16,
) -> Result<Vec<Section>, ElfError> {
    let malformed = |what| ElfError::Malformed { what, offset: at };
    if at == 0 {
        return Ok(Vec::new());
    }
    if entsize != 64 {
        return Err(malformed("section header table"));
    }
    let mut first = [0; 64];
    source.read_exact_at(at, &mut first).map_err(|_| malformed("section header table"))?;
    // With 0xff00 sections or more, count and name index move into the first header.
    let count = if count == 0 { u64_at(&first, 32).unwrap_or_default() } else { u64::from(count) };
    let names = match names {
        0xffff => u32_at(&first, 40).unwrap_or_default() as usize,
        names => usize::from(names),
    };
    if count > MAX_SECTIONS {
        return Err(malformed("section header count"));
    }
    let mut table = vec![0; count as usize * 64];
    source.read_exact_at(at, &mut table).map_err(|_| malformed("section header table"))?;
    let headers: Vec<&[u8]> = table.chunks_exact(64).collect();
    let word = |header: &[u8], at| u64_at(header, at).unwrap_or_default();
    let half = |header: &[u8], at| u32_at(header, at).unwrap_or_default();
    let mut strings = Vec::new();
    if let Some(header) = headers.get(names) {
        let (offset, size) = (word(header, 24), word(header, 32));
        if size > MAX_NAMES {
            return Err(malformed("section name table"));
        }
        strings = vec![0; size as usize];
        source.read_exact_at(offset, &mut strings).map_err(|_| malformed("section name table"))?;
    }
    Ok(headers
        .iter()
        .map(|header| Section {
            name: section_name(&strings, half(header, 0)),
            addr: word(header, 16),
            offset: word(header, 24),
            size: word(header, 32),
            flags: word(header, 8),
            kind: half(header, 4),
            link: half(header, 40),
        })
        .collect())
}

fn section_name(strings: &[u8], at: u32) -> String {
    let name = super::bytes::c_str(strings, at as usize, 256).unwrap_or_default();
    String::from_utf8_lossy(name).into_owned()
}
