//! Goroutines that looks at the running program found nothing to lead to, in a row and without having moved in between; and those that
//! only a timer wakes, with how often it was seen to.

use std::sync::Arc;

use hashbrown::{HashMap, HashSet};

use super::{Explained, UnreachedTaken};
use crate::memory::census::{Census, Goroutine};

/// Goroutines remembered at most.
const MAX_GOROUTINES: usize = 1 << 20;

/// See the module.
#[derive(Debug, Default)]
pub struct Standing {
    goroutines: HashMap<u64, One>,
    timed: HashMap<u64, TimerLoop>,
    tally: Looks,
}

/// One goroutine.
#[derive(Debug)]
struct One {
    /// Looks in a row.
    looks: u32,
    /// When the first of them was.
    first_ns: u64,
    /// What tells whether it has moved; not known before a census.
    stood: Option<Stood>,
    explained: Arc<Explained>,
}

/// One goroutine that a timer wakes, and to whose other cases nothing was found to lead.
#[derive(Debug)]
struct TimerLoop {
    woken: Woken,
    /// Where it waits; not known before a census.
    stood: Option<Stood>,
    explained: Arc<Explained>,
}

/// How often a goroutine was found to be woken by its timer alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Woken {
    /// Looks in a row that found nothing to lead to any other case.
    pub looks: u32,
    /// How often it was woken since the first of them, and waited again in the same place; at least.
    pub times: u64,
}

impl TimerLoop {
    /// Takes how it waits by a census; whether it does so where it did.
    fn waits(&mut self, now: Stood) -> bool {
        let before = self.stood.replace(now).unwrap_or(now);
        let runs = now.tracking_seq.unwrap_or(0).wrapping_sub(before.tracking_seq.unwrap_or(0));
        self.woken.times += u64::from(runs);
        (before.at, before.wait_reason) == (now.at, now.wait_reason)
    }
}

/// Where a goroutine stands, and how often it has stopped running.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stood {
    at: (u64, u64),
    tracking_seq: Option<u8>,
    wait_reason: u8,
}

impl Stood {
    pub(super) fn of(goroutine: &Goroutine) -> Self {
        Self { at: goroutine.resume(), tracking_seq: goroutine.tracking_seq, wait_reason: goroutine.wait_reason }
    }
}

/// How the looks went.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Looks {
    /// Looks that were taken.
    pub taken: u64,
    /// Looks that were given up.
    pub refused: u64,
    /// Why the last was given up, if it was.
    pub refusal: Option<String>,
    /// Processor time they took, in seconds.
    pub cpu_seconds: f64,
    /// When the last was, `CLOCK_MONOTONIC` nanoseconds.
    pub last_ns: Option<u64>,
}

impl Standing {
    /// Takes a look. `latest` is the census before it.
    pub(super) fn take(&mut self, taken: &UnreachedTaken, latest: Option<&Census>) {
        self.tally.cpu_seconds += taken.cpu_seconds;
        self.tally.last_ns = Some(taken.time_ns);
        let groups = match &taken.outcome {
            Ok(groups) => groups,
            Err(refusal) => {
                self.tally.refused += 1;
                self.tally.refusal = Some(refusal.clone());
                return;
            }
        };
        self.tally.taken += 1;
        self.tally.refusal = None;
        self.take_timed(&taken.timed);
        let wanted: HashSet<u64> = groups.iter().flat_map(|group| group.goids.iter().copied()).collect();
        let stood: HashMap<u64, Stood> = latest
            .into_iter()
            .flat_map(|census| &census.goroutines)
            .filter(|goroutine| wanted.contains(&goroutine.goid))
            .map(|goroutine| (goroutine.goid, Stood::of(goroutine)))
            .collect();
        let mut before = std::mem::take(&mut self.goroutines);
        for group in groups {
            let explained = Arc::new(Explained { goids: Vec::new(), ..group.clone() });
            for goid in group.goids.iter().take(MAX_GOROUTINES.saturating_sub(self.goroutines.len())) {
                let known = before.remove(goid);
                let one = One {
                    looks: known.as_ref().map_or(0, |known| known.looks).saturating_add(1),
                    first_ns: known.as_ref().map_or(taken.time_ns, |known| known.first_ns),
                    stood: stood.get(goid).copied(),
                    explained: Arc::clone(&explained),
                };
                self.goroutines.insert(*goid, one);
            }
        }
    }

    fn take_timed(&mut self, groups: &[Explained]) {
        let mut before = std::mem::take(&mut self.timed);
        for group in groups {
            let explained = Arc::new(Explained { goids: Vec::new(), ..group.clone() });
            for goid in group.goids.iter().take(MAX_GOROUTINES.saturating_sub(self.timed.len())) {
                let (woken, stood) = before.remove(goid).map_or((Woken::default(), None), |one| (one.woken, one.stood));
                let woken = Woken { looks: woken.looks.saturating_add(1), ..woken };
                self.timed.insert(*goid, TimerLoop { woken, stood, explained: Arc::clone(&explained) });
            }
        }
    }

