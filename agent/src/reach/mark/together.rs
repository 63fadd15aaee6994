//! Marking on several threads: what is marked does not depend on which of them comes to an object first, and neither does anything
//! that is returned.
//!
//! Each works on a stack of its own and puts part of it where the others can take it when they have nothing left. Who waits for
//! what was marked is not woken here: that is told in the order of the objects.

use std::collections::BTreeSet;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;

use parking_lot::{Condvar, Mutex};

use super::super::Helpers;
use super::super::heap::{Marks, Object};
use super::super::objects::{ForThreads, Objects};
use super::is_tiny;

/// Objects that go from one thread to another at once.
const SHARE: usize = 512;

/// What is known of each object.
#[derive(Clone, Copy)]
pub(super) struct Bits<'a> {
    /// Live.
    pub(super) marked: &'a Marks,
    /// Somebody waits for what is in it.
    pub(super) watched: &'a Marks,
    /// Not looked into.
    pub(super) opaque: &'a Marks,
}

/// What following came to.
#[derive(Default)]
pub(super) struct Followed {
    /// Watched objects that were found live, by their numbers, and the pointers that led there.
    pub(super) led_to: BTreeSet<(u64, u64)>,
    /// How many objects were scanned with and without knowledge of their pointers.
    pub(super) scanned: (u64, u64),
    /// Objects that could not be read.
    pub(super) unreadable: u64,
}

impl Followed {
    fn add(&mut self, other: Self) {
        self.led_to.extend(other.led_to);
        self.scanned.0 += other.scanned.0;
        self.scanned.1 += other.scanned.1;
        self.unreadable += other.unreadable;
    }
}

/// Objects that whoever has nothing to do takes.
struct Pool {
    objects: Mutex<Vec<Object>>,
    /// Some were put there, or all is done.
    changed: Condvar,
    /// Threads that have nothing to do.
    idle: AtomicUsize,
    threads: usize,
}

impl Pool {
    /// Takes some; `None` when nobody has any.
    fn take(&self) -> Option<Vec<Object>> {
        let mut objects = self.objects.lock();
        if objects.is_empty() && self.idle.fetch_add(1, Relaxed) + 1 == self.threads {
            self.changed.notify_all();
            return None;
        } else if objects.is_empty() {
            // Whoever puts something there, or is the last to have nothing, holds the lock.
            self.changed
                .wait_while(&mut objects, |objects| objects.is_empty() && self.idle.load(Relaxed) < self.threads);
            if objects.is_empty() {
                return None;
            }
            self.idle.fetch_sub(1, Relaxed);
        }
        let rest = objects.len().saturating_sub(SHARE);
        Some(objects.split_off(rest))
    }

    fn put(&self, objects: impl Iterator<Item = Object>) {
        self.objects.lock().extend(objects);
        self.changed.notify_one();
    }
}

/// A thread that panics has nothing to do either: the others do not wait for it.
struct Leaving<'p>(&'p Pool);

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            let _objects = self.0.objects.lock();
            self.0.idle.fetch_add(1, Relaxed);
            self.0.changed.notify_all();
        }
    }
}

/// Looks into the objects of `todo`, which are marked, and everything they lead to.
pub(super) fn follow(objects: ForThreads<'_>, bits: Bits<'_>, todo: Vec<Object>, helpers: Helpers) -> Followed {
    let threads = helpers.count + 1;
    let pool = Pool { objects: Mutex::new(todo), changed: Condvar::new(), idle: AtomicUsize::new(0), threads };
    let work = || {
        let _leaving = Leaving(&pool);
        let types = objects.types.types();
        let mut worker = Worker {
            objects: objects.objects(&types),
            bits,
            pool: &pool,
            todo: Vec::new(),
            found: Followed::default(),
        };
        worker.work();
        let Worker { objects, mut found, .. } = worker;
        found.scanned = objects.scanned();
        found
    };
    let mut followed = Followed::default();
    thread::scope(|scope| {
        let others: Vec<_> = (1..threads)
            .map(|_| {
                scope.spawn(|| {
                    (helpers.begin)();
                    work()
                })
            })
            .collect();
        followed.add(work());
        for other in others {
            // What one that panicked would have found is not known.
            followed.add(other.join().unwrap_or(Followed { unreadable: 1, ..Followed::default() }));
        }
    });
    followed
}

