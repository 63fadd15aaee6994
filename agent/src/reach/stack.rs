//! The pointers on a goroutine's stack, by the compiler's pointer maps: for each frame the live locals and arguments at
//! its program counter, and the stack objects that a live pointer leads to.
//!
//! A frame stopped where there is no exact map (an asynchronous preemption, a function in assembly), and a stack that
//! cannot be walked to its end, are scanned word by word.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use hashbrown::HashMap;

use super::objects::words;
use super::roots::Modules;
use super::types::{Types, bit};
use crate::golang::Arch;
use crate::golang::pclntab::{Func, FuncId, PcLnTab};
use crate::memory::bytes_at;
use crate::memory::census::{Goroutine, Status};
use crate::memory::unwind::SAVED_LINK;
use crate::memory::{Memory, word_at};

/// Largest stack read: `runtime.maxstacksize` on 64-bit systems, rounded up.
pub const MAX_STACK: u64 = 1 << 30;

const ARGS_POINTER_MAPS: u8 = 0;
const LOCALS_POINTER_MAPS: u8 = 1;
const STACK_OBJECTS: u8 = 2;
const PCDATA_STACK_MAP_INDEX: u32 = 1;

/// Stack objects of one function read at most; the compiler makes one for each variable whose address is taken.
const MAX_OBJECTS: u64 = 1 << 16;
/// Program counters remembered.
const MAX_CACHED: usize = 1 << 18;

/// Where a goroutine's stack is scanned from, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// It stands still: frame by frame from where it was left.
    Walk,
    /// It runs, and stopped there: its innermost frames word by word, the callers of those frame by frame.
    Running {
        /// Program counter, as loaded.
        pc: u64,
        /// Stack pointer.
        sp: u64,
        /// Link register, where there is one.
        lr: u64,
    },
    /// Every word from this address up.
    Words(u64),
}

/// Functions of the runtime that are called as all functions are, at a place for which the compiler has made a pointer map. Of
/// others that is not known: write barriers and what clears or copies memory are called in between.
const CALLED_WITH_MAPS: [&str; 20] = [
    "runtime.newproc",
    "runtime.chansend1",
    "runtime.chanrecv1",
    "runtime.chanrecv2",
    "runtime.closechan",
    "runtime.selectgo",
    "runtime.selectnbsend",
    "runtime.selectnbrecv",
    "runtime.newobject",
    "runtime.mallocgc",
    "runtime.makeslice",
    "runtime.growslice",
    "runtime.makechan",
    "runtime.makemap",
    "runtime.concatstrings",
    "runtime.slicebytetostring",
    "runtime.convTstring",
    "runtime.convT64",
    "runtime.Gosched",
    "runtime.Callers",
];

/// A bitmap and its length in words.
#[derive(Clone, Debug, Default)]
struct Bits {
    words: u64,
    bits: Vec<u8>,
}

/// A variable on the stack that can be pointed to.
#[derive(Clone, Debug)]
struct StackObject {
    /// From the locals' end if negative, else from the arguments' start.
    offset: i64,
    size: u64,
    /// `None`: every word counts as a pointer.
    pointers: Option<Bits>,
}

/// All that is known of a frame stopped at one program counter.
#[derive(Clone, Debug)]
struct Shape {
    /// Of the runtime, and not called with a pointer map for its caller's frame.
    hides_caller: bool,
    sp_delta: u64,
    bottom: bool,
    /// Saved registers: it and its caller have no exact map.
    async_preempt: bool,
    sigpanic: bool,
    /// Locals, arguments; `None` when there is no exact map.
    maps: Option<(Bits, Bits)>,
    /// The size of the arguments is not fixed.
    open_args: bool,
    args_words: u64,
    objects: Vec<StackObject>,
}

/// Scans the stacks of one program.
pub struct Stacks<'m> {
    memory: &'m dyn Memory,
    arch: Arch,
    pclntab: &'m PcLnTab,
    slide: u64,
    modules: &'m Modules,
    types: &'m Types<'m>,
    shapes: RefCell<HashMap<u64, Option<Rc<Shape>>>>,
    exact: Cell<u64>,
    conservative: Cell<u64>,
}

