//! Goroutines that can never run again, proven from outside: on a memory image of the stopped target, everything that
//! can still run is followed to everything it can reach; a goroutine that waits for something nothing reaches is leaked.
//!
//! This is what Go's own `goroutineleak` profile does from inside (Go 1.26 and later), for every version from 1.21 on.
//! Soundness comes first: whatever cannot be told makes a goroutine live. Deliberately absent: clocks, I/O, stopping the
//! target and copying its memory (see `prove`); every word comes through [`Memory`].

pub mod candidates;
pub mod contents;
pub mod descriptors;
pub mod graph;
pub mod heap;
pub mod holders;
pub mod mark;
pub mod objects;
mod partners;
pub mod roots;
pub mod stack;
pub mod types;
mod unlocks;

#[cfg(test)]
pub(crate) mod tests;

use std::collections::{BTreeMap, BTreeSet};

use hashbrown::{HashMap, HashSet};
use serde::{Deserialize, Serialize};

use crate::cause::primitive::Primitive;
use crate::cause::wait::Wait;
use crate::golang::proof_layout::ReachLayout;
use candidates::{Candidate, Finder, is_parked};
use contents::Reads;
use descriptors::Descriptors;
use heap::{HeapError, Spans};
use mark::Marker;
use mark::held::{Held, Own};
use objects::{Objects, Precision};
use roots::Modules;
use stack::{Stacks, Start};
use types::Types;
use unlocks::Unlocks;

use crate::golang::Arch;
use crate::golang::goroutine::{is_http_server, is_system_goroutine};
use crate::golang::pclntab::PcLnTab;
use crate::memory::census::{Census, CensusError, CensusReader, Goroutine, Status};
use crate::memory::stop::Thread;
use crate::memory::{Fault, Memory};

/// Frames of a leaked goroutine's stack that are told.
const MAX_FRAMES: usize = 256;
/// Goroutines named as waiting for the same thing.
const MAX_NAMED: usize = 16;

/// Addresses of the runtime's variables, as loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "each is named after its variable")]
pub struct Variables {
    pub allgs: u64,
    pub allm: u64,
    pub mheap: u64,
    pub semtable: u64,
    pub firstmoduledata: u64,
    pub allfin: u64,
    /// Go 1.25 and later.
    pub gc_cleanups: Option<u64>,
}

/// What a proof is about: a program, and its memory while it stands still.
#[derive(Clone, Copy)]
pub struct Subject<'a> {
    /// Its memory as it was when it stood still.
    pub memory: &'a dyn Memory,
    /// Memory for what does not change: type descriptors, pointer masks, and what leaked goroutines wait for. May be
    /// that of the running process.
    pub constant: &'a dyn Memory,
    /// Layouts.
    pub layout: &'a ReachLayout,
    /// Function tables.
    pub pclntab: &'a PcLnTab,
    /// How far above its link-time addresses the program is loaded.
    pub slide: u64,
    /// Texts of the wait reasons.
    pub wait_reasons: &'a [String],
    /// Where the runtime's variables are.
    pub variables: &'a Variables,
    /// Its threads.
    pub threads: &'a [Thread],
    /// Ranges of its memory that never change.
    pub immutable: &'a [(u64, u64)],
    /// How much of its heap is read.
    pub reads: Reads,
    /// Who else may follow what is live.
    pub helpers: Helpers,
}

/// Threads that help.
#[derive(Clone, Copy, Debug)]
pub struct Helpers {
    /// How many, at most.
    pub count: usize,
    /// What each does first.
    pub begin: fn(),
}

impl Helpers {
    /// None.
    pub const NONE: Self = Self { count: 0, begin: || {} };
}

/// Why nothing can be proven.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReachError {
    /// The goroutines cannot be read.
    #[error(transparent)]
    Census(#[from] CensusError),
    /// The heap cannot be read.
    #[error(transparent)]
    Heap(#[from] HeapError),
    /// Something else cannot be read.
    #[error("{what} cannot be read: {source}")]
    Memory {
        /// What.
        what: &'static str,
        /// Why.
        source: Fault,
    },
    /// More would have to be read than may be.
    #[error("its heap of {} MiB is more than may be read and kept", read >> 20)]
    TooMuch {
        /// Bytes of heap whose objects can hold pointers.
        read: u64,
    },
    /// Part of what can run is not known, so that anything might be reachable.
    #[error("{0}: nothing can be proven where part of what is live is unknown")]
    Incomplete(String),
}

/// A goroutine that can never run again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leaked {
    /// The goroutine.
    pub goroutine: Goroutine,
    /// What it does.
    pub wait: Wait,
    /// What it waits for.
    pub primitives: Vec<Primitive>,
    /// Return addresses of its stack, innermost first.
    pub stack: Vec<u64>,
}

