//! Goroutines that were parked before the target is stopped and still are: their stacks are read while it runs.
//!
//! A stack that could have changed has to be read while the target stands still. That one has not rests on this:
//!
//! - **It has not run.** The collector sets `g.waitsince` of a goroutine that waits to the time at which its cycle began,
//!   once in a cycle and only if it is 0 (`markroot`). Whoever waited begins to run by `execute` or `exitsyscall`, which set
//!   it to 0. No two cycles begin at the same time, so that the same time in two looks tells that the goroutine has not run
//!   in between, however often it could have: `trackingSeq`, which wraps around after 256 runs, could not tell that. It has
//!   to be the same too, as anything else that is read of a `g`: with `GODEBUG=gccheckmark=1` a cycle comes twice.
//!   Coroutines are switched to without `execute`, and other waits of the runtime are statuses only: what is kept is
//!   parked for one of the reasons of [`Subject::goroutines`] but coroutines', or one of [`OTHERS`].
//! - **It was parked when its stack was read.** A look at a `g` takes a moment, in which its status can be from before and
//!   its reason from after it parked. Two looks in which everything is the same come before the stack is read: whoever had
//!   that reason in the first had parked by the second, or has run since and has lost its time.
//! - **It was not moved.** The stack of a parked goroutine is only ever moved to one half as large: its bounds change, and while
//!   that is done the collector has it (`_Gscan`), which no look may see.
//! - **Nobody wrote to it.** Only who hands over a value does, to where the receiver's sudog says. It takes the sudog out of
//!   its queue, writes, and makes the receiver runnable, which the third look sees. In between it holds the channel's lock
//!   and cannot be descheduled, and has yet to use the sudog or the `g`: one of them is in a register of a thread, or on the
//!   stack that the thread is on. Whose `g` or sudog is there is read again. (Who closes a channel clears receivers' variables:
//!   then more seems to be led to than is.)

use std::thread;

use hashbrown::HashMap;

use super::copy::{CopiedRange, CopyError, merge, ranges_of, read_side_by_side, readers, stacks};
use crate::cause::wait::Wait;
use crate::golang::proof_layout::ReachLayout;
use crate::memory::census::{CensusReader, Goroutine, Status};
use crate::memory::image::Image;
use crate::memory::{Memory, word_at};
use crate::reach::candidates::channels;
use crate::reach::objects::words;
use crate::reach::{Goroutines, ReachError, Subject};

/// Reasons of waits that are no leaks, in which nobody writes to the goroutine's stack either.
const OTHERS: [&str; 2] = ["IO wait", "sleep"];

/// Goroutines worth a thread.
const MIN_SHARE: usize = 4096;

/// See the module.
#[derive(Default)]
pub struct Parked {
    /// In the order of their addresses.
    list: Vec<Goroutine>,
    /// Index in `list` by the address of the `g`.
    index: HashMap<u64, usize>,
    /// The list of all goroutines, to which the runtime only appends.
    known: Vec<u64>,
    /// The same in the order of the addresses, in which they are looked at soonest, each with its index in `list`.
    order: Vec<(u64, Option<usize>)>,
    /// Of each where its stack is in `slab`.
    places: Vec<Option<CopiedRange>>,
    slab: Vec<u8>,
    /// Address and end of the channels they wait for.
    pub channels: Vec<(u64, u64)>,
}

/// What a look at all goroutines of the stopped target finds.
#[derive(Default)]
pub struct Look {
    /// Of each that was parked before whether it still is.
    stays: Vec<bool>,
    /// The others that are alive.
    pub moved: Vec<Goroutine>,
    /// Addresses of those that were not copied yet.
    pub absent: Vec<u64>,
}

