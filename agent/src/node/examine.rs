//! Finding out what a process is, by threads of their own: a file system or a process that hangs holds up one of them, which
//! is then replaced.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::discover::describe::Description;
use crate::discover::process::{OpenError, Process};
use crate::golang::binary::GoBinary;
use crate::live::{Binaries, Executable};

use super::state::ProcessKey;

/// Threads that examine.
const WORKERS: usize = 2;

/// How long one process may take.
const TIME_LIMIT: Duration = Duration::from_secs(20);

/// Threads that may hang before no more are started.
const MAX_HUNG: usize = 16;

/// Processes that may wait to be examined; further ones are found by a later scan.
const MAX_WAITING: usize = 16_384;

/// What a process turned out to be.
#[derive(Debug)]
pub enum Examined {
    /// No Go program, or gone already.
    Other,
    /// It may not be looked at.
    Denied,
    /// A Go program.
    Go(Box<Found>),
    /// It did not answer: what it is is not known.
    Hung,
}

/// A process and its binary, open.
pub type Opened = (Arc<Process>, Arc<GoBinary>);

/// A Go program.
#[derive(Debug)]
pub struct Found {
    /// Which process.
    pub key: ProcessKey,
    /// Path of its executable.
    pub exe: String,
    /// User, command line and control groups.
    pub described: Description,
    /// For example `go1.27.3`.
    pub go_version: Option<String>,
    /// Without a symbol table.
    pub stripped: Option<bool>,
    /// The process and its binary, or why the binary is not understood: in one word, and in full.
    pub opened: Result<Opened, (&'static str, String)>,
}

/// See the module.
pub struct Examiners {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    work: Condvar,
    binaries: Binaries,
    tell: Box<dyn Fn(u32, Examined) + Send + Sync>,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<u32>,
    /// What each worker does, by its number, and since when.
    busy: BTreeMap<usize, (u32, Instant)>,
    workers: usize,
    hung: usize,
    next: usize,
    stopped: bool,
}

impl Examiners {
    /// Starts them; what they find out goes to `tell`.
    pub fn start(tell: impl Fn(u32, Examined) + Send + Sync + 'static) -> Self {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            work: Condvar::new(),
            binaries: Binaries::default(),
            tell: Box::new(tell),
        });
        let examiners = Self { shared };
        examiners.replace_hung();
        examiners
    }

    /// Has a process examined.
    pub fn examine(&self, pid: u32) {
        let mut state = self.shared.lock();
        if state.waiting.len() < MAX_WAITING {
            state.waiting.push_back(pid);
        }
        drop(state);
        self.shared.work.notify_one();
    }

    /// Gives back the memory that executables took while they were read, once none is.
    pub fn give_back(&self) {
        let state = self.shared.lock();
        let at_rest = state.waiting.is_empty() && state.busy.is_empty();
        drop(state);
        if at_rest && self.shared.binaries.were_read() {
            crate::memory::allocator::give_back();
        }
    }

    /// Gives up on threads that hang, and starts others in their place.
    pub fn replace_hung(&self) {
        let mut state = self.shared.lock();
        let late: Vec<(usize, u32)> = state
            .busy
            .iter()
            .filter(|(_, (_, since))| since.elapsed() > TIME_LIMIT)
            .map(|(worker, (pid, _))| (*worker, *pid))
            .collect();
        for (worker, _) in &late {
            state.busy.remove(worker);
            state.workers -= 1;
            state.hung += 1;
        }
        while state.workers < WORKERS && state.hung < MAX_HUNG {
            let worker = state.next;
            state.next += 1;
            let shared = Arc::clone(&self.shared);
            match std::thread::Builder::new().name("examine".to_owned()).spawn(move || shared.work(worker)) {
                Ok(_) => state.workers += 1,
                Err(error) => {
                    log::error!("no thread to examine processes: {error}");
                    break;
                }
            }
        }
        if state.workers == 0 {
            log::error!("no new process can be examined: {MAX_HUNG} threads hang in processes that do not answer");
        }
        drop(state);
        for (_, pid) in late {
            (self.shared.tell)(pid, Examined::Hung);
        }
    }
}

impl Drop for Examiners {
    fn drop(&mut self) {
        self.shared.lock().stopped = true;
        self.shared.work.notify_all();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self, worker: usize) {
        loop {
            let mut state = self.lock();
            let pid = loop {
                if state.stopped {
                    return;
                }
                if let Some(pid) = state.waiting.pop_front() {
                    break pid;
                }
                state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
            };
            state.busy.insert(worker, (pid, Instant::now()));
            drop(state);
            let examined = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| examine(pid, &self.binaries)));
            if self.lock().busy.remove(&worker).is_none() {
                // It took too long, and has been replaced.
                self.lock().hung -= 1;
                return;
            }
            // A panic is a bug, which its message tells; what the process is stays unknown.
            (self.tell)(pid, examined.unwrap_or(Examined::Hung));
        }
    }
}

fn examine(pid: u32, binaries: &Binaries) -> Examined {
    let process = match Process::open(pid) {
        Ok(process) => process,
        Err(OpenError::Denied(_)) => return Examined::Denied,
        // Kernel threads, zombies, and those that have gone meanwhile.
        Err(_) => return Examined::Other,
    };
    let Some(described) = Description::of(&process) else { return Examined::Other };
    let mut found = Found {
        key: ProcessKey { pid, start_ticks: process.start_ticks() },
        exe: process.exe_path().display().to_string(),
        described,
        go_version: None,
        stripped: None,
        opened: Err(("unreadable", String::new())),
    };
    match binaries.of(&process) {
        None | Some(Executable::Other) => return Examined::Other,
        Some(Executable::Refused(refused)) => {
            found.go_version = refused.build.as_ref().map(|build| build.go_version.clone());
            found.opened = Err((refused.refusal.word(), refused.refusal.to_string()));
        }
        Some(Executable::Go(binary)) => {
            found.go_version = Some(binary.version.to_string());
            found.stripped = Some(binary.stripped);
            found.opened = Ok((Arc::new(process), binary));
        }
    }
    Examined::Go(Box::new(found))
}
