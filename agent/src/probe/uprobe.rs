//! One uprobe by the kernel's own calls, in either of its two ways: a link that is breakpoint and program in one; or a perf event
//! that puts the breakpoint there, and a link that has it run a program.
//!
//! With perf events the two are kept apart, as aya's links are not, because their prices differ: a link comes and goes in
//! microseconds, but each removal of a breakpoint waits for every CPU, tens of milliseconds, one after the other on the whole
//! host. Those that are links alone wait, too, but for different targets at the same time.

use std::ffi::{CStr, c_long};
use std::fs;
use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};

// include/uapi/linux/bpf.h
const BPF_MAP_LOOKUP_BATCH: c_long = 24;
const BPF_PROG_LOAD: c_long = 5;
const BPF_LINK_CREATE: c_long = 28;
const BPF_PROG_TYPE_KPROBE: u32 = 2;
const BPF_PERF_EVENT: u32 = 41;
const BPF_TRACE_UPROBE_MULTI: u32 = 48;

// include/uapi/linux/perf_event.h
const PERF_FLAG_FD_CLOEXEC: c_long = 1 << 3;

/// Where the kernel says which kind of perf event an uprobe is.
pub const UPROBE_TYPE: &str = "/sys/bus/event_source/devices/uprobe/type";

/// A system call on `bpf_attr`, whose beginning `T` is: the kernel takes what is not given as zero.
///
/// The pointers within refer to values that outlive the call, and those that the kernel writes to were made from mutable ones.
pub(super) fn bpf<T>(command: c_long, attributes: &T) -> io::Result<OwnedFd> {
    // SAFETY: the kernel has just made this descriptor for us; nothing else owns it.
    bpf_raw(command, attributes).map(|fd| unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The same; what becomes of the descriptor is the caller's business.
fn bpf_raw<T>(command: c_long, attributes: &T) -> io::Result<RawFd> {
    // SAFETY: the kernel reads `size_of::<T>()` bytes behind the pointer, which `attributes` is, and writes none there with
    // the commands used here. The pointers within are as `bpf` has it.
    raw(unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), size_of::<T>()) })
}

/// A descriptor that the kernel has just made, or why it has not.
fn raw(fd: c_long) -> io::Result<RawFd> {
    match i32::try_from(fd) {
        Ok(fd) if fd >= 0 => Ok(fd),
        _ => Err(io::Error::last_os_error()),
    }
}

/// A descriptor as `bpf_attr` has it; one that is none the kernel refuses.
const fn number(fd: RawFd) -> u32 {
    fd.cast_unsigned()
}

/// What kind of perf event an uprobe is on this host.
pub(super) fn perf_type() -> io::Result<u32> {
    fs::read_to_string(UPROBE_TYPE)?.trim().parse().map_err(io::Error::other)
}

/// Puts a breakpoint at a file offset, for process `pid` alone: all of its threads. It is there as long as the descriptor,
/// which is the caller's: only [`super::keeper`] may have it.
pub(super) fn open(kind: u32, path: &CStr, offset: u64, pid: u32) -> io::Result<RawFd> {
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
        offset,
    };
    // That process on any CPU, in no group of events.
    const NONE: c_long = -1;
    // SAFETY: the kernel reads `size` bytes of the attributes and the path behind them; both outlive the call.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_perf_event_open,
            std::ptr::from_ref(&attributes),
            c_long::from(pid),
            NONE,
            NONE,
            PERF_FLAG_FD_CLOEXEC,
        )
    };
    raw(fd)
}

/// How a program that is loaded will be attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum For {
    /// By [`link`].
    PerfEvent,
    /// By [`multi`].
    Multi,
}

/// Loads a program of the kind that probes run. `I` is an instruction of BPF. What the verifier has to say comes into `log`, if
/// there is room for any.
pub(super) fn load<I>(instructions: &[I], license: &CStr, for_: For, log: &mut [u8]) -> io::Result<OwnedFd> {
    /// `union bpf_attr` for `BPF_PROG_LOAD`, up to `expected_attach_type`.
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
        name: [u8; 16],
        interface: u32,
        expected_attach_type: u32,
    }
    const _: () = assert!(size_of::<ProgLoad>() == 72);
    const { assert!(size_of::<I>() == 8) }
    bpf(
        BPF_PROG_LOAD,
        &ProgLoad {
            prog_type: BPF_PROG_TYPE_KPROBE,
            instruction_count: u32::try_from(instructions.len()).map_err(io::Error::other)?,
            instructions: instructions.as_ptr() as u64,
            license: license.as_ptr() as u64,
            log_level: u32::from(!log.is_empty()),
            log_size: u32::try_from(log.len()).map_err(io::Error::other)?,
            log_buffer: if log.is_empty() { 0 } else { log.as_mut_ptr().expose_provenance() as u64 },
            kernel_version: 0,
            flags: 0,
            name: [0; 16],
            interface: 0,
            expected_attach_type: if for_ == For::Multi { BPF_TRACE_UPROBE_MULTI } else { 0 },
        },
    )
}

