//! Whole binaries, made by hand and damaged at random.

use std::cell::Cell;
use std::io;

use proptest::prelude::*;

use super::binary::{GoBinary, Refusal, SymbolSource};
use super::buildinfo::BuildInfo;
use super::elf::Elf;
use super::layout::LayoutSource;
use super::testing::{BASE, Builder, go_binary};
use super::{Arch, Source, dwarf, layout, moduledata, symbols};

fn parse(bytes: &[u8]) -> Result<GoBinary, Refusal> {
    GoBinary::parse(&bytes)
}

#[test]
fn understands_a_small_binary() {
    let bytes = go_binary();
    let binary = parse(&bytes).unwrap();
    assert_eq!((binary.version.minor, binary.arch, binary.pie, binary.stripped), (27, Arch::Amd64, false, false));
    assert_eq!((binary.layout_source, binary.symbol_source), (LayoutSource::Dwarf, SymbolSource::Symtab));
    assert_eq!(binary.allgs, Some(BASE + 0x500));
    assert_eq!(binary.build.main.as_ref().unwrap().path, "example.com/a");
    assert_eq!(binary.layout.g.sched_pc, binary.layout.g.sched_sp + 8);
    assert_eq!(binary.wait_reasons[2], "IO wait");
    let function = binary.function("main.b").unwrap();
    assert_eq!(binary.code(&bytes.as_slice(), &function).unwrap(), [0x90; 16]);
    assert!(binary.is_stack_bottom(binary.function("main.a").unwrap().entry));
    assert!(!binary.is_stack_bottom(function.entry));
}

#[test]
fn says_why_it_refuses() {
    let refusal = |bytes: &[u8]| parse(bytes).unwrap_err();
    assert!(matches!(refusal(b""), Refusal::NotElf));
    assert!(matches!(refusal(b"#!/bin/sh\n"), Refusal::NotElf));
    assert!(matches!(refusal(&Builder::new().build()), Refusal::NotGo));

    let bytes = go_binary();
    let with = |bytes: &[u8], from: &[u8], to: &[u8]| {
        let mut bytes = bytes.to_vec();
        let at = bytes.windows(from.len()).position(|window| window == from).unwrap();
        bytes[at..at + to.len()].copy_from_slice(to);
        bytes
    };
    let changed = |from: &[u8], to: &[u8]| refusal(&with(&bytes, from, to));
    assert!(
        matches!(changed(b"go1.27.3", b"go1.17.3"), Refusal::UnsupportedVersion { version } if version == "go1.17.3")
    );
    assert!(matches!(changed(b"go1.27.3", b"devel +1"), Refusal::UnsupportedVersion { .. }));
    assert!(matches!(changed(b"buildinf:\x08\x02", b"buildinf:\x08\x00"), Refusal::UnsupportedVersion { .. }));
    // The table knows what the debugging information does not say, but not of every version.
    let stripped = with(&bytes, b".debug_info", b".nothing_at");
    assert_eq!(parse(&stripped).unwrap().layout_source, LayoutSource::Table);
    let unknown = refusal(&with(&stripped, b"go1.27.3", b"go1.99.3"));
    assert!(matches!(&unknown, Refusal::NoLayout { version, .. } if version == "go1.99.3"), "{unknown}");
    let no_field = changed(b"\x03goid\0", b"\x03xxxx\0").to_string();
    assert!(no_field.contains("runtime.g has no field goid") && no_field.contains("go1.27.3"), "{no_field}");
    assert!(matches!(changed(&0xffff_fff1u32.to_le_bytes(), &[0]), Refusal::NoPclntab));

    let mut arm32 = bytes.clone();
    arm32[4] = 1;
    assert!(matches!(refusal(&arm32), Refusal::UnsupportedArch(_)));
    let mut riscv = bytes.clone();
    riscv[18] = 243;
    assert!(refusal(&riscv).to_string().contains("machine 243"));
}

#[test]
fn reads_little_of_a_large_file() {
    /// Counts the bytes it hands out, and is followed by a terabyte of nothing.
    struct Large {
        bytes: Vec<u8>,
        read: Cell<u64>,
    }
    impl Source for Large {
        fn len(&self) -> u64 {
            1 << 40
        }
        fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
            self.read.set(self.read.get() + buf.len() as u64);
            let start = (offset as usize).min(self.bytes.len());
            let end = (start + buf.len()).min(self.bytes.len());
            buf.fill(0);
            buf[..end - start].copy_from_slice(&self.bytes[start..end]);
            Ok(())
        }
    }
    let source = Large { bytes: go_binary(), read: Cell::new(0) };
    GoBinary::parse(&source).unwrap();
    assert!(source.read.get() < 1 << 20, "{} bytes read", source.read.get());
}

