//! The group grows: in all windows but one at most, and by enough in all.

use super::windows::Course;
use super::{Outcome, Rule, Suspect, Windows};
use crate::config::Rules;
use crate::words::numbers::signed_rate;

/// See the module.
pub(super) struct Growth;

impl Rule for Growth {
    fn check(&self, suspect: &Suspect<'_>, windows: &Windows, rules: &Rules) -> Outcome {
        let course = windows.course(suspect.waiting);
        let Course { first, last, rose, .. } = course;
        if !windows.are_enough() {
            return match last > first {
                true => Outcome::Recheck(format!(
                    "Waiting here rose from {first} to {last} in {:.1} s; to call it a leak takes {} windows, and there \
                     were {}: watch longer, or with a shorter --interval.",
                    windows.seconds(),
                    windows.wanted,
                    windows.count(),
                )),
                false => Outcome::Ok,
            };
        }
        if !course.grows(rules) {
            return Outcome::Ok;
        }
        let seconds = windows.seconds();
        Outcome::Finding(format!(
            "Waiting here rose in {rose} of {} windows of {:.1} s, from {first} to {last} ({}).",
            windows.count(),
            seconds / windows.count() as f64,
            signed_rate((last - first) as f64 / seconds),
        ))
    }
}
