//! One watch of one target: everything that was seen of it, as a sequence of [`Input`]s, and what follows from them.
//!
//! A live watch produces the inputs and may save them; a replay reads them from a file. Both feed the same session,
//! so both give the same report. Pure: no clock, no I/O.

mod active;
mod cost;
mod creators;
mod holdings;
mod http;
mod incidents;
mod input;
mod passages;
mod proofs;
mod runtime;
mod standing;

use std::sync::Arc;

use hashbrown::HashMap;
use parkwarden_common::record::{Creator, Event, Kind};

pub use active::{Active, Kept};
pub use cost::{Spent, Total};
pub use creators::{Creations, Creators};
pub use holdings::Holdings;
use http::HttpConnections;
pub use incidents::Incidents;
pub use input::{
    Busy, End, EndReason, Explained, Header, Holding, Input, ModeMove, Modes, ProbeInfo, ProbeReading, ProofTaken,
    Proven, RuntimeTaken, Tied, UnreachedTaken,
};
pub use passages::{Passage, Passages};
pub use proofs::{Proofs, Tally};
pub use runtime::RuntimeLooks;
pub use standing::Standing;

use crate::cause::Handler;
use crate::cause::wait::Doing;
use crate::config::Mode;
use crate::detect::{Looks, Series};
use crate::golang::Frame;
use crate::governor::Budget;
use crate::memory::StackId;
use crate::memory::census::Goroutine;
use crate::memory::labels::ByGoroutine;
use crate::memory::look::CensusTaken;
use crate::registry::Registry;
use crate::symbolize::Symbols;

/// What makes two goroutines that do not get on the same case: the `go` statement, the stack they stand in, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupKey {
    /// Return address of the call to `runtime.newproc`.
    pub creation_pc: u64,
    /// The blocking stack.
    pub stack: StackId,
    /// Why it does not get on.
    pub doing: Doing,
}

impl GroupKey {
    /// The case of a goroutine that has this stack.
    fn of(goroutine: &Goroutine, stack: StackId) -> Self {
        Self { creation_pc: goroutine.creation_pc, stack, doing: Doing::of(goroutine) }
    }
}

/// Groups a session follows at most; further ones are counted in [`Session::groups_dropped`].
pub const MAX_GROUPS: usize = 10_000;

/// Moves from mode to mode that a session remembers; further ones are counted.
pub const MAX_MOVES: usize = 256;

/// Losses on parkwarden's side of the ring buffer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    /// Records that could not be decoded.
    pub decode_error: u64,
    /// Goroutines whose `g` could not be read, over all censuses.
    pub census_read_fault: u64,
    /// Stacks whose outer part is missing, in the last census.
    pub stack_cut: u64,
    /// Goroutines of whose stack nothing could be read, in the last census.
    pub stack_unknown: u64,
}

/// See the module.
#[derive(Debug)]
pub struct Session {
    header: Header,
    registry: Registry,
    symbols: Symbols,
    stacks: Vec<Arc<[u64]>>,
    account: cost::Account,
    mode: Mode,
    moves: Vec<ModeMove>,
    moves_dropped: u64,
    /// Whether, since the last census began, there was a time in which parks were not seen.
    blind: bool,
    losses: Losses,
    lost_at_last_census: u64,
    latest: Option<Arc<CensusTaken>>,
    /// When the first census was taken, and the last.
    looks: Option<(u64, u64)>,
    looks_taken: u64,
    groups: HashMap<GroupKey, Series>,
    groups_dropped: u64,
    live: HashMap<u64, Series>,
    gone: HashMap<u64, Series>,
    proofs: Proofs,
    standing: Standing,
    active: Active,
    holdings: Holdings,
    incidents: Incidents,
    passages: Passages,
    creators: Creators,
    labels: ByGoroutine,
    http_connections: HttpConnections,
    runtime: RuntimeLooks,
    ring_fill_max: u64,
    now_ns: u64,
    end: Option<End>,
}

impl Session {
    /// A session that begins.
    pub fn new(header: Header) -> Self {
        let now_ns = header.started_ns;
        let mut registry = Registry::default();
        registry.expect_strangers(header.modes.first != Mode::Trace);
        Self {
            registry,
            symbols: Symbols::default(),
            stacks: Vec::new(),
            account: cost::Account::new(header.modes.budget, header.probes.clone()),
            mode: header.modes.first,
            moves: Vec::new(),
            moves_dropped: 0,
            blind: false,
            losses: Losses::default(),
            lost_at_last_census: 0,
            latest: None,
            looks: None,
            looks_taken: 0,
            groups: HashMap::new(),
            groups_dropped: 0,
            live: HashMap::new(),
            gone: HashMap::new(),
            proofs: Proofs::default(),
            standing: Standing::default(),
            active: Active::default(),
            holdings: Holdings::default(),
            incidents: Incidents::default(),
            passages: Passages::default(),
            creators: Creators::default(),
            labels: ByGoroutine::default(),
            http_connections: HttpConnections::default(),
            runtime: RuntimeLooks::default(),
            ring_fill_max: 0,
            now_ns,
            end: None,
            header,
        }
    }

