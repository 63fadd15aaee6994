//! Trying out, one by one, the system calls that watching needs: what a host's settings say about BPF and uprobes is
//! not what decides, the kernel's answer is.
//!
//! Deliberately absent: aya, whose errors name libraries rather than calls. Nothing outside parkwarden is touched: the
//! probe is on a function of its own, and everything is undone when the returned descriptors are dropped.

use std::ffi::c_long;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};

pub use super::uprobe::UPROBE_TYPE;
use super::uprobe::{self, bpf};

// include/uapi/linux/bpf.h
const BPF_MAP_CREATE: c_long = 0;
const BPF_PROG_LOAD: c_long = 5;
const BPF_PROG_TYPE_KPROBE: u32 = 2;
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
    #[repr(C)]
    struct ProgLoad {
        prog_type: u32,
        instruction_count: u32,
        instructions: u64,
        license: u64,
        log_level: u32,
        log_size: u32,
        log_buffer: u64,
        kernel_version: u32,
        flags: u32,
    }
    // r0 = 0; exit
    let instructions: [u64; 2] = [0xb7, 0x95];
    bpf(
        BPF_PROG_LOAD,
        &ProgLoad {
            prog_type: BPF_PROG_TYPE_KPROBE,
            instruction_count: instructions.len() as u32,
            instructions: instructions.as_ptr() as u64,
            license: c"GPL".as_ptr() as u64,
            log_level: 0,
            log_size: 0,
            log_buffer: 0,
            kernel_version: 0,
            flags: 0,
        },
    )
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

/// What the uprobe is put on.
#[inline(never)]
extern "C" fn probed() {
    std::hint::black_box(());
}
