//! Debug information: struct layouts from whatever an ELF file calls DWARF.
#![no_main]

use libfuzzer_sys::fuzz_target;
use parkwarden::golang::{dwarf, elf::Elf, layout};

fuzz_target!(|bytes: &[u8]| {
    let source: &[u8] = bytes;
    let Ok(elf) = Elf::parse(&source) else { return };
    if let Ok(structs) = dwarf::structs(&source, &elf, &layout::together(&[layout::WANTED])) {
        let _ = layout::RuntimeLayout::from_structs(&structs);
    }
});
