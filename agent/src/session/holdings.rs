//! Who holds the locks that goroutines stand before, as a look at the stacks has told.
//!
//! It is believed as long as neither has run since.

use hashbrown::HashMap;

use super::Holding;
use super::standing::Stood;
use crate::memory::census::Census;

/// Locks remembered.
const MAX_LOCKS: usize = 10_000;

/// See the module.
#[derive(Debug, Default)]
pub struct Holdings {
    known: Vec<Holding>,
    /// Of each goroutine that waits the lock that it wants, by its index.
    wanted: HashMap<u64, usize>,
    /// Of each holder its locks, and where it stood.
    held: HashMap<u64, (Stood, Vec<usize>)>,
}

impl Holdings {
    /// Takes what a look has told, in place of what was known. `latest` is the census before it.
    pub(super) fn take(&mut self, holdings: &[Holding], latest: Option<&Census>) {
        *self = Self::default();
        let all = latest.into_iter().flat_map(|census| &census.goroutines);
        let stood: HashMap<u64, Stood> = all.map(|g| (g.goid, Stood::of(g))).collect();
        for holding in holdings.iter().take(MAX_LOCKS) {
            let Some(stood) = stood.get(&holding.holder) else { continue };
            let index = self.known.len();
            self.held.entry(holding.holder).or_insert_with(|| (*stood, Vec::new())).1.push(index);
            self.wanted.extend(holding.waiting.iter().map(|goid| (*goid, index)));
            self.known.push(holding.clone());
        }
    }

    /// Forgets whoever has moved by this census.
    pub(super) fn check(&mut self, census: &Census) {
        if self.held.is_empty() {
            return;
        }
        let held = &self.held;
        let now = census.goroutines.iter().filter(|g| held.contains_key(&g.goid)).map(|g| (g.goid, Stood::of(g)));
        let now: HashMap<u64, Stood> = now.collect();
        self.held.retain(|holder, (stood, _)| now.get(holder) == Some(stood));
    }

    /// The lock before which a goroutine stands.
    pub fn before(&self, goid: u64) -> Option<&Holding> {
        let holding = self.known.get(*self.wanted.get(&goid)?)?;
        self.held.contains_key(&holding.holder).then_some(holding)
    }

    /// The locks that a goroutine holds, or may.
    pub fn of(&self, goid: u64) -> impl Iterator<Item = &Holding> {
        let held = self.held.get(&goid).into_iter().flat_map(|(_, indices)| indices);
        held.filter_map(|index| self.known.get(*index))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::census::{Goroutine, Status};

    fn census(holder_runs: u8) -> Census {
        let holder =
            Goroutine { goid: 9, status: Status::Waiting, tracking_seq: Some(holder_runs), ..Goroutine::default() };
        Census { goroutines: vec![holder], ..Census::default() }
    }

    #[test]
    fn a_holder_that_has_run_holds_no_more() {
        let mut holdings = Holdings::default();
        let held = Holding { holder: 9, shown: true, lock: 64, waiting: vec![3, 4], count: 2 };
        holdings.take(std::slice::from_ref(&held), Some(&census(1)));
        holdings.check(&census(1));
        assert_eq!(holdings.before(4), Some(&held));
        assert_eq!(holdings.of(9).count(), 1);
        assert_eq!(holdings.before(5), None);
        holdings.check(&census(2));
        assert_eq!(holdings.before(4), None);
    }
}
