//! Struct layouts of package runtime from a binary's DWARF, versions 4 and 5.
//!
//! The Go linker puts the program's types into one compile unit called `runtime` (among several of that name: one
//! for each assembly file). Units before it are passed over by their length, and reading stops at the last struct
//! that was asked for. Deliberately absent: functions, variables, lines, C units, and DWARF rewritten by `dwz`.

use std::collections::BTreeMap;
use std::io::Read;

use gimli::constants as dw;
use gimli::{
    Abbreviation, Abbreviations, AttributeValue, DebugAbbrev, DebugAbbrevOffset, DebugInfo, EndianSlice, EntriesRaw,
    LittleEndian, UnitHeader, UnitOffset,
};

use super::Source;
use super::elf::{Elf, ElfError, Section, SectionReader};
use super::layout::{Field, StructLayout, Structs};

/// The name of the units that can hold the types.
const UNIT: &[u8] = b"runtime";
/// Largest unit kept in memory. The type unit of a 100 MB program has some 20 MB.
const MAX_UNIT: u64 = 128 << 20;
/// Most of `.debug_info` passed over, decompressed.
const MAX_INFO: u64 = 1 << 30;
/// Most units passed over.
const MAX_UNITS: usize = 1 << 20;
/// Largest `.debug_abbrev`; Go's own part has a few hundred bytes.
const MAX_ABBREV: u64 = 64 << 20;
/// Most of one abbreviation table. Each C file of the program has its own.
const MAX_ABBREV_TABLE: usize = 64 * 1024;
/// Enough of a unit to hold its header, and its name among the first attributes of its first entry.
const PEEK: usize = 1024;
/// Most attributes looked at, as a bound on time: units of real programs have some ten million.
const MAX_WORK: u64 = 200_000_000;
/// Deepest nesting of entries, longest chain of typedefs.
const MAX_DEPTH: usize = 64;
/// Most members of one struct.
const MAX_MEMBERS: usize = 4096;

type Slice<'a> = EndianSlice<'a, LittleEndian>;
type Entries<'a> = EntriesRaw<'a, Slice<'a>>;

