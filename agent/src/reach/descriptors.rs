//! What type descriptors (`internal/abi.Type`) tell beyond pointer masks: a type's name and size, and where in its values there
//! are pointers whose types are known.
//!
//! A descriptor is believed only within the types of a module, and if it has a name there. Maps, functions and strings are not
//! gone into: the allocator notes the types of large parts of maps itself, and the others say nothing of what they lead to.

use std::cell::RefCell;
use std::rc::Rc;

use hashbrown::HashMap;

use super::types::{Head, TYPE_SIZE, Types};
use crate::memory::{bytes_at, word_at};

/// `abi.Kind`
const ARRAY: u8 = 17;
const CHAN: u8 = 18;
const INTERFACE: u8 = 20;
pub(super) const POINTER: u8 = 22;
const SLICE: u8 = 23;
pub(super) const STRUCT: u8 = 25;
const LAST: u8 = 26;

/// Types and interfaces' first words that are looked at: more of a program's are not told.
const MAX_KNOWN: usize = 1 << 16;
/// Typed pointers of one type, and parts of it that are looked at for them.
const MAX_LEADS: usize = 256;
const MAX_PARTS: u32 = 4096;
/// Structs and arrays within each other.
const MAX_DEPTH: u32 = 16;
/// `abi.StructField`: name, type, offset.
const FIELD: u64 = 24;
/// `itab._type`
const ITAB_TYPE: u64 = 8;
/// Bytes of a name that are told.
const MAX_NAME: u64 = 200;

/// What memory holds, by the address of a type's descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Shape {
    /// One value.
    One(u64),
    /// Several, side by side.
    Many(u64),
    /// A channel of such values.
    Channel(u64),
}

/// Where a pointer within a value leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum To {
    /// To this.
    Shape(Shape),
    /// An interface without methods, whose first word is the type of what the second has.
    Empty,
    /// An interface with methods, whose first word leads to that type.
    Methods,
}

/// A type.
#[derive(Clone, Debug)]
pub struct Described {
    /// As Go writes it.
    pub name: String,
    /// Bytes of a value.
    pub size: u64,
    /// Whether a value holds pointers.
    pub pointers: bool,
    /// Pointers within a value, by their offsets.
    pub leads: Vec<(u64, To)>,
}

/// See the module.
pub struct Descriptors<'t, 'm> {
    types: &'t Types<'m>,
    /// The types of each module.
    sections: Vec<(u64, u64)>,
    known: RefCell<HashMap<u64, Option<Rc<Described>>>>,
    interfaces: RefCell<HashMap<(u64, To), Option<Shape>>>,
}

/// What is left to be looked at of a type, and what was found.
struct Walk {
    parts: u32,
    leads: Vec<(u64, To)>,
}

/// What is known of `key`, looked up the first time; `None` where too much is known already.
fn once<K: Eq + std::hash::Hash, V: Clone>(
    known: &RefCell<HashMap<K, Option<V>>>,
    key: K,
    look: impl FnOnce() -> Option<V>,
) -> Option<V> {
    if let Some(known) = known.borrow().get(&key) {
        return known.clone();
    }
    if known.borrow().len() >= MAX_KNOWN {
        return None;
    }
    let found = look();
    known.borrow_mut().insert(key, found.clone());
    found
}

impl<'t, 'm> Descriptors<'t, 'm> {
    /// Those in `sections`.
    pub fn new(types: &'t Types<'m>, sections: Vec<(u64, u64)>) -> Self {
        Self { types, sections, known: RefCell::default(), interfaces: RefCell::default() }
    }

    /// The type whose descriptor is at `address`.
    pub fn get(&self, address: u64) -> Option<Rc<Described>> {
        once(&self.known, address, || self.read(address).map(Rc::new))
    }

    /// What `room` bytes hold that begin with a value of the type at `address`.
    pub fn filling(&self, address: u64, room: u64) -> Option<Shape> {
        let size = self.get(address)?.size;
        // The allocator's sizes are less than twice what was asked for, but for the smallest.
        let once = room < size.saturating_mul(2) || room <= 16;
        match (1..=room).contains(&size) {
            true if once => is_class_of(size, room).then_some(Shape::One(address)),
            true => Some(Shape::Many(address)),
            false => None,
        }
    }

    /// What is led to from where the first word is this.
    pub fn led_to(&self, first: u64, to: To) -> Option<Shape> {
        match to {
            To::Shape(shape) => Some(shape),
            To::Empty | To::Methods => once(&self.interfaces, (first, to), || self.within(first, to)),
        }
    }

