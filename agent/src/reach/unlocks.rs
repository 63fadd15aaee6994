//! Deferred unlocks that have not run: they show which locks a goroutine has.
//!
//! A `defer mu.Unlock()` is a closure that holds the lock's address. It is in a record of `g._defer`, or, where the compiler has
//! open-coded it, in a slot of its function's frame with a bit that says whether it is still to run
//! (`FUNCDATA_OpenCodedDeferInfo`; src/runtime/panic.go). What a closure does its own code tells: calls, and functions that are
//! inlined.
//!
//! Deliberately absent: a guess. A closure that also locks, or unlocks on a condition, and a function that unlocks before its
//! end, too, show only that the goroutine may have the lock.

use std::cell::RefCell;

use hashbrown::HashMap;

use super::Subject;
use super::stack::Stacks;
use crate::cause::wait::Wait;
use crate::golang::Arch;
use crate::golang::code::{self, Code};
use crate::golang::pclntab::FuncId;
use crate::memory::bytes_at;
use crate::memory::census::Goroutine;
use crate::memory::word_at;

/// `FUNCDATA_OpenCodedDeferInfo`
const OPEN_CODED_DEFER_INFO: u8 = 4;
/// Bits of a frame's `deferBits`.
const MAX_OPEN_CODED: u64 = 8;
/// Records of one goroutine looked at.
const MAX_RECORDS: usize = 1 << 10;
/// Frames of one goroutine looked at.
const MAX_FRAMES: usize = 256;
/// Functions inlined into one that are looked at.
const MAX_INLINED: usize = 1 << 12;
/// Conditional jumps of a closure that only unlocks: one of its prologue, and those of an unlocking that is inlined. arm64 chooses
/// its atomic instructions by one, and may have to repeat them.
const fn max_jumps(arch: Arch, inlined: u32) -> u32 {
    match arch {
        Arch::Amd64 => 1 + inlined,
        Arch::Arm64 => 1 + 3 * inlined,
    }
}

/// What unlocks.
const UNLOCKS: [&str; 3] = ["sync.(*Mutex).Unlock", "sync.(*RWMutex).Unlock", "sync.(*RWMutex).RUnlock"];
/// What locks.
const LOCKS: [&str; 6] = [
    "sync.(*Mutex).Lock",
    "sync.(*Mutex).TryLock",
    "sync.(*RWMutex).Lock",
    "sync.(*RWMutex).TryLock",
    "sync.(*RWMutex).RLock",
    "sync.(*RWMutex).TryRLock",
];

/// What tells a wait group that a member is done; `Done` is `Add(-1)`, and inlined in wrappers.
const DONES: [&str; 2] = ["sync.(*WaitGroup).Done", "sync.(*WaitGroup).Add"];

/// What sends on a channel, or closes it, as code is compiled to. A select may.
const SENDS: [&str; 4] = ["runtime.chansend1", "runtime.selectnbsend", "runtime.closechan", "runtime.selectgo"];
/// What receives from one.
const RECEIVES: [&str; 4] = ["runtime.chanrecv1", "runtime.chanrecv2", "runtime.selectnbrecv", "runtime.selectgo"];

/// One of the two halves that make a value go through a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Half {
    /// To send, or to close the channel.
    Send,
    /// To receive.
    Receive,
}

impl Half {
    /// What a goroutine that waits so would do.
    pub(super) const fn of(wait: Wait) -> Option<Self> {
        match wait {
            Wait::Send => Some(Self::Send),
            Wait::Receive => Some(Self::Receive),
            _ => None,
        }
    }
}

/// What a function does with locks and channels.
#[derive(Clone, Debug, Default)]
struct Conduct {
    /// Places where it locks.
    locks: u32,
    /// Places where it unlocks.
    unlocks: u32,
    /// Places where it tells a `sync.WaitGroup` that it is done.
    dones: u32,
    /// Places where it sends on a channel or closes it.
    sends: u32,
    /// Places where it receives.
    receives: u32,
    /// What it does it does whatever happens.
    straight: bool,
    /// Offsets in its closure of what it reads there.
    captured: Vec<u64>,
    /// What it adds to pointers: where in its struct a lock is.
    added: Vec<u64>,
    /// Of a wrapper that does nothing with locks itself the only function that it calls.
    wraps: Option<u64>,
}

impl Conduct {
    /// It calls that, or that is inlined into it.
    fn count(&mut self, name: &str) {
        self.locks += u32::from(LOCKS.contains(&name));
        self.unlocks += u32::from(UNLOCKS.contains(&name));
        self.dones += u32::from(DONES.contains(&name));
        self.sends += u32::from(SENDS.contains(&name));
        self.receives += u32::from(RECEIVES.contains(&name));
    }

    /// Whether a function is one of those that unlocking itself is made of.
    fn is_of_unlocking(name: &str) -> bool {
        ["sync.", "internal/sync.", "sync/atomic.", "internal/race.", "internal/runtime/", "runtime"]
            .iter()
            .any(|package| name.starts_with(package))
    }
}