/// Structs and the fields wanted of each, as [`super::layout::together`] makes them.
pub type Wanted<'w> = [(&'w str, Vec<(&'w str, u32)>)];

/// Why there are no layouts.
#[derive(Debug, thiserror::Error)]
pub enum DwarfError {
    /// Linked with `-w` or `-s`, or stripped.
    #[error("it has no debug information")]
    NoDebugInfo,
    /// There is some, but not Go's types.
    #[error("its debug information does not describe package runtime")]
    NoTypes,
    /// It cannot be decoded.
    #[error("malformed debug information: {what} at offset {offset:#x}")]
    Malformed {
        /// What is wrong.
        what: String,
        /// Bytes from the start of `.debug_info`.
        offset: u64,
    },
    /// It is larger than what is read of one binary.
    #[error("its debug information exceeds the limit on {0}")]
    Limit(&'static str),
    /// A section cannot be read.
    #[error(transparent)]
    Elf(#[from] ElfError),
}

/// Describes the structs of `wanted` with those of their fields that exist. Structs that do not exist are absent.
pub fn structs(source: &dyn Source, elf: &Elf, wanted: &Wanted<'_>) -> Result<Structs, DwarfError> {
    let section = |name: &str, old: &str| elf.section(name).or_else(|| elf.section(old));
    let info = section(".debug_info", ".zdebug_info").ok_or(DwarfError::NoDebugInfo)?;
    let abbrev = section(".debug_abbrev", ".zdebug_abbrev").ok_or(DwarfError::NoDebugInfo)?;
    let abbrev = elf.section_data(source, abbrev, MAX_ABBREV)?;
    let mut reader = Reader { wanted, found: Structs::new(), abbrev: &abbrev, cached: None, work: 0 };
    reader.walk(source, info)?;
    if reader.found.is_empty() { Err(DwarfError::NoTypes) } else { Ok(reader.found) }
}

struct Reader<'a> {
    wanted: &'a Wanted<'a>,
    found: Structs,
    abbrev: &'a [u8],
    /// The table at the last offset: Go's units share one.
    cached: Option<(usize, Abbreviations)>,
    work: u64,
}

impl<'a> Reader<'a> {
    /// Passes over the units of `.debug_info` and reads those that may hold the types.
    fn walk(&mut self, source: &dyn Source, section: &Section) -> Result<(), DwarfError> {
        let mut info = SectionReader::new(source, section)?;
        let mut offset = 0u64;
        let mut peek = Vec::with_capacity(PEEK);
        for _ in 0..MAX_UNITS {
            peek.clear();
            fill(&mut info, 4, &mut peek)?;
            let Some(length) = super::bytes::u32_at(&peek, 0) else { return Ok(()) };
            if length >= 0xffff_fff0 {
                return Err(malformed("64-bit DWARF", offset));
            }
            let size = u64::from(length) + 4;
            let next = offset + size;
            if next > MAX_INFO {
                return Err(DwarfError::Limit("its size"));
            }
            fill(&mut info, size.min(PEEK as u64) - 4, &mut peek)?;
            if length > 0 && self.is_candidate(&peek, offset)? {
                if size > MAX_UNIT {
                    return Err(DwarfError::Limit("the size of a unit"));
                }
                let mut unit = std::mem::take(&mut peek);
                let rest = size - unit.len() as u64;
                fill(&mut info, rest, &mut unit)?;
                self.read_unit(&unit, offset)?;
                if self.found.len() == self.wanted.len() {
                    return Ok(());
                }
            } else {
                info.skip(size - peek.len() as u64).map_err(|error| malformed(error.to_string(), offset))?;
            }
            offset = next;
        }
        Err(DwarfError::Limit("the number of units"))
    }

    /// Whether the unit that begins with `start` has the right name.
    fn is_candidate(&mut self, start: &[u8], offset: u64) -> Result<bool, DwarfError> {
        // The unit claims to end where the bytes at hand end, so that its header can be read from them alone.
        let mut start = start.to_vec();
        let length = (start.len() as u32).saturating_sub(4).to_le_bytes();
        start[..4].copy_from_slice(&length);
        // A unit of a kind that gimli does not know, or one cut off by the peek, is not Go's.
        let Some(header) = unit_header(&start) else { return Ok(false) };
        let Some(abbreviations) = self.abbreviations(&header)? else { return Ok(false) };
        let mut work = 1;
        let name = (|| {
            let mut entries = header.entries_raw(&abbreviations, None).ok()?;
            let abbreviation = entries.read_abbreviation().ok()??;
            work += abbreviation.attributes().len() as u64;
            for spec in abbreviation.attributes() {
                let attribute = entries.read_attribute(*spec).ok()?;
                if attribute.name() == dw::DW_AT_name {
                    return Some(matches!(attribute.value(), AttributeValue::String(name) if name.slice() == UNIT));
                }
            }
            None
        })();
        self.cached = Some((header.debug_abbrev_offset().0, abbreviations));
        self.spend(work, offset)?;
        Ok(name == Some(true))
    }

    /// The abbreviations of a unit, taken out of the cache. `None` when they cannot be read.
    fn abbreviations(&mut self, header: &UnitHeader<Slice<'_>>) -> Result<Option<Abbreviations>, DwarfError> {
        let offset = header.debug_abbrev_offset().0;
        if let Some((cached, abbreviations)) = self.cached.take()
            && cached == offset
        {
            return Ok(Some(abbreviations));
        }
        let Some(window) = self.abbrev.get(offset..) else { return Ok(None) };
        let window = &window[..window.len().min(MAX_ABBREV_TABLE)];
        // Two bytes make an attribute.
        self.spend(window.len() as u64 / 2, offset as u64)?;
        Ok(DebugAbbrev::new(window, LittleEndian).abbreviations(DebugAbbrevOffset(0)).ok())
    }

    /// Reads the wanted structs of one unit.
    fn read_unit(&mut self, unit: &[u8], offset: u64) -> Result<(), DwarfError> {
        let header = unit_header(unit).ok_or_else(|| malformed("unit header", offset))?;
        let abbreviations =
            self.abbreviations(&header)?.ok_or_else(|| malformed("abbreviation offset of a unit", offset))?;
        let unit = Unit { header, abbreviations: &abbreviations, offset };
        let candidates = self.scan(&unit).map_err(|error| error.into_error(offset))?;
        for (name, fields) in self.wanted {
            if let (Some(start), false) = (candidates.get(*name), self.found.contains_key(*name)) {
                let layout = self.describe(&unit, *start, fields).map_err(|error| error.into_error(offset))?;
                self.found.insert((*name).to_owned(), layout);
            }
        }
        Ok(())
    }

    /// Where in the unit each wanted struct is.
    fn scan(&mut self, unit: &Unit<'_>) -> Result<BTreeMap<&'a str, UnitOffset>, Failure> {
        let mut found = BTreeMap::new();
        let missing = self.wanted.iter().filter(|(name, _)| !self.found.contains_key(*name)).count();
        let mut entries = unit.entries(None)?;
        while !entries.is_empty() && found.len() < missing {
            let start = entries.next_offset();
            let Some(abbreviation) = entries.read_abbreviation()? else { continue };
            self.charge(abbreviation)?;
            if abbreviation.tag() != dw::DW_TAG_structure_type {
                entries.skip_attributes(abbreviation.attributes())?;
                continue;
            }
            let entry = DieEntry::read(&mut entries, abbreviation)?;
            if let Some((name, _)) = self.wanted.iter().find(|(name, _)| name.as_bytes() == entry.name)
                && !self.found.contains_key(*name)
                && entry.size.is_some()
            {
                found.entry(*name).or_insert(start);
            }
        }
        Ok(found)
    }

    fn describe(
        &mut self,
        unit: &Unit<'_>,
        start: UnitOffset,
        wanted: &[(&str, u32)],
    ) -> Result<StructLayout, Failure> {
        let (size, members) = self.members(unit, start)?;
        let mut layout = StructLayout { size, fields: BTreeMap::new() };
        for (path, _) in wanted {
            if let Some(field) = self.field(unit, &members, path)? {
                layout.fields.insert((*path).to_owned(), field);
            }
        }
        Ok(layout)
    }

    /// The field at `path` (`sched.sp`) below a struct's members.
    fn field(&mut self, unit: &Unit<'_>, members: &[Member], path: &str) -> Result<Option<Field>, Failure> {
        let mut parts = path.split('.').take(MAX_DEPTH).peekable();
        let mut nested: Vec<Member>;
        let mut members = members;
        let mut base = 0u32;
        while let Some(part) = parts.next() {
            let Some(member) = members.iter().find(|member| member.name == part.as_bytes()) else {
                return Ok(None);
            };
            let Some(offset) = base.checked_add(member.offset) else { return Ok(None) };
            let Some((start, size)) = self.resolve(unit, member.kind)? else { return Ok(None) };
            if parts.peek().is_none() {
                return Ok(Some(Field { offset, size }));
            }
            nested = self.members(unit, start)?.1;
            members = &nested;
            base = offset;
        }
        Ok(None)
    }

    /// Size and members of the struct at `start`.
    fn members(&mut self, unit: &Unit<'_>, start: UnitOffset) -> Result<(u32, Vec<Member>), Failure> {
        let mut entries = unit.entries(Some(start))?;
        let mut members = Vec::new();
        let Some(abbreviation) = entries.read_abbreviation()? else { return Ok((0, members)) };
        self.charge(abbreviation)?;
        let structure = DieEntry::read(&mut entries, abbreviation)?;
        if !abbreviation.has_children() {
            return Ok((structure.size.unwrap_or(0), members));
        }
        let mut depth = 1usize;
        while depth > 0 && !entries.is_empty() && members.len() < MAX_MEMBERS {
            let Some(abbreviation) = entries.read_abbreviation()? else {
                depth -= 1;
                continue;
            };
            self.charge(abbreviation)?;
            let entry = DieEntry::read(&mut entries, abbreviation)?;
            if let (1, dw::DW_TAG_member, Some(offset), Some(kind)) = (depth, abbreviation.tag(), entry.at, entry.kind)
            {
                members.push(Member { name: entry.name.to_vec(), offset, kind });
            }
            depth += usize::from(abbreviation.has_children());
            if depth > MAX_DEPTH {
                break;
            }
        }
        Ok((structure.size.unwrap_or(0), members))
    }

    /// Follows typedefs from `start`: where the type itself is, and its size.
    fn resolve(&mut self, unit: &Unit<'_>, start: TypeRef) -> Result<Option<(UnitOffset, u32)>, Failure> {
        let mut next = Some(start);
        for _ in 0..MAX_DEPTH {
            let Some(start) = next.and_then(|reference| unit.locate(reference)) else { return Ok(None) };
            let mut entries = unit.entries(Some(start))?;
            let Some(abbreviation) = entries.read_abbreviation()? else { return Ok(None) };
            self.charge(abbreviation)?;
            let entry = DieEntry::read(&mut entries, abbreviation)?;
            match abbreviation.tag() {
                dw::DW_TAG_typedef => next = entry.kind,
                dw::DW_TAG_pointer_type | dw::DW_TAG_subroutine_type => {
                    return Ok(Some((start, entry.size.unwrap_or(8))));
                }
                _ => return Ok(entry.size.map(|size| (start, size))),
            }
        }
        Ok(None)
    }

    fn charge(&mut self, abbreviation: &Abbreviation) -> Result<(), Failure> {
        self.work += 1 + abbreviation.attributes().len() as u64;
        if self.work > MAX_WORK { Err(Failure::Limit) } else { Ok(()) }
    }

    fn spend(&mut self, work: u64, offset: u64) -> Result<(), DwarfError> {
        self.work += work;
        if self.work > MAX_WORK { Err(Failure::Limit.into_error(offset)) } else { Ok(()) }
    }
}

/// What can go wrong within a unit.
enum Failure {
    Gimli(gimli::Error),
    Limit,
}

impl From<gimli::Error> for Failure {
    fn from(error: gimli::Error) -> Self {
        Self::Gimli(error)
    }
}

impl Failure {
    fn into_error(self, offset: u64) -> DwarfError {
        match self {
            Self::Gimli(error) => malformed(error.to_string(), offset),
            Self::Limit => DwarfError::Limit("the number of attributes"),
        }
    }
}

fn malformed(what: impl Into<String>, offset: u64) -> DwarfError {
    DwarfError::Malformed { what: what.into(), offset }
}

/// Appends `count` bytes to `buf`, or fewer at the end of the stream.
fn fill(reader: &mut SectionReader<'_>, count: u64, buf: &mut Vec<u8>) -> Result<(), DwarfError> {
    let read = reader.take(count).read_to_end(buf);
    read.map(drop).map_err(|error| DwarfError::Elf(ElfError::read("debug information")(error)))
}

fn unit_header(unit: &[u8]) -> Option<UnitHeader<Slice<'_>>> {
    DebugInfo::new(unit, LittleEndian).units().next().ok().flatten()
}

/// One unit, all of it in memory.
struct Unit<'a> {
    header: UnitHeader<Slice<'a>>,
    abbreviations: &'a Abbreviations,
    /// In `.debug_info`.
    offset: u64,
}

impl Unit<'_> {
    fn entries(&self, start: Option<UnitOffset>) -> gimli::Result<Entries<'_>> {
        self.header.entries_raw(self.abbreviations, start)
    }

    fn locate(&self, reference: TypeRef) -> Option<UnitOffset> {
        match reference {
            TypeRef::Unit(offset) => Some(offset),
            TypeRef::Info(offset) => {
                let offset = usize::try_from((offset as u64).checked_sub(self.offset)?).ok()?;
                Some(UnitOffset(offset))
            }
        }
    }
}