impl Parked {
    /// Reads the stacks of those that are parked in `second` as they were in `first`.
    pub fn read(
        memory: &(dyn Memory + Sync),
        subject: &Subject<'_>,
        first: &Goroutines,
        second: &Goroutines,
    ) -> Result<Self, CopyError> {
        let before: HashMap<u64, &Goroutine> = first.list.iter().map(|g| (g.address, g)).collect();
        let stays = |(g, wait): &(&Goroutine, &Option<Wait>)| {
            let reason = subject.wait_reasons.get(usize::from(g.wait_reason)).map_or("", String::as_str);
            let waits = wait.is_some_and(|wait| wait != Wait::Coroutine);
            (waits || OTHERS.contains(&reason)) && may_stay(g) && before.get(&g.address) == Some(g)
        };
        let mut chosen: Vec<_> = second.list.iter().zip(&second.waits).filter(stays).collect();
        chosen.sort_unstable_by_key(|(g, _)| g.address);
        let (list, waits): (Vec<Goroutine>, Vec<Option<Wait>>) =
            chosen.into_iter().map(|(g, wait)| (*g, *wait)).unzip();
        let channels = merge(ranges_of(&channels(memory, subject.layout, &list, &waits)?, subject.layout.hchan.size));
        let known =
            CensusReader::new(subject.layout.g, subject.variables.allgs).list(memory).map_err(ReachError::from)?;
        let mut parked = Self { channels, ..Self::of(list, known) };
        parked.read_stacks(memory)?;
        Ok(parked)
    }

    fn of(list: Vec<Goroutine>, known: Vec<u64>) -> Self {
        let index: HashMap<u64, usize> = list.iter().enumerate().map(|(index, g)| (g.address, index)).collect();
        let mut order: Vec<_> = known.iter().map(|address| (*address, index.get(address).copied())).collect();
        order.sort_unstable();
        // None twice, whatever the target says.
        order.dedup();
        Self { list, index, known, order, ..Self::default() }
    }

    fn read_stacks(&mut self, memory: &(dyn Memory + Sync)) -> Result<(), CopyError> {
        let stack = |g: &Goroutine| stacks(std::slice::from_ref(g)).first().copied();
        let ranges: Vec<(u64, u64)> = self.list.iter().filter_map(stack).collect();
        self.slab = vec![0; ranges.iter().map(|(from, to)| (to - from) as usize).sum()];
        let mut read = read_side_by_side(memory, &ranges, &mut self.slab, None)?.into_iter();
        self.places = self.list.iter().map(|g| stack(g).and_then(|_| read.next().flatten())).collect();
        Ok(())
    }

    /// Those of `goroutines` that are none of these.
    pub fn others(&self, goroutines: &[Goroutine]) -> Vec<Goroutine> {
        goroutines.iter().filter(|g| !self.index.contains_key(&g.address)).copied().collect()
    }

    /// Looks at the goroutines at `addresses` again, in what was `copied` of the stopped target.
    pub fn look(&self, reader: &CensusReader, addresses: &[u64], copied: &Image) -> Look {
        // A list that is not the known one and more is damaged: then nobody stays.
        let (known, new) = match addresses.strip_prefix(self.known.as_slice()) {
            Some(new) => (self.order.as_slice(), new),
            None => (&[][..], addresses),
        };
        let new: Vec<(u64, Option<usize>)> = new.iter().map(|address| (*address, None)).collect();
        let share = known.len().div_ceil(readers()).max(MIN_SHARE);
        let one = |part: &[(u64, Option<usize>)]| {
            let (mut stay, mut found) = (Vec::new(), Look::default());
            let now = reader.copied(copied, part.iter().map(|(address, _)| *address));
            for ((address, index), now) in part.iter().zip(now) {
                let then = index.filter(|index| self.places[*index].is_some()).map(|index| (index, &self.list[index]));
                match (now, then) {
                    (None, _) => found.absent.push(*address),
                    (Some(now), Some((index, then))) if now == *then => stay.push(index),
                    (Some(now), _) if matches!(now.status, Status::Dead | Status::Idle) => {}
                    (Some(now), _) => found.moved.push(now),
                }
            }
            (stay, found)
        };
        let mut look = Look { stays: vec![false; self.list.len()], ..Look::default() };
        thread::scope(|scope| {
            let parts = known.chunks(share).chain([new.as_slice()]);
            let others: Vec<_> = parts.map(|part| scope.spawn(|| one(part))).collect();
            // Of a part that panicked nothing stays, and its stacks are missing in the proof.
            for (stay, found) in others.into_iter().filter_map(|other| other.join().ok()) {
                stay.into_iter().for_each(|index| look.stays[index] = true);
                look.moved.extend(found.moved);
                look.absent.extend(found.absent);
            }
        });
        look
    }

