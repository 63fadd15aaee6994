//! The labels of a goroutine, as `pprof.Do` and `pprof.SetGoroutineLabels` (src/runtime/pprof) set them: `g.labels` points to a
//! `map[string]string` until Go 1.23, and to a list of pairs from 1.24 on. Whoever sets others makes a new one: none changes as long
//! as it is used.
//!
//! The memory is the target's, and may say anything: sizes are bounded, and what makes no sense is `None`.

use std::collections::BTreeMap;

use hashbrown::HashMap;
use serde::{Deserialize, Serialize};

use super::census::{CensusReader, Goroutine};
use super::{Fault, Memory, bytes_at, word_at};
use crate::golang::version::GoVersion;

/// Labels of one goroutine at most.
const MAX_LABELS: usize = 64;

/// Bytes of a key or a value that are read; what is longer is cut.
const MAX_TEXT: usize = 4096;

/// Buckets of a map, as a power of two, and buckets behind a bucket.
const MAX_BUCKET_BITS: u8 = 6;
const MAX_OVERFLOW: usize = 16;

/// A Go string: pointer and length.
const STRING: usize = 16;

/// Cells of a bucket (`abi.MapBucketCount`, src/internal/abi/map.go, until Go 1.23).
const CELLS: usize = 8;

/// A bucket: its cells' top hashes, keys, values, and the bucket behind it (`bmap`, src/runtime/map.go, until Go 1.23).
const BUCKET: usize = CELLS + 2 * CELLS * STRING + 8;

/// The lowest top hash of a cell with something in it (`minTopHash`), and those of the first cell of a bucket whose content is
/// elsewhere (`evacuatedX` to `evacuatedEmpty`).
const MIN_TOP_HASH: u8 = 5;
const EVACUATED: std::ops::RangeInclusive<u8> = 2..=4;

/// Labels by key.
pub type Labels = BTreeMap<String, String>;

/// The labels of some goroutines.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Labelled {
    /// Each that some goroutine has, once.
    pub sets: Vec<Labels>,
    /// Goids, each with the index of its set.
    pub of: Vec<(u64, u32)>,
    /// Goroutines whose labels could not be read, or that there were too many of.
    pub unread: u64,
}

impl Labelled {
    /// Reads the labels of those of `goroutines` that have some and do not run, as far as they lead to `most` places at most.
    /// A goroutine that has run meanwhile may have others now, and where its own were may be something else.
    pub fn read(
        memory: &dyn Memory,
        form: Form,
        reader: &CensusReader,
        goroutines: &[Goroutine],
        most: usize,
    ) -> Result<Self, Fault> {
        let labelled: Vec<&Goroutine> = goroutines.iter().filter(|g| g.labels != 0 && g.has_stack()).collect();
        let mut places: HashMap<u64, Option<u32>> = HashMap::new();
        let mut known: HashMap<Labels, u32> = HashMap::new();
        let mut taken = Self::default();
        for goroutine in &labelled {
            if places.len() >= most || places.contains_key(&goroutine.labels) {
                continue;
            }
            let set = read(memory, form, goroutine.labels).map(|labels| {
                let next = taken.sets.len() as u32;
                *known.entry(labels).or_insert_with_key(|labels| {
                    taken.sets.push(labels.clone());
                    next
                })
            });
            places.insert(goroutine.labels, set);
        }
        let addresses: Vec<u64> = labelled.iter().map(|goroutine| goroutine.address).collect();
        let now = reader.reread(memory, &addresses)?;
        for (goroutine, now) in labelled.into_iter().zip(now) {
            let stayed = now.is_some_and(|now| {
                let stands = |g: &Goroutine| (g.goid, g.labels, g.status, g.tracking_seq, g.sp, g.pc);
                stands(&now) == stands(goroutine)
            });
            match places.get(&goroutine.labels) {
                Some(Some(set)) if stayed => taken.of.push((goroutine.goid, *set)),
                _ => taken.unread += 1,
            }
        }
        Ok(taken)
    }
}

/// The same, to be asked by goroutine.
#[derive(Clone, Debug, Default)]
pub struct ByGoroutine {
    sets: Vec<Labels>,
    of: HashMap<u64, u32>,
    /// See [`Labelled::unread`].
    pub unread: u64,
}

impl From<Labelled> for ByGoroutine {
    fn from(Labelled { sets, of, unread }: Labelled) -> Self {
        Self { sets, of: of.into_iter().collect(), unread }
    }
}

impl ByGoroutine {
    /// Which labels a goroutine has, of those that [`ByGoroutine::set`] knows, if it has some and they could be read.
    pub fn index(&self, goid: u64) -> Option<u32> {
        self.of.get(&goid).copied()
    }

