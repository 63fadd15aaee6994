//! The goroutines of one target: what each does, since when, and which `go` statement made it.
//!
//! Two sources feed it. Events are exact but can be lost, and do not tell of wake-ups by the network poller; a census
//! reads every goroutine's state but only at one moment. The registry reconciles them: events newer than a census win,
//! everything else the census decides.
//!
//! Pure: no clock, no I/O. Times are `CLOCK_MONOTONIC` nanoseconds of the target's host.

mod census;
pub mod durations;
mod filter;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use durations::Durations;
use hashbrown::HashMap;
use parkwarden_common::record::{Event, What};
use serde::{Deserialize, Serialize};

pub use census::Reconciled;
pub use filter::{CreationSiteCount, Held};

/// Index of a [`CreationSite`].
pub type CreationSiteId = u32;

/// A `go` statement together with the function it starts, and how many goroutines it made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CreationSite {
    /// Return address of the call to `runtime.newproc`; 0 when unknown.
    pub creation_pc: u64,
    /// Entry of the start function; 0 when unknown.
    pub start_pc: u64,
    /// Goroutines created since the watch began, by events.
    pub created: u64,
    /// Goroutines of this site that exited since the watch began, by events.
    pub exited: u64,
}

/// Whether a goroutine can run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activity {
    /// Running, runnable or in a system call.
    Active,
    /// In `gopark`, with the runtime's wait reason number.
    Parked(u8),
}

/// What is known of one goroutine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Goroutine {
    /// Its last event, or the census that corrected it.
    pub updated_ns: u64,
    /// When it entered its state; a lower bound for its age if `exact` is not set.
    pub since_ns: u64,
    /// When it was created, if that was seen.
    pub created_ns: Option<std::num::NonZeroU64>,
    /// Where it was created.
    pub site: CreationSiteId,
    /// What it does.
    pub state: Activity,
    /// Whether `since_ns` is the very moment, from an event; else the goroutine was there before.
    pub exact: bool,
    /// `g.trackingSeq` at the last census, where it was read: as long as it stays the same, it has not run.
    pub tracking_seq: u8,
}

/// Events seen, by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct EventCounts {
    /// `go` statements executed.
    pub created: u64,
    /// Calls to `gopark`.
    pub parked: u64,
    /// Calls to `ready`.
    pub readied: u64,
    /// Goroutines that ended.
    pub exited: u64,
    /// Long parks that ended, as `filter` mode tells of them.
    #[serde(default)]
    pub waited: u64,
}

/// Disagreements between events and what was known; each is a loss that reconciliation repaired.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Anomalies {
    /// Events of goroutines that neither an event nor the first census had shown before.
    pub unknown_goroutine: u64,
    /// A goid was created again without having exited.
    pub created_twice: u64,
    /// Goroutines gone without an exit event (coroutines end so, and so do lost events look).
    pub vanished: u64,
    /// Wake-ups no event told of, found by a census (the network poller wakes goroutines so).
    pub silent_wakeups: u64,
    /// Events dropped because the registry was full.
    pub registry_full: u64,
}

/// The state machine of all goroutines of one target.
#[derive(Debug)]
pub struct Registry {
    goroutines: HashMap<u64, Goroutine>,
    sites: Vec<CreationSite>,
    site_ids: HashMap<(u64, u64), CreationSiteId>,
    events: EventCounts,
    anomalies: Anomalies,
    /// Goids that exited since a census began: it may still show them.
    exited_during_census: Option<hashbrown::HashSet<u64>>,
    /// Goids that exited last, at most [`RECENT_EXITS`]: see [`Registry::has_exited`].
    recent_exits: VecDeque<u64>,
    /// Whether a census has shown everybody who was there before: until then strangers are no surprise.
    everybody_known: bool,
    /// Whether goroutines come and go without events.
    strangers_expected: bool,
    /// Created and exited by `go` statement, as far as the kernel counted them.
    counted: HashMap<u64, (u64, u64)>,
    /// Ended parks by wait reason number: a byte, so there are few.
    durations: HashMap<u8, Durations>,
    max_goroutines: usize,
}

/// Goroutines a registry holds at most; more are counted in [`Anomalies::registry_full`].
pub const DEFAULT_MAX_GOROUTINES: usize = 4_000_000;

/// Creation sites a registry tells apart at most; a program has as many as `go` statements, a hostile one more.
const MAX_SITES: usize = 65_536;

/// Exits remembered beyond the census they fell in.
const RECENT_EXITS: usize = 1 << 14;

/// The site of goroutines whose creation is not known.
const UNKNOWN_SITE: CreationSiteId = 0;

impl Default for Registry {
    fn default() -> Self {
        Self::new(DEFAULT_MAX_GOROUTINES)
    }
}

impl Registry {
    /// An empty registry that holds at most `max_goroutines`.
    pub fn new(max_goroutines: usize) -> Self {
        Self {
            goroutines: HashMap::new(),
            sites: vec![CreationSite::default()],
            site_ids: HashMap::new(),
            events: EventCounts::default(),
            anomalies: Anomalies::default(),
            exited_during_census: None,
            recent_exits: VecDeque::new(),
            everybody_known: false,
            strangers_expected: false,
            counted: HashMap::new(),
            durations: HashMap::new(),
            max_goroutines,
        }
    }

    /// Goroutines by goid.
    pub fn goroutines(&self) -> impl Iterator<Item = (u64, &Goroutine)> {
        self.goroutines.iter().map(|(goid, goroutine)| (*goid, goroutine))
    }

    /// One goroutine.
    pub fn get(&self, goid: u64) -> Option<&Goroutine> {
        self.goroutines.get(&goid)
    }

