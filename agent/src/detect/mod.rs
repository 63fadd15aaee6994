//! Verdicts: what a group of parked goroutines is, and the evidence for it.
//!
//! A group is `likely` a leak if every rule finds its sign over the same windows of time: the group grows, so do the
//! goroutines of its `go` statement, and those that wait stay. Each rule is a file and looks at one [`Suspect`]. Windows
//! are one look long, or two, four, eight…, so that slow leaks are found too. `proven` comes from a proof
//! ([`crate::reach`]), never from here. Pure: the numbers come from the session, nothing is read here.

mod growth;
mod retention;
mod series;
pub mod stuck;
mod turnover;
mod windows;

use serde::{Deserialize, Serialize};

pub use series::Series;
pub use windows::{Looks, Windows};

use crate::config::Rules;

/// What a group of parked goroutines is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
#[derive(strum::Display, strum::IntoStaticStr, strum::VariantArray, strum::EnumString)]
#[strum(serialize_all = "lowercase")]
pub enum Verdict {
    /// Parked long, and nothing says that anything is wrong.
    Idle,
    /// Does not grow, and yet something is wrong with it.
    Stuck,
    /// Behaves like a leak.
    Likely,
    /// Can never be woken.
    Proven,
}

impl Verdict {
    /// Whether it says that something leaks.
    pub fn is_leak(self) -> bool {
        self >= Self::Likely
    }
}

/// A group of goroutines that wait, and the history that rules judge it by.
#[derive(Clone, Copy, Debug)]
pub struct Suspect<'a> {
    /// Members that wait, since when ever: history.
    pub waiting: &'a Series,
    /// Live goroutines of the same creation site, waiting or not: history.
    pub live: &'a Series,
    /// Goroutines of the creation site that one look saw and a later one no more, in all: history.
    pub gone: &'a Series,
    /// Since when each member has been parked, ascending.
    pub parked_since: &'a [u64],
    /// Goroutines of the creation site created while watched, by events.
    pub created: u64,
    /// Goroutines of the creation site that exited while watched, by events.
    pub exited: u64,
}

/// What a rule says of a suspect over some windows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The sign is not there.
    Ok,
    /// The sign, with its numbers in one sentence.
    Finding(String),
    /// Too early to tell, with the reason.
    Recheck(String),
}

/// One sign of a leak.
pub trait Rule {
    /// Looks for it.
    fn check(&self, suspect: &Suspect<'_>, windows: &Windows, rules: &Rules) -> Outcome;
}

/// In the order in which their sentences are told.
const RULES: [&dyn Rule; 3] = [&growth::Growth, &turnover::Turnover, &retention::Retention];

/// The verdict of all rules on a group seen in `looks`, with their evidence.
pub fn judge(suspect: &Suspect<'_>, looks: Looks, rules: &Rules) -> (Verdict, Vec<String>) {
    let mut recheck = None;
    for windows in looks.windows(rules.windows) {
        let mut found = Vec::new();
        for rule in RULES {
            match rule.check(suspect, &windows, rules) {
                Outcome::Finding(sentence) => found.push(sentence),
                Outcome::Ok => break,
                Outcome::Recheck(reason) => {
                    recheck.get_or_insert(reason);
                    break;
                }
            }
        }
        if found.len() == RULES.len() {
            return (Verdict::Likely, found);
        }
    }
    (Verdict::Idle, recheck.into_iter().collect())
}

#[cfg(test)]
mod tests;
