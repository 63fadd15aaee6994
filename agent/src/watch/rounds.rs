//! Readings of all targets whose probes cost next to nothing, one after the other on one thread: to wake a thread for each costs
//! more than what it does then.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};

use super::probes::Shared;

/// Time between two rounds: so much for each target, because what a reading takes is parkwarden's own time, within limits.
const EACH: Duration = Duration::from_millis(10);
const LEAST: Duration = Duration::from_millis(100);
const MOST: Duration = Duration::from_millis(900);

static ROUNDS: Mutex<Rounds> = Mutex::new(Rounds { targets: Vec::new(), running: false });

struct Rounds {
    targets: Vec<Weak<Shared>>,
    running: bool,
}

fn rounds() -> MutexGuard<'static, Rounds> {
    // A list of targets is whole after any statement.
    ROUNDS.lock()
}

/// Has a target read in rounds, until one of them finds that it is not quiet. Returns whether it is.
pub(super) fn join(target: &Arc<Shared>) -> bool {
    let mut rounds = rounds();
    if !rounds.running {
        rounds.running = std::thread::Builder::new().name("meters".to_owned()).spawn(run).is_ok();
    }
    if rounds.running {
        rounds.targets.push(Arc::downgrade(target));
    }
    rounds.running
}

/// Reads one target. A panic is a bug, and not the others' affair: that target's own thread goes on.
fn visit(target: &Shared) -> bool {
    catch_unwind(AssertUnwindSafe(|| target.round())).unwrap_or_else(|_| {
        log::error!("parkwarden panicked while it read the counters of probes; please report this");
        target.leave_rounds();
        false
    })
}

/// Goes round as long as there is a target.
fn run() {
    let mut pause = LEAST;
    loop {
        std::thread::sleep(pause);
        // Not locked meanwhile: a target that joins holds its own lock.
        let mut targets = std::mem::take(&mut rounds().targets);
        targets.retain(|target| target.upgrade().is_some_and(|target| visit(&target)));
        let mut rounds = rounds();
        rounds.targets.append(&mut targets);
        let count = u32::try_from(rounds.targets.len()).unwrap_or(u32::MAX);
        if count == 0 {
            rounds.running = false;
            return;
        }
        pause = EACH.saturating_mul(count).clamp(LEAST, MOST);
    }
}
