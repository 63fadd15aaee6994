//! Memory that is read in blocks, which are kept: for many small reads that lie together, of a process that runs on meanwhile.
//! What was read first stands until the blocks make room, so that it is as old as that.

use std::cell::RefCell;

use hashbrown::HashMap;

use super::{Fault, Memory};

/// Size of a block, and what its address is a multiple of.
const BLOCK: u64 = 16 << 10;
/// Longer reads go past the blocks.
const MAX_SMALL: usize = BLOCK as usize;

/// See the module.
pub struct Blocks<'a> {
    live: &'a dyn Memory,
    most: usize,
    /// By address; `None` for one that cannot be read as a whole.
    blocks: RefCell<HashMap<u64, Option<Box<[u8]>>>>,
}

impl<'a> Blocks<'a> {
    /// Blocks of `live`, of which at most `bytes` are kept.
    pub fn new(live: &'a dyn Memory, bytes: u64) -> Self {
        let most = usize::try_from(bytes / BLOCK).unwrap_or(usize::MAX).max(2);
        Self { live, most, blocks: RefCell::default() }
    }

    /// Copies what one block has of a read at `address`.
    fn copy(&self, address: u64, buf: &mut [u8]) -> Result<(), Fault> {
        let base = address / BLOCK * BLOCK;
        let mut blocks = self.blocks.borrow_mut();
        if blocks.len() >= self.most && !blocks.contains_key(&base) {
            blocks.clear();
        }
        let block = match blocks.get(&base) {
            Some(block) => block,
            None => {
                let mut bytes = vec![0; BLOCK as usize].into_boxed_slice();
                let block = match self.live.read(base, &mut bytes) {
                    Ok(()) => Some(bytes),
                    Err(Fault::Unmapped { .. }) => None,
                    Err(fatal) => return Err(fatal),
                };
                blocks.entry(base).or_insert(block)
            }
        };
        let from = (address - base) as usize;
        match block.as_ref().and_then(|block| block.get(from..from + buf.len())) {
            Some(bytes) => {
                buf.copy_from_slice(bytes);
                Ok(())
            }
            None => self.live.read(address, buf),
        }
    }
}

impl Memory for Blocks<'_> {
    fn read(&self, address: u64, buf: &mut [u8]) -> Result<(), Fault> {
        let len = buf.len() as u64;
        if buf.len() > MAX_SMALL || address.checked_add(len).is_none() {
            return self.live.read(address, buf);
        }
        // In two blocks at most.
        let first = (BLOCK - address % BLOCK).min(len) as usize;
        let (here, next) = buf.split_at_mut(first);
        self.copy(address, here)?;
        if next.is_empty() { Ok(()) } else { self.copy(address + first as u64, next) }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::memory::image::Image;

    struct Counted {
        image: Image,
        reads: Cell<u32>,
    }

    impl Memory for Counted {
        fn read(&self, address: u64, buf: &mut [u8]) -> Result<(), Fault> {
            self.reads.set(self.reads.get() + 1);
            self.image.read(address, buf)
        }
    }

    #[test]
    fn what_lies_together_is_read_once_and_what_ends_in_the_middle_is_read_as_asked() {
        let mut image = Image::default();
        image.insert(BLOCK, (0..=255).cycle().take(2 * BLOCK as usize).collect());
        image.insert(8 * BLOCK, vec![7; 100]);
        let counted = Counted { image, reads: Cell::new(0) };
        let blocks = Blocks::new(&counted, 2 * BLOCK);
        let read = |address: u64| blocks.read_u64(address).map(u64::to_le_bytes);
        assert_eq!(read(BLOCK + 8), Ok([8, 9, 10, 11, 12, 13, 14, 15]));
        assert_eq!(read(BLOCK + 256), Ok([0, 1, 2, 3, 4, 5, 6, 7]));
        assert_eq!(counted.reads.get(), 1);
        assert_eq!(read(2 * BLOCK - 4), Ok([252, 253, 254, 255, 0, 1, 2, 3]), "across two");
        assert_eq!(counted.reads.get(), 2);
        assert_eq!(read(8 * BLOCK), Ok([7; 8]), "the block ends before its end");
        assert!(matches!(read(8 * BLOCK + 96), Err(Fault::Unmapped { .. })));
        assert!(matches!(blocks.read_u64(u64::MAX - 3), Err(Fault::Unmapped { .. })));
        assert!(blocks.blocks.borrow().len() <= 2);
    }
}
