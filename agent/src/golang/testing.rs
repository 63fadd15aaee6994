//! A small Go binary made by hand, for tests that change its bytes.

use super::layout::{WANTED, together};
use super::proof_layout;

/// An ELF executable with the given sections (name, type, flags, address, link, contents), all in one segment at
/// `BASE`.
pub(super) struct Builder {
    sections: Vec<(String, u32, u64, u32, Vec<u8>)>,
}

/// Where the file is loaded.
pub(super) const BASE: u64 = 0x40_0000;
const HEADERS: usize = 64 + 56;

impl Builder {
    pub(super) fn new() -> Self {
        Self { sections: vec![(String::new(), 0, 0, 0, Vec::new())] }
    }

    /// Adds a section; answers its address, which counts from `BASE` like its file offset from 0.
    pub(super) fn section(&mut self, name: &str, kind: u32, flags: u64, link: u32, contents: Vec<u8>) -> u64 {
        let at = self.offset();
        self.sections.push((name.to_owned(), kind, flags, link, contents));
        BASE + at as u64
    }

    /// Where the next section will lie in the file.
    pub(super) fn offset(&self) -> usize {
        self.sections.iter().fold(HEADERS.next_multiple_of(16), |at, section| at + section.4.len().next_multiple_of(16))
    }

    pub(super) fn build(mut self) -> Vec<u8> {
        let mut names = Vec::new();
        let mut offsets = Vec::new();
        for (name, ..) in &self.sections {
            offsets.push(names.len() as u32);
            names.extend_from_slice(name.as_bytes());
            names.push(0);
        }
        offsets.push(names.len() as u32);
        names.extend_from_slice(b".shstrtab\0");
        self.section(".shstrtab", 3, 0, 0, names);
        let table = self.offset();
        let mut file = vec![0u8; table];
        let mut at = HEADERS.next_multiple_of(16);
        for ((_, kind, flags, link, contents), name) in self.sections.iter().zip(&offsets) {
            file[at..at + contents.len()].copy_from_slice(contents);
            let mut header = Vec::new();
            header.extend_from_slice(&name.to_le_bytes());
            header.extend_from_slice(&kind.to_le_bytes());
            for word in [*flags, BASE + at as u64, at as u64, contents.len() as u64] {
                header.extend_from_slice(&word.to_le_bytes());
            }
            header.extend_from_slice(&link.to_le_bytes());
            header.resize(64, 0);
            file.extend_from_slice(&header);
            at += contents.len().next_multiple_of(16);
        }
        let size = file.len() as u64;
        let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &[0x7f, b'E', b'L', b'F', 2, 1, 1]);
        put(16, &[2, 0, 62, 0]);
        put(32, &64u64.to_le_bytes());
        put(40, &(table as u64).to_le_bytes());
        for (index, half) in [64u16, 56, 1, 64, self.sections.len() as u16, offsets.len() as u16 - 1].iter().enumerate()
        {
            put(52 + index * 2, &half.to_le_bytes());
        }
        put(64, &[1, 0, 0, 0, 7, 0, 0, 0]);
        for (index, word) in [0, BASE, BASE, size, size].iter().enumerate() {
            put(72 + index * 8, &word.to_le_bytes());
        }
        file
    }
}

/// A binary of Go 1.27.3 with every table that parsing needs: [`super::pclntab`]'s two functions, the structs of
/// [`WANTED`] as DWARF 5, and the symbols `runtime.text` and `runtime.allgs`.
pub(super) fn go_binary() -> Vec<u8> {
    let mut builder = Builder::new();
    let text = builder.section(".text", 1, 6, 0, vec![0x90; 32]);
    builder.section(".gopclntab", 1, 2, 0, super::pclntab::tests::small());
    builder.section(".go.buildinfo", 1, 3, 0, build_info());
    builder.section(".debug_abbrev", 1, 0, 0, abbreviations());
    builder.section(".debug_info", 1, 0, 0, debug_info());
    let mut symbols = vec![0u8; 24];
    for (name, address) in [(1u32, text), (14, BASE + 0x500)] {
        symbols.extend_from_slice(&name.to_le_bytes());
        symbols.extend_from_slice(&[0, 0, 1, 0]);
        symbols.extend_from_slice(&address.to_le_bytes());
        symbols.extend_from_slice(&24u64.to_le_bytes());
    }
    builder.section(".symtab", 2, 0, 7, symbols);
    builder.section(".strtab", 3, 0, 0, b"\0runtime.text\0runtime.allgs\0".to_vec());
    builder.build()
}

