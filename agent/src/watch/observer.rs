//! Produces the inputs of a live session: events from the probes, censuses and stacks from memory, names.
//!
//! The order in which inputs are fed is what makes them consistent; ARCHITECTURE.md, "Census and events", has the
//! reasons.

use std::num::NonZeroU32;

use hashbrown::HashSet;

use super::error::WatchError;
use super::probes::{Plan, Probes};
use super::sink::Sink;
use crate::config::{Mode, ModeChoice, WatchConfig};
use crate::discover::process::OpenError;
use crate::golang::binary::GoBinary;
use crate::golang::sites::{self, BinaryFunctions, Site};
use crate::governor::{Budget, Governor, Move};
use crate::probe::calibrate::{self, Costs};
use crate::probe::{AttachError, EventStream, Prober};
use crate::session::{End, EndReason, Header, Input, Modes, Session};
use crate::target::{Target, TargetError, now_ns, unix_now_ns};

/// See the module. Dropping it removes the probes.
#[derive(Debug)]
pub struct Observer {
    // The probes go first: everything below serves them.
    probed: Option<Probed>,
    target: Target,
    records: Vec<u8>,
    wanted: Option<Move>,
    sink: Sink,
}

/// What there is only with probes.
#[derive(Debug)]
struct Probed {
    probes: Probes,
    stream: EventStream,
}

impl Observer {
    /// Opens the target and attaches.
    pub fn start(pid: u32, config: &WatchConfig) -> Result<Self, WatchError> {
        let target = Target::open(pid)?;
        let budget = Budget { of_target: config.budget };
        let mut no_probes = None;
        let sites = match config.mode {
            ModeChoice::Census => None,
            _ => match plan(&target) {
                Ok(sites) => Some(sites),
                Err(error) if config.mode == ModeChoice::Auto => {
                    log::warn!("{error}; it is watched without probes");
                    no_probes = Some(error.to_string());
                    None
                }
                Err(error) => return Err(error),
            },
        };
        let first = if sites.is_some() { config.mode.first() } else { Mode::Census };
        let probed = sites.map(|sites| attach(pid, &target, sites, config, budget)).transpose()?;
        let header = Header {
            target: target.info(),
            probes: probed.as_ref().map(|probed| probed.probes.infos()).unwrap_or_default(),
            modes: Modes { choice: config.mode, first, no_probes, budget },
            wait_reasons: target.binary().wait_reasons.clone(),
            started_ns: now_ns(),
            started_unix_ns: unix_now_ns(),
            ring_bytes: probed.as_ref().map_or(0, |probed| probed.stream.ring_bytes()),
            threshold_ns: u64::try_from(config.threshold.as_nanos()).unwrap_or(u64::MAX),
        };
        let sink = Sink::new(header, config.save.as_deref())?;
        Ok(Self { probed, target, records: Vec::new(), wanted: None, sink })
    }

    /// Whether the target has exited.
    pub fn target_has_exited(&self) -> bool {
        self.target.process().has_exited()
    }

    /// What has been seen.
    pub fn session(&self) -> &Session {
        self.sink.session()
    }

    /// Feeds what happened since the last time. Returns whether the mode has changed, so that a census has to follow.
    pub fn take_events(&mut self) -> Result<bool, WatchError> {
        let Some(probed) = &mut self.probed else { return Ok(false) };
        // In this order: when a mode is left, its last events are in the ring.
        let (inputs, wanted) = probed.probes.take()?;
        let ring_fill = probed.stream.take(&mut self.records);
        if !self.records.is_empty() || ring_fill > 0 {
            let input = Input::Events { records: std::mem::take(&mut self.records), ring_fill };
            let fed = self.sink.feed(&input);
            if let Input::Events { records, .. } = input {
                self.records = records;
            }
            fed?;
        }
        let moved = inputs.iter().any(|input| matches!(input, Input::Mode(_)));
        for input in &inputs {
            self.sink.feed(input)?;
        }
        self.wanted = wanted.or(self.wanted.take()).filter(|_| !moved);
        Ok(moved)
    }

