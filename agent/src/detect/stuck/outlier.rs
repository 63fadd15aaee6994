//! Of their `go` statement's goroutines nearly all ended within a short time, and others that waited in the same place have gone on;
//! these have stood a hundred times as long.
//!
//! That a place is one which others pass is asked for, because a `go` statement may start many things: those that are to end, and
//! one that is to run as long as the program. And one long connection among short ones is normal.

use super::Standing;
use crate::cause::wait::Wait;

/// Goroutines of the `go` statement that have to have ended, while it was watched.
const ENDED: u64 = 50;

/// Goroutines that looks have to have seen here, and that have gone on.
const PASSED: u64 = 3;

/// Of those, one in so many may have stood here for a while.
const LINGERED: u64 = 5;

/// They have stood so many times as long as others live.
const TIMES: u64 = 100;

/// There have to be so many that ended for each that stands.
const EACH: u64 = 20;

/// Thresholds that they have to stand in any case.
const THRESHOLDS: u64 = 3;

/// Whether enough have ended and gone on for anybody to be told apart.
pub fn may_be(ended: u64, passed: Passed) -> bool {
    ended >= ENDED && passed.all >= PASSED && passed.slow.saturating_mul(LINGERED) <= passed.all
}

/// Goroutines that looks saw wait in a place and that have gone on.
#[derive(Clone, Copy, Debug, Default)]
pub struct Passed {
    /// How many.
    pub all: u64,
    /// Of those, the ones that stood there from one look to the next.
    pub slow: u64,
}

pub(super) fn sign(standing: &Standing<'_>) -> Option<String> {
    let wait = standing.wait.filter(|wait| !wait.is_forever() && *wait != Wait::Coroutine)?;
    if !may_be(standing.ended, standing.passed)
        || standing.beside_connection
        || (wait.is_channel() && standing.by_timer != Some(false))
    {
        return None;
    }
    let lived_ns = lived_ns(standing)?;
    let long = standing.long(THRESHOLDS).max(TIMES.saturating_mul(lived_ns));
    let stood = standing.parked_since.partition_point(|since| since.saturating_add(long) <= standing.now_ns);
    // The shortest of those times is true of all.
    let since = *standing.parked_since[..stood].last()?;
    if stood as u64 * EACH > standing.ended {
        return None;
    }
    let seconds = standing.now_ns.saturating_sub(since) / 1_000_000_000;
    let they = if stood == 1 { "this one has".to_owned() } else { format!("{stood} have") };
    Some(format!(
        "{} goroutines of this go statement have ended while it was watched, after {} ms on average, and {} were seen to wait here and \
         went on; {they} stood here for {seconds} s.",
        standing.ended,
        lived_ns.div_ceil(1_000_000),
        standing.passed.all
    ))
}

/// How long a goroutine of this `go` statement lives on average, those apart that stand here: as many live at a time as begin and
/// end within such a time (Little's law). At most; looks that see none of them do not tell zero.
fn lived_ns(standing: &Standing<'_>) -> Option<u64> {
    let points: Vec<(u64, u64)> = standing.live.points().collect();
    let mut all: u128 = 0;
    let mut longest = 0;
    for pair in points.windows(2) {
        let [(from, live), (to, _)] = pair else { continue };
        let standing = standing.parked_since.partition_point(|since| since <= from) as u64;
        let step = to.saturating_sub(*from);
        longest = longest.max(step);
        all += u128::from(live.saturating_sub(standing)) * u128::from(step);
    }
    u64::try_from((all + u128::from(longest)) / u128::from(standing.ended.max(1))).ok().filter(|_| points.len() > 1)
}

#[cfg(test)]
mod tests {
    use super::super::{Series, tests::SECOND, tests::standing};
    use super::*;

    /// One that has stood for so long; at each look others lived, and so many have ended.
    fn told(stood: u64, others: u64, ended: u64, change: impl FnOnce(&mut Standing<'_>)) -> Option<String> {
        let (mut live, mut waiting) = (Series::default(), Series::default());
        for look in 0..=24 {
            live.push(look * 5 * SECOND, others + 1);
            waiting.push(look * 5 * SECOND, 1);
        }
        let parked = [(120 - stood) * SECOND];
        let mut one = Standing {
            wait: Some(Wait::Receive),
            live: &live,
            waiting: &waiting,
            parked_since: &parked,
            now_ns: 120 * SECOND,
            ended,
            passed: Passed { all: 7, slow: 1 },
            by_timer: Some(false),
            ..standing()
        };
        change(&mut one);
        sign(&one)
    }

    #[test]
    fn who_stands_a_hundred_times_as_long_as_others_live_is_told() {
        assert_eq!(
            told(90, 1, 1200, |_| ()).as_deref(),
            Some(
                "1200 goroutines of this go statement have ended while it was watched, after 134 ms on average, and 7 were seen to \
                 wait here and went on; this one has stood here for 90 s."
            )
        );
        assert_eq!(told(90, 20, 1200, |_| ()), None, "others live for two seconds");
        assert_eq!(told(20, 1, 1200, |_| ()), None, "not for long");
        assert_eq!(told(90, 0, 10, |_| ()), None, "too few to compare with");
    }

    #[test]
    fn what_may_be_meant_to_stay_is_not() {
        assert_eq!(told(90, 1, 1200, |one| one.passed.all = 0), None, "nobody else was ever here");
        assert_eq!(told(90, 1, 1200, |one| one.passed.slow = 3), None, "others stand here as well");
        assert_eq!(told(90, 1, 1200, |one| one.beside_connection = true), None);
        assert_eq!(told(90, 1, 1200, |one| one.by_timer = Some(true)), None);
        assert_eq!(told(90, 1, 1200, |one| one.by_timer = None), None, "not known yet");
        assert_eq!(told(90, 1, 1200, |one| one.wait = None), None, "waits for the network, or sleeps");
    }
}
