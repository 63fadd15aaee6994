//! One uprobe by the kernel's own calls, in either of its two ways: a link that is breakpoint and program in one; or a perf event
//! that puts the breakpoint there, and a link that has it run a program.
//!
//! With perf events the two are kept apart, as aya's links are not, because their prices differ: a link comes and goes in
//! microseconds, but each removal of a breakpoint waits for every CPU, tens of milliseconds, one after the other on the whole
//! host. Those that are links alone wait, too, but for different targets at the same time.

use std::ffi::{CStr, c_long};
use std::fs;
use std::io;
use std::mem::{size_of, zeroed};
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};

use aya_obj::generated::{PERF_FLAG_FD_CLOEXEC, bpf_attach_type, bpf_attr, bpf_cmd, bpf_prog_type, perf_event_attr};

/// Where the kernel says which kind of perf event an uprobe is.
pub const UPROBE_TYPE: &str = "/sys/bus/event_source/devices/uprobe/type";

/// Attributes of a system call that says nothing yet: what is zero the kernel takes as not given, an older one too that knows
/// only their beginning.
pub(super) fn nothing_given() -> bpf_attr {
    // SAFETY: a union of structs of integers, of which all may be zero.
    unsafe { zeroed() }
}

/// The system call that makes something in the kernel and gives a descriptor of it.
///
/// # Safety
///
/// `command` is one that makes a descriptor. What the pointers in `attributes` refer to outlives the call, is as long as the
/// attributes say, and was mutable if the kernel writes to it with this command.
pub(super) unsafe fn bpf(command: bpf_cmd, attributes: &mut bpf_attr) -> io::Result<OwnedFd> {
    // SAFETY: the caller's promise; the kernel has just made this descriptor for us, and nothing else owns it.
    unsafe { bpf_raw(command, attributes).map(|fd| OwnedFd::from_raw_fd(fd)) }
}

/// The same; what becomes of the descriptor is the caller's business.
///
/// # Safety
///
/// As for [`bpf`].
unsafe fn bpf_raw(command: bpf_cmd, attributes: &mut bpf_attr) -> io::Result<RawFd> {
    // SAFETY: the caller's promise.
    raw(unsafe { call(command, attributes) })
}

/// The system call itself.
///
/// # Safety
///
/// As for [`bpf`], except that `command` may be any.
unsafe fn call(command: bpf_cmd, attributes: &mut bpf_attr) -> c_long {
    let size = size_of::<bpf_attr>();
    // SAFETY: the kernel reads and writes at most `size` bytes behind the pointer, all of them `attributes`; the caller vouches
    // for the pointers within.
    unsafe { libc::syscall(libc::SYS_bpf, command as c_long, std::ptr::from_mut(attributes), size) }
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
    // SAFETY: a struct of integers, of which all may be zero: what is zero is not asked for.
    let mut attributes: perf_event_attr = unsafe { zeroed() };
    attributes.type_ = kind;
    attributes.size = size_of::<perf_event_attr>() as u32;
    attributes.__bindgen_anon_3.uprobe_path = path.as_ptr().expose_provenance() as u64;
    attributes.__bindgen_anon_4.probe_offset = offset;
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
            c_long::from(PERF_FLAG_FD_CLOEXEC),
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
    const { assert!(size_of::<I>() == 8) }
    let mut attributes = nothing_given();
    attributes.__bindgen_anon_3.prog_type = bpf_prog_type::BPF_PROG_TYPE_KPROBE as u32;
    attributes.__bindgen_anon_3.insn_cnt = u32::try_from(instructions.len()).map_err(io::Error::other)?;
    attributes.__bindgen_anon_3.insns = instructions.as_ptr().expose_provenance() as u64;
    attributes.__bindgen_anon_3.license = license.as_ptr().expose_provenance() as u64;
    if for_ == For::Multi {
        attributes.__bindgen_anon_3.expected_attach_type = bpf_attach_type::BPF_TRACE_UPROBE_MULTI as u32;
    }
    if !log.is_empty() {
        attributes.__bindgen_anon_3.log_level = 1;
        attributes.__bindgen_anon_3.log_size = u32::try_from(log.len()).map_err(io::Error::other)?;
        attributes.__bindgen_anon_3.log_buf = log.as_mut_ptr().expose_provenance() as u64;
    }
    // SAFETY: a loaded program is a descriptor. Instructions, license and log outlive the call, their lengths are what is said
    // (a license ends with a zero), and the log, which alone is written to, is borrowed mutably.
    unsafe { bpf(bpf_cmd::BPF_PROG_LOAD, &mut attributes) }
}

