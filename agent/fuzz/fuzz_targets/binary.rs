//! A whole executable: ELF, build information, symbols, layouts, function tables, and what is done with them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use parkwarden::golang::binary::GoBinary;
use parkwarden::golang::sites::{self, BinaryFunctions, Kernel};

fuzz_target!(|bytes: &[u8]| {
    let source: &[u8] = bytes;
    let Ok(binary) = GoBinary::parse(&source) else { return };
    let _ = sites::plan(binary.arch, Kernel::from_version(6, 18), &BinaryFunctions::new(&binary, &source));
    for func in binary.pclntab.functions().take(64) {
        let _ = binary.pclntab.frames(func.entry);
        let _ = binary.pclntab.sp_delta(&func, func.entry);
    }
});
