//! What leaked goroutines keep of the heap: objects to which nothing live leads, and they do.
//!
//! Of each object it is noted which group of goroutines leads to it. What a second group leads to as well is shared among leaks,
//! with all that it leads to; so each object is looked into twice at most, and what comes out does not depend on the order.
//! The objects' own sizes count, as the allocator has them; `g`s are not among them, which the runtime keeps for other goroutines.

use hashbrown::HashMap;
use serde::{Deserialize, Serialize};

use super::super::heap::Object;
use super::Marker;

/// Objects counted at most: what is kept to count them is bounded, and then nothing is said.
const MAX_OBJECTS: usize = 4 << 20;

/// Several groups lead there.
const SHARED: u32 = u32::MAX;

/// Bytes of heap that only leaked goroutines keep.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// Of each group those that it alone leads to.
    pub own: Vec<u64>,
    /// Those that several lead to.
    pub shared: u64,
}

/// Who leads where.
#[derive(Default)]
struct Owners {
    owners: HashMap<u64, (u32, u64)>,
    todo: Vec<(Object, u32)>,
}

impl Marker<'_, '_> {
    /// Of groups of candidates that are not live, what they keep; to be asked when everything live has been followed. `None`
    /// where there is too much of it to be counted.
    pub fn held(&mut self, groups: &[Vec<u32>]) -> Option<Held> {
        let mut owners = Owners::default();
        for (number, candidates) in groups.iter().enumerate() {
            for candidate in candidates {
                let goroutine = self.goroutines[self.candidates[*candidate as usize].goroutine];
                for pointer in self.roots_of(&goroutine).0 {
                    self.lead(&mut owners, pointer, number as u32);
                }
                self.spread(&mut owners)?;
            }
        }
        let mut held = Held { own: vec![0; groups.len()], shared: 0 };
        for (owner, bytes) in owners.owners.into_values() {
            let sum = held.own.get_mut(owner as usize).unwrap_or(&mut held.shared);
            *sum = sum.saturating_add(bytes);
        }
        Some(held)
    }

    /// `owner` leads to what `word` points to, if it is a pointer.
    fn lead(&self, owners: &mut Owners, word: u64, owner: u32) {
        let Some(object) = self.objects.spans.find(word) else { return };
        let id = self.objects.id(object);
        if self.marked.get(id) || self.opaque.get(id) {
            return;
        }
        let span = self.objects.span(object);
        let new = match owners.owners.get(&id) {
            None => owner,
            Some((known, _)) if *known == owner || *known == SHARED => return,
            Some(_) => SHARED,
        };
        owners.owners.insert(id, (new, span.elem));
        if !span.noscan {
            owners.todo.push((object, new));
        }
    }

    fn spread(&self, owners: &mut Owners) -> Option<()> {
        let mut found = Vec::new();
        while let Some((object, owner)) = owners.todo.pop() {
            if owners.owners.len() > MAX_OBJECTS {
                return None;
            }
            found.clear();
            // What cannot be read leads nowhere: then a little less is told.
            self.objects.pointers(object, &mut |word| found.push(word));
            found.iter().for_each(|word| self.lead(owners, *word, owner));
        }
        Some(())
    }
}
