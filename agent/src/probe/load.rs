//! Loading the BPF object.

use aya::maps::{MapError, PerCpuArray, RingBuf};
use aya::programs::UProbe;
use aya::{Ebpf, EbpfLoader};
use parkwarden_common::cookie::MAX_PROBES;
use parkwarden_common::counters::ProbeCounters;
use parkwarden_common::record::Kind;

use crate::config::BpfLog;

use super::stream::{Counters, EventStream};

/// The object built by `cargo xtask ebpf`, committed so that parkwarden builds with stable Rust alone.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("CARGO_MANIFEST_DIR"), "/bpf/parkwarden.bpf.o"));

/// Why the BPF side could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The kernel refused the object or a program.
    #[error(
        "the kernel did not accept parkwarden's BPF programs; they need root, or CAP_BPF and CAP_PERFMON, and Linux \
         5.15 or later (`parkwarden doctor` tells what is missing)"
    )]
    Refused(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The object lacks a program or map: it was built from other sources.
    #[error("the embedded BPF object has no {0}: rebuild it with `cargo xtask ebpf`")]
    Incomplete(&'static str),
}

impl LoadError {
    pub(super) fn refused(error: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Refused(Box::new(error))
    }
}

/// How to load the BPF side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Size of the ring buffer, rounded up to a power of two of at least a page.
    pub ring_bytes: u32,
    /// How much the programs log.
    pub log: BpfLog,
}

impl Default for Options {
    fn default() -> Self {
        // 8 MiB hold 200 000 records: 100 ms of two million events a second.
        Self { ring_bytes: 8 << 20, log: BpfLog::Off }
    }
}

/// The loaded programs, ready to be attached to targets.
pub struct Prober {
    pub(super) ebpf: Ebpf,
    pub(super) counters: Counters,
    pub(super) logger: Option<aya_log::EbpfLogger<&'static dyn log::Log>>,
    pub(super) free_probes: Vec<u16>,
}

impl std::fmt::Debug for Prober {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Prober").field("free_probes", &self.free_probes.len()).finish_non_exhaustive()
    }
}

impl Prober {
    /// Loads maps and programs into the kernel, with the stream that all of them write to. Nothing is attached yet.
    pub fn load(options: Options) -> Result<(Self, EventStream), LoadError> {
        let ring_bytes = options.ring_bytes.clamp(4096, 1 << 30).next_power_of_two();
        let log_level = match options.log {
            BpfLog::Off => 0,
            BpfLog::Losses => log::Level::Debug as u8,
            BpfLog::Hits => log::Level::Trace as u8,
        };
        let mut ebpf = EbpfLoader::new()
            .map_max_entries("EVENTS", ring_bytes)
            .override_global("AYA_LOG_LEVEL", &log_level, false)
            .load(OBJECT)
            .map_err(LoadError::refused)?;
        for kind in Kind::ALL {
            program(&mut ebpf, kind)?.load().map_err(LoadError::refused)?;
        }
        let logger = if options.log != BpfLog::Off {
            Some(aya_log::EbpfLogger::init(&mut ebpf).map_err(LoadError::refused)?)
        } else {
            None
        };
        let ring = ebpf.take_map("EVENTS").ok_or(LoadError::Incomplete("map EVENTS"))?;
        let counters = ebpf.take_map("COUNTERS").ok_or(LoadError::Incomplete("map COUNTERS"))?;
        let ring = RingBuf::try_from(ring).map_err(LoadError::refused)?;
        let stream = EventStream::start(ring, ring_bytes).map_err(LoadError::refused)?;
        let prober = Self {
            counters: Counters::new(PerCpuArray::try_from(counters).map_err(LoadError::refused)?),
            ebpf,
            logger,
            free_probes: (0..MAX_PROBES as u16).rev().collect(),
        };
        Ok((prober, stream))
    }

    /// A probe's counters, summed over CPUs.
    pub fn counters(&self, probe: u16) -> Result<ProbeCounters, MapError> {
        self.counters.get(probe)
    }

    /// Hands what the programs logged to the logger.
    pub fn flush_log(&mut self) {
        if let Some(logger) = &mut self.logger {
            logger.flush();
        }
    }
}

/// The program for events of one kind.
pub(super) fn program(ebpf: &mut Ebpf, kind: Kind) -> Result<&mut UProbe, LoadError> {
    let name = match kind {
        Kind::Created => "created",
        Kind::Parked => "parked",
        Kind::Readied => "readied",
        Kind::Exited => "exited",
    };
    let program = ebpf.program_mut(name).ok_or(LoadError::Incomplete(name))?;
    program.try_into().map_err(|_| LoadError::Incomplete(name))
}
