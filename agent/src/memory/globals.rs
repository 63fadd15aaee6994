//! `runtime.allgs` in a live process whose binary has no symbols, known by what it must be: a slice of pointers to `g`s,
//! the first of which is the main goroutine, and all of which are in a state that a goroutine can be in.
//!
//! Deliberately absent: the best of several. What is found is certain or refused. The process is not stopped, so what
//! holds of a moment alone is looked at again.

use std::collections::BTreeSet;
use std::ops::Range;

use super::census::{CensusReader, Goroutine, Status};
use super::{Fault, Memory, Request, word_at};
use crate::golang::layout::GLayout;

/// Most memory searched: zeroed variables of a program can be larger, those of the runtime are not.
const MAX_SEARCH: u64 = 512 << 20;
/// Most places that look like a slice and are looked at.
const MAX_SLICES: usize = 1 << 20;
/// Elements looked at on either end of the list.
const SAMPLE: u64 = 64;
/// Longer lists are refused: no machine has memory for as many stacks.
const MAX_LEN: u64 = 1 << 32;
/// The largest stack (`runtime.maxstackceiling`).
const MAX_STACK: u64 = 2 << 30;
const CHUNK: usize = 256 << 10;
const PAGE: usize = 4096;
/// Looks taken. During a garbage collection the runtime keeps a second slice of the same `g`s (`work.stackRoots`).
const LOOKS: usize = 5;
/// Pointer, length and capacity.
const SLICE: usize = 24;

/// Why the list of goroutines is not known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotFound {
    /// Nothing looks like it.
    #[error("no slice of goroutines that begins with the main goroutine is in its variables")]
    Nowhere,
    /// More than one thing does.
    #[error("{0} places look like it")]
    Ambiguous(usize),
    /// There is more to search than is searched.
    #[error("its variables exceed what is searched ({MAX_SEARCH} bytes, {MAX_SLICES} slices)")]
    TooMuch,
    /// The memory cannot be read.
    #[error(transparent)]
    Fault(#[from] Fault),
}

/// A search for the list of goroutines of one process.
pub struct Search<'a> {
    memory: &'a dyn Memory,
    reader: CensusReader,
    main: u64,
}

impl<'a> Search<'a> {
    /// A search in the process whose `runtime.main` runs at `main`.
    pub fn new(memory: &'a dyn Memory, layout: GLayout, main: u64) -> Self {
        Self { memory, reader: CensusReader::new(layout, 0), main }
    }

    /// The one of `addresses` at which `runtime.allgs` is.
    pub fn among(&self, addresses: &BTreeSet<u64>) -> Result<u64, NotFound> {
        only(self.certain(addresses.iter().copied().collect())?)
    }

    /// The place within `ranges` at which `runtime.allgs` is.
    pub fn within(&self, ranges: &[Range<u64>]) -> Result<u64, NotFound> {
        let mut found = self.certain(self.slices(ranges)?)?;
        for _ in 1..LOOKS {
            if found.len() < 2 {
                break;
            }
            found = self.certain(found)?;
        }
        only(found)
    }

    /// All places that hold something like a slice.
    fn slices(&self, ranges: &[Range<u64>]) -> Result<Vec<u64>, NotFound> {
        let total = ranges.iter().fold(0u64, |sum, range| sum.saturating_add(range.end.saturating_sub(range.start)));
        if total > MAX_SEARCH {
            return Err(NotFound::TooMuch);
        }
        let mut found = Vec::new();
        let mut buf = vec![0; CHUNK];
        for range in ranges {
            let mut at = range.start;
            while at.saturating_add(SLICE as u64) <= range.end {
                let len = (range.end - at).min(CHUNK as u64) as usize;
                let chunk = &mut buf[..len];
                if !self.fill(at, chunk)? {
                    at = at.saturating_add((len - len.min(SLICE - 8)).max(8) as u64);
                    continue;
                }
                for offset in (0..len.saturating_sub(SLICE - 1)).step_by(8) {
                    if Slice::read(chunk, offset).is_some() {
                        found.push(at + offset as u64);
                    }
                }
                if found.len() > MAX_SLICES {
                    return Err(NotFound::TooMuch);
                }
                // A slice may lie across the end of a chunk.
                at = at.saturating_add((len - len.min(SLICE - 8)).max(8) as u64);
            }
        }
        Ok(found)
    }

    /// Fills `buf`, with zeros for pages that cannot be read; whether there was anything to read.
    fn fill(&self, at: u64, buf: &mut [u8]) -> Result<bool, Fault> {
        match self.memory.read(at, buf) {
            Ok(()) => return Ok(true),
            Err(Fault::Unmapped { .. }) => buf.fill(0),
            Err(other) => return Err(other),
        }
        let mut any = false;
        // Pieces that end where pages do.
        let mut from = 0;
        while from < buf.len() {
            let here = at.saturating_add(from as u64);
            let len = (PAGE - (here % PAGE as u64) as usize).min(buf.len() - from);
            match self.memory.read(here, &mut buf[from..from + len]) {
                Ok(()) => any = true,
                Err(Fault::Unmapped { .. }) => buf[from..from + len].fill(0),
                Err(other) => return Err(other),
            }
            from += len;
        }
        Ok(any)
    }