    fn within(&self, first: u64, to: To) -> Option<Shape> {
        let address = match to {
            To::Shape(shape) => return Some(shape),
            To::Empty => first,
            To::Methods => self.types.memory().read_u64(first.checked_add(ITAB_TYPE)?).ok()?,
        };
        match self.head(address)?.kind() {
            POINTER => Some(Shape::One(self.word(address, 0)?)),
            CHAN => Some(Shape::Channel(self.word(address, 0)?)),
            _ => Some(Shape::One(address)),
        }
    }

    /// Its name.
    pub fn name(&self, shape: Shape) -> Option<String> {
        let (before, address) = match shape {
            Shape::One(address) => ("", address),
            Shape::Many(address) => ("[]", address),
            Shape::Channel(address) => ("chan ", address),
        };
        Some(format!("{before}{}", self.get(address)?.name))
    }

    fn read(&self, address: u64) -> Option<Described> {
        let head = self.head(address)?;
        let name = self.name_of(address, &head)?;
        let mut walk = Walk { parts: MAX_PARTS, leads: Vec::new() };
        self.walk(address, &head, 0, 0, &mut walk);
        let mut leads = walk.leads;
        leads.retain(|(offset, _)| offset.is_multiple_of(8) && *offset < head.pointers);
        leads.sort_unstable_by_key(|(offset, _)| *offset);
        leads.dedup_by_key(|(offset, _)| *offset);
        Some(Described { name, size: head.size, pointers: head.pointers > 0, leads })
    }

    /// The module's types among which there is a descriptor at `address`.
    fn section(&self, address: u64) -> Option<(u64, u64)> {
        let end = address.checked_add(TYPE_SIZE).filter(|_| address.is_multiple_of(8))?;
        self.sections.iter().copied().find(|(from, to)| *from <= address && end <= *to)
    }

    fn head(&self, address: u64) -> Option<Head> {
        self.section(address)?;
        self.types.head(address).filter(|head| (1..=LAST).contains(&head.kind()))
    }

    /// Word `index` of what follows the beginning of a descriptor.
    fn word(&self, address: u64, index: u64) -> Option<u64> {
        let at = address.checked_add(TYPE_SIZE + 8 * index)?;
        self.types.memory().read_u64(at).ok().filter(|_| self.types.is_immutable(at, 8))
    }

    fn name_of(&self, address: u64, head: &Head) -> Option<String> {
        let (from, to) = self.section(address)?;
        let at = from.checked_add(u64::try_from(head.name).ok().filter(|offset| *offset > 0)?)?;
        // Flags, the length as a varint, and the bytes.
        let length = bytes_at(self.types.memory(), at.checked_add(1)?, 2)?;
        let (len, taken) = match (length[0], length[1]) {
            (short @ 0..=127, _) => (u64::from(short), 1),
            (low, high) => (u64::from(low & 127) | u64::from(high & 127) << 7, 2),
        };
        let told = len.min(MAX_NAME);
        let at = at + 1 + taken;
        if told == 0 || at.checked_add(told)? > to {
            return None;
        }
        let bytes = bytes_at(self.types.memory(), at, told as usize)?;
        let bytes = if head.has_extra_star() { bytes.strip_prefix(b"*")? } else { &*bytes };
        let name = match std::str::from_utf8(bytes) {
            Ok(name) => name,
            // It may have been cut within a character.
            Err(error) if len > told && error.error_len().is_none() => {
                std::str::from_utf8(&bytes[..error.valid_up_to()]).ok()?
            }
            Err(_) => return None,
        };
        let more = if len > told { "…" } else { "" };
        (!name.is_empty() && !name.contains(char::is_control)).then(|| format!("{name}{more}"))
    }

    /// Finds the typed pointers of a value at offset `at` of another.
    fn walk(&self, address: u64, head: &Head, at: u64, depth: u32, walk: &mut Walk) {
        if head.pointers == 0 || depth > MAX_DEPTH {
            return;
        }
        let word = |index| self.word(address, index).unwrap_or(0);
        let lead = match head.kind() {
            POINTER => Some(To::Shape(Shape::One(word(0)))),
            SLICE => Some(To::Shape(Shape::Many(word(0)))),
            CHAN => Some(To::Shape(Shape::Channel(word(0)))),
            // `InterfaceType.Methods` follows the package's name.
            INTERFACE => Some(if word(2) == 0 { To::Empty } else { To::Methods }),
            ARRAY => {
                let (element, len) = (word(0), word(2));
                let Some(part) = self.head(element) else { return };
                self.parts(len, walk, |index, walk| {
                    self.walk(element, &part, at.saturating_add(index.saturating_mul(part.size)), depth + 1, walk);
                });
                None
            }
            STRUCT => {
                let (fields, len) = (word(1), word(2));
                self.parts(len, walk, |index, walk| self.field(fields.saturating_add(index * FIELD), at, depth, walk));
                None
            }
            _ => None,
        };
        walk.leads.extend(lead.map(|to| (at, to)));
    }

