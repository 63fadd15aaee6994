//! Tests on heaps made by hand, hostile ones among them.

use std::cell::RefCell;

use proptest::prelude::*;

use super::contents::Reads;
use super::heap::{HeapError, Marks, Spans, each_struct};
use super::objects::Objects;
use super::stack::Start;
use super::types::Types;
use crate::golang::Arch;
use crate::golang::layout_table::LayoutTable as _;
use crate::golang::proof_layout::{ReachLayout, SpecialKind, SpecialLayout};
use crate::golang::table;
use crate::golang::version::GoVersion;
use crate::memory::census::{Goroutine, Status};
use crate::memory::image::Image;
use crate::memory::{Fault, Memory};

pub(crate) const MHEAP: u64 = 0x70_0000;
const LIST: u64 = 0x71_0000;
const SPAN: u64 = 0x72_0000;
pub(crate) const BASE: u64 = 0xc0_0000_0000;

pub(crate) fn layout(version: &str) -> ReachLayout {
    let version = GoVersion::parse(version).expect("a version");
    let structs = table::bundled().structs(&version, Arch::Amd64).expect("known");
    ReachLayout::from_structs(&structs, &version, Arch::Amd64).expect("complete")
}

pub(crate) struct SpanOf {
    pub(crate) base: u64,
    pub(crate) pages: u64,
    pub(crate) elem: u64,
    pub(crate) count: u64,
    pub(crate) class: u8,
    pub(crate) state: u8,
    pub(crate) large_type: u64,
}

impl Default for SpanOf {
    fn default() -> Self {
        Self { base: BASE, pages: 1, elem: 64, count: 124, class: 8, state: 1, large_type: 0 }
    }
}

pub(crate) fn heap(layout: &ReachLayout, spans: &[SpanOf]) -> Image {
    let mut image = Image::default();
    let len = spans.len() as u64;
    image.insert_words(MHEAP + u64::from(layout.allspans), &[LIST, len, len]);
    let addresses: Vec<u64> = (0..len).map(|index| SPAN + index * 0x200).collect();
    image.insert_words(LIST, &addresses);
    for (span, address) in spans.iter().zip(addresses) {
        let at = &layout.mspan;
        let mut bytes = vec![0u8; at.size as usize];
        let mut word = |offset: u32, word: u64| {
            bytes[offset as usize..offset as usize + 8].copy_from_slice(&word.to_le_bytes());
        };
        word(at.start, span.base);
        word(at.npages, span.pages);
        word(at.elemsize, span.elem);
        if let Some(large_type) = at.large_type {
            word(large_type, span.large_type);
        }
        bytes[at.nelems as usize..at.nelems as usize + 2].copy_from_slice(&(span.count as u16).to_le_bytes());
        bytes[at.spanclass as usize] = span.class;
        bytes[at.state as usize] = span.state;
        image.insert(address, bytes);
    }
    image
}

/// The pointers in the object at `address`, and whether they were told from other words.
fn pointers(image: &Image, layout: &ReachLayout, address: u64, immutable: (u64, u64)) -> (Vec<u64>, bool) {
    let spans = Spans::read(image, layout, MHEAP).expect("readable");
    let types = Types::new(image, layout.minor, vec![immutable]);
    let objects = Objects::new(image, layout, spans, &types, MHEAP, Reads::WHOLE);
    let mut found = Vec::new();
    let object = objects.spans.find(address).expect("an object");
    assert!(objects.pointers(object, &mut |word| found.push(word)));
    (found, objects.scanned() == (1, 0))
}

/// While a stack is moved, frames of it that were not put right yet lead to where it was: exactly told, what only its own objects hold
/// would be missed.
#[test]
fn a_stack_that_is_being_moved_is_taken_word_by_word() {
    let of = |status, scanned| {
        let goroutine =
            Goroutine { status, scanned, stack_lo: 0x1000, stack_hi: 0x2000, sp: 0x1800, ..Default::default() };
        super::start_of(Arch::Amd64, &goroutine, &[])
    };
    assert_eq!(of(Status::Waiting, false), None);
    for (status, scanned) in [(Status::Waiting, true), (Status::Runnable, true), (Status::Copystack, false)] {
        assert_eq!(of(status, scanned), Some(Start::Words(0x1000)), "{status}");
    }
}

#[test]
fn every_version_has_what_a_proof_needs() {
    for version in ["go1.21.13", "go1.22.10", "go1.23.9", "go1.24.11", "go1.25.5", "go1.26.6", "go1.27.3"] {
        let layout = layout(version);
        assert_eq!(layout.arena_bitmap.is_some(), layout.minor == 21, "{version}");
        assert_eq!(layout.mspan.large_type.is_some(), layout.minor > 21, "{version}");
        assert_eq!(layout.sudog.in_g, layout.minor >= 26, "{version}");
        assert_eq!((layout.semtable_entry, layout.cleanups_all.is_some()), (64, layout.minor >= 25), "{version}");
    }
}

