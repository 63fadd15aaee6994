//! Trying out, one by one, the system calls that watching needs: what a host's settings say about BPF and uprobes is
//! not what decides, the kernel's answer is.
//!
//! Deliberately absent: aya, whose errors name libraries rather than calls. Nothing outside parkwarden is touched: the
//! probe is on a function of its own, and everything is undone when the returned descriptors are dropped.

use std::ffi::c_long;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};

pub use super::uprobe::UPROBE_TYPE;
use super::uprobe::{self, For, bpf};

// include/uapi/linux/bpf.h
const BPF_MAP_CREATE: c_long = 0;
const BPF_MAP_TYPE_RINGBUF: u32 = 27;

/// Makes the smallest BPF ring buffer.
pub fn ring_buffer() -> io::Result<OwnedFd> {
    #[repr(C)]
    struct MapCreate {
        map_type: u32,
        key_size: u32,
        value_size: u32,
        max_entries: u32,
    }
    // SAFETY: no pointers are passed.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    bpf(
        BPF_MAP_CREATE,
        &MapCreate {
            map_type: BPF_MAP_TYPE_RINGBUF,
            key_size: 0,
            value_size: 0,
            max_entries: u32::try_from(page).unwrap_or(4096),
        },
    )
}

/// Loads a BPF program of the kind that probes run, which does nothing.
pub fn program() -> io::Result<OwnedFd> {
    uprobe::load_nothing(For::PerfEvent)
}

/// Opens an uprobe on a function of this very program.
pub fn uprobe() -> io::Result<OwnedFd> {
    uprobe::open(c"/proc/self/exe", uprobe::file_offset(probed as *const () as u64)?, std::process::id())
}

/// Attaches a program to an uprobe together with a cookie.
pub fn link(program: &OwnedFd, uprobe: &OwnedFd) -> io::Result<OwnedFd> {
    // A kernel that knows no cookies refuses one that is not zero.
    uprobe::link(program.as_fd(), uprobe, 1)
}

/// Has an uprobe on a function of this very program run a program that does nothing, with a cookie, by one link.
pub fn multi() -> io::Result<OwnedFd> {
    let offset = uprobe::file_offset(probed as *const () as u64)?;
    uprobe::multi(uprobe::load_nothing(For::Multi)?.as_fd(), c"/proc/self/exe", offset, std::process::id(), 1)
}

/// What the uprobe is put on.
#[inline(never)]
extern "C" fn probed() {
    std::hint::black_box(());
}
