//! Marking: from the roots, through the heap, to a fixpoint in which a goroutine is live if it can run, or if something
//! live leads to what it waits for.
//!
//! The work is driven by what gets marked: each object that somebody waits for is watched, and marking it makes its
//! waiters live at once, so that a chain of waiters costs as much as its links. `g`s and the sudogs of waiters are marked
//! but not looked into: they are how the runtime finds waiters, not how a program reaches what they wait for.
//!
//! A pointer to any byte of an object keeps all of it, but does not lead to all of it. That matters where an object is several
//! values: the allocator puts those of less than 16 bytes without pointers into blocks of 16, a lone `sync.Mutex` beside whatever
//! is made next. What Go code may hold to reach a mutex is a pointer to one of its bytes, or to the value that the mutex is part
//! of, which begins at or below it: the language and its compiler add to pointers and never subtract, and a pointer just behind a
//! value is never made (an empty slice at the end of an array keeps the array's start). So a pointer above the mutex's last byte
//! leads to what follows it, in its own value or in the next, and not to it. One below it may be of the value before, or of its
//! own: that makes its waiters live when nothing else does, and they are counted ([`Marker::sharing`]). Code that goes from a field back to its struct by
//! package unsafe, and keeps nothing but the field's address, is the one exception; in structs of this size nobody does.

pub mod held;
mod kinds;
mod timed;
mod together;

use std::collections::BTreeMap;

use hashbrown::HashMap;

use super::Helpers;
use super::candidates::Candidate;
use super::heap::{Marks, Object, Span};
use super::objects::{Objects, words};
use super::roots::Held;
use super::stack::{Stacks, Start};
use crate::cause::wait::Wait;
use crate::memory::census::{Goroutine, Status};
use crate::memory::chain::Chain;
use crate::memory::{Memory, word_at};
use timed::Timed;

/// Objects that one thread looks into before others help: no more than they take to begin.
const ALONE: u32 = 1024;
/// `maxTinySize`
const TINY: u64 = 16;

/// Deferred calls of one goroutine followed at most.
const MAX_DEFERS: usize = 1 << 20;
/// `xRegState` is at most this large: 32 registers of 64 bytes, masks and flags.
pub const XREGS: usize = 2560;

/// A candidate, and which addresses within an object lead to what it waits for.
#[derive(Clone, Copy)]
struct Waiter {
    candidate: u32,
    /// From here on they do for sure.
    certain: u64,
    /// From here on they do not.
    end: u64,
    /// Whether there was one below.
    perhaps: bool,
    /// It is the channel of a timer.
    timer: bool,
}

impl Waiter {
    /// One that waits in this way for what is at `primitive` in an object of `span`.
    fn of(candidate: u32, wait: Wait, primitive: u64, span: &Span) -> Self {
        let all = Self { candidate, certain: 0, end: u64::MAX, perhaps: false, timer: false };
        match wait {
            // The address is that of `sema`, behind `state`; both are half a word.
            Wait::Mutex if is_tiny(span) => {
                Self { certain: primitive.saturating_sub(4), end: primitive.saturating_add(4), ..all }
            }
            _ => all,
        }
    }
}

/// Whether the objects of a span may each be several values (`tinySpanClass` in src/runtime/malloc.go).
fn is_tiny(span: &Span) -> bool {
    span.noscan && span.elem == TINY
}

/// See the module.
pub struct Marker<'a, 'm> {
    memory: &'m dyn Memory,
    objects: &'a Objects<'m>,
    stacks: &'a Stacks<'m>,
    goroutines: &'a [Goroutine],
    candidates: &'a [Candidate],
    threads: &'a Held,
    marked: Marks,
    /// Objects that mean something beyond what they hold.
    watched: Marks,
    /// Not looked into.
    opaque: Marks,
    /// Candidates by the objects they wait for.
    waiters: HashMap<u64, Vec<Waiter>>,
    todo: Vec<Object>,
    live: Vec<bool>,
    /// Candidates found live whose stacks are still to be scanned.
    woken: Vec<u32>,
    /// Candidates to whose locks a pointer may lead that may also be another value's.
    perhaps: Vec<u32>,
    /// How many candidates are live for nothing but such a pointer.
    pub sharing: u64,
    timed: Timed,
    helpers: Helpers,
    scratch: Vec<u64>,
    /// Objects and stacks that are live and cannot be read: what they lead to is not known.
    pub unreadable: u64,
}

