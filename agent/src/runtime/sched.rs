//! The scheduler: what `GODEBUG=schedtrace` prints, with `scheddetail`, from `runtime.sched`, the Ps and the Ms.
//!
//! What is not stopped moves while it is read: Ps and Ms are read one after the other, and a queue's head and tail are read
//! together, twice if they make no sense. The runtime's own trace holds the scheduler's lock, which stops little more.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::golang::layout::{Structs, Wanted};
use crate::memory::{Fault, Memory};

use super::histogram::Histogram;
use super::{RuntimeError, View};

/// The fields that are read.
pub const WANTED: &Wanted = &[
    (
        "runtime.schedt",
        &[
            ("lastpoll", 8),
            ("nmidle", 4),
            ("nmidlelocked", 4),
            ("mnext", 8),
            ("nmfreed", 8),
            ("ngsys", 4),
            // Go 1.26 and later.
            ("nGsyscallNoP", 4),
            ("npidle", 4),
            ("nmspinning", 4),
            ("needspinning", 4),
            // Until Go 1.24, and since.
            ("runqsize", 4),
            ("runq.size", 4),
            // 4 bytes in Go 1.19, as the one of sysmon.
            ("gcwaiting", 0),
            ("stopwait", 4),
            ("sysmonwait", 0),
            ("timeToRun", 0),
            ("totalMutexWaitTime", 8),
            // Go 1.22 and later.
            ("stwStoppingTimeGC", 0),
            ("stwStoppingTimeOther", 0),
            ("stwTotalTimeGC", 0),
            ("stwTotalTimeOther", 0),
            ("totalRuntimeLockWaitTime", 8),
            // Go 1.26 and later.
            ("goroutinesCreated", 8),
        ],
    ),
    (
        "runtime.p",
        &[
            ("id", 4),
            ("status", 4),
            ("schedtick", 4),
            ("syscalltick", 4),
            ("sysmontick.schedtick", 4),
            ("sysmontick.schedwhen", 8),
            ("m", 8),
            ("runqhead", 4),
            ("runqtail", 4),
            ("runnext", 8),
            // Until Go 1.24, and since.
            ("gFree.n", 4),
            ("gFree.size", 4),
            // Until Go 1.22, and since.
            ("timers", 0),
            ("timers.heap", 24),
            // Go 1.26 and later.
            ("goroutinesCreated", 8),
        ],
    ),
    (
        "runtime.m",
        &[
            ("procid", 8),
            ("curg", 8),
            ("p", 8),
            ("id", 8),
            ("mallocing", 4),
            ("throwing", 4),
            ("preemptoff", 16),
            ("locks", 4),
            ("dying", 4),
            ("spinning", 1),
            ("blocked", 1),
            ("incgo", 1),
            ("ncgocall", 8),
            ("alllink", 8),
            ("lockedg", 8),
            // Go 1.22 and later.
            ("mLockProfile.waitTime", 8),
        ],
    ),
    (
        "runtime.g",
        &[
            ("goid", 8),
            ("atomicstatus", 4),
            ("waitreason", 1),
            ("m", 8),
            ("lockedm", 8),
            ("startpc", 8),
            ("trackingSeq", 1),
        ],
    ),
];

/// Ps read at most: more than any machine has.
pub const MAX_PROCESSORS: u64 = 4096;
/// Ms read at most; a program that has 10 000 is ended by its runtime.
const MAX_THREADS: usize = 20_000;
/// Goroutines listed at most.
const MAX_GOROUTINES: u64 = 1_000_000;
/// Goroutines read at once.
const BATCH: usize = 4096;
/// Entries of a P's queue.
const RUN_QUEUE: u32 = 256;
/// Reads of a P whose queue makes no sense.
const LOOKS: usize = 3;
/// Bytes of `preemptoff` read.
const MAX_TEXT: u64 = 64;

/// Where the scheduler's variables are.
#[derive(Clone, Copy, Debug)]
pub struct Places {
    /// `runtime.sched`
    pub sched: u64,
    /// `runtime.allp`
    pub allp: u64,
    /// `runtime.allm`
    pub allm: u64,
    /// `runtime.allgs`
    pub allgs: u64,
    /// `runtime.runtimeInitTime`, where it is known.
    pub init_time: Option<u64>,
    /// `runtime.ncgocall`, where it is known.
    pub c_calls: Option<u64>,
    /// `runtime.extraMLength` and `runtime.extraMInUse`, where they are known; Go 1.21 and later.
    pub extra_threads: Option<[u64; 2]>,
}