/// What goroutines of one group have in common: `go` statement, start, wait reason, stack.
pub type Alike<'l> = (u64, u64, u8, &'l [u64]);

impl Leaked {
    /// See [`Alike`].
    pub fn alike(&self) -> Alike<'_> {
        let g = &self.goroutine;
        (g.creation_pc, g.start_pc, g.wait_reason, &self.stack)
    }
}

/// What only leaked goroutines lead to of the heap.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldHeap {
    /// By the goid of the first leaked goroutine of each group, what it alone leads to.
    pub own: BTreeMap<u64, Own>,
    /// Bytes that several groups lead to.
    pub shared: u64,
}

/// What was proven.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    /// The leaked goroutines.
    pub leaked: Vec<Leaked>,
    /// Goroutines that are not, because a timer wakes them; nothing but their own stacks leads to any other case of their select.
    #[serde(default)]
    pub timed: Vec<Leaked>,
    /// All goroutines.
    pub goroutines: u64,
    /// Those that wait in a way that can be a leak.
    pub candidates: u64,
    /// Those that wait so, but for something that was not found, or that are being woken.
    pub undecided: u64,
    /// Those that wait for a lock in a small allocation, of which only another value may be in use.
    #[serde(default)]
    pub sharing: u64,
    /// How pointers were told.
    pub precision: Precision,
    /// Bytes of heap whose objects can hold pointers.
    pub scannable_bytes: u64,
    /// Spans of the heap.
    pub spans: u64,
    /// Goroutines that serve an HTTP connection and made leaked ones.
    pub http_connections: BTreeSet<u64>,
    /// What the leaked ones keep of the heap; `None` where that was not counted.
    pub held: Option<HeldHeap>,
}

/// The goroutines of a subject, and what each waits for.
pub struct Goroutines {
    /// All of them.
    pub list: Vec<Goroutine>,
    /// Of each, what it waits for if it may be leaked.
    pub waits: Vec<Option<Wait>>,
}

impl Subject<'_> {
    /// Reads the goroutines.
    pub fn goroutines(&self) -> Result<Goroutines, ReachError> {
        let reader = CensusReader::new(self.layout.g, self.variables.allgs);
        let Census { goroutines, unreadable, truncated, .. } = reader.read(self.memory, || 0)?;
        if truncated || unreadable > 0 {
            return Err(ReachError::Incomplete(format!("{unreadable} goroutines cannot be read")));
        }
        Ok(Goroutines { waits: self.waits(&goroutines), list: goroutines })
    }

    /// Of each goroutine what it waits for if it may be leaked.
    pub fn waits(&self, goroutines: &[Goroutine]) -> Vec<Option<Wait>> {
        let mut of_runtime = HashMap::new();
        goroutines
            .iter()
            .map(|goroutine| {
                let known = of_runtime.entry(goroutine.start_pc);
                let of_runtime = *known.or_insert_with(|| self.is_of_runtime(goroutine.start_pc));
                self.wait(goroutine)
                    .filter(|wait| !of_runtime && (*wait != Wait::Coroutine || self.is_iterator(goroutine.start_pc)))
            })
            .collect()
    }

    /// Whether a goroutine that starts at `start_pc` is the runtime's own, or one of which nothing is known.
    fn is_of_runtime(&self, start_pc: u64) -> bool {
        self.pclntab.func(start_pc.wrapping_sub(self.slide)).is_none_or(|func| is_system_goroutine(func.name))
    }

    /// Whether a goroutine that starts at `start_pc` is the iterator of an `iter.Pull`, and not one that asks for its values.
    fn is_iterator(&self, start_pc: u64) -> bool {
        self.pclntab.func(start_pc.wrapping_sub(self.slide)).is_some_and(|func| func.name == "runtime.corostart")
    }

    /// What `goroutine` waits for, if it may be leaked. The runtime's own goroutines and the main one are taken to be
    /// parked for good reasons.
    fn wait(&self, goroutine: &Goroutine) -> Option<Wait> {
        if !is_parked(goroutine) || goroutine.goid == 1 {
            return None;
        }
        let reason = self.wait_reasons.get(usize::from(goroutine.wait_reason))?;
        self.wait_of(reason)
    }

    /// The wait behind a reason's text.
    fn wait_of(&self, reason: &str) -> Option<Wait> {
        match Wait::of_reason(reason) {
            // Until Go 1.23 a wait group has no reason of its own.
            None if reason == "semacquire" && self.layout.minor < 24 => Some(Wait::WaitGroup),
            other => other,
        }
    }
}

