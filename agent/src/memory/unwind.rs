//! Stacks of goroutines that do not run, walked from memory with the pclntab's stack tables.
//!
//! A goroutine that waits left its stack pointer and program counter in `g.sched`. From there each frame's size is in
//! the pclntab, so the walk needs no frame pointers and no unwind sections. The target runs on meanwhile: a stack
//! counts only if the `g` is the same before and after it was read.
//!
//! Everything read is checked: the stack pointer only moves up within the goroutine's stack, frames are counted.

use hashbrown::HashMap;
use parking_lot::RwLock;

use super::census::{CensusReader, Goroutine, Status};
use super::together::in_pieces;
use super::{Fault, Memory, Request, StackId, StackTable, word_at};
use crate::golang::Arch;

/// Frames of one stack; deeper ones are cut, as the innermost tell where it waits.
pub const MAX_FRAMES: usize = 256;

/// Stacks read with one system call.
const BATCH: usize = 1024;

/// Bytes read of every stack: enough for some 45 frames, so that few goroutines need a read of their own.
const FIRST_READ: u64 = 4096;

/// Bytes read of a stack at most, in steps that grow fourfold.
const MAX_READ: u64 = 256 << 10;

/// Torn stacks of one look that are read again.
const MAX_SECOND_TRIES: usize = 256;

/// Room for the frames of most stacks.
const USUAL_FRAMES: usize = 32;

/// Addresses whose frame is remembered.
const MAX_CACHED: usize = 1 << 18;

/// What the walk needs to know of the function at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameShape {
    /// How far the stack pointer is below its value at the function's entry, in bytes.
    pub sp_delta: u64,
    /// Whether this is the outermost function of a goroutine (`runtime.goexit`).
    pub outermost: bool,
    /// Whether a signal made it look called (`runtime.asyncPreempt`): what it returns to was interrupted anywhere.
    pub injected: bool,
}

/// Room that a signal takes on arm64 to keep the link register: one word, aligned as stack pointers have to be.
pub const SAVED_LINK: u64 = 16;

/// The stack tables of a program, at the addresses where it runs.
pub trait StackTables {
    /// The frame of the instruction at `pc`; `None` where there is no Go function or no table.
    fn shape(&self, pc: u64) -> Option<FrameShape>;
}

/// Why a stack is not whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Cut {
    /// No Go function there.
    #[error("no Go function at {0:#x}")]
    UnknownCode(u64),
    /// The stack pointer leaves the stack.
    #[error("the stack pointer {0:#x} is outside the goroutine's stack")]
    OutOfStack(u64),
    /// The stack cannot be read, or not that much of it.
    #[error("the stack at {0:#x} cannot be read")]
    Unreadable(u64),
    /// More than [`MAX_FRAMES`].
    #[error("more than {MAX_FRAMES} frames")]
    TooDeep,
}

/// What became of the stacks of many goroutines.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unwound {
    /// For each goroutine its stack, if it could be read while the goroutine stood still.
    pub stacks: Vec<Option<StackId>>,
    /// Goroutines that moved while they were read.
    pub moved: u64,
    /// Stacks of which only the inner part is known.
    pub cut: u64,
    /// Stacks of which nothing is known, or for which the table had no room.
    pub unknown: u64,
}

/// What became of one stack.
enum Attempt {
    /// Its goroutine moved while it was read.
    Moved,
    Still {
        pcs: Vec<u64>,
        /// Whether its outer part is missing.
        cut: bool,
    },
}

/// Walks stacks of one program.
#[derive(Debug)]
pub struct Unwinder {
    arch: Arch,
    /// By address, what walks have found out.
    shapes: RwLock<HashMap<u64, Option<FrameShape>>>,
}

/// Shapes of frames as one batch of walks finds them: known ones, and those that are told to the others when it is done.
struct Shapes<'a> {
    tables: &'a (dyn StackTables + Sync),
    known: &'a HashMap<u64, Option<FrameShape>>,
    fresh: HashMap<u64, Option<FrameShape>>,
}

impl Shapes<'_> {
    fn at(&mut self, pc: u64) -> Option<FrameShape> {
        match self.known.get(&pc) {
            Some(known) => *known,
            None => *self.fresh.entry(pc).or_insert_with(|| self.tables.shape(pc)),
        }
    }
}

impl Unwinder {
    /// An unwinder for a program of this architecture.
    pub fn new(arch: Arch) -> Self {
        Self { arch, shapes: RwLock::default() }
    }

