//! Produces the inputs of a live session: events from the probes, censuses and stacks from memory, names.
//!
//! The order in which inputs are fed is what makes them consistent; ARCHITECTURE.md, "Census and events", has the
//! reasons.

use std::cell::OnceCell;
use std::num::NonZeroU32;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use hashbrown::{HashMap, HashSet};

use super::Company;
use super::commons::Commons;
use super::error::WatchError;
use super::incidents::{Incidents, Told};
use super::probes::{Plan, Probes};
use super::runtime::RuntimeReader;
use super::sink::Sink;
use super::unstopped::Unstopped;
use crate::cause::wait::{COROUTINE, Wait};
use crate::clock::{now_ns, unix_now_ns};
use crate::config::{Mode, ModeChoice, ProveConfig, WatchConfig, nanoseconds};
use crate::detect::Verdict;
use crate::discover::process::OpenError;
use crate::exit::chain;
use crate::golang::Frame;
use crate::golang::binary::GoBinary;
use crate::golang::sites::{self, BinaryFunctions, Site};
use crate::governor::{Budget, Governor, Move};
use crate::live::{News, Target, TargetError};
use crate::memory::census::Goroutine;
use crate::probe::calibrate::{self, Costs};
use crate::probe::{AttachError, Bell, EventStream, LoadError, Prober, Uprobes};
use crate::prove::{self, Program};
use crate::report::{Group, Report};
use crate::session::{
    Busy, End, EndReason, Explained, GroupKey, Header, Input, Modes, ProofTaken, Proven, Session, Tally,
};
use crate::words::is_system;

/// Goroutines of a group that are tried, until one stands still while what it waits for is read.
const MAX_TRIES: usize = 16;

/// Places of labels that are read at a look: where each request has its own, those of a sample of goroutines.
const MAX_LABELLED: usize = 2_000;

/// How often a goroutine that ran at two looks is looked at to see whether it ever waits, and at what intervals. One that waits
/// for a twentieth of its time is found out in 12 of 13 looks.
const SAMPLES: u32 = 50;
const SAMPLE_EVERY: Duration = Duration::from_micros(1_700);

/// See the module. Dropping it removes the probes.
#[derive(Debug)]
pub struct Observer {
    // The probes go first: everything below serves them.
    probed: Option<Probed>,
    target: Target,
    records: Vec<u8>,
    wanted: Option<Move>,
    sink: Sink,
    bell: Bell,
    commons: Commons,
    /// What looks at its memory have to know, or why there can be none; found out when the first of them is due.
    program: OnceCell<Result<Arc<Program>, String>>,
    unstopped: Unstopped,
    incidents: Incidents,
    runtime: RuntimeReader,
    /// Ways to `go` statements whose addresses have been named.
    told_creators: usize,
    /// Likely groups when the last proof was tried, with how many there were of each.
    at_proof: HashMap<GroupKey, u64>,
}

/// What there is only with probes.
#[derive(Debug)]
struct Probed {
    probes: Probes,
    stream: Arc<EventStream>,
    /// The mode it begins in.
    first: Mode,
    /// Modes that it could have come to, and why it cannot.
    refused: Vec<(Mode, String)>,
}