/// The scheduler at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Scheduler {
    /// When it was read, `CLOCK_MONOTONIC` nanoseconds.
    pub read_ns: u64,
    /// Since the program's runtime began, where that is known.
    pub uptime_ms: Option<u64>,
    /// How many Ps there are.
    pub gomaxprocs: u64,
    /// Ps without work.
    pub idle_processors: u64,
    /// Threads.
    pub threads: u64,
    /// Threads that look for work.
    pub spinning_threads: u64,
    /// Whether another one is to (Go 1.21 and later).
    pub need_spinning: Option<u64>,
    /// Threads without work.
    pub idle_threads: u64,
    /// Threads without work that are locked to a goroutine.
    pub idle_locked_threads: u64,
    /// Goroutines in the global queue.
    pub run_queue: u64,
    /// Whether the world is to be stopped.
    pub stopping: bool,
    /// Ps that have not stopped yet.
    pub stop_wait: i64,
    /// Whether the runtime's watchdog thread sleeps.
    pub monitor_sleeps: bool,
    /// When the network was polled last, `CLOCK_MONOTONIC` nanoseconds; 0 while somebody polls.
    pub last_poll_ns: u64,
    /// Goroutines of the runtime itself.
    pub system_goroutines: u64,
    /// Goroutines in system calls whose P is used by others (Go 1.26 and later).
    pub syscalls_without_p: Option<u64>,
    /// Goroutines made so far (Go 1.26 and later).
    pub created: Option<u64>,
    /// Goroutines that run.
    #[serde(default)]
    pub running: u64,
    /// Goroutines that are ready to run: in queues, or next.
    #[serde(default)]
    pub runnable: u64,
    /// Goroutines in system calls or in C.
    #[serde(default)]
    pub not_in_go: u64,
    /// Threads that are kept for calls from C, which the runtime does not count as its own (Go 1.21 and later).
    #[serde(default)]
    pub extra_threads: Option<ExtraThreads>,
    /// Calls from Go to C so far, by threads that have ended too.
    #[serde(default)]
    pub all_c_calls: Option<u64>,
    /// Nanoseconds that goroutines have waited for mutexes, as sampled by the runtime (Go 1.21 and later).
    pub mutex_wait_ns: Option<u64>,
    /// Nanoseconds that threads have waited for locks of the runtime itself (Go 1.22 and later).
    pub runtime_lock_wait_ns: Option<u64>,
    /// Calls from Go to C by the threads there are.
    pub c_calls: u64,
    /// How long goroutines waited for a P; the runtime looks at one in eight.
    pub latency: Option<Histogram>,
    /// Ps.
    pub processors: Vec<Processor>,
    /// Ms.
    pub machines: Vec<Machine>,
}

impl Scheduler {
    /// Threads without those that are kept for calls from C; none where it is not known how many those are.
    pub fn own_threads(&self) -> Option<u64> {
        let extra = self.extra_threads?;
        Some(self.threads.saturating_sub(extra.idle).saturating_sub(extra.in_use))
    }

    /// Goroutines in the queues of all Ps and in the one of all, those that are next left out.
    pub fn queued(&self) -> u64 {
        self.processors.iter().fold(self.run_queue, |sum, p| sum.saturating_add(u64::from(p.run_queue)))
    }
}

/// Threads that are kept for calls from C.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ExtraThreads {
    /// `runtime.extraMLength`
    pub idle: u64,
    /// `runtime.extraMInUse`
    pub in_use: u64,
}

/// A P.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Processor {
    /// Index.
    pub id: u64,
    /// `p.status`
    pub status: u64,
    /// Goes up with each goroutine it runs, except those that another one hands its time to.
    pub sched_tick: u64,
    /// Goes up with each system call.
    pub syscall_tick: u64,
    /// Its M, by number.
    pub m: Option<i64>,
    /// Goroutines in its queue.
    pub run_queue: u32,
    /// The goroutine that is next.
    pub run_next: Option<u64>,
    /// Dead goroutines it keeps for use again.
    pub free_goroutines: u64,
    /// Timers in its heap.
    pub timers: u64,
    /// `schedtick` as the watchdog saw it last.
    pub monitor_tick: u64,
    /// Since when the watchdog has seen that tick, `CLOCK_MONOTONIC` nanoseconds.
    pub monitor_since_ns: u64,
}

