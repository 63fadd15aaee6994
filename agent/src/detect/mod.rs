//! Verdicts: what a group of long-parked goroutines is, and the evidence for it.
//!
//! Each rule is a file and looks at one [`Suspect`]. Pure: the numbers come from the session, nothing is read here.

mod growth;

use serde::{Deserialize, Serialize};

/// What a group of parked goroutines is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Parked long, and nothing says that it is a leak.
    Idle,
    /// Behaves like a leak.
    Likely,
    /// Can never be woken.
    Proven,
}

impl Verdict {
    /// The word users see.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Likely => "likely",
            Self::Proven => "proven",
        }
    }
}

/// A group of goroutines parked beyond the threshold, and the history that rules judge it by.
#[derive(Clone, Copy, Debug)]
pub struct Suspect<'a> {
    /// Members parked beyond the threshold.
    pub over_threshold: u64,
    /// Members that wait, since when ever: history.
    pub waiting: &'a crate::session::Series,
    /// Live goroutines of the same creation site, waiting or not: history.
    pub live: &'a crate::session::Series,
    /// Goroutines of the creation site created while watched, by events.
    pub created: u64,
    /// Goroutines of the creation site that exited while watched, by events.
    pub exited: u64,
}

/// What a rule says of a suspect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing wrong.
    Ok,
    /// A leak as far as this rule can tell, with its numbers in one sentence.
    Finding(Verdict, String),
    /// Too early to tell, with the reason.
    Recheck(String),
}

/// One way to tell a leak.
pub trait Rule {
    /// Judges one suspect.
    fn check(&self, suspect: &Suspect<'_>) -> Outcome;
}

/// The verdict of all rules, with their evidence.
pub fn judge(suspect: &Suspect<'_>) -> (Verdict, Vec<String>) {
    let rules: [&dyn Rule; 1] = [&growth::Growth];
    let mut verdict = Verdict::Idle;
    let mut evidence = Vec::new();
    for rule in rules {
        match rule.check(suspect) {
            Outcome::Ok => {}
            Outcome::Finding(found, sentence) => {
                verdict = verdict.max(found);
                evidence.push(sentence);
            }
            Outcome::Recheck(reason) => evidence.push(reason),
        }
    }
    (verdict, evidence)
}