    /// Looks at so many parts, as far as may be.
    fn parts(&self, len: u64, walk: &mut Walk, look: impl Fn(u64, &mut Walk)) {
        for index in 0..len {
            if walk.parts == 0 || walk.leads.len() >= MAX_LEADS {
                return;
            }
            walk.parts -= 1;
            look(index, walk);
        }
    }

    fn field(&self, field: u64, at: u64, depth: u32, walk: &mut Walk) {
        let Some(bytes) = bytes_at(self.types.memory(), field, FIELD as usize) else { return };
        let (Some(of), Some(offset)) = (word_at(&bytes, 8), word_at(&bytes, 16)) else { return };
        let Some(head) = self.head(of).filter(|_| self.types.is_immutable(field, FIELD)) else { return };
        self.walk(of, &head, at.saturating_add(offset), depth + 1, walk);
    }
}

/// Sizes of the allocator's classes, up to the largest whose objects never have a header (src/runtime/sizeclasses.go,
/// internal/runtime/gc/sizeclasses.go; the same in all versions).
const CLASSES: [u64; 26] = [
    8, 16, 24, 32, 48, 64, 80, 96, 112, 128, 144, 160, 176, 192, 208, 224, 240, 256, 288, 320, 352, 384, 416, 448, 480,
    512,
];