    /// Takes the next input.
    pub fn feed(&mut self, input: &Input) {
        match input {
            Input::Begin(_) => {}
            Input::Events { records, ring_fill } => {
                self.ring_fill_max = self.ring_fill_max.max(*ring_fill);
                self.feed_records(records);
            }
            Input::Probes(readings) => self.account.read(readings),
            Input::CensusBegins => self.registry.census_begins(),
            Input::Symbols(resolved) => self.symbols.extend(resolved),
            Input::Stacks(stacks) => self.stacks.extend(stacks.iter().map(|pcs| Arc::from(pcs.as_slice()))),
            Input::Census(taken) => self.feed_census(taken),
            Input::Waits(explained) => self.proofs.take_waits(explained),
            Input::Proof(taken) => {
                self.now_ns = self.now_ns.max(taken.time_ns);
                self.proofs.take(taken);
            }
            Input::End(end) => {
                self.now_ns = self.now_ns.max(end.time_ns);
                self.end = Some(end.clone());
            }
            Input::Cpu { time_ns, cpu_ns } => {
                self.now_ns = self.now_ns.max(*time_ns);
                self.account.clock(*time_ns, *cpu_ns);
            }
            Input::Mode(entered) => self.feed_mode(entered),
            Input::Held(parks) => parks.iter().for_each(|park| self.registry.hold(park)),
            Input::Unreached(taken) => {
                self.now_ns = self.now_ns.max(taken.time_ns);
                self.standing.take(taken, self.latest.as_ref().map(|latest| &latest.census));
            }
            Input::Busy(busy) => self.active.sampled(busy),
            Input::Holdings(holdings) => {
                self.holdings.take(holdings, self.latest.as_ref().map(|latest| &latest.census));
            }
            Input::Incidents(incidents) => {
                self.incidents.take(incidents, self.latest.as_ref().map(|latest| &latest.census));
            }
            Input::Labels(taken) => self.labels = taken.clone().into(),
            Input::Runtime(taken) => self.runtime.take(self.now_ns, taken),
            Input::Halted(by) => self.runtime.halted_by(*by),
            Input::Sites(counts) => counts.iter().for_each(|count| self.registry.count(count)),
        }
    }

    fn feed_mode(&mut self, entered: &ModeMove) {
        self.now_ns = self.now_ns.max(entered.time_ns);
        // Between two modes that see parks none is missed.
        self.blind |= !(self.mode.sees_parks() && entered.mode.sees_parks());
        self.mode = entered.mode;
        self.registry.expect_strangers(entered.mode != Mode::Trace);
        self.account.replace(entered.probes.clone(), entered.uncounted_ns);
        if self.moves.len() < MAX_MOVES {
            self.moves.push(entered.clone());
        } else {
            self.moves_dropped += 1;
        }
    }

    /// Applies records that stand one after the other.
    fn feed_records(&mut self, mut records: &[u8]) {
        while !records.is_empty() {
            let Some((record, rest)) = split_record(records) else {
                // Without a valid record there is no next record's start either.
                self.losses.decode_error += 1;
                return;
            };
            match record {
                Record::Event(event) => {
                    self.now_ns = self.now_ns.max(event.time_ns);
                    self.registry.apply(&event);
                }
                Record::Creator(creator) => self.creators.take(&creator),
            }
            records = rest;
        }
    }

