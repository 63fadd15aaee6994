//! Finding out what a process is, by threads of their own: a file system or a process that hangs holds up one of them, which
//! is then replaced.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::live::Binaries;
use crate::live::examine::{Examined, examine};

/// Threads that examine.
const WORKERS: usize = 2;

/// How long one process may take.
const TIME_LIMIT: Duration = Duration::from_secs(20);

/// Threads that may hang before no more are started.
const MAX_HUNG: usize = 16;

/// Processes that may wait to be examined; further ones are found by a later scan.
const MAX_WAITING: usize = 16_384;

/// See the module.
pub struct Examiners {
    shared: Arc<Shared>,
}

/// Takes what a process turned out to be; `None` if it did not answer, so that this is not known.
type Tell = dyn Fn(u32, Option<Examined>) + Send + Sync;

struct Shared {
    state: Mutex<ExaminerState>,
    work: Condvar,
    binaries: Binaries,
    tell: Box<Tell>,
}

#[derive(Default)]
struct ExaminerState {
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
    pub fn start(tell: impl Fn(u32, Option<Examined>) + Send + Sync + 'static) -> Self {
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
        let mut state = self.shared.state.lock();
        if state.waiting.len() < MAX_WAITING {
            state.waiting.push_back(pid);
        }
        drop(state);
        self.shared.work.notify_one();
    }

    /// Gives back the memory that executables took while they were read, once none is.
    pub fn give_back(&self) {
        let state = self.shared.state.lock();
        let at_rest = state.waiting.is_empty() && state.busy.is_empty();
        drop(state);
        if at_rest && self.shared.binaries.were_read() {
            crate::memory::allocator::give_back();
        }
    }

    /// Gives up on threads that hang, and starts others in their place.
    pub fn replace_hung(&self) {
        let mut state = self.shared.state.lock();
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
            (self.shared.tell)(pid, None);
        }
    }
}

impl Drop for Examiners {
    fn drop(&mut self) {
        self.shared.state.lock().stopped = true;
        self.shared.work.notify_all();
    }
}

impl Shared {
    fn work(&self, worker: usize) {
        loop {
            let mut state = self.state.lock();
            let pid = loop {
                if state.stopped {
                    return;
                }
                if let Some(pid) = state.waiting.pop_front() {
                    break pid;
                }
                self.work.wait(&mut state);
            };
            state.busy.insert(worker, (pid, Instant::now()));
            drop(state);
            let examined = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| examine(pid, &self.binaries)));
            if self.state.lock().busy.remove(&worker).is_none() {
                // It took too long, and has been replaced.
                self.state.lock().hung -= 1;
                return;
            }
            // A panic is a bug, which its message tells; what the process is stays unknown.
            (self.tell)(pid, examined.ok());
        }
    }
}
