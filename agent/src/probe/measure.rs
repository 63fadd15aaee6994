//! For benchmarks: what plain uprobe tools pay, and events faster than any program makes them.
//!
//! Nothing here is used by a watch.

use std::fs::File;
use std::num::NonZeroU32;

use parkwarden_common::cookie::{Cookie, MAX_SLOTS, PROBES_PER_SLOT};
use parkwarden_common::record::GENERATED_PER_HIT;

use super::attach::{AttachError, Probe, own_path};
use super::calibrate::CalibrateError;
use super::calibrate::sites::OwnSite;
use super::load::{LoadError, Prober, program};
use super::stream::EventStream;
use super::uprobe::file_offset;
use crate::golang::sites::SiteClass;

/// Probes whose program does nothing. Dropping it removes them.
#[derive(Debug)]
pub struct EmptyProbes {
    _probes: Vec<Probe>,
}

/// Writes events into the ring as fast as the kernel can. Dropping it removes its probe.
#[derive(Debug)]
pub struct Generator {
    _probe: Probe,
    site: OwnSite,
    /// Index of its counters.
    pub index: u16,
}

impl Prober {
    /// Puts a probe with a program that does nothing at each offset of a target's executable.
    pub fn attach_empty(&self, pid: NonZeroU32, exe: &File, offsets: &[u64]) -> Result<EmptyProbes, CalibrateError> {
        let mut kernel = self.kernel();
        let program = program(&mut kernel.ebpf, "empty")?;
        program.load().map_err(LoadError::refused)?;
        let mut probes = Vec::new();
        for offset in offsets {
            let mut probe = Probe::open(&own_path(exe), *offset, pid)?;
            probe.run(program, 0)?;
            probes.push(probe);
        }
        Ok(EmptyProbes { _probes: probes })
    }

    /// A generator of events for a stream: each goroutine parks and is woken.
    pub fn generator(&self, stream: &EventStream) -> Result<Generator, CalibrateError> {
        let mut kernel = self.kernel();
        let no_slot = || std::io::Error::other(AttachError::NoSlot(MAX_SLOTS));
        let slot = kernel.free_slots.pop().ok_or_else(no_slot)?;
        let index = u16::try_from(slot * PROBES_PER_SLOT).map_err(std::io::Error::other)?;
        kernel.counters.reset(index).map_err(LoadError::refused)?;
        self.ring.route(slot, stream);
        let program = program(&mut kernel.ebpf, "generate")?;
        program.load().map_err(LoadError::refused)?;
        let site = OwnSite::of(SiteClass::Emulated).next().ok_or_else(no_slot)?;
        let pid = NonZeroU32::new(std::process::id()).ok_or_else(no_slot)?;
        let mut probe = Probe::open(c"/proc/self/exe", file_offset(site.address())?, pid)?;
        probe.run(program, Cookie { probe: index, ..Cookie::default() }.encode().unwrap_or_default())?;
        Ok(Generator { _probe: probe, site, index })
    }
}

impl Generator {
    /// Events that one hit makes.
    pub const EVENTS_PER_HIT: u64 = GENERATED_PER_HIT;

    /// Makes [`Generator::EVENTS_PER_HIT`] events of half as many goroutines, the first of which is `goid`.
    pub fn hit(&self, goid: u64) {
        self.site.pass(1, goid);
    }
}
