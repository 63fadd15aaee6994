//! What does not grow, and yet something is wrong with it: goroutines that stand, and the signs that theirs is no normal rest.
//!
//! Each sign is a file and looks at one [`Standing`] group. All of them ask whether anybody has left: where now and then somebody
//! is served, what stands is a queue, and that is contention or load, not a hang. A group for which any sign is there is
//! [`super::Verdict::Stuck`]. Pure, as the rules are.

mod active;
pub mod finalizer;
mod lock;
pub mod outlier;
mod resource;
mod senders;
pub mod standstill;

use super::Series;
use crate::cause::library::Known;
use crate::cause::wait::{Doing, Wait};
use crate::golang::Frame;

/// However low the threshold is, what lasts no longer than this is no standstill.
const SHORTEST_NS: u64 = 3_000_000_000;

/// A group of goroutines that stand at the same place, as long as they do.
#[derive(Clone, Copy, Debug)]
pub struct Standing<'a> {
    /// Why they do not get on.
    pub doing: Doing,
    /// Goroutines of the same `go` statement that ended while it was watched.
    pub ended: u64,
    /// What they wait for, if that is something others have to bring about.
    pub wait: Option<Wait>,
    /// What is known of the place where they wait.
    pub known: Option<&'a Known>,
    /// Their stack, innermost first.
    pub stack: &'a [Frame],
    /// Members that wait, since when ever: history.
    pub waiting: &'a Series,
    /// Goroutines of the same `go` statement, wherever they are: history.
    pub live: &'a Series,
    /// Goroutines that looks saw wait here and that have gone on.
    pub passed: outlier::Passed,
    /// Whether one of them was made by a goroutine that reads from a connection, or beside such a one, or has made one.
    pub beside_connection: bool,
    /// Whether a timer is among what they wait for; none where that was not read yet.
    pub by_timer: Option<bool>,
    /// Where those of the `go` statement rest between two pieces of work, if they have such a place and none of them is there.
    pub rest: Option<&'a standstill::Rest>,
    /// Since when each member has been parked, ascending.
    pub parked_since: &'a [u64],
    /// When the first look was.
    pub first_look_ns: u64,
    /// The time of the last.
    pub now_ns: u64,
    /// Parked longer than this counts as long.
    pub threshold_ns: u64,
}

/// Members that stand, and for how long none has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Unmoved {
    count: u64,
    seconds: u64,
}

impl Standing<'_> {
    /// So many thresholds.
    fn long(&self, times: u64) -> u64 {
        self.threshold_ns.max(SHORTEST_NS).saturating_mul(times)
    }

    /// What they wait to get, if nobody waits there for long as a rule.
    fn resource(&self) -> Option<&str> {
        self.known.and_then(|known| known.resource.as_deref())
    }

    /// Those that waited `times` thresholds ago, if every one of them still does.
    fn unmoved(&self, times: u64) -> Option<Unmoved> {
        let wanted = self.now_ns.checked_sub(self.long(times))?;
        if wanted < self.first_look_ns {
            return None;
        }
        let (time_ns, waited) = self.waiting.nearest(wanted);
        let still = self.parked_since.partition_point(|since| *since <= time_ns) as u64;
        let seconds = self.now_ns.saturating_sub(time_ns) / 1_000_000_000;
        (waited > 0 && still >= waited).then_some(Unmoved { count: waited, seconds })
    }

    /// Whether their stack passes through `function`.
    fn passes(&self, function: &str) -> bool {
        self.stack.iter().any(|frame| frame.function == function)
    }
}

/// One sign: a sentence with its numbers, if it is there.
type Sign = fn(&Standing<'_>) -> Option<String>;

const SIGNS: [Sign; 8] = [
    finalizer::sign,
    active::in_a_call,
    active::running,
    lock::sign,
    resource::sign,
    senders::sign,
    standstill::sign,
    outlier::sign,
];

/// The signs that a group is stuck.
pub fn signs(standing: &Standing<'_>) -> Vec<String> {
    SIGNS.iter().filter_map(|sign| sign(standing)).collect()
}

/// Whether there would be another sign if it were known that no timer is among what they wait for.
pub fn asks(standing: &Standing<'_>) -> bool {
    standing.by_timer.is_none() && signs(&Standing { by_timer: Some(false), ..*standing }).len() > signs(standing).len()
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use super::*;

    pub(super) const SECOND: u64 = 1_000_000_000;

    static NONE: LazyLock<Series> = LazyLock::new(Series::default);

    /// A group of which nothing is known, at 65 s of a watch that looks every 5 s.
    pub(super) fn standing() -> Standing<'static> {
        Standing {
            doing: Doing::Waits(0),
            ended: 0,
            wait: None,
            known: None,
            stack: &[],
            waiting: &NONE,
            live: &NONE,
            passed: outlier::Passed::default(),
            beside_connection: false,
            by_timer: None,
            rest: None,
            parked_since: &[],
            first_look_ns: 0,
            now_ns: 65 * SECOND,
            threshold_ns: 10 * SECOND,
        }
    }

    pub(super) fn frame(function: &str) -> Frame {
        Frame { function: function.to_owned(), file: String::new(), line: 1, inlined: false }
    }

    /// A group of which `waited` were there at each of 14 looks, 5 s apart, and `since` tells of those that are now.
    fn told(wait: Wait, functions: &[&str], waited: u64, since: &[u64], first_look: u64) -> Vec<String> {
        let mut series = Series::default();
        (0..=13).for_each(|look| series.push(look * 5 * SECOND, waited));
        let stack: Vec<Frame> = functions.iter().map(|function| frame(function)).collect();
        let since: Vec<u64> = since.iter().map(|second| second * SECOND).collect();
        signs(&Standing {
            wait: Some(wait),
            known: Known::of("select", &stack),
            stack: &stack,
            waiting: &series,
            parked_since: &since,
            first_look_ns: first_look * SECOND,
            ..standing()
        })
    }

    #[test]
    fn a_lock_that_nobody_gets_is_stuck_and_one_that_changes_hands_is_not() {
        let stuck = told(Wait::Mutex, &[], 2, &[0, 3], 0);
        assert_eq!(stuck, ["For 10 s none of the 2 goroutines that wait for a lock here has got it."]);
        assert!(told(Wait::Mutex, &[], 2, &[0, 58], 0).is_empty(), "one was served and another came");
        assert!(told(Wait::Mutex, &[], 2, &[0, 3], 60).is_empty(), "not watched long enough");
        assert!(told(Wait::Receive, &[], 2, &[0, 3], 0).is_empty(), "workers without work");
    }

    #[test]
    fn a_pool_that_gives_nothing_is_stuck() {
        let conn = ["runtime.gopark", "database/sql.(*DB).conn", "main.query"];
        let said = told(Wait::Select, &conn, 3, &[0, 0, 1], 0);
        assert_eq!(
            said,
            [
                "For 30 s none of the 3 goroutines that wait for a connection of the database pool (SetMaxOpenConns) has got it."
            ]
        );
        assert!(told(Wait::Select, &conn, 3, &[0, 0, 50], 0).is_empty());
        assert!(told(Wait::Select, &["main.loop"], 3, &[0, 0, 1], 0).is_empty());
    }

    #[test]
    fn many_senders_that_nobody_hears_are_stuck_and_a_generator_is_not() {
        assert_eq!(told(Wait::Send, &[], 4, &[0, 0, 0, 1], 0).len(), 1);
        assert!(told(Wait::Send, &[], 1, &[0], 0).is_empty());
        assert!(told(Wait::Send, &[], 4, &[0, 0, 0, 40], 0).is_empty(), "one was heard");
    }
}