/// A deferred unlock that has not run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pending {
    /// Addresses that its closure holds, or that it makes of them.
    pub(super) locks: Vec<u64>,
    /// It unlocks whatever happens, and nothing else has before.
    pub(super) certain: bool,
    /// It is of a function that has called the one in which the goroutine waits.
    pub(super) outer: bool,
}

/// Finds them.
pub(super) struct Unlocks<'m> {
    subject: &'m Subject<'m>,
    stacks: &'m Stacks<'m>,
    known: RefCell<HashMap<u64, Conduct>>,
}

impl<'m> Unlocks<'m> {
    pub(super) fn new(subject: &'m Subject<'m>, stacks: &'m Stacks<'m>) -> Self {
        Self { subject, stacks, known: RefCell::default() }
    }

    /// Those of a goroutine that waits.
    pub(super) fn pending(&self, goroutine: &Goroutine) -> Vec<Pending> {
        let mut found: Vec<Pending> =
            self.records(goroutine).into_iter().flat_map(|(pc, closure)| self.unlock(pc, closure, false)).collect();
        let mut outer = false;
        for (pc, varp) in self.stacks.frames(goroutine, MAX_FRAMES) {
            let closures = self.open_coded(pc, varp).unwrap_or_default();
            found.extend(closures.into_iter().flat_map(|closure| self.unlock(pc, closure, outer)));
            outer |= self.func(pc).is_some_and(|func| !is_library(func.name));
        }
        found
    }

    /// Addresses that closures hold which, deferred by a goroutine that waits, will tell a wait group that it is done.
    pub(super) fn dones(&self, goroutine: &Goroutine) -> Vec<u64> {
        let mut closures: Vec<u64> = self.records(goroutine).into_iter().map(|(_, closure)| closure).collect();
        for (pc, varp) in self.stacks.frames(goroutine, MAX_FRAMES) {
            closures.extend(self.open_coded(pc, varp).unwrap_or_default());
        }
        let memory = self.subject.memory;
        let mut found = Vec::new();
        for closure in closures {
            let Ok(entry) = memory.read_u64(closure) else { continue };
            let conduct = self.conduct(entry.wrapping_sub(self.subject.slide));
            if conduct.dones > 0 {
                let (held, made) = self.addresses(&conduct, closure);
                found.extend(held.into_iter().chain(made));
            }
        }
        found
    }

    /// Whether a function among those of its stack locks at another place than the one where the goroutine waits for a lock, if that
    /// is what it waits for.
    pub(super) fn locks_elsewhere(&self, goroutine: &Goroutine, waits_for_lock: bool) -> bool {
        self.elsewhere(goroutine, waits_for_lock, |conduct| conduct.locks)
    }

    /// Whether one of them does this with a channel, at another place than the one where the goroutine stands, if it stands at such.
    pub(super) fn does(&self, goroutine: &Goroutine, half: Half, stands: bool) -> bool {
        self.elsewhere(goroutine, stands, |conduct| match half {
            Half::Send => conduct.sends,
            Half::Receive => conduct.receives,
        })
    }

    fn elsewhere(&self, goroutine: &Goroutine, mut stands: bool, places: impl Fn(&Conduct) -> u32) -> bool {
        for (pc, _) in self.stacks.frames(goroutine, MAX_FRAMES) {
            let Some(func) = self.func(pc) else { continue };
            if is_library(func.name) {
                continue;
            }
            let here = u32::from(std::mem::take(&mut stands));
            if places(&self.conduct(func.entry)) > here {
                return true;
            }
        }
        false
    }

