//! Readings of all targets whose probes cost next to nothing, one after the other on one thread: to wake a thread for each costs
//! more than what it does then.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;

use super::probes::Shared;

/// Time between two rounds: so much for each target, because what a reading takes is parkwarden's own time, within limits.
const EACH: Duration = Duration::from_millis(10);
const LEAST: Duration = Duration::from_millis(100);
const MOST: Duration = Duration::from_millis(900);

/// See the module. Its clones are the same; there is a thread while there are targets.
#[derive(Clone, Debug, Default)]
pub(super) struct Rounds(Arc<Mutex<RoundsState>>);

#[derive(Debug, Default)]
struct RoundsState {
    targets: Vec<Weak<Shared>>,
    running: bool,
}

impl Rounds {
    /// Has a target read in rounds, until one of them finds that it is not quiet. Returns whether it is.
    pub(super) fn join(&self, target: &Arc<Shared>) -> bool {
        let mut state = self.0.lock();
        if !state.running {
            let rounds = self.clone();
            state.running = std::thread::Builder::new().name("meters".to_owned()).spawn(move || rounds.run()).is_ok();
        }
        if state.running {
            state.targets.push(Arc::downgrade(target));
        }
        state.running
    }

    /// Goes round as long as there is a target.
    fn run(&self) {
        let mut pause = LEAST;
        loop {
            std::thread::sleep(pause);
            // Not locked meanwhile: a target that joins holds its own lock.
            let mut targets = std::mem::take(&mut self.0.lock().targets);
            targets.retain(|target| target.upgrade().is_some_and(|target| visit(&target)));
            let mut state = self.0.lock();
            state.targets.append(&mut targets);
            let count = u32::try_from(state.targets.len()).unwrap_or(u32::MAX);
            if count == 0 {
                state.running = false;
                return;
            }
            pause = EACH.saturating_mul(count).clamp(LEAST, MOST);
        }
    }
}

/// Reads one target. A panic is a bug, and not the others' affair: that target's own thread goes on.
fn visit(target: &Shared) -> bool {
    catch_unwind(AssertUnwindSafe(|| target.round())).unwrap_or_else(|_| {
        log::error!("parkwarden panicked while it read the counters of probes; please report this");
        target.leave_rounds();
        false
    })
}
