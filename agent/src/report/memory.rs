//! What the leaks hold of the program's memory, and when its limit is reached as it grows.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use super::{Group, Report, Runtime};
use crate::config::Rules;
use crate::detect::Windows;
use crate::session::Session;
use crate::words::numbers::{bytes, rate_of_bytes, span};

/// Growth over the windows that matters; less may be page cache, or a table that finds its size.
const MIN_GROWTH_BYTES: u64 = 8 << 20;
/// Nobody can tell what is in a week.
const MAX_SECONDS: f64 = 7.0 * 86_400.0;

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct LeakedMemory {
    /// Bytes of the stacks of all groups that are leaks.
    pub stack_bytes: u64,
    /// Bytes of heap that those of them that are proven keep, each group by itself; `None` where that was not counted.
    pub heap_bytes: Option<u64>,
    /// Bytes of heap that the runtime has in use (`HeapInuse`), at the last look.
    pub heap_in_use_bytes: Option<u64>,
    /// Resident memory of the process, at the last look.
    pub resident_bytes: Option<u64>,
    /// When the limit of the control group is reached, where there is one and memory grows.
    pub limit: Option<LimitReached>,
}

/// When the limit of a control group's memory is reached, if its use grows on as it did.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct LimitReached {
    /// The limit.
    pub limit_bytes: u64,
    /// What is used of it, at the last look.
    pub used_bytes: u64,
    /// Growth, over the longest time in which it grew steadily up to the last look.
    pub growth_bytes_per_second: f64,
    /// From the last look on.
    pub seconds: f64,
}

impl LeakedMemory {
    /// Of a report's groups and what is known of the runtime; `None` where nothing leaks.
    pub(super) fn of(session: &Session, groups: &[Group], runtime: Option<&Runtime>, rules: &Rules) -> Option<Self> {
        let leaks = || groups.iter().filter(|group| group.verdict.is_leak());
        leaks().next()?;
        Some(Self {
            stack_bytes: leaks().map(|group| group.stack_bytes).sum(),
            heap_bytes: leaks().filter_map(|group| group.heap_bytes).reduce(u64::saturating_add),
            heap_in_use_bytes: runtime.and_then(|runtime| Some(runtime.now.as_ref()?.memory.stats.heap_inuse)),
            resident_bytes: runtime.and_then(|runtime| Some(runtime.process?.rss_bytes)),
            limit: LimitReached::of(session, rules),
        })
    }

    /// In a sentence or two.
    fn sentence(&self) -> String {
        let heap = self.heap_bytes.unwrap_or(0);
        let held = self.stack_bytes.saturating_add(heap);
        let mut out = format!("they hold {}: {} of stacks", bytes(held), bytes(self.stack_bytes));
        if self.heap_bytes.is_some() {
            let share = share(heap, self.heap_in_use_bytes);
            // Writing to a String cannot fail.
            let _ = write!(
                out,
                " and {} of heap{}",
                bytes(heap),
                share.map_or_else(String::new, |share| format!(" ({share} of what is in use)"))
            );
        }
        if let Some((resident, share)) = self.resident_bytes.zip(share(held, self.resident_bytes)) {
            let _ = write!(out, "; {share} of the {} that are resident", bytes(resident));
        }
        if let Some(limit) = &self.limit {
            let _ = write!(
                out,
                "\nmemory grows by {}: at this rate the limit of {} is reached in {}, {} are used",
                rate_of_bytes(limit.growth_bytes_per_second),
                bytes(limit.limit_bytes),
                span((limit.seconds * 1e3) as u64),
                bytes(limit.used_bytes),
            );
        }
        out
    }
}

/// `92 %`; what was counted at another moment is never more than all.
fn share(part: u64, whole: Option<u64>) -> Option<String> {
    let whole = whole.filter(|whole| *whole > 0)?;
    Some(match 100.0 * (part as f64 / whole as f64).min(1.0) {
        little if little < 1.0 => "less than 1 %".to_owned(),
        percent => format!("{percent:.0} %"),
    })
}

impl LimitReached {
    fn of(session: &Session, rules: &Rules) -> Option<Self> {
        let looks = session.runtime();
        let (used_bytes, limit_bytes) = looks.memory_group()?;
        let windows = session.looks().windows(rules.windows).filter(Windows::are_enough);
        let courses = windows.map(|windows| (windows.course(looks.group_used()), windows.seconds()));
        let grown = courses.filter(|(course, _)| course.grows(rules) && course.last - course.first >= MIN_GROWTH_BYTES);
        let (course, over) = grown.last()?;
        let growth_bytes_per_second = (course.last - course.first) as f64 / over;
        let seconds = limit_bytes.saturating_sub(used_bytes) as f64 / growth_bytes_per_second;
        (seconds <= MAX_SECONDS).then_some(Self { limit_bytes, used_bytes, growth_bytes_per_second, seconds })
    }
}

/// A line or two of the summary, where something leaks.
pub(super) fn write(out: &mut String, report: &Report) -> std::fmt::Result {
    match &report.memory {
        Some(memory) => writeln!(out, "{}", memory.sentence()),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_is_told_as_shares() {
        let memory = LeakedMemory {
            stack_bytes: 512 << 20,
            heap_bytes: Some(1536 << 20),
            heap_in_use_bytes: Some(1600 << 20),
            resident_bytes: Some(4 << 30),
            limit: Some(LimitReached {
                limit_bytes: 8 << 30,
                used_bytes: 6 << 30,
                growth_bytes_per_second: 1_048_576.0,
                seconds: 2048.0,
            }),
        };
        assert_eq!(
            memory.sentence(),
            "they hold 2048 MiB: 512 MiB of stacks and 1536 MiB of heap (96 % of what is in use); 50 % of the 4.0 GiB that \
             are resident\nmemory grows by 60 MiB/min: at this rate the limit of 8.0 GiB is reached in 34 min, 6.0 GiB are used"
        );
        // A proof counted while less was in use.
        assert_eq!(share(5, Some(4)).as_deref(), Some("100 %"));
        assert_eq!((share(1, Some(1000)).as_deref(), share(1, Some(0))), (Some("less than 1 %"), None));
    }
}
