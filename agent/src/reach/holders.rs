//! Who holds the locks that leaked goroutines wait for.
//!
//! A mutex does not say who has it. But if a waiter is proven leaked, nothing that lives leads to the mutex, so that its
//! holder is leaked too, or ended without unlocking it. "Holds" is said only where a deferred unlock of exactly this lock is
//! pending ([`super::unlocks`]), the lock is locked, and nobody else shows the same. "May hold" is said of those whose stacks,
//! by the compiler's pointer maps, refer to the lock or its object, and which lock somewhere else than where they wait.

use hashbrown::{HashMap, HashSet};

use super::Leaked;
use super::heap::Spans;
use super::stack::{Stacks, Start};
use super::unlocks::{Pending, Unlocks};
use crate::cause::wait::Wait;
use crate::memory::census::Goroutine;

/// Stacks looked through at most.
const MAX_STACKS: usize = 20_000;
/// Goroutines named for one lock.
const MAX_NAMED: usize = 16;
/// Locks of a cycle that are told.
const MAX_CYCLE: usize = 8;
/// In objects of this size and less lie several small ones, whatever the pointers to them mean (`maxTinySize` in
/// src/runtime/malloc.go).
const TINY: u64 = 16;

/// Who is known to have a lock, and who may have it.
#[derive(Default)]
pub(super) struct LockHolders {
    pub(super) shown: Vec<u64>,
    pub(super) perhaps: Vec<u64>,
}

/// Of goroutines that wait for a condition the lock that `Wait` has let go of, although its unlocking is deferred as a rule; none where
/// the condition is not known.
pub(super) type Released = HashMap<u64, Option<u64>>;

/// The same, of goroutines (their ids) that wait for a condition whose list is at this address (`sync.Cond`, src/sync/cond.go: the
/// lock is an interface before the list).
pub(super) fn released(stacks: &Stacks<'_>, waits: impl Iterator<Item = (u64, Option<u64>)>) -> Released {
    let lock = |list: u64| stacks.word(list.checked_sub(8)?);
    waits.map(|(goid, list)| (goid, list.and_then(lock))).collect()
}

/// Who has the locks that goroutines want, by lock. `wants` has goroutines and locks, `suspects` goroutines that do not run.
pub(super) fn of<'g>(
    wants: &HashSet<(u64, u64)>,
    suspects: impl Iterator<Item = &'g Goroutine>,
    stacks: &Stacks<'_>,
    unlocks: &Unlocks<'_>,
    spans: &Spans,
    released: &Released,
) -> HashMap<u64, LockHolders> {
    let object_of = |address: u64| spans.find(address).map(|object| (object.span, object.index));
    let mut known: HashMap<u64, LockHolders> = HashMap::new();
    // The locks in each heap object but tiny ones.
    let mut in_objects: HashMap<_, Vec<u64>> = HashMap::new();
    for (_, lock) in wants {
        if known.insert(*lock, LockHolders::default()).is_none()
            && let Some(object) = spans
                .find(*lock)
                .filter(|object| spans.spans.get(object.span as usize).is_some_and(|span| span.elem > TINY))
        {
            in_objects.entry((object.span, object.index)).or_default().push(*lock);
        }
    }
    if known.is_empty() {
        return known;
    }
    let wanting: HashSet<u64> = wants.iter().map(|(goid, _)| *goid).collect();
    for goroutine in suspects.take(MAX_STACKS) {
        let goid = goroutine.goid;
        let mut add = |lock: u64, shown: bool, outer: bool| {
            // Who wants a lock has it only if a function further out has seen to its unlocking.
            let may = !wants.contains(&(goid, lock)) || (shown && outer);
            let let_go = released.get(&goid).is_some_and(|own| own.is_none_or(|own| own == lock));
            let Some(known) = known.get_mut(&lock).filter(|_| may && !let_go) else { return };
            let list = if shown { &mut known.shown } else { &mut known.perhaps };
            if !list.contains(&goid) && list.len() < MAX_NAMED {
                list.push(goid);
            }
        };
        for Pending { locks, certain, outer } in unlocks.pending(goroutine) {
            locks.iter().for_each(|lock| add(*lock, certain, outer));
        }
        let mut pointers = Vec::new();
        stacks.scan(goroutine, Start::Walk, &[], &mut |pointer| {
            let in_object = object_of(pointer).and_then(|object| in_objects.get(&object)).into_iter().flatten();
            pointers.extend(in_object.copied().chain([pointer]));
        });
        pointers.retain(|lock| !wants.contains(&(goid, *lock)));
        if !pointers.is_empty() && unlocks.locks_elsewhere(goroutine, wanting.contains(&goid)) {
            pointers.into_iter().for_each(|lock| add(lock, false, false));
        }
    }
    known
}

