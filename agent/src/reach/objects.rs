//! The pointers within heap objects, by the pointer bitmaps of every version from Go 1.21 on: the arenas' bitmap (1.21),
//! the bitmap at the end of a span of small objects (1.22), before the inline mark bits if there are any (1.26), and
//! type descriptors for the others.
//!
//! Where there is no bitmap every word counts as a pointer, and that is counted.

use std::cell::{Cell, RefCell};
use std::ops::Range;
use std::sync::Arc;

use hashbrown::HashMap;

use super::contents::{Contents, Reads, SpanBytes};
use super::heap::{Object, Span, Spans};
use super::types::{self, Types, bit};
use crate::golang::proof_layout::ReachLayout;
use crate::memory::{Memory, word_at};

/// Objects up to this size have their pointer bits in the span (`minSizeForMallocHeader`, Go 1.22 and later).
const SMALL: u64 = 512;
/// `mallocHeaderSize`
const HEADER: u64 = 8;
/// Size of `spanInlineMarkBits` (Go 1.26 and later, by experiment in 1.25).
const INLINE_MARKS: u64 = 128;
/// `heapArenaBytes`
pub const ARENA: u64 = 64 << 20;

/// How pointers were told from other words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Precision {
    /// Objects whose pointers are known.
    pub exact_objects: u64,
    /// Objects all of whose words counted as pointers.
    pub conservative_objects: u64,
    /// Stack frames whose pointers are known.
    pub exact_frames: u64,
    /// Stack frames all of whose words counted as pointers.
    pub conservative_frames: u64,
}

/// Where inline mark bits are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Inline {
    No,
    Yes,
    /// The spans contradict each other: no bitmap in a span is believed.
    Unknown,
}

/// What several threads make their [`Objects`] of: each remembers for itself what it has read.
#[derive(Clone, Copy)]
pub struct ForThreads<'m> {
    memory: &'m (dyn Memory + Sync),
    /// What their [`Types`] are made of.
    pub types: types::ForThreads<'m>,
    layout: &'m ReachLayout,
    spans: &'m Arc<Spans>,
    inline: Inline,
    arenas: Option<u64>,
}

impl<'m> ForThreads<'m> {
    /// For one of them.
    pub fn objects(self, types: &'m Types<'m>) -> Objects<'m> {
        Objects {
            memory: self.memory,
            layout: self.layout,
            spans: Arc::clone(self.spans),
            types,
            contents: Contents::new(self.memory, self.spans.spans.len(), Reads::WHOLE),
            inline: self.inline,
            arenas: self.arenas,
            heap_arenas: RefCell::default(),
            exact: Cell::new(0),
            conservative: Cell::new(0),
        }
    }
}

/// The heap's objects and what is in them.
pub struct Objects<'m> {
    memory: &'m dyn Memory,
    layout: &'m ReachLayout,
    /// The spans.
    pub spans: Arc<Spans>,
    types: &'m Types<'m>,
    /// What is in the spans.
    pub contents: Contents<'m>,
    inline: Inline,
    /// `mheap_.arenas[0]`, in Go 1.21.
    arenas: Option<u64>,
    heap_arenas: RefCell<HashMap<u64, u64>>,
    exact: Cell<u64>,
    conservative: Cell<u64>,
}

impl<'m> Objects<'m> {
    /// The objects of `spans`, of which `reads` is read.
    pub fn new(
        memory: &'m dyn Memory,
        layout: &'m ReachLayout,
        spans: Spans,
        types: &'m Types<'m>,
        mheap: u64,
        reads: Reads,
    ) -> Self {
        let arenas = layout.arena_bitmap.as_ref();
        let arenas = arenas.and_then(|at| memory.read_u64(mheap.wrapping_add(u64::from(at.arenas))).ok());
        let contents = Contents::new(memory, spans.spans.len(), reads);
        let inline = inline_marks(&spans, layout.minor);
        Self {
            memory,
            layout,
            spans: Arc::new(spans),
            types,
            contents,
            inline,
            arenas,
            heap_arenas: RefCell::default(),
            exact: Cell::new(0),
            conservative: Cell::new(0),
        }
    }

