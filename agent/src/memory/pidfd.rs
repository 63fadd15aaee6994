//! What a pidfd tells of a process's end.

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// `struct pidfd_info` (`include/uapi/linux/pidfd.h`), first version.
#[repr(C)]
#[derive(Default)]
struct Info {
    mask: u64,
    cgroup: u64,
    ids: [u32; 11],
    exit_code: i32,
}

const _: () = assert!(size_of::<Info>() == 64);

/// `PIDFD_INFO_EXIT`: asks for, and tells of, the exit status.
const EXIT: u64 = 1 << 3;

/// `PIDFD_GET_INFO`: `_IOWR(0xFF, 11, struct pidfd_info)`.
const GET_INFO: libc::c_ulong = (3 << 30) | ((size_of::<Info>() as libc::c_ulong) << 16) | (0xff << 8) | 11;

/// The status that the process's parent got from `wait`. None while it is alive or not waited for, and before Linux 6.15.
pub fn exit_status(pidfd: &OwnedFd) -> Option<i32> {
    let mut info = Info { mask: EXIT, ..Info::default() };
    // SAFETY: the kernel writes at most the size that is part of the request's number, which is that of `info`.
    let done = unsafe { libc::ioctl(pidfd.as_raw_fd(), GET_INFO as _, &raw mut info) };
    (done == 0 && info.mask & EXIT != 0).then_some(info.exit_code)
}

/// Waits until the process has exited; whoever waits has to be in a tokio runtime.
pub async fn exited(pidfd: OwnedFd) -> io::Result<()> {
    // SAFETY: an `OwnedFd` is the same open descriptor for as long as it lives.
    let pidfd = unsafe { AsyncFd::register_with_interest(pidfd, Interest::READABLE) }?;
    pidfd.readable().await.map(drop)
}