fn build_info() -> Vec<u8> {
    let mut blob = b"\xff Go buildinf:\x08\x02".to_vec();
    blob.resize(32, 0);
    blob.push(8);
    blob.extend_from_slice(b"go1.27.3");
    let modules = "path\texample.com/a\nmod\texample.com/a\tv1.0.0\t\n";
    blob.push(32 + modules.len() as u8);
    blob.extend_from_slice(&[0x30; 16]);
    blob.extend_from_slice(modules.as_bytes());
    blob.extend_from_slice(&[0xf9; 16]);
    blob
}

/// 1: unit (name); 2: struct (name, size); 3: member (name, offset, type); 4: base type (size).
fn abbreviations() -> Vec<u8> {
    const STRING: u8 = 0x08;
    const UDATA: u8 = 0x0f;
    const REF4: u8 = 0x13;
    let mut bytes = Vec::new();
    for (code, tag, children, attributes) in [
        (1u8, 0x11u8, 1u8, &[(0x03u8, STRING)][..]),
        (2, 0x13, 1, &[(0x03, STRING), (0x0b, UDATA)]),
        (3, 0x0d, 0, &[(0x03, STRING), (0x38, UDATA), (0x49, REF4)]),
        (4, 0x24, 0, &[(0x0b, UDATA)]),
    ] {
        bytes.extend_from_slice(&[code, tag, children]);
        for (name, form) in attributes {
            bytes.extend_from_slice(&[*name, *form]);
        }
        bytes.extend_from_slice(&[0, 0]);
    }
    bytes.push(0);
    bytes
}

fn debug_info() -> Vec<u8> {
    let mut unit = vec![0u8; 4];
    unit.extend_from_slice(&[5, 0, 1, 8, 0, 0, 0, 0, 1]);
    unit.extend_from_slice(b"runtime\0");
    let base = |unit: &mut Vec<u8>, size: u32| {
        let at = unit.len() as u32;
        unit.extend_from_slice(&[4, size as u8]);
        at
    };
    let words: Vec<(u32, u32)> = [1, 4, 8].map(|size| (size, base(&mut unit, size))).to_vec();
    let member = |unit: &mut Vec<u8>, name: &str, offset: u32, kind: u32| {
        unit.push(3);
        unit.extend_from_slice(name.as_bytes());
        unit.push(0);
        unit.extend_from_slice(&[(offset & 0x7f) as u8 | 0x80, (offset >> 7) as u8]);
        unit.extend_from_slice(&kind.to_le_bytes());
    };
    let structure = |unit: &mut Vec<u8>, name: &str, size: u32, members: &[(&str, u32, u32)]| {
        let at = unit.len() as u32;
        unit.push(2);
        unit.extend_from_slice(name.as_bytes());
        unit.push(0);
        unit.extend_from_slice(&[(size & 0x7f) as u8 | 0x80, (size >> 7) as u8]);
        for (name, offset, kind) in members {
            member(unit, name, *offset, *kind);
        }
        unit.push(0);
        at
    };
    type Members = Vec<(&'static str, u32, u32)>;
    for (name, fields) in together(&[WANTED, proof_layout::WANTED]) {
        // Paths become one nested struct for each first part, 64 bytes large.
        let mut members = Members::new();
        let mut offset = 0;
        let mut nested: Vec<(&str, Members)> = Vec::new();
        for (path, size) in fields {
            let kind = words.iter().find(|(known, _)| *known == size).map_or(words[2].1, |(_, at)| *at);
            match path.split_once('.') {
                None => {
                    members.push((path, offset, kind));
                    offset += 8;
                }
                Some((outer, inner)) => {
                    if nested.last().is_none_or(|(name, _)| *name != outer) {
                        nested.push((outer, Vec::new()));
                    }
                    let inside = &mut nested.last_mut().unwrap().1;
                    inside.push((inner, inside.len() as u32 * 8, kind));
                }
            }
        }
        for (outer, inside) in &nested {
            let at = structure(&mut unit, "runtime.nested", 64, inside);
            members.push((outer, offset, at));
            offset += 64;
        }
        structure(&mut unit, name, offset, &members);
    }
    unit.push(0);
    let length = (unit.len() as u32 - 4).to_le_bytes();
    unit[..4].copy_from_slice(&length);
    unit
}