impl Observer {
    /// Attaches to the target, with what it shares with other watches.
    pub(super) fn start(
        target: Target,
        config: &WatchConfig,
        commons: &Commons,
        company: Company,
    ) -> Result<Self, WatchError> {
        let pid = target.process().pid();
        let budget = Budget { of_target: config.budget };
        let mut no_probes = None;
        let sites = match config.mode {
            ModeChoice::Census => None,
            _ => match plan(&target) {
                Ok(sites) => Some(sites),
                Err(WatchError::Plan { source, .. }) if config.mode == ModeChoice::Auto => {
                    log::warn!("pid {pid} is watched without probes, in mode census alone: {source}");
                    no_probes = Some(source.to_string());
                    None
                }
                Err(error) => return Err(error),
            },
        };
        let bell = Bell::default();
        let attached = sites.map(|sites| attach(pid, &target, sites, config, budget, commons, &bell)).transpose();
        let probed = match attached {
            Err(
                error @ (WatchError::Attach { source: AttachError::NotPermitted(_) | AttachError::Keeper(_), .. }
                | WatchError::Load(LoadError::Refused(_) | LoadError::Verifier { .. })),
            ) if config.mode == ModeChoice::Auto => {
                let reason = crate::exit::chain(&error);
                log::warn!("pid {pid} is watched without probes, in mode census alone: {reason}");
                no_probes = Some(reason);
                None
            }
            attached => attached?,
        };
        let first = probed.as_ref().map_or(Mode::Census, |probed| probed.first);
        let refused = probed.as_ref().map(|probed| probed.refused.clone()).unwrap_or_default();
        let header = Header {
            target: target.info(),
            probes: probed.as_ref().map(|probed| probed.probes.infos()).unwrap_or_default(),
            modes: Modes { choice: config.mode, first, no_probes, refused, budget },
            wait_reasons: target.binary().wait_reasons.clone(),
            started_ns: now_ns(),
            started_unix_ns: unix_now_ns(),
            ring_bytes: probed.as_ref().map_or(0, |probed| probed.stream.ring_bytes()),
            threshold_ns: nanoseconds(config.threshold),
            interval_ns: nanoseconds(config.interval),
        };
        let sink = Sink::new(header, config.save.as_deref())?;
        let runtime = RuntimeReader::of(&target);
        Ok(Self {
            probed,
            target,
            records: Vec::new(),
            wanted: None,
            sink,
            bell,
            commons: commons.clone(),
            program: OnceCell::new(),
            unstopped: Unstopped::new(config, company),
            incidents: Incidents::default(),
            runtime,
            told_creators: 0,
            at_proof: HashMap::new(),
        })
    }

    /// Whether the runtime of a target that was just started has begun. What happens meanwhile is not missed.
    pub fn has_begun(&mut self) -> Result<bool, WatchError> {
        self.take_events()?;
        match self.target.begun() {
            Ok(()) => Ok(true),
            Err(TargetError::Layout { .. } | TargetError::Census { .. }) if !self.target_has_exited() => Ok(false),
            Err(_) if self.target_has_exited() => Err(TargetError::Exited { pid: self.pid() }.into()),
            Err(error) => Err(error.into()),
        }
    }

    /// The target's pid.
    pub fn pid(&self) -> u32 {
        self.target.process().pid()
    }

    /// Whether the target has exited.
    pub fn target_has_exited(&self) -> bool {
        self.target.process().has_exited()
    }

    /// A handle that becomes readable when the target has exited.
    pub fn target_exit(&self) -> std::io::Result<OwnedFd> {
        self.target.process().pidfd().try_clone()
    }

    /// Rings when it is time for [`Observer::take_events`].
    pub fn bell(&self) -> Bell {
        Arc::clone(&self.bell)
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
        let taken = self.target.look(self.sink.session().latest())?;
        self.take_events()?;
        if let Some(probed) = &self.probed {
            let alive: HashSet<u64> = taken.census.goroutines.iter().map(|goroutine| goroutine.goid).collect();
            probed.probes.read_held(|goid| alive.contains(&goid), taken.census.started_ns)?;
            probed.probes.read()?;
            self.take_events()?;
        }
        let (creators, told) = self.sink.session().creators().since(self.told_creators);
        let News { names, stacks } = self.target.news(&taken, creators);
        self.told_creators = told;
        self.sink.feed(&Input::Symbols(names))?;
        self.sink.feed(&Input::Stacks(stacks))?;
        let labels = self.target.labels(&taken, MAX_LABELLED)?;
        let had_some = !self.session().labels().is_empty();
        self.sink.feed(&Input::Census(Arc::new(taken)))?;
        if !labels.of.is_empty() || had_some {
            self.sink.feed(&Input::Labels(labels))?;
        }
        let running = self.running();
        if !running.is_empty() {
            let goids = self.target.keep_running(running, SAMPLES, SAMPLE_EVERY)?;
            self.sink.feed(&Input::Busy(Busy { samples: SAMPLES, goids }))?;
        }
        Ok(())
    }

