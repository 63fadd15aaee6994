//! The maps in which the BPF programs of `filter` mode, and of `births` mode what that counts, keep what need not reach the agent at once: parks that have not
//! ended, and how many goroutines each `go` statement made.
//!
//! Deliberately absent: eviction. A map that threw out its oldest entry would lose the goroutine that has been parked
//! longest, which is the one that is looked for; what finds no room is counted.

/// Which of a target's attachments an entry belongs to, see [`crate::cookie::Cookie::slot`].
pub type Slot = u32;

/// Key of a park: the goroutine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct ParkKey {
    /// `g.goid`.
    pub goid: u64,
    /// Whose goroutine.
    pub slot: Slot,
    /// Zero. Explicit, because the kernel compares all bytes of a key.
    pub reserved: u32,
}

/// What a goroutine waits for. It stays in the map when the goroutine is woken, with `since_ns` 0, so that its next park
/// writes in place rather than allocates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Park {
    /// When it parked, `CLOCK_MONOTONIC` nanoseconds; 0 while it is not parked.
    pub since_ns: u64,
    /// The runtime's wait reason number.
    pub wait_reason: u64,
}

/// Key of a creation site's counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct SiteKey {
    /// `g.gopc`: the return address of the call to `runtime.newproc`.
    pub creation_pc: u64,
    /// Whose `go` statement.
    pub slot: Slot,
    /// Zero. Explicit, because the kernel compares all bytes of a key.
    pub reserved: u32,
}

/// What happened to the goroutines of one creation site, on one CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct SiteCounts {
    /// Goroutines made.
    pub created: u64,
    /// Goroutines that reached `runtime.goexit1`.
    pub exited: u64,
}

const _: () = {
    assert!(core::mem::size_of::<ParkKey>() == 16);
    assert!(core::mem::size_of::<Park>() == 16);
    assert!(core::mem::size_of::<SiteKey>() == 16);
    assert!(core::mem::size_of::<SiteCounts>() == 16);
};
