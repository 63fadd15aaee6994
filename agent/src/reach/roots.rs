//! Everything live that is neither heap nor a goroutine's stack: variables, what finalizers and cleanups will run on, and
//! the threads' registers and system stacks.

use hashbrown::{HashMap, HashSet};

use super::heap::each_struct;
use super::mark::Marker;
use super::objects::{Objects, words};
use super::stack::{MAX_STACK, Start};
use super::types::{Types, bit};
use super::{ReachError, Subject, start_of};
use crate::golang::proof_layout::{ReachLayout, SpecialKind, SpecialLayout};
use crate::memory::bytes_at;
use crate::memory::census::Goroutine;
use crate::memory::chain::Chain;
use crate::memory::stop::Thread;
use crate::memory::{Fault, Memory, word_at};

/// Modules of one program: itself and its plugins.
const MAX_MODULES: usize = 1024;
/// Threads of one program.
const MAX_THREADS: usize = 1 << 20;
/// Blocks of finalizers or cleanups.
const MAX_BLOCKS: usize = 1 << 20;
/// `finBlockSize`
pub const FIN_BLOCK: usize = 4096;
/// `cleanupBlockSize`
pub const CLEANUP_BLOCK: usize = 512;
/// Where a cleanup block keeps `alllink`: after its `lfnode`.
pub const CLEANUP_LINK: usize = 16;
/// Where a finalizer block keeps `alllink`.
pub const FIN_LINK: usize = 0;
/// What follows a `special` in each of its kinds, at most.
pub const SPECIAL_TAIL: u32 = 40;
/// Specials of all spans.
const MAX_SPECIALS: usize = 1 << 26;
/// Largest data or bss segment of one module.
const MAX_SEGMENT: u64 = 8 << 30;
/// Part of a system stack that is scanned.
pub const MAX_SYSTEM_STACK: u64 = 256 << 10;

/// The variables of one module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Module {
    /// Initialised variables, and those that start as zero: address, end, number of mask bits, address of the mask.
    pub segments: [(u64, u64, u64, u64); 2],
    /// Its type descriptors.
    pub types: (u64, u64),
    /// Start of its read-only data.
    pub rodata: u64,
    /// Its code.
    pub text: (u64, u64),
}

/// All modules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Modules {
    /// See [`Module`].
    pub list: Vec<Module>,
}

impl Modules {
    /// Reads the list of modules that begins at `first`.
    pub fn read(memory: &dyn Memory, layout: &ReachLayout, first: u64) -> Result<Self, Fault> {
        let at = &layout.module;
        let mut modules = Self::default();
        let mut next = first;
        while next != 0 && modules.list.len() < MAX_MODULES {
            let mut bytes = vec![0; at.size as usize];
            memory.read(next, &mut bytes)?;
            let word = |offset: u32| word_at(&bytes, offset as usize).unwrap_or(0);
            modules.list.push(Module {
                segments: [
                    (word(at.data), word(at.edata), word(at.data_mask_n) & 0xffff_ffff, word(at.data_mask)),
                    (word(at.bss), word(at.ebss), word(at.bss_mask_n) & 0xffff_ffff, word(at.bss_mask)),
                ],
                types: (word(at.types), word(at.etypes)),
                rodata: word(at.rodata),
                text: (word(at.text), word(at.etext)),
            });
            next = word(at.next);
        }
        Ok(modules)
    }

    /// Start of the read-only data of the module whose code `pc` is in; of the first if it is in none.
    pub fn rodata(&self, pc: u64) -> u64 {
        let of = self.list.iter().find(|module| (module.text.0..module.text.1).contains(&pc));
        of.or(self.list.first()).map_or(0, |module| module.rodata)
    }

    /// Ranges that never change.
    pub fn immutable(&self) -> Vec<(u64, u64)> {
        self.list.iter().map(|module| module.types).collect()
    }

    /// Address and length of all variables.
    pub fn variables(&self) -> impl Iterator<Item = (u64, u64)> {
        self.list.iter().flat_map(|module| module.segments).map(|(from, to, ..)| (from, to.saturating_sub(from)))
    }

    /// Address and length of all pointer masks of variables.
    pub fn masks(&self) -> impl Iterator<Item = (u64, u64)> {
        self.list.iter().flat_map(|module| module.segments).map(|(_, _, bits, mask)| (mask, bits.div_ceil(8)))
    }
}