    /// Labels that some goroutine has; none for an index that no goroutine has.
    pub fn set(&self, index: u32) -> &Labels {
        static NONE: Labels = Labels::new();
        self.sets.get(index as usize).unwrap_or(&NONE)
    }

    /// Those of a goroutine.
    pub fn of(&self, goid: u64) -> Option<&Labels> {
        self.sets.get(self.index(goid)? as usize)
    }

    /// Whether no goroutine has any.
    pub fn is_empty(&self) -> bool {
        self.of.is_empty()
    }
}

/// What `g.labels` points to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A pointer to a map.
    Map,
    /// A slice of keys and values.
    List,
}

impl Form {
    /// That of a version.
    pub fn of(version: &GoVersion) -> Self {
        if version.at_least(1, 24) { Self::List } else { Self::Map }
    }
}

/// The labels that `g.labels` points to.
pub fn read(memory: &dyn Memory, form: Form, address: u64) -> Option<Labels> {
    match form {
        Form::List => list(memory, address),
        Form::Map => map(memory, address),
    }
}

/// `label.Set`, or `LabelSet` in 1.24: a slice of pairs of strings.
fn list(memory: &dyn Memory, address: u64) -> Option<Labels> {
    let slice = bytes_at(memory, address, STRING)?;
    let (pointer, len) = (word_at(&slice, 0)?, usize::try_from(word_at(&slice, 8)?).ok()?);
    if len > MAX_LABELS {
        return None;
    }
    if len == 0 {
        return Some(Labels::new());
    }
    let pairs = bytes_at(memory, pointer, len * 2 * STRING)?;
    let pair = |pair: &[u8]| Some((text(memory, pair, 0)?, text(memory, pair, STRING)?));
    pairs.chunks_exact(2 * STRING).map(pair).collect()
}

/// `hmap` of src/runtime/map.go, until Go 1.23, by a pointer to it.
fn map(memory: &dyn Memory, address: u64) -> Option<Labels> {
    let header = memory.read_u64(address).ok()?;
    let mut labels = Labels::new();
    if header == 0 {
        return Some(labels);
    }
    let header = bytes_at(memory, header, 32)?;
    let (count, flags, bits) = (word_at(&header, 0)?, *header.get(8)?, *header.get(9)?);
    let (buckets, old) = (word_at(&header, 16)?, word_at(&header, 24)?);
    if count > MAX_LABELS as u64 || bits > MAX_BUCKET_BITS {
        return None;
    }
    if count == 0 {
        return Some(labels);
    }
    (0..1 << bits).try_for_each(|nth| bucket(memory, buckets, nth, &mut labels))?;
    // One that grew when its last label was put in has part of them where it was.
    if old != 0 {
        let same_size = flags & 8 != 0;
        let bits = if same_size { bits } else { bits.checked_sub(1)? };
        (0..1 << bits).try_for_each(|nth| bucket(memory, old, nth, &mut labels))?;
    }
    (labels.len() as u64 == count).then_some(labels)
}

/// What is in a bucket, and in those behind it.
fn bucket(memory: &dyn Memory, buckets: u64, nth: u64, labels: &mut Labels) -> Option<()> {
    let mut address = buckets.checked_add(nth * BUCKET as u64)?;
    for _ in 0..MAX_OVERFLOW {
        let bytes = bytes_at(memory, address, BUCKET)?;
        if EVACUATED.contains(bytes.first()?) {
            return Some(());
        }
        for cell in (0..CELLS).filter(|cell| bytes[*cell] >= MIN_TOP_HASH) {
            let key = text(memory, &bytes, CELLS + cell * STRING)?;
            labels.insert(key, text(memory, &bytes, CELLS + (CELLS + cell) * STRING)?);
        }
        address = word_at(&bytes, BUCKET - 8)?;
        if address == 0 {
            return Some(());
        }
    }
    None
}

