//! Goroutines that wait for one another, as a look at the stacks has told.
//!
//! It is believed as long as none of those that the others wait for has run since.

use hashbrown::{HashMap, HashSet};

use super::Tied;
use super::standing::Stood;
use crate::memory::census::Census;

/// Incidents remembered.
const MAX_INCIDENTS: usize = 100;

/// See the module.
#[derive(Debug, Default)]
pub struct Incidents {
    known: Vec<(Tied, Vec<Stood>)>,
}

impl Incidents {
    /// Takes what a look has told, in place of what was known. `latest` is the census before it.
    pub(super) fn take(&mut self, incidents: &[Tied], latest: Option<&Census>) {
        let told = &incidents[..incidents.len().min(MAX_INCIDENTS)];
        let stood = stood(told.iter(), latest);
        let known = told.iter().filter_map(|tied| Some((tied.clone(), of_roots(tied, &stood)?)));
        self.known = known.collect();
    }

    /// Forgets those whose roots have moved by this census.
    pub(super) fn check(&mut self, census: &Census) {
        if self.known.is_empty() {
            return;
        }
        let now = stood(self.known.iter().map(|(tied, _)| tied), Some(census));
        self.known.retain(|(tied, then)| of_roots(tied, &now).as_ref() == Some(then));
    }

    /// The most goroutines first, as the look told them.
    pub fn iter(&self) -> impl Iterator<Item = &Tied> {
        self.known.iter().map(|(tied, _)| tied)
    }
}

/// How the roots of all of them stand; none if one is gone.
fn of_roots(tied: &Tied, stood: &HashMap<u64, Stood>) -> Option<Vec<Stood>> {
    tied.roots.iter().map(|goid| stood.get(goid).copied()).collect()
}

fn stood<'t>(of: impl Iterator<Item = &'t Tied>, census: Option<&Census>) -> HashMap<u64, Stood> {
    let roots: HashSet<u64> = of.flat_map(|tied| tied.roots.iter().copied()).collect();
    let all = census.into_iter().flat_map(|census| &census.goroutines);
    all.filter(|g| roots.contains(&g.goid)).map(|g| (g.goid, Stood::of(g))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::census::{Goroutine, Status};

    fn census(runs: &[(u64, u8)]) -> Census {
        let goroutine = |(goid, runs): &(u64, u8)| Goroutine {
            goid: *goid,
            status: Status::Waiting,
            tracking_seq: Some(*runs),
            ..Goroutine::default()
        };
        Census { goroutines: runs.iter().map(goroutine).collect(), ..Census::default() }
    }

    #[test]
    fn an_incident_whose_root_has_run_is_none_any_more() {
        let tied = |root| Tied {
            headline: "they wait".to_owned(),
            cycle: false,
            count: 3,
            roots: vec![root],
            members: vec![root, 7, 8],
        };
        let mut incidents = Incidents::default();
        incidents.take(&[tied(1), tied(2), tied(3)], Some(&census(&[(1, 5), (2, 5)])));
        assert_eq!(incidents.iter().map(|tied| tied.roots[0]).collect::<Vec<_>>(), [1, 2], "the third is not there");
        incidents.check(&census(&[(1, 5), (2, 6), (7, 9)]));
        assert_eq!(incidents.iter().map(|tied| tied.roots[0]).collect::<Vec<_>>(), [1]);
        incidents.check(&census(&[(7, 9)]));
        assert_eq!(incidents.iter().count(), 0);
    }
}