#[derive(Clone, Copy)]
enum TypeRef {
    Unit(UnitOffset),
    /// From the start of `.debug_info`.
    Info(usize),
}

struct Member {
    name: Vec<u8>,
    offset: u32,
    kind: TypeRef,
}

/// The attributes that matter of an entry.
#[derive(Default)]
struct DieEntry<'a> {
    name: &'a [u8],
    size: Option<u32>,
    at: Option<u32>,
    kind: Option<TypeRef>,
}

impl<'a> DieEntry<'a> {
    fn read(entries: &mut Entries<'a>, abbreviation: &Abbreviation) -> gimli::Result<Self> {
        let mut entry = Self::default();
        for spec in abbreviation.attributes() {
            let attribute = entries.read_attribute(*spec)?;
            let number = || attribute.udata_value().and_then(|value| u32::try_from(value).ok());
            match attribute.name() {
                dw::DW_AT_name => {
                    if let AttributeValue::String(name) = attribute.value() {
                        entry.name = name.slice();
                    }
                }
                dw::DW_AT_byte_size => entry.size = number(),
                dw::DW_AT_data_member_location => entry.at = number(),
                dw::DW_AT_type => {
                    entry.kind = match attribute.value() {
                        AttributeValue::UnitRef(offset) => Some(TypeRef::Unit(offset)),
                        AttributeValue::DebugInfoRef(offset) => Some(TypeRef::Info(offset.0)),
                        _ => None,
                    };
                }
                _ => {}
            }
        }
        Ok(entry)
    }
}
