//! Copying what a proof needs from a target that stands still: as little as possible, in large pieces, and no longer
//! than the deadline allows.

use std::time::Instant;

use parking_lot::Mutex;

use super::parked::{Look, Parked, words_in};
use super::tracked::Tracked;
use crate::golang::proof_layout::ReachLayout;
use crate::memory::census::{CensusReader, Goroutine, Status};
use crate::memory::image::Image;
use crate::memory::together;
use crate::memory::{Fault, Memory, Request};
use crate::reach::candidates::channels;
use crate::reach::contents::Reads;
use crate::reach::heap::Spans;
use crate::reach::objects::{ARENA, Objects};
use crate::reach::roots::{self, Modules};
use crate::reach::stack::MAX_STACK;
use crate::reach::types::Types;
use crate::reach::{ReachError, Subject};

/// Gaps between two ranges that are copied too, instead of beginning another read.
const GAP: u64 = 4096;
/// Bytes copied between two looks at the clock.
const STEP: u64 = 1 << 20;
/// Reads handed to the kernel at once.
const BATCH: usize = 1024;

/// Threads that read at the same time, at most: a few CPUs use up what the memory can give.
const MAX_READERS: usize = 16;
/// Bytes that are worth a thread.
const MIN_SHARE: u64 = 2 << 20;

/// Why there is no copy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CopyError {
    /// It would take more memory than there may be for it.
    #[error("the copy would take {} MiB", needed >> 20)]
    TooMuch {
        /// Bytes it would take.
        needed: u64,
    },
    /// The deadline has passed.
    #[error("copying took longer than the pause allowed")]
    Late,
    /// The target cannot be read.
    #[error(transparent)]
    Reach(#[from] ReachError),
    /// The target's memory cannot be read.
    #[error(transparent)]
    Fault(#[from] Fault),
}

/// The target's memory, of which everything that is read is kept.
pub struct Recorder<'a> {
    live: &'a (dyn Memory + Sync),
    image: Mutex<Image>,
    deadline: Option<Instant>,
    /// Memory at hand for what will be copied, touched already: the kernel would otherwise have to provide it while the
    /// target stands still.
    spare: Mutex<Vec<Vec<u8>>>,
}

impl<'a> Recorder<'a> {
    /// Adds what is read from `live` to `image`, with `spare` memory at hand, until `deadline`.
    pub fn new(live: &'a (dyn Memory + Sync), image: Image, spare: Vec<Vec<u8>>, deadline: Option<Instant>) -> Self {
        Self { live, image: Mutex::new(image), deadline, spare: Mutex::new(spare) }
    }

    /// Whether the deadline has passed.
    pub fn is_late(&self) -> bool {
        is_late(self.deadline)
    }

    /// Shows what was recorded so far to `see`.
    pub fn with<T>(&self, see: impl FnOnce(&Image) -> T) -> T {
        see(&self.image.lock())
    }

    /// What was recorded.
    pub fn into_image(self) -> Image {
        self.image.into_inner()
    }

    /// Adds what was copied before, and is true still.
    pub fn add(&self, slab: Vec<u8>, places: Vec<CopiedRange>) {
        self.image.lock().insert_many(slab, places);
    }

    /// Records `ranges` (address and end). Ranges near each other are read as one. Ranges that cannot be read are left
    /// out: whoever needs them will find that they are not there.
    pub fn copy(&self, mut ranges: Vec<(u64, u64)>) -> Result<(), CopyError> {
        ranges.retain(|(from, to)| from < to);
        let mut merged = merge(ranges);
        merged.retain(|(from, to)| self.image.lock().lend(*from, (to - from) as usize).is_none());
        let total: u64 = merged.iter().map(|(from, to)| to - from).sum();
        let mut slab = self.slab(total as usize);
        let regions: Vec<CopiedRange> =
            read_side_by_side(self.live, &merged, &mut slab, self.deadline)?.into_iter().flatten().collect();
        self.image.lock().insert_many(slab, regions);
        Ok(())
    }

    /// Memory of this size: what was provided, if it is enough.
    fn slab(&self, len: usize) -> Vec<u8> {
        let mut spare = self.spare.lock();
        let fitting = spare.iter().position(|slab| slab.len() >= len && len > slab.len() / 4);
        match fitting.map(|at| spare.swap_remove(at)) {
            Some(mut slab) => {
                slab.truncate(len);
                slab
            }
            None => vec![0; len],
        }
    }
}

