//! Which processes execute a program or exit, for the agent that looks for Go processes. Not part of any target's path.

use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use aya_ebpf::macros::{map, raw_tracepoint};
use aya_ebpf::maps::{PerCpuArray, RingBuf};
use aya_ebpf::programs::RawTracePointContext;
use parkwarden_common::lifecycle::{EXECUTED, EXITED, Lifecycle};

/// The size is only a default: the agent sets its own when it loads the object.
#[map]
static LIFECYCLES: RingBuf = RingBuf::with_byte_size(1 << 12, 0);

/// Records the ring had no room for.
#[map]
static LIFECYCLES_LOST: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// A process has executed a program: it is the current one.
#[raw_tracepoint(tracepoint = "sched_process_exec")]
pub fn process_executed(_: RawTracePointContext) -> i32 {
    tell((bpf_get_current_pid_tgid() >> 32) as u32, EXECUTED)
}

/// A thread is exiting: it is the current one.
#[raw_tracepoint(tracepoint = "sched_process_exit")]
pub fn process_exited(_: RawTracePointContext) -> i32 {
    let ids = bpf_get_current_pid_tgid();
    let (pid, thread) = ((ids >> 32) as u32, ids as u32);
    if pid == thread { tell(pid, EXITED) } else { 0 }
}

#[inline(always)]
fn tell(pid: u32, kind: u32) -> i32 {
    // The reader is woken as the kernel sees fit: an exec costs much more than that.
    if LIFECYCLES.output::<Lifecycle>(Lifecycle { pid, kind }, 0).is_err()
        && let Some(lost) = LIFECYCLES_LOST.get_ptr_mut(0)
    {
        // SAFETY: the map's value of this CPU, which lives as long as the map.
        unsafe { *lost += 1 };
    }
    0
}
