//! A process that holds probes and does nothing else: its end is the only way in which they are removed.
//!
//! The kernel takes a breakpoint away by writing into the target's memory, and gives up half way if the thread that does it has
//! been sent SIGKILL (`__get_user_pages` in mm/gup.c, which asks `fatal_signal_pending`): it then says "failed to unregister,
//! leaking uprobe", and the target keeps a breakpoint that nobody answers for. A thread that closes a probe's descriptor can be
//! killed at any moment, and so can one that exits by itself. A process that ends *because* of SIGKILL cannot: before its
//! descriptors are closed the kernel has taken that signal off it (`get_signal` in kernel/signal.c) and from then on drops all
//! others (`prepare_signal`).
//!
//! So no thread of parkwarden ever has the descriptor of a probe. Those of one target are made and held by a process of their
//! own, which shares parkwarden's memory and takes little more than a kernel stack. Whatever happens, it ends by SIGKILL: from
//! parkwarden when the probes are to go, from itself when parkwarden is no more, or from whoever kills both.
//!
//! Each breakpoint is a link of its own. One link can have several, but killed while it makes such a link, a keeper would leave
//! those that are there already: the kernel would have to take them back at once, and could not. A link for one breakpoint either
//! comes to be or leaves nothing in the target (though the kernel's log may have a word of it).
//!
//! Deliberately absent: closing anything of a probe by hand.

use std::ffi::{CStr, c_int, c_void};
use std::io::{self, Read as _};
use std::num::NonZeroU32;
use std::os::fd::{AsRawFd as _, BorrowedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};

use nix::sys::signal::{SigSet, SigmaskHow, pthread_sigmask};

use super::programs::Uprobes;
use super::uprobe;

/// A place for a breakpoint, and what its hits run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spot<'p> {
    /// Offset in the executable.
    pub(super) offset: u64,
    pub(super) program: BorrowedFd<'p>,
    /// What the program is handed.
    pub(super) cookie: u64,
}

