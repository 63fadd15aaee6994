//! The last hour of a process in a few numbers, for charts where nothing is recorded. Bounded: of many looks some stand for all,
//! spread over the hour.

use std::collections::VecDeque;

use serde::Serialize;

use crate::report::{Numbers, Report};

/// Points of a process.
const MOST: usize = 120;

/// How far back they go, in milliseconds.
const HOUR_MS: u64 = 3_600_000;

/// What one look came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Point {
    /// When, in Unix milliseconds.
    pub ms: u64,
    /// Goroutines of the program, the runtime's own left out.
    pub goroutines: u64,
    /// Those that are stuck.
    pub stuck: u64,
    /// Those that leak or behave like it.
    pub leaked: u64,
    /// Bytes of the heap that are live.
    pub heap_live_bytes: Option<u64>,
}

impl Point {
    /// Of a look at that moment.
    pub fn of(ms: u64, report: &Report) -> Self {
        let Numbers { goroutines, stuck, leaked, .. } = Numbers::of(report);
        let heap_live_bytes = report.runtime.as_ref().and_then(|runtime| Some(runtime.now.as_ref()?.memory.heap_live));
        Self { ms, goroutines, stuck, leaked, heap_live_bytes }
    }
}

/// See the module.
#[derive(Debug, Default)]
pub struct History(VecDeque<Point>);

impl History {
    /// Adds a look.
    pub fn push(&mut self, point: Point) {
        let begins = point.ms.saturating_sub(HOUR_MS);
        while self.0.front().is_some_and(|oldest| oldest.ms < begins) {
            self.0.pop_front();
        }
        self.0.push_back(point);
        if self.0.len() > MOST {
            // The one whose neighbours are closest to each other goes: so the others stay spread over the hour.
            let around = self.0.iter().zip(self.0.iter().skip(2)).enumerate();
            let closest = around.min_by_key(|(_, (before, after))| after.ms.saturating_sub(before.ms));
            closest.map(|(before, _)| before + 1).and_then(|index| self.0.remove(index));
        }
    }

    /// The looks, oldest first.
    pub fn points(&self) -> Vec<Point> {
        self.0.iter().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hour_is_kept_of_any_number_of_looks_with_the_last_of_them() {
        for every_ms in [200, 5_000, 15_000, 600_000] {
            let mut history = History::default();
            for look in 0..10_000 {
                let point = Point { ms: look * every_ms, goroutines: look, stuck: 0, leaked: 0, heap_live_bytes: None };
                history.push(point);
                assert!(history.0.len() <= MOST && history.0.back() == Some(&point), "{look} of every {every_ms} ms");
            }
            let points = history.points();
            let spans = 9_999 * every_ms - points[0].ms;
            assert!(points.is_sorted_by_key(|point| point.ms) && spans <= HOUR_MS, "{every_ms} ms: {spans}");
            let most = (9_999 * every_ms).min(HOUR_MS);
            assert!(spans + every_ms + most / 20 >= most, "every {every_ms} ms: {spans} of {most} ms are kept");
            let widest = points.windows(2).map(|pair| pair[1].ms - pair[0].ms).max().unwrap_or(0);
            assert!(widest <= every_ms.max(HOUR_MS / 20), "every {every_ms} ms: nothing for {widest} ms");
        }
    }
}
