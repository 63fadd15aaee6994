//! One process, opened: its identity, its executable, and where that is loaded.
//!
//! A pid alone can come to mean another process at any time. [`Process`] holds a pidfd, which cannot, and the
//! executable as an open file, which stays readable when its path is deleted, replaced or in another mount namespace. What can
//! be asked by pid alone is asked through [`Process::by_pid`].

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::usage::Stat;
use crate::golang::Source;
use crate::golang::elf::Elf;

/// Why a process cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// No such process.
    #[error("there is no process with pid {0}: check the pid, and that it is of this PID namespace")]
    NoSuchProcess(u32),
    /// It has ended, and its parent has not noticed yet.
    #[error("pid {0} has exited already (it is a zombie): nothing is left of it to watch")]
    Zombie(u32),
    /// It is part of the kernel.
    #[error("pid {0} is a kernel thread, not a Go program")]
    KernelThread(u32),
    /// It is this process.
    #[error("pid {0} is parkwarden itself, which is not a Go program: name the pid of the program to watch")]
    Myself(u32),
    /// It is the number of a thread.
    #[error("{thread} is a thread of process {process}: name the process")]
    Thread {
        /// The number.
        thread: u32,
        /// Its process.
        process: u32,
    },
    /// The kernel does not let this user look at it.
    #[error("no permission to look at pid {0}: {remedy}", remedy = remedy())]
    Denied(u32),
    /// Something else went wrong.
    #[error("pid {pid} cannot be opened: {what}")]
    Io {
        /// Which process.
        pid: u32,
        /// What was being done.
        what: &'static str,
        /// How it failed.
        #[source]
        source: io::Error,
    },
}

/// How often, and how long each time, the end of an exec is waited for.
const EXEC_LOOKS: u32 = 20;
const EXEC_LOOK: Duration = Duration::from_millis(1);

/// See the module.
#[derive(Debug)]
pub struct Process {
    pid: u32,
    pidfd: OwnedFd,
    exe: File,
    exe_path: PathBuf,
    image: ImageId,
    start_ticks: u64,
}

/// Which program image a process runs: another one after every exec, also of the same file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ImageId {
    device: u64,
    inode: u64,
    /// Bottom of the stack of the first thread, which every exec moves (address space randomization) or, where that is
    /// off, keeps: then a program that executes itself is not told apart here.
    start_stack: u64,
}

impl ImageId {
    fn of(pid: u32) -> io::Result<Self> {
        use std::os::unix::fs::MetadataExt as _;
        let exe = fs::metadata(format!("/proc/{pid}/exe"))?;
        let stat = Stat::read(pid)?;
        Ok(Self { device: exe.dev(), inode: exe.ino(), start_stack: stat.start_stack })
    }
}

impl Process {
    /// Opens process `pid`.
    pub fn open(pid: u32) -> Result<Self, OpenError> {
        if pid == std::process::id() {
            return Err(OpenError::Myself(pid));
        }
        let raw = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(OpenError::NoSuchProcess(pid))?;
        let pidfd = pidfd_open(raw, PidfdFlags::empty()).map_err(|errno| match errno {
            rustix::io::Errno::SRCH => OpenError::NoSuchProcess(pid),
            // A thread that is not its process's first; since Linux 6.15 by the second name.
            rustix::io::Errno::INVAL | rustix::io::Errno::NOENT => match process_of(pid) {
                Some(process) => OpenError::Thread { thread: pid, process },
                None => OpenError::NoSuchProcess(pid),
            },
            other => OpenError::Io { pid, what: "no pidfd", source: other.into() },
        })?;
        let link = format!("/proc/{pid}/exe");
        let exe = File::open(&link).map_err(|error| no_executable(pid, error))?;
        let exe_path = fs::read_link(&link).map_err(|error| no_executable(pid, error))?;
        let image = ImageId::of(pid).map_err(|error| no_executable(pid, error))?;
        let stat = Stat::of(pid).ok_or(OpenError::NoSuchProcess(pid))?;
        let mut process = Self { pid, pidfd, exe, exe_path, image, start_ticks: stat.start_ticks };
        // In the middle of an exec the new image has no stack yet. Who may not see it sees none for ever.
        for _ in 0..EXEC_LOOKS {
            if process.image.start_stack != 0 || process.exits_within(EXEC_LOOK) {
                break;
            }
            process.image = ImageId::of(pid).map_err(|error| no_executable(pid, error))?;
        }
        // Everything above was of the process that the pidfd holds only if that still lives.
        if process.has_exited() { Err(OpenError::NoSuchProcess(pid)) } else { Ok(process) }
    }