/// An M: a thread as the runtime knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Machine {
    /// Number.
    pub id: i64,
    /// The kernel's number of the thread, in the process's own namespace.
    pub thread_id: u64,
    /// The P that it has.
    pub p: Option<u64>,
    /// The goroutine that it runs.
    pub goroutine: Option<Current>,
    /// `m.mallocing`
    pub mallocing: i64,
    /// `m.throwing`
    pub throwing: i64,
    /// Why it must not be preempted.
    pub preempt_off: String,
    /// `m.locks`
    pub locks: i64,
    /// `m.dying`
    pub dying: i64,
    /// Looks for work.
    pub spinning: bool,
    /// Sleeps until somebody has work for it.
    pub blocked: bool,
    /// Runs C.
    pub in_c: bool,
    /// Calls to C so far.
    pub c_calls: u64,
    /// The goroutine that it is locked to.
    pub locked_goroutine: Option<u64>,
}

/// The goroutine of an M.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Current {
    /// `g.goid`
    pub goid: u64,
    /// `g.atomicstatus`, without the collector's bit.
    pub status: u32,
    /// `g.startpc`
    pub start_pc: u64,
    /// `g.trackingSeq`: one more (of 256) each time it stops running.
    pub runs: u8,
}

/// A goroutine as `scheddetail` lists it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Listed {
    /// `g.goid`
    pub goid: u64,
    /// `g.atomicstatus`, with the collector's bit.
    pub status: u64,
    /// `g.waitreason`
    pub wait_reason: u8,
    /// The M that runs it.
    pub m: Option<i64>,
    /// The M that it is locked to.
    pub locked_m: Option<i64>,
}

/// `_Prunning`
pub const P_RUNNING: u64 = 1;
/// `_Psyscall`; Go 1.25 and earlier.
pub const P_SYSCALL: u64 = 2;
/// `_Grunning`
pub const G_RUNNING: u32 = 2;
/// `_Gsyscall`
pub const G_SYSCALL: u32 = 3;
/// The bit that the collector adds to a status.
const SCAN: u64 = 0x1000;

/// Reads the scheduler.
pub fn read(memory: &dyn Memory, structs: &Structs, places: &Places, now_ns: u64) -> Result<Scheduler, RuntimeError> {
    let sched = View::read(memory, structs, WANTED, "runtime.schedt", places.sched)?;
    let processors = processors(memory, structs, places.allp)?;
    let machines = machines(memory, structs, places.allm)?;
    let goroutines = Goroutines::read(memory, structs, &processors, &machines)?;
    let ids: HashMap<u64, i64> = machines.iter().map(|m| (m.address(), m.signed("id"))).collect();
    let indexes: HashMap<u64, u64> = processors.iter().map(|p| (p.address(), p.number("id"))).collect();
    // Go 1.19's histograms have other buckets.
    let latency = sched.at("timeToRun").and_then(|at| Histogram::read(memory, structs, at).ok());
    let init_time = places.init_time.and_then(|at| memory.read_u64(at).ok()).filter(|time| *time != 0);
    let running =
        |status: u32| machines.iter().filter(|m| goroutines.status(m.number("curg")) == Some(status)).count() as u64;
    let sum = |views: &[View<'_>], field| views.iter().fold(0u64, |sum, view| sum.wrapping_add(view.number(field)));
    Ok(Scheduler {
        read_ns: now_ns,
        uptime_ms: init_time.map(|time| now_ns.saturating_sub(time) / 1_000_000),
        gomaxprocs: processors.len() as u64,
        idle_processors: sched.number("npidle"),
        threads: sched.number("mnext").wrapping_sub(sched.number("nmfreed")),
        spinning_threads: sched.number("nmspinning"),
        need_spinning: sched.get("needspinning"),
        idle_threads: sched.number("nmidle"),
        idle_locked_threads: sched.number("nmidlelocked"),
        run_queue: global_queue(&sched),
        stopping: sched.number("gcwaiting") != 0,
        stop_wait: sched.signed("stopwait"),
        monitor_sleeps: sched.number("sysmonwait") != 0,
        last_poll_ns: sched.number("lastpoll"),
        system_goroutines: sched.number("ngsys"),
        syscalls_without_p: sched.get("nGsyscallNoP"),
        created: sched
            .get("goroutinesCreated")
            .map(|created| created.wrapping_add(sum(&processors, "goroutinesCreated"))),
        running: running(G_RUNNING),
        runnable: runnable(&sched, &processors),
        not_in_go: running(G_SYSCALL),
        extra_threads: places.extra_threads.and_then(|places| extra_threads(memory, places)),
        all_c_calls: places
            .c_calls
            .and_then(|at| memory.read_u64(at).ok())
            .map(|ended| ended.wrapping_add(sum(&machines, "ncgocall"))),
        mutex_wait_ns: sched.get("totalMutexWaitTime"),
        runtime_lock_wait_ns: sched
            .get("totalRuntimeLockWaitTime")
            .map(|time| time.wrapping_add(sum(&machines, "mLockProfile.waitTime"))),
        c_calls: sum(&machines, "ncgocall"),
        latency,
        processors: processors.iter().map(|p| processor(p, &ids, &goroutines)).collect(),
        machines: machines.iter().map(|m| machine(memory, m, &indexes, &goroutines)).collect(),
    })
}

/// Goroutines in the queue of all.
fn global_queue(sched: &View<'_>) -> u64 {
    sched.get("runq.size").or_else(|| sched.get("runqsize")).unwrap_or(0)
}

/// Goroutines in all queues, and those that are next, as `runtime/metrics` counts them.
fn runnable(sched: &View<'_>, processors: &[View<'_>]) -> u64 {
    processors.iter().fold(global_queue(sched), |sum, p| {
        let next = u64::from(p.number("runnext") != 0);
        sum.saturating_add(u64::from(queued(p))).saturating_add(next)
    })
}

