//! parkwarden's own memory.

/// Gives back to the kernel what was freed. glibc keeps it otherwise, in an arena of each thread that once needed much: to
/// understand a binary takes tens of MiB, for a moment.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    {
        // SAFETY: malloc_trim(3) may be called at any time, by any thread.
        let _ = unsafe { libc::malloc_trim(0) };
    }
}

/// Has glibc keep little of what is freed, from now on: one arena for all threads, since those of an agent sleep most of the time
/// and each would keep what its busiest moment needed; and large blocks are mapped each by itself, however often, so that a look at
/// many goroutines leaves nothing behind.
pub fn keep_little() {
    #[cfg(target_env = "gnu")]
    {
        const KEPT: i32 = 1 << 16;
        const LARGE: i32 = 1 << 17;
        for (parameter, value) in
            [(libc::M_ARENA_MAX, 1), (libc::M_TRIM_THRESHOLD, KEPT), (libc::M_MMAP_THRESHOLD, LARGE)]
        {
            // SAFETY: mallopt(3) takes two numbers; what it does not know it refuses.
            let _ = unsafe { libc::mallopt(parameter, value) };
        }
    }
}
