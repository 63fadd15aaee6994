//! The heap: spans, objects, and which objects are marked.
//!
//! Spans come from `mheap.allspans`. They are the target's word: those that overlap, or whose size makes no sense, are
//! dropped and counted, and the number of objects is bounded.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use crate::golang::proof_layout::{ReachLayout, SpanLayout};
use crate::memory::{Fault, Memory, word_at};

/// Spans read at most: two terabytes of heap in spans of the smallest size.
const MAX_SPANS: u64 = 1 << 28;

/// Objects in all spans: their marks take a bit each, twice.
const MAX_OBJECTS: u64 = 1 << 32;

/// `runtime.pageSize`
pub const PAGE: u64 = 8192;

/// `mSpanInUse`, `mSpanManual` (`src/runtime/mheap.go`).
const IN_USE: u8 = 1;

/// A table of pages is made of this many, and as many more for each span: of a heap that is spread out by a lie none is.
const MIN_PAGES: u64 = 1 << 20;
const PAGES_FOR_SPAN: u64 = 64;

/// Structs read together although other memory lies between them, at most this much.
const GAP: u64 = 4096;

/// Most bytes read at once for structs that lie together.
const CHUNK: u64 = 8 << 20;

/// One span that holds objects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// Address of its first byte.
    pub base: u64,
    /// Size in bytes.
    pub bytes: u64,
    /// Size of an object.
    pub elem: u64,
    /// Number of objects.
    pub count: u64,
    /// Its objects hold no pointers.
    pub noscan: bool,
    /// One object, larger than every size class.
    pub large: bool,
    /// Type of that object, as an address; 0 when not known.
    pub large_type: u64,
    /// First of its specials; 0 for none.
    pub specials: u64,
    /// Whether objects in it are pinned.
    pub pinned: bool,
    /// Number of its first object among all objects.
    pub first: u64,
}

impl Span {
    /// End of the span.
    pub const fn end(&self) -> u64 {
        self.base + self.bytes
    }

    /// Address of object `index`.
    pub const fn object(&self, index: u64) -> u64 {
        self.base + index * self.elem
    }
}

/// An object of the heap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Object {
    /// Index of its span.
    pub span: u32,
    /// Index within the span.
    pub index: u64,
}

