//! Machine code of the functions that are probed, on both architectures.
#![no_main]

use libfuzzer_sys::fuzz_target;
use parkwarden::golang::Arch;
use parkwarden::golang::sites::{self, FunctionRange, Functions, Kernel};

/// Every function has the same code, each at an address of its own.
struct Fuzzed<'a>(&'a [u8]);

impl Functions for Fuzzed<'_> {
    fn find(&self, name: &str) -> Option<FunctionRange> {
        let entry = 0x40_0000 + name.bytes().map(u64::from).sum::<u64>() * 0x100;
        Some(FunctionRange { name: name.to_owned(), entry, end: entry + self.0.len() as u64 })
    }

    fn code(&self, _range: &FunctionRange) -> Option<Vec<u8>> {
        Some(self.0.to_vec())
    }

    fn inlined_into(&self, _name: &str) -> Option<String> {
        None
    }
}

fuzz_target!(|input: (bool, u8, &[u8])| {
    let (arm, minor, code) = input;
    let arch = if arm { Arch::Arm64 } else { Arch::Amd64 };
    let _ = sites::plan(arch, Kernel::from_version(6, u32::from(minor % 32)), &Fuzzed(code));
});