/// Proves which goroutines of a subject are leaked.
pub fn prove(subject: &Subject<'_>) -> Result<Proof, ReachError> {
    let Subject { memory, layout, variables, .. } = *subject;
    let memory_error = |what| move |source| ReachError::Memory { what, source };
    let Goroutines { list: goroutines, mut waits } = subject.goroutines()?;
    let modules = Modules::read(memory, layout, variables.firstmoduledata).map_err(memory_error("module data"))?;
    let immutable = [subject.immutable, &modules.immutable()].concat();
    let types = Types::new(subject.constant, layout.minor, immutable);
    let spans = Spans::read(memory, layout, variables.mheap)?;
    if spans.dropped > 0 {
        return Err(ReachError::Incomplete(format!("{} spans of the heap make no sense", spans.dropped)));
    }
    let objects = Objects::new(memory, layout, spans, &types, variables.mheap, subject.reads);
    let stacks = Stacks::new(memory, layout.arch, subject.pclntab, subject.slide, &modules, &types);
    if layout.minor < 24 {
        only_wait_groups(subject, &stacks, &goroutines, &mut waits);
    }
    let finder = Finder {
        memory,
        layout,
        spans: &objects.spans,
        modules: &modules,
        goroutines: &goroutines,
        waits: &waits,
        semtable: variables.semtable,
    };
    let found = finder.find();
    let threads = roots::threads(subject, &goroutines).map_err(memory_error("the list of threads"))?;
    let mut marker = Marker::new(memory, &objects, &stacks, &goroutines, &found.list, &threads, subject.helpers);
    let all = heap::read_words(
        memory,
        memory.read_u64(variables.allgs).map_err(memory_error("allgs"))?,
        memory.read_u64(variables.allgs.wrapping_add(8)).map_err(memory_error("allgs"))?.min(1 << 26),
    )
    .map_err(memory_error("allgs"))?;
    marker.hide(all.into_iter());
    marker.hide(found.list.iter().flat_map(|candidate| candidate.sudogs.iter().copied()));
    marker.watch();
    roots::mark(subject, &modules, &objects, &types, &mut marker)?;
    threads.words.iter().for_each(|word| marker.mark(*word));
    let candidates: HashSet<usize> = found.list.iter().map(|candidate| candidate.goroutine).collect();
    for (index, goroutine) in goroutines.iter().enumerate() {
        if !candidates.contains(&index) {
            marker.root(goroutine);
        }
    }
    marker.run();
    let timed = marker.run_timed();
    if objects.contents.is_exhausted() {
        return Err(ReachError::TooMuch { read: objects.spans.scannable() });
    }
    if marker.unreadable > 0 {
        return Err(ReachError::Incomplete(format!("{} live objects or stacks cannot be read", marker.unreadable)));
    }
    let indices: Vec<u32> =
        marker.live().iter().zip(0..).filter(|(live, _)| !**live).map(|(_, candidate)| candidate).collect();
    let leaked = indices.iter().filter_map(|index| found.list.get(*index as usize));
    let waiting = waiting_for(&found.list, &goroutines);
    let described = |candidate: &Candidate| Leaked {
        goroutine: goroutines[candidate.goroutine],
        wait: candidate.wait,
        primitives: candidate
            .primitives
            .iter()
            .map(|address| Primitive::read(subject.constant, layout, candidate.wait, *address, waiting.get(address)))
            .collect(),
        stack: stacks.pcs(&goroutines[candidate.goroutine], MAX_FRAMES).0,
    };
    let mut leaked: Vec<Leaked> = leaked.map(described).collect();
    let timed = timed.iter().filter_map(|candidate| found.list.get(*candidate as usize)).map(described).collect();
    let (exact_objects, conservative_objects) = objects.scanned();
    let descriptors = Descriptors::new(&types, modules.immutable());
    let is_whole = !objects.contents.is_windowed();
    let held = is_whole.then(|| held(&mut marker, &leaked, &indices, &descriptors)).flatten();
    let (exact_frames, conservative_frames) = stacks.scanned();
    holders::find(&mut leaked, &stacks, &Unlocks::new(subject, &stacks), &objects.spans);
    Ok(Proof {
        goroutines: goroutines.len() as u64,
        candidates: found.list.len() as u64,
        undecided: found.undecided,
        sharing: marker.sharing,
        precision: Precision { exact_objects, conservative_objects, exact_frames, conservative_frames },
        scannable_bytes: objects.spans.scannable(),
        spans: objects.spans.spans.len() as u64,
        http_connections: http_connections(subject, &goroutines, &leaked),
        leaked,
        timed,
        held,
    })
}