    /// Those to whom a thread may be handing a value: their `g` or their sudog is among `held`, the words that threads hold.
    /// They do not stay.
    pub fn handed(&self, layout: &ReachLayout, held: &[u64], copied: &Image, look: &mut Look) -> Vec<Goroutine> {
        let of_sudog = |word: u64| {
            let sudog = copied.lend(word, layout.sudog.size as usize)?;
            word_at(sudog, layout.sudog.g as usize)
        };
        let mut handed = Vec::new();
        for word in held {
            for g in [Some(*word), of_sudog(*word)].into_iter().flatten() {
                let Some(index) = self.index.get(&g) else { continue };
                if std::mem::take(&mut look.stays[*index]) {
                    handed.push(self.list[*index]);
                }
            }
        }
        handed
    }

    /// The stacks of those that stayed.
    pub fn into_image(self, look: &Look) -> Image {
        let mut image = Image::default();
        let stayed = self.places.iter().zip(&look.stays).filter(|(_, stays)| **stays);
        let places: Vec<CopiedRange> = stayed.filter_map(|(place, _)| *place).collect();
        image.insert_many(self.slab, places);
        image
    }
}

/// Whether a later look at the goroutine would show if it had run.
fn may_stay(g: &Goroutine) -> bool {
    g.status.is_waiting() && !g.stack_moves() && g.wait_since_ns.is_some() && g.tracking_seq.is_some()
}

