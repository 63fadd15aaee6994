//! What the objects are that leaked goroutines keep.
//!
//! From Go 1.22 on the allocator notes the type of every object that holds pointers and is not small. Of the others a type is known
//! where a pointer of a known type leads to their beginning: from an object whose type is known, by an interface, or from what
//! a goroutine sends on a channel. That pointer may be one to the first field of a larger value; of several the one to the
//! largest counts, and none that would fill only half of the object.

use hashbrown::HashMap;

use super::super::descriptors::{Described, Descriptors, Shape, To};
use super::super::heap::{Object, Span};
use super::super::objects::Objects;
use super::{Marker, is_tiny};
use crate::cause::wait::Wait;
use crate::memory::kinds::HeapKind;
use crate::memory::{bytes_at, word_at};

/// Kinds told of each group.
const MAX_TOLD: usize = 5;
/// Kinds counted, of all groups together.
const MAX_KINDS: usize = 1 << 16;
/// Objects kept up to which pointers are followed: of more it is told only what the allocator has noted, all of it or nothing.
const MAX_FOLLOWED: usize = 1 << 21;
/// Largest value sent that is looked at.
const MAX_SENT: u64 = 64 << 10;

/// What an object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Kind {
    /// Of a known type.
    Typed(Shape),
    /// Of this size, and with pointers or not.
    Sized(u64, bool),
    /// Larger than every size class, and with pointers or not.
    Large(bool),
}

impl Kind {
    fn of(shape: Option<Shape>, span: &Span) -> Self {
        match shape {
            Some(shape) => Self::Typed(shape),
            None if span.large => Self::Large(!span.noscan),
            None => Self::Sized(span.elem, !span.noscan),
        }
    }
}

/// How many there are of a kind.
struct Tally {
    objects: u64,
    bytes: u64,
    size: Option<u64>,
    pointers: bool,
}

/// Counts the objects of each group by their kinds.
#[derive(Default)]
pub(super) struct Kinds {
    tallies: HashMap<(u32, Kind), Tally>,
}

impl Kinds {
    /// One more of `owner`'s. Beyond the limit new kinds are not counted: only the largest are told.
    pub(super) fn add(&mut self, owner: u32, shape: Option<Shape>, span: &Span) {
        let key = (owner, Kind::of(shape, span));
        if self.tallies.len() >= MAX_KINDS && !self.tallies.contains_key(&key) {
            return;
        }
        let new = || Tally { objects: 0, bytes: 0, size: Some(span.elem), pointers: !span.noscan };
        let tally = self.tallies.entry(key).or_insert_with(new);
        tally.objects += 1;
        tally.bytes = tally.bytes.saturating_add(span.elem);
        tally.size = tally.size.filter(|size| *size == span.elem);
    }

    /// The largest kinds of each of `groups` groups.
    pub(super) fn largest(self, groups: usize, descriptors: &Descriptors<'_, '_>) -> Vec<Vec<HeapKind>> {
        let mut by_group: Vec<Vec<(Kind, Tally)>> = std::iter::repeat_with(Vec::new).take(groups).collect();
        for ((owner, kind), tally) in self.tallies {
            if let Some(kinds) = by_group.get_mut(owner as usize) {
                kinds.push((kind, tally));
            }
        }
        let told = |(kind, tally): (Kind, Tally)| HeapKind {
            type_name: if let Kind::Typed(shape) = kind { descriptors.name(shape) } else { None },
            size_class: tally.size,
            pointers: tally.pointers,
            objects: tally.objects,
            bytes: tally.bytes,
        };
        let largest = |mut kinds: Vec<(Kind, Tally)>| {
            kinds.sort_unstable_by_key(|(kind, tally)| (std::cmp::Reverse(tally.bytes), *kind));
            kinds.into_iter().take(MAX_TOLD).map(told).collect()
        };
        by_group.into_iter().map(largest).collect()
    }
}

/// Finds the types of objects that have owners.
struct Search<'s, 'm> {
    objects: &'s Objects<'m>,
    descriptors: &'s Descriptors<'s, 's>,
    owners: &'s HashMap<Object, u32>,
    shapes: HashMap<Object, Shape>,
    todo: Vec<(Object, Shape)>,
}

impl<'s, 'm> Search<'s, 'm> {
    /// Begins with what the allocator has noted.
    fn of(objects: &'s Objects<'m>, descriptors: &'s Descriptors<'s, 's>, owners: &'s HashMap<Object, u32>) -> Self {
        let mut search = Self { objects, descriptors, owners, shapes: HashMap::new(), todo: Vec::new() };
        for object in owners.keys() {
            if let Some(shape) = search.noted(*object) {
                search.shapes.insert(*object, shape);
                search.todo.push((*object, shape));
            }
        }
        search
    }

