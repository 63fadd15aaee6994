//! Stacks, each stored once.

use std::sync::Arc;

use hashbrown::HashMap;
use serde::{Deserialize, Serialize};

/// Names a stack of a [`StackTable`]; counted from 0 in the order of first sight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct StackId(pub u32);

impl StackId {
    /// The stack of whoever runs, which nobody can read.
    pub const NONE: Self = Self(u32::MAX);
}

/// Different stacks a table holds; a real program has hundreds, and only a hostile one more than this.
pub const MAX_STACKS: usize = 100_000;

/// Stacks by their addresses, innermost first.
#[derive(Clone, Debug, Default)]
pub struct StackTable {
    ids: HashMap<Arc<[u64]>, StackId>,
    stacks: Vec<Arc<[u64]>>,
}

impl StackTable {
    /// The id of a stack, new or known; `None` when the table is full.
    pub fn intern(&mut self, pcs: &[u64]) -> Option<StackId> {
        if let Some(id) = self.ids.get(pcs) {
            return Some(*id);
        }
        if self.stacks.len() >= MAX_STACKS {
            return None;
        }
        let id = StackId(self.stacks.len() as u32);
        let stack: Arc<[u64]> = Arc::from(pcs);
        self.stacks.push(Arc::clone(&stack));
        self.ids.insert(stack, id);
        Some(id)
    }

    /// How many stacks there are.
    pub fn len(&self) -> usize {
        self.stacks.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.stacks.is_empty()
    }

    /// The stacks from the `first`th on, in the order of their ids.
    pub fn since(&self, first: usize) -> &[Arc<[u64]>] {
        self.stacks.get(first..).unwrap_or_default()
    }
}