impl<'a, 'm> Marker<'a, 'm> {
    /// A marker for which nothing is live yet, with these helpers. `threads` tells of goroutines that do not stand
    /// still.
    pub fn new(
        memory: &'m dyn Memory,
        objects: &'a Objects<'m>,
        stacks: &'a Stacks<'m>,
        goroutines: &'a [Goroutine],
        candidates: &'a [Candidate],
        threads: &'a Held,
        helpers: Helpers,
    ) -> Self {
        let all = objects.spans.objects;
        Self {
            memory,
            objects,
            stacks,
            goroutines,
            candidates,
            threads,
            marked: Marks::new(all),
            watched: Marks::new(all),
            opaque: Marks::new(all),
            waiters: HashMap::new(),
            todo: Vec::new(),
            live: vec![false; candidates.len()],
            woken: Vec::new(),
            perhaps: Vec::new(),
            sharing: 0,
            timed: Timed::default(),
            helpers,
            scratch: Vec::new(),
            unreadable: 0,
        }
    }

    /// Keeps `addresses` from being looked into.
    pub fn hide(&mut self, addresses: impl Iterator<Item = u64>) {
        for address in addresses {
            if let Some(object) = self.objects.spans.find(address) {
                self.opaque.set(self.objects.id(object));
            }
        }
    }

    /// Watches what every candidate waits for. One that waits for something outside the heap is live.
    pub fn watch(&mut self) {
        for (index, candidate) in self.candidates.iter().enumerate() {
            for primitive in &candidate.primitives {
                match self.objects.spans.find(*primitive) {
                    Some(object) => {
                        let id = self.objects.id(object);
                        self.watched.set(id);
                        let waiter = Waiter::of(index as u32, candidate.wait, *primitive, self.objects.span(object));
                        let waiter = Waiter { timer: candidate.timers.contains(primitive), ..waiter };
                        self.waiters.entry(id).or_default().push(waiter);
                    }
                    None => self.wake(index as u32),
                }
            }
        }
    }

    /// Takes `word` for a pointer that something live holds.
    pub fn mark(&mut self, word: u64) {
        let Some(object) = self.objects.spans.find(word) else { return };
        let id = self.objects.id(object);
        let new = self.marked.set(id);
        // Of several values each has its own pointers.
        if (new || is_tiny(self.objects.span(object))) && self.watched.get(id) {
            self.wake_by(id, word);
        }
        if self.timed.is_begun() && !self.timed.is_first(id, new) {
            // What one of them alone led to others lead to too.
            self.timed.again(object);
        }
        if !new {
            return;
        }
        if !self.objects.span(object).noscan && !self.opaque.get(id) {
            self.todo.push(object);
        }
    }

    /// Takes it that something live may have pointers to all of the object at `address`.
    pub fn mark_whole(&mut self, address: u64) {
        if let Some(object) = self.objects.spans.find(address) {
            self.mark(self.objects.address(object));
        }
    }

    /// Marks what the object at `address` refers to, not the object itself.
    pub fn mark_contents(&mut self, address: u64) {
        if let Some(object) = self.objects.spans.find(address) {
            self.look_into(object);
        }
    }

    /// Makes a goroutine live: its stack, its deferred calls and what its `g` refers to are roots.
    pub fn root(&mut self, goroutine: &Goroutine) {
        let (pointers, scanned) = self.roots_of(goroutine);
        pointers.into_iter().for_each(|pointer| self.mark(pointer));
        if !scanned && goroutine.stack_hi != 0 && goroutine.status != Status::Dead {
            self.unreadable += 1;
        }
    }