    /// Those of `places` that hold a slice of goroutines, the main goroutine first.
    fn certain(&self, places: Vec<u64>) -> Result<Vec<u64>, Fault> {
        let mut found = Vec::new();
        for batch in places.chunks(4096) {
            let slices = self.words::<SLICE>(batch)?;
            let slices: Vec<(u64, Slice)> = batch
                .iter()
                .zip(slices)
                .filter_map(|(place, bytes)| Some((*place, Slice::read(bytes.as_ref()?, 0)?)))
                .collect();
            let arrays: Vec<u64> = slices.iter().map(|(_, slice)| slice.array).collect();
            let firsts = self.words::<8>(&arrays)?;
            let firsts: Vec<u64> = firsts.iter().map(|first| first.map_or(0, u64::from_le_bytes)).collect();
            let goroutines = self.reader.reread(self.memory, &firsts)?;
            for ((place, slice), first) in slices.into_iter().zip(goroutines) {
                let main = first.is_some_and(|g| g.goid == 1 && g.start_pc == self.main && plausible(&g));
                if main && self.holds_goroutines(slice)? {
                    found.push(place);
                }
            }
        }
        Ok(found)
    }

    /// Whether the list's first and last elements are goroutines.
    fn holds_goroutines(&self, slice: Slice) -> Result<bool, Fault> {
        let head = 0..slice.len.min(SAMPLE);
        let tail = slice.len.saturating_sub(SAMPLE).max(head.end)..slice.len;
        let places: Vec<u64> = head.chain(tail).map(|index| slice.array.saturating_add(index * 8)).collect();
        let addresses: Option<Vec<u64>> =
            self.words::<8>(&places)?.into_iter().map(|word| Some(u64::from_le_bytes(word?))).collect();
        let Some(addresses) = addresses else { return Ok(false) };
        let distinct: BTreeSet<u64> = addresses.iter().copied().collect();
        if distinct.len() != addresses.len() || distinct.iter().any(|address| *address == 0 || address % 8 != 0) {
            return Ok(false);
        }
        let goroutines = self.reader.reread(self.memory, &addresses)?;
        Ok(goroutines.iter().all(|g| g.as_ref().is_some_and(plausible)))
    }

    /// `N` bytes at each address; `None` where they cannot be read.
    fn words<const N: usize>(&self, addresses: &[u64]) -> Result<Vec<Option<[u8; N]>>, Fault> {
        let mut bytes = vec![[0u8; N]; addresses.len()];
        let mut requests: Vec<Request<'_>> = bytes
            .iter_mut()
            .zip(addresses)
            .map(|(buf, address)| Request { address: *address, buf, ok: false })
            .collect();
        self.memory.read_many(&mut requests)?;
        let served: Vec<bool> = requests.iter().map(|request| request.ok).collect();
        Ok(bytes.into_iter().zip(served).map(|(bytes, ok)| ok.then_some(bytes)).collect())
    }
}

fn only(found: Vec<u64>) -> Result<u64, NotFound> {
    match found[..] {
        [] => Err(NotFound::Nowhere),
        [place] => Ok(place),
        _ => Err(NotFound::Ambiguous(found.len())),
    }
}

/// Whether a goroutine can look like this.
fn plausible(g: &Goroutine) -> bool {
    match g.status {
        Status::Unknown(_) => false,
        // Their stack is freed and their number may be from an earlier life.
        Status::Dead | Status::Idle => true,
        _ => g.goid != 0 && stack_is_sane(g),
    }
}

/// Whether a goroutine's stack can be one.
pub fn stack_is_sane(g: &Goroutine) -> bool {
    g.stack_lo != 0 && g.stack_lo < g.stack_hi && g.stack_hi - g.stack_lo <= MAX_STACK
}

#[derive(Clone, Copy, Debug)]
struct Slice {
    array: u64,
    len: u64,
}

impl Slice {
    /// The slice at `offset` of `bytes`, if those could be one of pointers.
    fn read(bytes: &[u8], offset: usize) -> Option<Self> {
        let array = word_at(bytes, offset)?;
        let len = word_at(bytes, offset.checked_add(8)?)?;
        let capacity = word_at(bytes, offset.checked_add(16)?)?;
        let fits = array >= PAGE as u64 && array.is_multiple_of(8) && array < 1 << 56;
        (fits && (1..=capacity).contains(&len) && capacity <= MAX_LEN).then_some(Self { array, len })
    }
}

#[cfg(test)]
#[path = "globals_tests.rs"]
mod tests;
