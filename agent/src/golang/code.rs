//! What the code of a function does, without running it: whom it calls, on how many conditions, and what it takes from its closure.
//!
//! Deliberately absent: what it computes.

use iced_x86::{Decoder, DecoderOptions, FlowControl, Mnemonic, OpKind, Register};

use super::Arch;

/// Code of one function looked at: longer ones are not understood.
pub(crate) const MAX_CODE: u64 = 1 << 16;
/// Where in a struct a lock is looked for at most.
const MAX_ADDED: u64 = 1 << 16;

/// See the module.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Code {
    /// Where its direct calls lead, tail calls included.
    pub(crate) calls: Vec<u64>,
    /// Conditional jumps.
    pub(crate) jumps: u32,
    /// Offsets in its closure of what it reads there.
    pub(crate) captured: Vec<u64>,
    /// Numbers that are added to registers other than the stack's.
    pub(crate) added: Vec<u64>,
}

impl Code {
    /// What the code of a function tells that begins at `entry`.
    pub(crate) fn read(arch: Arch, code: &[u8], entry: u64) -> Self {
        match arch {
            Arch::Amd64 => Self::amd64(code, entry),
            Arch::Arm64 => Self::arm64(code, entry),
        }
    }

    /// RDX is the closure (src/cmd/compile/abi-internal.md).
    fn amd64(code: &[u8], entry: u64) -> Self {
        let mut told = Self::default();
        let inside = entry..entry.saturating_add(code.len() as u64);
        for instruction in &mut Decoder::with_ip(64, code, entry, DecoderOptions::NONE) {
            match instruction.flow_control() {
                FlowControl::Call => told.calls.push(instruction.near_branch_target()),
                FlowControl::UnconditionalBranch if !inside.contains(&instruction.near_branch_target()) => {
                    told.calls.push(instruction.near_branch_target());
                }
                FlowControl::ConditionalBranch => told.jumps += 1,
                _ => {}
            }
            let of_stack =
                |register| matches!(register, Register::RSP | Register::RBP | Register::RIP | Register::None);
            match instruction.mnemonic() {
                Mnemonic::Add if is_number(instruction.op1_kind()) && !of_stack(instruction.op0_register()) => {
                    told.add(instruction.immediate(1));
                }
                Mnemonic::Lea if !of_stack(instruction.memory_base()) => told.add(instruction.memory_displacement64()),
                _ => {}
            }
            if instruction.memory_base() == Register::RDX && instruction.memory_index() == Register::None {
                told.capture(instruction.memory_displacement64());
            }
        }
        told
    }

    /// R26 is the closure.
    fn arm64(code: &[u8], entry: u64) -> Self {
        let mut told = Self::default();
        for (at, word) in code.chunks_exact(4).enumerate() {
            let word = u32::from_le_bytes([word[0], word[1], word[2], word[3]]);
            let pc = entry.wrapping_add(4 * at as u64);
            let base = (word >> 5) & 31;
            if word & 0xfc00_0000 == 0x9400_0000 {
                // BL: 26 signed bits of words.
                let words = (i64::from(word & 0x3ff_ffff) << 38) >> 38;
                told.calls.push(pc.wrapping_add_signed(words << 2));
            } else if word & 0xff00_0010 == 0x5400_0000
                || word & 0x7e00_0000 == 0x3400_0000
                || word & 0x7e00_0000 == 0x3600_0000
            {
                // B.cond; CBZ and CBNZ; TBZ and TBNZ.
                told.jumps += 1;
            } else if word & 0xffc0_0000 == 0x9100_0000 && base != 31 {
                // ADD of 64 bits, immediate.
                told.add(u64::from((word >> 10) & 0xfff));
            } else if word & 0xffc0_0000 == 0xf940_0000 && base == 26 {
                // LDR of 64 bits, unsigned offset.
                told.capture(u64::from((word >> 10) & 0xfff) * 8);
            } else if word & 0xffc0_0000 == 0xa940_0000 && base == 26 {
                // LDP of 64 bits, signed offset.
                let offset = u64::from((word >> 15) & 0x3f) * 8;
                told.capture(offset);
                told.capture(offset + 8);
            }
        }
        told
    }

    /// Offsets of locks are multiples of four.
    fn add(&mut self, number: u64) {
        if (4..=MAX_ADDED).contains(&number) && number.is_multiple_of(4) && !self.added.contains(&number) {
            self.added.push(number);
        }
    }

    fn capture(&mut self, offset: u64) {
        if (8..=256).contains(&offset) && offset.is_multiple_of(8) && !self.captured.contains(&offset) {
            self.captured.push(offset);
        }
    }
}

/// Whether an operand is in the instruction itself.
fn is_number(kind: OpKind) -> bool {
    matches!(kind, OpKind::Immediate8to64 | OpKind::Immediate32to64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_tells_its_calls_its_conditions_and_what_it_takes_from_its_closure() {
        // cmp rsp,[r14+10h]; jbe +9; mov rax,[rdx+8]; call 0x1020; ret
        let code = [0x49, 0x3b, 0x66, 0x10, 0x76, 0x0a, 0x48, 0x8b, 0x42, 0x08, 0xe8, 0x11, 0, 0, 0, 0xc3];
        assert_eq!(
            Code::amd64(&code, 0x1000),
            Code { calls: vec![0x1020], jumps: 1, captured: vec![8], added: Vec::new() }
        );
        // sub rsp,10h; mov rax,[rdx+8]; add rax,18h; lea rcx,[rax+20h]; add rsp,10h; lea rbx,[rsp+8]
        let code = [
            0x48, 0x83, 0xec, 0x10, 0x48, 0x8b, 0x42, 0x08, 0x48, 0x83, 0xc0, 0x18, 0x48, 0x8d, 0x48, 0x20, 0x48, 0x83,
            0xc4, 0x10, 0x48, 0x8d, 0x5c, 0x24, 0x08,
        ];
        assert_eq!(Code::amd64(&code, 0x1000).added, [0x18, 0x20]);
        // ldr x0,[x26,#8]; cbz x0,.+8; bl .+16
        let words: [u32; 3] = [0xf940_0740, 0xb400_0040, 0x9400_0004];
        let code: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        assert_eq!(
            Code::arm64(&code, 0x1000),
            Code { calls: vec![0x1018], jumps: 1, captured: vec![8], added: Vec::new() }
        );
        // add x0,x0,#24; add x1,sp,#16
        let code: Vec<u8> = [0x9100_6000_u32, 0x9100_43e1].iter().flat_map(|word| word.to_le_bytes()).collect();
        assert_eq!(Code::arm64(&code, 0x1000).added, [24]);
    }
}
