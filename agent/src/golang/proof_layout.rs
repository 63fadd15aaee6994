//! What a proof needs to know of the runtime's structs, beyond what watching needs: a binary that lacks any of it can be
//! watched all the same.

use serde::{Deserialize, Serialize};

use crate::golang::Arch;
use crate::golang::layout::{self, GLayout, LayoutError, RuntimeLayout, Structs, Wanted};
use crate::golang::version::GoVersion;

/// What a proof, and telling why a goroutine is stuck, reads beyond what watching does. `elem` and `c` of a sudog are pairs of
/// pointers from Go 1.26 on.
pub const WANTED: &Wanted = &[
    ("runtime.g", &[("param", 8), ("_defer", 8), ("xRegs", 0)]),
    ("runtime.m", &[("g0", 8), ("gsignal", 8), ("curg", 8), ("p", 8), ("alllink", 8)]),
    (
        "runtime.moduledata",
        &[
            ("data", 8),
            ("edata", 8),
            ("bss", 8),
            ("ebss", 8),
            ("types", 8),
            ("etypes", 8),
            ("rodata", 8),
            ("gcdatamask.n", 4),
            ("gcdatamask.bytedata", 8),
            ("gcbssmask.n", 4),
            ("gcbssmask.bytedata", 8),
            ("text", 8),
            ("etext", 8),
            ("next", 8),
        ],
    ),
    (
        "runtime.sudog",
        &[
            ("g", 8),
            ("next", 8),
            ("prev", 8),
            ("waitlink", 8),
            ("elem", 0),
            ("elem.vu", 8),
            ("c", 0),
            ("c.maybeTraceablePtr.vu", 8),
        ],
    ),
    (
        "runtime.hchan",
        &[
            ("qcount", 8),
            ("dataqsiz", 8),
            ("closed", 4),
            ("elemsize", 2),
            ("elemtype", 8),
            ("timer", 8),
            ("recvq.first", 8),
            ("sendq.first", 8),
        ],
    ),
    (
        "runtime.mspan",
        &[
            ("startAddr", 8),
            ("npages", 8),
            ("nelems", 0),
            ("elemsize", 8),
            ("spanclass", 1),
            ("state", 1),
            ("specials", 8),
            ("pinnerBits", 8),
            ("largeType", 8),
        ],
    ),
    ("runtime.mheap", &[("allspans", 24), ("arenas", 0)]),
    ("runtime.heapArena", &[("bitmap", 0), ("noMorePtrs", 0)]),
    ("runtime.semaRoot", &[("treap", 8)]),
    ("runtime.special", &[("next", 8), ("offset", 0), ("kind", 1)]),
    ("runtime._defer", &[("link", 8), ("pc", 8), ("fn", 8)]),
];

/// Offsets and constants of one program's runtime.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReachLayout {
    /// Minor version of Go 1.
    pub minor: u32,
    /// Instruction set.
    pub arch: Arch,
    /// `runtime.g` as a census needs it.
    pub g: GLayout,
    /// `g.param`: set by whoever is about to wake the goroutine.
    pub g_param: u32,
    /// `g._defer`
    pub g_defer: u32,
    /// `g.xRegs`, one pointer; Go 1.26 and later.
    pub g_xregs: Option<u32>,
    /// Size of `runtime._defer`.
    pub defer_size: u32,
    /// `_defer.link`
    pub defer_link: u32,
    /// `_defer.pc`
    pub defer_pc: u32,
    /// `_defer.fn`
    pub defer_fn: u32,
    /// `runtime.m`
    pub m: MLayout,
    /// `runtime.sudog`
    pub sudog: SudogLayout,
    /// `runtime.hchan`
    pub hchan: HchanLayout,
    /// `runtime.mspan`
    pub mspan: SpanLayout,
    /// `mheap.allspans`
    pub allspans: u32,
    /// The pointer bitmap of the arenas; Go 1.21 and earlier.
    pub arena_bitmap: Option<ArenaBitmap>,
    /// Size of a `semaRoot` with its padding: an entry of `semtable`.
    pub semtable_entry: u32,
    /// `semaRoot.treap`
    pub treap: u32,
    /// `runtime.special`
    pub special: SpecialLayout,
    /// `runtime.moduledata`
    pub module: ModuleLayout,
    /// `cleanupQueue.all`; Go 1.25 and later.
    pub cleanups_all: Option<u32>,
}

