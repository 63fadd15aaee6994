//! A group that grew while it was watched, although nothing but its own goroutines explains it.
//!
//! The group alone is not enough: a pool whose workers fall idle grows as a parked group while nobody is created. So
//! the live goroutines of the creation site must have grown too.

use super::{Outcome, Rule, Suspect, Verdict};

/// See the module.
pub(super) struct Growth;

impl Rule for Growth {
    fn check(&self, suspect: &Suspect<'_>) -> Outcome {
        let (first_ns, first) = suspect.waiting.first();
        let (last_ns, last) = suspect.waiting.last();
        if first_ns == last_ns {
            return Outcome::Recheck("Seen once so far: growth takes two looks.".to_owned());
        }
        let live_grew = suspect.live.last().1 > suspect.live.first().1;
        if last <= first || !live_grew || suspect.waiting.growth_per_second() <= 0.0 {
            return Outcome::Ok;
        }
        let seconds = last_ns.saturating_sub(first_ns) as f64 / 1e9;
        Outcome::Finding(
            Verdict::Likely,
            format!(
                "Waiting here grew from {first} to {last} in {seconds:.1} s; the go statement made {} goroutines while \
                 watched and {} of its goroutines ended.",
                suspect.created, suspect.exited
            ),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::Series;

    fn series(counts: &[u64]) -> Series {
        let mut series = Series::default();
        for (second, count) in counts.iter().enumerate() {
            series.push(second as u64 * 1_000_000_000, *count);
        }
        series
    }

    fn check(waiting: &[u64], live: &[u64]) -> Outcome {
        let (waiting, live) = (series(waiting), series(live));
        Growth.check(&Suspect { over_threshold: 1, waiting: &waiting, live: &live, created: 0, exited: 0 })
    }

    #[test]
    fn a_growing_group_of_a_growing_site_is_likely_a_leak() {
        assert!(matches!(check(&[0, 10, 20], &[1, 11, 21]), Outcome::Finding(Verdict::Likely, _)));
    }

    #[test]
    fn a_pool_that_falls_idle_is_not() {
        assert_eq!(check(&[2, 5, 10], &[10, 10, 10]), Outcome::Ok);
    }

    #[test]
    fn a_flat_or_shrinking_group_is_not() {
        assert_eq!(check(&[10, 10], &[10, 20]), Outcome::Ok);
        assert_eq!(check(&[10, 4], &[10, 20]), Outcome::Ok);
    }

    #[test]
    fn one_look_is_too_few() {
        assert!(matches!(check(&[10], &[10]), Outcome::Recheck(_)));
    }
}