/// Why there are no probes.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// There is no process to hold them.
    #[error("no process can be made that holds the probes")]
    Keeper(#[source] io::Error),
    /// The kernel does not put breakpoints there.
    #[error("the kernel refused a breakpoint")]
    Breakpoint {
        /// Which of the places.
        spot: usize,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// The kernel does not run the program there.
    #[error("the kernel refused to run a program at a breakpoint")]
    Program {
        /// Which of the places.
        spot: usize,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
}

/// Probes in one target: see the module. Dropping it removes them, which takes the kernel a while.
#[derive(Debug)]
pub(super) struct Keeper {
    pid: c_int,
    /// The keeper ends when this is closed, however that comes about.
    _alive: UnixStream,
    _stack: Stack,
}

impl Keeper {
    /// Puts breakpoints at places of the file at `path` for process `pid` alone, all of its threads, and has their hits run
    /// programs. They go one after the other, the first of them last: that of creations, so that as long as anything is told of
    /// goroutines their creation is too.
    pub(super) fn attach(uprobes: Uprobes, path: &CStr, pid: NonZeroU32, spots: &[Spot<'_>]) -> Result<Self, Refused> {
        let (alive, theirs) = UnixStream::pair().map_err(Refused::Keeper)?;
        let kept = if uprobes == Uprobes::Multi { spots.len() } else { 2 * spots.len() } + 1;
        if kept > MAX_KEPT {
            return Err(Refused::Keeper(io::ErrorKind::InvalidInput.into()));
        }
        let order = Order {
            path,
            pid: pid.get(),
            spots,
            perf_type: match uprobes {
                Uprobes::Multi => None,
                Uprobes::PerfEvent => Some(uprobe::perf_type().map_err(Refused::Keeper)?),
            },
            alive: theirs.as_raw_fd(),
            failed_step: AtomicU32::new(0),
            failed_spot: AtomicU32::new(0),
            errno: AtomicI32::new(0),
        };
        let stack = Stack::new().map_err(Refused::Keeper)?;
        let pid = start(&stack, &order).map_err(Refused::Keeper)?;
        drop(theirs);
        let mut keeper = Self { pid, _alive: alive, _stack: stack };
        // As long as it reads its order: until it says that it is done, or is gone.
        let answered = keeper._alive.read_exact(&mut [0]);
        let refused = order.refused();
        match (answered, refused) {
            (_, Some(refused)) => Err(refused),
            (Ok(()), None) => Ok(keeper),
            (Err(error), None) => {
                // Only then is the order nobody's any more.
                drop(keeper);
                Err(Refused::Keeper(error))
            }
        }
    }

    /// Whether somebody has killed it, so that there are no probes any more.
    pub(super) fn has_ended(&self) -> bool {
        let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT | libc::__WALL;
        // SAFETY: all zeros is a value of this struct of integers.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        let id = self.pid.cast_unsigned();
        // SAFETY: the kernel writes one `siginfo_t`. It stays a child to be waited for.
        let waited = unsafe { libc::waitid(libc::P_PID, id, &raw mut info, options) };
        // SAFETY: `waitid` leaves the pid 0, or sets it.
        waited == 0 && unsafe { info.si_pid() } != 0
    }

    /// Has the kernel begin to remove the probes, without waiting for it.
    pub(super) fn end(&self) {
        // SAFETY: no memory is passed. The process is a child that has not been waited for, so that the number is its own.
        let _ = unsafe { libc::kill(self.pid, libc::SIGKILL) };
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.end();
        // SAFETY: the status is not asked for. A child that nobody else waits for: it sends no SIGCHLD.
        while unsafe { libc::waitpid(self.pid, std::ptr::null_mut(), libc::__WALL) } < 0
            && io::Error::last_os_error().kind() == io::ErrorKind::Interrupted
        {}
    }
}

/// What the keeper is to do. It is in memory that both processes have, and the keeper reads it only until it has answered.
struct Order<'o> {
    path: &'o CStr,
    pid: u32,
    spots: &'o [Spot<'o>],
    /// Where each is a perf event with a link, and not a link alone.
    perf_type: Option<u32>,
    /// The keeper's end of the pair.
    alive: RawFd,
    /// The answer: [`FAILED_KEEPER`] and so on; 0 when all went well.
    failed_step: AtomicU32,
    failed_spot: AtomicU32,
    errno: AtomicI32,
}

const FAILED_KEEPER: u32 = 1;
const FAILED_BREAKPOINT: u32 = 2;
const FAILED_PROGRAM: u32 = 3;

impl Order<'_> {
    /// What the keeper answered.
    fn refused(&self) -> Option<Refused> {
        let source = io::Error::from_raw_os_error(self.errno.load(Ordering::Acquire));
        let spot = self.failed_spot.load(Ordering::Acquire) as usize;
        match self.failed_step.load(Ordering::Acquire) {
            0 => None,
            FAILED_BREAKPOINT => Some(Refused::Breakpoint { spot, source }),
            FAILED_PROGRAM => Some(Refused::Program { spot, source }),
            _ => Some(Refused::Keeper(source)),
        }
    }

    /// In the keeper: makes the probes, and notes what is not to be closed.
    fn carry_out(&self, kept: &mut Kept) -> Result<(), (u32, usize, io::Error)> {
        kept.add(self.alive);
        // Whether this is permitted has to be known before it is too late to say so.
        close_range(u32::MAX, u32::MAX).map_err(|error| (FAILED_KEEPER, 0, error))?;
        // What is opened last is closed first: the programs, without which hits cost less, and then the breakpoints.
        let first = kept.count;
        for (spot, Spot { offset, program, cookie }) in self.spots.iter().enumerate() {
            kept.add(match self.perf_type {
                None => uprobe::multi(*program, self.path, *offset, self.pid, *cookie)
                    .map_err(|error| (FAILED_PROGRAM, spot, error))?,
                Some(kind) => uprobe::open(kind, self.path, *offset, self.pid)
                    .map_err(|error| (FAILED_BREAKPOINT, spot, error))?,
            });
        }
        if self.perf_type.is_some() {
            for (spot, Spot { program, cookie, .. }) in self.spots.iter().enumerate() {
                let event = kept.fds.get(first + spot).copied().unwrap_or(-1);
                kept.add(uprobe::link(*program, event, *cookie).map_err(|error| (FAILED_PROGRAM, spot, error))?);
            }
        }
        Ok(())
    }
}

/// Descriptors that a keeper has at most.
const MAX_KEPT: usize = 64;

/// Descriptors that a keeper keeps: on its stack, because it allocates nothing.
struct Kept {
    fds: [RawFd; MAX_KEPT],
    count: usize,
}

impl Kept {
    const fn add(&mut self, fd: RawFd) {
        if self.count < MAX_KEPT {
            self.fds[self.count] = fd;
            self.count += 1;
        }
    }

