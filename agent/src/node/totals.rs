//! What the agent has seen in all, of processes that live and of those that are gone: counters that never fall. Pure.

use std::collections::BTreeMap;

use crate::registry::EventCounts;
use crate::report::Report;
use crate::words::serde_word;

/// Counts by one fixed set of words.
pub type Counts = BTreeMap<&'static str, u64>;

/// Upper bounds of the buckets of times, in seconds.
pub const SECONDS: [f64; 9] = [0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.5];

/// Times, by length.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Times {
    /// How many were at most each of [`SECONDS`] and longer than the one before; the last are all longer ones.
    pub counts: [u64; SECONDS.len() + 1],
    /// All together.
    pub sum: f64,
}

impl Times {
    fn add(&mut self, seconds: f64, times: u64) {
        self.counts[SECONDS.partition_point(|bound| *bound < seconds)] += times;
        self.sum += seconds * times as f64;
    }
}

/// How processes of one kind ended: the kind is namespace, pod, container and the executable's name; and how.
pub type EndKey = ([String; 4], &'static str);

/// Kinds of ended processes told apart; further ones are counted together.
const MAX_ENDS: usize = 1000;

/// See the module.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Totals {
    /// Events by kind.
    pub events: Counts,
    /// Losses by cause.
    pub losses: Counts,
    /// Hits of probes by runtime function and class of place.
    pub hits: BTreeMap<(String, String), u64>,
    /// Moves from one mode to another.
    pub moves: u64,
    /// How long censuses took.
    pub censuses: Times,
    /// How long processes stood still for proofs, on average for those between two looks.
    pub pauses: Times,
    /// Proofs that were given up.
    pub proofs_refused: u64,
    /// Goroutines proven to be leaked that ran all the same.
    pub contradicted: u64,
    /// How watched processes ended.
    pub ends: BTreeMap<EndKey, u64>,
}

/// What is more in `now` than it was in `before`; all of it, if there was less: then it began anew.
fn more(before: Option<u64>, now: u64) -> u64 {
    now.checked_sub(before.unwrap_or(0)).unwrap_or(now)
}

/// Adds to each of `totals` what is more in `now` than it was in `before`, which has the same words in the same order.
fn add_grown<const N: usize>(
    totals: &mut Counts,
    before: Option<[(&'static str, u64); N]>,
    now: [(&'static str, u64); N],
) {
    for (index, (word, count)) in now.into_iter().enumerate() {
        *totals.entry(word).or_default() += more(before.map(|before| before[index].1), count);
    }
}

impl Totals {
    /// Takes what a look at a process found, after an earlier one of the same process.
    pub fn looked(&mut self, before: Option<&Report>, now: &Report) {
        let grown = |of: &dyn Fn(&Report) -> u64| more(before.map(of), of(now));
        add_grown(&mut self.events, before.map(events), events(now));
        add_grown(&mut self.losses, before.map(losses), losses(now));
        for probe in &now.observed.probes {
            let same = |other: &&crate::report::Probe| {
                other.function == probe.function
                    && other.site_class == probe.site_class
                    && other.address == probe.address
            };
            let hits = before.and_then(|report| report.observed.probes.iter().find(same)).map(|probe| probe.hits);
            let key = (probe.function.clone(), serde_word(&probe.site_class));
            *self.hits.entry(key).or_default() += more(hits, probe.hits);
        }
        self.moves += grown(&|report| report.observed.modes.moves);
        self.censuses.add(now.observed.census.seconds, 1);
        let proofs = |report: &Report| report.observed.proofs.clone();
        let taken = grown(&|report| proofs(report).map_or(0, |proofs| proofs.taken));
        if taken > 0 {
            let paused = |report: &Report| proofs(report).map_or(0.0, |proofs| proofs.paused_seconds);
            let grown = (paused(now) - before.map_or(0.0, paused)).max(0.0);
            self.pauses.add(grown / taken as f64, taken);
        }
        self.proofs_refused += grown(&|report| proofs(report).map_or(0, |proofs| proofs.refused));
        self.contradicted += grown(&|report| proofs(report).map_or(0, |proofs| proofs.contradicted));
    }

    /// A watched process has ended.
    pub fn ended(&mut self, kind: [String; 4], how: &'static str) {
        let known = self.ends.len() < MAX_ENDS || self.ends.contains_key(&(kind.clone(), how));
        *self.ends.entry((if known { kind } else { Default::default() }, how)).or_default() += 1;
    }
}

/// Events by kind.
fn events(report: &Report) -> [(&'static str, u64); 5] {
    let EventCounts { created, parked, readied, exited, waited } = report.observed.events;
    [("created", created), ("parked", parked), ("readied", readied), ("exited", exited), ("waited", waited)]
}

/// Losses by cause. Those that a census has of itself stand for its moment alone, and are no counters.
fn losses(report: &Report) -> [(&'static str, u64); 8] {
    let lost = &report.observed.lost;
    [
        ("ring_full", lost.ring_full),
        ("read_fault", lost.read_fault),
        ("map_full", lost.map_full),
        ("decode_error", lost.decode_error),
        ("unknown_goroutine", lost.unknown_goroutine),
        ("registry_full", lost.registry_full),
        ("census_read_fault", lost.census_read_fault),
        ("groups_dropped", lost.groups_dropped),
    ]
}
