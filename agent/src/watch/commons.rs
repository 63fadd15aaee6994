//! What the watches of one parkwarden share, so that many cost little and none is in the others' way.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::rounds::Rounds;
use crate::probe::Prober;

/// See the module. Its clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Commons {
    /// The programs; without, each watch loads its own.
    pub(super) prober: Option<Prober>,
    /// Where the counters of quiet targets are read.
    pub(super) rounds: Rounds,
    /// Whether somebody has the turn.
    taken: Arc<AtomicBool>,
}

impl Commons {
    /// For any number of watches.
    pub fn new(prober: Option<Prober>) -> Self {
        Self { prober, ..Self::default() }
    }

    /// The turn to prove something or to look at what can be reached, unless somebody has it: a proof holds a copy of what can be
    /// read within its pause, hundreds of MiB, so that only one may be under way. Who has no turn tries again after the next look.
    pub(super) fn turn_to_prove(&self) -> Option<Turn> {
        (!self.taken.swap(true, Ordering::Acquire)).then(|| Turn(Arc::clone(&self.taken)))
    }
}

/// The turn; whoever drops it gives it back.
#[derive(Debug)]
pub(super) struct Turn(Arc<AtomicBool>);

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_proof_is_under_way_at_a_time() {
        let commons = Commons::default();
        let other = commons.clone();
        let turn = commons.turn_to_prove();
        assert!(turn.is_some() && other.turn_to_prove().is_none());
        drop(turn);
        assert!(other.turn_to_prove().is_some());
    }
}
