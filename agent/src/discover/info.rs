//! What is said of a target wherever it is reported.

use serde::{Deserialize, Serialize};

use crate::golang::Arch;
use crate::golang::binary::SymbolSource;
use crate::golang::layout::LayoutSource;

/// The watched program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct TargetInfo {
    /// Process id in parkwarden's PID namespace.
    pub pid: u32,
    /// Path of the executable as the kernel names it.
    pub exe: String,
    /// For example `go1.27.3`.
    pub go_version: String,
    /// Instruction set.
    pub arch: Arch,
    /// Path of the module that contains the main package, where the build says.
    #[serde(default)]
    pub module: Option<String>,
    /// Without a symbol table.
    pub stripped: bool,
    /// Position-independent.
    pub pie: bool,
    /// Where field offsets came from.
    pub layout_source: LayoutSource,
    /// Where addresses came from.
    pub symbol_source: SymbolSource,
}
