//! The function tables of plugins that a program has opened: modules of their own, which the runtime chains to the program's
//! (`moduledata.next`). They are read from memory, where their files may be gone from.
//!
//! Everything there is the target's word: sizes are bounded, and a module that makes no sense is left out, so that its functions are
//! unknown.

use std::sync::Arc;

use crate::golang::binary::{GoBinary, MAX_MODULEDATA};
use crate::golang::layout::{WANTED, offset};
use crate::golang::pclntab::PcLnTab;
use crate::memory::chain::Chain;
use crate::memory::{Fault, Memory, bytes_at, word_at};

/// Plugins of one program.
const MAX_PLUGINS: usize = 64;
/// Bytes of the tables of one of them, and of all.
const MAX_TABLE: u64 = 64 << 20;
const MAX_ALL: u64 = 128 << 20;

/// Read behind the start of the last function's data.
const FUNCDATA_TAIL: u64 = 64 << 10;
/// Read at once.
const PIECE: u64 = 4096;

/// Offsets in `runtime.moduledata`.
struct Offsets {
    size: usize,
    text: usize,
    gofunc: usize,
    /// The slice that ends where the table ends: its pointer, and its length.
    pclntable: (usize, usize),
    next: usize,
}

impl Offsets {
    fn of(binary: &GoBinary) -> Option<Self> {
        let at =
            |field| offset(&binary.structs, WANTED, "runtime.moduledata", field).ok().map(|offset| offset as usize);
        Some(Self {
            size: Some(binary.structs.get("runtime.moduledata")?.size as usize)
                .filter(|size| *size <= MAX_MODULEDATA)?,
            text: at("text")?,
            gofunc: at("gofunc")?,
            pclntable: (at("pclntable.array")?, at("pclntable.len")?),
            next: at("next")?,
        })
    }
}

/// The function tables of `binary`, loaded `slide` above its link-time addresses, with those of the plugins in `memory`.
pub(super) fn with(binary: &GoBinary, memory: &dyn Memory, slide: u64) -> Result<Arc<PcLnTab>, Fault> {
    let own = || Ok(Arc::clone(&binary.pclntab));
    let (Some(first), Some(offsets)) = (binary.moduledata, Offsets::of(binary)) else { return own() };
    let next = first.wrapping_add(slide).wrapping_add(offsets.next as u64);
    let mut next = match memory.read_u64(next) {
        Ok(0) | Err(Fault::Unmapped { .. }) => return own(),
        Ok(next) => next,
        Err(fatal) => return Err(fatal),
    };
    let (mut plugins, mut chain, mut left) = (Vec::new(), Chain::default(), MAX_ALL);
    while next != 0 && plugins.len() < MAX_PLUGINS && chain.goes_on(next) {
        let Some(module) = bytes_at(memory, next, offsets.size) else { break };
        plugins.extend(table(binary, &offsets, memory, &module, slide, &mut left));
        next = word_at(&module, offsets.next).unwrap_or(0);
    }
    let mut tables = PcLnTab::clone(&binary.pclntab);
    log::info!("{} plugins", plugins.len());
    tables.set_plugins(plugins);
    Ok(Arc::new(tables))
}

/// The tables of one plugin, of which `left` bytes may be read.
fn table(
    binary: &GoBinary,
    offsets: &Offsets,
    memory: &dyn Memory,
    module: &[u8],
    slide: u64,
    left: &mut u64,
) -> Option<PcLnTab> {
    let word = |at: usize| word_at(module, at);
    let mut read = |from: u64, to: u64| {
        let len = to.checked_sub(from).filter(|len| *len <= MAX_TABLE && *len <= *left)?;
        *left -= len;
        bytes_at(memory, from, len as usize).map(|bytes| bytes.into_owned())
    };
    let table = read(word(0)?, word(offsets.pclntable.0)?.checked_add(word(offsets.pclntable.1)?)?)?;
    let mut tables = PcLnTab::new(table, word(offsets.text)?.wrapping_sub(slide), &binary.version).ok()?;
    let wanted = u64::from(tables.last_funcdata()).saturating_add(FUNCDATA_TAIL).min(MAX_TABLE);
    let gofunc = word(offsets.gofunc)?;
    let mut funcdata = Vec::new();
    // What the last function has there ends somewhere in the tail, or with what is mapped.
    while (funcdata.len() as u64) < wanted {
        let from = gofunc.checked_add(funcdata.len() as u64)?;
        let Some(piece) = read(from, from.checked_add(PIECE)?) else { break };
        funcdata.extend(piece);
    }
    tables.set_funcdata(funcdata);
    Some(tables)
}
