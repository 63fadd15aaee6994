//! The addresses of variables that a function's code names, for finding the runtime's variables in binaries without
//! symbols: `runtime.allgadd` names `runtime.allgs`, whatever the linker did.
//!
//! Deliberately absent: what the code does with them, and trust. Whoever asks checks what is found at the addresses.

use std::collections::BTreeSet;

use iced_x86::{Decoder, DecoderOptions, MemorySize};

use super::Arch;
use super::bytes::u32_at;

/// The addresses that `code`, which runs at `entry`, reads, writes or takes. All link-time if `entry` is.
pub fn addresses(code: &[u8], entry: u64, arch: Arch) -> BTreeSet<u64> {
    match arch {
        Arch::Amd64 => amd64(code, entry),
        Arch::Arm64 => arm64(code, entry),
    }
}

/// Those of [`addresses`] that `code` reads or writes as words of 64 bits. Known for x86-64 only.
pub fn words(code: &[u8], entry: u64, arch: Arch) -> BTreeSet<u64> {
    if arch != Arch::Amd64 {
        return BTreeSet::new();
    }
    Decoder::with_ip(64, code, entry, DecoderOptions::NONE)
        .iter()
        .filter(|instruction| instruction.is_ip_rel_memory_operand())
        .filter(|instruction| matches!(instruction.memory_size(), MemorySize::UInt64 | MemorySize::Int64))
        .map(|instruction| instruction.ip_rel_memory_address())
        .collect()
}

fn amd64(code: &[u8], entry: u64) -> BTreeSet<u64> {
    Decoder::with_ip(64, code, entry, DecoderOptions::NONE)
        .iter()
        .filter(|instruction| instruction.is_ip_rel_memory_operand())
        .map(|instruction| instruction.ip_rel_memory_address())
        .collect()
}

/// `ADRP` names a page; the `ADD`, load or store that follows names the place in it.
fn arm64(code: &[u8], entry: u64) -> BTreeSet<u64> {
    let mut found = BTreeSet::new();
    let mut known: [Option<u64>; 32] = [None; 32];
    for at in (0..code.len()).step_by(4) {
        let Some(word) = u32_at(code, at) else { break };
        let register = |shift: u32| ((word >> shift) & 31) as usize;
        let (target, base) = (register(0), register(5));
        let imm12 = u64::from((word >> 10) & 0xfff);
        if word & 0x9f00_0000 == 0x9000_0000 {
            // ADRP: 21 signed bits of pages.
            let pages = i64::from((((word >> 5) & 0x7_ffff) << 2) | ((word >> 29) & 3));
            let pages = (pages << 43) >> 43;
            let page = entry.wrapping_add(at as u64) & !0xfff;
            known[target] = Some(page.wrapping_add_signed(pages << 12));
            continue;
        }
        let offset = if word & 0xffc0_0000 == 0x9100_0000 {
            // ADD, 64 bits, immediate.
            Some(imm12)
        } else if word & 0x3b00_0000 == 0x3900_0000 {
            // Load or store of an integer, unsigned offset, scaled by its size.
            Some(imm12 << (word >> 30))
        } else if word & 0xffc0_0000 == 0xa940_0000 || word & 0xffc0_0000 == 0xa900_0000 {
            // LDP and STP of 64-bit registers, signed offset.
            let pairs = (i64::from((word >> 15) & 0x7f) << 57) >> 57;
            Some((pairs << 3).cast_unsigned())
        } else {
            None
        };
        let address = offset.and_then(|offset| Some(known[base]?.wrapping_add(offset)));
        found.extend(address);
        // Whatever else an instruction does to its first register, the page is no longer known there.
        let is_add = word & 0xffc0_0000 == 0x9100_0000;
        known[target] = address.filter(|_| is_add);
    }
    found
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_amd64_code_names_is_found() {
        let code = [
            0x48, 0x8b, 0x0d, 0x2e, 0x5d, 0x10, 0x00, // mov rcx, [rip+0x105d2e]
            0x48, 0x89, 0xc8, // mov rax, rcx
            0x48, 0x8d, 0x05, 0xf9, 0xff, 0xff, 0xff, // lea rax, [rip-7]
        ];
        assert_eq!(addresses(&code, 0x1000, Arch::Amd64), BTreeSet::from([0x10_6d35, 0x100a]));
        assert_eq!(words(&code, 0x1000, Arch::Amd64), BTreeSet::from([0x10_6d35]));
    }

    #[test]
    fn what_arm64_code_names_is_found() {
        // From runtime.allgadd of Go 1.27.3: adrp x27; add x27, x27, #624; ldp x0, x1, [x27]; adrp x27; ldr x2, [x27, 640];
        // str x0, [x27, 632]; and a load from a register that is not known.
        let words = [0xd000_09bb_u32, 0x9109_c37b, 0xa940_0760, 0xd000_09bb, 0xf941_4362, 0xf901_3f60, 0xf940_0020];
        let code: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        let page = 0x5_4000 + ((0x9bb >> 5 << 2 | 2) << 12);
        let expected = BTreeSet::from([page + 624, page + 640, page + 632]);
        assert_eq!(addresses(&code, 0x5_4be0, Arch::Arm64), expected);
    }

    proptest! {
        #[test]
        fn any_bytes_are_decoded(code in proptest::collection::vec(any::<u8>(), 0..200), entry: u64, arm: bool) {
            let found = addresses(&code, entry, if arm { Arch::Arm64 } else { Arch::Amd64 });
            prop_assert!(found.len() <= code.len());
        }
    }
}
