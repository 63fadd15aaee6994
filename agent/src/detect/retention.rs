//! Those that wait stay: in busy code that is well, goroutines come and go however many there are.
//!
//! Most leaked goroutines never move again. Some wake up again and again, for a timer, and wait anew in the same place:
//! of these, that they do not end.

use super::{Outcome, Rule, Suspect, Windows};
use crate::config::Rules;

/// See the module.
pub(super) struct Retention;

impl Rule for Retention {
    fn check(&self, suspect: &Suspect<'_>, windows: &Windows, rules: &Rules) -> Outcome {
        let enough = |kept: u64, of: u64| kept.saturating_mul(100) >= of.saturating_mul(rules.min_kept_percent.into());
        let bounds = &windows.bounds[..windows.count()];
        let unmoved = |bound: u64| {
            let (seen_ns, of) = suspect.waiting.nearest(bound);
            (suspect.parked_since.partition_point(|since| *since <= seen_ns) as u64, of)
        };
        // Those of the windows' beginnings, the last one's too: the first may have begun with nobody.
        let latest = bounds.iter().rev().find(|bound| suspect.waiting.at(**bound) > 0).copied();
        let Some(latest) = latest else { return Outcome::Ok };
        let ago = |bound: u64| windows.bounds.last().map_or(0.0, |now| now.saturating_sub(bound) as f64 / 1e9);
        if bounds.iter().map(|bound| unmoved(*bound)).all(|(kept, of)| enough(kept.min(of), of)) {
            let (kept, of) = unmoved(latest);
            return Outcome::Finding(format!(
                "Of the {of} that waited here {:.1} s ago, {} have not moved since.",
                ago(latest),
                kept.min(of)
            ));
        }
        let ended = |bound: u64| suspect.gone.last().1.saturating_sub(suspect.gone.at(bound));
        let alive = |bound: u64| (suspect.live.at(bound).saturating_sub(ended(bound)), suspect.live.at(bound));
        if bounds.iter().map(|bound| alive(*bound)).all(|(kept, of)| enough(kept, of)) {
            let (kept, of) = alive(latest);
            return Outcome::Finding(format!(
                "They wake up and wait again, but do not end: of {of} that lived {:.1} s ago, at least {kept} still do.",
                ago(latest)
            ));
        }
        Outcome::Ok
    }
}
