//! The four programs, their maps, and what they share.

use core::arch::asm;

use aya_ebpf::bindings::BPF_RB_NO_WAKEUP;
use aya_ebpf::helpers::bpf_probe_read_user;
use aya_ebpf::helpers::generated::{bpf_get_attach_cookie, bpf_ktime_get_ns};
use aya_ebpf::macros::{map, uprobe};
use aya_ebpf::maps::{PerCpuArray, RingBuf};
use aya_ebpf::programs::ProbeContext;
use aya_log_ebpf::{debug, trace};
use parkwarden_common::cookie::{Cookie, MAX_PROBES};
use parkwarden_common::counters::ProbeCounters;
use parkwarden_common::record::{Created, Header, Kind, Readied};

use crate::registers::Registers;

/// Events to the agent. The size is only a default: the agent sets its own when it loads the object.
#[map]
static EVENTS: RingBuf = RingBuf::with_byte_size(1 << 20, 0);

/// Indexed by [`Cookie::probe`].
#[map]
static COUNTERS: PerCpuArray<ProbeCounters> = PerCpuArray::with_max_entries(MAX_PROBES, 0);

/// bpf_probe_read_user, bpf_get_attach_cookie and the ring buffer want a GPL-compatible licence.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

/// At a point of `runtime.newproc.func1` where the new g is complete and about to be queued.
#[uprobe]
pub fn created(ctx: ProbeContext) -> u32 {
    let hit = Hit::new(&ctx);
    let g = hit.registers.new_g();
    let (Some(goid), Some(creation_pc), Some(start_pc)) =
        (hit.field(g, hit.cookie.goid), hit.field(g, hit.cookie.gopc), hit.field(g, hit.cookie.startpc))
    else {
        return hit.read_fault(&ctx, g);
    };
    let parent_goid = if hit.cookie.parent_goid == 0 {
        0
    } else {
        match hit.field(g, hit.cookie.parent_goid) {
            Some(goid) => goid,
            None => return hit.read_fault(&ctx, g),
        }
    };
    let header = hit.header(Kind::Created, goid, 0);
    hit.submit(&ctx, Created { header, parent_goid, creation_pc, start_pc })
}

/// At a point of `runtime.gopark` where its arguments are still in their registers.
#[uprobe]
pub fn parked(ctx: ProbeContext) -> u32 {
    let hit = Hit::new(&ctx);
    let g = hit.registers.current_g();
    let Some(goid) = hit.field(g, hit.cookie.goid) else {
        return hit.read_fault(&ctx, g);
    };
    hit.submit(&ctx, hit.header(Kind::Parked, goid, hit.registers.park_reason()))
}

/// At a point of `runtime.ready` where its arguments are still in their registers.
#[uprobe]
pub fn readied(ctx: ProbeContext) -> u32 {
    let hit = Hit::new(&ctx);
    let g = hit.registers.readied_g();
    let Some(goid) = hit.field(g, hit.cookie.goid) else {
        return hit.read_fault(&ctx, g);
    };
    let header = hit.header(Kind::Readied, goid, 0);
    hit.submit(&ctx, Readied { header, waker_goid: hit.running_goid() })
}

/// At a point of `runtime.goexit1`, which runs on the goroutine that ends.
#[uprobe]
pub fn exited(ctx: ProbeContext) -> u32 {
    let hit = Hit::new(&ctx);
    let g = hit.registers.current_g();
    let Some(goid) = hit.field(g, hit.cookie.goid) else {
        return hit.read_fault(&ctx, g);
    };
    hit.submit(&ctx, hit.header(Kind::Exited, goid, 0))
}

/// One hit of a probe, counted.
struct Hit {
    registers: Registers,
    cookie: Cookie,
    counters: Option<*mut ProbeCounters>,
}

impl Hit {
    #[inline(always)]
    fn new(ctx: &ProbeContext) -> Self {
        // SAFETY: the context is the one the kernel called this program with.
        let cookie = Cookie::decode(unsafe { bpf_get_attach_cookie(ctx.regs.cast()) });
        let hit =
            Self { registers: Registers::of(ctx), cookie, counters: COUNTERS.get_ptr_mut(u32::from(cookie.probe)) };
        hit.count(|counters| &raw mut counters.hits);
        trace!(ctx, "probe {} hit", cookie.probe);
        hit
    }

    /// Adds one to a counter. Atomic although per CPU: a uprobe's program can be preempted by another hit.
    #[inline(always)]
    fn count(&self, counter: impl Fn(&mut ProbeCounters) -> *mut u64) {
        if let Some(counters) = self.counters {
            // SAFETY: the pointer is to this CPU's map value, which lives as long as the program. Rust's atomics offer
            // no fetch_add on this target, which has no compare-and-swap before v3.
            unsafe {
                let word = counter(&mut *counters);
                asm!("lock *(u64 *)({word} + 0) += {one}", word = in(reg) word, one = in(reg) 1u64);
            }
        }
    }

    /// The 64-bit word at `base + offset` of the target, or `None` where there is no memory.
    #[inline(always)]
    fn field(&self, base: u64, offset: u16) -> Option<u64> {
        // SAFETY: the helper checks the address; nothing is dereferenced here.
        unsafe { bpf_probe_read_user(base.wrapping_add(u64::from(offset)) as *const u64) }.ok()
    }

    /// The goroutine that runs on this thread: `g.m.curg.goid` from g0; 0 when none does or it cannot be read.
    #[inline(always)]
    fn running_goid(&self) -> u64 {
        let Some(m) = self.field(self.registers.current_g(), self.cookie.m) else { return 0 };
        match self.field(m, self.cookie.curg) {
            None | Some(0) => 0,
            Some(g) => self.field(g, self.cookie.goid).unwrap_or(0),
        }
    }

    #[inline(always)]
    fn header(&self, kind: Kind, goid: u64, wait_reason: u8) -> Header {
        Header {
            // SAFETY: the helper has no preconditions.
            time_ns: unsafe { bpf_ktime_get_ns() },
            goid,
            probe: self.cookie.probe,
            kind: kind as u8,
            wait_reason,
            reserved: 0,
        }
    }

    #[inline(always)]
    fn submit<T: 'static>(&self, ctx: &ProbeContext, record: T) -> u32 {
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
    fn read_fault(&self, ctx: &ProbeContext, g: u64) -> u32 {
        self.count(|counters| &raw mut counters.read_fault);
        debug!(ctx, "probe {}: g at {:x} is not readable", self.cookie.probe, g);
        0
    }
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