    /// What a goroutine's stack, its deferred calls and its `g` refer to, and whether its stack could be scanned.
    fn roots_of(&mut self, goroutine: &Goroutine) -> (Vec<u64>, bool) {
        let mut pointers = Vec::new();
        let mut own = Vec::new();
        if let Some(object) = self.objects.spans.find(goroutine.address) {
            // Its own list of sudogs is hidden as all sudogs of waiters are.
            self.objects.pointers(object, &mut |word| pointers.push(word));
        } else {
            // The first `g` of the program is a variable.
            let g = crate::memory::bytes_at(self.memory, goroutine.address, self.layout().g.size as usize);
            pointers.extend(g.iter().flat_map(|bytes| words(bytes)));
        }
        self.deferred(goroutine, &mut pointers);
        self.registers(goroutine, &mut pointers);
        pointers.retain(|pointer| {
            let is_own = goroutine.stack_lo <= *pointer && *pointer < goroutine.stack_hi;
            if is_own {
                own.push(*pointer);
            }
            !is_own
        });
        if self.threads.starts.contains_key(&goroutine.address) {
            // Of one that runs a register alone may have the address of a variable on its stack: that of the value which is
            // being sent when `chansend` begins, of which its frame's map says nothing.
            let of_stack = |word: &&u64| goroutine.stack_lo <= **word && **word < goroutine.stack_hi;
            own.extend(self.threads.words.iter().filter(of_stack));
        }
        let start = self.threads.starts.get(&goroutine.address).copied().unwrap_or(match goroutine.has_stack() {
            true => Start::Walk,
            false => Start::Words(goroutine.stack_lo),
        });
        let scanned = self.stacks.scan(goroutine, start, &own, &mut |word| pointers.push(word))
            || self.stacks.scan(goroutine, Start::Words(goroutine.stack_lo), &own, &mut |word| pointers.push(word));
        (pointers, scanned)
    }

    /// Follows everything marked so far to the end.
    pub fn run(&mut self) {
        loop {
            self.follow();
            if let Some(candidate) = self.woken.pop() {
                self.root_candidate(candidate);
            } else if !self.wake_sharing() {
                return;
            }
        }
    }

    /// Looks into everything that was marked, and what that leads to.
    fn follow(&mut self) {
        if self.objects.contents.is_windowed() {
            self.sweep();
        }
        let mut alone = 0;
        while let Some(object) = self.todo.pop() {
            self.look_into(object);
            alone += 1;
            if alone >= ALONE && self.helpers.count > 0 && !self.timed.is_begun() && self.follow_together() {
                alone = 0;
            }
        }
    }

    /// Does the same on several threads. `false` if that cannot be.
    fn follow_together(&mut self) -> bool {
        let Some(objects) = self.objects.for_threads() else {
            self.helpers = Helpers::NONE;
            return false;
        };
        let bits = together::Bits { marked: &self.marked, watched: &self.watched, opaque: &self.opaque };
        let followed = together::follow(objects, bits, std::mem::take(&mut self.todo), self.helpers);
        self.objects.add_scanned(followed.scanned);
        self.unreadable += followed.unreadable;
        for (id, pointer) in followed.led_to {
            self.wake_by(id, pointer);
        }
        true
    }

    fn root_candidate(&mut self, candidate: u32) {
        let candidate = &self.candidates[candidate as usize];
        let goroutine = self.goroutines[candidate.goroutine];
        for sudog in &candidate.sudogs {
            self.mark_sudog(*sudog);
        }
        self.root(&goroutine);
    }

    /// Looks into what was marked, span by span in the order of their addresses and from the first again, since a span that has
    /// been read does not stay.
    fn sweep(&mut self) {
        let mut pending: BTreeMap<u32, Vec<Object>> = BTreeMap::new();
        let mut at = self.objects.contents.first();
        loop {
            for object in self.todo.drain(..) {
                pending.entry(object.span).or_default().push(object);
            }
            let next = pending.range(at..).next().or_else(|| pending.iter().next()).map(|(span, _)| *span);
            let Some(span) = next.filter(|_| !self.objects.contents.is_exhausted()) else { return };
            at = span;
            for object in pending.remove(&span).unwrap_or_default() {
                self.look_into(object);
            }
        }
    }