/// Whether a value of this size would be in an object of that, as far as is known.
fn is_class_of(size: u64, object: u64) -> bool {
    let class = CLASSES.iter().find(|class| **class >= size);
    class.is_none_or(|class| *class == object)
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::memory::image::Image;

    /// The types of the only module.
    pub const FROM: u64 = 0x50_0000;
    pub const TO: u64 = FROM + 0x1000;
    pub const TYPE: u64 = FROM + 0x100;
    pub const OTHER: u64 = FROM + 0x200;
    pub const FIELDS: u64 = FROM + 0x300;
    const NAME: u64 = 0x400;

    /// A descriptor of a type of this kind and size, all of it pointers, and what follows its beginning.
    pub fn descriptor(image: &mut Image, at: u64, kind: u8, size: u64, rest: [u64; 3]) {
        let flags = u64::from(kind) << 56 | u64::from(EXTRA) << 32;
        image.insert_words(at, &[size, size, flags, 0, 0, NAME, rest[0], rest[1], rest[2]]);
    }

    const EXTRA: u8 = 1 << 1;

    pub fn name(image: &mut Image, name: &str) {
        let len = [0, (name.len() & 127) as u8 | 128, (name.len() >> 7) as u8];
        let len = if name.len() < 128 { &[0, name.len() as u8][..] } else { &len };
        image.insert(FROM + NAME, [len, name.as_bytes(), b"what follows"].concat());
    }

    fn get(image: &Image, address: u64) -> Option<Rc<Described>> {
        let types = Types::new(image, 27, vec![(FROM, TO)]);
        Descriptors::new(&types, vec![(FROM, TO)]).get(address)
    }

    #[test]
    fn a_struct_leads_to_what_its_fields_do() {
        let mut image = Image::default();
        name(&mut image, "*main.record");
        descriptor(&mut image, TYPE, STRUCT, 32, [0, FIELDS, 3]);
        // An array of two pointers, a slice that would begin behind the value, and an interface.
        descriptor(&mut image, OTHER, ARRAY, 16, [OTHER + 80, 0, 2]);
        descriptor(&mut image, OTHER + 80, POINTER, 8, [TYPE, 0, 0]);
        descriptor(&mut image, OTHER + 0x400, SLICE, 8, [TYPE, 0, 0]);
        descriptor(&mut image, OTHER + 0x500, INTERFACE, 16, [0, 0, 0]);
        image.insert_words(FIELDS, &[0, OTHER, 0, 0, OTHER + 0x400, 32, 0, OTHER + 0x500, 16]);
        let record = get(&image, TYPE).expect("a type");
        assert_eq!((record.name.as_str(), record.size, record.pointers), ("main.record", 32, true));
        let to = To::Shape(Shape::One(TYPE));
        assert_eq!(record.leads, [(0, to), (8, to), (16, To::Empty)]);
    }

    #[test]
    fn what_fills_an_object_is_one_value_or_several() {
        let mut image = Image::default();
        name(&mut image, "*main.record");
        descriptor(&mut image, TYPE, STRUCT, 600, [0, 0, 0]);
        let types = Types::new(&image, 27, vec![(FROM, TO)]);
        let descriptors = Descriptors::new(&types, vec![(FROM, TO)]);
        let filling = |room| descriptors.filling(TYPE, room);
        assert_eq!([filling(599), filling(640)], [None, Some(Shape::One(TYPE))]);
        assert_eq!(filling(1280), Some(Shape::Many(TYPE)));
        let names = [Shape::One(TYPE), Shape::Many(TYPE), Shape::Channel(TYPE)].map(|shape| descriptors.name(shape));
        assert_eq!(names.map(Option::unwrap_or_default), ["main.record", "[]main.record", "chan main.record"]);
    }

    #[test]
    fn long_names_are_cut() {
        let mut image = Image::default();
        descriptor(&mut image, TYPE, STRUCT, 8, [0, 0, 0]);
        name(&mut image, &format!("*{}ä{}", "a".repeat(198), "b".repeat(400)));
        assert_eq!(get(&image, TYPE).map(|it| it.name.clone()), Some(format!("{}…", "a".repeat(198))));
    }

    #[test]
    fn what_is_no_descriptor_has_no_name() {
        let mut image = Image::default();
        name(&mut image, "*main.record");
        descriptor(&mut image, TYPE, STRUCT, 8, [0, 0, 0]);
        // The same where it can change.
        descriptor(&mut image, TO, STRUCT, 8, [0, 0, 0]);
        // Kinds that there are not.
        descriptor(&mut image, OTHER, 0, 8, [0, 0, 0]);
        descriptor(&mut image, OTHER + 80, 27, 8, [0, 0, 0]);
        assert!(get(&image, TYPE).is_some());
        for address in [0, TYPE + 4, OTHER, OTHER + 80, TO, TO - 8, FROM, u64::MAX, u64::MAX - 7] {
            assert!(get(&image, address).is_none(), "{address:#x}");
        }
        for wrong in ["", "*", "no star", "*main.\u{1b}[2J"] {
            name(&mut image, wrong);
            assert!(get(&image, TYPE).is_none(), "{wrong:?}");
        }
        image.insert(FROM + NAME, vec![0, 3, b'*', 0xff, 0xfe]);
        assert!(get(&image, TYPE).is_none(), "no UTF-8");
    }

    #[test]
    fn types_within_themselves_come_to_an_end() {
        let mut image = Image::default();
        name(&mut image, "*main.record");
        descriptor(&mut image, TYPE, STRUCT, 1 << 30, [0, FIELDS, u64::MAX]);
        let fields: Vec<u64> = (0..64).flat_map(|index| [0, TYPE, index * 8]).collect();
        image.insert_words(FIELDS, &fields);
        descriptor(&mut image, OTHER, ARRAY, 1 << 30, [OTHER, 0, u64::MAX]);
        assert!([TYPE, OTHER].iter().all(|address| get(&image, *address).is_some_and(|it| it.leads.is_empty())));
    }

    proptest! {
        #[test]
        fn any_descriptors_are_survived(words in prop::collection::vec(any::<u64>(), 128), at in 0u64..128, first in any::<u64>()) {
            let mut image = Image::default();
            // Names, elements and fields of which some lie among the words.
            let near = |word: &u64| match word % 3 {
                0 => FROM + word % 1024,
                1 => word % 1024,
                _ => *word,
            };
            image.insert_words(FROM, &words.iter().map(near).collect::<Vec<_>>());
            let types = Types::new(&image, 27, vec![(FROM, FROM + 1024)]);
            let descriptors = Descriptors::new(&types, vec![(FROM, FROM + 1024)]);
            if let Some(described) = descriptors.get(FROM + at * 8) {
                assert!(described.leads.len() <= MAX_LEADS && !described.name.is_empty());
            }
            descriptors.led_to(first, To::Empty);
            descriptors.led_to(FROM + at * 8, To::Methods);
        }
    }
}