/// Loads a program that does nothing.
pub(super) fn load_nothing(for_: For) -> io::Result<OwnedFd> {
    // r0 = 0; exit
    load::<u64>(&[0xb7, 0x95], c"GPL", for_, &mut [])
}

/// Has hits at a file offset run a program with a cookie, in process `pid` alone: all of its threads. As long as the descriptor is
/// there, which is the caller's: only [`super::keeper`] may have it.
pub(super) fn multi(program: BorrowedFd<'_>, path: &CStr, offset: u64, pid: u32, cookie: u64) -> io::Result<RawFd> {
    /// `union bpf_attr` for `BPF_LINK_CREATE` with `uprobe_multi`.
    #[repr(C)]
    struct LinkCreate {
        program: u32,
        target: u32,
        attach_type: u32,
        flags: u32,
        path: u64,
        offsets: u64,
        ref_ctr_offsets: u64,
        cookies: u64,
        count: u32,
        multi_flags: u32,
        pid: u32,
        padding: u32,
    }
    const _: () = assert!(size_of::<LinkCreate>() == 64);
    bpf_raw(
        BPF_LINK_CREATE,
        &LinkCreate {
            program: number(program.as_raw_fd()),
            target: 0,
            attach_type: BPF_TRACE_UPROBE_MULTI,
            flags: 0,
            path: path.as_ptr() as u64,
            offsets: std::ptr::from_ref(&offset) as u64,
            ref_ctr_offsets: 0,
            cookies: std::ptr::from_ref(&cookie) as u64,
            count: 1,
            multi_flags: 0,
            pid,
            padding: 0,
        },
    )
}

/// Has hits of an uprobe run a program, with a cookie, as long as the descriptor is there, which is the caller's: only
/// [`super::keeper`] may have it.
pub(super) fn link(program: BorrowedFd<'_>, uprobe: RawFd, cookie: u64) -> io::Result<RawFd> {
    #[repr(C)]
    struct LinkCreate {
        program: u32,
        target: u32,
        attach_type: u32,
        flags: u32,
        cookie: u64,
    }
    bpf_raw(
        BPF_LINK_CREATE,
        &LinkCreate {
            program: number(program.as_raw_fd()),
            target: number(uprobe),
            attach_type: BPF_PERF_EVENT,
            flags: 0,
            cookie,
        },
    )
}

/// Reads entries of a hash map whose keys and values are `K` and `V`: how many there were, and where to go on, if there
/// are more.
pub(super) fn lookup_batch<K: Copy, V: Copy>(
    map: &OwnedFd,
    position: Option<u32>,
    keys: &mut [K],
    values: &mut [V],
) -> io::Result<(usize, Option<u32>)> {
    #[repr(C)]
    struct Batch {
        from: u64,
        next: u64,
        keys: u64,
        values: u64,
        count: u32,
        map: u32,
        element_flags: u64,
        flags: u64,
    }
    let from = position.unwrap_or_default();
    let mut next = 0u32;
    let capacity = keys.len().min(values.len());
    let mut attributes = Batch {
        from: position.map_or(0, |_| std::ptr::from_ref(&from).addr() as u64),
        next: std::ptr::from_mut(&mut next).expose_provenance() as u64,
        keys: keys.as_mut_ptr().expose_provenance() as u64,
        values: values.as_mut_ptr().expose_provenance() as u64,
        count: u32::try_from(capacity).unwrap_or(u32::MAX),
        map: number(map.as_raw_fd()),
        element_flags: 0,
        flags: 0,
    };
    // SAFETY: the kernel writes at most `count` keys and values of the map's sizes, which the caller vouches are those of
    // the types, and the position; all outlive the call.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, BPF_MAP_LOOKUP_BATCH, std::ptr::from_mut(&mut attributes), size_of::<Batch>())
    };
    let error = io::Error::last_os_error();
    let count = (attributes.count as usize).min(capacity);
    match result {
        0 => Ok((count, Some(next))),
        _ if error.raw_os_error() == Some(libc::ENOENT) => Ok((count, None)),
        _ => Err(error),
    }
}

/// Where in its file the code at an address of this process is.
pub(super) fn file_offset(address: u64) -> io::Result<u64> {
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
