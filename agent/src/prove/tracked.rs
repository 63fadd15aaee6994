//! The heap copied while the target runs, and in the pause only what it has written since, as live migration does.
//!
//! What the kernel does not say to be unwritten is read again, new mappings and pages that are not there among it. A page that was
//! given back to the kernel and is read as zeros again without having been written counts as unwritten: then what was there
//! before is followed, so that more seems to be led to than is.

use std::time::Instant;

use super::copy::{CopiedRange, CopyError, merge, pieces, read_all, read_side_by_side};
use crate::memory::written::Written;
use crate::memory::{Fault, Memory, Request};

/// See the module.
pub struct Tracked {
    written: Written,
    /// In the order of their addresses.
    ranges: Vec<(u64, u64)>,
    places: Vec<CopiedRange>,
    slab: Vec<u8>,
}

impl Tracked {
    /// Copies `ranges` from the running target, and has the kernel note what it writes from then on.
    pub fn copy(memory: &(dyn Memory + Sync), written: Written, ranges: Vec<(u64, u64)>) -> Result<Self, CopyError> {
        let ranges = merge(ranges);
        let mut slab = vec![0; ranges.iter().map(|(from, to)| (to - from) as usize).sum()];
        written.restart().map_err(unreadable)?;
        let places: Vec<CopiedRange> =
            read_side_by_side(memory, &ranges, &mut slab, None)?.into_iter().flatten().collect();
        let ranges = places.iter().map(|(from, _, len)| (*from, from + *len as u64)).collect();
        Ok(Self { written, ranges, places, slab })
    }

    /// Bytes copied while the target ran.
    pub fn size(&self) -> u64 {
        self.ranges.iter().map(|(from, to)| to - from).sum()
    }

    /// Bytes of them that have been written since.
    pub fn pending(&self) -> Result<u64, CopyError> {
        let written = self.written.within(&self.ranges).map_err(unreadable)?;
        Ok(written.iter().map(|(from, to)| to - from).sum())
    }

    /// Those of `ranges` of which not all was copied.
    pub fn others(&self, ranges: &[(u64, u64)]) -> Vec<(u64, u64)> {
        ranges.iter().filter(|range| !self.has(range)).copied().collect()
    }

    fn has(&self, (from, to): &(u64, u64)) -> bool {
        let after = self.ranges.partition_point(|(start, _)| start <= from);
        after.checked_sub(1).is_some_and(|index| *to <= self.ranges[index].1)
    }

    /// Copies again what has been written, of the stopped target; how many bytes that was, and the copy.
    pub fn settle(
        self,
        memory: &(dyn Memory + Sync),
        deadline: Option<Instant>,
    ) -> Result<(u64, Vec<u8>, Vec<CopiedRange>), CopyError> {
        let Self { written, ranges, mut places, mut slab } = self;
        let again = written.within(&ranges).map_err(unreadable)?;
        let failed = read_again(memory, &again, &places, &mut slab, deadline)?;
        // What cannot be read any more is not there: whoever needs it will find that.
        places.retain(|(from, _, len)| {
            failed.get(failed.partition_point(|bad| bad < from)).is_none_or(|bad| *bad >= from + *len as u64)
        });
        Ok((again.iter().map(|(from, to)| to - from).sum(), slab, places))
    }
}

/// Reads `again` (address and end, ascending, each within one of `places`) to where it is in `slab`. The addresses of what could not be
/// read, ascending.
fn read_again(
    memory: &(dyn Memory + Sync),
    again: &[(u64, u64)],
    places: &[CopiedRange],
    slab: &mut [u8],
    deadline: Option<Instant>,
) -> Result<Vec<u64>, CopyError> {
    let mut requests: Vec<Request<'_>> = Vec::new();
    let (mut rest, mut cut, mut of) = (slab, 0, places.iter().peekable());
    for (from, to) in again {
        while of.next_if(|(start, _, len)| start + *len as u64 <= *from).is_some() {}
        let Some((start, offset, _)) = of.peek() else { break };
        let (at, len) = (offset + (from - start) as usize, (to - from) as usize);
        let (_, later) = rest.split_at_mut(at - cut);
        let (buf, later) = later.split_at_mut(len);
        requests.extend(pieces(*from, buf));
        (rest, cut) = (later, at + len);
    }
    read_all(memory, &mut requests, deadline)?;
    let mut failed: Vec<u64> = requests.iter().filter(|request| !request.ok).map(|request| request.address).collect();
    failed.sort_unstable();
    Ok(failed)
}

fn unreadable(error: std::io::Error) -> CopyError {
    log::debug!("what was written cannot be told: {error}");
    CopyError::Fault(Fault::Gone)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::image::Image;

    #[test]
    fn what_is_read_again_comes_to_where_it_was() {
        let mut image = Image::default();
        image.insert(0x1000, vec![9; 0x3000]);
        image.insert(0x8000, vec![8; 0x1000]);
        let places = [(0x1000, 0, 0x3000), (0x8000, 0x3000, 0x2000)];
        let mut slab = vec![1u8; 0x5000];
        // The last lies where nothing is any more.
        let again = [(0x1000, 0x1800), (0x2000, 0x2010), (0x8ff0, 0x9000), (0x9000, 0x9100)];
        let failed = read_again(&image, &again, &places, &mut slab, None).expect("no deadline");
        assert_eq!(failed, [0x9000]);
        let read: Vec<usize> = (0..slab.len()).filter(|at| slab[*at] > 1).collect();
        let expected: Vec<usize> = (0..0x800).chain(0x1000..0x1010).chain(0x3ff0..0x4000).collect();
        assert_eq!(read, expected);
    }
}
