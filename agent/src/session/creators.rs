//! Who ran `go` statements: the calls that led there, of some of the times that each ran.

use std::sync::Arc;

use hashbrown::HashMap;
use parkwarden_common::record::Creator;

/// Ways to a `go` statement that are told apart.
const MAX_PATHS_OF_ONE: usize = 64;

/// And of all together.
const MAX_PATHS: usize = 16_384;

/// What is known of one `go` statement.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Creations {
    /// Stacks that were taken.
    pub sampled: u64,
    /// Creations that these stand for.
    pub all: u64,
    /// Of those, by the way they came: which of [`Creators::path`], and how many.
    pub paths: Vec<(usize, u64)>,
    /// And those of which the way is not known, or one too many.
    pub other: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Creators {
    paths: Vec<Arc<[u64]>>,
    sites: HashMap<u64, Creations>,
}

impl Creators {
    pub(super) fn take(&mut self, told: &Creator) {
        let full = self.paths.len() >= MAX_PATHS;
        if full && !self.sites.contains_key(&told.creation_pc) {
            return;
        }
        let site = self.sites.entry(told.creation_pc).or_default();
        site.sampled += 1;
        // What a capture says is not to be trusted.
        site.all = site.all.saturating_add(told.weight);
        let calls = told.calls();
        let known = site.paths.iter_mut().find(|(path, _)| *self.paths[*path] == *calls);
        if let Some((_, count)) = known {
            *count = count.saturating_add(told.weight);
        } else if calls.is_empty() || full || site.paths.len() >= MAX_PATHS_OF_ONE {
            site.other = site.other.saturating_add(told.weight);
        } else {
            site.paths.push((self.paths.len(), told.weight));
            self.paths.push(Arc::from(calls));
        }
    }

    /// What is known of the `go` statement with this return address.
    pub fn of(&self, creation_pc: u64) -> Option<&Creations> {
        self.sites.get(&creation_pc)
    }

    /// Return addresses of a way, innermost first: that of the `go` statement is the first.
    pub fn path(&self, index: usize) -> &[u64] {
        self.paths.get(index).map_or(&[], |path| path)
    }

    /// Return addresses of all ways from the one with this index on, and how many ways there are.
    pub fn since(&self, index: usize) -> (impl Iterator<Item = u64>, usize) {
        let news = self.paths.get(index..).unwrap_or_default();
        (news.iter().flat_map(|path| path.iter().copied()), self.paths.len())
    }
}

#[cfg(test)]
mod tests {
    use parkwarden_common::record::{Header, Kind, MAX_CREATOR_FRAMES};

    use super::*;

    fn creator(creation_pc: u64, weight: u64, calls: &[u64]) -> Creator {
        let header = Header { time_ns: 1, goid: 0, probe: 0, kind: Kind::Creator as u8, wait_reason: 0, reserved: 0 };
        let mut frames = [0; MAX_CREATOR_FRAMES];
        frames[..calls.len()].copy_from_slice(calls);
        Creator { header, creation_pc, weight, frames }
    }

    #[test]
    fn ways_are_counted_by_what_they_stand_for() {
        let mut creators = Creators::default();
        for (weight, calls) in [(1, &[10, 20][..]), (1, &[10, 30]), (8, &[10, 20]), (4, &[11, 20]), (2, &[])] {
            creators.take(&creator(10, weight, calls));
        }
        let known = creators.of(10).expect("it was told of");
        assert_eq!((known.sampled, known.all, known.other), (5, 16, 6), "what does not begin there is not known");
        let ways: Vec<(&[u64], u64)> = known.paths.iter().map(|(path, count)| (creators.path(*path), *count)).collect();
        assert_eq!(ways, [(&[10, 20][..], 9), (&[10, 30], 1)]);
        let (addresses, all) = creators.since(1);
        assert_eq!((addresses.collect::<Vec<_>>(), all), (vec![10, 30], 2));
        assert_eq!(creators.since(7).0.count(), 0);
    }

    #[test]
    fn a_hostile_program_gets_no_more_than_its_room() {
        let mut creators = Creators::default();
        for site in 1..2_000 {
            for way in 1..100 {
                creators.take(&creator(site, u64::MAX, &[site, way]));
            }
        }
        assert_eq!(creators.paths.len(), MAX_PATHS);
        assert!(creators.sites.len() <= MAX_PATHS);
        assert!(creators.sites.values().all(|site| site.paths.len() <= MAX_PATHS_OF_ONE));
    }
}