struct Worker<'a> {
    objects: Objects<'a>,
    bits: Bits<'a>,
    pool: &'a Pool,
    todo: Vec<Object>,
    found: Followed,
}

impl Worker<'_> {
    fn work(&mut self) {
        let mut pointers = Vec::new();
        while let Some(some) = self.pool.take() {
            self.todo = some;
            while let Some(object) = self.todo.pop() {
                pointers.clear();
                if !self.objects.pointers(object, &mut |word| pointers.push(word)) {
                    self.found.unreadable += 1;
                }
                pointers.iter().for_each(|word| self.mark(*word));
                if self.todo.len() > 2 * SHARE && self.pool.idle.load(Relaxed) > 0 {
                    // The oldest lead to most.
                    self.pool.put(self.todo.drain(..SHARE));
                }
            }
        }
    }

    fn mark(&mut self, word: u64) {
        let Some(object) = self.objects.spans.find(word) else { return };
        let id = self.objects.id(object);
        let new = self.bits.marked.set(id);
        let span = self.objects.span(object);
        if (new || is_tiny(span)) && self.bits.watched.get(id) {
            self.found.led_to.insert((id, word));
        }
        if new && !span.noscan && !self.bits.opaque.get(id) {
            self.todo.push(object);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::image::Image;
    use crate::reach::contents::Reads;
    use crate::reach::heap::Spans;
    use crate::reach::tests::{BASE, MHEAP, SpanOf, heap, layout};
    use crate::reach::types::Types;

    const SPANS: u64 = 200;
    const OBJECTS: u64 = 124;

    /// A heap of objects of 8 pointers each, all over it, some of them to nowhere.
    fn everywhere(layout: &crate::golang::proof_layout::ReachLayout) -> Image {
        let spans: Vec<SpanOf> =
            (0..SPANS).map(|index| SpanOf { base: BASE + index * 0x2000, ..SpanOf::default() }).collect();
        let mut image = heap(layout, &spans);
        let mut state = 7_u64;
        for span in spans {
            let mut bytes = vec![0; 8192];
            for word in bytes[..(OBJECTS * 64) as usize].chunks_exact_mut(8) {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let target = BASE + (state >> 33) % (SPANS * 0x2000 * 2);
                word.copy_from_slice(&target.to_le_bytes());
            }
            bytes[8192 - 128 - 128..8192 - 128].fill(0xff);
            image.insert(span.base, bytes);
        }
        image
    }

    #[test]
    fn what_several_threads_mark_is_what_one_does() {
        let layout = layout("go1.27.3");
        let image = everywhere(&layout);
        let results: Vec<_> = [0, 1, 3, 7]
            .into_iter()
            .map(|count| {
                let types = Types::new(&image, layout.minor, Vec::new());
                let spans = Spans::read(&image, &layout, MHEAP).expect("readable");
                let objects = Objects::new(&image, &layout, spans, &types, MHEAP, Reads::WHOLE);
                let all = objects.spans.objects;
                let (marked, watched, opaque) = (Marks::new(all), Marks::new(all), Marks::new(all));
                assert!((0..all).step_by(5).all(|id| watched.set(id)));
                assert!((0..all).step_by(7).all(|id| opaque.set(id)));
                let first = objects.spans.find(BASE).expect("an object");
                marked.set(objects.id(first));
                let bits = Bits { marked: &marked, watched: &watched, opaque: &opaque };
                let helpers = Helpers { count, begin: || {} };
                let found = follow(objects.for_threads().expect("an image"), bits, vec![first], helpers);
                let live: Vec<bool> = (0..all).map(|id| marked.get(id)).collect();
                let led_to: BTreeSet<u64> = found.led_to.iter().map(|(id, _)| *id).collect();
                (live, led_to, found.scanned, found.unreadable)
            })
            .collect();
        let (live, led_to, scanned, unreadable) = &results[0];
        assert!(live.iter().filter(|live| **live).count() > 20_000 && led_to.len() > 4000, "{scanned:?}");
        assert_eq!((scanned.1, *unreadable), (0, 0));
        assert!(results.iter().all(|result| result == &results[0]));
    }
}