/// The list of blocks that begins at the pointer at `head`, each `size` bytes, linked at `link`.
pub fn blocks(memory: &dyn Memory, head: u64, size: usize, link: usize) -> Result<Vec<Vec<u8>>, Fault> {
    let mut next = memory.read_u64(head)?;
    let mut blocks = Vec::new();
    let mut chain = Chain::default();
    while next != 0 && blocks.len() < MAX_BLOCKS && chain.goes_on(next) {
        let mut block = vec![0; size];
        memory.read(next, &mut block)?;
        next = word_at(&block, link).unwrap_or(0);
        blocks.push(block);
    }
    Ok(blocks)
}

/// One special: the base of its span, and its bytes.
pub type Special = (u64, Vec<u8>);

/// All specials, a level of all lists at a time.
pub fn specials(memory: &dyn Memory, layout: &SpecialLayout, heads: Vec<(u64, u64)>) -> Result<Vec<Special>, Fault> {
    let mut found = Vec::new();
    let mut seen: HashSet<u64> = heads.iter().map(|(_, address)| *address).collect();
    let mut level = heads;
    while !level.is_empty() && found.len() < MAX_SPECIALS {
        let addresses: Vec<u64> = level.iter().map(|(_, address)| *address).collect();
        let mut next = Vec::new();
        each_struct(memory, &addresses, layout.size + SPECIAL_TAIL, |index, bytes| {
            let Some(bytes) = bytes else { return };
            let link = word_at(bytes, layout.next as usize).unwrap_or(0);
            if link != 0 && seen.insert(link) {
                next.push((level[index].0, link));
            }
            found.push((level[index].0, bytes.to_vec()));
        })?;
        level = next;
    }
    Ok(found)
}

/// Marks from everything that is not a goroutine or a thread.
pub fn mark(
    subject: &Subject<'_>,
    modules: &Modules,
    objects: &Objects<'_>,
    types: &Types<'_>,
    marker: &mut Marker<'_, '_>,
) -> Result<(), ReachError> {
    let Subject { memory, layout, variables, .. } = *subject;
    let failed = |what| move |source| ReachError::Memory { what, source };
    for (from, to, bits, mask) in modules.list.iter().flat_map(|module| module.segments) {
        let Some(len) = to.checked_sub(from).filter(|len| *len <= MAX_SEGMENT) else {
            return Err(ReachError::Incomplete("a module's variables have no sensible bounds".to_owned()));
        };
        if len == 0 {
            continue;
        }
        let unreadable = || failed("a module's variables")(Fault::Unmapped { address: from, len: len as usize });
        let bytes = bytes_at(memory, from, len as usize).ok_or_else(unreadable)?;
        // The mask is made when the module is loaded and stays; it covers the words up to the last pointer.
        let mask = types.bits(mask, bits.min(len / 8)).filter(|_| bits > 0);
        for (index, word) in words(&bytes).enumerate() {
            if mask.as_ref().is_none_or(|mask| bit(mask, index as u64)) {
                marker.mark(word);
            }
        }
    }
    let mut queued = blocks(memory, variables.allfin, FIN_BLOCK, FIN_LINK).map_err(failed("queued finalizers"))?;
    if let Some((queue, all)) = variables.gc_cleanups.zip(layout.cleanups_all) {
        let head = queue.wrapping_add(u64::from(all));
        queued.extend(blocks(memory, head, CLEANUP_BLOCK, CLEANUP_LINK).map_err(failed("queued cleanups"))?);
    }
    queued.iter().flat_map(|block| words(block)).for_each(|word| marker.mark(word));
    mark_specials(subject, objects, marker).map_err(failed("specials"))
}

fn mark_specials(subject: &Subject<'_>, objects: &Objects<'_>, marker: &mut Marker<'_, '_>) -> Result<(), Fault> {
    let layout = &subject.layout.special;
    let heads = heads(objects);
    for (base, bytes) in specials(subject.memory, layout, heads)? {
        let number = bytes.get(layout.kind as usize).copied().unwrap_or(0);
        let mask = if layout.offset_size >= 8 { u64::MAX } else { (1 << (layout.offset_size * 8)) - 1 };
        let offset = word_at(&bytes, layout.offset as usize).unwrap_or(0) & mask;
        let address = base.wrapping_add(offset);
        match SpecialLayout::kind(subject.layout.minor, number) {
            SpecialKind::Finalizer => marker.mark_contents(address),
            SpecialKind::Weak => marker.mark_whole(address),
            SpecialKind::Other => {}
        }
        words(bytes.get(layout.size as usize..).unwrap_or_default()).for_each(|word| marker.mark(word));
    }
    for span in objects.spans.spans.iter().filter(|span| span.pinned) {
        (0..span.count).for_each(|index| marker.mark(span.object(index)));
    }
    Ok(())
}