    /// Goes to the mode that the budget has room for, if there is one. Returns whether the mode has changed.
    pub fn follow_governor(&mut self) -> Result<bool, WatchError> {
        let (Some(wanted), Some(probed)) = (self.wanted.take(), &mut self.probed) else { return Ok(false) };
        match probed.probes.enter(self.sink.session().mode(), wanted) {
            Ok(()) => self.take_events(),
            Err(_) if self.target_has_exited() => Ok(false),
            Err(source) => Err(WatchError::Attach { pid: self.target.process().pid(), source }),
        }
    }

    /// Reads all goroutines and the stacks of those that do not run.
    pub fn census(&mut self) -> Result<(), WatchError> {
        self.take_events()?;
        self.sink.feed(&Input::CensusBegins)?;
        let taken = self.target.look()?;
        self.take_events()?;
        if let Some(probed) = &self.probed {
            let alive: HashSet<u64> = taken.census.goroutines.iter().map(|goroutine| goroutine.goid).collect();
            probed.probes.read_held(|goid| alive.contains(&goid), taken.census.started_ns)?;
            probed.probes.read()?;
            self.take_events()?;
        }
        for news in self.target.news(&taken) {
            self.sink.feed(&news)?;
        }
        self.sink.feed(&Input::Census(taken))?;
        Ok(())
    }

    /// Removes the probes and ends the session.
    pub fn finish(mut self, reason: EndReason) -> Result<Session, WatchError> {
        if let Some(probed) = &mut self.probed {
            // Once there are no more hits, what was counted and what arrived must agree.
            probed.probes.finish()?;
        }
        self.take_events()?;
        self.sink.feed(&Input::End(End { time_ns: now_ns(), reason }))?;
        Ok(self.sink.into_session())
    }
}

/// Attaches the probes that a target is watched with first.
fn attach(
    pid: u32,
    target: &Target,
    sites: Vec<Site>,
    config: &WatchConfig,
    budget: Budget,
) -> Result<Probed, WatchError> {
    let refused = |source| WatchError::Attach { pid, source };
    let costs = calibrate::cache::costs().unwrap_or_else(|error| {
        log::warn!("what a probe hit costs could not be measured, so it is assumed: {error}");
        Costs::ASSUMED
    });
    let options = crate::probe::Options {
        ring_bytes: config.ring_bytes,
        log: config.bpf_log,
        modes: config.mode.probed(),
        min_park_ns: u64::try_from(config.min_park.as_nanos()).unwrap_or(u64::MAX),
    };
    let (prober, stream) = Prober::load(&options)?;
    let plan = Plan {
        pid: NonZeroU32::new(pid).ok_or(TargetError::Open(OpenError::NoSuchProcess(pid)))?,
        exe: target.process().exe().try_clone().map_err(WatchError::Runtime)?,
        sites: locate(target.binary(), sites).map_err(refused)?,
        layout: target.binary().layout,
        slide: target.slide(),
        costs,
    };
    let first = config.mode.first();
    let governor = (config.mode == ModeChoice::Auto).then(|| Governor::new(budget, first));
    match Probes::attach(prober, plan, first, governor) {
        Ok(probes) => Ok(Probed { probes, stream }),
        Err(_) if target.process().has_exited() => Err(TargetError::Exited { pid }.into()),
        Err(source) => Err(refused(source)),
    }
}

/// The sites to probe.
fn plan(target: &Target) -> Result<Vec<Site>, WatchError> {
    let binary = target.binary();
    let functions = BinaryFunctions::new(binary, target.process().exe());
    let sites = sites::plan(binary.arch, kernel(), &functions).map_err(|source| WatchError::Plan {
        pid: target.process().pid(),
        exe: target.info().exe,
        source,
    })?;
    for site in &sites {
        log::info!("{}: {:#x} {} ({:?})", site.function, site.address, site.instruction, site.class);
    }
    Ok(sites)
}

/// Where each site is in the executable file.
fn locate(binary: &GoBinary, sites: Vec<Site>) -> Result<Vec<(Site, u64)>, AttachError> {
    sites
        .into_iter()
        .map(|site| match binary.elf.file_offset(site.address) {
            Some(offset) => Ok((site, offset)),
            None => Err(AttachError::NoOffset { function: site.function, address: site.address }),
        })
        .collect()
}

/// What the running kernel makes of probe sites.
fn kernel() -> sites::Kernel {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse().unwrap_or(0));
    sites::Kernel::from_version(numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}
