//! Waiting: for what others do, by looking again until it is so, and for time to pass. Nothing else here or in the tests
//! sleeps.

use std::fmt::Display;
use std::time::{Duration, Instant};

/// Between two looks passes so many times what the look took: who waits takes a tenth of a core at most from what it waits
/// for, and a look that costs little misses a moment by little.
const REST: u32 = 9;
const SHORTEST: Duration = Duration::from_micros(100);
const LONGEST: Duration = Duration::from_millis(200);

/// Looks again and again until there is something.
///
/// # Panics
///
/// When there is nothing within that time, with what was waited for.
pub fn until<T>(what: impl Display, time: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    within(time, || look().ok_or(())).unwrap_or_else(|()| panic!("waited {time:?} in vain for {what}"))
}

/// As [`until`], for what may not come, or whose absence has reasons.
///
/// # Errors
///
/// What the last look failed with, when none succeeds within that time.
pub fn within<T, E>(time: Duration, mut look: impl FnMut() -> Result<T, E>) -> Result<T, E> {
    let begun = Instant::now();
    loop {
        let before = Instant::now();
        match look() {
            Err(_) if begun.elapsed() < time => nothing_for((before.elapsed() * REST).clamp(SHORTEST, LONGEST)),
            outcome => return outcome,
        }
    }
}

/// Lets time pass, where time itself is what matters: to measure over it, to do things at a pace or at different moments.
pub fn nothing_for(time: Duration) {
    std::thread::sleep(time);
}