    /// Walks the stacks of goroutines as they were just read. Fails only when the process cannot be read any more.
    pub fn unwind(
        &self,
        memory: &dyn Memory,
        tables: &(dyn StackTables + Sync),
        reader: &CensusReader,
        goroutines: &[Goroutine],
        table: &mut StackTable,
    ) -> Result<Unwound, Fault> {
        let mut unwound = Unwound { stacks: Vec::with_capacity(goroutines.len()), ..Unwound::default() };
        let mut second_tries = MAX_SECOND_TRIES;
        let attempt = |memory: &dyn Memory, batch: &[Goroutine]| self.attempt(memory, tables, reader, batch);
        in_pieces(memory, goroutines, BATCH, attempt, |batch, first| {
            let mut again: Vec<usize> = Vec::new();
            for (index, attempt) in first.iter().enumerate() {
                // One that ran and came back to where it was looks as if it had stood still, but its stack is torn.
                if matches!(attempt, Attempt::Still { cut: true, .. }) && again.len() < second_tries {
                    again.push(index);
                }
            }
            second_tries -= again.len();
            let torn: Vec<Goroutine> = again.iter().map(|index| batch[*index]).collect();
            let mut second = again.iter().copied().zip(self.attempt(memory, tables, reader, &torn)?).peekable();
            for (index, attempt) in first.into_iter().enumerate() {
                let attempt = second.next_if(|(torn, _)| *torn == index).map_or(attempt, |(_, second)| second);
                let Attempt::Still { pcs, cut } = attempt else {
                    unwound.moved += 1;
                    unwound.stacks.push(None);
                    continue;
                };
                let stack = if pcs.is_empty() { None } else { table.intern(&pcs) };
                unwound.cut += u64::from(cut && !pcs.is_empty());
                unwound.unknown += u64::from(stack.is_none());
                unwound.stacks.push(stack);
            }
            Ok::<_, Fault>(())
        })?;
        Ok(unwound)
    }

    /// Walks the stacks of a batch of goroutines, and looks afterwards which of them stood still.
    fn attempt(
        &self,
        memory: &dyn Memory,
        tables: &(dyn StackTables + Sync),
        reader: &CensusReader,
        batch: &[Goroutine],
    ) -> Result<Vec<Attempt>, Fault> {
        let mut read = Vec::with_capacity(batch.len());
        let tops = read_tops(memory, batch)?;
        let known = self.shapes.read();
        let mut shapes = Shapes { tables, known: &known, fresh: HashMap::new() };
        for (goroutine, top) in batch.iter().zip(tops) {
            let mut pcs = Vec::with_capacity(USUAL_FRAMES);
            let cut = match top {
                Some(top) => self.walk(memory, &mut shapes, goroutine, top, &mut pcs),
                None => Some(Cut::Unreadable(goroutine.resume().1)),
            };
            read.push(Attempt::Still { pcs, cut: cut.is_some() });
        }
        let fresh = shapes.fresh;
        drop(known);
        self.tell(fresh);
        let addresses: Vec<u64> = batch.iter().map(|g| g.address).collect();
        let after = reader.reread(memory, &addresses)?;
        let still =
            batch.iter().zip(after).map(|(before, after)| after.is_some_and(|after| stands_still(before, &after)));
        Ok(read.into_iter().zip(still).map(|(read, still)| if still { read } else { Attempt::Moved }).collect())
    }