/// What groups of leaked goroutines keep of the heap. `indices` are those of the candidates that they are.
fn held(
    marker: &mut Marker<'_, '_>,
    leaked: &[Leaked],
    indices: &[u32],
    descriptors: &Descriptors<'_, '_>,
) -> Option<HeldHeap> {
    let mut groups: BTreeMap<Alike<'_>, (u64, Vec<u32>)> = BTreeMap::new();
    for (leaked, index) in leaked.iter().zip(indices) {
        groups.entry(leaked.alike()).or_insert_with(|| (leaked.goroutine.goid, Vec::new())).1.push(*index);
    }
    let (first, groups): (Vec<u64>, Vec<Vec<u32>>) = groups.into_values().unzip();
    let Held { own, shared } = marker.held(&groups, descriptors)?;
    Some(HeldHeap { own: first.into_iter().zip(own).collect(), shared })
}

/// Of the goroutines that made leaked ones those that serve an HTTP connection.
fn http_connections(subject: &Subject<'_>, goroutines: &[Goroutine], leaked: &[Leaked]) -> BTreeSet<u64> {
    let parents: HashSet<u64> = leaked.iter().map(|leaked| leaked.goroutine.parent_goid).collect();
    let made_by_server = |goroutine: &Goroutine| {
        let call = goroutine.creation_pc.wrapping_sub(subject.slide).wrapping_sub(1);
        subject.pclntab.func(call).is_some_and(|func| is_http_server(func.name))
    };
    let of_interest = goroutines.iter().filter(|goroutine| parents.contains(&goroutine.goid));
    of_interest.filter(|goroutine| made_by_server(goroutine)).map(|goroutine| goroutine.goid).collect()
}

/// Before Go 1.24 everything that waits for a semaphore looks alike; of these only `sync.WaitGroup` is a candidate.
fn only_wait_groups(subject: &Subject<'_>, stacks: &Stacks<'_>, goroutines: &[Goroutine], waits: &mut [Option<Wait>]) {
    for (goroutine, wait) in goroutines.iter().zip(waits).filter(|(_, wait)| **wait == Some(Wait::WaitGroup)) {
        let (pcs, _) = stacks.pcs(goroutine, 8);
        let in_wait = pcs.iter().any(|pc| {
            let at = pc.wrapping_sub(subject.slide).wrapping_sub(1);
            subject.pclntab.frames(at).iter().any(|frame| frame.function == "sync.(*WaitGroup).Wait")
        });
        if !in_wait {
            *wait = None;
        }
    }
}

/// Who waits for each primitive: how many, and the ids of the first.
fn waiting_for(candidates: &[Candidate], goroutines: &[Goroutine]) -> HashMap<u64, (u64, Vec<u64>)> {
    let mut waiting: HashMap<u64, (u64, Vec<u64>)> = HashMap::new();
    for candidate in candidates {
        let mut own = candidate.primitives.clone();
        own.sort_unstable();
        own.dedup();
        for primitive in own {
            let (count, named) = waiting.entry(primitive).or_default();
            *count += 1;
            if named.len() < MAX_NAMED {
                named.push(goroutines[candidate.goroutine].goid);
            }
        }
    }
    waiting
}

/// Where a goroutine's stack is scanned from when it does not stand still.
fn start_of(arch: Arch, goroutine: &Goroutine, threads: &[Thread]) -> Option<Start> {
    // Frames and the objects in them may be told by pointers to where the stack was; what leads elsewhere is in its words.
    if goroutine.stack_moves() {
        return Some(Start::Words(goroutine.stack_lo));
    }
    if goroutine.status != Status::Running && goroutine.has_stack() {
        return None;
    }
    let on_it = |thread: &&Thread| (goroutine.stack_lo..goroutine.stack_hi).contains(&thread.sp);
    // On the system's stack meanwhile, it may have been left anywhere.
    let Some(thread) = threads.iter().find(on_it) else { return Some(Start::Words(goroutine.stack_lo)) };
    let (pc, lr) = thread.program_counter(arch);
    Some(match pc {
        Some(pc) => Start::Running { pc, sp: thread.sp, lr },
        None => Start::Words(thread.sp),
    })
}
