//! What the log says of the leaks of one process: each once when it is found, when it is proven, and when the process ends.
//! Pure: groups of reports come in, lines come out.

use std::collections::BTreeMap;

use crate::detect::Verdict;
use crate::kube::story::{GroupKey, told, worst};
use crate::report::Group;

/// Leaks of one process that the log tells of; a hostile program has any number.
const MAX_LEAKS: usize = 50;

/// What the log calls these lines, so that they can be left out: whoever looks at a view of all leaks needs no list too.
pub const LOG: &str = "parkwarden::leaks";

/// See the module.
#[derive(Debug, Default)]
pub struct LeakLog {
    told: BTreeMap<GroupKey, Verdict>,
    /// Whether it was said that there are more.
    cut: bool,
}

impl LeakLog {
    /// What is new.
    pub fn observe(&mut self, groups: &[Group]) -> Vec<String> {
        let mut lines = Vec::new();
        for (key, group) in worst(groups).into_iter().filter(|(_, group)| group.verdict.is_leak()) {
            let before = self.told.get(&key);
            if before.is_some_and(|before| *before >= group.verdict) {
                continue;
            }
            if before.is_none() && self.told.len() >= MAX_LEAKS {
                if !std::mem::replace(&mut self.cut, true) {
                    lines.push(format!("more than {MAX_LEAKS} leaks: its report has the others"));
                }
                continue;
            }
            self.told.insert(key, group.verdict);
            lines.push(told(group));
        }
        lines
    }

    /// What still leaked, of what was told of, as the process ended.
    pub fn ended(&self, groups: &[Group]) -> Vec<String> {
        let leaks = worst(groups).into_iter().filter(|(_, group)| group.verdict.is_leak());
        let known = leaks.filter(|(key, _)| self.told.contains_key(key));
        known.map(|(_, group)| format!("ended with a leak: {}", told(group))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(line: u32, verdict: Verdict) -> Group {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/leaks.json");
        let report: crate::report::Report =
            serde_json::from_str(&std::fs::read_to_string(path).expect("the golden report")).expect("a report");
        let mut group = report.groups.into_iter().next().expect("a group");
        (group.verdict, group.count, group.proven) = (verdict, 7, if verdict == Verdict::Proven { 7 } else { 0 });
        group.created_by.as_mut().expect("a place").line = line;
        group
    }

    #[test]
    fn a_leak_is_told_when_it_is_found_when_it_is_proven_and_when_its_process_ends() {
        let mut log = LeakLog::default();
        assert!(log.observe(&[group(1, Verdict::Idle), group(2, Verdict::Stuck)]).is_empty());
        let found = log.observe(&[group(1, Verdict::Likely)]);
        assert!(found.len() == 1 && found[0].contains("classes.go:1 behave like a leak"), "{found:?}");
        assert!(log.observe(&[group(1, Verdict::Likely)]).is_empty());
        let proven = log.observe(&[group(1, Verdict::Proven)]);
        assert!(proven.len() == 1 && proven[0].starts_with("7 goroutines made by "), "{proven:?}");
        assert!(proven[0].contains("can never run again"), "{proven:?}");
        // What it is proven of is not found again.
        for again in [Verdict::Idle, Verdict::Likely, Verdict::Proven] {
            assert!(log.observe(&[group(1, again)]).is_empty());
        }
        let ended = log.ended(&[group(1, Verdict::Proven), group(3, Verdict::Idle)]);
        assert!(ended.len() == 1 && ended[0].starts_with("ended with a leak: 7 goroutines"), "{ended:?}");
        assert!(log.ended(&[group(1, Verdict::Idle)]).is_empty(), "it leaks no more");
    }

    #[test]
    fn the_log_is_not_filled() {
        let groups: Vec<Group> = (0..3 * MAX_LEAKS as u32).map(|line| group(line, Verdict::Proven)).collect();
        let mut log = LeakLog::default();
        assert_eq!(log.observe(&groups).len(), MAX_LEAKS + 1);
        assert!(log.observe(&groups).is_empty());
        assert_eq!(log.ended(&groups).len(), MAX_LEAKS);
    }
}