struct Frame {
    shape: Rc<Shape>,
    sp: u64,
    /// Above the return address.
    fp: u64,
    varp: u64,
    argp: u64,
}

/// The bytes of a stack from `base` up.
struct Bytes<'b> {
    base: u64,
    bytes: &'b [u8],
}

impl Bytes<'_> {
    fn word(&self, address: u64) -> Option<u64> {
        word_at(self.bytes, usize::try_from(address.checked_sub(self.base)?).ok()?)
    }

    /// The words from `from` to `to`, as far as they are there.
    fn range(&self, from: u64, to: u64) -> impl Iterator<Item = u64> {
        let len = self.bytes.len() as u64;
        let start = from.saturating_sub(self.base).min(len) as usize;
        let end = to.saturating_sub(self.base).min(len) as usize;
        words(self.bytes.get(start..end).unwrap_or_default())
    }
}

/// Pointers found on a stack: those into the stack itself lead to stack objects, the others leave it.
struct Found<'v> {
    lo: u64,
    hi: u64,
    own: Vec<u64>,
    visit: &'v mut dyn FnMut(u64),
}

impl Found<'_> {
    fn take(&mut self, word: u64) {
        if self.lo <= word && word < self.hi {
            self.own.push(word);
        } else {
            (self.visit)(word);
        }
    }
}

impl<'m> Stacks<'m> {
    /// A word of the memory that the stacks are in.
    pub(super) fn word(&self, address: u64) -> Option<u64> {
        self.memory.read_u64(address).ok()
    }

    /// For a program with these tables, loaded at `slide`.
    pub fn new(
        memory: &'m dyn Memory,
        arch: Arch,
        pclntab: &'m PcLnTab,
        slide: u64,
        modules: &'m Modules,
        types: &'m Types<'m>,
    ) -> Self {
        Self {
            memory,
            arch,
            pclntab,
            slide,
            modules,
            types,
            shapes: RefCell::default(),
            exact: Cell::new(0),
            conservative: Cell::new(0),
        }
    }

    /// How many frames were scanned with and without knowledge of their pointers.
    pub fn scanned(&self) -> (u64, u64) {
        (self.exact.get(), self.conservative.get())
    }

    /// Calls `visit` with every word on the stack of `g` that is or may be a pointer to elsewhere. `roots` are pointers
    /// to the stack from outside it (deferred calls, panics). `false` when the stack cannot be read.
    pub fn scan(&self, g: &Goroutine, start: Start, roots: &[u64], visit: &mut dyn FnMut(u64)) -> bool {
        let from = match start {
            Start::Walk => g.resume().1,
            Start::Running { sp, .. } => sp & !7,
            Start::Words(from) => from.max(g.stack_lo) & !7,
        };
        if from < g.stack_lo || from > g.stack_hi || g.stack_hi - from > MAX_STACK {
            return false;
        }
        let Some(bytes) = bytes_at(self.memory, from, (g.stack_hi - from) as usize) else { return false };
        let bytes = Bytes { base: from, bytes: &bytes };
        let frames = match start {
            Start::Walk if g.status != Status::Running => {
                self.walk(g.resume(), Some(g.lr), g, &bytes).map(|frames| (0, frames))
            }
            Start::Running { pc, sp, lr } => {
                self.walk((pc, sp), Some(lr), g, &bytes).map(|frames| (inexact(&frames), frames))
            }
            Start::Walk | Start::Words(_) => None,
        };
        let Some((inexact, frames)) = frames else {
            self.conservative.set(self.conservative.get() + 1);
            bytes.range(from, g.stack_hi).for_each(|word| {
                if !(g.stack_lo <= word && word < g.stack_hi) {
                    visit(word);
                }
            });
            return true;
        };
        let mut found = Found { lo: g.stack_lo, hi: g.stack_hi, own: roots.to_vec(), visit };
        let objects = self.scan_frames(&frames, inexact, &bytes, &mut found);
        trace_objects(objects, &bytes, &mut found);
        true
    }

