//! Code of parkwarden's own to probe: places of each site class, and a loop that passes them with registers set as the Go
//! runtime has them at its probe sites.
//!
//! Assembly, because the class of a place is its very instruction.

use std::arch::global_asm;

use crate::golang::sites::SiteClass;

/// Places of the class [`SiteClass::Nop5`].
const NOPS: usize = 4;

/// Places of the class [`SiteClass::Emulated`]: one for each program and kind of event that is measured.
const EMULATED: usize = 12;

/// Bytes from one place to the next.
const STRIDE: usize = 16;

#[cfg(target_arch = "x86_64")]
global_asm!(
    ".pushsection .text",
    ".p2align 6",
    // Another part of this crate may refer to them, but nobody else.
    ".globl parkwarden_probe_sites",
    ".hidden parkwarden_probe_sites",
    ".globl parkwarden_pass_site",
    ".hidden parkwarden_pass_site",
    "parkwarden_probe_sites:",
    // 5-byte nops that cross no page.
    ".rept 4",
    ".byte 0x0f, 0x1f, 0x44, 0x00, 0x00",
    "ret",
    ".p2align 4",
    ".endr",
    // The kernel emulates a push.
    ".rept 12",
    "pushq %rbp",
    "popq %rbp",
    "ret",
    ".p2align 4",
    ".endr",
    // What the kernel steps over: no jump, call, push or nop.
    "leaq (%rax), %rax",
    "ret",
    ".p2align 4",
    // parkwarden_pass_site(count, g, site): the registers of crate `ebpf`'s `registers`.
    "parkwarden_pass_site:",
    "pushq %rbp",
    "pushq %rbx",
    "pushq %r14",
    "movq %rsi, %r14",
    "movq %rsi, %rbx",
    "movl $7, %ecx",
    "2:",
    "movq %rsi, %rax",
    "callq *%rdx",
    "decq %rdi",
    "jnz 2b",
    "popq %r14",
    "popq %rbx",
    "popq %rbp",
    "ret",
    ".popsection",
    options(att_syntax)
);

#[cfg(target_arch = "aarch64")]
global_asm!(
    ".pushsection .text",
    ".p2align 6",
    // Another part of this crate may refer to them, but nobody else.
    ".globl parkwarden_probe_sites",
    ".hidden parkwarden_probe_sites",
    ".globl parkwarden_pass_site",
    ".hidden parkwarden_pass_site",
    "parkwarden_probe_sites:",
    // There is no such class here; the places keep the order.
    ".rept 4",
    "nop",
    "ret",
    ".p2align 4",
    ".endr",
    // The kernel simulates an adr.
    ".rept 12",
    "adr x9, .",
    "ret",
    ".p2align 4",
    ".endr",
    "add x9, x9, #1",
    "ret",
    ".p2align 4",
    "parkwarden_pass_site:",
    "stp x29, x30, [sp, #-48]!",
    "stp x28, x19, [sp, #16]",
    "stp x20, x21, [sp, #32]",
    "mov x19, x0",
    "mov x20, x1",
    "mov x21, x2",
    "mov x28, x1",
    "2:",
    "mov x0, x20",
    "mov x1, x20",
    "mov w2, #7",
    "blr x21",
    "subs x19, x19, #1",
    "b.ne 2b",
    "ldp x20, x21, [sp, #32]",
    "ldp x28, x19, [sp, #16]",
    "ldp x29, x30, [sp], #48",
    "ret",
    ".popsection",
);

unsafe extern "C" {
    #[link_name = "parkwarden_probe_sites"]
    static SITES: [u8; 0];
    #[link_name = "parkwarden_pass_site"]
    fn pass_site(count: u64, g: u64, site: usize);
}

/// A place in parkwarden's own code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::probe) struct OwnSite(usize);

impl OwnSite {
    /// The places of a class; none where the architecture has no such class.
    pub(in crate::probe) fn of(class: SiteClass) -> impl Iterator<Item = Self> {
        let places = match class {
            SiteClass::Nop5 if cfg!(target_arch = "x86_64") => 0..NOPS,
            SiteClass::Nop5 => 0..0,
            SiteClass::Emulated => NOPS..NOPS + EMULATED,
            SiteClass::SingleStep => NOPS + EMULATED..NOPS + EMULATED + 1,
        };
        places.map(Self)
    }

    /// Whether it is of a class.
    pub(in crate::probe) fn is(self, class: SiteClass) -> bool {
        Self::of(class).any(|site| site == self)
    }

    /// Its address in this process.
    pub(in crate::probe) fn address(self) -> u64 {
        // Only the address is taken.
        (&raw const SITES).addr().saturating_add(self.0 * STRIDE) as u64
    }

    /// Passes the place `count` times, once at least, as if the goroutine whose `g` is at `g` did.
    pub(in crate::probe) fn pass(self, count: u64, g: u64) {
        // SAFETY: the assembly above saves what the platform's C ABI wants kept, and calls an address that it defines
        // itself: a value of this type is one of its places. `g` is not dereferenced.
        unsafe { pass_site(count.max(1), g, self.address() as usize) }
    }
}
