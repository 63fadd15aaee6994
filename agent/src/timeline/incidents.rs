//! Goroutines that waited for one another: the lines of a timeline that tell of them.

use std::collections::HashMap;

use super::axis::Axis;
use super::{GroupLine, IncidentLine, Mark, MarkKind};
use crate::record::{History, RecordedGroup};
use crate::words::numbers::full;
use crate::words::{blocker, goroutines};

/// Incidents shown.
const MAX_INCIDENTS: usize = 50;

/// The incidents, those with the most goroutines first, and how many are left out. `rows` has which group is in which line.
pub fn lines(histories: &[History], rows: &HashMap<&RecordedGroup, usize>, axis: &Axis) -> (Vec<IncidentLine>, usize) {
    let mut lines = Vec::new();
    for (life, history) in histories.iter().enumerate() {
        let ms = |mono_ns| axis.ms(history.boot, mono_ns);
        let row = |group: &usize| rows.get(&*history.groups.get(*group)?.group).copied();
        lines.extend(history.incidents.iter().map(|incident| IncidentLine {
            life,
            from_ms: ms(incident.from.mono_ns),
            ended_ms: incident.ended.map(|at| ms(at.mono_ns)),
            seen_ms: ms(incident.seen.mono_ns),
            headline: incident.headline.clone(),
            goroutines: incident.goroutines,
            cycle: incident.cycle,
            roots: incident.roots.clone(),
            groups: incident.groups.iter().filter_map(row).collect(),
        }));
    }
    lines.sort_by(|a, b| b.goroutines.cmp(&a.goroutines).then_with(|| a.from_ms.cmp(&b.from_ms)));
    let left_out = lines.len().saturating_sub(MAX_INCIDENTS);
    lines.truncate(MAX_INCIDENTS);
    (lines, left_out)
}

/// What a recording is about if nothing leaks: the one with the most goroutines of those that lasted, else of all.
pub fn finding(lines: &[IncidentLine]) -> Option<&IncidentLine> {
    lines.iter().find(|line| line.ended_ms.is_none()).or_else(|| lines.first())
}

impl IncidentLine {
    pub(super) fn mark(&self) -> Mark {
        let text = format!("{}; until {}", self.headline, self.until());
        Mark { ms: self.from_ms, kind: MarkKind::Incident, text, life: self.life }
    }

    /// `2026-11-23 14:08:40`, or `the end`.
    pub(super) fn until(&self) -> String {
        self.ended_ms.map_or_else(|| "the end".to_owned(), full)
    }

    /// Who waited for whom, a line each: those that the others waited for first.
    pub(super) fn chain(&self, groups: &[GroupLine]) -> Vec<String> {
        let roots: Vec<String> = self.roots.iter().map(u64::to_string).collect();
        let roots = match (roots.as_slice(), self.cycle) {
            ([], _) => None,
            (ids, true) => Some(format!("in a circle: goroutines {}", ids.join(", "))),
            ([one], false) => Some(format!("for whom the others waited: goroutine {one}")),
            (ids, false) => Some(format!("for whom the others waited: goroutines {}", ids.join(", "))),
        };
        let of = self.groups.iter().filter_map(|group| groups.get(*group));
        let of = of.map(|group| {
            let peak = goroutines(group.peak);
            format!(
                "{peak} [{}] at {}, created by {}",
                group.wait_reason,
                blocker(group.blocked_at.as_ref()),
                group.who()
            )
        });
        roots.into_iter().chain(of).collect()
    }
}
