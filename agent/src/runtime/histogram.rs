//! The runtime's histogram of durations (`src/runtime/histogram.go`, the same in Go 1.21 to 1.27): buckets of powers of two from
//! 256 ns to 2^47 ns, each cut into four, with one for what is less than none and one for what is more.

use serde::{Deserialize, Serialize};

use crate::golang::layout::{Structs, Wanted};
use crate::memory::Memory;

use super::{RuntimeError, View};

/// The fields that are read.
pub const WANTED: &Wanted = &[("runtime.timeHistogram", &[("counts", 1280), ("underflow", 8), ("overflow", 8)])];

/// `timeHistMinBucketBits`: how many bits the shortest duration of the second power has.
const MIN_BITS: u32 = 9;
/// `timeHistSubBucketBits`
const SUB_BITS: u32 = 2;
/// `timeHistNumSubBuckets`
const SUB_BUCKETS: usize = 1 << SUB_BITS;

/// How often durations fell into each bucket.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Histogram {
    /// By bucket; [`Histogram::lower_bound`] says where each begins.
    pub counts: Vec<u64>,
    /// Durations below zero.
    pub underflow: u64,
    /// Durations beyond the last bucket.
    pub overflow: u64,
}

impl Histogram {
    /// Reads the histogram at `address`.
    pub fn read(memory: &dyn Memory, structs: &Structs, address: u64) -> Result<Self, RuntimeError> {
        let view = View::read(memory, structs, WANTED, "runtime.timeHistogram", address)?;
        Ok(Self {
            counts: view.array("counts").unwrap_or_default(),
            underflow: view.number("underflow"),
            overflow: view.number("overflow"),
        })
    }

    /// Where a bucket begins, in nanoseconds.
    pub fn lower_bound(bucket: usize) -> u64 {
        let (power, sub) = (bucket / SUB_BUCKETS, (bucket % SUB_BUCKETS) as u64);
        match power {
            // The first one is cut as the second is.
            0 => sub << (MIN_BITS - 1 - SUB_BITS),
            _ => {
                let bits = (MIN_BITS + power as u32 - 2).min(62);
                (1 << bits) + (sub << (bits - SUB_BITS))
            }
        }
    }

    /// How many durations it has.
    pub fn total(&self) -> u64 {
        self.counts.iter().fold(self.underflow.saturating_add(self.overflow), |sum, count| sum.saturating_add(*count))
    }

    /// What fell into it since an earlier look.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let before = earlier.counts.iter().copied().chain(std::iter::repeat(0));
        Self {
            counts: self.counts.iter().zip(before).map(|(now, then)| now.saturating_sub(then)).collect(),
            underflow: self.underflow.saturating_sub(earlier.underflow),
            overflow: self.overflow.saturating_sub(earlier.overflow),
        }
    }

    /// The duration that `share` of all do not exceed: the end of the bucket in which that one lies.
    pub fn quantile(&self, share: f64) -> Option<u64> {
        let total = self.total();
        let rank = (total as f64 * share).ceil() as u64;
        let mut seen = self.underflow;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen = seen.saturating_add(*count);
            if *count > 0 && seen >= rank {
                return Some(Self::lower_bound(bucket + 1));
            }
        }
        (total > 0).then(|| Self::lower_bound(self.counts.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_where_the_runtime_has_them() {
        // `runtime/metrics` of Go 1.27.3 for /sched/latencies:seconds, without the infinite ones.
        let bounds: Vec<u64> = (0..10).map(Histogram::lower_bound).collect();
        assert_eq!(bounds, [0, 64, 128, 192, 256, 320, 384, 448, 512, 640]);
        assert_eq!(Histogram::lower_bound(160), 1 << 47);
    }

    #[test]
    fn a_quantile_is_the_end_of_its_bucket() {
        let mut counts = vec![0; 160];
        (counts[0], counts[9]) = (99, 1);
        let histogram = Histogram { counts, ..Histogram::default() };
        assert_eq!(
            (histogram.quantile(0.5), histogram.quantile(0.99), histogram.quantile(1.0)),
            (Some(64), Some(64), Some(768))
        );
        assert_eq!(Histogram::default().quantile(0.5), None);
    }
}