    /// The same for several threads; `None` where not all of it is at hand.
    pub fn for_threads(&self) -> Option<ForThreads<'_>> {
        Some(ForThreads {
            memory: self.memory.for_threads().filter(|_| !self.contents.is_windowed())?,
            types: self.types.for_threads()?,
            layout: self.layout,
            spans: &self.spans,
            inline: self.inline,
            arenas: self.arenas,
        })
    }

    /// Adds what another thread has scanned.
    pub fn add_scanned(&self, (exact, conservative): (u64, u64)) {
        self.exact.set(self.exact.get() + exact);
        self.conservative.set(self.conservative.get() + conservative);
    }

    /// How many objects were scanned with and without knowledge of their pointers.
    pub fn scanned(&self) -> (u64, u64) {
        (self.exact.get(), self.conservative.get())
    }

    /// The layout they are read by.
    pub fn layout(&self) -> &'m ReachLayout {
        self.layout
    }

    /// The span of `object`.
    pub fn span(&self, object: Object) -> &Span {
        &self.spans.spans[object.span as usize]
    }

    /// Number of `object` among all objects.
    pub fn id(&self, object: Object) -> u64 {
        self.span(object).first + object.index
    }

    /// Address of `object`.
    pub fn address(&self, object: Object) -> u64 {
        self.span(object).object(object.index)
    }

    /// Calls `visit` with each word of `object` that is or may be a pointer. `false` when the object cannot be read.
    pub fn pointers(&self, object: Object, visit: &mut dyn FnMut(u64)) -> bool {
        let span = *self.span(object);
        if span.noscan {
            return true;
        }
        let Some(data) = self.contents.of(object.span, &span) else { return false };
        let start = (object.index * span.elem) as usize;
        let Some(body) = data.get(start..start + span.elem as usize) else { return false };
        if self.exactly(&span, object, &data, body, visit) {
            self.exact.set(self.exact.get() + 1);
        } else {
            self.conservative.set(self.conservative.get() + 1);
            words(body).for_each(visit);
        }
        true
    }

    /// Visits the pointers if it is known which words they are.
    fn exactly(&self, span: &Span, object: Object, data: &[u8], body: &[u8], visit: &mut dyn FnMut(u64)) -> bool {
        if self.layout.minor <= 21 {
            return self.by_arena(span.object(object.index), body, visit);
        }
        if span.elem <= SMALL && !span.large {
            return self.by_span(span, object, data, body, visit);
        }
        let (kind, body) = typed(span, body);
        if kind == 0 {
            // Not given its type yet: the runtime takes it for an object without pointers, and so has nobody stored
            // any. A large object without a type cannot be told from a runtime that keeps it elsewhere.
            return !span.large;
        }
        let Some(mask) = self.types.mask(kind) else { return false };
        if mask.pointer_words == 0 {
            return true;
        }
        for (index, word) in words(body).enumerate() {
            if mask.is_pointer(index as u64 % mask.words) {
                visit(word);
            }
        }
        true
    }

    /// The type that the allocator has noted of `object`, by its descriptor's address, and the value: Go 1.22 and later do so of
    /// objects that hold pointers and are not small.
    pub fn noted(&self, object: Object) -> Option<(u64, SpanBytes<'m>, Range<usize>)> {
        let span = self.span(object);
        if span.noscan || self.layout.minor <= 21 || span.elem <= SMALL && !span.large {
            return None;
        }
        let (data, range) = self.bytes(object)?;
        let (kind, value) = typed(span, &data[range.clone()]);
        let value = range.end - value.len()..range.end;
        (kind != 0).then_some((kind, data, value))
    }

    /// Where the bytes of `object` are.
    pub fn bytes(&self, object: Object) -> Option<(SpanBytes<'m>, Range<usize>)> {
        let span = self.span(object);
        let data = self.contents.of(object.span, span)?;
        let start = usize::try_from(object.index.checked_mul(span.elem)?).ok()?;
        let range = start..start.checked_add(usize::try_from(span.elem).ok()?)?;
        (range.end <= data.len()).then_some((data, range))
    }

    fn by_span(&self, span: &Span, object: Object, data: &[u8], body: &[u8], visit: &mut dyn FnMut(u64)) -> bool {
        let size = span.bytes / 64;
        let shift = match self.inline {
            Inline::Yes if span.elem >= 16 => INLINE_MARKS,
            Inline::Yes | Inline::No => 0,
            Inline::Unknown => return false,
        };
        let Some(from) = span.bytes.checked_sub(size + shift) else { return false };
        let Some(bits) = data.get(from as usize..(from + size) as usize) else { return false };
        if span.count * span.elem > from {
            return false;
        }
        let first = object.index * span.elem / 8;
        for (index, word) in words(body).enumerate() {
            if bit(bits, first + index as u64) {
                visit(word);
            }
        }
        true
    }

    /// Go 1.21: a bit for each word of an arena, and a bit for each 64 words that says that an object which goes on
    /// after them holds no more pointers.
    fn by_arena(&self, address: u64, body: &[u8], visit: &mut dyn FnMut(u64)) -> bool {
        let mut pointers = Vec::new();
        let mut at = address;
        let mut rest = body;
        while !rest.is_empty() {
            let Some((bitmap, no_more)) = self.arena_bits(at) else { return false };
            let word = at % ARENA / 8;
            let (index, offset) = (word / 64, word % 64);
            let Ok(bits) = self.memory.read_u64(bitmap + index * 8) else { return false };
            let mut last = [0];
            if self.memory.read(no_more + index / 8, &mut last).is_err() {
                return false;
            }
            let take = ((64 - offset) as usize * 8).min(rest.len());
            let (now, later) = rest.split_at(take);
            pointers
                .extend(words(now).enumerate().filter(|(i, _)| bits >> (offset + *i as u64) & 1 != 0).map(|(_, w)| w));
            if last[0] >> (index % 8) & 1 != 0 {
                break;
            }
            rest = later;
            at += take as u64;
        }
        pointers.into_iter().for_each(visit);
        true
    }

    /// Addresses of the bitmaps of the arena that contains `address`.
    pub fn arena_bits(&self, address: u64) -> Option<(u64, u64)> {
        let layout = self.layout.arena_bitmap.as_ref()?;
        let index = arena_index(self.layout, address);
        let known = self.heap_arenas.borrow().get(&index).copied();
        let arena = match known {
            Some(known) => known,
            None => {
                let read = self.memory.read_u64(self.arenas?.checked_add(index.checked_mul(8)?)?).ok()?;
                self.heap_arenas.borrow_mut().insert(index, read);
                read
            }
        };
        if arena == 0 {
            return None;
        }
        Some((arena.checked_add(u64::from(layout.bitmap))?, arena.checked_add(u64::from(layout.no_more))?))
    }
}