    fn func(&self, pc: u64) -> Option<crate::golang::pclntab::Func<'_>> {
        self.subject.pclntab.func(pc.wrapping_sub(self.subject.slide).wrapping_sub(1))
    }

    /// `g._defer` and what it links to: who deferred it, and the closure.
    fn records(&self, goroutine: &Goroutine) -> Vec<(u64, u64)> {
        let Subject { memory, layout, .. } = *self.subject;
        let mut found = Vec::new();
        let mut next = memory.read_u64(goroutine.address.wrapping_add(u64::from(layout.g_defer))).unwrap_or(0);
        while next != 0 && found.len() < MAX_RECORDS {
            let Some(record) = bytes_at(memory, next, layout.defer_size as usize) else { break };
            let word = |offset: u32| word_at(&record, offset as usize).unwrap_or(0);
            found.push((word(layout.defer_pc), word(layout.defer_fn)));
            next = word(layout.defer_link);
        }
        found
    }

    /// The closures of a frame's open-coded defers that are still to run.
    fn open_coded(&self, pc: u64, varp: u64) -> Option<Vec<u64>> {
        let Subject { memory, layout, pclntab, .. } = *self.subject;
        let func = self.func(pc)?;
        let mut info = pclntab.funcdata(&func, OPEN_CODED_DEFER_INFO)?;
        let mut number = || varint(&mut info);
        let mut byte = [0];
        memory.read(varp.checked_sub(number()?)?, &mut byte).ok()?;
        let pending = |bit: u64| byte[0] & (1 << bit) != 0;
        let slots: Vec<u64> = if layout.minor >= 22 {
            let first = varp.checked_sub(number()?)?;
            (0..MAX_OPEN_CODED).filter(|bit| pending(*bit)).map(|bit| first.wrapping_add(8 * bit)).collect()
        } else {
            // The last one first.
            let count = number()?.min(MAX_OPEN_CODED);
            let slots: Option<Vec<u64>> = (0..count).map(|_| varp.checked_sub(number()?)).collect();
            (0..count).rev().zip(slots?).filter(|(bit, _)| pending(*bit)).map(|(_, slot)| slot).collect()
        };
        Some(slots.into_iter().filter_map(|slot| memory.read_u64(slot).ok()).collect())
    }

    /// What a closure unlocks that a function at `pc` has deferred; nothing if it does something else.
    fn unlock(&self, pc: u64, closure: u64, outer: bool) -> Vec<Pending> {
        let Ok(entry) = self.subject.memory.read_u64(closure) else { return Vec::new() };
        let conduct = self.closure(entry.wrapping_sub(self.subject.slide));
        if conduct.unlocks == 0 {
            return Vec::new();
        }
        let only_unlocks = conduct.unlocks == 1 && conduct.locks == 0 && conduct.straight;
        let at_the_end = self.func(pc).is_some_and(|func| self.conduct(func.entry).unlocks == 0);
        let certain = only_unlocks && at_the_end;
        let (held, made) = self.addresses(&conduct, closure);
        // Where it adds something, a lock at the address itself may be another one than the one that it unlocks.
        let held = Pending { locks: held, certain: certain && conduct.added.is_empty(), outer };
        vec![held, Pending { locks: made, certain, outer }]
    }

    /// The addresses that a closure holds, and the one that it makes by adding to the only one that it holds.
    fn addresses(&self, conduct: &Conduct, closure: u64) -> (Vec<u64>, Vec<u64>) {
        let read = |offset: &u64| self.subject.memory.read_u64(closure.wrapping_add(*offset)).ok();
        let held: Vec<u64> = conduct.captured.iter().filter_map(read).collect();
        let made = match (&held[..], &conduct.added[..]) {
            ([held], [added]) => vec![held.wrapping_add(*added)],
            _ => Vec::new(),
        };
        (held, made)
    }

    /// What a closure does when it is called. That what a function which it only wraps unlocks is its argument's lock is not shown.
    fn closure(&self, entry: u64) -> Conduct {
        let own = self.conduct(entry);
        match own.wraps {
            Some(wrapped) => Conduct { straight: false, captured: own.captured, ..self.conduct(wrapped) },
            None => own,
        }
    }

    fn conduct(&self, entry: u64) -> Conduct {
        if let Some(known) = self.known.borrow().get(&entry) {
            return known.clone();
        }
        let conduct = self.read_conduct(entry).unwrap_or_default();
        self.known.borrow_mut().insert(entry, conduct.clone());
        conduct
    }

    fn read_conduct(&self, entry: u64) -> Option<Conduct> {
        let Subject { constant, pclntab, slide, layout, .. } = *self.subject;
        let func = pclntab.func(entry).filter(|func| func.entry == entry && func.end - func.entry <= code::MAX_CODE)?;
        let mut conduct = Conduct::default();
        pclntab.inlined_in(&func, MAX_INLINED).for_each(|name| conduct.count(name));
        let inlined = conduct.unlocks;
        let mut code = vec![0; (func.end - func.entry) as usize];
        constant.read(func.entry.wrapping_add(slide), &mut code).ok()?;
        let told = Code::read(layout.arch, &code, func.entry);
        let calls = || told.calls.iter().filter_map(|target| pclntab.func(*target));
        calls().for_each(|target| conduct.count(target.name));
        // The compiler's own wrapper of a deferred call does nothing else, but looks for a panic. What it calls can be inlined into
        // it, and have conditions.
        let is_wrapper =
            func.id == FuncId::Wrapper && pclntab.inlined_in(&func, MAX_INLINED).all(Conduct::is_of_unlocking);
        conduct.straight = is_wrapper || told.jumps <= max_jumps(layout.arch, inlined);
        if func.id == FuncId::Wrapper && conduct.unlocks + conduct.locks + conduct.dones == 0 {
            let called: Vec<u64> =
                calls().filter(|called| !Conduct::is_of_unlocking(called.name)).map(|called| called.entry).collect();
            conduct.wraps = called.first().copied().filter(|_| called.len() == 1);
        }
        conduct.captured = told.captured;
        conduct.added = told.added;
        Some(conduct)
    }
}

/// Whether a function only waits for whoever called it.
fn is_library(name: &str) -> bool {
    ["runtime.", "sync.", "internal/sync."].iter().any(|package| name.starts_with(package))
}

/// Takes an unsigned number of 32 bits off the front of `bytes` (`readvarintUnsafe`).
fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..35).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_taken_off_the_front() {
        let mut bytes: &[u8] = &[0x05, 0x80, 0x01, 0xff];
        assert_eq!((varint(&mut bytes), varint(&mut bytes), varint(&mut bytes)), (Some(5), Some(128), None));
        assert_eq!(varint(&mut &[0x80; 9][..]), None);
    }
}
