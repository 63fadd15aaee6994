//! For benchmarks: what plain uprobe tools pay, and events faster than any program makes them.
//!
//! Nothing here is used by a watch.

use std::fs::File;
use std::num::NonZeroU32;

use parkwarden_common::cookie::{Cookie, MAX_SLOTS, PROBES_PER_SLOT};
use parkwarden_common::record::GENERATED_PER_HIT;

use super::attach::{AttachError, own_path};
use super::calibrate::CalibrateError;
use super::calibrate::sites::OwnSite;
use super::keeper::{Keeper, Spot};
use super::load::Prober;
use super::object::LoadError;
use super::programs::EMPTY;
use super::stream::EventStream;
use super::uprobe::file_offset;
use crate::golang::sites::SiteClass;

/// The program that writes events.
pub const GENERATE: &str = "generate";

/// Probes whose program does nothing. Dropping it removes them.
#[derive(Debug)]
pub struct EmptyProbes {
    _keeper: Keeper,
}

/// Writes events into the ring as fast as the kernel can. Dropping it removes its probe.
#[derive(Debug)]
pub struct Generator {
    _keeper: Keeper,
    site: OwnSite,
    /// Index of its counters.
    pub index: u16,
}

impl Prober {
    /// Puts a probe with a program that does nothing at each offset of a target's executable.
    pub fn attach_empty(&self, pid: NonZeroU32, exe: &File, offsets: &[u64]) -> Result<EmptyProbes, CalibrateError> {
        let kernel = self.kernel();
        let program = kernel.programs.get(EMPTY)?;
        let spots: Vec<Spot<'_>> = offsets.iter().map(|offset| Spot { offset: *offset, program, cookie: 0 }).collect();
        Ok(EmptyProbes { _keeper: Keeper::attach(kernel.programs.uprobes, &own_path(exe), pid, &spots)? })
    }

    /// A generator of events for a stream: each goroutine parks and is woken.
    pub fn generator(&self, stream: &EventStream) -> Result<Generator, CalibrateError> {
        let mut kernel = self.kernel();
        let no_slot = || std::io::Error::other(AttachError::NoSlot(MAX_SLOTS));
        let slot = kernel.free_slots.pop().ok_or_else(no_slot)?;
        let index = u16::try_from(slot * PROBES_PER_SLOT).map_err(std::io::Error::other)?;
        kernel.counters.reset(index).map_err(LoadError::refused)?;
        self.ring.route(slot, stream);
        let program = kernel.programs.get(GENERATE)?;
        let site = OwnSite::of(SiteClass::Emulated).next().ok_or_else(no_slot)?;
        let pid = NonZeroU32::new(std::process::id()).ok_or_else(no_slot)?;
        let cookie = Cookie { probe: index, ..Cookie::default() }.encode().unwrap_or_default();
        let spot = Spot { offset: file_offset(site.address())?, program, cookie };
        let keeper = Keeper::attach(kernel.programs.uprobes, c"/proc/self/exe", pid, &[spot])?;
        Ok(Generator { _keeper: keeper, site, index })
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
