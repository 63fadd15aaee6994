//! What is in the heap's spans: lent by a copy, or read from the running target, of which only as much is kept and read as is
//! allowed.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::VecDeque;
use std::ops::Deref;
use std::rc::Rc;

use hashbrown::HashMap;

use super::heap::Span;
use crate::memory::Memory;

/// How much of a heap is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reads {
    /// Bytes kept at a time.
    pub window: u64,
    /// Bytes read in all; what had to make room may be read again.
    pub most: u64,
    /// Which look at this heap it is: each begins elsewhere, so that a pointer that moves is not missed by all in the same way.
    pub turn: u64,
}

impl Reads {
    /// All of it, once.
    pub const WHOLE: Self = Self { window: u64::MAX, most: u64::MAX, turn: 0 };
}

/// See the module.
pub struct Contents<'m> {
    memory: &'m dyn Memory,
    reads: Reads,
    lent: Vec<OnceCell<Option<&'m [u8]>>>,
    kept: RefCell<Kept>,
    read: Cell<u64>,
}

#[derive(Default)]
struct Kept {
    /// By number of the span; `None` for one that cannot be read.
    spans: HashMap<u32, Option<Rc<[u8]>>>,
    /// In the order in which they were read.
    order: VecDeque<u32>,
    bytes: u64,
}

/// The bytes of a span.
pub enum SpanBytes<'m> {
    /// At hand for as long as the memory is.
    Lent(&'m [u8]),
    /// Read, and kept for as long as there is room.
    Read(Rc<[u8]>),
}

impl Deref for SpanBytes<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Lent(bytes) => bytes,
            Self::Read(bytes) => bytes,
        }
    }
}

impl<'m> Contents<'m> {
    /// The contents of `spans` spans, none of them read yet.
    pub fn new(memory: &'m dyn Memory, spans: usize, reads: Reads) -> Self {
        let lent = (0..spans).map(|_| OnceCell::new()).collect();
        Self { memory, reads, lent, kept: RefCell::default(), read: Cell::new(0) }
    }

    /// Whether all was read that may be: what is asked for then is not to be had.
    pub fn is_exhausted(&self) -> bool {
        self.read.get() > self.reads.most
    }

    /// Bytes read.
    pub fn bytes_read(&self) -> u64 {
        self.read.get()
    }

    /// Whether not all of it can be kept, so that what belongs together should be asked for together.
    pub fn is_windowed(&self) -> bool {
        self.reads.window != u64::MAX
    }

    /// The span to begin with.
    pub fn first(&self) -> u32 {
        // Multiples of an odd number that is about 0.618 of 2^32 are spread evenly.
        let part = u64::from((self.reads.turn as u32).wrapping_mul(0x9e37_79b9));
        ((part * self.lent.len() as u64) >> 32) as u32
    }

    /// Span `index`; `None` if it cannot be read, or not any more.
    pub fn of(&self, index: u32, span: &Span) -> Option<SpanBytes<'m>> {
        let len = usize::try_from(span.bytes).ok()?;
        if let Some(lent) = *self.lent.get(index as usize)?.get_or_init(|| self.memory.lend(span.base, len)) {
            return Some(SpanBytes::Lent(lent));
        }
        if let Some(kept) = self.kept.borrow().spans.get(&index) {
            return kept.clone().map(SpanBytes::Read);
        }
        self.read.set(self.read.get().saturating_add(span.bytes));
        if self.is_exhausted() || span.bytes > self.reads.window {
            self.read.set(u64::MAX);
            return None;
        }
        let mut bytes = vec![0; len];
        let bytes = self.memory.read(span.base, &mut bytes).ok().map(|()| Rc::from(bytes));
        self.kept.borrow_mut().keep(index, span.bytes, bytes.clone(), self.reads.window);
        bytes.map(SpanBytes::Read)
    }
}

impl Kept {
    fn keep(&mut self, index: u32, bytes: u64, read: Option<Rc<[u8]>>, window: u64) {
        while self.bytes.saturating_add(bytes) > window
            && let Some(oldest) = self.order.pop_front()
        {
            let gone = self.spans.remove(&oldest).flatten().map_or(0, |bytes| bytes.len() as u64);
            self.bytes = self.bytes.saturating_sub(gone);
        }
        self.bytes = self.bytes.saturating_add(read.as_ref().map_or(0, |read| read.len() as u64));
        self.spans.insert(index, read);
        self.order.push_back(index);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::image::Image;
    use crate::memory::{Fault, Memory};

    /// Memory that lends nothing, as that of a process.
    struct Process(Image);

    impl Memory for Process {
        fn read(&self, address: u64, buf: &mut [u8]) -> Result<(), Fault> {
            self.0.read(address, buf)
        }
    }

    fn span(base: u64) -> Span {
        Span { base, bytes: 4096, ..Span::default() }
    }

    #[test]
    fn no_more_is_kept_than_the_window_and_no_more_read_than_is_allowed() {
        let mut image = Image::default();
        for base in [0x1_0000, 0x2_0000, 0x3_0000] {
            image.insert(base, vec![(base >> 16) as u8; 4096]);
        }
        let process = Process(image);
        let contents = Contents::new(&process, 4, Reads { window: 2 * 4096, most: 5 * 4096, turn: 0 });
        let first = |index: u32, base| contents.of(index, &span(base)).map(|bytes| bytes[0]);
        assert_eq!([first(0, 0x1_0000), first(1, 0x2_0000), first(0, 0x1_0000)], [Some(1), Some(2), Some(1)]);
        assert_eq!(contents.bytes_read(), 2 * 4096, "what is kept is not read again");
        assert_eq!(first(2, 0x3_0000), Some(3));
        assert_eq!(contents.kept.borrow().bytes, 2 * 4096);
        assert_eq!(first(0, 0x1_0000), Some(1));
        assert_eq!(contents.bytes_read(), 4 * 4096, "the oldest had made room");
        assert_eq!((first(3, 0x9_0000), contents.is_exhausted()), (None, false), "not there");
        assert_eq!((first(1, 0x2_0000), contents.is_exhausted()), (None, true));
    }

    #[test]
    fn a_span_larger_than_the_window_is_not_read() {
        let process = Process(Image::default());
        let contents = Contents::new(&process, 1, Reads { window: 1024, most: u64::MAX - 1, turn: 0 });
        assert!(contents.of(0, &span(0x1_0000)).is_none() && contents.is_exhausted());
    }
}
