//! Memory made of pieces: what tests build, and what a saved image holds.

use std::collections::BTreeMap;

use super::{Fault, Memory};

/// Regions by their first address. What overlapping regions have in common is the same in each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image {
    regions: BTreeMap<u64, Vec<u8>>,
}

impl Image {
    /// Adds a region; replaces one that begins at the same address.
    pub fn insert(&mut self, address: u64, bytes: Vec<u8>) {
        self.regions.insert(address, bytes);
    }

    /// All regions in the order of their addresses.
    pub fn regions(&self) -> impl Iterator<Item = (u64, &[u8])> {
        self.regions.iter().map(|(address, bytes)| (*address, bytes.as_slice()))
    }

    /// Bytes in all regions.
    pub fn size(&self) -> u64 {
        self.regions.values().map(|bytes| bytes.len() as u64).sum()
    }

    /// Adds a region of 64-bit words.
    pub fn insert_words(&mut self, address: u64, words: &[u64]) {
        self.insert(address, words.iter().flat_map(|word| word.to_le_bytes()).collect());
    }
}

/// Regions before an address that are searched for one that holds it.
const MAX_OVERLAP: usize = 8;

impl Memory for Image {
    fn read(&self, address: u64, buf: &mut [u8]) -> Result<(), Fault> {
        let bytes = self.lend(address, buf.len()).ok_or(Fault::Unmapped { address, len: buf.len() })?;
        buf.copy_from_slice(bytes);
        Ok(())
    }

    fn lend(&self, address: u64, len: usize) -> Option<&[u8]> {
        self.regions.range(..=address).rev().take(MAX_OVERLAP).find_map(|(start, bytes)| {
            let offset = usize::try_from(address - start).ok()?;
            bytes.get(offset..offset.checked_add(len)?)
        })
    }
}