/// Loads a program that does nothing.
pub(super) fn load_nothing(for_: For) -> io::Result<OwnedFd> {
    // r0 = 0; exit
    load::<u64>(&[0xb7, 0x95], c"GPL", for_, &mut [])
}

/// Has hits at a file offset run a program with a cookie, in process `pid` alone: all of its threads. As long as the descriptor is
/// there, which is the caller's: only [`super::keeper`] may have it.
pub(super) fn multi(program: BorrowedFd<'_>, path: &CStr, offset: u64, pid: u32, cookie: u64) -> io::Result<RawFd> {
    let mut attributes = nothing_given();
    attributes.link_create.__bindgen_anon_1.prog_fd = number(program.as_raw_fd());
    attributes.link_create.attach_type = bpf_attach_type::BPF_TRACE_UPROBE_MULTI as u32;
    attributes.link_create.__bindgen_anon_3.uprobe_multi.path = path.as_ptr().expose_provenance() as u64;
    attributes.link_create.__bindgen_anon_3.uprobe_multi.offsets = (&raw const offset).expose_provenance() as u64;
    attributes.link_create.__bindgen_anon_3.uprobe_multi.cookies = (&raw const cookie).expose_provenance() as u64;
    attributes.link_create.__bindgen_anon_3.uprobe_multi.cnt = 1;
    attributes.link_create.__bindgen_anon_3.uprobe_multi.pid = pid;
    // SAFETY: a link is a descriptor. The path ends with a zero; offset and cookie are one each, as `cnt` says; all of them
    // outlive the call and are only read.
    unsafe { bpf_raw(bpf_cmd::BPF_LINK_CREATE, &mut attributes) }
}

/// Has hits of an uprobe run a program, with a cookie, as long as the descriptor is there, which is the caller's: only
/// [`super::keeper`] may have it.
pub(super) fn link(program: BorrowedFd<'_>, uprobe: RawFd, cookie: u64) -> io::Result<RawFd> {
    let mut attributes = nothing_given();
    attributes.link_create.__bindgen_anon_1.prog_fd = number(program.as_raw_fd());
    attributes.link_create.__bindgen_anon_2.target_fd = number(uprobe);
    attributes.link_create.attach_type = bpf_attach_type::BPF_PERF_EVENT as u32;
    attributes.link_create.__bindgen_anon_3.perf_event.bpf_cookie = cookie;
    // SAFETY: a link is a descriptor; there are no pointers.
    unsafe { bpf_raw(bpf_cmd::BPF_LINK_CREATE, &mut attributes) }
}

/// Reads entries of a hash map whose keys and values are `K` and `V`: how many there were, and where to go on, if there
/// are more.
///
/// # Safety
///
/// The map's keys and values have the sizes of `K` and `V`, and any bytes are a value of each: the kernel writes them.
pub(super) unsafe fn lookup_batch<K: Copy, V: Copy>(
    map: &OwnedFd,
    position: Option<u32>,
    keys: &mut [K],
    values: &mut [V],
) -> io::Result<(usize, Option<u32>)> {
    let from = position.unwrap_or_default();
    let mut next = 0u32;
    let capacity = keys.len().min(values.len());
    let mut attributes = nothing_given();
    attributes.batch.in_batch = position.map_or(0, |_| (&raw const from).expose_provenance() as u64);
    attributes.batch.out_batch = (&raw mut next).expose_provenance() as u64;
    attributes.batch.keys = keys.as_mut_ptr().expose_provenance() as u64;
    attributes.batch.values = values.as_mut_ptr().expose_provenance() as u64;
    attributes.batch.count = u32::try_from(capacity).unwrap_or(u32::MAX);
    attributes.batch.map_fd = number(map.as_raw_fd());
    // SAFETY: the kernel writes at most `count` keys and values of the map's sizes, which the caller vouches are those of
    // the types, and the position, which are all borrowed mutably; all outlive the call.
    let result = unsafe { call(bpf_cmd::BPF_MAP_LOOKUP_BATCH, &mut attributes) };
    let error = io::Error::last_os_error();
    // SAFETY: an integer, that was given and that the kernel sets.
    let count = unsafe { attributes.batch.count };
    let count = (count as usize).min(capacity);
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
