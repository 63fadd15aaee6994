//! What the kernel keeps in mode `filter`: parks that have not ended, and counts of each `go` statement.

use serde::{Deserialize, Serialize};

use super::{Activity, Goroutine, Registry, UNKNOWN_SITE};

/// `go` statements counted at most: more than the kernel tells apart.
const MAX_COUNTED: usize = 65_536;

/// A park that has not ended, as the kernel holds it in mode `filter`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// The goroutine.
    pub goid: u64,
    /// Since when, `CLOCK_MONOTONIC` nanoseconds.
    pub since_ns: u64,
    /// The runtime's wait reason number.
    pub wait_reason: u8,
}

/// What goroutines of one `go` statement did since the last time, as counted in the kernel in mode `filter`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreationSiteCount {
    /// Return address of the call to `runtime.newproc`.
    pub creation_pc: u64,
    /// Goroutines made.
    pub created: u64,
    /// Goroutines that ended.
    pub exited: u64,
}

impl Registry {
    /// Tells whether goroutines come and go without events from now on, so that meeting one is no sign of a loss.
    pub fn expect_strangers(&mut self, expected: bool) {
        // Who came without an event is known only after the next census.
        self.everybody_known &= expected == self.strangers_expected;
        self.strangers_expected = expected;
    }

    /// Applies a park that has not ended. What happened to the goroutine since, by events, counts more.
    pub fn hold(&mut self, held: &Held) {
        let state = Activity::Parked(held.wait_reason);
        let park = Goroutine {
            updated_ns: held.since_ns,
            since_ns: held.since_ns,
            created_ns: None,
            site: UNKNOWN_SITE,
            state,
            exact: true,
            tracking_seq: 0,
        };
        match self.get(held.goid).copied() {
            None => {
                self.insert(held.goid, park);
            }
            Some(known) if known.updated_ns <= held.since_ns => {
                let since_ns = held.since_ns;
                self.insert(held.goid, Goroutine { state, since_ns, updated_ns: since_ns, exact: true, ..known });
            }
            // A census has seen it in this park: now it is known since when.
            Some(known) if !known.exact && known.state == state => {
                self.insert(held.goid, Goroutine { since_ns: held.since_ns, exact: true, ..known });
            }
            Some(_) => {}
        }
    }

    /// Adds what the kernel counted.
    pub fn count(&mut self, count: &CreationSiteCount) {
        self.events.created = self.events.created.saturating_add(count.created);
        self.events.exited = self.events.exited.saturating_add(count.exited);
        if self.counted.len() < MAX_COUNTED || self.counted.contains_key(&count.creation_pc) {
            let (created, exited) = self.counted.entry(count.creation_pc).or_default();
            *created = created.saturating_add(count.created);
            *exited = exited.saturating_add(count.exited);
        }
    }

    /// Created and exited by `go` statement, as far as the kernel counted them.
    pub fn counted(&self) -> impl Iterator<Item = (u64, u64, u64)> {
        self.counted.iter().map(|(creation_pc, (created, exited))| (*creation_pc, *created, *exited))
    }
}