    /// How many goroutines are alive.
    pub fn len(&self) -> usize {
        self.goroutines.len()
    }

    /// Memory it holds, in bytes.
    pub fn memory(&self) -> usize {
        self.goroutines.allocation_size()
            + self.site_ids.allocation_size()
            + self.counted.allocation_size()
            + self.sites.capacity() * size_of::<CreationSite>()
            + self.recent_exits.capacity() * size_of::<u64>()
    }

    /// Whether none is known.
    pub fn is_empty(&self) -> bool {
        self.goroutines.is_empty()
    }

    /// A creation site.
    pub fn creation_site(&self, id: CreationSiteId) -> CreationSite {
        self.sites.get(id as usize).copied().unwrap_or_default()
    }

    /// All creation sites.
    pub fn sites(&self) -> &[CreationSite] {
        &self.sites
    }

    /// Events applied so far.
    pub fn events(&self) -> EventCounts {
        self.events
    }

    /// Disagreements repaired so far.
    pub fn anomalies(&self) -> Anomalies {
        self.anomalies
    }

    /// Applies one event. Events of one goroutine come in the order in which they happened.
    pub fn apply(&mut self, event: &Event) {
        match event.what {
            What::Created { creation_pc, start_pc, .. } => {
                self.events.created += 1;
                let site = self.intern_site(creation_pc, start_pc);
                self.sites[site as usize].created += 1;
                let fresh = Goroutine {
                    updated_ns: event.time_ns,
                    since_ns: event.time_ns,
                    created_ns: std::num::NonZeroU64::new(event.time_ns),
                    site,
                    state: Activity::Active,
                    exact: true,
                    tracking_seq: 0,
                };
                if self.insert(event.goid, fresh).is_some() {
                    self.anomalies.created_twice += 1;
                }
            }
            What::Parked { wait_reason } => {
                self.events.parked += 1;
                self.enter(event, Activity::Parked(wait_reason));
            }
            What::Readied { .. } => {
                self.events.readied += 1;
                if let Some(&Goroutine { state: Activity::Parked(wait_reason), since_ns, exact: true, .. }) =
                    self.get(event.goid)
                {
                    self.lasted(wait_reason, since_ns, event.time_ns);
                }
                self.enter(event, Activity::Active);
            }
            What::Waited { wait_reason, since_ns, .. } => {
                self.events.waited += 1;
                self.lasted(wait_reason, since_ns, event.time_ns);
                // It can arrive after the goroutine's next park has been read from where the kernel holds it.
                if self.get(event.goid).is_none_or(|known| known.updated_ns <= event.time_ns) {
                    self.enter(event, Activity::Active);
                }
            }
            What::Exited => {
                self.events.exited += 1;
                if let Some(exited) = &mut self.exited_during_census {
                    exited.insert(event.goid);
                }
                if self.recent_exits.len() == RECENT_EXITS {
                    self.recent_exits.pop_front();
                }
                self.recent_exits.push_back(event.goid);
                match self.goroutines.remove(&event.goid) {
                    Some(goroutine) => self.sites[goroutine.site as usize].exited += 1,
                    None => self.anomalies.unknown_goroutine += self.surprise(),
                }
            }
        }
    }

    /// Ended parks by wait reason number.
    pub fn durations(&self) -> &HashMap<u8, Durations> {
        &self.durations
    }

    fn lasted(&mut self, wait_reason: u8, since_ns: u64, until_ns: u64) {
        self.durations.entry(wait_reason).or_default().add(until_ns.saturating_sub(since_ns));
    }

    /// Whether a goroutine that a census shows has told of its exit not long ago. `runtime.goexit1` tells, and then its thread may
    /// be kept from the CPU for a while before the runtime calls the goroutine dead. Goids are not used again.
    fn has_exited(&self, goid: u64) -> bool {
        self.recent_exits.contains(&goid)
    }

    /// What an event of a goroutine that is not known counts as an anomaly.
    fn surprise(&self) -> u64 {
        u64::from(self.everybody_known && !self.strangers_expected)
    }

    /// Moves the event's goroutine into `state`.
    fn enter(&mut self, event: &Event, state: Activity) {
        if let Some(goroutine) = self.goroutines.get_mut(&event.goid) {
            *goroutine =
                Goroutine { updated_ns: event.time_ns, since_ns: event.time_ns, state, exact: true, ..*goroutine };
            return;
        }
        self.anomalies.unknown_goroutine += self.surprise();
        let stranger = Goroutine {
            updated_ns: event.time_ns,
            since_ns: event.time_ns,
            created_ns: None,
            site: UNKNOWN_SITE,
            state,
            exact: true,
            tracking_seq: 0,
        };
        self.insert(event.goid, stranger);
    }

    /// Inserts or replaces within the limit; returns what was there.
    fn insert(&mut self, goid: u64, goroutine: Goroutine) -> Option<Goroutine> {
        if self.goroutines.len() >= self.max_goroutines && !self.goroutines.contains_key(&goid) {
            self.anomalies.registry_full += 1;
            return None;
        }
        self.goroutines.insert(goid, goroutine)
    }

    fn intern_site(&mut self, creation_pc: u64, start_pc: u64) -> CreationSiteId {
        if let Some(id) = self.site_ids.get(&(creation_pc, start_pc)) {
            return *id;
        }
        if self.sites.len() >= MAX_SITES {
            return UNKNOWN_SITE;
        }
        let id = self.sites.len() as CreationSiteId;
        self.sites.push(CreationSite { creation_pc, start_pc, ..CreationSite::default() });
        self.site_ids.insert((creation_pc, start_pc), id);
        id
    }
}
