//! Runtime addresses into frames: a program counter of a live or saved process becomes function, file and line, with
//! inlined calls expanded. Results are kept, because a census meets the same few thousand addresses again and again.
//!
//! Deliberately absent: C code and other modules of the process. Their addresses become a frame that says so.

mod symbols;

use std::collections::HashMap;
use std::sync::Arc;

pub use symbols::{Symbols, call_of};

use crate::golang::Frame;
use crate::golang::pclntab::PcLnTab;

/// Addresses remembered at once.
const CAPACITY: usize = 64 * 1024;

/// Turns the program counters of one process into frames.
#[derive(Clone, Debug)]
pub struct Symbolizer {
    pclntab: Arc<PcLnTab>,
    slide: u64,
    cache: HashMap<u64, Arc<[Frame]>>,
}

impl Symbolizer {
    /// For a process that runs the binary of `pclntab`, loaded `slide` bytes above its link-time addresses.
    pub fn new(pclntab: Arc<PcLnTab>, slide: u64) -> Self {
        Self { pclntab, slide, cache: HashMap::new() }
    }

    /// The calls that the runtime address `pc` stands in, innermost first; never empty. For a return address pass
    /// `pc - 1`.
    pub fn frames(&mut self, pc: u64) -> Arc<[Frame]> {
        if let Some(frames) = self.cache.get(&pc) {
            return Arc::clone(frames);
        }
        let mut frames = self.pclntab.frames(pc.wrapping_sub(self.slide));
        if frames.is_empty() {
            frames.push(Frame {
                function: format!("unknown (0x{pc:x})"),
                file: String::new(),
                line: 0,
                inlined: false,
            });
        }
        let frames: Arc<[Frame]> = frames.into();
        if self.cache.len() >= CAPACITY {
            // A hostile target can show any number of addresses; a real one never gets here.
            self.cache.clear();
        }
        self.cache.insert(pc, Arc::clone(&frames));
        frames
    }

    /// Name of the function that contains the runtime address `pc`, without what is inlined there.
    pub fn function(&self, pc: u64) -> Option<&str> {
        self.pclntab.func(pc.wrapping_sub(self.slide)).map(|func| func.name)
    }

    /// The tables this works from.
    pub fn pclntab(&self) -> &Arc<PcLnTab> {
        &self.pclntab
    }
}