    /// Its pid in parkwarden's PID namespace.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Its executable.
    pub fn exe(&self) -> &File {
        &self.exe
    }

    /// The executable's path as the kernel tells it: in the process's own mount namespace, ` (deleted)` at its end if
    /// it is.
    pub fn exe_path(&self) -> &std::path::Path {
        &self.exe_path
    }

    /// When it started, in clock ticks since the boot.
    pub fn start_ticks(&self) -> u64 {
        self.start_ticks
    }

    /// What `read` finds at the process's pid, if that still meant this process afterwards.
    pub fn by_pid<T>(&self, read: impl FnOnce(u32) -> Option<T>) -> Option<T> {
        let found = read(self.pid)?;
        self.has_its_pid().then_some(found)
    }

    /// Whether its pid cannot mean another process yet: that takes its end and its parent's notice of it.
    fn has_its_pid(&self) -> bool {
        if !self.has_exited() {
            return true;
        }
        // The pid of a pidfd's process is -1 there once it has none (`pidfd_show_fdinfo`).
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", self.pidfd.as_raw_fd())).unwrap_or_default();
        let pid = info.lines().find_map(|line| line.strip_prefix("Pid:")?.trim().parse::<u32>().ok());
        pid == Some(self.pid)
    }

    /// Its pidfd, readable when it has exited.
    pub fn pidfd(&self) -> &OwnedFd {
        &self.pidfd
    }

    /// Whether the process has exited.
    pub fn has_exited(&self) -> bool {
        self.exits_within(Duration::ZERO)
    }

    fn exits_within(&self, time: Duration) -> bool {
        let mut fds = [PollFd::new(&self.pidfd, PollFlags::IN)];
        let time = Timespec { tv_sec: 0, tv_nsec: time.subsec_nanos().into() };
        // An error here cannot tell; the next read of the process's memory will.
        poll(&mut fds, Some(&time)).is_ok_and(|ready| ready > 0)
    }

    /// How the process ended, as `wait` tells its parent: the exit code in the second byte, or the signal in the lowest
    /// seven bits. None while it runs, and where the kernel does not tell anybody but the parent.
    pub fn wait_status(&self) -> Option<i32> {
        // Until its parent has noticed, the process has a status in /proc; from then on, on Linux 6.15 and later, the
        // pidfd has it. In between, one of them had it when it was asked.
        crate::memory::pidfd::exit_status(&self.pidfd)
            .or_else(|| self.by_pid(Stat::of).filter(|stat| stat.is_zombie).map(|stat| stat.exit_status))
            .or_else(|| crate::memory::pidfd::exit_status(&self.pidfd))
    }

    /// Whether the process has executed another program since it was opened.
    pub fn has_executed(&self) -> bool {
        self.by_pid(|pid| ImageId::of(pid).ok()).is_some_and(|image| image != self.image)
    }

    /// How far above its link-time addresses the executable is loaded.
    pub fn slide(&self, elf: &Elf) -> Result<u64, OpenError> {
        if !elf.pie {
            return Ok(0);
        }
        let failed = |source| OpenError::Io { pid: self.pid, what: "where its code is loaded is not known", source };
        let auxv = fs::read(format!("/proc/{}/auxv", self.pid)).map_err(failed)?;
        let entry = aux_value(&auxv, AT_ENTRY).ok_or_else(|| failed(io::ErrorKind::InvalidData.into()))?;
        entry
            .checked_sub(elf.entry)
            .filter(|slide| slide % 4096 == 0)
            .ok_or_else(|| failed(io::ErrorKind::InvalidData.into()))
    }
}

/// Entry point of the program, as loaded (`include/uapi/linux/auxvec.h`).
const AT_ENTRY: u64 = 9;

/// A value of the auxiliary vector: pairs of words.
fn aux_value(auxv: &[u8], key: u64) -> Option<u64> {
    let words = auxv.as_chunks::<8>().0;
    words.as_chunks::<2>().0.iter().find(|[k, _]| u64::from_le_bytes(*k) == key).map(|[_, v]| u64::from_le_bytes(*v))
}

/// Why `/proc/PID/exe` cannot be opened.
/// What lets a user look at a process whom the kernel does not let.
fn remedy() -> &'static str {
    if rustix::process::geteuid().is_root() {
        "not even root may from here: that takes CAP_SYS_PTRACE in the process's user namespace, and no security module against it"
    } else {
        "run as root, or with CAP_SYS_PTRACE, CAP_BPF and CAP_PERFMON"
    }
}