    /// The program counters of `g`'s stack, innermost first, and whether the walk reached its end.
    pub fn pcs(&self, g: &Goroutine, limit: usize) -> (Vec<u64>, bool) {
        let (pc, sp) = g.resume();
        // Of one that has not begun it is no call's return address.
        let mut pcs = vec![if pc == g.start_pc { pc.saturating_add(1) } else { pc }];
        if sp < g.stack_lo || sp >= g.stack_hi || g.stack_hi - sp > MAX_STACK {
            return (pcs, false);
        }
        let Some(bytes) = bytes_at(self.memory, sp, (g.stack_hi - sp) as usize) else { return (pcs, false) };
        let bytes = Bytes { base: sp, bytes: &bytes };
        let (mut pc, mut sp, mut lr) = (pc, sp, Some(g.lr));
        while pcs.len() <= limit {
            let Some((next, frame)) = self.step(pc, sp, lr.take(), g, &bytes) else { return (pcs, false) };
            let Some(next) = next else {
                pcs.pop();
                return (pcs, true);
            };
            pcs.push(next);
            (pc, (sp, lr)) = (next, self.caller(&frame, &bytes));
        }
        (pcs, false)
    }

    /// The frames of `g`, which waits: program counter, and the address above its variables, innermost first; the first `limit` at
    /// most, and as far as they can be told.
    pub fn frames(&self, g: &Goroutine, limit: usize) -> Vec<(u64, u64)> {
        let (mut pc, mut sp) = g.resume();
        let mut frames = Vec::new();
        if sp < g.stack_lo || sp >= g.stack_hi || g.stack_hi - sp > MAX_STACK {
            return frames;
        }
        let Some(bytes) = bytes_at(self.memory, sp, (g.stack_hi - sp) as usize) else { return frames };
        let bytes = Bytes { base: sp, bytes: &bytes };
        let mut lr = Some(g.lr);
        while let Some((next, frame)) = self.step(pc, sp, lr.take(), g, &bytes).filter(|_| frames.len() < limit) {
            frames.push((pc, frame.varp));
            let Some(next) = next else { break };
            (pc, (sp, lr)) = (next, self.caller(&frame, &bytes));
        }
        frames
    }

    /// The frames of `g` from a program counter and stack pointer to the stack's bottom; `None` if they cannot all be told. `lr`
    /// is the link register of one that runs.
    fn walk(
        &self,
        (mut pc, mut sp): (u64, u64),
        mut lr: Option<u64>,
        g: &Goroutine,
        bytes: &Bytes<'_>,
    ) -> Option<Vec<Frame>> {
        let mut frames = Vec::new();
        loop {
            let (next, frame) = self.step(pc, sp, lr.take(), g, bytes)?;
            let Some(next) = next else { return Some(frames) };
            (pc, (sp, lr)) = (next, self.caller(&frame, bytes));
            frames.push(frame);
        }
    }

    /// The stack pointer of a frame's caller, and its link register where a signal made the frame look called: on arm64 that
    /// keeps it above the frame, see [`crate::memory::unwind`].
    fn caller(&self, frame: &Frame, bytes: &Bytes<'_>) -> (u64, Option<u64>) {
        match self.arch {
            Arch::Arm64 if frame.shape.async_preempt || frame.shape.sigpanic => {
                (frame.fp.saturating_add(SAVED_LINK), bytes.word(frame.fp))
            }
            _ => (frame.fp, None),
        }
    }

