//! Exits fall behind creations: the live goroutines of the `go` statement grow as the group does.
//!
//! The group alone is not enough: a pool whose workers fall idle grows as a parked group while nobody is created.

use super::{Outcome, Rule, Suspect, Windows, rises};
use crate::config::Rules;

/// See the module.
pub(super) struct Turnover;

impl Rule for Turnover {
    fn check(&self, suspect: &Suspect<'_>, windows: &Windows, rules: &Rules) -> Outcome {
        let counts: Vec<u64> = windows.bounds.iter().map(|bound| suspect.live.at(*bound)).collect();
        let (Some(&first), Some(&last)) = (counts.first(), counts.last()) else { return Outcome::Ok };
        if rises(&counts) + 1 < windows.count() || last < first.saturating_add(rules.min_growth) {
            return Outcome::Ok;
        }
        let mut sentence =
            format!("Of this go statement's goroutines {first} lived {:.1} s ago, {last} do now", windows.seconds());
        if suspect.created > 0 {
            sentence.push_str(&format!("; while watched it made {}, and {} ended", suspect.created, suspect.exited));
        }
        sentence.push('.');
        Outcome::Finding(sentence)
    }
}
