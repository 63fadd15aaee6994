//! The probes of one target: attached, metered and, where a budget is to be kept, governed by a thread of their own.
//!
//! The thread reads the counters ten times a second and removes the probes by itself when they cost too much: the rest of
//! parkwarden may be reading a million goroutines just then; what a cheaper mode needs it attaches. While they cost next to nothing it sleeps, and the counters of all
//! such targets are read in [`rounds`]. What it does it puts down as inputs of the session, which
//! [`Probes::take`] hands over. To attach what costs more is left to that caller, because a census has to follow.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hashbrown::HashMap;
use nix::time::{ClockId, clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;
use parking_lot::{Condvar, Mutex, MutexGuard};
use parkwarden_common::counters::ProbeCounters;
use parkwarden_common::filter::SiteCounts;
use parkwarden_common::record::Kind;

use super::error::WatchError;
use super::rounds::Rounds;
use crate::clock::now_ns;
use crate::config::{Mode, nanoseconds};
use crate::discover::process::Process;
use crate::golang::layout::RuntimeLayout;
use crate::golang::sites::Site;
use crate::governor::{Governor, Move, Reading};
use crate::probe::calibrate::{COLD_AFTER_NS, Costs, HitPrice};
use crate::probe::{AttachError, Attachment, Bell, EventStream, Prober, Removed};
use crate::registry::{CreationSiteCount, Held};
use crate::session::{Input, ModeMove, ProbeInfo, ProbeReading};

/// Time between two readings.
const METER_EVERY: Duration = Duration::from_millis(100);

/// Less than this share of a core is next to nothing.
const QUIET: f64 = 0.000_1;

/// The same while it is not known yet what the probes cost.
const METER_FIRST: Duration = Duration::from_millis(20);

/// Readings taken that fast after probes were attached.
const FIRST_READINGS: u32 = 10;

/// Where and how a target is probed.
#[derive(Debug)]
pub struct Plan {
    /// The target.
    pub process: Arc<Process>,
    /// Its pid.
    pub pid: NonZeroU32,
    /// The places, with their offsets in the executable.
    pub sites: Vec<(Site, u64)>,
    /// Where its runtime's fields are.
    pub layout: RuntimeLayout,
    /// How far above its link-time addresses it is loaded.
    pub slide: u64,
    /// What hits cost on this host.
    pub costs: Costs,
}

/// See the module. Dropping it removes the probes.
#[derive(Debug)]
pub struct Probes {
    shared: Arc<Shared>,
    meter: Option<JoinHandle<()>>,
}

#[derive(Debug)]
pub(super) struct Shared {
    state: Mutex<ProbesState>,
    /// The thread has something to do.
    wake: Condvar,
    /// There is something to take, other than readings.
    bell: Bell,
    /// Where the counters are read while the thread sleeps.
    rounds: Rounds,
}

#[derive(Debug)]
struct ProbesState {
    // First, so that nothing is attached any more when the rest goes.
    attachment: Attachment,
    mode: Mode,
    attached: Vec<Attached>,
    prober: Prober,
    stream: Arc<EventStream>,
    plan: Plan,
    governor: Option<Governor>,
    cpu: Option<ClockId>,
    /// What probes that are gone have cost, and would have cost in each of [`Mode::PROBED`].
    spent_ns: u64,
    would_ns: [u64; Mode::PROBED.len()],
    last_reading: Instant,
    /// CPU time that the target had used at the last reading.
    last_cpu_ns: Option<u64>,
    /// How much of it the target had for itself between two hits before that.
    between_ns: u64,
    /// Counts of `go` statements that have been told.
    sites: HashMap<u64, SiteCounts>,
    readings_to_hurry: u32,
    /// At the last reading the probes cost next to nothing.
    quiet: bool,
    /// The counters are read in [`rounds`].
    in_rounds: bool,
    inputs: Vec<Input>,
    wanted: Option<Move>,
    failed: Option<WatchError>,
    stopped: bool,
}

/// One attached probe.
#[derive(Debug)]
struct Attached {
    info: ProbeInfo,
    /// What a hit costs, and would in each of [`Mode::PROBED`], and what the place alone does.
    price: HitPrice,
    would: [HitPrice; Mode::PROBED.len()],
    site: HitPrice,
    /// What a creation costs besides that tells which calls led to it.
    stack_ns: u32,
    /// At the last reading.
    counters: ProbeCounters,
    /// What hits have cost by then, and would have in each of [`Mode::PROBED`].
    cost_ns: u64,
    would_ns: [u64; Mode::PROBED.len()],
    /// Hits a second, at the last reading.
    rate: f64,
}

impl Attached {
    /// Takes a reading between whose hits the target had so much time for itself.
    fn read(&mut self, counters: ProbeCounters, between_ns: u64) {
        let hits = counters.hits.saturating_sub(self.counters.hits);
        let stacks_ns = counters.stacks.saturating_sub(self.counters.stacks).saturating_mul(u64::from(self.stack_ns));
        let cost = |price: HitPrice| hits.saturating_mul(u64::from(price.after(between_ns))).saturating_add(stacks_ns);
        self.cost_ns = self.cost_ns.saturating_add(cost(self.price));
        for (sum, price) in self.would_ns.iter_mut().zip(self.would) {
            *sum = sum.saturating_add(cost(price));
        }
        self.counters = counters;
    }

    /// The last reading.
    fn reading(&self) -> ProbeReading {
        let stacks_ns = self.counters.stacks.saturating_mul(u64::from(self.stack_ns));
        ProbeReading { index: self.info.index, counters: self.counters, cost_ns: self.cost_ns, stacks_ns }
    }
}

/// Counters, as they were read: one for each attached probe.
struct Counted {
    /// Since the last reading.
    seconds: f64,
    counters: Vec<ProbeCounters>,
}

impl Counted {
    /// Hits a second.
    fn rate(&self, probe: &Attached, counters: &ProbeCounters) -> f64 {
        if self.seconds > 0.0 {
            counters.hits.saturating_sub(probe.counters.hits) as f64 / self.seconds
        } else {
            probe.rate
        }
    }

    fn is_quiet(&self, attached: &[Attached]) -> bool {
        let share = |(probe, counters)| self.rate(probe, counters) * f64::from(probe.price.cold_ns) / 1e9;
        attached.iter().zip(&self.counters).map(share).sum::<f64>() < QUIET
    }
}

impl Probes {
    /// Attaches the probes of `mode`, which write to `stream`. `bell` rings when there is something to take.
    pub fn attach(
        prober: Prober,
        stream: Arc<EventStream>,
        plan: Plan,
        mode: Mode,
        governor: Option<Governor>,
        bell: Bell,
        rounds: Rounds,
    ) -> Result<Self, AttachError> {
        let cpu = clock_getcpuclockid(Pid::from_raw(plan.pid.get().cast_signed())).ok();
        let mut state = ProbesState {
            attachment: Attachment::default(),
            mode,
            attached: Vec::new(),
            prober,
            stream,
            plan,
            governor,
            cpu,
            spent_ns: 0,
            would_ns: [0; Mode::PROBED.len()],
            last_reading: Instant::now(),
            last_cpu_ns: None,
            // Until it is known, hits count as the dearest they can be.
            between_ns: COLD_AFTER_NS,
            sites: HashMap::new(),
            readings_to_hurry: FIRST_READINGS,
            quiet: false,
            in_rounds: false,
            inputs: Vec::new(),
            wanted: None,
            failed: None,
            stopped: false,
        };
        state.attachment = state.attach(mode)?;
        state.attached = state.describe(mode, &state.attachment);
        let shared = Arc::new(Shared { state: Mutex::new(state), wake: Condvar::new(), bell, rounds });
        let meter = std::thread::Builder::new().name("meter".to_owned()).spawn({
            let shared = Arc::clone(&shared);
            move || shared.run()
        });
        // Without the thread the readings are those that `read` takes; nothing is governed.
        let meter = meter.inspect_err(|error| log::error!("no thread for the meter: {error}")).ok();
        Ok(Self { shared, meter })
    }

    /// What is attached now.
    pub fn infos(&self) -> Vec<ProbeInfo> {
        self.shared.lock().infos()
    }

    /// What was read and done since the last time, in the order in which to feed it, and where to go next.
    ///
    /// Events that were taken before belong before it; and all events that happened before a mode was left have been
    /// taken if the stream is emptied after this call.
    pub fn take(&self) -> Result<(Vec<Input>, Option<Move>), WatchError> {
        let mut state = self.shared.lock();
        state.prober.flush_log();
        match state.failed.take() {
            Some(failed) => Err(failed),
            None => Ok((std::mem::take(&mut state.inputs), state.wanted.take())),
        }
    }

    /// Takes a reading now; it comes with the next [`Probes::take`].
    pub fn read(&self) -> Result<(), WatchError> {
        let mut state = self.shared.lock();
        let read = state.read();
        if !state.quiet {
            self.shared.wake.notify_all();
        }
        read
    }

    /// Reads what the kernel holds, after a census that showed the goroutines `alive` and began at `census_ns`.
    pub fn read_held(&self, alive: impl Fn(u64) -> bool, census_ns: u64) -> Result<(), WatchError> {
        let mut state = self.shared.lock();
        let parks = state.prober.parks(&state.attachment).map_err(counters)?;
        // Parked before the census and not in it: it has ended where no probe sees it.
        let gone = parks.iter().filter(|(goid, park)| (1..census_ns).contains(&park.since_ns) && !alive(*goid));
        let gone: Vec<u64> = gone.map(|(goid, _)| *goid).collect();
        state.prober.forget(&state.attachment, gone.iter().copied());
        let gone: hashbrown::HashSet<u64> = gone.into_iter().collect();
        state.tell_held(parks.into_iter().filter(|(goid, _)| !gone.contains(goid)));
        state.tell_sites()
    }

    /// Attaches the probes of another mode than `from`, and removes those before; a census has to follow.
    pub fn enter(&self, from: Mode, wanted: Move) -> Result<(), AttachError> {
        let mut state = self.shared.lock();
        // The meter may have removed the probes since it wanted others.
        if state.mode != from || wanted.mode == from {
            return Ok(());
        }
        let attachment = state.attach(wanted.mode)?;
        state.leave(attachment, wanted);
        Ok(())
    }

    /// Removes all probes. What was read last comes with [`Probes::take`].
    pub fn finish(&mut self) -> Result<(), WatchError> {
        self.stop();
        let mut state = self.shared.lock();
        state.attachment.remove();
        state.read()?;
        state.tell_sites()?;
        state.attachment = Attachment::default();
        state.attached.clear();
        Ok(())
    }

    fn stop(&mut self) {
        self.shared.lock().stopped = true;
        self.shared.wake.notify_all();
        if let Some(meter) = self.meter.take()
            && meter.join().is_err()
        {
            log::error!("the thread that reads the probes' counters panicked");
        }
    }
}

impl Drop for Probes {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, ProbesState> {
        // Each method of the state leaves it whole.
        self.state.lock()
    }

    /// What the thread does.
    fn run(self: &Arc<Self>) {
        let mut state = self.lock();
        while !state.stopped {
            let pause = if state.readings_to_hurry > 0 { METER_FIRST } else { METER_EVERY };
            let rest = state.quiet && state.readings_to_hurry == 0;
            if rest && (state.in_rounds || self.rounds.join(self)) {
                state.in_rounds = true;
                let resting = |state: &mut ProbesState| state.quiet && !state.stopped;
                self.wake.wait_while(&mut state, resting);
            } else {
                self.wake.wait_for(&mut state, pause);
            }
            if !state.stopped {
                let read = state.read();
                self.tell(&mut state, read);
            }
        }
    }

    /// Takes a reading for the thread that sleeps, or wakes it if its probes cost something again. Returns whether it is to be
    /// done again.
    pub(super) fn round(&self) -> bool {
        let mut state = self.lock();
        if state.quiet && !state.stopped {
            let read = state.read_if_quiet();
            self.tell(&mut state, read);
        }
        state.in_rounds = state.quiet && !state.stopped;
        if !state.in_rounds {
            self.wake.notify_all();
        }
        state.in_rounds
    }

    /// Leaves the readings to the thread, until it finds the target quiet.
    pub(super) fn leave_rounds(&self) {
        let mut state = self.lock();
        (state.in_rounds, state.quiet) = (false, false);
        self.wake.notify_all();
    }

    /// Tells who watches of what came of a reading.
    fn tell(&self, state: &mut ProbesState, read: Result<(), WatchError>) {
        if let Err(error) = read {
            state.failed.get_or_insert(error);
        }
        let moved = matches!(state.inputs.last(), Some(Input::Mode(_)));
        if moved || state.failed.is_some() || state.wanted.is_some() {
            self.bell.notify_one();
        }
    }
}

fn counters(error: impl std::error::Error + Send + Sync + 'static) -> WatchError {
    WatchError::Counters(Box::new(error))
}

impl ProbesState {
    fn infos(&self) -> Vec<ProbeInfo> {
        self.attached.iter().map(|probe| probe.info.clone()).collect()
    }

    fn attach(&self, mode: Mode) -> Result<Attachment, AttachError> {
        let Plan { process, pid, sites, layout, .. } = &self.plan;
        self.prober.attach(mode, *pid, process.exe(), sites, layout, &self.stream)
    }

    fn describe(&self, mode: Mode, attachment: &Attachment) -> Vec<Attached> {
        let Plan { sites, costs, slide, .. } = &self.plan;
        let sites = sites.iter().filter(|(site, _)| mode.probes(site.kind));
        let hit = |mode: Mode, site: &Site| match mode.probes(site.kind) {
            true => costs.hit(mode, site.kind, site.class),
            false => HitPrice::default(),
        };
        let described = attachment.probes().zip(sites).map(|(index, (site, _))| Attached {
            info: ProbeInfo {
                index,
                function: site.function.clone(),
                address: site.address.wrapping_add(*slide),
                site_class: site.class,
            },
            price: hit(mode, site),
            would: Mode::PROBED.map(|mode| hit(mode, site)),
            // No program is told of it.
            site: costs.hit(mode, Kind::Waited, site.class),
            stack_ns: costs.stack_ns(),
            counters: ProbeCounters::default(),
            cost_ns: 0,
            would_ns: [0; Mode::PROBED.len()],
            rate: 0.0,
        });
        described.collect()
    }

    /// Reads the counters and the target's CPU time, and does what the governor says.
    fn read(&mut self) -> Result<(), WatchError> {
        let counted = self.count()?;
        self.account(&counted)
    }

    /// The same, if the probes still cost next to nothing.
    fn read_if_quiet(&mut self) -> Result<(), WatchError> {
        let counted = self.count()?;
        if counted.is_quiet(&self.attached) {
            return self.account(&counted);
        }
        self.quiet = false;
        Ok(())
    }

    /// Reads the counters.
    fn count(&self) -> Result<Counted, WatchError> {
        if self.attachment.is_lost() {
            return Err(WatchError::ProbesLost { pid: self.plan.pid.get() });
        }
        let seconds = self.last_reading.elapsed().as_secs_f64();
        let read = |probe: &Attached| self.prober.counters(probe.info.index).map_err(counters);
        Ok(Counted { seconds, counters: self.attached.iter().map(read).collect::<Result<_, _>>()? })
    }

    fn account(&mut self, counted: &Counted) -> Result<(), WatchError> {
        let was_quiet = std::mem::replace(&mut self.quiet, counted.is_quiet(&self.attached));
        self.readings_to_hurry = self.readings_to_hurry.saturating_sub(1);
        self.last_reading = Instant::now();
        // The clock is that of a pid.
        let cpu = self.cpu.and_then(|clock| self.plan.process.by_pid(|_| clock_gettime(clock).ok()));
        let cpu_ns = cpu.map(|cpu| nanoseconds(Duration::from(cpu)));
        self.between_ns = self.between_ns(counted, cpu_ns);
        self.last_cpu_ns = cpu_ns;
        for (probe, counters) in self.attached.iter_mut().zip(&counted.counters) {
            probe.rate = counted.rate(probe, counters);
            probe.read(*counters, self.between_ns);
        }
        let (spent_ns, would_ns) = self.spent();
        let readings = self.attached.iter().map(Attached::reading).collect();
        if was_quiet && self.quiet && matches!(self.inputs[..], [.., Input::Probes(_), Input::Cpu { .. }]) {
            // Of readings that say next to nothing the last says it all.
            self.inputs.truncate(self.inputs.len() - 2);
        }
        self.inputs.push(Input::Probes(readings));
        // A target that has just ended has no time any more; its end is noticed elsewhere.
        let Some(cpu_ns) = cpu_ns else { return Ok(()) };
        let time_ns = now_ns();
        self.inputs.push(Input::Cpu { time_ns, cpu_ns });
        let reading = Reading { time_ns, cpu_ns, spent_ns, would_ns };
        match self.governor.as_mut().and_then(|governor| governor.step(self.mode, reading)) {
            Some(decided) if decided.mode < self.mode => self.go_down(decided),
            Some(decided) => self.wanted = Some(decided),
            None => {}
        }
        Ok(())
    }

    /// How much CPU time the target has had for itself between two hits since the last reading.
    fn between_ns(&self, counted: &Counted, cpu_ns: Option<u64>) -> u64 {
        let fresh = |(probe, counters): (&Attached, &ProbeCounters)| {
            let hits = counters.hits.saturating_sub(probe.counters.hits);
            (hits, hits.saturating_mul(u64::from(probe.price.warm_ns)))
        };
        let each = self.attached.iter().zip(&counted.counters).map(fresh);
        let (hits, cost_ns) =
            each.fold((0, 0), |sum: (u64, u64), (hits, cost_ns)| (sum.0 + hits, sum.1.saturating_add(cost_ns)));
        match self.last_cpu_ns.zip(cpu_ns) {
            Some((before, now)) if hits > 0 => now.saturating_sub(before).saturating_sub(cost_ns) / hits,
            _ => self.between_ns,
        }
    }

    /// What all probes have cost, and would have in each of [`Mode::PROBED`].
    fn spent(&self) -> (u64, [u64; Mode::PROBED.len()]) {
        let mut sum = (self.spent_ns, self.would_ns);
        for probe in &self.attached {
            sum.0 = sum.0.saturating_add(probe.cost_ns);
            sum.1.iter_mut().zip(probe.would_ns).for_each(|(sum, would_ns)| *sum = sum.saturating_add(would_ns));
        }
        sum
    }

    /// Goes at once to a mode that costs less. Where its probes cannot be attached, there are none.
    fn go_down(&mut self, decided: Move) {
        let attached = match decided.mode {
            Mode::Census => Ok(Attachment::default()),
            mode => self.attach(mode),
        };
        match attached {
            Ok(next) => self.leave(next, decided),
            Err(error) => {
                let reason = format!("{}; mode {}: {}", decided.reason, decided.mode, crate::exit::chain(&error));
                self.leave(Attachment::default(), Move { mode: Mode::Census, reason });
            }
        }
    }

    /// Goes to another mode whose probes are attached already: takes the last reading of those before, and removes them.
    fn leave(&mut self, next: Attachment, entered: Move) {
        log::info!("pid {}: to mode {:?}: {}", self.plan.pid, entered.mode, entered.reason);
        let mut before = std::mem::replace(&mut self.attachment, next);
        let begun = Instant::now();
        let removed = before.remove();
        let uncounted_ns = self.uncounted_ns(begun, &removed);
        for probe in &mut self.attached {
            // The map is there as long as the prober: only a bug could make this fail, and then the last one stands.
            let Ok(counters) = self.prober.counters(probe.info.index) else { continue };
            probe.read(counters, self.between_ns);
        }
        let last = self.attached.iter().map(Attached::reading).collect();
        (self.spent_ns, self.would_ns) = self.spent();
        self.spent_ns = self.spent_ns.saturating_add(uncounted_ns);
        self.inputs.push(Input::Probes(last));
        let now = std::mem::replace(&mut self.attachment, before);
        let held = self.prober.parks(&self.attachment).map_err(counters);
        match held {
            Ok(parks) => self.tell_held(parks.into_iter()),
            Err(error) => self.failed = Some(error),
        }
        if let Err(error) = self.tell_sites() {
            self.failed = Some(error);
        }
        self.attachment = now;
        self.sites.clear();
        self.attached = self.describe(entered.mode, &self.attachment);
        self.mode = entered.mode;
        self.readings_to_hurry = FIRST_READINGS;
        self.wanted = None;
        self.inputs.push(Input::Mode(ModeMove {
            time_ns: now_ns(),
            mode: entered.mode,
            reason: entered.reason,
            probes: self.infos(),
            uncounted_ns,
        }));
    }

    /// What hits cost that no program counted: those while the breakpoints were being removed, at the last known rate.
    fn uncounted_ns(&self, begun: Instant, removed: &[Removed]) -> u64 {
        let cost = |removed: &Removed| {
            let probe = self.attached.iter().find(|probe| probe.info.index == removed.index)?;
            let seconds = removed.at.saturating_duration_since(begun).as_secs_f64();
            Some(probe.rate * seconds * f64::from(probe.site.after(self.between_ns)))
        };
        removed.iter().filter_map(cost).sum::<f64>() as u64
    }

    fn tell_held(&mut self, parks: impl Iterator<Item = (u64, parkwarden_common::filter::Park)>) {
        let held = parks.filter(|(_, park)| park.since_ns != 0).map(|(goid, park)| Held {
            goid,
            since_ns: park.since_ns,
            // The program stores a byte.
            wait_reason: park.wait_reason as u8,
        });
        let held: Vec<Held> = held.collect();
        if !held.is_empty() {
            self.inputs.push(Input::Held(held));
        }
    }

    fn tell_sites(&mut self) -> Result<(), WatchError> {
        let mut told = Vec::new();
        for (creation_pc, counts) in self.prober.sites(&self.attachment).map_err(counters)? {
            let before = self.sites.insert(creation_pc, counts).unwrap_or_default();
            let count = CreationSiteCount {
                creation_pc,
                created: counts.created.saturating_sub(before.created),
                exited: counts.exited.saturating_sub(before.exited),
            };
            if count.created > 0 || count.exited > 0 {
                told.push(count);
            }
        }
        if !told.is_empty() {
            self.inputs.push(Input::Sites(told));
        }
        Ok(())
    }
}
