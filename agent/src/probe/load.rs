//! Loading the BPF object, to be shared by all watches.

use std::sync::Arc;

use aya::maps::{Array, MapData, MapError, PerCpuArray, RingBuf};
use aya::{Ebpf, EbpfLoader};
use parking_lot::{Mutex, MutexGuard};
use parkwarden_common::cookie::MAX_SLOTS;
use parkwarden_common::counters::ProbeCounters;
use parkwarden_common::filter::Slot;

use crate::config::{BpfLog, Mode};

use super::held::HeldMaps;
use super::object::{LoadError, OBJECT};
use super::programs::{Programs, Uprobes};
use super::stream::{Bell, Counters, EventStream, Ring};

/// How to load the BPF side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Size of the ring buffer, rounded up to a power of two of at least a page.
    pub ring_bytes: u32,
    /// How much the programs log.
    pub log: BpfLog,
    /// The modes that targets may be watched in: only their programs are loaded.
    pub modes: Vec<Mode>,
    /// Parks shorter than this do not reach the agent in mode [`Mode::Filter`].
    pub min_park_ns: u64,
    /// How probes are attached.
    pub uprobes: Uprobes,
    /// Further programs of the object to load: those of benchmarks.
    pub further: Vec<&'static str>,
}

impl Options {
    /// With the smallest ring and no programs.
    pub fn of_nothing() -> Self {
        Self {
            ring_bytes: 4096,
            log: BpfLog::Off,
            modes: Vec::new(),
            min_park_ns: 0,
            uprobes: Uprobes::here(),
            further: Vec::new(),
        }
    }
}

/// Goroutines whose parks the kernel holds in mode [`Mode::Filter`]; further ones are counted, and known from censuses.
/// Takes about 30 MiB.
const MAX_PARKS: u32 = 1 << 18;

/// `go` statements told apart by the kernel in that mode and in mode [`Mode::Births`].
const MAX_SITES: u32 = 1 << 12;

/// What the maps are made for.
pub(super) struct MapSizes {
    pub(super) ring_bytes: u32,
    pub(super) parks: u32,
    pub(super) sites: u32,
    pub(super) lifecycle_bytes: u32,
    pub(super) min_park_ns: u64,
}

/// Puts the object's maps into the kernel; its programs are still to be loaded.
pub(super) fn load_object(sizes: &MapSizes, log: BpfLog) -> Result<Ebpf, LoadError> {
    let log_level = match log {
        BpfLog::Off => 0,
        BpfLog::Losses => log::Level::Debug as u8,
        BpfLog::Hits => log::Level::Trace as u8,
    };
    EbpfLoader::new()
        .map_max_entries("EVENTS", sizes.ring_bytes)
        .map_max_entries("PARKS", sizes.parks)
        .map_max_entries("SITES", sizes.sites)
        .map_max_entries("LIFECYCLES", sizes.lifecycle_bytes)
        .override_global("MIN_PARK_NS", &sizes.min_park_ns, true)
        .override_global("AYA_LOG_LEVEL", &log_level, false)
        .load(OBJECT)
        .map_err(LoadError::refused)
}

/// The loaded programs, ready to be attached to targets. Its clones are the same: what was loaded goes with the last of
/// them and of their [`EventStream`]s.
#[derive(Clone)]
pub struct Prober {
    kernel: Arc<Mutex<Kernel>>,
    pub(super) ring: Arc<Ring>,
}

/// What is in the kernel. It is locked for moments only, never while a breakpoint comes or goes.
pub(super) struct Kernel {
    pub(super) programs: Programs,
    pub(super) counters: Counters,
    pub(super) logger: Option<aya_log::EbpfLogger<&'static dyn log::Log>>,
    pub(super) free_slots: Vec<Slot>,
    /// By slot: not zero while its probes are being removed.
    pub(super) muted: Array<MapData, u32>,
    pub(super) held: HeldMaps,
}

impl std::fmt::Debug for Prober {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Prober").field("free_slots", &self.kernel().free_slots.len()).finish_non_exhaustive()
    }
}

impl Prober {
    /// Loads maps and programs into the kernel, with the ring that all of them write to. Nothing is attached yet.
    ///
    /// A mode whose program the kernel refuses is left out, see [`Prober::refused`], if there is another.
    pub fn load(options: &Options) -> Result<Self, LoadError> {
        let page = u32::try_from(rustix::param::page_size()).unwrap_or(1 << 16);
        let ring_bytes = options.ring_bytes.clamp(page, 1 << 30).next_power_of_two();
        // What is not used takes no memory.
        let loads = |mode| options.modes.contains(&mode);
        let parks = if loads(Mode::Filter) { MAX_PARKS } else { 1 };
        let sizes =
            MapSizes { ring_bytes, parks, sites: MAX_SITES, lifecycle_bytes: 4096, min_park_ns: options.min_park_ns };
        let mut ebpf = load_object(&sizes, options.log)?;
        let programs = Programs::load(&ebpf, &options.modes, &options.further, options.uprobes)?;
        let logger = if options.log != BpfLog::Off {
            Some(aya_log::EbpfLogger::init(&mut ebpf).map_err(LoadError::refused)?)
        } else {
            None
        };
        let ring = ebpf.take_map("EVENTS").ok_or(LoadError::Incomplete("map EVENTS"))?;
        let counters = ebpf.take_map("COUNTERS").ok_or(LoadError::Incomplete("map COUNTERS"))?;
        let muted = ebpf.take_map("MUTED").ok_or(LoadError::Incomplete("map MUTED"))?;
        let ring = RingBuf::try_from(ring).map_err(LoadError::refused)?;
        let ring = Ring::start(ring, ring_bytes).map_err(LoadError::refused)?;
        let kernel = Kernel {
            counters: Counters::new(PerCpuArray::try_from(counters).map_err(LoadError::refused)?),
            muted: Array::try_from(muted).map_err(LoadError::refused)?,
            held: HeldMaps::take(&mut ebpf)?,
            programs,
            logger,
            free_slots: (0..MAX_SLOTS).rev().collect(),
        };
        Ok(Self { kernel: Arc::new(Mutex::new(kernel)), ring: Arc::new(ring) })
    }

    /// A stream for the events of one watch; `bell` rings when many wait in it.
    pub fn stream(&self, bell: Bell) -> EventStream {
        Arc::clone(&self.ring).stream(bell)
    }

    /// A probe's counters, summed over CPUs.
    pub fn counters(&self, probe: u16) -> Result<ProbeCounters, MapError> {
        let counters = self.kernel().counters.get(probe)?;
        // Behind the ring or in front of it: it was full.
        Ok(ProbeCounters { ring_full: counters.ring_full.saturating_add(self.ring.dropped(probe)), ..counters })
    }

    /// Modes that were to be loaded and whose programs this kernel refuses, and why.
    pub fn refused(&self) -> Vec<(Mode, String)> {
        self.kernel().programs.refused().to_vec()
    }

    /// Hands what the programs logged to the logger.
    pub fn flush_log(&self) {
        if let Some(logger) = &mut self.kernel().logger {
            logger.flush();
        }
    }

    pub(super) fn kernel(&self) -> MutexGuard<'_, Kernel> {
        // Each of its parts is whole after any statement.
        self.kernel.lock()
    }
}