    /// Closes all else: connections, files and pipes that are closed when parkwarden closes them.
    fn close_others(&self) -> io::Result<()> {
        let mut first: u32 = 0;
        loop {
            let kept = self.fds.iter().take(self.count).filter_map(|fd| u32::try_from(*fd).ok());
            let next = kept.filter(|fd| *fd >= first).min();
            if next != Some(first) {
                close_range(first, next.map_or(u32::MAX, |next| next.wrapping_sub(1)))?;
            }
            let Some(next) = next else { return Ok(()) };
            first = next.saturating_add(1);
        }
    }
}

fn close_range(first: u32, last: u32) -> io::Result<()> {
    // SAFETY: no memory is passed, and only a keeper calls this: these are its own copies, which nothing else uses.
    let closed = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    if closed < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Starts a keeper: a process in parkwarden's memory, with descriptors of its own and all signals blocked.
fn start(stack: &Stack, order: &Order<'_>) -> io::Result<c_int> {
    let mut before = SigSet::empty();
    // No handler of parkwarden's may run in it, nor a signal that is meant for all end it: nothing but SIGKILL.
    pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), Some(&mut before))?;
    // SAFETY: the stack is the keeper's alone and outlives it, see `Keeper`; so does the order as long as it is read. `keep` calls
    // nothing but the kernel: it allocates nothing, takes no lock and never returns. It shares this thread's thread-local
    // storage, of which it writes `errno`; this thread waits for its answer and does not look at `errno` until then.
    let pid = unsafe {
        libc::clone(keep, stack.top(), libc::CLONE_VM, std::ptr::from_ref(order).cast_mut().cast::<c_void>())
    };
    let started = if pid < 0 { Err(io::Error::last_os_error()) } else { Ok(pid) };
    pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&before), None)?;
    started
}

/// What the keeper does.
extern "C" fn keep(order: *mut c_void) -> c_int {
    // SAFETY: `start` has passed it, and whoever called that waits for the answer before it is dropped.
    let order = unsafe { &*order.cast::<Order<'_>>() };
    let alive = order.alive;
    // SAFETY: the name is a literal; for people who look at processes.
    let _ = unsafe { libc::prctl(libc::PR_SET_NAME, c"probe-keeper".as_ptr()) };
    let mut kept = Kept { fds: [-1; MAX_KEPT], count: 0 };
    let done = order.carry_out(&mut kept);
    let failed = done.is_err();
    if let Err((step, spot, error)) = done {
        order.errno.store(error.raw_os_error().unwrap_or(libc::EIO), Ordering::Release);
        order.failed_spot.store(u32::try_from(spot).unwrap_or(u32::MAX), Ordering::Release);
        order.failed_step.store(step, Ordering::Release);
    }
    // From here on the order is not looked at any more.
    let mut byte = 0u8;
    // SAFETY: the byte is on this stack.
    unsafe { libc::write(alive, std::ptr::from_ref(&byte).cast(), 1) };
    // What was made before it failed is not to be closed by hand.
    if !failed && kept.close_others().is_ok() {
        // Until the other end is closed: then parkwarden is no more.
        // SAFETY: the byte is on this stack.
        unsafe { libc::read(alive, std::ptr::from_mut(&mut byte).cast(), 1) };
    }
    loop {
        // SAFETY: no memory is passed.
        unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
    }
}

/// A stack, and a page below it that cannot be touched.
#[derive(Debug)]
struct Stack {
    base: *mut c_void,
}

/// Pages that are not touched take no memory.
const STACK_BYTES: usize = 128 << 10;

// SAFETY: the mapping belongs to this value, whichever thread has it.
unsafe impl Send for Stack {}
// SAFETY: nothing is done with it through a reference but to take its address.
unsafe impl Sync for Stack {}

impl Stack {
    fn new() -> io::Result<Self> {
        // SAFETY: a new anonymous mapping; nothing that is there is touched.
        let base = unsafe {
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_STACK;
            libc::mmap(std::ptr::null_mut(), STACK_BYTES, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0)
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let stack = Self { base };
        // SAFETY: within the mapping, of which nothing is used yet. The largest page there is on any architecture.
        if unsafe { libc::mprotect(stack.base, 64 << 10, libc::PROT_NONE) } < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(stack)
    }

    /// Where it begins: it grows downwards.
    fn top(&self) -> *mut c_void {
        self.base.wrapping_byte_add(STACK_BYTES)
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's, and whoever ran on it is gone, see `Keeper::drop`.
        unsafe { libc::munmap(self.base, STACK_BYTES) };
    }
}