/// Offsets in `runtime.m`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "each is named after its field")]
pub struct MLayout {
    pub size: u32,
    pub g0: u32,
    pub gsignal: u32,
    pub curg: u32,
    pub p: u32,
    pub alllink: u32,
}

/// Offsets in `runtime.sudog`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "each is named after its field")]
pub struct SudogLayout {
    pub size: u32,
    pub g: u32,
    pub next: u32,
    pub prev: u32,
    pub waitlink: u32,
    /// The word that holds the address, whether the garbage collector may follow it or not.
    pub elem: u32,
    /// As `elem`.
    pub c: u32,
    /// Semaphores and conditions have their sudog in `g.waiting` too (Go 1.26 and later).
    pub in_g: bool,
}

/// Offsets in `runtime.hchan`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "each is named after its field")]
pub struct HchanLayout {
    pub size: u32,
    pub qcount: u32,
    pub dataqsiz: u32,
    pub closed: u32,
    pub elemsize: u32,
    pub elemtype: u32,
    /// Go 1.23 and later.
    pub timer: Option<u32>,
    pub recvq_first: u32,
    pub sendq_first: u32,
}

/// Offsets in `runtime.mspan`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "each is named after its field")]
pub struct SpanLayout {
    pub size: u32,
    pub start: u32,
    pub npages: u32,
    pub nelems: u32,
    pub elemsize: u32,
    pub spanclass: u32,
    pub state: u32,
    pub specials: u32,
    pub pinner_bits: u32,
    /// Go 1.22 and later.
    pub large_type: Option<u32>,
}

/// Where Go 1.21 keeps the heap's pointer bitmap.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArenaBitmap {
    /// `mheap.arenas`
    pub arenas: u32,
    /// `heapArena.bitmap`
    pub bitmap: u32,
    /// `heapArena.noMorePtrs`
    pub no_more: u32,
}

/// Offsets in `runtime.special`, and its kinds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "each is named after its field")]
pub struct SpecialLayout {
    pub size: u32,
    pub next: u32,
    pub offset: u32,
    pub offset_size: u32,
    pub kind: u32,
}

/// Offsets in `runtime.moduledata`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "each is named after its field")]
pub struct ModuleLayout {
    pub size: u32,
    pub data: u32,
    pub edata: u32,
    pub bss: u32,
    pub ebss: u32,
    pub types: u32,
    pub etypes: u32,
    pub rodata: u32,
    pub text: u32,
    pub etext: u32,
    pub data_mask_n: u32,
    pub data_mask: u32,
    pub bss_mask_n: u32,
    pub bss_mask: u32,
    pub next: u32,
}

/// What a special attached to an object means for reachability.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpecialKind {
    /// Everything the object refers to lives, the object itself need not.
    Finalizer,
    /// A weak pointer can make the object reachable again.
    Weak,
    /// Only what the special itself refers to lives.
    Other,
}

impl SpecialLayout {
    /// The kind numbered `number` (`src/runtime/mheap.go`); numbers of versions not listed are taken for the strongest.
    pub fn kind(minor: u32, number: u8) -> SpecialKind {
        let (finalizer, weak, last) = match minor {
            ..=22 => (1, None, 4),
            23 => (1, Some(2), 5),
            24 => (1, Some(2), 6),
            25 => (2, Some(3), 9),
            26 | 27 => (2, Some(3), 10),
            _ => return SpecialKind::Weak,
        };
        match number {
            n if n == finalizer => SpecialKind::Finalizer,
            n if Some(n) == weak => SpecialKind::Weak,
            n if n == 0 || n > last => SpecialKind::Weak,
            _ => SpecialKind::Other,
        }
    }
}

/// The smallest size that a struct's entry in `semtable` is padded to: a cache line.
const fn cache_line(arch: Arch) -> u32 {
    match arch {
        Arch::Amd64 => 64,
        Arch::Arm64 => 128,
    }
}

