//! What is known of goroutines beyond their state: what they wait for, and of which of them it is proven that they can never
//! run again.

use std::sync::Arc;

use hashbrown::HashMap;

use super::{Explained, ProofTaken};
use crate::memory::census::Census;

/// Goroutines explained at most.
const MAX_EXPLAINED: usize = 1 << 20;

/// See the module.
#[derive(Debug, Default)]
pub struct Proofs {
    /// By goid; those of one group share an explanation, which goes when the last of them does.
    proven: HashMap<u64, Arc<Explained>>,
    waits: HashMap<u64, Arc<Explained>>,
    tally: Tally,
}

/// How the attempts to prove leaks went.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tally {
    /// Attempts that worked.
    pub taken: u64,
    /// Attempts that were given up.
    pub refused: u64,
    /// Why the last attempt was given up, if it was.
    pub refusal: Option<String>,
    /// How long the target stood still, in all.
    pub paused_seconds: f64,
    /// The longest time it stood still.
    pub longest_pause_seconds: f64,
    /// When the last attempt ended, `CLOCK_MONOTONIC` nanoseconds, and how long the target stood still for it.
    pub last: Option<(u64, f64)>,
    /// Goroutines proven to be leaked that ran or ended all the same: parkwarden was wrong about them.
    pub contradicted: u64,
}

impl Proofs {
    /// Takes an attempt to prove leaks.
    pub(super) fn take(&mut self, taken: &ProofTaken) {
        let pause = match &taken.outcome {
            Ok(proven) => {
                self.tally.taken += 1;
                self.tally.refusal = None;
                proven.leaks.iter().for_each(|leak| note(&mut self.proven, leak));
                proven.pause_seconds
            }
            Err(refusal) => {
                self.tally.refused += 1;
                self.tally.refusal = Some(refusal.clone());
                0.0
            }
        };
        self.tally.paused_seconds += pause;
        self.tally.longest_pause_seconds = self.tally.longest_pause_seconds.max(pause);
        self.tally.last = Some((taken.time_ns, pause));
    }

    /// Takes what some goroutines wait for.
    pub(super) fn take_waits(&mut self, explained: &[Explained]) {
        explained.iter().for_each(|one| note(&mut self.waits, one));
    }

    /// Checks against a census what was proven before it, and forgets whoever is gone.
    pub(super) fn check(&mut self, census: &Census) {
        if self.proven.is_empty() && self.waits.is_empty() {
            return;
        }
        let waiting = census.goroutines.iter().filter(|goroutine| goroutine.status.is_waiting());
        let waiting: hashbrown::HashSet<u64> = waiting.map(|goroutine| goroutine.goid).collect();
        // A goroutine that could not be read has not run for that.
        if census.unreadable == 0 && !census.truncated {
            let before = self.proven.len();
            self.proven.retain(|goid, _| waiting.contains(goid));
            self.tally.contradicted += (before - self.proven.len()) as u64;
        }
        self.waits.retain(|goid, _| waiting.contains(goid));
    }

    /// Why a goroutine can never run again, if that is proven.
    pub fn proven(&self, goid: u64) -> Option<&Explained> {
        self.proven.get(&goid).map(Arc::as_ref)
    }

    /// What a goroutine waits for, if that was read.
    pub fn waits(&self, goid: u64) -> Option<&Explained> {
        self.waits.get(&goid).map(Arc::as_ref)
    }

    /// How the attempts went.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }
}

/// Explains goroutines anew, as many as there is room for.
fn note(known: &mut HashMap<u64, Arc<Explained>>, explained: &Explained) {
    let bare = Arc::new(Explained { goids: Vec::new(), ..explained.clone() });
    for goid in &explained.goids {
        if known.len() < MAX_EXPLAINED || known.contains_key(goid) {
            known.insert(*goid, Arc::clone(&bare));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::census::{Goroutine, Status};
    use crate::session::Proven;

    fn proof(goids: &[u64]) -> ProofTaken {
        let leaks =
            vec![Explained { goids: goids.to_vec(), evidence: vec!["seen".to_owned()], ..Explained::default() }];
        ProofTaken { time_ns: 7, outcome: Ok(Proven { pause_seconds: 0.5, leaks }) }
    }

    fn census(goids: &[u64], status: Status) -> Census {
        let goroutines = goids.iter().map(|goid| Goroutine { goid: *goid, status, ..Goroutine::default() }).collect();
        Census { goroutines, ..Census::default() }
    }

    #[test]
    fn whoever_runs_after_the_proof_contradicts_it() {
        let mut proofs = Proofs::default();
        proofs.take(&proof(&[1, 2, 3]));
        proofs.check(&census(&[1, 2, 3], Status::Waiting));
        assert_eq!(proofs.tally().contradicted, 0);
        proofs.check(&census(&[1, 2], Status::Waiting));
        proofs.check(&census(&[1, 2], Status::Running));
        assert_eq!(proofs.tally().contradicted, 3);
        assert!(proofs.proven(1).is_none());
    }

    #[test]
    fn attempts_are_counted() {
        let mut proofs = Proofs::default();
        proofs.take(&proof(&[1]));
        proofs.take(&ProofTaken { time_ns: 9, outcome: Err("too large".to_owned()) });
        proofs.take(&proof(&[1, 2]));
        let tally = proofs.tally();
        assert_eq!((tally.taken, tally.refused, tally.last), (2, 1, Some((7, 0.5))));
        assert_eq!(tally.paused_seconds, 1.0);
        assert_eq!(proofs.proven(2).map(|explained| explained.evidence.len()), Some(1));
    }
}