fn extra_threads(memory: &dyn Memory, places: [u64; 2]) -> Option<ExtraThreads> {
    let number = |at| {
        let mut bytes = [0; 4];
        memory.read(at, &mut bytes).ok()?;
        Some(u64::from(u32::from_le_bytes(bytes)))
    };
    Some(ExtraThreads { idle: number(places[0])?, in_use: number(places[1])? })
}

/// The goroutines of `runtime.allgs`, the dead ones too, as `scheddetail` lists them.
pub fn list(memory: &dyn Memory, structs: &Structs, places: &Places) -> Result<Vec<Listed>, RuntimeError> {
    let addresses = slice(memory, places.allgs, MAX_GOROUTINES, "the number of goroutines")?;
    let machines = machines(memory, structs, places.allm)?;
    let ids: HashMap<u64, i64> = machines.iter().map(|m| (m.address(), m.signed("id"))).collect();
    let listed = |g: &View<'_>| Listed {
        goid: g.number("goid"),
        status: g.number("atomicstatus"),
        wait_reason: g.number("waitreason") as u8,
        m: ids.get(&g.number("m")).copied(),
        locked_m: ids.get(&g.number("lockedm")).copied(),
    };
    let mut all = Vec::new();
    for batch in addresses.chunks(BATCH) {
        let goroutines = View::read_many(memory, structs, WANTED, "runtime.g", batch)?;
        all.extend(goroutines.iter().flatten().map(listed));
    }
    Ok(all)
}

/// The Ps, each read until its queue makes sense.
pub(super) fn processors<'a>(
    memory: &dyn Memory,
    structs: &'a Structs,
    allp: u64,
) -> Result<Vec<View<'a>>, RuntimeError> {
    let addresses = addresses(memory, allp)?;
    let mut views = Vec::with_capacity(addresses.len());
    let read = View::read_many(memory, structs, WANTED, "runtime.p", &addresses)?;
    for (address, view) in addresses.into_iter().zip(read) {
        let Some(mut view) = view else { return Err(Fault::Unmapped { address, len: 0 }.into()) };
        for _ in 1..LOOKS {
            if queued(&view) <= RUN_QUEUE {
                break;
            }
            view = View::read(memory, structs, WANTED, "runtime.p", address)?;
        }
        views.push(view);
    }
    Ok(views)
}

/// Where the Ps are.
pub(super) fn addresses(memory: &dyn Memory, allp: u64) -> Result<Vec<u64>, RuntimeError> {
    slice(memory, allp, MAX_PROCESSORS, "the number of Ps")
}

/// The Ms, along the list of them.
fn machines<'a>(memory: &dyn Memory, structs: &'a Structs, allm: u64) -> Result<Vec<View<'a>>, RuntimeError> {
    let mut views: Vec<View<'a>> = Vec::new();
    let mut next = memory.read_u64(allm)?;
    while next != 0 && views.len() < MAX_THREADS {
        let view = View::read(memory, structs, WANTED, "runtime.m", next)?;
        next = view.number("alllink");
        views.push(view);
    }
    Ok(views)
}

