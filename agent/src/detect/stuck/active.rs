//! They are in a system call that takes no time as a rule, in C while others of their `go` statement come back, or run all the
//! time.
//!
//! What may last is no sign: accepting connections, waiting for events, children or input, and the loops that C libraries run.

use super::Standing;
use crate::cause::wait::Doing;

/// Thresholds that a call has to last.
const CALL_THRESHOLDS: u64 = 3;

/// Thresholds that one has to run without a break: what computes does so for seconds, and has to come to an end.
const RUN_THRESHOLDS: u64 = 6;

/// Goroutines of the same `go` statement that have to have ended meanwhile, for C to be no place to stay.
const ENDED: u64 = 5;

pub(super) fn in_a_call(standing: &Standing<'_>) -> Option<String> {
    if standing.doing != Doing::Syscall {
        return None;
    }
    let unmoved = standing.unmoved(CALL_THRESHOLDS)?;
    let they = match unmoved.count {
        1 => "the goroutine has".to_owned(),
        count => format!("all {count} goroutines have"),
    };
    let stands_by = unmoved.count == 1 && standing.known.is_some_and(|known| known.standby);
    if let Some(what) = standing.resource().filter(|_| !stands_by) {
        return Some(format!("For {} s {they} been in one system call, which waits for {what}.", unmoved.seconds));
    }
    (standing.passes("runtime.cgocall") && standing.ended >= ENDED).then(|| {
        format!(
            "For {} s {they} been in one call into C; {} others of this go statement have ended while it was watched.",
            unmoved.seconds, standing.ended
        )
    })
}

pub(super) fn running(standing: &Standing<'_>) -> Option<String> {
    if standing.doing != Doing::Runs {
        return None;
    }
    let unmoved = standing.unmoved(RUN_THRESHOLDS)?;
    Some(match unmoved.count {
        1 => format!("For {} s the goroutine has run all the time: no look found it waiting.", unmoved.seconds),
        count => {
            format!("For {} s {count} goroutines have run all the time: no look found one waiting.", unmoved.seconds)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::{SECOND, frame, standing};
    use super::super::{Series, signs};
    use super::*;
    use crate::cause::library::Known;
    use crate::cause::wait::SYSCALL;
    use crate::golang::Frame;

    /// One that has stood in these functions since the beginning, for 70 s; so many others have ended.
    fn told(doing: Doing, functions: &[&str], ended: u64) -> Vec<String> {
        let mut series = Series::default();
        (0..=14).for_each(|look| series.push(look * 5 * SECOND, 1));
        let stack: Vec<Frame> = functions.iter().map(|function| frame(function)).collect();
        signs(&Standing {
            doing,
            ended,
            known: Known::of(SYSCALL, &stack),
            stack: &stack,
            waiting: &series,
            parked_since: &[0],
            now_ns: 70 * SECOND,
            ..standing()
        })
    }

    #[test]
    fn calls_that_may_last_are_no_sign() {
        let stuck = told(Doing::Syscall, &["syscall.Syscall", "syscall.Fsync", "main.save"], 0);
        assert_eq!(
            stuck,
            ["For 30 s the goroutine has been in one system call, which waits for data to reach the disk (fsync)."]
        );
        let standby = told(Doing::Syscall, &["syscall.Syscall", "syscall.Flock", "main.lead"], 0);
        assert!(standby.is_empty(), "the second of a pair: {standby:?}");
        for normal in ["syscall.accept4", "golang.org/x/sys/unix.EpollWait", "syscall.wait4", "syscall.read"] {
            assert!(told(Doing::Syscall, &["syscall.Syscall6", normal, "main.main"], 0).is_empty(), "{normal}");
        }
    }

    #[test]
    fn c_is_no_place_to_stay_where_others_come_back() {
        let c = ["runtime.cgocall", "main._Cfunc_resolve", "main.lookup"];
        assert!(told(Doing::Syscall, &c, 0).is_empty(), "a library's loop");
        assert_eq!(told(Doing::Syscall, &c, 140).len(), 1);
    }

    #[test]
    fn who_runs_without_end_is_told() {
        assert_eq!(
            told(Doing::Runs, &[], 0),
            ["For 60 s the goroutine has run all the time: no look found it waiting."]
        );
        assert!(told(Doing::Waits(3), &[], 0).is_empty());
    }
}