#[test]
fn objects_are_found_by_any_address_within() {
    let layout = layout("go1.27.3");
    let dead = SpanOf { base: BASE + 0x4000, state: 0, ..SpanOf::default() };
    let image = heap(&layout, &[SpanOf { base: BASE + 0x8000, ..SpanOf::default() }, dead, SpanOf::default()]);
    let spans = Spans::read(&image, &layout, MHEAP).expect("readable");
    assert_eq!((spans.spans.len(), spans.objects, spans.dropped), (2, 248, 0));
    let object = spans.find(BASE + 64 * 3 + 63).expect("an object");
    assert_eq!((object.span, object.index), (0, 3));
    for nothing in [0, BASE - 1, BASE + 64 * 124, BASE + 0x2000, BASE + 0x4000, u64::MAX] {
        assert_eq!(spans.find(nothing), None, "{nothing:#x}");
    }
}

#[test]
fn a_heap_that_is_spread_out_is_searched_in() {
    let layout = layout("go1.27.3");
    let far = SpanOf { base: BASE << 8, ..SpanOf::default() };
    let image = heap(&layout, &[SpanOf::default(), far]);
    let spans = Spans::read(&image, &layout, MHEAP).expect("readable");
    let found = |address| spans.find(address).map(|object| (object.span, object.index));
    assert_eq!(
        [BASE + 64, (BASE << 8) + 128, BASE + 0x2000, BASE << 4].map(found),
        [Some((0, 1)), Some((1, 2)), None, None]
    );
}

#[test]
fn spans_that_are_lies_are_dropped() {
    let layout = layout("go1.27.3");
    let lies = [
        SpanOf { elem: 0, ..SpanOf::default() },
        SpanOf { elem: 12, ..SpanOf::default() },
        SpanOf { base: BASE + 1, ..SpanOf::default() },
        SpanOf { pages: u64::MAX, ..SpanOf::default() },
        SpanOf { pages: 1 << 50, ..SpanOf::default() },
        SpanOf { elem: 1 << 20, ..SpanOf::default() },
    ];
    let image = heap(&layout, &lies);
    let spans = Spans::read(&image, &layout, MHEAP).expect("readable");
    assert_eq!((spans.spans.len(), spans.dropped), (0, 6));
    let twice = heap(&layout, &[SpanOf::default(), SpanOf::default()]);
    assert_eq!(Spans::read(&twice, &layout, MHEAP).expect("readable").dropped, 1);
}

#[test]
fn a_list_of_spans_that_is_a_lie_costs_nothing() {
    let layout = layout("go1.27.3");
    for (pointer, len) in [(LIST, u64::MAX), (LIST, 0), (0, 5), (LIST, 1 << 27)] {
        let mut image = heap(&layout, &[SpanOf::default()]);
        image.insert_words(MHEAP + u64::from(layout.allspans), &[pointer, len, len]);
        let read = Spans::read(&image, &layout, MHEAP);
        assert!(matches!(read, Err(HeapError::Malformed(_) | HeapError::Fault(_))), "{read:?}");
    }
}

/// A span of 64-byte objects whose object 2 holds the words 1 to 8, of which the bitmap says 2 and 5 are pointers.
fn small(count: u64, shift: usize) -> (SpanOf, Vec<u8>) {
    let mut bytes: Vec<u8> = vec![0; 8192];
    for index in 0..8u64 {
        let at = 128 + index as usize * 8;
        bytes[at..at + 8].copy_from_slice(&(index + 1).to_le_bytes());
    }
    bytes[8192 - 128 - shift + 2] = 0b0001_0010;
    (SpanOf { count, ..SpanOf::default() }, bytes)
}

#[test]
fn small_objects_have_their_bitmap_at_the_end_of_the_span() {
    let none = (0, 0);
    for (version, count, shift) in [("go1.22.10", 126, 0), ("go1.25.5", 126, 0), ("go1.26.6", 124, 128)] {
        let layout = layout(version);
        let (span, bytes) = small(count, shift);
        let mut image = heap(&layout, &[span]);
        image.insert(BASE, bytes);
        assert_eq!(pointers(&image, &layout, BASE + 128, none), (vec![2, 5], true), "{version}");
    }
    // Go 1.26 without the collector that has inline marks.
    let layout = layout("go1.26.6");
    let (span, bytes) = small(126, 0);
    let mut image = heap(&layout, &[span]);
    image.insert(BASE, bytes);
    assert_eq!(pointers(&image, &layout, BASE + 128, none), (vec![2, 5], true));
}

#[test]
fn spans_that_contradict_each_other_are_scanned_word_by_word() {
    let layout = layout("go1.26.6");
    let (with, bytes) = small(124, 128);
    let without = SpanOf { base: BASE + 0x2000, count: 126, ..SpanOf::default() };
    let mut image = heap(&layout, &[with, without]);
    image.insert(BASE, bytes);
    assert_eq!(pointers(&image, &layout, BASE + 128, (0, 0)), ((1..=8).collect(), false));
}