impl Memory for Recorder<'_> {
    fn for_threads(&self) -> Option<&(dyn Memory + Sync)> {
        Some(self)
    }

    fn read(&self, address: u64, buf: &mut [u8]) -> Result<(), Fault> {
        if let Some(bytes) = self.image.lock().lend(address, buf.len()) {
            buf.copy_from_slice(bytes);
            return Ok(());
        }
        if self.is_late() {
            // A caller that goes on after this sees a target of which nothing can be read.
            return Err(Fault::Gone);
        }
        self.live.read(address, buf)?;
        self.image.lock().insert(address, buf.to_vec());
        Ok(())
    }
}

/// A range that was read: its address, where its bytes are in the slab, and how many.
pub type CopiedRange = (u64, usize, usize);

/// Reads `ranges` (address and end) into `slab`, one after the other, until `deadline`. Of each where it is, if all of it could be
/// read.
pub fn read_side_by_side(
    memory: &(dyn Memory + Sync),
    ranges: &[(u64, u64)],
    slab: &mut [u8],
    deadline: Option<Instant>,
) -> Result<Vec<Option<CopiedRange>>, CopyError> {
    let mut places = Vec::with_capacity(ranges.len());
    let mut requests: Vec<Request<'_>> = Vec::new();
    let (mut rest, mut offset) = (slab, 0);
    for (from, to) in ranges {
        let len = (to - from) as usize;
        places.push((*from, offset, len));
        offset += len;
        let (buf, later) = rest.split_at_mut(len);
        requests.extend(pieces(*from, buf));
        rest = later;
    }
    read_all(memory, &mut requests, deadline)?;
    let mut failed: Vec<u64> = requests.iter().filter(|request| !request.ok).map(|request| request.address).collect();
    failed.sort_unstable();
    let is_whole = |(from, _, len): &CopiedRange| {
        failed.get(failed.partition_point(|bad| bad < from)).is_none_or(|bad| *bad >= from + *len as u64)
    };
    Ok(places.into_iter().map(|place| Some(place).filter(is_whole)).collect())
}

/// A read of `buf` from `address`, in pieces between which the clock can be looked at.
pub fn pieces(address: u64, buf: &mut [u8]) -> impl Iterator<Item = Request<'_>> {
    let steps = buf.chunks_mut(STEP as usize).enumerate();
    steps.map(move |(step, buf)| Request { address: address.saturating_add(step as u64 * STEP), buf, ok: false })
}

fn is_late(deadline: Option<Instant>) -> bool {
    deadline.is_some_and(|deadline| Instant::now() >= deadline)
}

/// How many threads do what has to be done fast.
pub fn readers() -> usize {
    together::threads(MAX_READERS)
}

/// Reads all pieces, none larger than [`STEP`], until `deadline`, on all CPUs that there are: the target does not need them
/// meanwhile.
pub fn read_all(
    memory: &(dyn Memory + Sync),
    pieces: &mut [Request<'_>],
    deadline: Option<Instant>,
) -> Result<(), CopyError> {
    let total: u64 = pieces.iter().map(|piece| piece.buf.len() as u64).sum();
    let others = (total / MIN_SHARE).min(readers() as u64 - 1);
    // Whoever has read a batch takes the next, so that all end at the same time however fast each is.
    let rest = Mutex::new(pieces);
    std::thread::scope(|scope| {
        let others: Vec<_> = (0..others).map(|_| scope.spawn(|| read_in_turn(memory, &rest, deadline))).collect();
        read_in_turn(memory, &rest, deadline)?;
        // A reader that panicked has read nothing that can be trusted.
        others.into_iter().try_for_each(|other| other.join().unwrap_or(Err(CopyError::Fault(Fault::Gone))))
    })
}

fn read_in_turn(
    memory: &dyn Memory,
    rest: &Mutex<&mut [Request<'_>]>,
    deadline: Option<Instant>,
) -> Result<(), CopyError> {
    loop {
        // A statement of its own: the lock is free again while this batch is read.
        let batch = next_batch(&mut rest.lock());
        let Some(batch) = batch else { return Ok(()) };
        if is_late(deadline) {
            return Err(CopyError::Late);
        }
        memory.read_many(batch)?;
    }
}

/// Takes away what is read with one look at the clock.
fn next_batch<'p, 'b>(rest: &mut &'p mut [Request<'b>]) -> Option<&'p mut [Request<'b>]> {
    let mut bytes = 0;
    let count = rest.iter().take(BATCH).take_while(|piece| {
        let first = bytes == 0;
        bytes += piece.buf.len() as u64;
        first || bytes <= STEP
    });
    let (batch, later) = {
        let count = count.count();
        std::mem::take(rest).split_at_mut(count)
    };
    *rest = later;
    (!batch.is_empty()).then_some(batch)
}