/// The elements of a slice of pointers.
fn slice(memory: &dyn Memory, at: u64, most: u64, what: &'static str) -> Result<Vec<u64>, RuntimeError> {
    // The runtime grows such slices: whoever has the longer length has the newer pointer too.
    let len = memory.read_u64(at.wrapping_add(8))?;
    let array = memory.read_u64(at)?;
    if len > most {
        return Err(RuntimeError::Absurd { what, found: len });
    }
    let mut bytes = vec![0; len as usize * 8];
    memory.read(array, &mut bytes)?;
    Ok(super::words(&bytes))
}

fn queued(p: &View<'_>) -> u32 {
    (p.number("runqtail") as u32).wrapping_sub(p.number("runqhead") as u32)
}

fn processor(p: &View<'_>, ids: &HashMap<u64, i64>, goroutines: &Goroutines) -> Processor {
    let timers = |field: &str| p.at(field).map(|_| p.array(field).and_then(|slice| slice.get(1).copied()).unwrap_or(0));
    Processor {
        id: p.number("id"),
        status: p.number("status"),
        sched_tick: p.number("schedtick"),
        syscall_tick: p.number("syscalltick"),
        m: ids.get(&p.number("m")).copied(),
        run_queue: queued(p),
        run_next: goroutines.goid(p.number("runnext")),
        free_goroutines: p.get("gFree.size").or_else(|| p.get("gFree.n")).unwrap_or(0),
        timers: timers("timers.heap").or_else(|| timers("timers")).unwrap_or(0),
        monitor_tick: p.number("sysmontick.schedtick"),
        monitor_since_ns: p.number("sysmontick.schedwhen"),
    }
}

fn machine(memory: &dyn Memory, m: &View<'_>, indexes: &HashMap<u64, u64>, goroutines: &Goroutines) -> Machine {
    Machine {
        id: m.signed("id"),
        thread_id: m.number("procid"),
        p: indexes.get(&m.number("p")).copied(),
        goroutine: goroutines.0.get(&m.number("curg")).copied(),
        mallocing: m.signed("mallocing"),
        throwing: m.signed("throwing"),
        preempt_off: text(memory, &m.array("preemptoff").unwrap_or_default()),
        locks: m.signed("locks"),
        dying: m.signed("dying"),
        spinning: m.number("spinning") != 0,
        blocked: m.number("blocked") != 0,
        in_c: m.number("incgo") != 0,
        c_calls: m.number("ncgocall"),
        locked_goroutine: goroutines.goid(m.number("lockedg")),
    }
}

/// A string by its header, or as much of it as is read of one.
fn text(memory: &dyn Memory, header: &[u64]) -> String {
    let (Some(start), Some(len)) = (header.first(), header.get(1)) else { return String::new() };
    let mut bytes = vec![0; (*len).min(MAX_TEXT) as usize];
    match memory.read(*start, &mut bytes) {
        Ok(()) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(_) => String::new(),
    }
}

/// The goroutines that Ps and Ms point at, by address.
struct Goroutines(HashMap<u64, Current>);

impl Goroutines {
    fn read(
        memory: &dyn Memory,
        structs: &Structs,
        processors: &[View<'_>],
        machines: &[View<'_>],
    ) -> Result<Self, RuntimeError> {
        let pointers = processors.iter().map(|p| p.number("runnext"));
        let pointers = pointers.chain(machines.iter().flat_map(|m| [m.number("curg"), m.number("lockedg")]));
        let addresses: Vec<u64> = pointers.filter(|address| *address != 0).collect();
        let views = View::read_many(memory, structs, WANTED, "runtime.g", &addresses)?;
        let known = views.iter().flatten().map(|g| {
            let current = Current {
                goid: g.number("goid"),
                status: (g.number("atomicstatus") & !SCAN) as u32,
                start_pc: g.number("startpc"),
                runs: g.number("trackingSeq") as u8,
            };
            (g.address(), current)
        });
        Ok(Self(known.collect()))
    }

    fn status(&self, address: u64) -> Option<u32> {
        self.0.get(&address).map(|current| current.status)
    }

    fn goid(&self, address: u64) -> Option<u64> {
        self.0.get(&address).map(|current| current.goid)
    }
}

/// Where the histograms of stop-the-world times are, by kind; Go 1.22 and later.
pub fn stop_times(
    memory: &dyn Memory,
    structs: &Structs,
    sched: u64,
    field: &'static str,
) -> Result<Option<Histogram>, RuntimeError> {
    let view = View::read(memory, structs, WANTED, "runtime.schedt", sched)?;
    view.at(field).map(|at| Histogram::read(memory, structs, at)).transpose()
}