/// Fills in who [`holds`](crate::cause::primitive::Primitive::holds) and [`may_hold`](crate::cause::primitive::Primitive::may_hold) a lock.
pub(super) fn find(leaked: &mut [Leaked], stacks: &Stacks<'_>, unlocks: &Unlocks<'_>, spans: &Spans) {
    let wants = leaked.iter().filter_map(|leaked| Some((leaked.goroutine.goid, lock_of(leaked)?))).collect();
    let conditions = leaked.iter().filter(|leaked| leaked.wait == Wait::Cond);
    let list = |leaked: &Leaked| leaked.primitives.first().map(|primitive| primitive.address);
    let released = released(stacks, conditions.map(|leaked| (leaked.goroutine.goid, list(leaked))));
    let known = of(&wants, leaked.iter().map(|leaked| &leaked.goroutine), stacks, unlocks, spans, &released);
    fill(leaked, &known);
}

/// Says of each lock what is known of who has it.
fn fill(leaked: &mut [Leaked], known: &HashMap<u64, LockHolders>) {
    for leaked in leaked {
        let Some(LockHolders { shown, perhaps }) = lock_of(leaked).and_then(|lock| known.get(&lock)) else { continue };
        let Some(primitive) = leaked.primitives.first_mut() else { continue };
        match &shown[..] {
            [holder] if primitive.state.is_locked() => primitive.holds = Some(*holder),
            _ => {
                primitive.may_hold =
                    shown.iter().chain(perhaps.iter().filter(|goid| !shown.contains(goid))).copied().collect()
            }
        }
    }
}

/// The address of the lock that it waits for: that of its semaphore is what the runtime knows (src/sync/mutex.go and
/// src/sync/rwmutex.go).
fn lock_of(leaked: &Leaked) -> Option<u64> {
    lock_at(leaked.wait, leaked.primitives.first()?.address)
}

/// The same, of what waits so at this semaphore.
pub(super) fn lock_at(wait: Wait, address: u64) -> Option<u64> {
    let semaphore = match wait {
        Wait::Mutex => 4,
        Wait::Lock => 8,
        Wait::RLock => 12,
        _ => return None,
    };
    address.checked_sub(semaphore)
}

/// What can be said of who holds the lock that `stuck` waits for.
pub fn sentence(stuck: &Leaked, leaked: &HashMap<u64, &Leaked>) -> Option<String> {
    let lock = lock_of(stuck)?;
    if let Some((cycle, shown)) = cycle(stuck, leaked) {
        let (begin, has) = if shown { ("a", "has") } else { ("perhaps a", "may have") };
        let mut sentence =
            format!("{begin} cycle of locks: goroutine {} wants the one at {lock:#x}", stuck.goroutine.goid);
        for next in cycle {
            let wants = lock_of(next).unwrap_or_default();
            let goid = next.goroutine.goid;
            sentence.push_str(&format!(", which goroutine {goid} {has}, which wants the one at {wants:#x}"));
        }
        sentence.push_str(&format!(", which goroutine {} {has}", stuck.goroutine.goid));
        return Some(sentence);
    }
    let primitive = stuck.primitives.first()?;
    if primitive.holds == Some(stuck.goroutine.goid) {
        let how = match stuck.wait {
            Wait::RLock => "; a second RLock waits behind a writer that waits for the first",
            _ => "",
        };
        return Some(format!(
            "it holds this lock already, its deferred unlock has not run, and wants it once more{how}"
        ));
    }
    if let Some(holder) = primitive.holds {
        return Some(format!("goroutine {holder}, which is stuck itself, holds it: its deferred unlock has not run"));
    }
    Some(match &primitive.may_hold[..] {
        [] => "no other stuck goroutine is seen to have it: it was locked by one that has returned or ended without \
               unlocking it, or twice by the same"
            .to_owned(),
        [one] => format!("goroutine {one}, which is stuck itself, may hold it"),
        [some @ .., last] => {
            let some: Vec<String> = some.iter().map(u64::to_string).collect();
            format!("goroutines {} or {last}, which are stuck themselves, may hold it", some.join(", "))
        }
    })
}

/// The way from `stuck` over lock and holder back to itself, without it, where each lock has one possible holder; and whether all
/// of them are shown to hold.
fn cycle<'l>(stuck: &Leaked, leaked: &HashMap<u64, &'l Leaked>) -> Option<(Vec<&'l Leaked>, bool)> {
    let mut way = Vec::new();
    let mut all_shown = true;
    let mut at = stuck;
    loop {
        let primitive = at.primitives.first()?;
        let (holder, shown) = match (primitive.holds, &primitive.may_hold[..]) {
            (Some(holder), _) => (holder, true),
            (None, [one]) => (*one, false),
            _ => return None,
        };
        all_shown &= shown;
        if holder == stuck.goroutine.goid {
            return Some((way, all_shown)).filter(|(way, _)| !way.is_empty());
        }
        let next = *leaked.get(&holder)?;
        lock_of(next)?;
        if way.len() == MAX_CYCLE {
            return None;
        }
        way.push(next);
        at = next;
    }
}