/// Address and end of structs of one size.
pub fn ranges_of(addresses: &[u64], size: u32) -> Vec<(u64, u64)> {
    addresses.iter().map(|address| (*address, address.saturating_add(u64::from(size)))).collect()
}

/// Joins ranges that are near each other.
pub fn merge(mut ranges: Vec<(u64, u64)>) -> Vec<(u64, u64)> {
    ranges.sort_unstable();
    let mut merged: Vec<(u64, u64)> = Vec::with_capacity(ranges.len());
    for (from, to) in ranges {
        match merged.last_mut() {
            Some((_, end)) if from <= end.saturating_add(GAP) => *end = to.max(*end),
            _ => merged.push((from, to)),
        }
    }
    merged
}

/// How many bytes are read to copy `ranges`.
pub fn size(ranges: Vec<(u64, u64)>) -> u64 {
    merge(ranges).iter().map(|(from, to)| to - from).sum()
}

/// Address and end of the stacks of goroutines, as far as they are in use.
pub fn stacks(goroutines: &[Goroutine]) -> Vec<(u64, u64)> {
    let range = |g: &Goroutine| {
        let (_, sp) = g.resume();
        let standing = g.has_stack() && !g.stack_moves() && g.stack_lo <= sp && sp < g.stack_hi;
        (if standing { sp } else { g.stack_lo }, g.stack_hi)
    };
    goroutines.iter().map(range).filter(|(from, to)| from < to && to - from <= MAX_STACK).collect()
}

/// Memory for `bytes`, touched already.
pub fn spare(bytes: u64) -> Vec<u8> {
    let mut slab = vec![0u8; bytes as usize];
    // Writing to each page makes it ours.
    slab.iter_mut().step_by(4096).for_each(|byte| *byte = std::hint::black_box(1));
    slab
}

/// Address and end of what is known before the target is stopped: pointer masks and module data.
pub fn copy_constants(recorder: &Recorder<'_>, modules: &Modules) -> Result<(), CopyError> {
    recorder.copy(modules.masks().map(|(from, len)| (from, from.saturating_add(len))).collect())
}

/// Copies all that the proof reads of memory that changes, except the stacks of those of `parked` that still are, and of the heap
/// what was `tracked` and not written: who they are, and how many bytes of the tracked were written, is returned.
/// `subject.memory` is `recorder`.
pub fn copy_all(
    recorder: &Recorder<'_>,
    subject: &Subject<'_>,
    parked: &Parked,
    tracked: Option<Tracked>,
) -> Result<(Look, Option<u64>), CopyError> {
    let done = copy_steps(recorder, subject, parked, tracked);
    if recorder.is_late() { Err(CopyError::Late) } else { done }
}

