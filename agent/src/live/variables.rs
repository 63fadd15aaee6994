//! Where `runtime.allgs` is in a process: where a symbol says, else where the code of `runtime.allgadd` says, else where
//! a search of the variables finds it. Of other variables, the code of functions that name them says where they are: of
//! two functions that have little else in common, or what is found there decides.

use std::collections::BTreeSet;
use std::ops::Range;

use crate::discover::process::Process;
use crate::golang::binary::GoBinary;
use crate::golang::layout::{self, Structs};
use crate::golang::references;
use crate::memory::globals::{NotFound, Search};
use crate::memory::{Fault, Memory};

/// The address in the process, or why it is not known.
pub(super) fn allgs(process: &Process, binary: &GoBinary, slide: u64, memory: &dyn Memory) -> Result<u64, NotFound> {
    if let Some(address) = binary.allgs {
        return Ok(address.wrapping_add(slide));
    }
    let main = binary.function("runtime.main").ok_or(NotFound::Nowhere)?.entry.wrapping_add(slide);
    let search = Search::new(memory, binary.layout.g, main);
    let code = binary.function("runtime.allgadd").and_then(|allgadd| {
        let code = binary.code(process.exe(), &allgadd).ok()?;
        Some(references::addresses(&code, allgadd.entry.wrapping_add(slide), binary.arch))
    });
    match code.map(|addresses| search.among(&addresses)) {
        Some(Ok(address)) => {
            log::debug!("runtime.allgs is at {address:#x}, as the code of runtime.allgadd says");
            Ok(address)
        }
        Some(Err(error @ NotFound::Fault(_))) => Err(error),
        _ => {
            let address = search.within(&searched(binary, slide, memory)?)?;
            log::debug!("runtime.allgs is at {address:#x}, found by what it holds");
            Ok(address)
        }
    }
}

/// How a variable is told from others that the same functions name.
struct Recipe {
    name: &'static str,
    /// All of them name it.
    functions: &'static [&'static str],
    /// Whether the first of them reads or writes it as a word, rather than takes its address or that of a part.
    word: bool,
    holds: fn(&dyn Memory, &Structs, u64) -> Option<bool>,
}

/// Verified against the symbols of programs of every tested version.
const RECIPES: [Recipe; 5] = [
    Recipe { name: "runtime.allm", functions: &["runtime.mcommoninit"], word: true, holds: is_thread_list },
    Recipe { name: "runtime.mheap_", functions: &["runtime.mallocinit"], word: false, holds: is_heap },
    Recipe {
        name: "runtime.semtable",
        functions: &["runtime.semacquire1", "runtime.semrelease1"],
        word: false,
        holds: |_, _, _| Some(true),
    },
    Recipe {
        name: "runtime.allfin",
        functions: &["runtime.queuefinalizer", "runtime.markroot"],
        word: true,
        holds: |_, _, _| Some(true),
    },
    Recipe {
        name: "runtime.gcCleanups",
        // runtime.runCleanups is in programs with cleanups alone.
        functions: &["runtime.freeSpecial", "runtime.findRunnable"],
        word: false,
        holds: |_, _, _| Some(true),
    },
];

/// Where the variable called `name` is in a process whose binary has no symbols; `None` when that is not certain.
pub(super) fn find(name: &str, process: &Process, binary: &GoBinary, slide: u64, memory: &dyn Memory) -> Option<u64> {
    if name == "runtime.firstmoduledata" {
        return Some(binary.moduledata?.wrapping_add(slide));
    }
    let recipe = RECIPES.iter().find(|recipe| recipe.name == name)?;
    let mut common: Option<BTreeSet<u64>> = None;
    for function in recipe.functions {
        let function = binary.function(function)?;
        let code = binary.code(process.exe(), &function).ok()?;
        let entry = function.entry.wrapping_add(slide);
        let named = match common {
            None if recipe.word => references::words(&code, entry, binary.arch),
            _ => references::addresses(&code, entry, binary.arch),
        };
        common = Some(common.map_or_else(|| named.clone(), |common| &common & &named));
    }
    let variable = |address: &u64| {
        let link_time = address.wrapping_sub(slide);
        binary.elf.segment(link_time).is_some_and(|segment| segment.write) && address.is_multiple_of(8)
    };
    let mut found =
        common?.into_iter().filter(variable).filter(|at| (recipe.holds)(memory, &binary.structs, *at) == Some(true));
    let only = found.next();
    only.filter(|_| found.next().is_none())
}

