//! What the watches of one parkwarden share, so that many cost little and none is in the others' way.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::rounds::Rounds;
use crate::discover::usage::Usage;
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
    /// Bytes of resident memory above which nothing is begun that takes more; 0 for no limit.
    memory_limit: Arc<AtomicU64>,
}

impl Commons {
    /// For any number of watches.
    pub fn new(prober: Option<Prober>) -> Self {
        Self { prober, ..Self::default() }
    }

    /// Sets how many bytes of resident memory parkwarden may have while it begins anything that takes more; 0 for no limit.
    pub fn limit_memory(&self, bytes: u64) {
        self.memory_limit.store(bytes, Ordering::Relaxed);
    }

    /// Its resident memory and the limit, in bytes, if it has more.
    pub fn over_memory(&self) -> Option<(u64, u64)> {
        let limit = self.memory_limit.load(Ordering::Relaxed);
        if limit == 0 {
            return None;
        }
        let resident = Usage::of(std::process::id())?.rss_bytes;
        (resident > limit).then_some((resident, limit))
    }

    /// The turn to prove something or to look at what can be reached, unless somebody has it: a proof holds a copy of what can be
    /// read within its pause, hundreds of MiB, so that only one may be under way. Who has no turn tries again after the next look.
    pub(super) fn turn_to_prove(&self) -> Option<Turn> {
        if self.over_memory().is_some() {
            return None;
        }
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
        commons.limit_memory(1);
        assert!(other.turn_to_prove().is_none() && other.over_memory().is_some_and(|(has, may)| has > may));
        commons.limit_memory(u64::MAX);
        assert!(other.turn_to_prove().is_some());
    }
}