    /// The frame at `pc` and `sp`, and its return address if it is not the outermost. `lr` is the link register where it was
    /// interrupted, perhaps before it had a frame.
    fn step(
        &self,
        pc: u64,
        sp: u64,
        lr: Option<u64>,
        g: &Goroutine,
        bytes: &Bytes<'_>,
    ) -> Option<(Option<u64>, Frame)> {
        let shape = self.shape(pc)?;
        if shape.bottom {
            return Some((None, Frame { shape, sp, fp: sp, varp: sp, argp: sp }));
        }
        if let (Arch::Arm64, 0, Some(lr)) = (self.arch, shape.sp_delta, lr) {
            let argp = sp.checked_add(8)?;
            return Some((Some(lr), Frame { shape, sp, fp: sp, varp: sp, argp }));
        }
        // amd64: the call pushed the return address above the frame. arm64: the frame's lowest word holds it.
        let (slot, fp, above) = match self.arch {
            Arch::Amd64 => {
                let slot = sp.checked_add(shape.sp_delta)?;
                (slot, slot.checked_add(8)?, slot)
            }
            Arch::Arm64 => {
                let fp = sp.checked_add(shape.sp_delta)?;
                (sp, fp, fp)
            }
        };
        if fp <= sp || fp > g.stack_hi {
            return None;
        }
        // The word below the return address holds the caller's frame pointer, if there is a frame at all.
        let varp = if above > sp { above - 8 } else { above };
        let argp = if self.arch == Arch::Arm64 { fp.checked_add(8)? } else { fp };
        let next = bytes.word(slot)?;
        Some((Some(next), Frame { shape, sp, fp, varp, argp }))
    }

    /// Visits what the frames hold, the first `inexact` of them word by word. Returns the objects in them.
    fn scan_frames<'f>(
        &self,
        frames: &'f [Frame],
        inexact: usize,
        bytes: &Bytes<'_>,
        found: &mut Found<'_>,
    ) -> Vec<(u64, &'f StackObject)> {
        let mut objects = Vec::new();
        // Whether this frame's callee takes away its exact map.
        let mut conservative = false;
        for (index, frame) in frames.iter().enumerate() {
            let shape = &*frame.shape;
            match &shape.maps {
                Some((locals, args))
                    if index >= inexact && !conservative && !shape.async_preempt && !shape.open_args =>
                {
                    self.exact.set(self.exact.get() + 1);
                    if frame.varp > frame.sp {
                        scan_bits(frame.varp.saturating_sub(locals.words * 8), locals, bytes, found);
                    }
                    scan_bits(frame.argp, args, bytes, found);
                }
                _ => {
                    self.conservative.set(self.conservative.get() + 1);
                    bytes.range(frame.sp, frame.fp).for_each(|word| found.take(word));
                    let args = frame.argp.saturating_add(shape.args_words * 8);
                    bytes.range(frame.argp, args).for_each(|word| found.take(word));
                }
            }
            for object in &shape.objects {
                let base = if object.offset < 0 { frame.varp } else { frame.argp };
                if let Some(address) = base.checked_add_signed(object.offset).filter(|address| *address >= frame.sp) {
                    objects.push((address, object));
                }
            }
            conservative = shape.async_preempt || shape.sigpanic || shape.open_args;
        }
        objects.sort_by_key(|(address, _)| *address);
        objects
    }

    fn shape(&self, pc: u64) -> Option<Rc<Shape>> {
        if let Some(known) = self.shapes.borrow().get(&pc) {
            return known.clone();
        }
        let shape = self.read_shape(pc).map(Rc::new);
        let mut shapes = self.shapes.borrow_mut();
        if shapes.len() >= MAX_CACHED {
            shapes.clear();
        }
        shapes.insert(pc, shape.clone());
        shape
    }

    fn read_shape(&self, pc: u64) -> Option<Shape> {
        let pc = pc.wrapping_sub(self.slide);
        let func = self.pclntab.func(pc)?;
        let bottom = func.is_stack_bottom();
        if func.flags.sp_write() && !bottom {
            return None;
        }
        let sp_delta = if bottom { 0 } else { u64::from(self.pclntab.sp_delta(&func, pc)?) };
        let args = self.pclntab.args_size(&func);
        let args_words = u64::from(args.unwrap_or(0) / 8).min(MAX_OBJECTS);
        // At the very start of a function its entry map holds; elsewhere that of the call before.
        let index = if pc == func.entry { None } else { self.pclntab.pcdata(&func, PCDATA_STACK_MAP_INDEX, pc - 1) };
        let index = index.filter(|index| *index != -1).unwrap_or(0);
        let locals = if sp_delta > 8 { self.map(&func, LOCALS_POINTER_MAPS, index) } else { Some(Bits::default()) };
        let arguments = if args_words > 0 { self.map(&func, ARGS_POINTER_MAPS, index) } else { Some(Bits::default()) };
        Some(Shape {
            hides_caller: func.name.starts_with("runtime.") && !CALLED_WITH_MAPS.contains(&func.name),
            sp_delta,
            bottom,
            async_preempt: func.id == FuncId::AsyncPreempt || func.id == FuncId::DebugCall,
            sigpanic: func.id == FuncId::Sigpanic,
            maps: locals.zip(arguments),
            open_args: args.is_none(),
            args_words,
            objects: self.stack_objects(&func)?,
        })
    }

    /// Entry `index` of one of a function's `stackmap`s: the number of maps, the bits of each, then the maps.
    fn map(&self, func: &Func<'_>, which: u8, index: i32) -> Option<Bits> {
        let data = self.pclntab.funcdata(func, which)?;
        let word = |at: usize| Some(i32::from_le_bytes(data.get(at..at + 4)?.try_into().ok()?));
        let (count, bits) = (word(0)?, word(4)?);
        if count <= 0 || bits < 0 {
            return None;
        }
        if bits == 0 {
            return Some(Bits::default());
        }
        if index < 0 || index >= count {
            return None;
        }
        let size = (bits as usize).div_ceil(8);
        let from = size.checked_mul(index as usize)?.checked_add(8)?;
        Some(Bits { words: bits as u64, bits: data.get(from..from.checked_add(size)?)?.to_vec() })
    }

    /// A function's stack objects. `None` when they cannot be read: then nothing is known of its frame.
    fn stack_objects(&self, func: &Func<'_>) -> Option<Vec<StackObject>> {
        let Some(data) = self.pclntab.funcdata(func, STACK_OBJECTS) else { return Some(Vec::new()) };
        let count = word_at(data, 0).filter(|count| *count <= MAX_OBJECTS)?;
        let rodata = self.modules.rodata(func.entry.wrapping_add(self.slide));
        let mut objects = Vec::new();
        for record in data.get(8..)?.chunks_exact(16).take(count as usize) {
            let field = |at: usize| Some(i32::from_le_bytes(record.get(at..at + 4)?.try_into().ok()?));
            let (offset, size, pointers) = (field(0)?, u32::try_from(field(4)?).ok()?, field(8)?);
            let mask = rodata.checked_add(u64::from(field(12)?.cast_unsigned()))?;
            // A negative number is the size covered by a program that would build the mask (Go 1.23 and earlier).
            let words = u64::try_from(pointers / 8).ok();
            let known = words.filter(|words| self.types.is_immutable(mask, words.div_ceil(8)));
            objects.push(StackObject {
                offset: i64::from(offset),
                size: u64::from(size),
                pointers: known.and_then(|words| Some(Bits { words, bits: self.types.bits(mask, words)? })),
            });
        }
        (objects.len() as u64 == count).then_some(objects)
    }
}

