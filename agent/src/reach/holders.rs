//! Who may hold the locks that leaked goroutines wait for.
//!
//! A mutex does not say who has it. But if a waiter is proven leaked, nothing that lives leads to the mutex, so that its
//! holder is leaked too, or ended without unlocking it. A leaked goroutine that has it and means to unlock it still has it
//! on its stack: the compiler's pointer maps tell.

use hashbrown::{HashMap, HashSet};

use super::Leaked;
use super::candidates::Wait;
use super::heap::Spans;
use super::stack::{Stacks, Start};

/// Stacks looked through at most.
const MAX_STACKS: usize = 20_000;
/// Goroutines named for one lock.
const MAX_NAMED: usize = 16;
/// Locks of a cycle that are told.
const MAX_CYCLE: usize = 8;

/// Fills in [`may_hold`](super::state::Primitive::may_hold).
pub(super) fn find(leaked: &mut [Leaked], stacks: &Stacks<'_>, spans: &Spans) {
    let object_of = |address: u64| spans.find(address).map(|object| (object.span, object.index));
    // The locks in each heap object, and who waits for each.
    let mut locks: HashMap<_, Vec<u64>> = HashMap::new();
    let mut waits: HashSet<(u64, u64)> = HashSet::new();
    for (goid, address) in leaked.iter().filter_map(|leaked| Some((leaked.goroutine.goid, lock_of(leaked)?))) {
        waits.insert((goid, address));
        let in_object = object_of(address).map(|object| locks.entry(object).or_default());
        if let Some(in_object) = in_object.filter(|known| !known.contains(&address)) {
            in_object.push(address);
        }
    }
    if locks.is_empty() {
        return;
    }
    let mut holders: HashMap<u64, Vec<u64>> = HashMap::new();
    for Leaked { goroutine, .. } in leaked.iter().take(MAX_STACKS) {
        stacks.scan(goroutine, Start::Walk, &[], &mut |pointer| {
            for lock in object_of(pointer).and_then(|object| locks.get(&object)).into_iter().flatten() {
                let named = holders.entry(*lock).or_default();
                if named.last() != Some(&goroutine.goid) && !waits.contains(&(goroutine.goid, *lock)) {
                    named.push(goroutine.goid);
                }
            }
        });
    }
    for leaked in leaked {
        let Some(lock) = lock_of(leaked) else { continue };
        if let (Some(primitive), Some(named)) = (leaked.primitives.first_mut(), holders.get(&lock)) {
            primitive.may_hold = named.iter().copied().take(MAX_NAMED).collect();
        }
    }
}

fn lock_of(leaked: &Leaked) -> Option<u64> {
    let is_lock = matches!(leaked.wait, Wait::Mutex | Wait::Lock | Wait::RLock);
    leaked.primitives.first().filter(|_| is_lock).map(|primitive| primitive.address)
}

/// What can be said of who holds the lock that `stuck` waits for.
pub fn sentence(stuck: &Leaked, leaked: &HashMap<u64, &Leaked>) -> Option<String> {
    let lock = lock_of(stuck)?;
    if let Some(cycle) = cycle(stuck, leaked) {
        let mut sentence = format!("a cycle of locks: goroutine {} wants the one at {lock:#x}", stuck.goroutine.goid);
        for next in cycle {
            let wants = lock_of(next).unwrap_or_default();
            let goid = next.goroutine.goid;
            sentence.push_str(&format!(", which goroutine {goid} has, which wants the one at {wants:#x}"));
        }
        sentence.push_str(&format!(", which goroutine {} has", stuck.goroutine.goid));
        return Some(sentence);
    }
    let named = &stuck.primitives.first()?.may_hold;
    Some(match &named[..] {
        [] => "no other stuck goroutine has it: it was locked by one that ended without unlocking it, or twice by the \
               same"
            .to_owned(),
        [one] => format!("only goroutine {one}, which is stuck itself, can have it"),
        [some @ .., last] => {
            let some: Vec<String> = some.iter().map(u64::to_string).collect();
            format!("only goroutines {} or {last}, which are stuck themselves, can have it", some.join(", "))
        }
    })
}

/// The way from `stuck` over lock and holder back to itself, without it, where each lock has one possible holder.
fn cycle<'l>(stuck: &Leaked, leaked: &HashMap<u64, &'l Leaked>) -> Option<Vec<&'l Leaked>> {
    let mut way = Vec::new();
    let mut at = stuck;
    loop {
        let [holder] = at.primitives.first()?.may_hold[..] else { return None };
        if holder == stuck.goroutine.goid {
            return Some(way).filter(|way| !way.is_empty());
        }
        at = *leaked.get(&holder)?;
        lock_of(at)?;
        if way.len() == MAX_CYCLE {
            return None;
        }
        way.push(*leaked.get(&holder)?);
    }
}