    /// What the allocator has noted of an object, if it has.
    fn noted(&self, object: Object) -> Option<Shape> {
        let (descriptor, _, value) = self.objects.noted(object)?;
        self.descriptors.filling(descriptor, value.len() as u64)
    }

    /// A pointer to `word` is one to this.
    fn lead(&mut self, word: u64, shape: Shape) {
        let Some(object) = self.objects.spans.find(word) else { return };
        let span = *self.objects.span(object);
        let is_all = self.objects.address(object) == word && !is_tiny(&span);
        if !is_all || self.shapes.get(&object) == Some(&shape) {
            return;
        }
        if !self.owners.contains_key(&object) || self.objects.noted(object).is_some() {
            return;
        }
        let Some(shape) = self.fitting(shape, &span) else { return };
        let known = self.shapes.get(&object).copied();
        if known.is_some_and(|known| self.rank(known) >= self.rank(shape)) {
            return;
        }
        self.shapes.insert(object, shape);
        self.todo.push((object, shape));
    }

    /// What an object of `span` is to which a pointer of this shape leads.
    fn fitting(&self, shape: Shape, span: &Span) -> Option<Shape> {
        let (Shape::One(descriptor) | Shape::Many(descriptor) | Shape::Channel(descriptor)) = shape;
        let described = self.descriptors.get(descriptor)?;
        if let Shape::Channel(_) = shape {
            return Some(shape);
        }
        let filling = self.descriptors.filling(descriptor, span.elem).filter(|_| described.pointers != span.noscan)?;
        (filling == shape || matches!(shape, Shape::Many(_))).then_some(filling)
    }

    /// Which of two shapes is the more likely one.
    fn rank(&self, shape: Shape) -> (u64, bool, std::cmp::Reverse<Shape>) {
        let (size, one) = match shape {
            Shape::One(descriptor) => (self.descriptors.get(descriptor), true),
            Shape::Many(descriptor) | Shape::Channel(descriptor) => (self.descriptors.get(descriptor), false),
        };
        (size.map_or(0, |described| described.size), one, std::cmp::Reverse(shape))
    }

    /// Follows the typed pointers of the values in `bytes`.
    fn follow(&mut self, described: &Described, bytes: &[u8]) {
        let Ok(size @ 1..) = usize::try_from(described.size) else { return };
        for value in bytes.chunks_exact(size) {
            for (offset, to) in &described.leads {
                let at = *offset as usize;
                let Some(first) = word_at(value, at).filter(|first| *first != 0) else { continue };
                let Some(shape) = self.descriptors.led_to(first, *to) else { continue };
                let pointer = if let To::Shape(_) = to { Some(first) } else { word_at(value, at + 8) };
                self.lead(pointer.unwrap_or(0), shape);
            }
        }
    }

    /// Follows them to the end.
    fn run(&mut self) {
        while let Some((object, shape)) = self.todo.pop() {
            let (Shape::One(descriptor) | Shape::Many(descriptor)) = shape else { continue };
            let Some(described) = self.descriptors.get(descriptor).filter(|it| !it.leads.is_empty()) else { continue };
            let noted = self.objects.noted(object).map(|(_, data, value)| (data, value));
            if let Some((data, range)) = noted.or_else(|| self.objects.bytes(object)) {
                self.follow(&described, &data[range]);
            }
        }
    }
}

