//! Stopping a process for as long as it takes to copy its memory, in a way that it always runs on afterwards.
//!
//! The process is stopped with ptrace, thread by thread, from a thread of parkwarden that does nothing else. The kernel
//! detaches and resumes a tracee when the thread that traces it ends, however it ends: by returning, by a panic, or
//! because parkwarden is killed with SIGKILL. No watchdog has to live longer than parkwarden, and no order of events
//! leaves the process stopped. SIGSTOP has neither property, and shows itself to the process's parent.
//!
//! Deliberately absent: `PTRACE_O_EXITKILL`, and every request that writes to the process.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::Fault;
use crate::golang::Arch;

/// Threads of one process stopped at most.
const MAX_THREADS: usize = 1 << 16;
/// Time between two looks at threads that have not stopped yet.
const POLL: Duration = Duration::from_micros(20);
/// Words of a register set, at most: arm64's has 34.
const MAX_REGISTERS: usize = 64;

/// A thread of a stopped process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Thread {
    /// Its id.
    pub tid: u32,
    /// Its stack pointer.
    pub sp: u64,
    /// Its general registers, as `NT_PRSTATUS` has them.
    pub registers: Vec<u64>,
}

impl Thread {
    /// Its program counter, if it is known, and its link register, 0 where there is none: `rip` of `user_regs_struct`, `pc` and
    /// `regs[30]` of `user_pt_regs`.
    pub fn program_counter(&self, arch: Arch) -> (Option<u64>, u64) {
        let register = |index: usize| self.registers.get(index).copied();
        match arch {
            Arch::Amd64 => (register(16), 0),
            Arch::Arm64 => (register(32), register(30).unwrap_or(0)),
        }
    }
}

/// Why a process could not be stopped. It runs on in every case.
#[derive(Debug, thiserror::Error)]
pub enum StopError {
    /// It has exited.
    #[error("the process has exited")]
    Gone,
    /// The kernel does not let it be traced.
    #[error(
        "the process cannot be stopped: no permission to trace it, or a debugger traces it already; run as root or with \
         CAP_SYS_PTRACE"
    )]
    Denied,
    /// Its threads did not all stop in time.
    #[error("its threads did not all stop within {0:?} (one may be in an uninterruptible sleep)")]
    TooSlow(Duration),
    /// It has too many threads.
    #[error("it has more than {MAX_THREADS} threads")]
    TooManyThreads,
    /// Something else failed.
    #[error("{what} failed")]
    Io {
        /// What.
        what: &'static str,
        /// How.
        #[source]
        source: io::Error,
    },
    /// The thread that traced it panicked.
    #[error("copying its memory failed unexpectedly")]
    Panicked,
}

impl From<StopError> for Fault {
    fn from(error: StopError) -> Self {
        match error {
            StopError::Denied => Self::Denied,
            _ => Self::Gone,
        }
    }
}

/// What came of stopping a process.
#[derive(Debug)]
pub struct Stopped<T> {
    /// What the work returned.
    pub result: T,
    /// How long the process did not run.
    pub pause: Duration,
    /// How many threads were stopped.
    pub threads: usize,
}

/// Stops process `pid`, runs `work` with its threads' registers and the moment by which it has to be done, and lets the
/// process run on. `budget` is the longest the process may stand still; `work` has to keep to the deadline itself.
pub fn while_stopped<T: Send>(
    pid: u32,
    budget: Duration,
    work: impl FnOnce(&[Thread], Instant) -> T + Send,
) -> Result<Stopped<T>, StopError> {
    thread::scope(|scope| {
        let tracer = thread::Builder::new()
            .name("stop".to_owned())
            .spawn_scoped(scope, move || stop_and_work(pid, budget, work))
            .map_err(|source| StopError::Io { what: "starting a thread", source })?;
        tracer.join().unwrap_or(Err(StopError::Panicked))
    })
}

fn stop_and_work<T>(
    pid: u32,
    budget: Duration,
    work: impl FnOnce(&[Thread], Instant) -> T,
) -> Result<Stopped<T>, StopError> {
    hurry(budget);
    let mut tracees = Tracees { pid, threads: BTreeMap::new() };
    // Traced threads run on: the pause begins with the first that is interrupted.
    tracees.seize_new()?;
    let began = Instant::now();
    let deadline = began + budget;
    tracees.stop_all(deadline, budget)?;
    let threads = tracees.registers();
    let result = work(&threads, deadline);
    let count = tracees.threads.len();
    drop(tracees);
    Ok(Stopped { result, pause: began.elapsed(), threads: count })
}

/// Does what takes a moment as fast as it would be done while a process stands still for `budget`; `None` if it panics.
pub fn hurried<T: Send>(budget: Duration, work: impl FnOnce() -> T + Send) -> Option<T> {
    let hurrying = || {
        hurry(budget);
        work()
    };
    thread::scope(|scope| scope.spawn(hurrying).join().ok())
}

