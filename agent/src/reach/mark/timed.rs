//! Goroutines that only a timer wakes: their select has a timer's channel among its cases, and nothing but their own stacks leads to
//! any other.
//!
//! The runtime's timers lead to the timer's channel, and whoever is woken by it runs: for a proof such goroutines are live, with
//! all they lead to. So this is told in two steps. First everything is followed but what they alone lead to: whoever is live by
//! then for another case is none of them. Then they are followed one after the other, and of each object that was not live before
//! it is noted which of them it was that led there. What a second one leads to as well, or a goroutine that waited for something
//! of theirs, is nobody's own: another that runs could make the case happen. It is looked into once more as such, so that
//! each object is looked into twice at most, and what comes out does not depend on the order.

use hashbrown::HashMap;

use super::super::heap::Object;
use super::Marker;

/// See the module.
#[derive(Default)]
pub(super) struct Timed {
    /// Candidates for whose timers' channels something live has a pointer.
    fired: Vec<u32>,
    begun: bool,
    /// Who is being followed.
    current: Option<u32>,
    /// Who alone led to an object that was not live before.
    owners: HashMap<u64, u32>,
    /// What several led to.
    again: Vec<Object>,
}

impl Timed {
    /// A live pointer leads to the channel of a candidate's timer.
    pub(super) fn fires(&mut self, candidate: u32) {
        self.fired.push(candidate);
    }

    /// Whether they are being followed.
    pub(super) const fn is_begun(&self) -> bool {
        self.begun
    }

    /// Notes who leads to an object, which was not live before if it is `new`. Whether nobody led there whom that concerns.
    pub(super) fn is_first(&mut self, id: u64, new: bool) -> bool {
        match (self.current, new) {
            (Some(current), true) => {
                self.owners.insert(id, current);
                true
            }
            (None, true) => true,
            (current, false) => match self.owners.get(&id) {
                Some(owner) if current != Some(*owner) => {
                    self.owners.remove(&id);
                    false
                }
                _ => true,
            },
        }
    }

    /// What is not its owner's alone is looked into once more.
    pub(super) fn again(&mut self, object: Object) {
        self.again.push(object);
    }
}

impl Marker<'_, '_> {
    /// Follows those whom timers wake, after everything else. Returns the candidates that nothing else can wake; they are live.
    pub fn run_timed(&mut self) -> Vec<u32> {
        self.timed.begun = true;
        let mut timed = Vec::new();
        loop {
            let mut fired = std::mem::take(&mut self.timed.fired);
            fired.sort_unstable();
            fired.dedup();
            fired.retain(|candidate| self.live.get(*candidate as usize) == Some(&false));
            if fired.is_empty() {
                break;
            }
            fired.iter().for_each(|candidate| self.live[*candidate as usize] = true);
            for candidate in fired {
                self.timed.current = Some(candidate);
                self.root_candidate(candidate);
                self.follow();
                self.timed.current = None;
                self.follow_shared();
                timed.push(candidate);
            }
        }
        timed.retain(|candidate| self.is_own(*candidate));
        timed
    }

    /// Follows what is nobody's own, and whoever is woken.
    fn follow_shared(&mut self) {
        loop {
            self.run();
            let again = std::mem::take(&mut self.timed.again);
            if again.is_empty() {
                return;
            }
            let looked_into =
                |object: &Object| !self.objects.span(*object).noscan && !self.opaque.get(self.objects.id(*object));
            self.todo.extend(again.into_iter().filter(looked_into));
        }
    }

    /// Whether nothing but a candidate's own stack leads to its cases, but for those of timers.
    fn is_own(&self, candidate: u32) -> bool {
        let one = &self.candidates[candidate as usize];
        let mut others = one.primitives.iter().filter(|primitive| !one.timers.contains(primitive));
        others.all(|primitive| {
            let object = self.objects.spans.find(*primitive);
            object.is_some_and(|object| self.timed.owners.get(&self.objects.id(object)) == Some(&candidate))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_two_lead_to_is_nobodys_own() {
        let mut timed = Timed { begun: true, current: Some(1), ..Timed::default() };
        assert!(timed.is_first(10, true) && timed.is_first(10, false) && timed.is_first(11, true));
        assert!(timed.is_first(5, false), "it was live before");
        timed.current = Some(2);
        assert!(timed.is_first(12, true));
        assert!(!timed.is_first(10, false), "the first leads there too");
        assert!(timed.is_first(10, false), "which is noted once");
        timed.current = None;
        assert!(!timed.is_first(12, false) && timed.is_first(13, true));
        assert_eq!(timed.owners, HashMap::from([(11, 1)]));
    }
}