impl ReachLayout {
    /// The typed view of `structs` for a program of this version.
    pub fn from_structs(structs: &Structs, version: &GoVersion, arch: Arch) -> Result<Self, LayoutError> {
        let at = |structure, field| layout::offset(structs, WANTED, structure, field);
        let maybe = |structure, field| layout::optional(at(structure, field));
        let size = |structure| structs.get(structure).map(|s| s.size).ok_or(LayoutError::NoStruct(structure));
        let width = |structure: &str, field: &str| {
            structs.get(structure).and_then(|s| s.fields.get(field)).map_or(0, |field| field.size)
        };
        let paired = maybe("runtime.sudog", "elem.vu")?;
        let line = cache_line(arch);
        Ok(Self {
            minor: version.minor,
            arch,
            g: RuntimeLayout::from_structs(structs)?.g,
            g_param: at("runtime.g", "param")?,
            g_defer: at("runtime.g", "_defer")?,
            g_xregs: maybe("runtime.g", "xRegs")?,
            defer_size: size("runtime._defer")?,
            defer_link: at("runtime._defer", "link")?,
            defer_pc: at("runtime._defer", "pc")?,
            defer_fn: at("runtime._defer", "fn")?,
            m: MLayout {
                size: size("runtime.m")?,
                g0: at("runtime.m", "g0")?,
                gsignal: at("runtime.m", "gsignal")?,
                curg: at("runtime.m", "curg")?,
                p: at("runtime.m", "p")?,
                alllink: at("runtime.m", "alllink")?,
            },
            sudog: SudogLayout {
                size: size("runtime.sudog")?,
                g: at("runtime.sudog", "g")?,
                next: at("runtime.sudog", "next")?,
                prev: at("runtime.sudog", "prev")?,
                waitlink: at("runtime.sudog", "waitlink")?,
                in_g: paired.is_some(),
                elem: match paired {
                    Some(offset) => offset,
                    None => at("runtime.sudog", "elem")?,
                },
                c: match maybe("runtime.sudog", "c.maybeTraceablePtr.vu")? {
                    Some(offset) => offset,
                    None => at("runtime.sudog", "c")?,
                },
            },
            hchan: HchanLayout {
                size: size("runtime.hchan")?,
                qcount: at("runtime.hchan", "qcount")?,
                dataqsiz: at("runtime.hchan", "dataqsiz")?,
                closed: at("runtime.hchan", "closed")?,
                elemsize: at("runtime.hchan", "elemsize")?,
                elemtype: at("runtime.hchan", "elemtype")?,
                timer: maybe("runtime.hchan", "timer")?,
                recvq_first: at("runtime.hchan", "recvq.first")?,
                sendq_first: at("runtime.hchan", "sendq.first")?,
            },
            mspan: SpanLayout {
                size: size("runtime.mspan")?,
                start: at("runtime.mspan", "startAddr")?,
                npages: at("runtime.mspan", "npages")?,
                nelems: at("runtime.mspan", "nelems")?,
                elemsize: at("runtime.mspan", "elemsize")?,
                spanclass: at("runtime.mspan", "spanclass")?,
                state: at("runtime.mspan", "state")?,
                specials: at("runtime.mspan", "specials")?,
                pinner_bits: at("runtime.mspan", "pinnerBits")?,
                large_type: maybe("runtime.mspan", "largeType")?,
            },
            allspans: at("runtime.mheap", "allspans")?,
            arena_bitmap: match maybe("runtime.heapArena", "bitmap")? {
                Some(bitmap) if version.minor <= 21 => Some(ArenaBitmap {
                    arenas: at("runtime.mheap", "arenas")?,
                    bitmap,
                    no_more: at("runtime.heapArena", "noMorePtrs")?,
                }),
                _ => None,
            },
            semtable_entry: size("runtime.semaRoot")?.next_multiple_of(line),
            treap: at("runtime.semaRoot", "treap")?,
            special: SpecialLayout {
                size: size("runtime.special")?,
                next: at("runtime.special", "next")?,
                offset: at("runtime.special", "offset")?,
                offset_size: width("runtime.special", "offset"),
                kind: at("runtime.special", "kind")?,
            },
            module: {
                let md = |field| at("runtime.moduledata", field);
                ModuleLayout {
                    size: size("runtime.moduledata")?,
                    data: md("data")?,
                    edata: md("edata")?,
                    bss: md("bss")?,
                    ebss: md("ebss")?,
                    types: md("types")?,
                    etypes: md("etypes")?,
                    rodata: md("rodata")?,
                    text: md("text")?,
                    etext: md("etext")?,
                    data_mask_n: md("gcdatamask.n")?,
                    data_mask: md("gcdatamask.bytedata")?,
                    bss_mask_n: md("gcbssmask.n")?,
                    bss_mask: md("gcbssmask.bytedata")?,
                    next: md("next")?,
                }
            },
            // `full` and `workUnits`, `free` and `flushed`: two lines, then the list of all blocks.
            cleanups_all: (version.minor >= 25).then_some(2 * line),
        })
    }
}
