//! Which processes execute a program or exit, and whom the OOM killer chooses, for the agent that looks for Go processes. Not part
//! of any target's path.

use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use aya_ebpf::macros::{map, raw_tracepoint};
use aya_ebpf::maps::{LruHashMap, PerCpuArray, RingBuf};
use aya_ebpf::programs::RawTracePointContext;
use parkwarden_common::lifecycle::{EXECUTED, EXITED, Lifecycle};

use crate::hit::now_ns;

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

/// Threads that the OOM killer has marked, by what it tells of them, and when. One that exits takes its mark away.
#[map]
static OOM_MARKED: LruHashMap<u64, u64> = LruHashMap::with_max_entries(1024, 0);

/// Processes with such a thread, once that has exited, and when it was marked. Whoever asks does so at once: what is pushed out is
/// old.
#[map]
static OOM_VICTIMS: LruHashMap<u32, u64> = LruHashMap::with_max_entries(1024, 0);

/// A mark that is older is of a thread whose exit was not seen: another may have its address or number by now.
const DIES_WITHIN_NS: u64 = 60_000_000_000;

/// The OOM killer has chosen a process, and marks a thread of it: the argument is its `task_struct`, or in older kernels its
/// number. Neither is looked into, and they cannot be mistaken for each other: addresses of the kernel are no 32-bit numbers.
#[raw_tracepoint(tracepoint = "mark_victim")]
pub fn victim_marked(context: RawTracePointContext) -> i32 {
    let thread: u64 = context.arg(0);
    // Without a place for it, the process's end is told as one by SIGKILL.
    let _ = OOM_MARKED.insert(thread, now_ns(), 0);
    0
}

/// A thread is exiting: it is the current one, and the argument is its `task_struct`.
#[raw_tracepoint(tracepoint = "sched_process_exit")]
pub fn victim_exited(context: RawTracePointContext) -> i32 {
    let ids = bpf_get_current_pid_tgid();
    victim_is(context.arg(0), ids);
    victim_is(ids & 0xffff_ffff, ids);
    0
}

/// Takes note of the process of `ids`, if this is a thread of it that was marked.
#[inline(always)]
fn victim_is(thread: u64, ids: u64) {
    let Some(marked) = OOM_MARKED.get_ptr(thread) else { return };
    // SAFETY: the map's value, which is there until the program ends.
    let marked = unsafe { *marked };
    let _ = OOM_MARKED.remove(thread);
    if now_ns().wrapping_sub(marked) < DIES_WITHIN_NS {
        let _ = OOM_VICTIMS.insert((ids >> 32) as u32, marked, 0);
    }
}
