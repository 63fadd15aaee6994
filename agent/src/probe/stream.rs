//! Reading what the programs send: the event ring and the counters.

use std::mem::offset_of;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use aya::maps::{MapData, MapError, PerCpuArray, PerCpuValues, RingBuf};
use hashbrown::HashMap;
use parking_lot::{Condvar, Mutex, MutexGuard};
use parkwarden_common::cookie::{MAX_SLOTS, PROBES_PER_SLOT};
use parkwarden_common::counters::ProbeCounters;
use parkwarden_common::filter::Slot;
use parkwarden_common::record::Header;

/// Bytes of events that may wait in userspace. Beyond it, queues that hold more than their share lose events, counted.
const MAX_WAITING: usize = 64 << 20;

/// Longest time between two looks into the ring. Nobody is woken for a record: that would cost the target.
const SLOW: Duration = Duration::from_millis(40);

/// Time between two looks while the ring fills quickly.
const FAST: Duration = Duration::from_millis(2);

/// Bytes of events behind which the queue's bell rings.
const BELL_AT: usize = 64 << 10;

/// Wakes who watches: something waits to be taken.
pub type Bell = Arc<tokio::sync::Notify>;

/// Bytes of a record's header in the ring (`BPF_RINGBUF_HDR_SZ`).
const RING_HEADER: u64 = 8;

/// The events of one watch: its own queue behind the ring that all watches share. Dropping it throws away what is in it.
///
/// The ring is emptied by a thread of its own, so that it does not overflow while a target is being read.
#[derive(Debug)]
pub struct EventStream {
    ring: Arc<Ring>,
    queue: usize,
}

/// The ring and the thread that empties it, which ends with this.
#[derive(Debug)]
pub(super) struct Ring {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<StreamState>,
    stop: Condvar,
}

struct StreamState {
    ring: RingBuf<MapData>,
    ring_bytes: u64,
    /// By the index that an [`EventStream`] holds.
    queues: Vec<Option<Queue>>,
    /// Which queue the records of each slot go to.
    routes: Vec<Option<usize>>,
    /// Bytes in all queues.
    waiting: usize,
    /// Records there was no room for, by probe.
    dropped: HashMap<u16, u64>,
    stopped: bool,
}

struct Queue {
    records: Vec<u8>,
    fill_max: u64,
    bell: Bell,
}

impl std::fmt::Debug for StreamState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("waiting", &self.waiting).finish_non_exhaustive()
    }
}