/// Base and first special of each span that has any.
fn heads(objects: &Objects<'_>) -> Vec<(u64, u64)> {
    let spans = objects.spans.spans.iter();
    spans.filter(|span| span.specials != 0).map(|span| (span.base, span.specials)).collect()
}

/// What the threads hold.
#[derive(Clone, Debug, Default)]
pub struct Held {
    /// Words of registers and system stacks.
    pub words: Vec<u64>,
    /// Where the stacks of running goroutines are scanned from.
    pub starts: HashMap<u64, Start>,
}

/// What the runtime's threads do: which of their system stacks hold anything, and which of them are idle.
#[derive(Clone, Debug, Default)]
pub struct System {
    /// Ranges of system stacks that hold something.
    pub stacks: Vec<(u64, u64)>,
    /// System stacks of idle threads.
    idle: Vec<(u64, u64)>,
    /// Goroutines that run, but whose threads are on their system stacks meanwhile.
    left: HashSet<u64>,
}

/// Reads what the runtime's threads do, from the list of its `m`s.
pub fn system(subject: &Subject<'_>) -> Result<System, Fault> {
    let Subject { memory, layout, variables, threads, .. } = *subject;
    let at = &layout.m;
    let bounds = |g: u64| -> Result<(u64, u64), Fault> {
        if g == 0 {
            return Ok((0, 0));
        }
        let lo = memory.read_u64(g.wrapping_add(u64::from(layout.g.stack_lo)))?;
        let hi = memory.read_u64(g.wrapping_add(u64::from(layout.g.stack_hi)))?;
        Ok(if lo < hi && hi - lo <= MAX_STACK { (lo, hi) } else { (0, 0) })
    };
    let pointer_in = |(lo, hi): (u64, u64)| threads.iter().map(|thread| thread.sp).find(|sp| (lo..hi).contains(sp));
    // Under cgo the bounds of a thread's own stack are an estimate, and far apart.
    let whole = |(lo, hi): (u64, u64)| (lo.max(hi.saturating_sub(MAX_SYSTEM_STACK)), hi);
    let mut system = System::default();
    let mut next = memory.read_u64(variables.allm)?;
    let mut chain = Chain::default();
    for _ in 0..MAX_THREADS {
        if next == 0 || !chain.goes_on(next) {
            break;
        }
        let mut m = vec![0; at.size as usize];
        memory.read(next, &mut m)?;
        let word = |offset: u32| word_at(&m, offset as usize).unwrap_or(0);
        let (g0, gsignal) = (bounds(word(at.g0))?, bounds(word(at.gsignal))?);
        if word(at.p) == 0 && word(at.curg) == 0 {
            // It has nothing to run, or is the monitor: neither handles objects.
            system.idle.push(g0);
        } else if let Some(sp) = pointer_in(gsignal) {
            // A signal's handler: what it interrupted is saved here, and may have been on the system stack.
            system.stacks.extend([(sp & !7, gsignal.1), whole(g0)]);
        } else if let Some(sp) = pointer_in(g0) {
            system.left.insert(word(at.curg));
            system.stacks.push((sp & !7, g0.1.min(sp.saturating_add(MAX_SYSTEM_STACK))));
        } else if pointer_in(bounds(word(at.curg))?).is_none() {
            system.stacks.extend([whole(gsignal), whole(g0)]);
        }
        // While it runs a goroutine on that one's stack, its system stack holds nothing.
        next = word(at.alllink);
    }
    system.stacks.retain(|(from, to)| from < to);
    Ok(system)
}

/// Reads what the threads hold.
pub fn threads(subject: &Subject<'_>, goroutines: &[Goroutine]) -> Result<Held, Fault> {
    let mut held = Held::default();
    let system = system(subject)?;
    let idle = |thread: &Thread| system.idle.iter().any(|(lo, hi)| (*lo..*hi).contains(&thread.sp));
    let busy = subject.threads.iter().filter(|thread| !idle(thread));
    held.words.extend(busy.flat_map(|thread| thread.registers.iter().copied()));
    let System { stacks, left, .. } = system;
    for (from, to) in stacks {
        if let Some(bytes) = bytes_at(subject.memory, from, (to - from) as usize) {
            held.words.extend(words(&bytes));
        }
    }
    let starts = goroutines.iter().filter_map(|g| {
        let start = start_of(subject.layout.arch, g, subject.threads)?;
        // `mcall`, `systemstack` and `morestack` have noted where they left its stack.
        let noted = matches!(start, Start::Words(_)) && !g.stack_moves() && left.contains(&g.address);
        let (pc, sp) = g.resume();
        Some((g.address, if noted { Start::Running { pc, sp, lr: 0 } } else { start }))
    });
    held.starts = starts.collect();
    Ok(held)
}
