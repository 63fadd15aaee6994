//! Contents of an ELF file: sections, decompressed when they are compressed, and initialised data with the
//! relocations that the loader would apply.
//!
//! Deliberately absent: symbols' relocations. What the Go runtime's tables point to lies in the same file.

use std::io::{self, BufReader, Read};

use flate2::read::ZlibDecoder;
use object::elf;
use ruzstd::decoding::{FrameDecoder, StreamingDecoder};

use super::bytes::{u32_at, u64_at};
use super::elf::{Elf, ElfError, Section};
use super::{Arch, Source};

/// Largest relocation table read: 16 million relocations.
const MAX_RELOCATIONS: u64 = 384 << 20;
const RELA_SIZE: usize = 24;
const CHUNK: usize = 64 * 1024;

/// A range of a source as a stream.
struct Window<'a> {
    source: &'a dyn Source,
    at: u64,
    end: u64,
}

impl Read for Window<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let len = usize::try_from(self.end - self.at).unwrap_or(usize::MAX).min(buf.len());
        self.source.read_exact_at(self.at, &mut buf[..len])?;
        self.at += len as u64;
        Ok(len)
    }
}

/// The contents of a section as a stream, decompressed on the way.
pub struct SectionReader<'a>(Inner<'a>);

enum Inner<'a> {
    Plain(BufReader<Window<'a>>),
    Zlib(Box<ZlibDecoder<BufReader<Window<'a>>>>),
    Zstd(Box<StreamingDecoder<BufReader<Window<'a>>, FrameDecoder>>),
}

impl<'a> SectionReader<'a> {
    /// Opens `section`, compressed by `SHF_COMPRESSED` or in the older way of `.zdebug_*`.
    pub fn new(source: &'a dyn Source, section: &Section) -> Result<Self, ElfError> {
        let what = || format!("section {}", section.name);
        if section.kind == elf::SHT_NOBITS.0 {
            return Err(ElfError::Malformed { what: "section without contents", offset: section.offset });
        }
        let end = section.offset.checked_add(section.size).filter(|end| *end <= source.len());
        let end = end.ok_or(ElfError::Malformed { what: "section beyond the end", offset: section.offset })?;
        let window = |header: u64| {
            let at = section.offset.saturating_add(header).min(end);
            BufReader::with_capacity(CHUNK, Window { source, at, end })
        };
        let mut header = [0; 24];
        if section.flags & elf::SHF_COMPRESSED.0 != 0 {
            source.read_exact_at(section.offset, &mut header).map_err(ElfError::read(what()))?;
            let kind = u32_at(&header, 0).unwrap_or_default();
            return match kind {
                kind if kind == elf::ELFCOMPRESS_ZLIB.0 => Ok(Self::zlib(window(24))),
                kind if kind == elf::ELFCOMPRESS_ZSTD.0 => StreamingDecoder::new(window(24))
                    .map(|decoder| Self(Inner::Zstd(Box::new(decoder))))
                    .map_err(|error| ElfError::read(what())(io::Error::other(error))),
                _ => Err(ElfError::Malformed { what: "unknown compression", offset: section.offset }),
            };
        }
        if section.name.starts_with(".zdebug") {
            source.read_exact_at(section.offset, &mut header[..12]).map_err(ElfError::read(what()))?;
            if header[..4] == *b"ZLIB" {
                return Ok(Self::zlib(window(12)));
            }
        }
        Ok(Self(Inner::Plain(window(0))))
    }

    fn zlib(window: BufReader<Window<'a>>) -> Self {
        Self(Inner::Zlib(Box::new(ZlibDecoder::new(window))))
    }

    /// Passes over `count` bytes, or as many as there are.
    pub fn skip(&mut self, count: u64) -> io::Result<()> {
        match &mut self.0 {
            Inner::Plain(reader) => {
                let buffered = reader.buffer().len() as u64;
                let now = buffered.min(count);
                // Bounded by the buffer, so the conversion holds.
                io::BufRead::consume(reader, now as usize);
                let window = reader.get_mut();
                window.at = window.at.saturating_add(count - now).min(window.end);
                Ok(())
            }
            _ => io::copy(&mut self.take(count), &mut io::sink()).map(drop),
        }
    }
}

impl Read for SectionReader<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match &mut self.0 {
            Inner::Plain(reader) => reader.read(buf),
            Inner::Zlib(reader) => reader.read(buf),
            Inner::Zstd(reader) => reader.read(buf),
        }
    }
}

