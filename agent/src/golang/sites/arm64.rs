//! arm64: Go's ABIInternal registers, and what `arch/arm64/kernel/probes/decode-insn.c` does with an instruction.
//!
//! Control flow and price are read from the instruction word with the same masks as the kernel's, so that the two
//! cannot disagree; the disassembler tells what is written and how to print it.

use parkwarden_common::record::Kind;
use yaxpeax_arch::{Decoder as _, U8Reader};
use yaxpeax_arm::armv8::a64::{InstDecoder, Instruction as A64, Opcode, Operand};

use super::flow::{Code, Flow, Instruction, Registers};
use super::{Bytes, Opaque, SiteClass, SiteKind, Wanted};

/// The current g.
const X28: u32 = 28;

pub(super) const WANTED: [Wanted; 4] = [
    Wanted {
        kind: Kind::Created,
        asked: "newproc",
        function: "runtime.newproc.func1",
        place: SiteKind::Call { callee: "runtime.runqput", register: Registers::of(&[1]) },
    },
    Wanted {
        kind: Kind::Parked,
        asked: "gopark",
        function: "runtime.gopark",
        place: SiteKind::Entry(Registers::of(&[X28, 2])),
    },
    Wanted {
        kind: Kind::Readied,
        asked: "goready",
        function: "runtime.ready",
        place: SiteKind::Entry(Registers::of(&[X28, 0])),
    },
    Wanted {
        kind: Kind::Exited,
        asked: "goexit",
        function: "runtime.goexit1",
        place: SiteKind::Entry(Registers::of(&[X28])),
    },
];

/// Decodes what is reachable in a function.
pub(super) fn read(code: &Bytes<'_>) -> Result<Code, Opaque> {
    let end = code.entry.saturating_add(code.bytes.len() as u64);
    Code::follow(code.entry, end, |address| {
        let start = usize::try_from(address.checked_sub(code.entry)?).ok()?;
        let bytes: [u8; 4] = code.bytes.get(start..start.checked_add(4)?)?.try_into().ok()?;
        let word = u32::from_le_bytes(bytes);
        let flow = flow(word, address);
        if flow == Flow::Trap {
            return Some(Instruction {
                length: 4,
                flow,
                writes: Registers::default(),
                class: None,
                text: format!("{word:#010x}"),
            });
        }
        let decoded = InstDecoder::default().decode(&mut U8Reader::new(&bytes)).ok()?;
        Some(Instruction {
            length: 4,
            flow,
            writes: writes(&decoded),
            class: class(word, decoded.opcode),
            text: text(&decoded, flow),
        })
    })
}

/// Names the target of a jump, which the disassembler gives as a distance.
fn text(decoded: &A64, flow: Flow) -> String {
    match flow {
        Flow::Call(Some(target)) => format!("bl {target:#x}"),
        Flow::Jump(target) => format!("b {target:#x}"),
        _ => decoded.to_string(),
    }
}

const fn matches(word: u32, mask: u32, value: u32) -> bool {
    word & mask == value
}

const fn is_b(word: u32) -> bool {
    matches(word, 0xfc00_0000, 0x1400_0000)
}

const fn is_bl(word: u32) -> bool {
    matches(word, 0xfc00_0000, 0x9400_0000)
}

const fn is_b_cond(word: u32) -> bool {
    matches(word, 0xff00_0010, 0x5400_0000)
}

/// `cbz` and `cbnz`.
const fn is_cbz(word: u32) -> bool {
    matches(word, 0x7e00_0000, 0x3400_0000)
}

/// `tbz` and `tbnz`.
const fn is_tbz(word: u32) -> bool {
    matches(word, 0x7e00_0000, 0x3600_0000)
}

const fn is_blr(word: u32) -> bool {
    matches(word, 0xffff_fc1f, 0xd63f_0000)
}

const fn is_ret(word: u32) -> bool {
    matches(word, 0xffff_fc1f, 0xd65f_0000)
}

/// `adr` and `adrp`.
const fn is_adr(word: u32) -> bool {
    matches(word, 0x1f00_0000, 0x1000_0000)
}

