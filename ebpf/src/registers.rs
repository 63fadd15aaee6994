//! Registers of Go's internal ABI (`src/cmd/compile/abi-internal.md`) at the probe sites.
//!
//! aya's `ctx.arg(n)` follows the C calling convention, which Go does not: these read the registers by name.

use aya_ebpf::programs::ProbeContext;

/// The registers of one hit.
pub(crate) struct Registers(*const aya_ebpf::bindings::pt_regs);

impl Registers {
    #[inline(always)]
    pub(crate) fn of(ctx: &ProbeContext) -> Self {
        Self(ctx.regs)
    }
}

#[cfg(bpf_target_arch = "x86_64")]
impl Registers {
    /// R14: the g that runs, or g0.
    #[inline(always)]
    pub(crate) fn current_g(&self) -> u64 {
        // SAFETY: the kernel passes a valid pt_regs; so below.
        unsafe { (*self.0).r14 }
    }

    /// RBX: second argument of `runqput(pp, gp, next)`.
    #[inline(always)]
    pub(crate) fn new_g(&self) -> u64 {
        // SAFETY: see `current_g`.
        unsafe { (*self.0).rbx }
    }

    /// RAX: first argument of `ready(gp, traceskip, next)`.
    #[inline(always)]
    pub(crate) fn readied_g(&self) -> u64 {
        // SAFETY: see `current_g`.
        unsafe { (*self.0).rax }
    }

    /// CL: third argument of `gopark(unlockf, lock, reason, traceReason, traceskip)`.
    #[inline(always)]
    pub(crate) fn park_reason(&self) -> u8 {
        // SAFETY: see `current_g`.
        unsafe { (*self.0).rcx as u8 }
    }
}

#[cfg(bpf_target_arch = "aarch64")]
impl Registers {
    /// X28: the g that runs, or g0.
    #[inline(always)]
    pub(crate) fn current_g(&self) -> u64 {
        // SAFETY: the kernel passes a valid user_pt_regs; so below.
        unsafe { (*self.0).regs[28] }
    }

    /// X1: second argument of `runqput(pp, gp, next)`.
    #[inline(always)]
    pub(crate) fn new_g(&self) -> u64 {
        // SAFETY: see `current_g`.
        unsafe { (*self.0).regs[1] }
    }

    /// X0: first argument of `ready(gp, traceskip, next)`.
    #[inline(always)]
    pub(crate) fn readied_g(&self) -> u64 {
        // SAFETY: see `current_g`.
        unsafe { (*self.0).regs[0] }
    }

    /// W2: third argument of `gopark(unlockf, lock, reason, traceReason, traceskip)`.
    #[inline(always)]
    pub(crate) fn park_reason(&self) -> u8 {
        // SAFETY: see `current_g`.
        unsafe { (*self.0).regs[2] as u8 }
    }
}
