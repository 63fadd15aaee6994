//! What the watches of one parkwarden share, so that many cost little and none is in the others' way.

use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};

use super::rounds::Rounds;
use crate::probe::Prober;

/// See the module. Its clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Commons {
    /// The programs; without, each watch loads its own.
    pub(super) prober: Option<Prober>,
    /// Where the counters of quiet targets are read.
    pub(super) rounds: Rounds,
    turn: Arc<Mutex<()>>,
}

impl Commons {
    /// For any number of watches.
    pub fn new(prober: Option<Prober>) -> Self {
        Self { prober, ..Self::default() }
    }

    /// The turn to prove something, unless another watch has it: a proof holds a copy of what can be read within its pause,
    /// hundreds of MiB, so that only one may be under way. Who has no turn tries again after the next look.
    pub(super) fn turn_to_prove(&self) -> Option<MutexGuard<'_, ()>> {
        self.turn.try_lock()
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
