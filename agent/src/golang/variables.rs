//! Where the runtime keeps its variables, in binaries without symbols: functions that name a variable, and the parts of it
//! that each of them names, leave one place for it or none.
//!
//! A function's code has the addresses of the fields that it reads and writes ([`references`]). A place is the variable's if
//! all of its named parts, each at its offset, are among the addresses that the code of all of its functions has. More
//! than one place is no answer, and neither is none. Deliberately absent: what lies at the places (`live` looks).

use std::collections::BTreeSet;

use super::binary::GoBinary;
use super::layout::{self, LayoutError, Structs, Wanted};
use super::{Source, references};

/// The fields by which variables are found.
pub const WANTED: &Wanted = &[
    (
        "runtime.schedt",
        &[
            ("npidle", 4),
            ("nmspinning", 4),
            ("needspinning", 4),
            ("nmidle", 4),
            ("nmidlelocked", 4),
            // 4 bytes in Go 1.19.
            ("gcwaiting", 0),
            ("stopwait", 4),
        ],
    ),
    (
        "runtime.mstats",
        &[
            ("mspan_sys", 8),
            ("mcache_sys", 8),
            ("gcMiscSys", 8),
            ("other_sys", 8),
            ("last_gc_unix", 8),
            ("pause_total_ns", 8),
            ("numgc", 4),
        ],
    ),
    (
        "runtime.gcControllerState",
        &[("memoryLimit", 8), ("heapInUse", 8), ("heapReleased", 8), ("lastHeapGoal", 8), ("heapLive", 8)],
    ),
    ("runtime.workType", &[("cycles", 4), ("stwprocs", 4), ("maxprocs", 4), ("heap0", 8), ("heap1", 8), ("heap2", 8)]),
    ("runtime.gcCPULimiterState", &[("enabled", 1), ("assistTimePool", 8), ("idleTimePool", 8)]),
];

