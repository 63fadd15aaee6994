//! Reading what the programs send: the event ring and the counters.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use aya::maps::{MapData, MapError, PerCpuArray, PerCpuValues, RingBuf};
use parkwarden_common::counters::ProbeCounters;

/// Bytes of events that may wait in userspace. Beyond it the ring is left to fill, and the kernel counts the loss.
const MAX_WAITING: usize = 64 << 20;

/// Longest time between two looks into the ring. Nobody is woken for a record: that would cost the target.
const SLOW: Duration = Duration::from_millis(40);

/// Time between two looks while the ring fills quickly.
const FAST: Duration = Duration::from_millis(2);

/// Bytes of a record's header in the ring (`BPF_RINGBUF_HDR_SZ`).
const RING_HEADER: u64 = 8;

/// The event ring, emptied by a thread of its own, so that it does not overflow while the target is being read.
#[derive(Debug)]
pub struct EventStream {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    stop: Condvar,
}

struct State {
    ring: RingBuf<MapData>,
    ring_bytes: u64,
    waiting: Vec<u8>,
    fill_max: u64,
    stopped: bool,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("waiting", &self.waiting.len()).finish_non_exhaustive()
    }
}

impl EventStream {
    pub(super) fn start(ring: RingBuf<MapData>, ring_bytes: u32) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                ring,
                ring_bytes: u64::from(ring_bytes),
                waiting: Vec::new(),
                fill_max: 0,
                stopped: false,
            }),
            stop: Condvar::new(),
        });
        let thread = std::thread::Builder::new().name("event-ring".to_owned()).spawn({
            let shared = Arc::clone(&shared);
            move || shared.run()
        })?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Moves every event that happened so far into `records`, one record after the other, replacing what was there.
    /// Returns the most bytes the ring held at once since the last call.
    pub fn take(&self, records: &mut Vec<u8>) -> u64 {
        records.clear();
        let mut state = self.shared.lock();
        // What the ring holds now goes beyond the limit, so that nothing of it is left behind.
        let limit = MAX_WAITING.saturating_add(state.ring_bytes as usize);
        state.drain(limit);
        std::mem::swap(&mut state.waiting, records);
        std::mem::take(&mut state.fill_max)
    }

    /// Size of the ring in bytes.
    pub fn ring_bytes(&self) -> u64 {
        self.shared.lock().ring_bytes
    }
}

impl Drop for EventStream {
    fn drop(&mut self) {
        self.shared.lock().stopped = true;
        self.shared.stop.notify_all();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!("the thread that reads the event ring panicked");
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is valid between any two statements of `drain`, so a panic elsewhere does not spoil it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        let mut state = self.lock();
        while !state.stopped {
            let fill = state.drain(MAX_WAITING);
            let pause = if fill.saturating_mul(16) > state.ring_bytes { FAST } else { SLOW };
            state = self.stop.wait_timeout(state, pause).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl State {
    /// Empties the ring as long as fewer than `limit` bytes wait, and returns how many it held.
    fn drain(&mut self, limit: usize) -> u64 {
        let mut fill = 0;
        while self.waiting.len() < limit {
            let Some(item) = self.ring.next() else { break };
            self.waiting.extend_from_slice(&item);
            fill += RING_HEADER + (item.len() as u64).next_multiple_of(8);
        }
        // The producers go on meanwhile, so a pass can find more than the ring holds at once.
        self.fill_max = self.fill_max.max(fill.min(self.ring_bytes));
        fill
    }
}

/// The kernel's counters in a shape aya can read; the shared type belongs to no crate that may implement `aya::Pod`.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct Raw(ProbeCounters);

// SAFETY: four u64, any bit pattern is valid, no padding (asserted where the type is defined).
unsafe impl aya::Pod for Raw {}

/// The counters of all probes.
pub(super) struct Counters(PerCpuArray<MapData, Raw>);

impl Counters {
    pub(super) fn new(map: PerCpuArray<MapData, Raw>) -> Self {
        Self(map)
    }

    /// Sets a probe's counters to zero, before it is attached.
    pub(super) fn reset(&mut self, probe: u16) -> Result<(), MapError> {
        let cpus = aya::util::nr_cpus().map_err(|(_, error)| error)?;
        let zeros = PerCpuValues::try_from(vec![Raw(ProbeCounters::default()); cpus])?;
        self.0.set(u32::from(probe), zeros, 0)
    }

    /// A probe's counters, summed over CPUs.
    pub(super) fn get(&self, probe: u16) -> Result<ProbeCounters, MapError> {
        let per_cpu = self.0.get(&u32::from(probe), 0)?;
        Ok(per_cpu.iter().fold(ProbeCounters::default(), |sum, Raw(cpu)| ProbeCounters {
            hits: sum.hits + cpu.hits,
            ring_full: sum.ring_full + cpu.ring_full,
            read_fault: sum.read_fault + cpu.read_fault,
            map_full: sum.map_full + cpu.map_full,
        }))
    }
}
