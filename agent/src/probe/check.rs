//! Trying out, one by one, the system calls that watching needs: what a host's settings say about BPF and uprobes is
//! not what decides, the kernel's answer is.
//!
//! Deliberately absent: aya, whose errors name libraries rather than calls. Nothing outside parkwarden is touched: the
//! probe is on a function of its own, and everything is undone when the returned descriptors are dropped.

use std::ffi::{CString, c_long};
use std::fs;
use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

// include/uapi/linux/bpf.h
const BPF_MAP_CREATE: c_long = 0;
const BPF_PROG_LOAD: c_long = 5;
const BPF_LINK_CREATE: c_long = 28;
const BPF_PROG_TYPE_KPROBE: u32 = 2;
const BPF_MAP_TYPE_RINGBUF: u32 = 27;
const BPF_PERF_EVENT: u32 = 41;

// include/uapi/linux/perf_event.h
const PERF_FLAG_FD_CLOEXEC: c_long = 1 << 3;

/// Where the kernel says which kind of perf event an uprobe is.
pub const UPROBE_TYPE: &str = "/sys/bus/event_source/devices/uprobe/type";

/// A system call on `bpf_attr`, whose beginning `T` is: the kernel takes what is not given as zero.
fn bpf<T>(command: c_long, attributes: &T) -> io::Result<OwnedFd> {
    // SAFETY: the kernel reads `size_of::<T>()` bytes behind the pointer, which `attributes` is, and writes none with
    // the commands used here. The pointers within refer to values that outlive the call.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), size_of::<T>()) };
    owned(fd)
}

fn owned(fd: c_long) -> io::Result<OwnedFd> {
    match i32::try_from(fd) {
        // SAFETY: the kernel has just made this descriptor for us; nothing else owns it.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}

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
    /// `struct perf_event_attr` as of `PERF_ATTR_SIZE_VER1`.
    #[repr(C)]
    struct PerfEventAttr {
        kind: u32,
        size: u32,
        config: u64,
        sample_period: u64,
        sample_type: u64,
        read_format: u64,
        flags: u64,
        wakeup_events: u32,
        bp_type: u32,
        path: u64,
        offset: u64,
    }
    const _: () = assert!(size_of::<PerfEventAttr>() == 72);
    let kind = fs::read_to_string(UPROBE_TYPE)?.trim().parse().map_err(io::Error::other)?;
    let path = CString::new("/proc/self/exe")?;
    let attributes = PerfEventAttr {
        kind,
        size: size_of::<PerfEventAttr>() as u32,
        config: 0,
        sample_period: 0,
        sample_type: 0,
        read_format: 0,
        flags: 0,
        wakeup_events: 0,
        bp_type: 0,
        path: path.as_ptr() as u64,
        offset: file_offset(probed as *const () as u64)?,
    };
    // This process on any CPU, in no group of events.
    const NONE: c_long = -1;
    // SAFETY: the kernel reads `size` bytes of the attributes and the path behind them; both outlive the call.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_perf_event_open,
            std::ptr::from_ref(&attributes),
            c_long::from(std::process::id()),
            NONE,
            NONE,
            PERF_FLAG_FD_CLOEXEC,
        )
    };
    owned(fd)
}

/// Attaches a program to an uprobe together with a cookie.
pub fn link(program: &OwnedFd, uprobe: &OwnedFd) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct LinkCreate {
        program: u32,
        target: u32,
        attach_type: u32,
        flags: u32,
        cookie: u64,
    }
    let number = |fd: &OwnedFd| u32::try_from(fd.as_raw_fd()).map_err(io::Error::other);
    bpf(
        BPF_LINK_CREATE,
        &LinkCreate {
            program: number(program)?,
            target: number(uprobe)?,
            attach_type: BPF_PERF_EVENT,
            flags: 0,
            // A kernel that knows no cookies refuses one that is not zero.
            cookie: 1,
        },
    )
}

/// What the uprobe is put on.
#[inline(never)]
extern "C" fn probed() {
    std::hint::black_box(());
}

/// Where in its file the code at an address of this process is.
fn file_offset(address: u64) -> io::Result<u64> {
    let maps = fs::read_to_string("/proc/self/maps")?;
    maps.lines()
        .find_map(|line| {
            let mut fields = line.split_whitespace();
            let (start, end) = fields.next()?.split_once('-')?;
            let (start, end) = (u64::from_str_radix(start, 16).ok()?, u64::from_str_radix(end, 16).ok()?);
            let offset = u64::from_str_radix(fields.nth(1)?, 16).ok()?;
            (start..end).contains(&address).then(|| offset.checked_add(address - start))?
        })
        .ok_or_else(|| io::Error::other("/proc/self/maps does not show parkwarden's own code"))
}