impl Marker<'_, '_> {
    /// What is known of the types of objects that have owners, among them what these candidates wait for.
    pub(super) fn shapes<'c>(
        &self,
        owners: &HashMap<Object, u32>,
        candidates: impl Iterator<Item = &'c u32>,
        descriptors: &Descriptors<'_, '_>,
    ) -> HashMap<Object, Shape> {
        let mut search = Search::of(self.objects, descriptors, owners);
        if owners.len() > MAX_FOLLOWED {
            return search.shapes;
        }
        candidates.for_each(|candidate| self.of_channels(*candidate, &mut search));
        search.run();
        search.shapes
    }

    /// What is known of the channels that a candidate waits for, and of what it sends.
    fn of_channels(&self, candidate: u32, search: &mut Search<'_, '_>) {
        let candidate = &self.candidates[candidate as usize];
        if !matches!(candidate.wait, Wait::Send | Wait::Receive | Wait::Select) {
            return;
        }
        let element = |channel: u64| {
            let at = channel.checked_add(u64::from(self.layout().hchan.elemtype))?;
            self.memory.read_u64(at).ok()
        };
        for channel in &candidate.primitives {
            if let Some(element) = element(*channel) {
                search.lead(*channel, Shape::Channel(element));
            }
        }
        // In a select it is not known which cases send.
        for sudog in candidate.sudogs.iter().filter(|_| candidate.wait == Wait::Send) {
            let layout = &self.layout().sudog;
            let word = |offset: u32| self.memory.read_u64(sudog.checked_add(u64::from(offset))?).ok();
            let sent = word(layout.c).and_then(element).and_then(|element| search.descriptors.get(element));
            let Some((sent, at)) = sent.filter(|sent| sent.size <= MAX_SENT).zip(word(layout.elem)) else { continue };
            if let Some(bytes) = bytes_at(self.memory, at, sent.size as usize) {
                search.follow(&sent, &bytes);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::image::Image;
    use crate::reach::contents::Reads;
    use crate::reach::descriptors::tests::{FIELDS, FROM, OTHER, TO, TYPE, descriptor, name};
    use crate::reach::descriptors::{POINTER, STRUCT};
    use crate::reach::heap::Spans;
    use crate::reach::tests::{BASE, MHEAP, SpanOf, heap, layout};
    use crate::reach::types::Types;

    const SMALL: u64 = BASE + 0x4000;
    const TAG: u64 = FROM + 0x600;

    /// What is known of two objects of 1024 bytes, the second with this as its header, and of two small ones to which they lead: by
    /// address.
    fn known(header: u64) -> Vec<(u64, Shape)> {
        let layout = layout("go1.27.3");
        let large = SpanOf { elem: 1024, count: 8, class: 60, ..SpanOf::default() };
        let mut image = heap(&layout, &[large, SpanOf { base: SMALL, ..SpanOf::default() }]);
        name(&mut image, "*main.record");
        descriptor(&mut image, TYPE, STRUCT, 1000, [0, FIELDS, 1]);
        image.insert_words(FIELDS, &[0, OTHER, 16]);
        descriptor(&mut image, OTHER, POINTER, 8, [TAG, 0, 0]);
        descriptor(&mut image, TAG, STRUCT, 56, [0, 0, 0]);
        // The same where it can change.
        descriptor(&mut image, TO, STRUCT, 1000, [0, FIELDS, 1]);
        let mut words = vec![0; 1024];
        (words[0], words[3]) = (TYPE, SMALL + 64);
        (words[128], words[131]) = (header, SMALL + 128);
        image.insert_words(BASE, &words);
        image.insert_words(SMALL, &vec![0; 1024]);
        let spans = Spans::read(&image, &layout, MHEAP).expect("readable");
        let types = Types::new(&image, layout.minor, vec![(FROM, TO)]);
        let descriptors = Descriptors::new(&types, vec![(FROM, TO)]);
        let objects = Objects::new(&image, &layout, spans, &types, MHEAP, Reads::WHOLE);
        let all = [BASE, BASE + 1024, SMALL + 64, SMALL + 128];
        let owners = all.iter().filter_map(|at| Some((objects.spans.find(*at)?, 0))).collect();
        let mut search = Search::of(&objects, &descriptors, &owners);
        search.run();
        let mut known: Vec<_> =
            search.shapes.iter().map(|(object, shape)| (objects.address(*object), *shape)).collect();
        known.sort_unstable();
        known
    }

    #[test]
    fn an_object_whose_type_is_noted_tells_of_those_it_leads_to() {
        let both = [BASE, BASE + 1024].map(|at| (at, Shape::One(TYPE)));
        let tags = [SMALL + 64, SMALL + 128].map(|at| (at, Shape::One(TAG)));
        assert_eq!(known(TYPE), [both, tags].concat());
    }

    #[test]
    fn a_header_that_leads_elsewhere_tells_of_nothing() {
        let first = [(BASE, Shape::One(TYPE)), (SMALL + 64, Shape::One(TAG))];
        for header in [0, 8, TYPE + 4, TYPE + 8, FIELDS, TO, BASE, SMALL, u64::MAX, u64::MAX - 7] {
            assert_eq!(known(header), first, "{header:#x}");
        }
    }

    #[test]
    fn the_largest_kinds_are_told() {
        let image = Image::default();
        let types = Types::new(&image, 27, Vec::new());
        let descriptors = Descriptors::new(&types, Vec::new());
        let mut kinds = Kinds::default();
        for size in 1..=7 {
            let span = Span { elem: size * 16, noscan: size > 2, ..Span::default() };
            (0..2).for_each(|_| kinds.add(1, None, &span));
        }
        for size in [1 << 20, 1 << 21] {
            kinds.add(1, None, &Span { elem: size, large: true, noscan: true, ..Span::default() });
        }
        let told = kinds.largest(2, &descriptors);
        assert!(told[0].is_empty());
        let of_sizes: Vec<_> = told[1].iter().map(|kind| (kind.size_class, kind.objects, kind.bytes)).collect();
        assert_eq!(
            of_sizes,
            [(None, 2, 3 << 20), (Some(112), 2, 224), (Some(96), 2, 192), (Some(80), 2, 160), (Some(64), 2, 128)]
        );
        assert!(told[1].iter().all(|kind| kind.type_name.is_none() && !kind.pointers));
    }
}