    /// Collects the addresses of one stack, innermost first, the return addresses as they stand.
    fn walk(
        &self,
        memory: &dyn Memory,
        shapes: &mut Shapes<'_>,
        goroutine: &Goroutine,
        top: Vec<u8>,
        pcs: &mut Vec<u64>,
    ) -> Option<Cut> {
        let (mut pc, mut sp) = goroutine.resume();
        let mut window = Window { base: sp, hi: goroutine.stack_hi, bytes: top };
        loop {
            let Some(shape) = shapes.at(pc) else { return Some(Cut::UnknownCode(pc)) };
            if shape.outermost {
                return None;
            }
            if pcs.len() == MAX_FRAMES {
                return Some(Cut::TooDeep);
            }
            // Of one that has not begun it is no call's return address.
            let begins = pcs.is_empty() && pc == goroutine.start_pc;
            pcs.push(if begins { pc.saturating_add(1) } else { pc });
            if self.arch == Arch::Arm64 && shape.sp_delta == 0 && pcs.len() == 1 && goroutine.status != Status::Syscall
            {
                // Before the innermost function had a frame, its return address was in the link register, which `g.sched` keeps
                // (`gostartcall` in src/runtime/sys_arm64.go, `morestack` in src/runtime/asm_arm64.s).
                pc = goroutine.lr;
                continue;
            }
            // amd64: the call pushed the return address above the frame. arm64: the frame's lowest word holds the
            // link register.
            let (slot, next) = match self.arch {
                Arch::Amd64 => {
                    let slot = sp.saturating_add(shape.sp_delta);
                    (slot, slot.saturating_add(8))
                }
                Arch::Arm64 => (sp, sp.saturating_add(shape.sp_delta)),
            };
            if next <= sp || next > goroutine.stack_hi || slot < goroutine.stack_lo {
                return Some(Cut::OutOfStack(next));
            }
            let Some(caller) = window.word(memory, slot) else { return Some(Cut::Unreadable(slot)) };
            (pc, sp) = (caller, next);
            if self.arch == Arch::Arm64 && shape.injected {
                // Above that frame lies the link register as it was (`pushCall` in src/runtime/signal_arm64.go): where what was
                // interrupted returns to, if it had no frame (`unwinder.next` in src/runtime/traceback.go).
                let Some(link) = window.word(memory, sp) else { return Some(Cut::Unreadable(sp)) };
                sp = sp.saturating_add(SAVED_LINK);
                match shapes.at(pc) {
                    None => pc = link,
                    Some(interrupted) if interrupted.sp_delta == 0 && !interrupted.outermost => {
                        if pcs.len() == MAX_FRAMES {
                            return Some(Cut::TooDeep);
                        }
                        pcs.push(pc);
                        pc = link;
                    }
                    Some(_) => {}
                }
            }
        }
    }

    /// Keeps what walks have found out.
    fn tell(&self, fresh: HashMap<u64, Option<FrameShape>>) {
        if fresh.is_empty() {
            return;
        }
        let mut shapes = self.shapes.write();
        if shapes.len() >= MAX_CACHED {
            shapes.clear();
        }
        shapes.extend(fresh);
    }
}

/// Whether nothing the stack depends on changed.
pub fn stands_still(before: &Goroutine, after: &Goroutine) -> bool {
    (before.goid, before.status, before.wait_reason, before.resume(), before.stack_hi)
        == (after.goid, after.status, after.wait_reason, after.resume(), after.stack_hi)
}

/// Whether it has not run either, as far as its `g` tells: with fewer than 256 runs in between.
pub fn has_not_run(before: &Goroutine, after: &Goroutine) -> bool {
    stands_still(before, after) && before.tracking_seq == after.tracking_seq
}

/// The innermost part of each stack; `None` where its bounds make no sense or it cannot be read.
fn read_tops(memory: &dyn Memory, goroutines: &[Goroutine]) -> Result<Vec<Option<Vec<u8>>>, Fault> {
    let mut tops: Vec<Vec<u8>> = goroutines
        .iter()
        .map(|g| {
            let (_, sp) = g.resume();
            let believable = g.stack_lo <= sp && sp < g.stack_hi;
            let len = if believable { (g.stack_hi - sp).min(FIRST_READ) } else { 0 };
            vec![0; len as usize]
        })
        .collect();
    let mut requests: Vec<Request<'_>> = tops
        .iter_mut()
        .zip(goroutines)
        .filter(|(top, _)| !top.is_empty())
        .map(|(buf, g)| Request { address: g.resume().1, buf, ok: false })
        .collect();
    memory.read_many(&mut requests)?;
    let mut served = requests.iter().map(|request| request.ok).collect::<Vec<_>>().into_iter();
    Ok(tops
        .into_iter()
        .map(|top| if top.is_empty() || !served.next().unwrap_or(false) { None } else { Some(top) })
        .collect())
}

/// The part of a stack that has been read, which grows as the walk goes on.
struct Window {
    base: u64,
    hi: u64,
    bytes: Vec<u8>,
}

impl Window {
    fn word(&mut self, memory: &dyn Memory, address: u64) -> Option<u64> {
        let offset = usize::try_from(address.checked_sub(self.base)?).ok()?;
        loop {
            if let Some(word) = word_at(&self.bytes, offset) {
                return Some(word);
            }
            let have = self.bytes.len() as u64;
            let all = self.hi.saturating_sub(self.base).min(MAX_READ);
            if have >= all {
                return None;
            }
            let len = have.saturating_mul(4).min(all);
            self.bytes.resize(len as usize, 0);
            memory.read(self.base.checked_add(have)?, &mut self.bytes[have as usize..]).ok()?;
        }
    }
}

#[cfg(test)]
#[path = "unwind_tests.rs"]
mod tests;