/// The string whose pointer and length stand at `offset` of bytes that were read.
fn text(memory: &dyn Memory, bytes: &[u8], offset: usize) -> Option<String> {
    let (pointer, len) = (word_at(bytes, offset)?, word_at(bytes, offset + 8)?);
    let len = usize::try_from(len).unwrap_or(usize::MAX).min(MAX_TEXT);
    if len == 0 {
        return Some(String::new());
    }
    let bytes = bytes_at(memory, pointer, len)?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::image::Image;

    const AT: u64 = 0xc000_0000;

    /// Memory in which values are put one after the other.
    struct Heap(Vec<u8>);

    impl Heap {
        fn put(&mut self, bytes: &[u8]) -> u64 {
            let address = AT + self.0.len() as u64;
            self.0.extend_from_slice(bytes);
            self.0.resize(self.0.len().next_multiple_of(8), 0);
            address
        }

        fn words(&mut self, words: &[u64]) -> u64 {
            self.put(&words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>())
        }

        /// Pointer and length.
        fn string(&mut self, text: &str) -> [u64; 2] {
            [self.put(text.as_bytes()), text.len() as u64]
        }

        fn bucket(&mut self, first: Option<u8>, labels: &[(&str, &str)], behind: u64) -> Vec<u8> {
            let mut bytes = vec![0; BUCKET];
            for (cell, (key, value)) in labels.iter().enumerate() {
                bytes[cell] = 200;
                for (at, text) in [(cell, key), (CELLS + cell, value)] {
                    let words = self.string(text);
                    let words: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
                    bytes[CELLS + at * STRING..][..STRING].copy_from_slice(&words);
                }
            }
            bytes[0] = first.unwrap_or(bytes[0]);
            bytes[BUCKET - 8..].copy_from_slice(&behind.to_le_bytes());
            bytes
        }

        /// A pointer to a map.
        fn map(&mut self, count: u64, flags: u8, bits: u8, buckets: u64, old: u64) -> u64 {
            let header = self.words(&[count, u64::from(flags) | u64::from(bits) << 8, buckets, old]);
            self.words(&[header])
        }

        fn read(&self, form: Form, address: u64) -> Option<Labels> {
            let mut image = Image::default();
            image.insert(AT, self.0.clone());
            read(&image, form, address)
        }
    }

    fn labels(pairs: &[(&str, &str)]) -> Option<Labels> {
        Some(pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect())
    }

    #[test]
    fn a_list_is_read_and_a_hostile_one_refused() {
        let mut heap = Heap(Vec::new());
        let pairs = [heap.string("tenant"), heap.string("a"), heap.string("empty"), [0, 0]].concat();
        let pairs = heap.words(&pairs);
        let good = heap.words(&[pairs, 2, 2]);
        assert_eq!(heap.read(Form::List, good), labels(&[("tenant", "a"), ("empty", "")]));
        let none = heap.words(&[0, 0, 0]);
        assert_eq!(heap.read(Form::List, none), labels(&[]));
        for (pointer, len) in [(pairs, u64::MAX), (pairs, 1_000_000), (8, 1), (u64::MAX, 2)] {
            let bad = heap.words(&[pointer, len, len]);
            assert_eq!(heap.read(Form::List, bad), None, "{pointer:#x} {len}");
        }
        // A length without bytes behind it is not allocated by.
        let endless = heap.words(&[AT, 1 << 60, AT, 1]);
        let bad = heap.words(&[endless, 1, 1]);
        assert_eq!(heap.read(Form::List, bad), None);
    }

    #[test]
    fn a_map_is_read_also_while_it_grows_and_a_hostile_one_refused() {
        let mut heap = Heap(Vec::new());
        let behind = heap.bucket(None, &[("d", "4")], 0);
        let behind = heap.put(&behind);
        let two = [heap.bucket(None, &[("a", "1"), ("b", "2")], behind), heap.bucket(None, &[("c", "3")], 0)].concat();
        let two = heap.put(&two);
        let good = heap.map(4, 0, 1, two, 0);
        assert_eq!(heap.read(Form::Map, good), labels(&[("a", "1"), ("b", "2"), ("c", "3"), ("d", "4")]));
        // Half of what was in the old bucket has been moved.
        let old = [heap.bucket(Some(2), &[("a", "old")], 0), heap.bucket(None, &[("e", "5")], 0)].concat();
        let old = heap.put(&old);
        let new = [heap.bucket(None, &[("a", "1")], 0), vec![0; 3 * BUCKET]].concat();
        let new = heap.put(&new);
        let growing = heap.map(2, 0, 2, new, old);
        assert_eq!(heap.read(Form::Map, growing), labels(&[("a", "1"), ("e", "5")]));
        let none = heap.words(&[0]);
        assert_eq!(heap.read(Form::Map, none), labels(&[]));
        let circle = heap.0.len() as u64 + AT;
        let circle_bytes = heap.bucket(None, &[], circle);
        assert_eq!(heap.put(&circle_bytes), circle, "no strings were put before it");
        for (count, bits, buckets) in [
            (5, 1, two),
            (u64::MAX, 1, two),
            (1, 60, two),
            (1, 255, two),
            (1, 0, circle),
            (1, 0, 8),
            (1, 1, u64::MAX - 64),
        ] {
            let bad = heap.map(count, 0, bits, buckets, 0);
            assert_eq!(heap.read(Form::Map, bad), None, "{count} {bits} {buckets:#x}");
        }
    }
}
