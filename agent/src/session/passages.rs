//! How goroutines came and went where they wait, as one look after the other tells: whether a place is one where goroutines rest
//! between two pieces of work, or one that they pass.

use hashbrown::{HashMap, HashSet};

use super::{GroupKey, MAX_GROUPS};
use crate::memory::StackId;
use crate::memory::census::Goroutine;
use crate::memory::look::CensusTaken;
use crate::session::standing::Stood;

/// See the module.
#[derive(Debug, Default)]
pub struct Passages {
    places: HashMap<GroupKey, Passage>,
    /// Ids of those that stood between the last two looks, where others have gone on.
    stood: HashSet<u64>,
}

/// Goroutines remembered that stand where others have gone on.
const MAX_STOOD: usize = 1 << 16;

/// What looks saw of those that wait in one place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Passage {
    /// Goroutines that waited here at one look, and at the next had gone on or ended.
    pub left: u64,
    /// Of those, the ones that had stood here from one look to the next before they went on.
    pub lingered: u64,
    /// Looks that found one here that had been here at the look before as well, and had run in between.
    pub returns: u32,
}

impl Passages {
    /// Takes two looks, one after the other; how many goroutines of each creation site the second does not see any more.
    pub(super) fn take(&mut self, before: &CensusTaken, now: &CensusTaken) -> HashMap<u64, u64> {
        let here: HashMap<u64, (&Goroutine, Option<StackId>)> =
            now.goroutines().map(|(goroutine, stack)| (goroutine.goid, (goroutine, stack))).collect();
        let mut gone: HashMap<u64, u64> = HashMap::new();
        let mut returned: HashSet<GroupKey> = HashSet::new();
        let stood = std::mem::take(&mut self.stood);
        for (goroutine, stack) in before.goroutines() {
            let then = place(goroutine, stack);
            let now = here.get(&goroutine.goid);
            if now.is_none() {
                *gone.entry(goroutine.creation_pc).or_default() += 1;
            }
            let Some(then) = then else { continue };
            match now {
                Some((same, _)) if Stood::of(goroutine) == Stood::of(same) => self.stands(then, goroutine.goid),
                Some((same, stack)) if place(same, *stack) == Some(then) => {
                    returned.insert(then);
                }
                _ => self.leaves(then, stood.contains(&goroutine.goid)),
            }
        }
        for place in returned {
            if let Some(passage) = self.place(place) {
                passage.returns = passage.returns.saturating_add(1);
            }
        }
        gone
    }

    fn stands(&mut self, place: GroupKey, goid: u64) {
        if self.stood.len() < MAX_STOOD && self.of(&place).left > 0 {
            self.stood.insert(goid);
        }
    }

    fn leaves(&mut self, place: GroupKey, lingered: bool) {
        if let Some(passage) = self.place(place) {
            passage.left = passage.left.saturating_add(1);
            passage.lingered = passage.lingered.saturating_add(u64::from(lingered));
        }
    }

    fn place(&mut self, place: GroupKey) -> Option<&mut Passage> {
        if self.places.len() >= MAX_GROUPS && !self.places.contains_key(&place) {
            return None;
        }
        Some(self.places.entry(place).or_default())
    }

    /// What is known of one place.
    pub fn of(&self, place: &GroupKey) -> Passage {
        self.places.get(place).copied().unwrap_or_default()
    }

    /// All places of which anything is known.
    pub fn places(&self) -> impl Iterator<Item = (&GroupKey, &Passage)> {
        self.places.iter()
    }
}

fn place(goroutine: &Goroutine, stack: Option<StackId>) -> Option<GroupKey> {
    goroutine.status.is_waiting().then_some(GroupKey::of(goroutine, stack?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::census::{Census, Status};

    /// Goroutines of one `go` statement: id, how often it has stopped running, the stack it waits in.
    fn look(goroutines: &[(u64, u8, u32)]) -> CensusTaken {
        let goroutine = |(goid, runs, _): &(u64, u8, u32)| Goroutine {
            goid: *goid,
            creation_pc: 7,
            status: Status::Waiting,
            tracking_seq: Some(*runs),
            ..Goroutine::default()
        };
        CensusTaken {
            census: Census { goroutines: goroutines.iter().map(goroutine).collect(), ..Census::default() },
            stacks: goroutines.iter().map(|(.., stack)| Some(StackId(*stack))).collect(),
            stack_moved: 0,
            stack_cut: 0,
            stack_unknown: 0,
        }
    }

    #[test]
    fn who_comes_back_rests_and_who_goes_on_passes() {
        let mut passages = Passages::default();
        let first = look(&[(1, 0, 10), (2, 0, 10), (3, 0, 11), (4, 0, 11)]);
        // The first has come back, the second stands, the third waits elsewhere, the fourth has ended.
        let second = look(&[(1, 1, 10), (2, 0, 10), (3, 1, 12)]);
        let gone = passages.take(&first, &second);
        assert_eq!(gone.get(&7), Some(&1));
        let of = |passages: &Passages, stack| {
            passages.of(&place(&first.census.goroutines[0], Some(StackId(stack))).expect("it waits"))
        };
        assert_eq!(of(&passages, 10), Passage { left: 0, lingered: 0, returns: 1 });
        assert_eq!(of(&passages, 11), Passage { left: 2, lingered: 0, returns: 0 });
        assert_eq!(of(&passages, 12), Passage::default());
        // One stands where others have gone on, and goes on as well.
        let looks = [look(&[(5, 0, 11)]), look(&[(5, 0, 11)]), look(&[])];
        looks.windows(2).for_each(|pair| {
            passages.take(&pair[0], &pair[1]);
        });
        assert_eq!(of(&passages, 11), Passage { left: 3, lingered: 1, returns: 0 });
    }
}
