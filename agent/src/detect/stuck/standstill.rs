//! All goroutines of a `go` statement stand within something that they began. They used to come back, again and again, to a place
//! where they rest between two pieces of work, and nobody is there any more.
//!
//! Those that rest wait where their loop does; what stands further in was called from there, and has not returned. So workers
//! without work are told from workers whose work does not end.

use super::Standing;
use crate::cause::wait::Wait;
use crate::golang::Frame;

/// Thresholds that have to pass without anybody moving.
const THRESHOLDS: u64 = 3;

/// Where the goroutines of a `go` statement rest between two pieces of work.
#[derive(Clone, Debug, Default)]
pub struct Rest {
    /// The stack that they waited in.
    pub stack: Vec<Frame>,
    /// Its place in words.
    pub place: String,
    /// Looks that saw one of them come back.
    pub returns: u32,
}

pub(super) fn sign(standing: &Standing<'_>) -> Option<String> {
    let rest = standing.rest?;
    let wait = standing.wait.filter(|wait| matches!(wait, Wait::Send | Wait::Receive | Wait::Select | Wait::Cond))?;
    if !within(standing.stack, &rest.stack, wait) || (wait.is_channel() && standing.by_timer != Some(false)) {
        return None;
    }
    let unmoved = standing.unmoved(THRESHOLDS)?;
    // Who is elsewhere may be about to do what they wait for.
    if standing.live.last().1 > unmoved.count {
        return None;
    }
    let they = match unmoved.count {
        1 => "The only goroutine of this go statement has".to_owned(),
        count => format!("All {count} goroutines of this go statement have"),
    };
    Some(format!(
        "{they} stood here for {} s, and used to come back to {}: {} looks saw that.",
        unmoved.seconds, rest.place, rest.returns
    ))
}

/// Whether who waits in `stack` does so in something that was called by the function that waits in `rest`, or sends in that
/// function itself: a loop rests where it takes, not where it gives.
fn within(stack: &[Frame], rest: &[Frame], wait: Wait) -> bool {
    let (stack, rest) = (outermost_first(stack), outermost_first(rest));
    let function = |frame: &&Frame| frame.function.clone();
    !rest.is_empty()
        && stack.iter().map(function).take(rest.len()).eq(rest.iter().map(function))
        && (stack.len() > rest.len() || wait == Wait::Send)
}

/// The frames of a stack outside the runtime, outermost first.
fn outermost_first(stack: &[Frame]) -> Vec<&Frame> {
    stack.iter().rev().filter(|frame| !frame.is_plumbing()).collect()
}

#[cfg(test)]
mod tests {
    use super::super::Series;
    use super::super::tests::{SECOND, frame, standing};
    use super::*;

    const LOOP: [&str; 4] = ["runtime.gopark", "runtime.chanrecv", "main.worker", "main.main.gowrap1"];
    const CALL: [&str; 5] = ["runtime.gopark", "runtime.chanrecv", "main.ask", "main.worker", "main.main.gowrap1"];

    fn told(live: u64, stands_in: &[&str], rests_in: &[&str], wait: Wait) -> Option<String> {
        let stack: Vec<Frame> = stands_in.iter().map(|function| frame(function)).collect();
        let stack_of_rest = rests_in.iter().map(|function| frame(function)).collect();
        let rest = Rest { stack: stack_of_rest, place: "main.worker main.go:7".to_owned(), returns: 4 };
        let (mut alive, mut waiting) = (Series::default(), Series::default());
        for look in 0..=13 {
            alive.push(look * 5 * SECOND, live);
            waiting.push(look * 5 * SECOND, if look < 4 { 0 } else { 2 });
        }
        sign(&Standing {
            wait: Some(wait),
            stack: &stack,
            rest: Some(&rest),
            live: &alive,
            waiting: &waiting,
            parked_since: &[16 * SECOND, 19 * SECOND],
            by_timer: Some(false),
            ..standing()
        })
    }

    #[test]
    fn who_stands_within_what_the_loop_called_is_told() {
        assert_eq!(
            told(2, &CALL, &LOOP, Wait::Receive).as_deref(),
            Some(
                "All 2 goroutines of this go statement have stood here for 30 s, and used to come back to main.worker main.go:7: 4 looks \
                 saw that."
            )
        );
        assert_eq!(told(3, &CALL, &LOOP, Wait::Receive), None, "one is elsewhere");
    }

    #[test]
    fn who_rests_further_out_is_not() {
        assert_eq!(told(2, &LOOP, &CALL, Wait::Receive), None, "from within a piece of work to the loop");
        assert_eq!(told(2, &LOOP, &LOOP, Wait::Receive), None, "a loop within a loop, in one function");
        assert!(told(2, &LOOP, &LOOP, Wait::Send).is_some(), "what it has done, nobody takes");
        assert_eq!(told(2, &CALL, &["runtime.gopark", "main.other"], Wait::Receive), None, "another function");
    }
}