/// The longest that parkwarden may have all CPUs to itself.
const LONGEST_ALONE: Duration = Duration::from_millis(100);

/// Has the kernel prefer this thread, which ends with the pause, and the threads that it starts: the target stands still for as
/// long as they wait for a CPU. A nice value does not count where each session has its share of the CPUs (`autogroup`), so
/// the lowest real-time priority comes first. Only for pauses that the rest of the host can do without any CPU for: with a larger
/// budget, or without permission, the nice value has to do.
fn hurry(budget: Duration) {
    const THIS_THREAD: libc::pid_t = 0;
    const MOST_FAVOURED: libc::c_int = -20;
    let lowest = libc::sched_param { sched_priority: 1 };
    // SAFETY: both are about the calling thread on Linux; the first reads `lowest`, which outlives it.
    unsafe {
        if budget > LONGEST_ALONE || libc::sched_setscheduler(THIS_THREAD, libc::SCHED_RR, &raw const lowest) != 0 {
            let _ = libc::setpriority(libc::PRIO_PROCESS, THIS_THREAD.cast_unsigned(), MOST_FAVOURED);
        }
    }
}

/// Lets all others that want a CPU go before this thread, for as long as it lives: a target that runs needs it more.
pub fn after_others() {
    const THIS_THREAD: libc::id_t = 0;
    const LITTLE_FAVOURED: libc::c_int = 10;
    // SAFETY: it is about the calling thread on Linux, and reads no memory. Nothing is lost if it fails.
    let _ = unsafe { libc::setpriority(libc::PRIO_PROCESS, THIS_THREAD, LITTLE_FAVOURED) };
}

/// The threads that are traced; dropping this lets them go.
struct Tracees {
    pid: u32,
    /// By id: whether it is known to be stopped.
    threads: BTreeMap<i32, bool>,
}

impl Tracees {
    /// Seizes all threads that are not seized yet, and says how many there were.
    fn seize_new(&mut self) -> Result<usize, StopError> {
        let gone = |error: io::Error| match error.kind() {
            io::ErrorKind::NotFound => StopError::Gone,
            _ => StopError::Io { what: "reading the list of threads", source: error },
        };
        let mut new = 0;
        for entry in fs::read_dir(format!("/proc/{}/task", self.pid)).map_err(gone)? {
            let name = entry.map_err(gone)?.file_name();
            let Some(tid) = name.to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
            if self.threads.contains_key(&tid) {
                continue;
            }
            if self.threads.len() >= MAX_THREADS {
                return Err(StopError::TooManyThreads);
            }
            match ptrace(libc::PTRACE_SEIZE, tid, 0) {
                Ok(()) => {
                    self.threads.insert(tid, false);
                    new += 1;
                }
                // It ended since it was listed.
                Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
                // EACCES is AppArmor's word for it.
                Err(error) if matches!(error.raw_os_error(), Some(libc::EPERM | libc::EACCES)) => {
                    return Err(StopError::Denied);
                }
                Err(source) => return Err(StopError::Io { what: "tracing a thread", source }),
            }
        }
        if self.threads.is_empty() { Err(StopError::Gone) } else { Ok(new) }
    }

    /// Interrupts all threads and waits until they stand still, those that they start meanwhile too.
    fn stop_all(&mut self, deadline: Instant, budget: Duration) -> Result<(), StopError> {
        loop {
            for (tid, stopped) in &self.threads {
                if !stopped {
                    // One that has ended says so when it is waited for.
                    let _ = ptrace(libc::PTRACE_INTERRUPT, *tid, 0);
                }
            }
            while !self.wait_for_stops()? {
                if Instant::now() >= deadline {
                    return Err(StopError::TooSlow(budget));
                }
                thread::sleep(POLL);
            }
            // Threads that stand still start no others: when a look finds none, there are none.
            if self.seize_new()? == 0 {
                return Ok(());
            }
        }
    }

    /// Takes note of the threads that have stopped. Says whether all have.
    fn wait_for_stops(&mut self) -> Result<bool, StopError> {
        let mut all = true;
        let mut ended = Vec::new();
        for (tid, stopped) in self.threads.iter_mut().filter(|(_, stopped)| !**stopped) {
            let mut status = 0;
            // SAFETY: `status` is a valid place for the status.
            let waited = unsafe { libc::waitpid(*tid, &raw mut status, libc::WNOHANG | libc::__WALL) };
            if waited == 0 {
                all = false;
            } else if waited < 0 || libc::WIFEXITED(status) || libc::WIFSIGNALED(status) {
                ended.push(*tid);
            } else if status >> 16 == libc::PTRACE_EVENT_STOP {
                *stopped = true;
            } else {
                // About to receive a signal. It gets it now and stops right afterwards, so that the signal is not lost
                // if parkwarden dies meanwhile.
                all = false;
                let signal = if status >> 16 == 0 { libc::WSTOPSIG(status) } else { 0 };
                let _ = ptrace(libc::PTRACE_CONT, *tid, signal as usize);
            }
        }
        for tid in ended {
            self.threads.remove(&tid);
        }
        if self.threads.is_empty() { Err(StopError::Gone) } else { Ok(all) }
    }

