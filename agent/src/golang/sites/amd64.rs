//! x86-64: Go's ABIInternal registers, and what `arch/x86/kernel/uprobes.c` does with an instruction.

use iced_x86::{
    Decoder, DecoderOptions, FlowControl, Formatter as _, Instruction as X86, InstructionInfoFactory, IntelFormatter,
    Mnemonic, OpAccess, OpKind,
};
use parkwarden_common::record::Kind;

use super::flow::{Code, Flow, Instruction, Registers};
use super::{Bytes, Kernel, Opaque, SiteClass, SiteKind, Wanted};

const RAX: u32 = 0;
const RCX: u32 = 1;
const RBX: u32 = 3;
/// The current g.
const R14: u32 = 14;

pub(super) const WANTED: [Wanted; 4] = [
    Wanted {
        kind: Kind::Created,
        asked: "newproc",
        // The closure that newproc runs on the system stack. At `runqput(pp, newg, true)` the new g is complete.
        function: "runtime.newproc.func1",
        place: SiteKind::Call { callee: "runtime.runqput", register: Registers::of(&[RBX]) },
    },
    Wanted {
        kind: Kind::Parked,
        asked: "gopark",
        function: "runtime.gopark",
        // The wait reason is the third argument.
        place: SiteKind::Entry(Registers::of(&[R14, RCX])),
    },
    Wanted {
        kind: Kind::Readied,
        asked: "goready",
        // goready is inlined; what runs is the function it calls on the system stack.
        function: "runtime.ready",
        place: SiteKind::Entry(Registers::of(&[R14, RAX])),
    },
    Wanted {
        kind: Kind::Exited,
        asked: "goexit",
        // Goroutines return into goexit behind its first instruction; goexit1 is what it calls.
        function: "runtime.goexit1",
        place: SiteKind::Entry(Registers::of(&[R14])),
    },
];

/// Decodes what is reachable in a function.
pub(super) fn read(code: &Bytes<'_>, kernel: Kernel) -> Result<Code, Opaque> {
    let mut infos = InstructionInfoFactory::new();
    let mut formatter = IntelFormatter::new();
    formatter.options_mut().set_hex_prefix("0x");
    formatter.options_mut().set_hex_suffix("");
    formatter.options_mut().set_branch_leading_zeros(false);
    formatter.options_mut().set_space_after_operand_separator(true);
    let end = code.entry.saturating_add(code.bytes.len() as u64);
    Code::follow(code.entry, end, |address| {
        let bytes = code.bytes.get(usize::try_from(address.checked_sub(code.entry)?).ok()?..)?;
        let decoded = Decoder::with_ip(64, bytes, address, DecoderOptions::NONE).decode();
        if decoded.is_invalid() {
            return None;
        }
        let mut writes = Registers::default();
        for used in infos.info(&decoded).used_registers() {
            let register = used.register().full_register();
            if !matches!(used.access(), OpAccess::None | OpAccess::Read | OpAccess::CondRead | OpAccess::NoMemAccess)
                && register.is_gpr64()
            {
                writes.insert(register.number() as u32);
            }
        }
        let mut text = String::new();
        formatter.format(&decoded, &mut text);
        Some(Instruction {
            length: decoded.len() as u8,
            flow: flow(&decoded),
            writes,
            class: class(&decoded, bytes.get(..decoded.len())?, kernel),
            text,
        })
    })
}

fn flow(instruction: &X86) -> Flow {
    let direct = matches!(instruction.op0_kind(), OpKind::NearBranch64);
    match instruction.flow_control() {
        FlowControl::Next => Flow::Next,
        FlowControl::Call if instruction.mnemonic() == Mnemonic::Call => {
            Flow::Call(direct.then(|| instruction.near_branch_target()))
        }
        FlowControl::IndirectCall => Flow::Call(None),
        FlowControl::UnconditionalBranch if direct => Flow::Jump(instruction.near_branch_target()),
        FlowControl::ConditionalBranch if direct => Flow::Branch(instruction.near_branch_target()),
        FlowControl::Return => Flow::Return,
        FlowControl::Exception | FlowControl::Interrupt => Flow::Trap,
        _ => Flow::Unknown,
    }
}

/// The price of a probe on an instruction, `None` where there must be none.
fn class(instruction: &X86, bytes: &[u8], kernel: Kernel) -> Option<SiteClass> {
    use Mnemonic::*;
    // The prefixes that the kernel refuses.
    let opcode = bytes.iter().position(|byte| !matches!(byte, 0x66 | 0xf2 | 0xf3 | 0x64 | 0x65))?;
    if matches!(bytes[opcode], 0x26 | 0x2e | 0x36 | 0x3e | 0xf0 | 0x67) {
        return None;
    }
    let plain = opcode == 0;
    match (instruction.mnemonic(), bytes) {
        (Nop, [0x90]) => Some(SiteClass::Emulated),
        (Nop, [0x66, 0x90]) => kernel.prefixed_nop.then_some(SiteClass::Emulated),
        (Nop, [0x0f, 0x1f, ..] | [0x66, 0x0f, 0x1f, ..]) if !kernel.long_nops => Some(SiteClass::SingleStep),
        (Nop, [0x0f, 0x1f, _, _, _]) if instruction.ip() % 4096 <= 4096 - 5 => Some(SiteClass::Nop5),
        (Nop, [0x0f, 0x1f, ..] | [0x66, 0x0f, 0x1f, ..]) => Some(SiteClass::Emulated),
        (Nop, _) => None,
        (Push, [0x50..=0x57] | [0x41, 0x50..=0x57]) => Some(SiteClass::Emulated),
        (Call, [0xe8, ..]) | (Jmp, [0xe9 | 0xeb, ..]) => Some(SiteClass::Emulated),
        _ if plain && instruction.is_jcc_short_or_near() => Some(SiteClass::Emulated),
        // Out of line only what is known to be harmless there; the list is of what Go emits at these places.
        (
            Mov | Movzx | Movsx | Movsxd | Lea | Add | Sub | And | Or | Xor | Cmp | Test | Inc | Dec | Shl | Shr | Sar
            | Push | Movups | Movaps | Movdqu | Xorps,
            _,
        ) if instruction.flow_control() == FlowControl::Next && !instruction.has_lock_prefix() => {
            Some(SiteClass::SingleStep)
        }
        _ => None,
    }
}