/// Branches, exceptions and system instructions: one class of the encoding.
const fn is_branch_or_system(word: u32) -> bool {
    matches(word, 0x1c00_0000, 0x1400_0000)
}

fn flow(word: u32, address: u64) -> Flow {
    let target = |low: u32, bits: u32| {
        // The signed distance in words, shifted to the top of an i64 and back.
        let field = i64::from(word >> low) << (64 - bits) >> (64 - bits);
        address.wrapping_add_signed(field * 4)
    };
    if is_b(word) {
        Flow::Jump(target(0, 26))
    } else if is_bl(word) {
        Flow::Call(Some(target(0, 26)))
    } else if is_b_cond(word) || is_cbz(word) {
        Flow::Branch(target(5, 19))
    } else if is_tbz(word) {
        Flow::Branch(target(5, 14))
    } else if is_blr(word) {
        Flow::Call(None)
    } else if is_ret(word) {
        Flow::Return
    } else if matches(word, 0xffff_0000, 0) || matches(word, 0xff00_0000, 0xd400_0000) {
        // udf; svc, brk and their kin. Go's runtime traps where it must not go on.
        Flow::Trap
    } else if is_branch_or_system(word) && !matches(word, 0xffc0_0000, 0xd500_0000) {
        Flow::Unknown
    } else {
        Flow::Next
    }
}

/// The price of a probe on an instruction, `None` where there must be none.
fn class(word: u32, opcode: Opcode) -> Option<SiteClass> {
    if is_b(word) || is_bl(word) || is_b_cond(word) || is_cbz(word) || is_tbz(word) || is_adr(word) {
        return Some(SiteClass::Emulated);
    }
    let literal = matches(word, 0x3b00_0000, 0x1800_0000);
    // Exclusive loads and stores: a probe in their midst makes them fail for ever.
    let exclusive = matches(word, 0x3f00_0000, 0x0800_0000);
    if is_branch_or_system(word) || literal || exclusive {
        return None;
    }
    (is_store_or_compare(opcode) || is_load(opcode) || is_arithmetic(opcode)).then_some(SiteClass::SingleStep)
}

fn is_store_or_compare(opcode: Opcode) -> bool {
    matches!(
        opcode,
        Opcode::STP | Opcode::STR | Opcode::STRB | Opcode::STRH | Opcode::STUR | Opcode::STURB | Opcode::STURH
    )
}

fn is_load(opcode: Opcode) -> bool {
    matches!(
        opcode,
        Opcode::LDR
            | Opcode::LDRB
            | Opcode::LDRH
            | Opcode::LDRSB
            | Opcode::LDRSH
            | Opcode::LDRSW
            | Opcode::LDUR
            | Opcode::LDURB
            | Opcode::LDURH
            | Opcode::LDURSB
            | Opcode::LDURSH
            | Opcode::LDURSW
            | Opcode::LDAR
            | Opcode::LDARB
    )
}

/// Instructions that write their first operand and nothing else.
fn is_arithmetic(opcode: Opcode) -> bool {
    matches!(
        opcode,
        Opcode::MOVN
            | Opcode::MOVK
            | Opcode::MOVZ
            | Opcode::AND
            | Opcode::ANDS
            | Opcode::ORR
            | Opcode::ORN
            | Opcode::EOR
            | Opcode::BIC
            | Opcode::ADD
            | Opcode::ADDS
            | Opcode::SUB
            | Opcode::SUBS
            | Opcode::BFM
            | Opcode::UBFM
            | Opcode::SBFM
            | Opcode::ADR
            | Opcode::ADRP
    )
}

