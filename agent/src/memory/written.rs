//! Which pages of a process were written since a moment: the kernel's soft-dirty bits (Documentation/admin-guide/mm/soft-dirty.rst,
//! fs/proc/task_mmu.c), which a kernel has if it was built with `CONFIG_MEM_SOFT_DIRTY`, as Debian's and Ubuntu's for x86-64 are.
//!
//! Starting it takes the write permission from every page of the process, which costs it a fault for each page that it writes the
//! first time after. There is one set of bits for a process: whoever else uses it, as CRIU does between two dumps, would miss what
//! was written before. What nobody has cleared is set for all pages, so that a clear bit tells of somebody else.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;
use std::sync::OnceLock;

/// Bits of an entry of `/proc/PID/pagemap` (Documentation/admin-guide/mm/pagemap.rst).
const SOFT_DIRTY: u64 = 1 << 55;
const SWAPPED: u64 = 1 << 62;
const PRESENT: u64 = 1 << 63;
const ENTRY: u64 = 8;

/// Entries read at once.
const AT_ONCE: u64 = 4096;

/// What `/proc/PID/clear_refs` takes to clear the soft-dirty bits.
const CLEAR_SOFT_DIRTY: &[u8] = b"4";

/// Why what is written cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum Untracked {
    /// The kernel does not keep it.
    #[error("this kernel does not tell which pages a process has written (CONFIG_MEM_SOFT_DIRTY)")]
    Kernel,
    /// Somebody else uses it.
    #[error("somebody has tracked what it writes before, as CRIU does, and would miss some of it")]
    InUse,
    /// The kernel's files cannot be used.
    #[error("what it writes cannot be tracked: {0}")]
    Io(#[from] io::Error),
}

/// The pages of one process.
#[derive(Debug)]
pub struct Written {
    clear_refs: File,
    pagemap: File,
    page: u64,
}

impl Written {
    /// Of a process, if the kernel tells and nobody else asks. `ranges` (address and end) are some that it has; `is_ours` says
    /// that whoever tracked it last was parkwarden.
    pub fn of(pid: u32, ranges: &[(u64, u64)], is_ours: bool) -> Result<Self, Untracked> {
        if !kernel_tells() {
            return Err(Untracked::Kernel);
        }
        let written = Self::open(&pid.to_string())?;
        if !is_ours && written.any_clear(ranges)? {
            return Err(Untracked::InUse);
        }
        Ok(written)
    }

    fn open(pid: &str) -> io::Result<Self> {
        Ok(Self {
            clear_refs: OpenOptions::new().write(true).open(format!("/proc/{pid}/clear_refs"))?,
            pagemap: File::open(format!("/proc/{pid}/pagemap"))?,
            page: rustix::param::page_size() as u64,
        })
    }

    /// From now on.
    pub fn restart(&self) -> io::Result<()> {
        (&self.clear_refs).write_all(CLEAR_SOFT_DIRTY)
    }

    /// The parts of `ranges` that lie in pages that were written since, or that are not there, so that nothing tells; in their order,
    /// joined where they meet.
    pub fn within(&self, ranges: &[(u64, u64)]) -> io::Result<Vec<(u64, u64)>> {
        let mut found: Vec<(u64, u64)> = Vec::new();
        for range in ranges {
            self.each(*range, |from, to, entry| {
                if entry & SOFT_DIRTY != 0 || entry & (PRESENT | SWAPPED) == 0 {
                    match found.last_mut() {
                        Some((_, end)) if *end == from && from > range.0 => *end = to,
                        _ => found.push((from, to)),
                    }
                }
                true
            })?;
        }
        Ok(found)
    }

    fn any_clear(&self, ranges: &[(u64, u64)]) -> io::Result<bool> {
        let mut any = false;
        for range in ranges {
            self.each(*range, |_, _, entry| {
                any |= entry & PRESENT != 0 && entry & SOFT_DIRTY == 0;
                !any
            })?;
        }
        Ok(any)
    }

    /// Shows each page's part of a range, and its entry, until `see` has seen enough.
    fn each(&self, (from, to): (u64, u64), mut see: impl FnMut(u64, u64, u64) -> bool) -> io::Result<()> {
        let mut at = from / self.page;
        let end = to.div_ceil(self.page);
        let mut buf = vec![0u8; (AT_ONCE * ENTRY) as usize];
        while at < end {
            let count = AT_ONCE.min(end - at);
            let entries = &mut buf[..(count * ENTRY) as usize];
            self.pagemap.read_exact_at(entries, at.saturating_mul(ENTRY))?;
            for (index, entry) in entries.chunks_exact(ENTRY as usize).enumerate() {
                let start = (at + index as u64) * self.page;
                let entry = entry.try_into().map_or(SOFT_DIRTY, u64::from_le_bytes);
                if !see(start.max(from), start.saturating_add(self.page).min(to), entry) {
                    return Ok(());
                }
            }
            at += count;
        }
        Ok(())
    }
}

/// Whether this kernel keeps the bits, tried on a page of parkwarden's own, once.
fn kernel_tells() -> bool {
    static TELLS: OnceLock<bool> = OnceLock::new();
    *TELLS.get_or_init(|| tried().unwrap_or(false))
}

fn tried() -> io::Result<bool> {
    let own = Written::open("self")?;
    let mut memory = vec![1u8; 2 * own.page as usize];
    let first = memory.as_ptr() as u64;
    let page = first.next_multiple_of(own.page);
    let range = [(page, page + own.page)];
    own.restart()?;
    let before = own.within(&range)?;
    let within = (page - first) as usize;
    memory[within] = std::hint::black_box(2);
    let after = own.within(&range)?;
    Ok(before.is_empty() && after == range && std::hint::black_box(memory[within]) == 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where the kernel tells, only what was written is told; where it does not, that is noticed.
    #[test]
    fn what_was_written_is_told_where_the_kernel_tells() {
        let own = Written::open("self").expect("this process may look at itself");
        if !kernel_tells() {
            assert!(matches!(Written::of(std::process::id(), &[], true), Err(Untracked::Kernel)));
            return;
        }
        let page = own.page as usize;
        let mut memory = vec![1u8; 9 * page];
        let first = (memory.as_ptr() as usize).next_multiple_of(page);
        let (from, at) = (first as u64, first - memory.as_ptr() as usize);
        own.restart().expect("it may");
        memory[at + 2 * page] = 7;
        memory[at + 3 * page + 5] = 7;
        let ranges = [(from + 8, from + 8 * own.page - 8)];
        let written = own.within(&ranges).expect("readable");
        assert_eq!(written, [(from + 2 * own.page, from + 4 * own.page)]);
        assert_eq!(std::hint::black_box(&memory)[at + 2 * page], 7);
    }
}