    /// Goroutines of the program that ran at the last two looks.
    fn running(&self) -> Vec<Goroutine> {
        let session = self.session();
        let wanted = session.active().to_sample();
        let all = session.latest().into_iter().flat_map(|taken| &taken.census.goroutines);
        all.filter(|g| wanted.binary_search(&g.goid).is_ok() && !is_system(session.symbols(), g.start_pc))
            .copied()
            .collect()
    }

    /// Finds out more: what nothing leads to in the running program, what likely leaks wait for, and, if that is asked for and
    /// would tell anything new, whether they can ever run again. Returns what is known then. Waits that long for a look under way.
    pub fn follow_up(&mut self, config: &WatchConfig, wait: Duration) -> Result<Report, WatchError> {
        if let Some(seen) = self.runtime.look(&self.target) {
            self.sink.feed(&seen)?;
        }
        let mut report = self.report(config);
        if let Some(taken) = self.unstopped.take(self.sink.session(), wait) {
            self.sink.feed(&Input::Unreached(taken))?;
            report = self.report(config);
        }
        if self.unstopped.is_due(self.sink.session(), &report)
            && let Some(turn) = self.commons.turn_to_prove()
            && let Some(refused) = self.unstopped.begin(self.program(), &self.target, &report, turn)
        {
            self.sink.feed(&Input::Unreached(refused))?;
        }
        if self.incidents.is_due(&report, self.sink.session()) {
            match self.program() {
                Ok(program) => self.incidents.begin(&program, &self.target, self.sink.session(), &report),
                Err(reason) => log::debug!("nothing is known of who waits for whom: {reason}"),
            }
        }
        if let Some(Told { holdings, incidents }) = self.incidents.take(self.sink.session(), wait) {
            self.sink.feed(&Input::Holdings(holdings))?;
            self.sink.feed(&Input::Incidents(incidents))?;
            report = self.report(config);
        }
        let asked = |group: &&Group| matches!(group.verdict, Verdict::Likely | Verdict::Stuck) || group.asks;
        let asked: Vec<&Group> = report.groups.iter().filter(asked).collect();
        let explained = self.explain(&asked)?;
        let mut learned = !explained.is_empty();
        if learned {
            self.sink.feed(&Input::Waits(explained))?;
        }
        if let Some(prove) = &config.prove
            && self.would_tell(&report)
            && is_due(self.session().proofs().tally(), now_ns(), config.interval)
            && let Some(_turn) = self.commons.turn_to_prove()
        {
            let likely = report.groups.iter().filter(|group| self.is_suspect(group));
            self.at_proof = likely.filter_map(|group| Some((group.key?, group.count))).collect();
            let taken = self.prove(prove);
            self.sink.feed(&Input::Proof(taken))?;
            learned = true;
        }
        Ok(if learned { self.report(config) } else { report })
    }

    /// Whether a proof would tell anything new: nothing leads to somebody of whom that was not so at the last one, it was refused,
    /// or groups that are likely are new or have doubled since: so there are few proofs, however long a leak grows.
    fn would_tell(&self, report: &Report) -> bool {
        let session = self.session();
        let last_ns = session.proofs().tally().last.map_or(0, |(last_ns, _)| last_ns);
        let mut likely = report.groups.iter().filter(|group| self.is_suspect(group));
        let mut unproven = likely.clone().filter(|group| group.proven < group.count);
        session.standing().is_news_since(last_ns)
            || session.proofs().tally().refusal.is_some() && unproven.next().is_some()
            || likely.any(|group| match group.key.and_then(|key| self.at_proof.get(&key)) {
                None => group.proven < group.count,
                Some(then) => group.proven < group.count && group.count >= then.saturating_mul(2),
            })
    }