impl Ring {
    pub(super) fn start(ring: RingBuf<MapData>, ring_bytes: u32) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            state: Mutex::new(StreamState {
                ring,
                ring_bytes: u64::from(ring_bytes),
                queues: Vec::new(),
                routes: vec![None; MAX_SLOTS as usize],
                waiting: 0,
                dropped: HashMap::new(),
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

    /// Another queue, whose bell rings when much is in it.
    pub(super) fn stream(self: Arc<Self>, bell: Bell) -> EventStream {
        let mut state = self.shared.lock();
        let queue = match state.queues.iter().position(Option::is_none) {
            Some(free) => free,
            None => {
                state.queues.push(None);
                state.queues.len() - 1
            }
        };
        state.queues[queue] = Some(Queue { records: Vec::new(), fill_max: 0, bell });
        drop(state);
        EventStream { ring: self, queue }
    }

    /// Sends what the probes of a slot write to a stream, from now on.
    pub(super) fn route(&self, slot: Slot, stream: &EventStream) {
        let mut state = self.shared.lock();
        for probe in probes_of(slot) {
            state.dropped.remove(&probe);
        }
        if let Some(route) = state.routes.get_mut(slot as usize) {
            *route = Some(stream.queue);
        }
    }

    /// Ends that, after what its probes wrote has been taken out of the ring: they must be gone.
    pub(super) fn unroute(&self, slot: Slot) {
        let mut state = self.shared.lock();
        state.drain();
        if let Some(route) = state.routes.get_mut(slot as usize) {
            *route = None;
        }
    }

    /// Records of a probe that there was no room for behind the ring.
    pub(super) fn dropped(&self, probe: u16) -> u64 {
        self.shared.lock().dropped.get(&probe).copied().unwrap_or(0)
    }
}

impl Drop for Ring {
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

impl EventStream {
    /// Moves every event that happened so far into `records`, one record after the other, replacing what was there.
    /// Returns the most bytes the ring held at once since the last call.
    pub fn take(&self, records: &mut Vec<u8>) -> u64 {
        records.clear();
        let mut state = self.ring.shared.lock();
        state.drain();
        let StreamState { queues, waiting, .. } = &mut *state;
        let Some(Some(queue)) = queues.get_mut(self.queue) else { return 0 };
        *waiting -= queue.records.len();
        std::mem::swap(&mut queue.records, records);
        std::mem::take(&mut queue.fill_max)
    }

    /// Size of the ring in bytes.
    pub fn ring_bytes(&self) -> u64 {
        self.ring.shared.lock().ring_bytes
    }
}

impl Drop for EventStream {
    fn drop(&mut self) {
        let mut state = self.ring.shared.lock();
        if let Some(queue) = state.queues.get_mut(self.queue).and_then(Option::take) {
            state.waiting -= queue.records.len();
        }
        for route in state.routes.iter_mut().filter(|route| **route == Some(self.queue)) {
            *route = None;
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, StreamState> {
        // The state is valid between any two statements of `drain`, so a panic elsewhere does not spoil it.
        self.state.lock()
    }

    fn run(&self) {
        let mut state = self.lock();
        while !state.stopped {
            let fill = state.drain();
            let pause = if fill.saturating_mul(16) > state.ring_bytes { FAST } else { SLOW };
            self.stop.wait_for(&mut state, pause);
        }
    }
}

impl StreamState {
    /// Empties the ring into the queues, and returns how much it held.
    fn drain(&mut self) -> u64 {
        let mut fill = 0;
        // One target that floods its queue leaves the others their share.
        let share = MAX_WAITING / self.queues.len().max(1);
        // What is there now is no more than that; who floods it would keep this busy for ever.
        while fill < self.ring_bytes
            && let Some(item) = self.ring.next()
        {
            fill += RING_HEADER + (item.len() as u64).next_multiple_of(8);
            let Some(&probe) = item.get(PROBE).and_then(|bytes| bytes.as_array()) else { continue };
            let probe = u16::from_ne_bytes(probe);
            let route = self.routes.get(usize::from(probe) / PROBES_PER_SLOT as usize).copied().flatten();
            // Nobody watches any more who wrote that.
            let Some(Some(queue)) = route.and_then(|queue| self.queues.get_mut(queue)) else { continue };
            if self.waiting >= MAX_WAITING && queue.records.len() >= share {
                *self.dropped.entry(probe).or_default() += 1;
                continue;
            }
            let before = queue.records.len();
            queue.records.extend_from_slice(&item);
            self.waiting += item.len();
            if before < BELL_AT && queue.records.len() >= BELL_AT {
                queue.bell.notify_one();
            }
        }
        // The producers go on meanwhile, so a pass can find more than the ring holds at once.
        let held = fill.min(self.ring_bytes);
        for queue in self.queues.iter_mut().flatten() {
            queue.fill_max = queue.fill_max.max(held);
        }
        fill
    }
}

/// Where a record has the index of its probe.
const PROBE: std::ops::Range<usize> = offset_of!(Header, probe)..offset_of!(Header, probe) + size_of::<u16>();

/// The indices of the probes of a slot.
fn probes_of(slot: Slot) -> impl Iterator<Item = u16> {
    let first = slot * PROBES_PER_SLOT;
    (first..first + PROBES_PER_SLOT).filter_map(|probe| u16::try_from(probe).ok())
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
            stacks: sum.stacks + cpu.stacks,
        }))
    }
}