/// How many of the innermost frames of a goroutine that runs have no exact map: the one that was interrupted, and as long as
/// they are the runtime's, whoever called.
fn inexact(frames: &[Frame]) -> usize {
    1 + frames.iter().take_while(|frame| frame.shape.hides_caller).count()
}

fn scan_bits(from: u64, bits: &Bits, bytes: &Bytes<'_>, found: &mut Found<'_>) {
    for index in 0..bits.words {
        if bit(&bits.bits, index)
            && let Some(word) = from.checked_add(index * 8).and_then(|address| bytes.word(address))
        {
            found.take(word);
        }
    }
}

/// Follows pointers into the stack: the object each leads to is live, and so is what it points to.
fn trace_objects(objects: Vec<(u64, &StackObject)>, bytes: &Bytes<'_>, found: &mut Found<'_>) {
    let mut done = vec![false; objects.len()];
    while let Some(pointer) = found.own.pop() {
        let Some(at) = objects.partition_point(|(address, _)| *address <= pointer).checked_sub(1) else { continue };
        let (address, object) = objects[at];
        if pointer - address >= object.size || std::mem::replace(&mut done[at], true) {
            continue;
        }
        match &object.pointers {
            Some(bits) => scan_bits(address, bits, bytes, found),
            None => bytes.range(address, address.saturating_add(object.size)).for_each(|word| found.take(word)),
        }
    }
}
