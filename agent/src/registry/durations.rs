//! How long parks lasted that have ended, by wait reason.

use serde::{Deserialize, Serialize};

/// Upper bounds of the buckets, in nanoseconds; one more bucket has none.
pub const BOUNDS_NS: [u64; 8] = [
    1_000_000,
    10_000_000,
    100_000_000,
    1_000_000_000,
    10_000_000_000,
    60_000_000_000,
    600_000_000_000,
    3_600_000_000_000,
];

/// Ended parks of one wait reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Durations {
    /// How many lasted at most each of [`BOUNDS_NS`] and longer than the one before; the last are all longer ones.
    pub counts: [u64; BOUNDS_NS.len() + 1],
    /// How long all lasted together.
    pub sum_ns: u64,
}

impl Durations {
    /// Counts a park that lasted that long.
    pub fn add(&mut self, ns: u64) {
        self.counts[BOUNDS_NS.partition_point(|bound| *bound < ns)] += 1;
        self.sum_ns = self.sum_ns.saturating_add(ns);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_belong_to_the_bucket_below() {
        let mut durations = Durations::default();
        for ns in [0, 1_000_000, 1_000_001, u64::MAX] {
            durations.add(ns);
        }
        assert_eq!(durations.counts, [2, 1, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!(durations.sum_ns, u64::MAX);
    }
}
