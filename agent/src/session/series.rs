//! A bounded history of one count.

/// Points a series keeps; beyond it every second one is dropped, so that it always spans the whole watch.
const MAX_POINTS: usize = 512;

/// A count over time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Series {
    points: Vec<(u64, u64)>,
    /// Pushes to pass over between two points kept, and how many were since the last.
    stride: u32,
    skipped: u32,
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
        if self.skipped < self.stride {
            self.skipped += 1;
            return;
        }
        self.skipped = 0;
        if self.points.len() == MAX_POINTS {
            let mut index = 0;
            self.points.retain(|_| {
                index += 1;
                index % 2 == 1
            });
            self.stride = self.stride * 2 + 1;
        }
        self.points.push((time_ns, count));
    }

    /// Time and count of the first point.
    pub fn first(&self) -> (u64, u64) {
        self.points.first().copied().unwrap_or(self.last)
    }

    /// Time and count of the last point.
    pub fn last(&self) -> (u64, u64) {
        self.last
    }

    /// Points, oldest first, ending with the last one pushed.
    pub fn points(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let tail = (self.points.last() != Some(&self.last)).then_some(self.last);
        self.points.iter().copied().chain(tail)
    }

    /// Whether no point it holds is above zero.
    pub fn is_all_zero(&self) -> bool {
        self.points().all(|(_, count)| count == 0)
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
        for i in 0..100_000u64 {
            series.push(i, i);
        }
        assert!(series.points().count() <= MAX_POINTS + 1);
        assert_eq!(series.first(), (0, 0));
        assert_eq!(series.points().last(), Some((99_999, 99_999)));
        assert!(series.points().zip(series.points().skip(1)).all(|(a, b)| a.0 < b.0));
    }
}
