//! Pointer masks of Go types, read from their descriptors (`internal/abi.Type`).
//!
//! Only descriptors in memory that cannot change are believed, because they are read when the target runs again. Masks
//! that the runtime builds when it first needs them (Go 1.24 and later) are believed where they have been built.

use std::cell::RefCell;
use std::rc::Rc;

use hashbrown::HashMap;

use crate::memory::{Memory, word_at};

/// Largest type described, as a bound on what is read.
const MAX_SIZE: u64 = 1 << 40;
/// Largest mask read: that of a type of half a gigabyte.
const MAX_MASK: u64 = 8 << 20;
/// Types remembered.
const MAX_CACHED: usize = 1 << 20;
/// `TFlagGCMaskOnDemand`: `GCData` is the address of a pointer to the mask.
const ON_DEMAND: u8 = 1 << 4;
/// `KindGCProg`, until Go 1.23: `GCData` is a program that would build the mask.
const GC_PROG: u8 = 1 << 6;
/// `TFlagExtraStar`: the name begins with a star that is not part of it.
const EXTRA_STAR: u8 = 1 << 1;
/// `abi.Type`, with which every descriptor begins.
pub const TYPE_SIZE: u64 = 48;
/// `KindMask`
const KIND: u8 = 31;

/// Which words of a value hold pointers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mask {
    /// Words of the value.
    pub words: u64,
    /// Words up to the last pointer.
    pub pointer_words: u64,
    bits: Vec<u8>,
}

impl Mask {
    /// Whether word `index` holds a pointer.
    pub fn is_pointer(&self, index: u64) -> bool {
        index < self.pointer_words && bit(&self.bits, index)
    }
}

/// How every type descriptor begins.
#[derive(Clone, Copy, Debug)]
pub struct Head {
    /// Bytes of a value.
    pub size: u64,
    /// Bytes up to the last pointer.
    pub pointers: u64,
    flags: u8,
    kind: u8,
    mask: u64,
    /// Where its name is, from the beginning of its module's types on.
    pub name: i32,
}

impl Head {
    /// What kind of type it is (`abi.Kind`).
    pub const fn kind(&self) -> u8 {
        self.kind & KIND
    }

    /// Whether its name begins with a star too many.
    pub const fn has_extra_star(&self) -> bool {
        self.flags & EXTRA_STAR != 0
    }
}

/// Bit `index` of a bitmap.
pub fn bit(bits: &[u8], index: u64) -> bool {
    bits.get((index / 8) as usize).is_some_and(|byte| byte >> (index % 8) & 1 != 0)
}

/// What several threads make their [`Types`] of.
#[derive(Clone, Copy)]
pub struct ForThreads<'m> {
    memory: &'m (dyn Memory + Sync),
    minor: u32,
    immutable: &'m [(u64, u64)],
}

impl<'m> ForThreads<'m> {
    /// For one of them.
    pub fn types(self) -> Types<'m> {
        Types::new(self.memory, self.minor, self.immutable.to_vec())
    }
}

/// Reads and remembers masks.
pub struct Types<'m> {
    memory: &'m dyn Memory,
    minor: u32,
    immutable: Vec<(u64, u64)>,
    cache: RefCell<HashMap<u64, Option<Rc<Mask>>>>,
}

impl<'m> Types<'m> {
    /// For a program whose memory in `immutable` ranges never changes.
    pub fn new(memory: &'m dyn Memory, minor: u32, immutable: Vec<(u64, u64)>) -> Self {
        Self { memory, minor, immutable, cache: RefCell::default() }
    }

    /// The same for another thread, with its own memory of what was read.
    pub fn for_threads(&self) -> Option<ForThreads<'_>> {
        Some(ForThreads { memory: self.memory.for_threads()?, minor: self.minor, immutable: &self.immutable })
    }

    /// The mask of the type whose descriptor is at `address`; `None` when it is not known.
    pub fn mask(&self, address: u64) -> Option<Rc<Mask>> {
        if let Some(known) = self.cache.borrow().get(&address) {
            return known.clone();
        }
        let mask = self.read(address).map(Rc::new);
        let mut cache = self.cache.borrow_mut();
        if cache.len() < MAX_CACHED {
            cache.insert(address, mask.clone());
        }
        mask
    }

    /// The mask bits at `address`, for `words` words.
    pub fn bits(&self, address: u64, words: u64) -> Option<Vec<u8>> {
        let len = words.div_ceil(8);
        if len > MAX_MASK {
            return None;
        }
        let mut bits = vec![0; len as usize];
        self.memory.read(address, &mut bits).ok()?;
        Some(bits)
    }

    /// Whether `address` and the `len` bytes after it can never change.
    pub fn is_immutable(&self, address: u64, len: u64) -> bool {
        self.immutable
            .iter()
            .any(|(from, to)| *from <= address && address.checked_add(len).is_some_and(|end| end <= *to))
    }

    /// The beginning of the descriptor at `address`, if that cannot change and is none that makes no sense.
    pub fn head(&self, address: u64) -> Option<Head> {
        if !self.is_immutable(address, TYPE_SIZE) {
            return None;
        }
        let mut bytes = [0; TYPE_SIZE as usize];
        self.memory.read(address, &mut bytes).ok()?;
        let head = Head {
            size: word_at(&bytes, 0)?,
            pointers: word_at(&bytes, 8)?,
            flags: bytes[20],
            kind: bytes[23],
            mask: word_at(&bytes, 32)?,
            name: word_at(&bytes, 40)? as i32,
        };
        (head.size <= MAX_SIZE && head.pointers <= head.size && head.pointers.is_multiple_of(8)).then_some(head)
    }

    /// The memory that descriptors are in.
    pub fn memory(&self) -> &'m dyn Memory {
        self.memory
    }

    fn read(&self, address: u64) -> Option<Mask> {
        let head = self.head(address)?;
        if head.size == 0 || head.size % 8 != 0 {
            return None;
        }
        let pointer_words = head.pointers / 8;
        let mut data = head.mask;
        if pointer_words > 0 && self.minor >= 24 && head.flags & ON_DEMAND != 0 {
            // Once it is there it stays.
            data = self.memory.read_u64(data).ok().filter(|mask| *mask != 0)?;
        } else if pointer_words > 0 && (self.minor < 24 && head.kind & GC_PROG != 0 || !self.is_immutable(data, 1)) {
            return None;
        }
        let bits = if pointer_words == 0 { Vec::new() } else { self.bits(data, pointer_words)? };
        Some(Mask { words: head.size / 8, pointer_words, bits })
    }
}