/// The process of a thread.
fn process_of(thread: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{thread}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("Tgid:"))?.trim().parse().ok()
}

fn no_executable(pid: u32, error: io::Error) -> OpenError {
    match (error.kind(), Stat::read(pid)) {
        // It has none; without rights, that cannot be seen.
        (io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied, Ok(stat)) if stat.is_kernel_thread => {
            OpenError::KernelThread(pid)
        }
        (io::ErrorKind::PermissionDenied, _) => OpenError::Denied(pid),
        (io::ErrorKind::NotFound, Err(_)) => OpenError::NoSuchProcess(pid),
        // What is ending has none any more, before it is a zombie too.
        (io::ErrorKind::NotFound, Ok(_)) => OpenError::Zombie(pid),
        _ => OpenError::Io { pid, what: "its executable", source: error },
    }
}

impl Source for File {
    fn len(&self) -> u64 {
        self.metadata().map_or(0, |metadata| metadata.len())
    }

    fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        std::os::unix::fs::FileExt::read_exact_at(self, buf, offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parkwarden_does_not_watch_itself() {
        assert!(matches!(Process::open(std::process::id()), Err(OpenError::Myself(_))));
    }

    #[test]
    fn pids_that_cannot_be_are_no_process() {
        for pid in [0, u32::MAX, i32::MAX as u32] {
            assert!(matches!(Process::open(pid), Err(OpenError::NoSuchProcess(_))), "{pid}");
        }
    }

    #[test]
    fn a_zombie_is_told_apart() {
        let mut child = std::process::Command::new("true").spawn().expect("true runs");
        // Readable when it has exited; it stays a zombie until it is waited for.
        let raw = Pid::from_raw(child.id().cast_signed()).expect("a pid");
        let pidfd = pidfd_open(raw, PidfdFlags::empty()).expect("alive or a zombie");
        poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], None).expect("poll");
        assert!(matches!(Process::open(child.id()), Err(OpenError::Zombie(_))));
        child.wait().expect("it has ended");
        assert!(matches!(Process::open(child.id()), Err(OpenError::NoSuchProcess(_))));
    }

    #[test]
    fn the_end_of_a_process_is_seen() {
        let mut child = std::process::Command::new("cat").stdin(std::process::Stdio::piped()).spawn().expect("cat");
        let process = Process::open(child.id()).expect("it lives");
        assert!(!process.has_exited());
        drop(child.stdin.take());
        child.wait().expect("it ends");
        assert!(process.has_exited());
    }

    #[test]
    fn how_a_process_ended_is_known() {
        for (script, status) in [("exit 7", 7 << 8), ("kill -9 $$", 9)] {
            let mut child = std::process::Command::new("sh")
                .args(["-c", &format!("read line; {script}")])
                .stdin(std::process::Stdio::piped())
                .spawn()
                .expect("sh runs");
            let process = Process::open(child.id()).expect("it lives");
            assert_eq!(process.wait_status(), None);
            drop(child.stdin.take());
            poll(&mut [PollFd::new(&process.pidfd, PollFlags::IN)], None).expect("poll");
            assert_eq!(process.wait_status(), Some(status), "a zombie");
            child.wait().expect("it has ended");
            let after = process.wait_status();
            assert!(after == Some(status) || after.is_none(), "{after:?}");
        }
    }

    #[test]
    fn an_exec_is_seen() {
        let mut shell = std::process::Command::new("sh")
            .args(["-c", "read line; exec cat"])
            .stdin(std::process::Stdio::piped())
            .spawn()
            .expect("sh runs");
        let process = Process::open(shell.id()).expect("it lives");
        assert!(!process.has_executed());
        let mut input = shell.stdin.take().expect("a pipe");
        io::Write::write_all(&mut input, b"go\n").expect("it reads");
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
        while !process.has_executed() {
            assert!(std::time::Instant::now() < deadline, "the exec is not seen");
            std::thread::yield_now();
        }
        drop(input);
        shell.wait().expect("it ends");
    }

    #[test]
    fn the_auxiliary_vector_is_read() {
        let own = fs::read("/proc/self/auxv").expect("readable");
        assert!(aux_value(&own, AT_ENTRY).is_some_and(|entry| entry > 0));
        assert_eq!(aux_value(&own[..7], AT_ENTRY), None);
    }
}
