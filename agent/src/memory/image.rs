//! Memory made of pieces: what tests build, and what a saved image holds.

use std::collections::BTreeMap;

use super::{Fault, Memory};

/// Regions by their first address. Regions do not overlap.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image {
    regions: BTreeMap<u64, Vec<u8>>,
}

impl Image {
    /// Adds a region; replaces one that begins at the same address.
    pub fn insert(&mut self, address: u64, bytes: Vec<u8>) {
        self.regions.insert(address, bytes);
    }

    /// Adds a region of 64-bit words.
    pub fn insert_words(&mut self, address: u64, words: &[u64]) {
        self.insert(address, words.iter().flat_map(|word| word.to_le_bytes()).collect());
    }
}

impl Memory for Image {
    fn read(&self, address: u64, buf: &mut [u8]) -> Result<(), Fault> {
        let unmapped = Fault::Unmapped { address, len: buf.len() };
        let (start, bytes) = self.regions.range(..=address).next_back().ok_or(unmapped)?;
        let offset = usize::try_from(address - start).map_err(|_| unmapped)?;
        let end = offset.checked_add(buf.len()).ok_or(unmapped)?;
        buf.copy_from_slice(bytes.get(offset..end).ok_or(unmapped)?);
        Ok(())
    }
}