#[test]
fn names_that_share_a_tail_are_told_apart() {
    let mut builder = Builder::new();
    let mut table = vec![0u8; 24];
    // One string, used whole and from its middle.
    for (name, address) in [(1u32, 0x10u64), (4, 0x20)] {
        table.extend_from_slice(&name.to_le_bytes());
        table.extend_from_slice(&[0, 0, 1, 0]);
        table.extend_from_slice(&address.to_le_bytes());
        table.extend_from_slice(&0u64.to_le_bytes());
    }
    builder.section(".symtab", 2, 0, 2, table);
    builder.section(".strtab", 3, 0, 0, b"\0my.runtime.text\0".to_vec());
    let bytes = builder.build();
    let source = bytes.as_slice();
    let elf = Elf::parse(&source).unwrap();
    let found = symbols::lookup(&source, &elf, &["runtime.text", "my.runtime.text", "text.not"]).unwrap();
    let addresses: Vec<_> = found.iter().map(|symbol| symbol.map(|symbol| symbol.address)).collect();
    assert_eq!(addresses, [Some(0x20), Some(0x10), None]);
}

#[test]
fn finds_moduledata_by_its_pointers() {
    let pointers = [0x1000u64, 0x1060, 0x1080, 0x1090, 0x10a0, 0x10c0, 0x10c0];
    let mut words = [0u64; 40];
    // A lone pointer to the table, as any variable may hold, and then the struct.
    words[3] = 0x1000;
    for (word, pointer) in [0, 1, 4, 7, 10, 13, 16].iter().zip(pointers) {
        words[10 + word] = pointer;
    }
    let mut builder = Builder::new();
    let data = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    let at = builder.section(".noptrdata", 1, 3, 0, data);
    let bytes = builder.build();
    let elf = Elf::parse(&bytes.as_slice()).unwrap();
    assert_eq!(moduledata::find(&bytes.as_slice(), &elf, &pointers).unwrap(), Some(at + 80));
    let others = pointers.map(|pointer| pointer + 8);
    assert_eq!(moduledata::find(&bytes.as_slice(), &elf, &others).unwrap(), None);
}

/// Runs every parser, also those that an earlier refusal would keep from running.
fn exercise(bytes: &[u8]) {
    let _ = parse(bytes);
    let Ok(elf) = Elf::parse(&bytes) else { return };
    let _ = BuildInfo::parse(&bytes, &elf);
    let _ = dwarf::structs(&bytes, &elf, &layout::together(&[layout::WANTED]));
    let _ = symbols::lookup(&bytes, &elf, &["runtime.text", "runtime.allgs"]);
    let _ = moduledata::find(&bytes, &elf, &[BASE; 7]);
    for section in &elf.sections {
        let _ = elf.section_data(&bytes, section, 1 << 16);
    }
}

/// Where a section's contents are.
fn range(bytes: &[u8], name: &str) -> std::ops::Range<usize> {
    let elf = Elf::parse(&bytes).unwrap();
    let section = elf.section(name).unwrap();
    section.offset as usize..(section.offset + section.size) as usize
}

proptest! {
    #[test]
    fn no_bytes_do_harm(bytes in prop::collection::vec(any::<u8>(), 0..1024)) {
        exercise(&bytes);
        let mut file = go_binary();
        let len = bytes.len().min(file.len() - 64);
        file[64..64 + len].copy_from_slice(&bytes[..len]);
        exercise(&file);
    }

    #[test]
    fn no_change_of_a_table_does_harm(
        section in prop::sample::select(
            &[".gopclntab", ".go.buildinfo", ".debug_abbrev", ".debug_info", ".symtab", ".strtab", ".shstrtab"][..]
        ),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let mut bytes = go_binary();
        let range = range(&bytes, section);
        for (at, byte) in changes {
            let at = range.start + at.index(range.len());
            bytes[at] = byte;
        }
        exercise(&bytes);
    }

    #[test]
    fn no_change_of_the_headers_does_harm(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u64>()), 1..4),
    ) {
        let mut bytes = go_binary();
        let table = u64::from_le_bytes(bytes[40..48].try_into().unwrap()) as usize;
        for (at, value) in changes {
            // Words of the file header, the program header and the section headers.
            let places = (120 + bytes.len() - table) / 8 - 1;
            let at = at.index(places) * 8;
            let at = if at < 120 { at } else { table + at - 120 };
            bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
        }
        exercise(&bytes);
    }

    #[test]
    fn no_truncation_does_harm(len in any::<prop::sample::Index>()) {
        let bytes = go_binary();
        exercise(&bytes[..len.index(bytes.len())]);
    }
}
