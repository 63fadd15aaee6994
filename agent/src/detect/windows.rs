//! The windows of time that rules look at.

use super::Series;
use crate::config::Rules;

/// When a target was looked at: the first time, the last, and how often in between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Looks {
    /// `CLOCK_MONOTONIC` nanoseconds.
    pub first_ns: u64,
    /// The same.
    pub last_ns: u64,
    /// Time between two looks, nanoseconds: what was meant, or more if on the whole they came later.
    pub interval_ns: u64,
}

/// Windows of one length, one after the other, the last ending at the last look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Windows {
    /// The beginning of the first, and the end of each.
    pub bounds: Vec<u64>,
    /// How many there should be.
    pub wanted: u32,
}

impl Looks {
    /// Windows of one interval, of two, of four, …: as long as `wanted` of them have room in what was seen. If not even
    /// those of one interval have, as many as there are of these.
    pub fn windows(self, wanted: u32) -> impl Iterator<Item = Windows> {
        let spacing = self.interval_ns.max(1);
        // A last look a little early makes a whole window all the same.
        let seen = (self.last_ns.saturating_sub(self.first_ns).saturating_add(spacing / 4)) / spacing;
        let of = move |looks: u64, number: u64| Windows {
            bounds: (0..=number)
                .rev()
                .map(|back| self.last_ns.saturating_sub(back.saturating_mul(looks).saturating_mul(spacing)))
                .collect(),
            wanted,
        };
        let few = (seen < u64::from(wanted)).then(|| of(1, seen));
        let all = (0..u64::BITS - 1)
            .map(|doubled| 1 << doubled)
            .take_while(move |looks: &u64| looks.checked_mul(u64::from(wanted)).is_some_and(|needed| needed <= seen))
            .map(move |looks| of(looks, u64::from(wanted)));
        few.into_iter().chain(all)
    }
}

/// How a count went over windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Course {
    /// The count as the first window began.
    pub first: u64,
    /// The count now.
    pub last: u64,
    /// In how many windows it rose.
    pub rose: usize,
    /// Whether it rose in the last.
    rises: bool,
    windows: usize,
}

impl Course {
    /// Whether it grows: in all windows but one at most, the last of them too, and by enough in all.
    pub fn grows(&self, rules: &Rules) -> bool {
        self.rises && self.rose + 1 >= self.windows && self.last >= self.first.saturating_add(rules.min_growth)
    }
}

impl Windows {
    /// How the count of `series` went.
    pub fn course(&self, series: &Series) -> Course {
        let counts: Vec<u64> = self.bounds.iter().map(|bound| series.at(*bound)).collect();
        Course {
            first: counts.first().copied().unwrap_or_default(),
            last: counts.last().copied().unwrap_or_default(),
            rose: counts.windows(2).filter(|pair| pair[1] > pair[0]).count(),
            rises: matches!(counts[..], [.., before, last] if last > before),
            windows: self.count(),
        }
    }

    /// When the first begins.
    pub fn begin_ns(&self) -> u64 {
        self.bounds.first().copied().unwrap_or_default()
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.bounds.len().saturating_sub(1)
    }

    /// Whether there are as many as there should be.
    pub fn are_enough(&self) -> bool {
        self.count() >= self.wanted as usize
    }

    /// From the first's beginning to the last's end.
    pub fn seconds(&self) -> f64 {
        let last = self.bounds.last().copied().unwrap_or_default();
        last.saturating_sub(self.begin_ns()) as f64 / 1e9
    }
}
