//! What every program does at a hit: know its probe, count, read the goroutine, write a record.

use core::arch::asm;

use aya_ebpf::bindings::BPF_RB_NO_WAKEUP;
use aya_ebpf::helpers::bpf_probe_read_user;
use aya_ebpf::helpers::generated::{bpf_get_attach_cookie, bpf_ktime_get_ns};
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, PerCpuArray, RingBuf};
use aya_ebpf::programs::ProbeContext;
use aya_log_ebpf::{debug, trace};
use parkwarden_common::cookie::{Cookie, MAX_PROBES, MAX_SLOTS};
use parkwarden_common::counters::ProbeCounters;
use parkwarden_common::record::{Header, Kind};

use crate::registers::Registers;

/// Events to the agent. The size is only a default: the agent sets its own when it loads the object.
#[map]
pub(crate) static EVENTS: RingBuf = RingBuf::with_byte_size(1 << 20, 0);

/// Indexed by [`Cookie::probe`].
#[map]
static COUNTERS: PerCpuArray<ProbeCounters> = PerCpuArray::with_max_entries(MAX_PROBES, 0);

/// Attachments whose hits are nothing any more: what is not zero here is being removed, one place after the other, and some of
/// its places would tell half of what happens.
#[map]
static MUTED: Array<u32> = Array::with_max_entries(MAX_SLOTS, 0);

/// One hit of a probe, counted.
pub(crate) struct Hit {
    pub(crate) registers: Registers,
    pub(crate) cookie: Cookie,
    counters: Option<*mut ProbeCounters>,
}

/// Adds one to a word of a map's value. Atomic although per CPU: a uprobe's program can be preempted by another hit.
///
/// # Safety
///
/// `word` is in a map value, which lives as long as the program.
#[inline(always)]
pub(crate) unsafe fn increment(word: *mut u64) {
    // SAFETY: the caller's. Rust's atomics offer no fetch_add on this target, which has no compare-and-swap before v3.
    unsafe {
        asm!("lock *(u64 *)({word} + 0) += {one}", word = in(reg) word, one = in(reg) 1u64);
    }
}

impl Hit {
    /// None if it is of an attachment that is being removed.
    #[inline(always)]
    pub(crate) fn new(ctx: &ProbeContext) -> Option<Self> {
        // SAFETY: the context is the one the kernel called this program with.
        let cookie = Cookie::decode(unsafe { bpf_get_attach_cookie(ctx.regs.cast()) });
        if MUTED.get(cookie.slot()).is_some_and(|muted| *muted != 0) {
            return None;
        }
        let hit =
            Self { registers: Registers::of(ctx), cookie, counters: COUNTERS.get_ptr_mut(u32::from(cookie.probe)) };
        hit.count(|counters| &raw mut counters.hits);
        trace!(ctx, "probe {} hit", cookie.probe);
        Some(hit)
    }

    /// Adds one to a counter.
    #[inline(always)]
    pub(crate) fn count(&self, counter: impl Fn(&mut ProbeCounters) -> *mut u64) {
        if let Some(counters) = self.counters {
            // SAFETY: the pointer is to this CPU's map value.
            unsafe { increment(counter(&mut *counters)) }
        }
    }

    /// The 64-bit word at `base + offset` of the target, or `None` where there is no memory.
    #[inline(always)]
    pub(crate) fn field(&self, base: u64, offset: u16) -> Option<u64> {
        self.value(base, offset)
    }

    /// The value at `base + offset` of the target, or `None` where there is no memory.
    #[inline(always)]
    pub(crate) fn value<T: Copy>(&self, base: u64, offset: u16) -> Option<T> {
        // SAFETY: the helper checks the address; nothing is dereferenced here.
        unsafe { bpf_probe_read_user(base.wrapping_add(u64::from(offset)) as *const T) }.ok()
    }

    /// The goroutine that runs on this thread: `g.m.curg` from g0; `None` when none does or it cannot be read.
    #[inline(always)]
    pub(crate) fn running_g(&self) -> Option<u64> {
        let m = self.field(self.registers.current_g(), self.cookie.m)?;
        self.field(m, self.cookie.curg).filter(|g| *g != 0)
    }

    /// Its id, or 0.
    #[inline(always)]
    pub(crate) fn running_goid(&self) -> u64 {
        self.running_g().and_then(|g| self.field(g, self.cookie.goid)).unwrap_or(0)
    }

    #[inline(always)]
    pub(crate) fn header(&self, kind: Kind, goid: u64, wait_reason: u8) -> Header {
        Header { time_ns: now_ns(), goid, probe: self.cookie.probe, kind: kind as u8, wait_reason, reserved: 0 }
    }

    #[inline(always)]
    pub(crate) fn submit<T: 'static>(&self, ctx: &ProbeContext, record: T) -> u32 {
        match EVENTS.reserve::<T>(0) {
            Some(mut entry) => {
                entry.write(record);
                entry.submit(u64::from(BPF_RB_NO_WAKEUP));
            }
            None => {
                self.count(|counters| &raw mut counters.ring_full);
                debug!(ctx, "probe {}: the event ring is full", self.cookie.probe);
            }
        }
        0
    }

    #[inline(always)]
    pub(crate) fn read_fault(&self, ctx: &ProbeContext, g: u64) -> u32 {
        self.count(|counters| &raw mut counters.read_fault);
        debug!(ctx, "probe {}: g at {:x} is not readable", self.cookie.probe, g);
        0
    }

    #[inline(always)]
    pub(crate) fn map_full(&self, ctx: &ProbeContext) -> u32 {
        self.count(|counters| &raw mut counters.map_full);
        debug!(ctx, "probe {}: a map is full", self.cookie.probe);
        0
    }
}

/// `CLOCK_MONOTONIC`.
#[inline(always)]
pub(crate) fn now_ns() -> u64 {
    // SAFETY: the helper has no preconditions.
    unsafe { bpf_ktime_get_ns() }
}
