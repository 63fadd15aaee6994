//! Tests that take the whole machine for a while, and tests whose program has to get on meanwhile, run one after the other.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Waits until no other such test runs; the next may when this is dropped.
pub fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    // A test that failed leaves nothing behind that another could mind.
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}
