//! What leaked goroutines keep of the heap: objects to which nothing live leads, and they do.
//!
//! Of each object it is noted which group of goroutines leads to it. What a second group leads to as well is shared among leaks,
//! with all that it leads to; so each object is looked into twice at most, and what comes out does not depend on the order.
//! The objects' own sizes count, as the allocator has them; `g`s are not among them, which the runtime keeps for other goroutines.

use hashbrown::HashMap;
use serde::{Deserialize, Serialize};

use super::super::descriptors::Descriptors;
use super::super::heap::Object;
use super::Marker;
use super::kinds::Kinds;
use crate::memory::kinds::HeapKind;

/// Objects counted at most: what is kept to count them is bounded, and then nothing is said.
const MAX_OBJECTS: usize = 4 << 20;

/// Several groups lead there.
const SHARED: u32 = u32::MAX;

/// Bytes of heap that only leaked goroutines keep.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Of each group what it alone leads to.
    pub own: Vec<Own>,
    /// What several lead to.
    pub shared: u64,
}

/// What one group keeps of the heap.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Own {
    /// Bytes of it.
    pub bytes: u64,
    /// What most of it is, the largest first.
    pub kinds: Vec<HeapKind>,
}

/// Who leads where.
#[derive(Default)]
struct Owners {
    owners: HashMap<Object, u32>,
    todo: Vec<(Object, u32)>,
}

impl Marker<'_, '_> {
    /// Of groups of candidates that are not live, what they keep; to be asked when everything live has been followed. `None`
    /// where there is too much of it to be counted.
    pub fn held(&mut self, groups: &[Vec<u32>], descriptors: &Descriptors<'_, '_>) -> Option<Held> {
        let mut owners = Owners::default();
        for (number, candidates) in groups.iter().enumerate() {
            for candidate in candidates {
                let candidate = &self.candidates[*candidate as usize];
                // Its sudogs lead to what it waits for, too, where its frames do not any more.
                let primitives = candidate.primitives.clone();
                let goroutine = self.goroutines[candidate.goroutine];
                for pointer in self.roots_of(&goroutine).0.into_iter().chain(primitives) {
                    self.lead(&mut owners, pointer, number as u32);
                }
                self.spread(&mut owners)?;
            }
        }
        let owners = owners.owners;
        let shapes = self.shapes(&owners, groups.iter().flatten(), descriptors);
        let mut held = Held { own: vec![Own::default(); groups.len()], shared: 0 };
        let mut kinds = Kinds::default();
        for (object, owner) in owners {
            let span = self.objects.span(object);
            let sum = match held.own.get_mut(owner as usize) {
                Some(own) => {
                    kinds.add(owner, shapes.get(&object).copied(), span);
                    &mut own.bytes
                }
                None => &mut held.shared,
            };
            *sum = sum.saturating_add(span.elem);
        }
        for (own, kinds) in held.own.iter_mut().zip(kinds.largest(groups.len(), descriptors)) {
            own.kinds = kinds;
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
        let new = match owners.owners.get(&object) {
            None => owner,
            Some(known) if *known == owner || *known == SHARED => return,
            Some(_) => SHARED,
        };
        owners.owners.insert(object, new);
        if !self.objects.span(object).noscan {
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