/// A stretch of initialised memory to read with its relocations applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Link-time address.
    pub vaddr: u64,
    /// Contents; the length says how much to read.
    pub bytes: Vec<u8>,
}

impl Image {
    /// A request for `len` bytes at `vaddr`.
    pub fn at(vaddr: u64, len: usize) -> Self {
        Self { vaddr, bytes: vec![0; len] }
    }
}

impl Elf {
    /// The contents of `section`, decompressed, if they are at most `cap` bytes.
    pub fn section_data(&self, source: &dyn Source, section: &Section, cap: u64) -> Result<Vec<u8>, ElfError> {
        let mut bytes = Vec::new();
        SectionReader::new(source, section)?
            .take(cap.saturating_add(1))
            .read_to_end(&mut bytes)
            .map_err(ElfError::read(format!("section {}", section.name)))?;
        if bytes.len() as u64 > cap {
            return Err(ElfError::TooLarge { what: format!("section {}", section.name), limit: cap });
        }
        Ok(bytes)
    }

    /// Fills the images from the file and applies the relative relocations to them, all in one pass.
    ///
    /// RELR relocations need no work: their addend is in place.
    pub fn read_images(&self, source: &dyn Source, images: &mut [Image]) -> Result<(), ElfError> {
        for image in images.iter_mut() {
            self.read_at_vaddr(source, image.vaddr, &mut image.bytes)?;
        }
        self.each_relative(source, |place, addend| {
            for image in images.iter_mut() {
                let Some(within) = place.checked_sub(image.vaddr).and_then(|at| usize::try_from(at).ok()) else {
                    continue;
                };
                if let Some(slot) = within.checked_add(8).and_then(|end| image.bytes.get_mut(within..end)) {
                    slot.copy_from_slice(&addend.to_le_bytes());
                }
            }
        })
    }

    /// File offset and size of the table of `DT_RELA`.
    fn relocation_table(&self, source: &dyn Source) -> Result<Option<(u64, u64)>, ElfError> {
        let Some((vaddr, size)) = self.dynamic else { return Ok(None) };
        let mut entries = vec![0; size.min(64 * 1024) as usize];
        self.read_at_vaddr(source, vaddr, &mut entries)?;
        let entries: Vec<(u64, u64)> = entries
            .chunks_exact(16)
            .map(|entry| (u64_at(entry, 0).unwrap_or_default(), u64_at(entry, 8).unwrap_or_default()))
            .take_while(|(tag, _)| *tag != 0)
            .collect();
        let value = |wanted: u64| entries.iter().find(|(tag, _)| *tag == wanted).map(|(_, value)| *value);
        let (Some(at), Some(size)) = (value(elf::DT_RELA.0 as u64), value(elf::DT_RELASZ.0 as u64)) else {
            return Ok(None);
        };
        if size > MAX_RELOCATIONS {
            return Err(ElfError::TooLarge { what: "relocation table".into(), limit: MAX_RELOCATIONS });
        }
        match self.file_range(at) {
            _ if size == 0 => Ok(None),
            Some((offset, left)) if size <= left => Ok(Some((offset, size))),
            _ => Err(ElfError::NotInFile { address: at, len: size as usize }),
        }
    }

    /// Calls `visit` with the place and the link-time value of each relative relocation that has its value in the
    /// relocation table.
    pub fn each_relative(&self, source: &dyn Source, mut visit: impl FnMut(u64, u64)) -> Result<(), ElfError> {
        let Some((mut at, size)) = self.relocation_table(source)? else { return Ok(()) };
        let relative = match self.arch {
            Arch::Amd64 => u64::from(elf::R_X86_64_RELATIVE.0),
            Arch::Arm64 => u64::from(elf::R_AARCH64_RELATIVE.0),
        };
        let mut chunk = vec![0; RELA_SIZE * 4096];
        let end = at.saturating_add(size - size % RELA_SIZE as u64);
        while at < end {
            let len = (end - at).min(chunk.len() as u64);
            let entries = &mut chunk[..len as usize];
            source.read_exact_at(at, entries).map_err(ElfError::read("relocations"))?;
            for entry in entries.chunks_exact(RELA_SIZE) {
                let (place, info, addend) = (u64_at(entry, 0), u64_at(entry, 8), u64_at(entry, 16));
                if let (Some(place), Some(info), Some(addend)) = (place, info, addend)
                    && info & 0xffff_ffff == relative
                {
                    visit(place, addend);
                }
            }
            at += len;
        }
        Ok(())
    }
}