    /// Whether a proof may tell that it leaks. Of iterators nothing else does where no look at what the program can reach is taken.
    fn is_suspect(&self, group: &Group) -> bool {
        let unlooked = self.session().standing().tally().taken == 0;
        group.verdict >= Verdict::Likely || unlooked && group.wait_reason == COROUTINE
    }

    fn program(&self) -> Result<Arc<Program>, String> {
        let of = || Program::of(&self.target).map(Arc::new).map_err(|error| chain(&error));
        self.program.get_or_init(of).clone()
    }

    /// What is known.
    pub fn report(&self, config: &WatchConfig) -> Report {
        Report::of(self.session(), nanoseconds(config.threshold), &config.rules)
    }

    /// What one goroutine of each group waits for, where that is not known yet.
    fn explain(&self, groups: &[&Group]) -> Result<Vec<Explained>, WatchError> {
        let session = self.session();
        let mut examples: HashMap<u64, &Group> = HashMap::new();
        for group in groups {
            let tried = &group.goids[..group.goids.len().min(MAX_TRIES)];
            if tried.iter().all(|goid| session.proofs().waits(*goid).is_none()) {
                examples.extend(tried.iter().map(|goid| (*goid, *group)));
            }
        }
        let all = session.latest().into_iter().flat_map(|taken| &taken.census.goroutines);
        let mut told = HashSet::new();
        let mut explained = Vec::new();
        for goroutine in all {
            let Some(group) = examples.get(&goroutine.goid).filter(|group| !told.contains(&group.key)) else {
                continue;
            };
            let primitives = self.target.waits_for(goroutine, &group.wait_reason, &group.stack)?;
            let on_channels = Wait::of(&group.wait_reason, &group.stack).is_some_and(Wait::is_channel);
            if on_channels && primitives.is_empty() {
                // It ran meanwhile: another of them may stand, or the same at the next look.
                continue;
            }
            told.insert(group.key);
            let cause = group.explain(&primitives, session.handler_of(goroutine.creation_pc));
            let mut evidence: Vec<String> = primitives.iter().map(ToString::to_string).collect();
            let served = self.target.serves(goroutine, &group.stack)?;
            evidence.extend(served.map(|request| serving(goroutine.goid, &request)));
            let goids = vec![goroutine.goid];
            explained.push(Explained { goids, cause, evidence, ..Explained::default() });
        }
        Ok(explained)
    }

    fn prove(&self, config: &ProveConfig) -> ProofTaken {
        let outcome = match prove::on(&self.target, config, None) {
            Ok(report) => Ok(Proven {
                pause_seconds: report.pause.seconds,
                leaks: report
                    .leaks
                    .into_iter()
                    .map(|mut leak| {
                        leak.evidence.extend(self.served(&leak.goids, &leak.stack));
                        Explained {
                            goids: leak.goids,
                            cause: leak.cause,
                            evidence: leak.evidence,
                            heap_bytes: leak.heap_bytes,
                            heap_kinds: leak.heap_kinds,
                        }
                    })
                    .collect(),
            }),
            // What becomes of the watch, if the target is gone, the next look at it tells.
            Err(error) => Err(error.to_string()),
        };
        ProofTaken { time_ns: now_ns(), outcome }
    }

