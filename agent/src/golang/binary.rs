//! A parsed Go binary: everything the agent needs to know of it before it touches the process.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Arch;
use super::buildinfo::BuildInfo;
use super::elf::Elf;
use super::layout::{LayoutSource, RuntimeLayout};
use super::pclntab::PcLnTab;
use super::version::GoVersion;

/// Where the addresses of runtime functions and variables came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SymbolSource {
    /// The ELF symbol table.
    Symtab,
    /// Functions from the pclntab; variables found by their contents.
    Pclntab,
}

/// A Go binary, understood. Owns what it needs; the source of bytes can be closed.
#[derive(Clone, Debug)]
pub struct GoBinary {
    /// Toolchain version that built it.
    pub version: GoVersion,
    /// Modules and build settings.
    pub build: BuildInfo,
    /// Instruction set.
    pub arch: Arch,
    /// Position-independent: loaded at a slide.
    pub pie: bool,
    /// Without a symbol table.
    pub stripped: bool,
    /// The runtime's field offsets.
    pub layout: RuntimeLayout,
    /// Where they came from.
    pub layout_source: LayoutSource,
    /// Where addresses came from.
    pub symbol_source: SymbolSource,
    /// The runtime's wait reasons: the text for each number.
    pub wait_reasons: Vec<String>,
    /// Link-time address of the slice `runtime.allgs`, if a symbol says so.
    pub allgs: Option<u64>,
    /// Function table, lines, inlining.
    pub pclntab: Arc<PcLnTab>,
    /// Sections and segments.
    pub elf: Elf,
}
