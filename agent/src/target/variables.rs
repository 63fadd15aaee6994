//! Where `runtime.allgs` is in a process: where a symbol says, else where the code of `runtime.allgadd` says, else where
//! a search of the variables finds it.

use std::ops::Range;

use crate::discover::process::Process;
use crate::golang::binary::GoBinary;
use crate::golang::{layout, references};
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