    fn feed_census(&mut self, taken: &Arc<CensusTaken>) {
        let lost = self.lost_events();
        let blind = std::mem::take(&mut self.blind) || !self.mode.sees_parks();
        self.registry.reconcile(&taken.census, blind || lost > self.lost_at_last_census);
        self.lost_at_last_census = lost;
        self.losses.census_read_fault += taken.census.unreadable;
        self.losses.stack_cut = taken.stack_cut;
        self.losses.stack_unknown = taken.stack_unknown;
        let time_ns = taken.census.finished_ns;
        self.now_ns = self.now_ns.max(time_ns);

        self.active.check(&taken.census);
        let mut groups: HashMap<GroupKey, u64> = HashMap::new();
        let mut live: HashMap<u64, u64> = HashMap::new();
        for (goroutine, stack) in taken.goroutines() {
            *live.entry(goroutine.creation_pc).or_default() += 1;
            if let Some(key) = self.case_of(goroutine, stack) {
                *groups.entry(key).or_default() += 1;
            }
        }
        // The first look and the last before this one stand for all in between.
        let mut earlier: Vec<u64> = self.looks.iter().flat_map(|(first, last)| [*first, *last]).collect();
        earlier.dedup();
        let mut gone = self.latest.as_ref().map_or_else(HashMap::new, |last| self.passages.take(last, taken));
        for (site, series) in &self.gone {
            *gone.entry(*site).or_default() += series.last().1;
        }
        self.groups_dropped += note(&mut self.groups, groups, &earlier, time_ns);
        note(&mut self.live, live, &earlier, time_ns);
        note(&mut self.gone, gone, &earlier, time_ns);
        self.looks = Some((self.looks.map_or(time_ns, |(first, _)| first), time_ns));
        self.looks_taken += 1;
        self.proofs.check(&taken.census);
        self.standing.check(&taken.census);
        self.holdings.check(&taken.census);
        self.incidents.check(&taken.census);
        let (stacks, symbols) = (&self.stacks, &self.symbols);
        let serves = |stack: StackId| {
            let pcs = stacks.get(stack.0 as usize).map_or(&[][..], |pcs| pcs);
            pcs.iter().flat_map(|pc| symbols.return_address(*pc)).any(|frame| frame.function.ends_with(".ServeHTTP"))
        };
        self.http_connections.note(taken, symbols, serves);
        self.latest = Some(Arc::clone(taken));
    }

    /// The case of a goroutine that does not get on: that waits, is in the same system call as at the look before, or has run
    /// all the time since. `None` for others, and for those whose stack is not known.
    pub fn case_of(&self, goroutine: &Goroutine, stack: Option<StackId>) -> Option<GroupKey> {
        match Doing::of(goroutine) {
            Doing::Waits(_) => Some(GroupKey::of(goroutine, stack?)),
            Doing::Syscall if self.active.kept(goroutine).is_some() => Some(GroupKey::of(goroutine, stack?)),
            Doing::Runs if self.active.kept(goroutine).is_some() => Some(GroupKey::of(goroutine, StackId::NONE)),
            Doing::Syscall | Doing::Runs => None,
        }
    }

    /// Who holds the locks that goroutines stand before.
    pub fn holdings(&self) -> &Holdings {
        &self.holdings
    }

    /// Who waits for whom.
    pub fn incidents(&self) -> &Incidents {
        &self.incidents
    }

    /// How goroutines came and went where they wait.
    pub fn passages(&self) -> &Passages {
        &self.passages
    }

    /// Who ran `go` statements.
    pub fn creators(&self) -> &Creators {
        &self.creators
    }

    /// The labels of goroutines.
    pub fn labels(&self) -> &ByGoroutine {
        &self.labels
    }

    /// The last looks at the target's runtime.
    pub fn runtime(&self) -> &RuntimeLooks {
        &self.runtime
    }

    /// Who is in one system call, or runs all the time.
    pub fn active(&self) -> &Active {
        &self.active
    }

    /// Why those of a group do not get on, in words.
    pub fn reason_of(&self, key: &GroupKey) -> String {
        let stack: Vec<Frame> = match key.doing {
            Doing::Syscall => self.stack_frames(key.stack).cloned().collect(),
            Doing::Waits(_) | Doing::Runs => Vec::new(),
        };
        key.doing.reason(&self.header.wait_reasons, &stack)
    }

    /// Events the kernel side lost so far, whatever the cause.
    pub fn lost_events(&self) -> u64 {
        // A capture's counters can be anything.
        self.account.spent().iter().fold(self.losses.decode_error, |sum, Spent { counters, .. }| {
            sum.saturating_add(counters.ring_full).saturating_add(counters.read_fault).saturating_add(counters.map_full)
        })
    }

    /// What is being watched, and how.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The goroutines.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Names of addresses.
    pub fn symbols(&self) -> &Symbols {
        &self.symbols
    }

    /// A stack's addresses, innermost first; empty for an id never seen.
    pub fn stack(&self, id: StackId) -> &[u64] {
        self.stacks.get(id.0 as usize).map_or(&[], |pcs| pcs)
    }

    /// A stack's frames, innermost first.
    pub fn stack_frames(&self, id: StackId) -> impl Iterator<Item = &Frame> {
        self.stack(id).iter().flat_map(|pc| self.symbols.return_address(*pc))
    }

    /// What the probes have done, by place.
    pub fn probes(&self) -> Vec<Spent> {
        self.account.spent()
    }

    /// What watching has cost the target.
    pub fn cost(&self) -> Total {
        self.account.total()
    }

    /// What it may cost.
    pub fn budget(&self) -> Budget {
        self.account.budget()
    }