/// Why the heap cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeapError {
    /// The list of spans cannot be read.
    #[error("the heap's list of spans is not readable: {0}")]
    Fault(#[from] Fault),
    /// The list of spans is not one.
    #[error("the heap's list of spans is malformed: {0}")]
    Malformed(&'static str),
    /// There are more objects than parkwarden can keep track of.
    #[error("the heap has more objects than the limit of {MAX_OBJECTS}")]
    TooLarge,
}

/// The spans in use, in the order of their addresses.
#[derive(Clone, Debug, Default)]
pub struct Spans {
    /// See [`Spans`].
    pub spans: Vec<Span>,
    /// Number of objects in all of them.
    pub objects: u64,
    /// Spans that make no sense.
    pub dropped: u64,
    pages: Pages,
}

/// Which span each page of the heap belongs to, where the heap is not spread too far for a table.
#[derive(Clone, Debug, Default)]
struct Pages {
    base: u64,
    /// One more than the span's index; 0 for none.
    spans: Vec<u32>,
}

impl Pages {
    fn of(spans: &[Span]) -> Self {
        let (Some(first), Some(last)) = (spans.first(), spans.last()) else { return Self::default() };
        let page = |address: u64| (address - first.base) / PAGE;
        let pages = page(last.end());
        if pages > MIN_PAGES + PAGES_FOR_SPAN * spans.len() as u64 {
            return Self::default();
        }
        let mut table = vec![0; pages as usize];
        for (index, span) in spans.iter().enumerate() {
            table[page(span.base) as usize..page(span.end()) as usize].fill(index as u32 + 1);
        }
        Self { base: first.base, spans: table }
    }

    fn span(&self, address: u64) -> Option<usize> {
        let page = address.checked_sub(self.base)? / PAGE;
        (*self.spans.get(usize::try_from(page).ok()?)? as usize).checked_sub(1)
    }
}

impl Spans {
    /// Reads the spans of a heap whose `mheap_` is at `mheap`.
    pub fn read(memory: &dyn Memory, layout: &ReachLayout, mheap: u64) -> Result<Self, HeapError> {
        let header = mheap.checked_add(u64::from(layout.allspans)).ok_or(HeapError::Malformed("its address"))?;
        // The slice is replaced by a larger one now and then; its length is read before its pointer.
        let len = memory.read_u64(header.wrapping_add(8))?;
        let pointer = memory.read_u64(header)?;
        if len == 0 || len > MAX_SPANS || pointer == 0 {
            return Err(HeapError::Malformed("its length"));
        }
        let addresses = read_words(memory, pointer, len)?;
        let mut spans = Self::default();
        let mut found = Vec::new();
        each_struct(memory, &addresses, layout.mspan.size, |_, bytes| {
            match bytes.map(|bytes| decode(bytes, &layout.mspan)) {
                Some(Decoded::Span(span)) => found.push(span),
                Some(Decoded::NotInUse) => {}
                Some(Decoded::Senseless) | None => spans.dropped += 1,
            }
        })?;
        found.sort_unstable_by_key(|span| span.base);
        let mut end = 0;
        for mut span in found {
            if span.base < end {
                spans.dropped += 1;
                continue;
            }
            end = span.end();
            span.first = spans.objects;
            spans.objects = spans.objects.checked_add(span.count).ok_or(HeapError::TooLarge)?;
            if spans.objects > MAX_OBJECTS {
                return Err(HeapError::TooLarge);
            }
            spans.spans.push(span);
        }
        spans.pages = Pages::of(&spans.spans);
        Ok(spans)
    }

    /// The object that contains `address`.
    pub fn find(&self, address: u64) -> Option<Object> {
        let at = match self.pages.spans.is_empty() {
            false => self.pages.span(address)?,
            true => self.spans.partition_point(|span| span.base <= address).checked_sub(1)?,
        };
        let span = self.spans.get(at)?;
        let offset = address - span.base;
        // Of numbers of half the size, as nearly all are, the division takes a fraction of the time.
        let index = match (u32::try_from(offset), u32::try_from(span.elem)) {
            (Ok(offset), Ok(elem)) => u64::from(offset / elem),
            _ => offset / span.elem,
        };
        (index < span.count).then_some(Object { span: at as u32, index })
    }

    /// Bytes in spans whose objects hold pointers.
    pub fn scannable(&self) -> u64 {
        self.spans.iter().filter(|span| !span.noscan).map(|span| span.bytes).sum()
    }
}

enum Decoded {
    Span(Span),
    NotInUse,
    Senseless,
}

fn decode(bytes: &[u8], layout: &SpanLayout) -> Decoded {
    let word = |offset: u32| word_at(bytes, offset as usize).unwrap_or(0);
    let byte = |offset: u32| bytes.get(offset as usize).copied().unwrap_or(0);
    if byte(layout.state) != IN_USE {
        return Decoded::NotInUse;
    }
    let base = word(layout.start);
    let elem = word(layout.elemsize);
    let Some(size) = word(layout.npages).checked_mul(PAGE) else { return Decoded::Senseless };
    let sensible = base != 0
        && base % PAGE == 0
        && elem >= 8
        && elem % 8 == 0
        && size >= elem
        && base.checked_add(size).is_some_and(|end| end < 1 << 56);
    if !sensible {
        return Decoded::Senseless;
    }
    let class = byte(layout.spanclass);
    let large = class >> 1 == 0;
    // The number of objects is a word in Go 1.21 and a half-word later; what lies behind it is not zero then.
    let nelems = word(layout.nelems) & 0xffff;
    let fits = size / elem;
    Decoded::Span(Span {
        base,
        bytes: size,
        elem,
        count: if large { 1 } else { nelems.min(fits) },
        noscan: class & 1 != 0,
        large,
        large_type: layout.large_type.map_or(0, word),
        specials: word(layout.specials),
        pinned: word(layout.pinner_bits) != 0,
        first: 0,
    })
}

/// Reads `count` words from `address`, piece by piece: a count that is a lie fails before it allocates.
pub fn read_words(memory: &dyn Memory, address: u64, count: u64) -> Result<Vec<u64>, Fault> {
    let mut words = Vec::new();
    let mut piece = vec![0u8; 64 << 10];
    while (words.len() as u64) < count {
        let done = words.len() as u64;
        let bytes = (count - done).saturating_mul(8).min(piece.len() as u64) as usize;
        memory.read(address.saturating_add(done.saturating_mul(8)), &mut piece[..bytes])?;
        words.extend(piece[..bytes].as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word)));
    }
    Ok(words)
}