/// A part of a variable that code names.
#[derive(Clone, Copy, Debug)]
enum Part {
    /// So many bytes from its start.
    At(u64),
    /// A field of the struct that it is.
    Field(&'static str),
}

use Part::{At, Field};

/// How a variable is found.
#[derive(Debug)]
struct Recipe {
    name: &'static str,
    /// The struct that it is, if it is one with [`Part::Field`]s.
    structure: &'static str,
    /// Functions that every program has, each with the parts of the variable that it names.
    named: &'static [(&'static str, &'static [Part])],
    /// Whether the first function reads or writes it as a word, rather than takes its address or that of a part.
    word: bool,
    /// Whether more than one place may be left, for what lies there to decide.
    several: bool,
    alignment: u64,
}

const RECIPE: Recipe = Recipe { name: "", structure: "", named: &[], word: false, several: false, alignment: 8 };

/// Verified against the symbols of programs of every tested version. The first of a variable's that leaves a place is taken.
const RECIPES: &[Recipe] = &[
    Recipe { name: "runtime.allm", named: &[("runtime.mcommoninit", &[At(0)])], word: true, several: true, ..RECIPE },
    Recipe { name: "runtime.mheap_", named: &[("runtime.mallocinit", &[At(0)])], several: true, ..RECIPE },
    Recipe {
        name: "runtime.semtable",
        named: &[("runtime.semacquire1", &[At(0)]), ("runtime.semrelease1", &[At(0)])],
        ..RECIPE
    },
    Recipe {
        name: "runtime.allfin",
        named: &[("runtime.queuefinalizer", &[At(0)]), ("runtime.markroot", &[At(0)])],
        word: true,
        ..RECIPE
    },
    Recipe {
        name: "runtime.gcCleanups",
        // runtime.runCleanups is in programs with cleanups alone.
        named: &[("runtime.freeSpecial", &[At(0)]), ("runtime.findRunnable", &[At(0)])],
        ..RECIPE
    },
    Recipe {
        name: "runtime.sched",
        structure: "runtime.schedt",
        named: &[
            (
                "runtime.schedtrace",
                &[
                    Field("npidle"),
                    Field("nmspinning"),
                    Field("needspinning"),
                    Field("nmidle"),
                    Field("nmidlelocked"),
                    Field("gcwaiting"),
                    Field("stopwait"),
                ],
            ),
            ("runtime.gcstopm", &[Field("gcwaiting"), Field("stopwait")]),
        ],
        ..RECIPE
    },
    Recipe {
        name: "runtime.allp",
        named: &[
            ("runtime.procresize", &[At(0), At(8), At(16)]),
            ("runtime.gcMark", &[At(0), At(8)]),
            ("runtime.schedtrace", &[At(0), At(8)]),
        ],
        several: true,
        ..RECIPE
    },
    Recipe {
        name: "runtime.memstats",
        structure: "runtime.mstats",
        named: &[
            (
                "runtime.(*mheap).init",
                &[Field("mspan_sys"), Field("mcache_sys"), Field("gcMiscSys"), Field("other_sys")],
            ),
            ("runtime.gcMarkTermination", &[Field("last_gc_unix"), Field("pause_total_ns"), Field("numgc")]),
        ],
        ..RECIPE
    },
    Recipe {
        name: "runtime.gcController",
        structure: "runtime.gcControllerState",
        named: &[
            ("runtime.(*mheap).allocSpan", &[Field("memoryLimit"), Field("heapInUse"), Field("heapReleased")]),
            ("runtime.gcMarkTermination", &[Field("lastHeapGoal"), Field("heapLive")]),
        ],
        ..RECIPE
    },
    Recipe {
        name: "runtime.work",
        structure: "runtime.workType",
        named: &[
            ("runtime.gcStart", &[Field("cycles"), Field("stwprocs"), Field("maxprocs"), Field("heap0")]),
            ("runtime.gcMarkTermination", &[Field("maxprocs"), Field("heap0"), Field("heap1"), Field("heap2")]),
        ],
        ..RECIPE
    },
    Recipe {
        name: "runtime.gcCPULimiter",
        structure: "runtime.gcCPULimiterState",
        named: &[
            ("runtime.(*limiterEvent).stop", &[Field("assistTimePool"), Field("idleTimePool")]),
            ("runtime.(*mheap).allocSpan", &[Field("enabled")]),
        ],
        ..RECIPE
    },
    Recipe {
        name: "runtime.runtimeInitTime",
        named: &[("runtime.main", &[At(0)]), ("runtime.gcMarkTermination", &[At(0)])],
        word: true,
        ..RECIPE
    },
    Recipe {
        name: "runtime.finqueued",
        named: &[("runtime.queuefinalizer", &[At(0)]), ("runtime.finReadQueueStats", &[At(0)])],
        word: true,
        ..RECIPE
    },
    Recipe {
        name: "runtime.finexecuted",
        named: &[("runtime.runFinalizers", &[At(0)]), ("runtime.finReadQueueStats", &[At(0)])],
        word: true,
        ..RECIPE
    },
    Recipe {
        name: "runtime.startingStackSize",
        named: &[("runtime.gcComputeStartingStackSize", &[At(0)]), ("runtime.gfput", &[At(0)])],
        alignment: 4,
        ..RECIPE
    },
    Recipe {
        name: "runtime.extraMLength",
        named: &[("runtime.checkdead", &[At(0)]), ("runtime.addExtraM", &[At(0)])],
        alignment: 4,
        ..RECIPE
    },
    Recipe {
        name: "runtime.extraMInUse",
        named: &[("runtime.dropm", &[At(0)]), ("runtime.getExtraM", &[At(0)])],
        alignment: 4,
        ..RECIPE
    },
    Recipe {
        name: "runtime.mProfCycle",
        named: &[
            ("runtime.gcSweep", &[At(0)]),
            ("runtime.mProf_Flush", &[At(0)]),
            ("runtime.mProf_Malloc", &[At(0)]),
            ("runtime.mProf_Free", &[At(0)]),
        ],
        alignment: 4,
        ..RECIPE
    },
    Recipe {
        name: "runtime.MemProfileRate",
        named: &[
            ("runtime.profilealloc", &[At(0)]),
            ("runtime.allocmcache", &[At(0)]),
            ("runtime.schedinit", &[At(0)]),
        ],
        word: true,
        ..RECIPE
    },
    Recipe {
        // Go 1.19
        name: "runtime.MemProfileRate",
        named: &[("runtime.profilealloc", &[At(0)]), ("runtime.allocmcache", &[At(0)]), ("runtime.mallocgc", &[At(0)])],
        word: true,
        ..RECIPE
    },
    Recipe {
        name: "runtime.blockprofilerate",
        named: &[
            ("runtime.chansend", &[At(0)]),
            ("runtime.chanrecv", &[At(0)]),
            ("runtime.selectgo", &[At(0)]),
            ("runtime.semacquire1", &[At(0)]),
        ],
        word: true,
        ..RECIPE
    },
    // All three lists of profiling records: which is which, the records say.
    Recipe { name: "runtime.mbuckets", named: BUCKETS, several: true, ..RECIPE },
    Recipe { name: "runtime.bbuckets", named: BUCKETS, several: true, ..RECIPE },
    Recipe { name: "runtime.xbuckets", named: BUCKETS, several: true, ..RECIPE },
];

const BUCKETS: &[(&str, &[Part])] = &[("runtime.stkbucket", &[At(0)])];

/// Why it is not known where a variable is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotNamed {
    /// Nobody has found out which code names it.
    #[error("nothing is known that names it")]
    NoRecipe,
    /// The program has no such function.
    #[error("the program has no {0}, whose code would name it")]
    NoFunction(&'static str),
    /// The struct is not known.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// No place fits.
    #[error("the code that should name it does not")]
    Nowhere,
    /// More than one place fits.
    #[error("{0} places fit what the code names")]
    Ambiguous(usize),
}

/// The link-time places at which the variable called `name` can be: one, unless what lies there has to decide.
pub fn places(name: &str, binary: &GoBinary, source: &dyn Source, structs: &Structs) -> Result<Vec<u64>, NotNamed> {
    let mut found = Err(NotNamed::NoRecipe);
    for recipe in RECIPES.iter().filter(|recipe| recipe.name == name) {
        found = by(recipe, binary, source, structs);
        if found.is_ok() {
            break;
        }
    }
    found
}

/// The places that one recipe leaves.
fn by(recipe: &Recipe, binary: &GoBinary, source: &dyn Source, structs: &Structs) -> Result<Vec<u64>, NotNamed> {
    let mut left: Option<BTreeSet<u64>> = None;
    for (name, parts) in recipe.named {
        let function = binary.function(name).ok_or(NotNamed::NoFunction(name))?;
        let code = binary.code(source, &function).map_err(|_| NotNamed::NoFunction(name))?;
        let named = match left {
            None if recipe.word => references::words(&code, function.entry, binary.arch),
            _ => references::addresses(&code, function.entry, binary.arch),
        };
        for part in *parts {
            let offset = match part {
                At(offset) => *offset,
                Field(field) => match layout::offset(structs, WANTED, recipe.structure, field) {
                    Ok(offset) => u64::from(offset),
                    // This version has no such field; the others have to do.
                    Err(LayoutError::NoField { .. }) => continue,
                    Err(error) => return Err(error.into()),
                },
            };
            let starts: BTreeSet<u64> = named.iter().map(|address| address.wrapping_sub(offset)).collect();
            left = Some(left.map_or_else(|| starts.clone(), |left| &left & &starts));
        }
    }
    let variable = |address: &u64| {
        address.is_multiple_of(recipe.alignment) && binary.elf.segment(*address).is_some_and(|segment| segment.write)
    };
    let found: Vec<u64> = left.unwrap_or_default().into_iter().filter(variable).collect();
    match found[..] {
        [] => Err(NotNamed::Nowhere),
        [_, _, ..] if !recipe.several => Err(NotNamed::Ambiguous(found.len())),
        _ => Ok(found),
    }
}
