//! The labels that the program has put on its goroutines, as of the last census.

use hashbrown::HashMap;

use crate::memory::labels::{Labelled, Labels};

/// See the module.
#[derive(Debug, Default)]
pub struct GoroutineLabels {
    sets: Vec<Labels>,
    of: HashMap<u64, u32>,
}

impl GoroutineLabels {
    pub(super) fn take(&mut self, taken: &Labelled) {
        *self = Self { sets: taken.sets.clone(), of: taken.of.iter().copied().collect() };
    }

    /// Those of a goroutine, if it has some and they could be read.
    pub fn of(&self, goid: u64) -> Option<&Labels> {
        self.sets.get(*self.of.get(&goid)? as usize)
    }

    /// Whether no goroutine has any.
    pub fn is_empty(&self) -> bool {
        self.of.is_empty()
    }
}
