//! The BPF programs: four uprobe programs that turn a hit in the Go runtime into one record of the ring buffer.
//!
//! Each reads what it needs from registers and from the goroutine's `g`, at offsets that come in the attach cookie.
//! Deliberately absent: any decision (filtering and verdicts belong to the agent), kernel structures (rustc emits no
//! CO-RE relocations) and wake-ups of the reader: a wake-up runs inside the probe and the target pays for it.
#![no_std]
#![no_main]

use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::BPF_RB_NO_WAKEUP;
use aya_ebpf::helpers::{bpf_get_attach_cookie, bpf_ktime_get_ns, bpf_probe_read_user};
use aya_ebpf::macros::{map, uprobe};
use aya_ebpf::maps::{PerCpuArray, RingBuf};
use aya_ebpf::programs::ProbeContext;
use parkwarden_common::cookie::{Cookie, MAX_PROBES};
use parkwarden_common::counters::ProbeCounters;
use parkwarden_common::record::{Created, Header, Kind, Readied};

/// Events to the agent. The size is only a default: the agent sets its own when it loads the object.
#[map]
static EVENTS: RingBuf = RingBuf::with_byte_size(1 << 20, 0);

/// Indexed by [`Cookie::probe`].
#[map]
static COUNTERS: PerCpuArray<ProbeCounters> = PerCpuArray::with_max_entries(MAX_PROBES, 0);

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