fn copy_steps(
    recorder: &Recorder<'_>,
    subject: &Subject<'_>,
    parked: &Parked,
    tracked: Option<Tracked>,
) -> Result<(Look, Option<u64>), CopyError> {
    let Subject { layout, variables, .. } = *subject;
    let began = Instant::now();
    let step = |what: &str| log::debug!("{:?}: {what}", began.elapsed());
    let modules = Modules::read(recorder, layout, variables.firstmoduledata)?;
    recorder.copy(modules.variables().map(|(from, len)| (from, from.saturating_add(len))).collect())?;
    recorder.copy(vec![(variables.semtable, variables.semtable + 251 * u64::from(layout.semtable_entry))])?;
    let spans = Spans::read(recorder, layout, variables.mheap).map_err(ReachError::from)?;
    step("spans");
    let mut heap = scannable(&spans);
    let written = match tracked {
        Some(tracked) => {
            heap = tracked.others(&heap);
            let (written, slab, places) = tracked.settle(recorder.live, recorder.deadline)?;
            recorder.add(slab, places);
            step("what was written");
            Some(written)
        }
        None => None,
    };
    recorder.copy([heap, parked.channels.clone()].concat())?;
    step("heap");
    copy_arena_bitmaps(recorder, layout, &spans, variables.mheap)?;
    let reader = CensusReader::new(layout.g, variables.allgs);
    let addresses = reader.list(recorder).map_err(ReachError::from)?;
    let mut look = recorder.with(|image| parked.look(&reader, &addresses, image));
    let absent = reader.reread(recorder, &look.absent)?;
    look.moved.extend(absent.into_iter().flatten());
    step("goroutines");
    recorder.copy(stacks(&look.moved))?;
    let system = roots::system(subject)?.stacks;
    recorder.copy(system.clone())?;
    let runs = |g: &&Goroutine| matches!(g.status, Status::Running | Status::Copystack);
    let running = look.moved.iter().filter(runs).map(|g| (g.stack_lo, g.stack_hi));
    let mut held = recorder.with(|image| words_in(image, system.into_iter().chain(running)));
    held.extend(subject.threads.iter().flat_map(|thread| &thread.registers));
    let handed = recorder.with(|image| parked.handed(layout, &held, image, &mut look));
    recorder.copy(stacks(&handed))?;
    step("stacks");
    let heads = spans.spans.iter().filter(|span| span.specials != 0).map(|span| (span.base, span.specials));
    roots::specials(recorder, &layout.special, heads.collect())?;
    roots::blocks(recorder, variables.allfin, roots::FIN_BLOCK, roots::FIN_LINK)?;
    if let Some((queue, all)) = variables.gc_cleanups.zip(layout.cleanups_all) {
        let head = queue.wrapping_add(u64::from(all));
        roots::blocks(recorder, head, roots::CLEANUP_BLOCK, roots::CLEANUP_LINK)?;
    }
    step("specials");
    let waits = subject.waits(&look.moved);
    let channels = recorder.with(|image| channels(image, layout, &look.moved, &waits))?;
    recorder.copy(ranges_of(&channels, layout.hchan.size))?;
    step("channels");
    // Saved vector registers of goroutines that were preempted.
    if let Some(offset) = layout.g_xregs {
        for g in look.moved.iter().filter(|g| !g.status.is_waiting()) {
            let saved = recorder.read_u64(g.address.wrapping_add(u64::from(offset))).unwrap_or(0);
            if saved != 0 {
                recorder.read(saved, &mut [0; crate::reach::mark::XREGS]).ok();
            }
        }
    }
    Ok((look, written))
}

/// Address and end of the spans whose objects hold pointers.
pub fn scannable(spans: &Spans) -> Vec<(u64, u64)> {
    spans.spans.iter().filter(|span| !span.noscan).map(|span| (span.base, span.end())).collect()
}

/// Go 1.21 keeps the pointer bitmap outside the heap.
fn copy_arena_bitmaps(
    recorder: &Recorder<'_>,
    layout: &ReachLayout,
    spans: &Spans,
    mheap: u64,
) -> Result<(), CopyError> {
    if layout.arena_bitmap.is_none() {
        return Ok(());
    }
    let types = Types::new(recorder, layout.minor, Vec::new());
    let objects = Objects::new(recorder, layout, Spans::default(), &types, mheap, Reads::WHOLE);
    let mut ranges = Vec::new();
    for (from, to) in scannable(spans) {
        let mut at = from;
        while at < to {
            let end = to.min((at / ARENA + 1) * ARENA);
            if let Some((bitmap, no_more)) = objects.arena_bits(at) {
                // A word of bitmap for 512 bytes, a byte of the other for 4096.
                let (first, last) = (at % ARENA / 512, (end - 1) % ARENA / 512);
                ranges.push((bitmap + first * 8, bitmap + last * 8 + 8));
                ranges.push((no_more + first / 8, no_more + last / 8 + 1));
            }
            at = end;
        }
    }
    recorder.copy(ranges)
}
