//! Memory made of pieces: what tests build, and what a saved image holds.

use std::collections::BTreeMap;

use super::{Fault, Memory};

/// Regions by their first address. What overlapping regions have in common is the same in each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image {
    slabs: Vec<Vec<u8>>,
    regions: BTreeMap<u64, Piece>,
}

/// Where a region's bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Piece {
    slab: usize,
    offset: usize,
    len: usize,
}

impl Image {
    /// Adds a region; replaces one that begins at the same address.
    pub fn insert(&mut self, address: u64, bytes: Vec<u8>) {
        let len = bytes.len();
        self.insert_many(bytes, [(address, 0, len)]);
    }

    /// Adds several regions whose bytes lie in one piece of memory: address, offset and length of each. What does not lie
    /// in it is left out.
    pub fn insert_many(&mut self, slab: Vec<u8>, regions: impl IntoIterator<Item = (u64, usize, usize)>) {
        let index = self.slabs.len();
        let within =
            |(_, offset, len): &(u64, usize, usize)| offset.checked_add(*len).is_some_and(|end| end <= slab.len());
        let pieces = regions.into_iter().filter(within);
        let mut pieces: BTreeMap<u64, Piece> =
            pieces.map(|(address, offset, len)| (address, Piece { slab: index, offset, len })).collect();
        // Joining two maps is the soonest way to add many, and goes through all that are there.
        if pieces.len() * 8 < self.regions.len() {
            self.regions.extend(pieces);
        } else {
            self.regions.append(&mut pieces);
        }
        self.slabs.push(slab);
    }

    /// Adds the regions of `other` that are not within a region of this one.
    pub fn merge(&mut self, other: Self) {
        let base = self.slabs.len();
        self.slabs.extend(other.slabs);
        for (address, piece) in other.regions {
            if self.lend(address, piece.len).is_none() {
                self.regions.insert(address, Piece { slab: piece.slab + base, ..piece });
            }
        }
    }

    /// All regions in the order of their addresses.
    pub fn regions(&self) -> impl Iterator<Item = (u64, &[u8])> {
        self.regions.iter().map(|(address, piece)| (*address, self.bytes(piece)))
    }

    /// The region that holds `len` bytes from `address`: where it begins, and its bytes.
    pub fn around(&self, address: u64, len: usize) -> Option<(u64, &[u8])> {
        self.regions.range(..=address).rev().take(MAX_OVERLAP).find_map(|(start, piece)| {
            let end = usize::try_from(address - start).ok()?.checked_add(len)?;
            Some((*start, self.bytes(piece))).filter(|(_, bytes)| end <= bytes.len())
        })
    }

    /// Bytes in all regions.
    pub fn size(&self) -> u64 {
        self.regions.values().map(|piece| piece.len as u64).sum()
    }

    /// Adds a region of 64-bit words.
    pub fn insert_words(&mut self, address: u64, words: &[u64]) {
        self.insert(address, words.iter().flat_map(|word| word.to_le_bytes()).collect());
    }

    fn bytes(&self, piece: &Piece) -> &[u8] {
        let slab = self.slabs.get(piece.slab).map_or(&[][..], Vec::as_slice);
        slab.get(piece.offset..piece.offset + piece.len).unwrap_or_default()
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

    fn for_threads(&self) -> Option<&(dyn Memory + Sync)> {
        Some(self)
    }

    fn lend(&self, address: u64, len: usize) -> Option<&[u8]> {
        let (start, bytes) = self.around(address, len)?;
        let offset = (address - start) as usize;
        bytes.get(offset..offset + len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_is_found_behind_smaller_ones_within_it() {
        let mut image = Image::default();
        image.insert(100, vec![7; 64]);
        image.insert(110, vec![7; 4]);
        assert_eq!(image.lend(112, 20), Some(&[7; 20][..]));
        assert_eq!(image.lend(112, 60), None);
        assert_eq!(image.lend(99, 1), None);
        assert_eq!(image.lend(u64::MAX, usize::MAX), None);
    }

    #[test]
    fn a_longer_region_stays_whatever_is_merged() {
        let mut image = Image::default();
        image.insert(100, vec![7; 64]);
        let mut other = Image::default();
        for address in 100..130 {
            other.insert(address, vec![7; 4]);
        }
        other.insert(300, vec![8]);
        image.merge(other);
        assert_eq!((image.lend(150, 10), image.lend(300, 1)), (Some(&[7; 10][..]), Some(&[8][..])));
    }

    #[test]
    fn regions_of_one_slab_keep_to_their_bounds() {
        let mut image = Image::default();
        image.insert_many(vec![1, 2, 3, 4, 5], [(10, 0, 2), (20, 2, 3), (30, 4, 2)]);
        assert_eq!((image.lend(10, 2), image.lend(10, 3)), (Some(&[1, 2][..]), None));
        assert_eq!((image.lend(21, 2), image.lend(30, 1), image.size()), (Some(&[4, 5][..]), None, 5));
    }
}
