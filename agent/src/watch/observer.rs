//! Produces the inputs of a live session: events from the probes, censuses and stacks from memory, names.
//!
//! The order in which inputs are fed is what makes them consistent; ARCHITECTURE.md, "Census and events", has the
//! reasons.

use std::num::NonZeroU32;

use super::error::WatchError;
use super::sink::Sink;
use crate::config::WatchConfig;
use crate::discover::process::OpenError;
use crate::golang::binary::GoBinary;
use crate::golang::sites::{self, BinaryFunctions, Site};
use crate::probe::{AttachError, Attachment, EventStream, Prober};
use crate::session::{End, EndReason, Header, Input, ProbeInfo, ProbeReading, Session};
use crate::target::{Target, TargetError, now_ns, unix_now_ns};

/// See the module. Dropping it removes the probes.
#[derive(Debug)]
pub struct Observer {
    // The probes go first: everything below serves them.
    attachment: Attachment,
    /// Indices of the probes, which outlive them.
    probes: Vec<u16>,
    stream: EventStream,
    prober: Prober,
    target: Target,
    records: Vec<u8>,
    sink: Sink,
}

impl Observer {
    /// Opens the target and attaches.
    pub fn start(pid: u32, config: &WatchConfig) -> Result<Self, WatchError> {
        let target = Target::open(pid)?;
        let sites = plan(&target)?;
        let options = crate::probe::Options {
            ring_bytes: config.ring_bytes,
            log: config.bpf_log,
            modes: vec![crate::config::Mode::Trace],
            min_park_ns: 0,
        };
        let (mut prober, stream) = Prober::load(&options)?;
        let sites = locate(target.binary(), sites).map_err(|source| WatchError::Attach { pid, source })?;
        let raw = NonZeroU32::new(pid).ok_or(TargetError::Open(OpenError::NoSuchProcess(pid)))?;
        let attachment = match prober.attach(
            crate::config::Mode::Trace,
            raw,
            target.process().exe(),
            &sites,
            &target.binary().layout,
        ) {
            Ok(attachment) => attachment,
            Err(_) if target.process().has_exited() => return Err(TargetError::Exited { pid }.into()),
            Err(source) => return Err(WatchError::Attach { pid, source }),
        };
        let header = Header {
            target: target.info(),
            probes: attachment
                .probes()
                .zip(&sites)
                .map(|(index, (site, _))| ProbeInfo {
                    index,
                    function: site.function.clone(),
                    address: site.address.wrapping_add(target.slide()),
                    site_class: site.class,
                })
                .collect(),
            wait_reasons: target.binary().wait_reasons.clone(),
            started_ns: now_ns(),
            started_unix_ns: unix_now_ns(),
            ring_bytes: stream.ring_bytes(),
            threshold_ns: u64::try_from(config.threshold.as_nanos()).unwrap_or(u64::MAX),
        };
        let sink = Sink::new(header, config.save.as_deref())?;
        let probes = attachment.probes().collect();
        Ok(Self { attachment, probes, stream, prober, target, records: Vec::new(), sink })
    }

    /// Whether the target has exited.
    pub fn target_has_exited(&self) -> bool {
        self.target.process().has_exited()
    }

    /// What has been seen.
    pub fn session(&self) -> &Session {
        self.sink.session()
    }

    /// Feeds the events that happened since the last time.
    pub fn take_events(&mut self) -> Result<(), WatchError> {
        let ring_fill = self.stream.take(&mut self.records);
        self.prober.flush_log();
        if self.records.is_empty() && ring_fill == 0 {
            return Ok(());
        }
        let input = Input::Events { records: std::mem::take(&mut self.records), ring_fill };
        let fed = self.sink.feed(&input);
        if let Input::Events { records, .. } = input {
            self.records = records;
        }
        Ok(fed?)
    }

    /// Reads all goroutines and the stacks of those that do not run.
    pub fn census(&mut self) -> Result<(), WatchError> {
        self.take_events()?;
        self.sink.feed(&Input::CensusBegins)?;
        let taken = self.target.look()?;
        self.take_events()?;
        self.read_counters()?;
        for news in self.target.news(&taken) {
            self.sink.feed(&news)?;
        }
        self.sink.feed(&Input::Census(taken))?;
        Ok(())
    }

    /// Removes the probes and ends the session.
    pub fn finish(mut self, reason: EndReason) -> Result<Session, WatchError> {
        // Once there are no more hits, what was counted and what arrived must agree.
        self.prober.detach(std::mem::take(&mut self.attachment));
        self.take_events()?;
        self.read_counters()?;
        self.sink.feed(&Input::End(End { time_ns: now_ns(), reason }))?;
        Ok(self.sink.into_session())
    }

    fn read_counters(&mut self) -> Result<(), WatchError> {
        let mut readings = Vec::new();
        for &index in &self.probes {
            let counters = self.prober.counters(index).map_err(|error| WatchError::Counters(Box::new(error)))?;
            readings.push(ProbeReading { index, counters });
        }
        Ok(self.sink.feed(&Input::Probes(readings))?)
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
