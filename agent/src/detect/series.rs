//! A bounded history of one count: every look of the last few, and the older the fewer.

use std::collections::VecDeque;

/// Points kept of each resolution. The finest holds every point pushed, the next every second one, and so on, so that
/// the whole watch is spanned by some of them and its end by all.
const PER_LEVEL: usize = 16;

/// A count over time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Series {
    /// Finest first.
    levels: Vec<VecDeque<(u64, u64)>>,
    pushed: u64,
    first: (u64, u64),
    last: (u64, u64),
}

impl Series {
    /// A series whose first count was seen at `time_ns`. At each of `earlier`, looks at the target before, ascending,
    /// the count was zero.
    pub fn begun_at(earlier: &[u64], time_ns: u64, count: u64) -> Self {
        let mut series = Self::default();
        for before_ns in earlier {
            series.push(*before_ns, 0);
        }
        series.push(time_ns, count);
        series
    }

    /// Adds a point. Times do not go backwards.
    pub fn push(&mut self, time_ns: u64, count: u64) {
        self.last = (time_ns, count);
        if self.pushed == 0 {
            self.first = self.last;
        }
        let full = self.levels.last().is_none_or(|coarsest| coarsest.len() == PER_LEVEL);
        if full {
            // What will be forgotten of the finer ones is what the new one keeps half of.
            let halved = self.levels.last().map(|coarsest| coarsest.iter().step_by(2).copied().collect());
            self.levels.push(halved.unwrap_or_default());
        }
        for (level, points) in self.levels.iter_mut().enumerate() {
            if self.pushed.is_multiple_of(1 << level) {
                if points.len() == PER_LEVEL {
                    points.pop_front();
                }
                points.push_back((time_ns, count));
            }
        }
        self.pushed += 1;
    }

    /// Time and count of the first point.
    pub fn first(&self) -> (u64, u64) {
        self.first
    }

    /// Time and count of the last point.
    pub fn last(&self) -> (u64, u64) {
        self.last
    }

    /// The point nearest to `time_ns`; zeros for a series without any.
    pub fn nearest(&self, time_ns: u64) -> (u64, u64) {
        let reaches_back = |points: &&VecDeque<(u64, u64)>| points.front().is_some_and(|(time, _)| *time <= time_ns);
        let level = self.levels.iter().find(reaches_back).or(self.levels.last());
        let points = level.into_iter().flatten().copied().chain([self.first, self.last]);
        points.min_by_key(|(time, _)| time.abs_diff(time_ns)).unwrap_or_default()
    }

    /// The count at the point nearest to `time_ns`.
    pub fn at(&self, time_ns: u64) -> u64 {
        self.nearest(time_ns).1
    }

    /// Points, oldest first, ending with the last one pushed.
    pub fn points(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let first = (self.pushed > 0).then_some(self.first);
        let mut finer = self.levels.iter().map(|points| points.front().map_or(u64::MAX, |(time, _)| *time)).rev();
        // Of each level what is older than all of the next finer one.
        finer.next();
        let until = finer.chain(std::iter::once(u64::MAX));
        let levels = self.levels.iter().rev().zip(until);
        let points = levels.flat_map(|(points, until)| points.iter().copied().filter(move |(time, _)| *time < until));
        let origin = self.first.0;
        first.into_iter().chain(points.filter(move |(time, _)| *time > origin))
    }

    /// Whether none of the last few points is above zero.
    pub fn has_ended(&self) -> bool {
        self.levels.first().is_none_or(|latest| latest.iter().all(|(_, count)| *count == 0))
    }

    /// Slope of the least-squares line through the points, per second; 0 with fewer than two of them.
    pub fn growth_per_second(&self) -> f64 {
        let (origin, _) = self.first();
        let (mut n, mut sum_t, mut sum_c, mut sum_tt, mut sum_tc) = (0.0, 0.0, 0.0, 0.0, 0.0);
        for (time_ns, count) in self.points() {
            let t = time_ns.saturating_sub(origin) as f64 / 1e9;
            let c = count as f64;
            n += 1.0;
            sum_t += t;
            sum_c += c;
            sum_tt += t * t;
            sum_tc += t * c;
        }
        let spread = n * sum_tt - sum_t * sum_t;
        if spread <= f64::EPSILON { 0.0 } else { (n * sum_tc - sum_t * sum_c) / spread }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slope_of_a_line_is_its_slope() {
        let mut series = Series::default();
        for second in 0..10u64 {
            series.push(second * 1_000_000_000, 5 + 3 * second);
        }
        assert!((series.growth_per_second() - 3.0).abs() < 1e-9);
    }

    #[test]
    fn one_point_has_no_growth() {
        let mut series = Series::default();
        series.push(7, 100);
        assert_eq!(series.growth_per_second(), 0.0);
    }

    #[test]
    fn a_long_history_stays_bounded_and_keeps_both_ends() {
        let mut series = Series::default();
        let times: Vec<u64> = (0..100_000).collect();
        for time in &times {
            series.push(*time, *time);
        }
        let points: Vec<u64> = series.points().map(|(time, _)| time).collect();
        assert!(points.len() <= 16 * PER_LEVEL, "{}", points.len());
        assert_eq!(points.first(), Some(&0));
        assert!(points.windows(2).all(|pair| pair[0] < pair[1]), "{points:?}");
        // All of the last, and of what is older nothing farther apart than it is old.
        assert!(points.ends_with(&times[times.len() - PER_LEVEL..]), "{points:?}");
        assert!(points.windows(2).all(|pair| pair[1] - pair[0] <= 1 + (99_999 - pair[0]) / 4), "{points:?}");
    }

    #[test]
    fn a_short_history_is_kept_whole() {
        for length in 0..40u64 {
            let mut series = Series::default();
            (0..length).for_each(|time| series.push(time, 2 * time));
            let points: Vec<_> = series.points().collect();
            if length <= PER_LEVEL as u64 {
                assert_eq!(points, (0..length).map(|time| (time, 2 * time)).collect::<Vec<_>>());
            }
            assert_eq!(points.first().copied(), (length > 0).then_some((0, 0)));
            assert_eq!(points.last().copied(), length.checked_sub(1).map(|last| (last, 2 * last)));
        }
    }

    #[test]
    fn a_series_has_ended_when_it_has_been_zero_for_a_while() {
        let mut series = Series::default();
        series.push(0, 5);
        for time in 1..PER_LEVEL as u64 {
            series.push(time, 0);
            assert!(!series.has_ended(), "{time}");
        }
        series.push(100, 0);
        assert!(series.has_ended());
    }

    #[test]
    fn the_count_at_a_time_is_that_of_the_nearest_point() {
        let series = Series::begun_at(&[0, 100], 200, 7);
        assert_eq!([0, 140, 160, 1000].map(|time| series.at(time)), [0, 0, 7, 7]);
    }
}