/// The address of its type's descriptor and the value of an object of `span` that is not small: such have a header, or the type is
/// in the span.
fn typed<'b>(span: &Span, body: &'b [u8]) -> (u64, &'b [u8]) {
    match span.large {
        true => (span.large_type, body),
        false => (word_at(body, 0).unwrap_or(0), body.get(HEADER as usize..).unwrap_or_default()),
    }
}

/// `arenaIndex`: amd64 counts from the lowest canonical address (`arenaBaseOffset`).
fn arena_index(layout: &ReachLayout, address: u64) -> u64 {
    let base = match layout.arch {
        crate::golang::Arch::Amd64 => 0xffff_8000_0000_0000,
        crate::golang::Arch::Arm64 => 0,
    };
    address.wrapping_sub(base) / ARENA
}

/// Whether spans of small objects end in inline mark bits: the number of objects that fit tells.
fn inline_marks(spans: &Spans, minor: u32) -> Inline {
    let (mut with, mut without) = (0u64, 0u64);
    for span in &spans.spans {
        if span.noscan || span.large || span.elem > SMALL || span.elem < 16 {
            continue;
        }
        let room = span.bytes - span.bytes / 64;
        let fit = |room: u64| room / span.elem;
        if fit(room) != fit(room - INLINE_MARKS) {
            with += u64::from(span.count == fit(room - INLINE_MARKS));
            without += u64::from(span.count == fit(room));
        }
    }
    match (with, without) {
        (0, 0) if minor >= 26 => Inline::Yes,
        (0, 0) if minor <= 24 => Inline::No,
        (0, 1..) => Inline::No,
        (1.., 0) => Inline::Yes,
        _ => Inline::Unknown,
    }
}

/// The words of `bytes`.
pub fn words(bytes: &[u8]) -> impl Iterator<Item = u64> {
    bytes.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word))
}