    /// What one of these goroutines, which have this stack, serves, in words.
    fn served(&self, goids: &[u64], stack: &[Frame]) -> Option<String> {
        let all = &self.session().latest()?.census.goroutines;
        let goroutine = all.iter().find(|goroutine| goids.first() == Some(&goroutine.goid))?;
        // If the target is gone the next look at it tells.
        let request = self.target.serves(goroutine, stack).ok()??;
        Some(serving(goroutine.goid, &request))
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

fn serving(goid: u64, request: &str) -> String {
    format!("goroutine {goid} serves {request}")
}

/// Whether another proof may be tried: at most once an interval, and so that the target stands still for 1 % of the time
/// at most. One that was refused is not tried again soon.
fn is_due(tally: &Tally, now_ns: u64, interval: Duration) -> bool {
    let Some((last_ns, pause_seconds)) = tally.last else { return true };
    let rest = match tally.refusal {
        Some(_) => 10 * interval,
        None => interval.max(Duration::from_secs_f64(100.0 * pause_seconds)),
    };
    Duration::from_nanos(now_ns.saturating_sub(last_ns)) >= rest
}

/// Attaches the probes that a target is watched with first.
fn attach(
    pid: u32,
    target: &Target,
    sites: Vec<Site>,
    config: &WatchConfig,
    budget: Budget,
    commons: &Commons,
    bell: &Bell,
) -> Result<Probed, WatchError> {
    let refused = |source| WatchError::Attach { pid, source };
    let costs = calibrate::cache::costs(Uprobes::here()).unwrap_or_else(|error| {
        log::warn!("what a probe hit costs could not be measured, so it is assumed: {error}");
        Costs::ASSUMED
    });
    let prober = match &commons.prober {
        Some(shared) => shared.clone(),
        None => Prober::load(&options(config, config.mode.probed()))?,
    };
    let stream = Arc::new(prober.stream(Arc::clone(bell)));
    let plan = Plan {
        process: Arc::clone(target.process()),
        pid: NonZeroU32::new(pid).ok_or(TargetError::Open(OpenError::NoSuchProcess(pid)))?,
        sites: locate(target.binary(), sites).map_err(refused)?,
        layout: target.binary().layout,
        slide: target.slide(),
        costs,
    };
    let mut probed = config.mode.probed();
    let mut left_out = prober.refused();
    left_out.retain(|(mode, _)| probed.contains(mode));
    if config.mode == ModeChoice::Auto {
        probed.retain(|mode| !left_out.iter().any(|(refused, _)| refused == mode));
    }
    // Only hits tell what hits would cost, so it begins where parks are seen.
    let first = probed.iter().copied().find(|mode| mode.sees_parks()).or(probed.first().copied());
    let first = first.unwrap_or(Mode::Census);
    let governor = (config.mode == ModeChoice::Auto).then(|| Governor::new(budget, probed, first));
    match Probes::attach(prober, Arc::clone(&stream), plan, first, governor, Arc::clone(bell), commons.rounds.clone()) {
        Ok(probes) => Ok(Probed { probes, stream, first, refused: left_out }),
        Err(_) if target.process().has_exited() => Err(TargetError::Exited { pid }.into()),
        Err(source) => Err(refused(source)),
    }
}

/// How the BPF side is loaded for a watch.
pub fn options(config: &WatchConfig, modes: Vec<Mode>) -> crate::probe::Options {
    crate::probe::Options {
        ring_bytes: config.ring_bytes,
        log: config.bpf_log,
        modes,
        min_park_ns: nanoseconds(config.min_park),
        uprobes: Uprobes::here(),
        further: Vec::new(),
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
    let (major, minor) = crate::probe::kernel::running();
    sites::Kernel::from_version(major, minor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proofs_are_not_tried_too_often() {
        let second = 1_000_000_000;
        let interval = Duration::from_secs(5);
        let mut tally = Tally::default();
        assert!(is_due(&tally, 0, interval));
        tally.last = Some((10 * second, 0.01));
        assert!(!is_due(&tally, 14 * second, interval));
        assert!(is_due(&tally, 15 * second, interval));
        // 1 % of the time.
        tally.last = Some((10 * second, 0.2));
        assert!(!is_due(&tally, 29 * second, interval));
        assert!(is_due(&tally, 30 * second, interval));
        tally.refusal = Some("too large".to_owned());
        assert!(!is_due(&tally, 59 * second, interval));
        assert!(is_due(&tally, 60 * second, interval));
    }
}