/// The words of `ranges` (address and end) as far as they were copied.
pub fn words_in(copied: &Image, ranges: impl Iterator<Item = (u64, u64)>) -> Vec<u64> {
    let lent = ranges.filter_map(|(from, to)| copied.lend(from, to.checked_sub(from)? as usize));
    lent.flat_map(words).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golang::layout::GLayout;
    use crate::memory::census::tests::LAYOUT;

    const STACK: u64 = 0xc000_2000;

    fn parked() -> Goroutine {
        Goroutine {
            address: 0xc000_0000,
            goid: 7,
            status: Status::Waiting,
            wait_reason: 14,
            wait_since_ns: Some(1000),
            stack_lo: STACK,
            stack_hi: STACK + 2048,
            sp: STACK + 1024,
            tracking_seq: Some(3),
            ..Goroutine::default()
        }
    }

    /// The `g` of a goroutine as it is in memory.
    fn g(goroutine: &Goroutine, layout: &GLayout) -> Vec<u8> {
        let mut bytes = vec![0; layout.size as usize];
        let mut put = |offset: u32, value: &[u8]| bytes[offset as usize..][..value.len()].copy_from_slice(value);
        put(layout.goid, &goroutine.goid.to_le_bytes());
        put(layout.atomicstatus, &(if goroutine.status == Status::Waiting { 4_u32 } else { 2 }).to_le_bytes());
        put(layout.waitreason, &[goroutine.wait_reason]);
        put(layout.waitsince, &goroutine.wait_since_ns.unwrap_or(0).to_le_bytes());
        put(layout.stack_lo, &goroutine.stack_lo.to_le_bytes());
        put(layout.stack_hi, &goroutine.stack_hi.to_le_bytes());
        put(layout.sched_sp, &goroutine.sp.to_le_bytes());
        put(layout.tracking_seq.expect("set"), &[goroutine.tracking_seq.unwrap_or(0)]);
        bytes
    }

    fn before(list: Vec<Goroutine>) -> Parked {
        let known = list.iter().map(|g| g.address).collect();
        let mut parked = Parked::of(list, known);
        let mut memory = Image::default();
        memory.insert(STACK + 1024, vec![1; 1024]);
        parked.read_stacks(&memory).expect("readable");
        parked
    }

    #[test]
    fn only_the_stack_of_who_has_not_run_is_kept() {
        let layout = GLayout { tracking_seq: Some(200), ..LAYOUT };
        let reader = CensusReader::new(layout, 0);
        let look = |now: Goroutine| {
            let parked = before(vec![parked()]);
            let mut copied = Image::default();
            copied.insert(now.address, g(&now, &layout));
            let look = parked.look(&reader, &[now.address], &copied);
            let kept = parked.into_image(&look).size();
            (kept, look.moved)
        };
        assert_eq!(look(parked()), (1024, Vec::new()));
        for moved in [
            // It ran: 256 times, so that the number of times says nothing.
            Goroutine { wait_since_ns: None, ..parked() },
            Goroutine { wait_since_ns: Some(2000), ..parked() },
            Goroutine { tracking_seq: Some(4), ..parked() },
            Goroutine { status: Status::Running, ..parked() },
            Goroutine { goid: 8, ..parked() },
            Goroutine { stack_lo: STACK + 1024, ..parked() },
            Goroutine { sp: STACK + 1032, ..parked() },
            Goroutine { wait_reason: 15, ..parked() },
        ] {
            assert_eq!(look(moved), (0, vec![moved]));
        }
    }

    #[test]
    fn who_was_not_there_before_is_read_and_of_another_list_everybody() {
        let layout = GLayout { tracking_seq: Some(200), ..LAYOUT };
        let new = Goroutine { address: 0xc000_1000, goid: 9, ..parked() };
        let mut copied = Image::default();
        copied.insert(new.address, g(&new, &layout));
        copied.insert(parked().address, g(&parked(), &layout));
        for (addresses, stays, moved) in [
            ([parked().address, new.address], true, vec![new]),
            ([new.address, parked().address], false, vec![new, parked()]),
        ] {
            let look = before(vec![parked()]).look(&CensusReader::new(layout, 0), &addresses, &copied);
            assert_eq!((look.stays, look.moved), (vec![stays], moved));
        }
    }

    #[test]
    fn what_cannot_be_told_later_is_not_read_before() {
        assert!(may_stay(&parked()));
        assert!(!may_stay(&Goroutine { wait_since_ns: None, ..parked() }), "the collector has not seen it");
        assert!(!may_stay(&Goroutine { tracking_seq: None, ..parked() }));
        assert!(!may_stay(&Goroutine { status: Status::Runnable, ..parked() }));
        assert!(!may_stay(&Goroutine { scanned: true, ..parked() }));
    }

    #[test]
    fn a_goroutine_whose_g_was_not_copied_does_not_stay() {
        let reader = CensusReader::new(GLayout { tracking_seq: Some(200), ..LAYOUT }, 0);
        let parked = before(vec![parked()]);
        let look = parked.look(&reader, &[0xc000_0000], &Image::default());
        assert_eq!((look.absent.as_slice(), look.stays.as_slice()), (&[0xc000_0000][..], &[false][..]));
    }

    #[test]
    fn who_is_being_handed_something_does_not_stay() {
        let layout = crate::reach::tests::layout("go1.27.3");
        let (own, sudog) = (parked().address, 0xc000_9000);
        let mut copied = Image::default();
        let mut bytes = vec![0; layout.sudog.size as usize];
        bytes[layout.sudog.g as usize..][..8].copy_from_slice(&own.to_le_bytes());
        copied.insert(sudog, bytes);
        for (held, found) in [(own, true), (sudog, true), (0xc000_9008, false), (0, false)] {
            let parked = before(vec![super::tests::parked()]);
            let mut look = Look { stays: vec![true], ..Look::default() };
            let handed = parked.handed(&layout, &[held], &copied, &mut look);
            assert_eq!((handed.len() == 1, look.stays[0]), (found, !found), "{held:#x}");
        }
    }
}