    /// The registers of all threads.
    fn registers(&self) -> Vec<Thread> {
        self.threads.keys().map(|tid| registers(*tid)).collect()
    }
}

impl Drop for Tracees {
    fn drop(&mut self) {
        for tid in self.threads.keys() {
            // A thread that did not stop cannot be detached; the kernel does it when this thread ends.
            let _ = ptrace(libc::PTRACE_DETACH, *tid, 0);
        }
    }
}

/// The general registers of a stopped thread; none if they cannot be had.
fn registers(tid: i32) -> Thread {
    let mut words = [MaybeUninit::<u64>::zeroed(); MAX_REGISTERS];
    let mut vector = libc::iovec { iov_base: words.as_mut_ptr().cast(), iov_len: size_of_val(&words) };
    // SAFETY: the vector describes `words`, which lives longer than the call; the kernel writes no more than its length.
    let done = unsafe {
        libc::ptrace(libc::PTRACE_GETREGSET, tid, libc::NT_PRSTATUS as usize, std::ptr::from_mut(&mut vector))
    };
    let count = if done == 0 { (vector.iov_len / 8).min(MAX_REGISTERS) } else { 0 };
    // SAFETY: all of it was zeroed, and any bits are a u64.
    let registers: Vec<u64> = words[..count].iter().map(|word| unsafe { word.assume_init() }).collect();
    let sp = registers.get(STACK_POINTER).copied().unwrap_or(0);
    Thread { tid: tid.cast_unsigned(), sp, registers }
}

/// Index of the stack pointer in `NT_PRSTATUS`: `rsp` of `user_regs_struct`, `sp` of `user_pt_regs`.
const STACK_POINTER: usize = if cfg!(target_arch = "aarch64") { 31 } else { 19 };

/// A request without an address.
pub(super) fn ptrace(request: libc::c_uint, tid: i32, data: usize) -> io::Result<()> {
    // SAFETY: these requests read no memory of this process; `data` is a number to them.
    let done = unsafe { libc::ptrace(request, tid, 0usize, data) };
    if done == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};

    use super::*;

    struct Target(Child);

    impl Target {
        fn start() -> Self {
            Self(Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("cat runs"))
        }

        fn state(&self) -> char {
            let stat = fs::read_to_string(format!("/proc/{}/stat", self.0.id())).expect("it lives");
            stat.rsplit(')').next().and_then(|rest| rest.trim().chars().next()).expect("a state")
        }

        /// Whether it still does what it does: passes on a byte.
        fn answers(&mut self) -> bool {
            use std::io::{Read as _, Write as _};
            self.0.stdin.as_mut().expect("piped").write_all(b"x").expect("written");
            let mut byte = [0];
            self.0.stdout.as_mut().expect("piped").read_exact(&mut byte).is_ok() && byte == *b"x"
        }
    }

    impl Drop for Target {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    const BUDGET: Duration = Duration::from_secs(5);

    #[test]
    fn it_stands_still_meanwhile_and_runs_on_afterwards() {
        let mut target = Target::start();
        assert!(target.answers());
        let stopped =
            while_stopped(target.0.id(), BUDGET, |threads, _| (target.state(), threads.to_vec())).expect("stopped");
        let (state, threads) = stopped.result;
        assert_eq!((state, threads.len(), stopped.threads), ('t', 1, 1));
        assert_ne!(threads[0].sp, 0);
        assert!(target.answers());
    }

    #[test]
    fn it_runs_on_after_a_panic() {
        let mut target = Target::start();
        let stopped = while_stopped(target.0.id(), BUDGET, |_, _| panic!("on purpose"));
        assert!(matches!(stopped, Err::<Stopped<()>, _>(StopError::Panicked)));
        assert!(target.answers());
    }

    #[test]
    fn what_is_gone_is_told() {
        let mut child = Command::new("true").spawn().expect("true runs");
        child.wait().expect("it ends");
        assert!(matches!(while_stopped(child.id(), BUDGET, |_, _| ()), Err(StopError::Gone)));
    }

    #[test]
    fn a_process_that_is_traced_already_is_left_alone() {
        let mut target = Target::start();
        let id = target.0.id();
        let inner =
            while_stopped(id, BUDGET, |_, _| matches!(while_stopped(id, BUDGET, |_, _| ()), Err(StopError::Denied)));
        assert!(inner.expect("stopped").result);
        assert!(target.answers());
    }
}