/// Calls `visit` with the index in `addresses` and the bytes of each struct, `None` for one that cannot be read. Structs
/// that lie near each other are read together.
pub fn each_struct(
    memory: &dyn Memory,
    addresses: &[u64],
    size: u32,
    mut visit: impl FnMut(usize, Option<&[u8]>),
) -> Result<(), Fault> {
    let mut order: Vec<(u64, u32)> = addresses.iter().copied().zip(0u32..).collect();
    order.sort_unstable();
    let size = u64::from(size);
    let mut rest = order.as_slice();
    while let Some((start, _)) = rest.first().copied() {
        let mut end = start.saturating_add(size);
        let together = rest
            .iter()
            .take_while(|(address, _)| {
                let near = *address <= end.saturating_add(GAP) && address.saturating_add(size) - start <= CHUNK;
                end = if near { address.saturating_add(size).max(end) } else { end };
                near
            })
            .count()
            .max(1);
        let (group, next) = rest.split_at(together);
        rest = next;
        let mut each = |bytes: &[u8]| {
            for (address, index) in group {
                let at = (address - start) as usize;
                visit(*index as usize, bytes.get(at..at + size as usize));
            }
        };
        if let Some(lent) = memory.lend(start, (end - start) as usize) {
            each(lent);
            continue;
        }
        let mut bytes = vec![0u8; (end - start) as usize];
        match memory.read(start, &mut bytes) {
            Ok(()) => each(&bytes),
            // A hole between them, or one that is not there at all.
            Err(Fault::Unmapped { .. }) => {
                let mut one = vec![0u8; size as usize];
                for (address, index) in group {
                    match memory.read(*address, &mut one) {
                        Ok(()) => visit(*index as usize, Some(&one)),
                        Err(Fault::Unmapped { .. }) => visit(*index as usize, None),
                        Err(fatal) => return Err(fatal),
                    }
                }
            }
            Err(fatal) => return Err(fatal),
        }
    }
    Ok(())
}

/// One bit for each object, which several threads may set.
#[derive(Debug, Default)]
pub struct Marks {
    bits: Vec<AtomicU64>,
}

impl Marks {
    /// Marks for `objects` objects, none set.
    pub fn new(objects: u64) -> Self {
        Self { bits: (0..objects.div_ceil(64)).map(|_| AtomicU64::new(0)).collect() }
    }

    /// Whether object number `id` is marked.
    pub fn get(&self, id: u64) -> bool {
        self.bits.get((id / 64) as usize).is_some_and(|word| word.load(Relaxed) >> (id % 64) & 1 != 0)
    }

    /// Marks object number `id`; says whether it was not marked before.
    pub fn set(&self, id: u64) -> bool {
        let Some(word) = self.bits.get((id / 64) as usize) else { return false };
        let bit = 1 << (id % 64);
        // Most are marked already, and a look is far cheaper than an attempt.
        word.load(Relaxed) & bit == 0 && word.fetch_or(bit, Relaxed) & bit == 0
    }
}
