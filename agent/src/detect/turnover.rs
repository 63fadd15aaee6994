//! Exits fall behind creations: the live goroutines of the `go` statement grow as the group does.
//!
//! The group alone is not enough: a pool whose workers fall idle grows as a parked group while nobody is created.

use super::windows::Course;
use super::{Outcome, Rule, Suspect, Windows};
use crate::config::Rules;

/// See the module.
pub(super) struct Turnover;

impl Rule for Turnover {
    fn check(&self, suspect: &Suspect<'_>, windows: &Windows, rules: &Rules) -> Outcome {
        let course = windows.course(suspect.live);
        if !course.grows(rules) {
            return Outcome::Ok;
        }
        let Course { first, last, .. } = course;
        let mut sentence =
            format!("Of this go statement's goroutines {first} lived {:.1} s ago, {last} do now", windows.seconds());
        if suspect.created > 0 {
            sentence.push_str(&format!("; while watched it made {}, and {} ended", suspect.created, suspect.exited));
        }
        sentence.push('.');
        Outcome::Finding(sentence)
    }
}