const TYPE: u64 = 0x50_0000;

/// A descriptor of a type of three words, of which the second is a pointer.
fn with_type(image: &mut Image, flags: u64) {
    image.insert_words(TYPE, &[24, 16, flags << 32, 0, TYPE + 0x100, 0]);
    image.insert(TYPE + 0x100, vec![0b10]);
}

#[test]
fn larger_objects_have_a_type() {
    let layout = layout("go1.27.3");
    let span = SpanOf { elem: 1024, count: 8, class: 60, ..SpanOf::default() };
    let mut image = heap(&layout, &[span]);
    let mut words: Vec<u64> = (0..1024).collect();
    words[0] = TYPE;
    image.insert_words(BASE, &words);
    with_type(&mut image, 0);
    let expected: Vec<u64> = (0..127).filter(|index| index % 3 == 1).map(|index| index + 1).collect();
    assert_eq!(pointers(&image, &layout, BASE, (TYPE, TYPE + 0x200)), (expected, true));
    // A descriptor in memory that can change is not believed.
    let (found, exact) = pointers(&image, &layout, BASE, (0, 0));
    assert_eq!((found.len(), exact), (128, false));
}

#[test]
fn masks_made_on_demand_are_believed_once_they_are_made() {
    let layout = layout("go1.27.3");
    let span = SpanOf { pages: 5, elem: 5 * 8192, count: 1, class: 0, large_type: TYPE, ..SpanOf::default() };
    let mut image = heap(&layout, &[span]);
    image.insert_words(BASE, &(0..5 * 1024).collect::<Vec<u64>>());
    with_type(&mut image, 1 << 4);
    image.insert_words(TYPE + 0x100, &[0]);
    assert!(!pointers(&image, &layout, BASE, (TYPE, TYPE + 0x200)).1);
    image.insert_words(TYPE + 0x100, &[TYPE + 0x180]);
    image.insert(TYPE + 0x180, vec![0b10]);
    let (found, exact) = pointers(&image, &layout, BASE, (TYPE, TYPE + 0x200));
    assert_eq!((found[1], found.len(), exact), (4, (5 * 1024_usize).div_ceil(3), true));
}

#[test]
fn kinds_of_specials_moved() {
    assert_eq!(SpecialLayout::kind(21, 1), SpecialKind::Finalizer);
    assert_eq!((SpecialLayout::kind(24, 2), SpecialLayout::kind(22, 2)), (SpecialKind::Weak, SpecialKind::Other));
    assert_eq!((SpecialLayout::kind(27, 1), SpecialLayout::kind(27, 2)), (SpecialKind::Other, SpecialKind::Finalizer));
    assert_eq!(SpecialLayout::kind(99, 1), SpecialKind::Weak);
}

#[test]
fn structs_near_each_other_are_read_together() {
    struct Counting(Image, RefCell<u32>);
    impl Memory for Counting {
        fn read(&self, address: u64, buf: &mut [u8]) -> Result<(), Fault> {
            *self.1.borrow_mut() += 1;
            self.0.read(address, buf)
        }
    }
    let mut image = Image::default();
    image.insert_words(0x1000, &(0..1024).collect::<Vec<u64>>());
    let memory = Counting(image, RefCell::default());
    let addresses: Vec<u64> = (0..500).rev().map(|index| 0x1000 + index * 16).chain([0x99_0000]).collect();
    let mut seen = vec![None; addresses.len()];
    each_struct(&memory, &addresses, 16, |index, bytes| seen[index] = Some(bytes.map(|bytes| bytes[0])))
        .expect("alive");
    assert_eq!((seen[499], seen[498], seen[500]), (Some(Some(0)), Some(Some(2)), Some(None)));
    assert!(*memory.1.borrow() <= 4, "{} reads", memory.1.borrow());
}

#[test]
fn marks_are_set_once() {
    let marks = Marks::new(130);
    assert!(marks.set(129) && !marks.set(129) && marks.get(129) && !marks.get(128));
    assert!(!marks.set(u64::MAX) && !marks.get(u64::MAX));
}

proptest! {
    #[test]
    fn any_heap_is_survived(words in prop::collection::vec(any::<u64>(), 60), len in 0u64..9, address in any::<u64>()) {
        let layout = layout("go1.27.3");
        let mut image = Image::default();
        image.insert_words(MHEAP + u64::from(layout.allspans), &[LIST, len, len]);
        image.insert_words(LIST, &words.iter().map(|word| SPAN + word % 200).collect::<Vec<_>>());
        image.insert_words(SPAN, &words);
        if let Ok(spans) = Spans::read(&image, &layout, MHEAP) {
            let _ = spans.find(address);
        }
    }
}