    /// Which candidates are live.
    pub fn live(&self) -> &[bool] {
        &self.live
    }

    /// Makes those live who wait for what a pointer to object number `id` leads to.
    fn wake_by(&mut self, id: u64, pointer: u64) {
        let Some(waiters) = self.waiters.remove(&id) else { return };
        let mut rest = Vec::new();
        for mut waiter in waiters {
            if (waiter.certain..waiter.end).contains(&pointer) {
                match waiter.timer {
                    true => self.timed.fires(waiter.candidate),
                    false => self.wake(waiter.candidate),
                }
                continue;
            }
            if pointer < waiter.certain && !std::mem::replace(&mut waiter.perhaps, true) {
                self.perhaps.push(waiter.candidate);
            }
            rest.push(waiter);
        }
        if !rest.is_empty() {
            self.waiters.insert(id, rest);
        }
    }

    /// Makes those live to whose lock nothing may lead but what may also be another value's pointer. Whether there were any.
    fn wake_sharing(&mut self) -> bool {
        for candidate in std::mem::take(&mut self.perhaps) {
            self.sharing += u64::from(self.live.get(candidate as usize) == Some(&false));
            self.wake(candidate);
        }
        !self.woken.is_empty()
    }

    fn wake(&mut self, candidate: u32) {
        if let Some(live @ false) = self.live.get_mut(candidate as usize) {
            *live = true;
            self.woken.push(candidate);
        }
    }

    fn look_into(&mut self, object: Object) {
        let mut found = std::mem::take(&mut self.scratch);
        found.clear();
        if !self.objects.pointers(object, &mut |word| found.push(word)) {
            self.unreadable += 1;
        }
        found.iter().for_each(|word| self.mark(*word));
        self.scratch = found;
    }

    fn mark_sudog(&mut self, address: u64) {
        let layout = &self.layout().sudog;
        let (element, channel) = (u64::from(layout.elem), u64::from(layout.c));
        for offset in [element, channel] {
            if let Ok(word) = self.memory.read_u64(address.wrapping_add(offset)) {
                self.mark(word);
            }
        }
    }

    /// The chain of deferred calls, which weaves between the stack and the heap.
    fn deferred(&mut self, goroutine: &Goroutine, pointers: &mut Vec<u64>) {
        let layout = self.layout();
        let (size, link) = (layout.defer_size as usize, layout.defer_link as usize);
        let head = goroutine.address.wrapping_add(u64::from(layout.g_defer));
        let mut next = self.memory.read_u64(head).unwrap_or(0);
        let mut chain = Chain::default();
        for _ in 0..MAX_DEFERS {
            if next == 0 {
                return;
            }
            if !chain.goes_on(next) {
                break;
            }
            pointers.push(next);
            let Some(record) = crate::memory::bytes_at(self.memory, next, size) else {
                self.unreadable += 1;
                return;
            };
            pointers.extend(words(&record));
            next = word_at(&record, link).unwrap_or(0);
        }
        self.unreadable += 1;
    }

    /// Vector registers that the runtime saved when it preempted the goroutine (Go 1.26 and later).
    fn registers(&mut self, goroutine: &Goroutine, pointers: &mut Vec<u64>) {
        let Some(offset) = self.layout().g_xregs else { return };
        if goroutine.status.is_waiting() {
            return;
        }
        let Ok(saved) = self.memory.read_u64(goroutine.address.wrapping_add(u64::from(offset))) else { return };
        if let Some(bytes) =
            Some(saved).filter(|saved| *saved != 0).and_then(|at| crate::memory::bytes_at(self.memory, at, XREGS))
        {
            pointers.extend(words(&bytes));
        }
    }

    fn layout(&self) -> &'m crate::golang::proof_layout::ReachLayout {
        self.objects.layout()
    }
}