/// Whether `at` holds the list of the runtime's threads (`m.alllink`), each of which is its `g0`'s.
fn is_thread_list(memory: &dyn Memory, structs: &Structs, at: u64) -> Option<bool> {
    let offset = |structure, field| layout::offset(structs, structure, field).ok().map(u64::from);
    let (g0, link, back) = (offset("runtime.m", "g0")?, offset("runtime.m", "alllink")?, offset("runtime.g", "m")?);
    let word = |address: u64| memory.read_u64(address).ok();
    let mut thread = word(at)?;
    // The first ones tell; a program has at most ten thousand.
    for index in 0..4 {
        if thread == 0 {
            return Some(index > 0);
        }
        let scheduler = word(thread.wrapping_add(g0))?;
        if word(scheduler.wrapping_add(back))? != thread {
            return Some(false);
        }
        thread = word(thread.wrapping_add(link))?;
    }
    Some(true)
}

/// Whether the heap is at `at`: its list of spans begins with spans.
fn is_heap(memory: &dyn Memory, structs: &Structs, at: u64) -> Option<bool> {
    /// `runtime.pageSize`
    const PAGE: u64 = 8192;
    let offset = |structure, field| layout::offset(structs, structure, field).ok().map(u64::from);
    let array = offset("runtime.mheap", "allspans.array").or_else(|| offset("runtime.mheap", "allspans"))?;
    let (start, pages) = (offset("runtime.mspan", "startAddr")?, offset("runtime.mspan", "npages")?);
    let word = |address: u64| memory.read_u64(address).ok();
    let list = word(at.wrapping_add(array))?;
    let len = word(at.wrapping_add(array).wrapping_add(8))?;
    if list == 0 || len == 0 {
        return Some(false);
    }
    for index in 0..len.min(8) {
        let span = word(list.wrapping_add(index * 8))?;
        let (start, pages) = (word(span.wrapping_add(start))?, word(span.wrapping_add(pages))?);
        // A span that is not in use has neither.
        if start % PAGE != 0 || pages > 1 << 35 {
            return Some(false);
        }
    }
    Some(true)
}

/// Where the variables with pointers are: what moduledata says, if it lies in writable segments, else all of those.
fn searched(binary: &GoBinary, slide: u64, memory: &dyn Memory) -> Result<Vec<Range<u64>>, Fault> {
    let writable: Vec<Range<u64>> = binary
        .elf
        .segments
        .iter()
        .filter(|segment| segment.write)
        .map(|segment| {
            let start = segment.vaddr.wrapping_add(slide);
            start..start.saturating_add(segment.memsz)
        })
        .collect();
    let word = |field| -> Result<Option<u64>, Fault> {
        let (Some(moduledata), Ok(offset)) = (binary.moduledata, layout::offset(&binary.structs, MODULEDATA, field))
        else {
            return Ok(None);
        };
        match memory.read_u64(moduledata.wrapping_add(slide).wrapping_add(u64::from(offset))) {
            Ok(word) => Ok(Some(word)),
            Err(Fault::Unmapped { .. }) => Ok(None),
            Err(other) => Err(other),
        }
    };
    let mut parts = Vec::new();
    for (start, end) in [("data", "edata"), ("bss", "ebss")] {
        if let (Some(start), Some(end)) = (word(start)?, word(end)?) {
            parts.push(start..end);
        }
    }
    let inside = |part: &Range<u64>| {
        part.start <= part.end && writable.iter().any(|whole| whole.start <= part.start && part.end <= whole.end)
    };
    Ok(if parts.len() == 2 && parts.iter().all(inside) { parts } else { writable })
}

const MODULEDATA: &str = "runtime.moduledata";