/// The general registers an instruction writes. Of instructions that are not known here: all that it names.
fn writes(instruction: &A64) -> Registers {
    let results = match instruction.opcode {
        opcode if is_store_or_compare(opcode) => 0,
        opcode if is_load(opcode) || is_arithmetic(opcode) => 1,
        Opcode::B | Opcode::Bcc(_) | Opcode::CBZ | Opcode::CBNZ | Opcode::TBZ | Opcode::TBNZ | Opcode::RET => 0,
        Opcode::STLR | Opcode::STLRB | Opcode::STLRH | Opcode::CCMP | Opcode::CCMN | Opcode::HINT => 0,
        Opcode::LDP => 2,
        _ => instruction.operands.len(),
    };
    let mut registers = Registers::default();
    let mut insert = |number: u16| {
        // 31 is the zero register or the stack pointer.
        if number < 31 {
            registers.insert(number.into());
        }
    };
    for (index, operand) in instruction.operands.iter().enumerate() {
        match *operand {
            Operand::Register(_, number) | Operand::RegisterOrSP(_, number) if index < results => insert(number),
            Operand::RegisterPair(_, number) if index < results => {
                insert(number);
                insert(number.saturating_add(1));
            }
            Operand::RegPreIndex(base, _, true)
            | Operand::RegPostIndex(base, _)
            | Operand::RegPostIndexReg(base, _) => insert(base),
            _ => {}
        }
    }
    registers
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(word: u32) -> A64 {
        InstDecoder::default().decode(&mut U8Reader::new(&word.to_le_bytes())).expect("a valid instruction")
    }

    #[test]
    fn the_price_is_the_kernels() {
        use SiteClass::{Emulated, SingleStep};
        for (word, expected, text) in [
            (0x1400_0002, Some(Emulated), "b"),
            (0x9400_0002, Some(Emulated), "bl"),
            (0x5400_03a1, Some(Emulated), "b.ne"),
            (0xb400_02e1, Some(Emulated), "cbz x1"),
            (0x3500_00a1, Some(Emulated), "cbnz w1"),
            (0x3700_0083, Some(Emulated), "tbnz"),
            (0xf000_265b, Some(Emulated), "adrp"),
            (0xf81e_0ffe, Some(SingleStep), "str x30, [sp, #-32]!"),
            (0xd100_23fd, Some(SingleStep), "sub x29, sp, #8"),
            (0xd65f_03c0, None, "ret"),
            (0xd503_201f, None, "nop"),
            (0x5800_0040, None, "ldr x0, literal"),
            (0x885f_7c20, None, "ldxr w0, [x1]"),
            (0xd63f_0000, None, "blr x0"),
        ] {
            assert_eq!(class(word, decoded(word).opcode), expected, "{text}");
        }
    }

    #[test]
    fn written_registers() {
        for (word, expected, text) in [
            (0xf940_0f42, &[2][..], "ldr x2, [x26, #24]"),
            (0xa940_8740, &[0, 1], "ldp x0, x1, [x26, #8]"),
            (0xa900_0760, &[], "stp x0, x1, [x27]"),
            (0xf81e_0ffe, &[], "str x30, [sp, #-32]!"),
            (0xf800_8c41, &[2], "str x1, [x2, #8]!"),
            (0xeb30_63ff, &[], "cmp sp, x16"),
            (0xaa00_03e1, &[1], "mov x1, x0"),
            (0x7100_109f, &[], "cmp w4, #4"),
            // Not in the list: taken to write whatever it names.
            (0x9b02_7c20, &[0, 1, 2], "mul x0, x1, x2"),
        ] {
            assert_eq!(writes(&decoded(word)), Registers::of(expected), "{text}");
        }
    }

    #[test]
    fn targets_of_jumps() {
        assert_eq!(flow(0x17ff_ffe6, 0x871b8), Flow::Jump(0x87150));
        assert_eq!(flow(0x97ff_80d8, 0x87190), Flow::Call(Some(0x674f0)));
        assert_eq!(flow(0x5400_02c9, 0x87158), Flow::Branch(0x871b0));
        assert_eq!(flow(0x3600_0045, 0x8719c), Flow::Branch(0x871a4));
        assert_eq!(flow(0xd61f_0000, 0), Flow::Unknown);
        assert_eq!(flow(0, 0), Flow::Trap);
        assert_eq!(flow(0xd503_201f, 0), Flow::Next);
    }
}
