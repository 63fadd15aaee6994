//! Where `runtime.allgs` is in a process: where a symbol says, else where the code of `runtime.allgadd` says, else where
//! a search of the variables finds it. Of other variables, the code of functions that name them says where they are
//! ([`golang::variables`](crate::golang::variables)); where that leaves several places, what lies there decides.

use std::ops::Range;

use crate::discover::process::Process;
use crate::golang::binary::GoBinary;
use crate::golang::layout::{self, Structs};
use crate::golang::variables::{self, NotNamed};
use crate::golang::{proof_layout, references};
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

/// Why it is not known where a variable is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it has no symbols, and where {name} is was not found: {reason}")]
pub struct NoVariable {
    name: String,
    reason: NotNamed,
}

/// What lies at a variable.
type Holds = fn(&dyn Memory, &Structs, u64) -> Option<bool>;

/// Variables of which more than one place is left when code has named it.
const CONTENTS: &[(&str, Holds)] =
    &[("runtime.allm", is_thread_list), ("runtime.mheap_", is_heap), ("runtime.allp", is_processor_list)];

/// Where the variable called `name` is in a process whose binary has no symbols.
pub(super) fn find(
    name: &str,
    process: &Process,
    binary: &GoBinary,
    structs: &Structs,
    slide: u64,
    memory: &dyn Memory,
) -> Result<u64, NoVariable> {
    let unknown = |reason| NoVariable { name: name.to_owned(), reason };
    if name == "runtime.firstmoduledata" {
        return Ok(binary.moduledata.ok_or_else(|| unknown(NotNamed::Nowhere))?.wrapping_add(slide));
    }
    let places = variables::places(name, binary, process.exe(), structs).map_err(unknown)?;
    let holds = CONTENTS.iter().find(|(known, _)| *known == name).map(|(_, holds)| holds);
    let places = places.into_iter().map(|place| place.wrapping_add(slide));
    let found: Vec<u64> =
        places.filter(|place| holds.is_none_or(|holds| holds(memory, structs, *place) == Some(true))).collect();
    match found[..] {
        [place] => Ok(place),
        [] => Err(unknown(NotNamed::Nowhere)),
        _ => Err(unknown(NotNamed::Ambiguous(found.len()))),
    }
}

/// The places at which one of the lists of profiling records can be, that of `name` among them.
pub(super) fn several(
    name: &str,
    process: &Process,
    binary: &GoBinary,
    structs: &Structs,
    slide: u64,
) -> Result<Vec<u64>, NoVariable> {
    let places = variables::places(name, binary, process.exe(), structs);
    let places = places.map_err(|reason| NoVariable { name: name.to_owned(), reason })?;
    Ok(places.into_iter().map(|place| place.wrapping_add(slide)).collect())
}

/// Whether `at` holds the list of Ps, each of which knows its index.
fn is_processor_list(memory: &dyn Memory, _: &Structs, at: u64) -> Option<bool> {
    let word = |address: u64| memory.read_u64(address).ok();
    let (list, len) = (word(at)?, word(at.wrapping_add(8))?);
    if list == 0 || len == 0 || len > MAX_PROCESSORS {
        return Some(false);
    }
    for index in 0..len.min(64) {
        // `p.id` is its first field in all versions.
        let processor = word(list.wrapping_add(index * 8))?;
        if word(processor)? as u32 != index as u32 {
            return Some(false);
        }
    }
    Some(true)
}

/// More than any machine has.
const MAX_PROCESSORS: u64 = 1 << 16;

/// Whether `at` holds the list of the runtime's threads (`m.alllink`), each of which is its `g0`'s.
fn is_thread_list(memory: &dyn Memory, structs: &Structs, at: u64) -> Option<bool> {
    let offset = |structure, field| layout::offset(structs, layout::WANTED, structure, field).ok().map(u64::from);
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
    let offset = |structure, field| layout::offset(structs, proof_layout::WANTED, structure, field).ok().map(u64::from);
    let array = offset("runtime.mheap", "allspans")?;
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
        let (Some(moduledata), Ok(offset)) =
            (binary.moduledata, layout::offset(&binary.structs, layout::WANTED, MODULEDATA, field))
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
