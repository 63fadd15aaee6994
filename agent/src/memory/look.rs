//! A census with the stacks of the goroutines that did not run.

use serde::{Deserialize, Serialize};

use super::StackId;
use super::census::{self, Census};

/// A census with the stacks of those that wait.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CensusTaken {
    /// The goroutines.
    pub census: Census,
    /// One for each goroutine of the census; `None` where it does not wait or its stack could not be read.
    pub stacks: Vec<Option<StackId>>,
    /// Goroutines that moved while their stack was read, so that they have none.
    pub stack_moved: u64,
    /// Stacks whose outer part is missing.
    pub stack_cut: u64,
    /// Goroutines of whose stack nothing could be read.
    pub stack_unknown: u64,
}

impl CensusTaken {
    /// Goroutines with their stacks.
    pub fn goroutines(&self) -> impl Iterator<Item = (&census::Goroutine, Option<StackId>)> {
        self.census.goroutines.iter().zip(self.stacks.iter().copied().chain(std::iter::repeat(None)))
    }
}
