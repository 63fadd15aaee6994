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
