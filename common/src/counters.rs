//! Counters that the BPF programs keep for each attached probe on each CPU.

/// One probe's counters on one CPU. Losses are counted by cause, where they happen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct ProbeCounters {
    /// Times the probe's program ran.
    pub hits: u64,
    /// Records not written because the ring buffer had no room.
    pub ring_full: u64,
    /// Records not written because a field of the goroutine could not be read.
    pub read_fault: u64,
    /// Parks and creation sites not kept because a map of `filter` or `births` mode had no room.
    pub map_full: u64,
    /// Creations that told which calls led to them.
    pub stacks: u64,
}

const _: () = assert!(core::mem::size_of::<ProbeCounters>() == 40);