    /// In which mode the target is watched.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// The moves from mode to mode, the first [`MAX_MOVES`] of them, and how many more there were.
    pub fn moves(&self) -> (&[ModeMove], u64) {
        (&self.moves, self.moves_dropped)
    }

    /// Whether creations and exits were seen all the time.
    pub fn saw_births(&self) -> bool {
        self.was_always(Mode::sees_births)
    }

    /// Whether parks were seen all the time.
    pub fn saw_parks(&self) -> bool {
        self.was_always(Mode::sees_parks)
    }

    fn was_always(&self, so: fn(Mode) -> bool) -> bool {
        so(self.header.modes.first) && self.moves_dropped == 0 && self.moves.iter().all(|entered| so(entered.mode))
    }

    /// What was lost in userspace.
    pub fn losses(&self) -> Losses {
        self.losses
    }

    /// The last census.
    pub fn latest(&self) -> Option<&CensusTaken> {
        self.latest.as_deref()
    }

    /// How many goroutines waited in a group, over time.
    pub fn group_series(&self, key: &GroupKey) -> Option<&Series> {
        self.groups.get(key)
    }

    /// How many goroutines of a creation site lived, over time.
    pub fn live_series(&self, creation_pc: u64) -> Option<&Series> {
        self.live.get(&creation_pc)
    }

    /// How many goroutines of a creation site one census saw and a later one no more, in all, over time.
    pub fn gone_series(&self, creation_pc: u64) -> Option<&Series> {
        self.gone.get(&creation_pc)
    }

    /// What was found out and proven of goroutines.
    pub fn proofs(&self) -> &Proofs {
        &self.proofs
    }

    /// What looks at the running program found nothing to lead to.
    pub fn standing(&self) -> &Standing {
        &self.standing
    }

    /// Whether HTTP handlers make the goroutines of this creation site.
    pub fn handler_of(&self, creation_pc: u64) -> Option<Handler> {
        self.http_connections.handler_of(creation_pc)
    }

    /// When the censuses were taken.
    pub fn looks(&self) -> Looks {
        let (first_ns, last_ns) = self.looks.unwrap_or_default();
        // On a host that is short of CPU they come later than was meant, and windows without a look of their own would tell nothing.
        let mean = last_ns.saturating_sub(first_ns) / self.looks_taken.saturating_sub(1).max(1);
        Looks { first_ns, last_ns, interval_ns: self.header.interval_ns.max(mean) }
    }

    /// Groups not followed because there were more than [`MAX_GROUPS`].
    pub fn groups_dropped(&self) -> u64 {
        self.groups_dropped
    }

    /// The most bytes found in the ring buffer when it was drained.
    pub fn ring_fill_max(&self) -> u64 {
        self.ring_fill_max
    }

    /// The time of the last input, `CLOCK_MONOTONIC` nanoseconds.
    pub fn now_ns(&self) -> u64 {
        self.now_ns
    }

    /// How it ended, if it has.
    pub fn end(&self) -> Option<&End> {
        self.end.as_ref()
    }
}

/// Adds a point to every series; one that is not in `counts` any more gets a zero. Returns how many found no room.
fn note<K: std::hash::Hash + Eq + Copy>(
    series: &mut HashMap<K, Series>,
    counts: HashMap<K, u64>,
    earlier: &[u64],
    time_ns: u64,
) -> u64 {
    for (key, series) in series.iter_mut() {
        if !counts.contains_key(key) {
            series.push(time_ns, 0);
        }
    }
    // One that has been empty for a while makes room.
    if series.len() >= MAX_GROUPS {
        series.retain(|_, series| !series.has_ended());
    }
    let mut dropped = 0;
    for (key, count) in counts {
        if let Some(known) = series.get_mut(&key) {
            known.push(time_ns, count);
        } else if series.len() < MAX_GROUPS {
            series.insert(key, Series::begun_at(earlier, time_ns, count));
        } else {
            dropped += 1;
        }
    }
    dropped
}

/// A record of the event ring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// Something happened to a goroutine.
    Event(Event),
    /// Somebody ran a `go` statement. There are few of them, and each is large.
    Creator(Box<Creator>),
}

/// The first record of `bytes` and what follows it.
pub fn split_record(bytes: &[u8]) -> Option<(Record, &[u8])> {
    let kind = Kind::try_from(*bytes.get(std::mem::offset_of!(parkwarden_common::record::Header, kind))?).ok()?;
    let (record, rest) = bytes.split_at_checked(kind.record_size())?;
    let record = match kind {
        Kind::Creator => Record::Creator(Box::new(Creator::decode(record).ok()?)),
        _ => Record::Event(Event::decode(record).ok()?),
    };
    Some((record, rest))
}
