//! Reconciling the registry with a census.

use super::{Activity, Goroutine, Registry};
use crate::memory::census::{self, Census};

/// What a census changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reconciled {
    /// Goroutines the registry did not know.
    pub found: u64,
    /// Goroutines the registry knew that are gone.
    pub vanished: u64,
    /// Goroutines thought parked that run.
    pub silent_wakeups: u64,
}

impl Registry {
    /// To be called before the target's goroutines are read: from here on the registry remembers who exits, because
    /// the census may have read them just before.
    pub fn census_begins(&mut self) {
        self.exited_during_census = Some(hashbrown::HashSet::new());
    }

    /// Applies a census. Every event that happened before it ended must have been applied.
    ///
    /// `lost` tells that events were lost since the last census: then a goroutine found parked may have run in
    /// between, so that its age counts from what this census can vouch for alone.
    pub fn reconcile(&mut self, census: &Census, lost: bool) -> Reconciled {
        let exited = self.exited_during_census.take().unwrap_or_default();
        let mut change = Reconciled::default();
        let mut seen = hashbrown::HashSet::with_capacity(census.goroutines.len());
        for read in &census.goroutines {
            if exited.contains(&read.goid) {
                continue;
            }
            seen.insert(read.goid);
            match self.goroutines.get(&read.goid).copied() {
                None if self.has_exited(read.goid) => {}
                None => {
                    change.found += 1;
                    let site = self.intern_site(read.creation_pc, read.start_pc);
                    let found = Goroutine { site, ..as_read(read, census.started_ns) };
                    self.insert(read.goid, found);
                }
                Some(known) => {
                    let known = self.with_site(known, read);
                    let corrected = correct(known, read, census.started_ns, lost);
                    change.silent_wakeups +=
                        u64::from(matches!(known.state, Activity::Parked(_)) && corrected.state == Activity::Active);
                    self.goroutines.insert(read.goid, corrected);
                }
            }
        }
        self.everybody_known = true;
        if !census.truncated && census.unreadable == 0 {
            let before = self.goroutines.len();
            self.goroutines.retain(|goid, goroutine| goroutine.updated_ns >= census.started_ns || seen.contains(goid));
            change.vanished = (before - self.goroutines.len()) as u64;
        }
        if !self.strangers_expected {
            self.anomalies.vanished += change.vanished;
            self.anomalies.silent_wakeups += change.silent_wakeups;
        }
        change
    }

    /// A goroutine first met through an event other than its creation learns its creation site from the census.
    fn with_site(&mut self, known: Goroutine, read: &census::Goroutine) -> Goroutine {
        if known.site != super::UNKNOWN_SITE {
            return known;
        }
        Goroutine { site: self.intern_site(read.creation_pc, read.start_pc), ..known }
    }
}

/// State by the census alone.
fn as_read(read: &census::Goroutine, census_ns: u64) -> Goroutine {
    let parked = read.status.is_waiting();
    Goroutine {
        updated_ns: census_ns,
        since_ns: if parked { parked_since(read, census_ns) } else { census_ns },
        created_ns: None,
        site: super::UNKNOWN_SITE,
        state: if parked { Activity::Parked(read.wait_reason) } else { Activity::Active },
        exact: false,
        tracking_seq: read.tracking_seq.unwrap_or_default(),
    }
}

/// Since when a waiting goroutine certainly has been in this park: the garbage collector's note if it left one.
fn parked_since(read: &census::Goroutine, census_ns: u64) -> u64 {
    read.wait_since_ns.map_or(census_ns, |noted| noted.min(census_ns))
}

fn correct(known: Goroutine, read: &census::Goroutine, census_ns: u64, lost: bool) -> Goroutine {
    if known.updated_ns >= census_ns {
        return known;
    }
    let seen_before = known.tracking_seq;
    let known = Goroutine { tracking_seq: read.tracking_seq.unwrap_or_default(), ..known };
    let by_census = Goroutine { site: known.site, created_ns: known.created_ns, ..as_read(read, census_ns) };
    match (known.state, by_census.state) {
        (Activity::Active, Activity::Active) => known,
        (Activity::Parked(was), Activity::Parked(is)) if was == is => {
            if lost && read.tracking_seq.is_some_and(|seq| seq == seen_before) {
                // It has not run since the last census, which found it in the same park.
                Goroutine { since_ns: known.since_ns.min(by_census.since_ns), exact: false, ..known }
            } else if lost {
                // Still the same park for sure only if the collector noted it; then both bounds hold.
                let since_ns = if by_census.since_ns < known.since_ns { known.since_ns } else { by_census.since_ns };
                Goroutine { since_ns, exact: false, ..known }
            } else {
                // The collector's note may reach further back than our first sight of it.
                let since_ns = if known.exact { known.since_ns } else { known.since_ns.min(by_census.since_ns) };
                Goroutine { since_ns, ..known }
            }
        }
        _ => by_census,
    }
}