    /// Forgets whoever has moved by this census, and counts the wake-ups of those that timers wake.
    pub(super) fn check(&mut self, census: &Census) {
        if self.goroutines.is_empty() && self.timed.is_empty() {
            return;
        }
        if !self.timed.is_empty() {
            let all: HashMap<u64, &Goroutine> = census.goroutines.iter().map(|g| (g.goid, g)).collect();
            self.timed.retain(|goid, one| match all.get(goid) {
                Some(now) if now.status.is_waiting() => one.waits(Stood::of(now)),
                // It runs just now.
                Some(_) => true,
                None => false,
            });
        }
        let waiting = census.goroutines.iter().filter(|goroutine| goroutine.status.is_waiting());
        let now: HashMap<u64, Stood> = waiting.map(|goroutine| (goroutine.goid, Stood::of(goroutine))).collect();
        self.goroutines.retain(|goid, one| {
            let Some(now) = now.get(goid) else { return false };
            let still = one.stood.is_none_or(|stood| stood == *now);
            one.stood = Some(*now);
            still
        });
    }

    /// In how many looks in a row nothing led to a goroutine, up to the last look.
    pub fn looks(&self, goid: u64) -> u32 {
        self.goroutines.get(&goid).map_or(0, |one| one.looks)
    }

    /// How often only its timer woke a goroutine.
    pub fn timed(&self, goid: u64) -> Woken {
        self.timed.get(&goid).map_or(Woken::default(), |one| one.woken)
    }

    /// What such a goroutine waits for.
    pub fn explained(&self, goid: u64) -> Option<&Explained> {
        let timed = || self.timed.get(&goid).map(|one| one.explained.as_ref());
        self.goroutines.get(&goid).map(|one| one.explained.as_ref()).or_else(timed)
    }

    /// Whether nothing led to any goroutine first after `time_ns`.
    pub fn is_news_since(&self, time_ns: u64) -> bool {
        self.goroutines.values().any(|one| one.first_ns > time_ns)
    }

    /// How the looks went.
    pub fn tally(&self) -> &Looks {
        &self.tally
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::census::Status;

    fn census(goids: &[u64], tracking_seq: u8) -> Census {
        let goroutine = |goid: &u64| Goroutine {
            goid: *goid,
            status: Status::Waiting,
            tracking_seq: Some(tracking_seq),
            ..Goroutine::default()
        };
        Census { goroutines: goids.iter().map(goroutine).collect(), ..Census::default() }
    }

    fn look(time_ns: u64, goids: &[u64]) -> UnreachedTaken {
        let group = Explained { goids: goids.to_vec(), evidence: vec!["a channel".to_owned()], ..Explained::default() };
        UnreachedTaken { time_ns, cpu_seconds: 0.5, outcome: Ok(vec![group]), timed: Vec::new() }
    }

    #[test]
    fn wake_ups_by_a_timer_are_counted_while_it_waits_in_the_same_place() {
        let mut standing = Standing::default();
        let timed = |time_ns| {
            let look = look(time_ns, &[]);
            let group = Explained { goids: vec![1, 2], ..Explained::default() };
            UnreachedTaken { timed: vec![group], ..look }
        };
        standing.take(&timed(10), None);
        standing.check(&census(&[1, 2], 250));
        standing.check(&census(&[1, 2], 3));
        standing.take(&timed(20), None);
        assert_eq!(standing.timed(1), Woken { looks: 2, times: 9 });
        let mut elsewhere = census(&[1, 2], 4);
        elsewhere.goroutines[0].wait_reason += 1;
        elsewhere.goroutines[1].status = Status::Running;
        standing.check(&elsewhere);
        assert_eq!([1, 2].map(|goid| standing.timed(goid).looks), [0, 2]);
        standing.take(&look(30, &[]), None);
        assert_eq!(standing.timed(2), Woken::default(), "something led to another case");
    }

    #[test]
    fn only_looks_in_a_row_count_and_only_of_who_has_not_moved() {
        let mut standing = Standing::default();
        let mut census_now = census(&[1, 2, 3], 7);
        standing.check(&census_now);
        standing.take(&look(10, &[1, 2, 3]), Some(&census_now));
        standing.check(&census_now);
        standing.take(&look(20, &[1, 2]), Some(&census_now));
        assert_eq!([1, 2, 3, 4].map(|goid| standing.looks(goid)), [2, 2, 0, 0], "something led to the third");
        census_now.goroutines[0].tracking_seq = Some(8);
        standing.check(&census_now);
        assert_eq!([1, 2].map(|goid| standing.looks(goid)), [0, 2], "the first has run");
        standing.check(&census(&[1], 8));
        assert_eq!(standing.looks(2), 0, "the second is gone");
        assert_eq!((standing.tally().taken, standing.tally().cpu_seconds), (2, 1.0));
    }

    #[test]
    fn a_look_that_was_given_up_leaves_what_is_known() {
        let mut standing = Standing::default();
        standing.take(&look(10, &[1]), None);
        let refused =
            UnreachedTaken { time_ns: 20, cpu_seconds: 0.1, outcome: Err("too large".to_owned()), timed: Vec::new() };
        standing.take(&refused, None);
        assert_eq!((standing.looks(1), standing.tally().refusal.as_deref()), (1, Some("too large")));
        assert!(standing.is_news_since(9) && !standing.is_news_since(10));
    }
}
