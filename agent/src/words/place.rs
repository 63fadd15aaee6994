//! A place in source code, as people are shown it.

use serde::{Deserialize, Serialize};

use super::{printable, short};
use crate::golang::Frame;
use crate::golang::names::{is_of_module, is_standard};
use crate::symbolize::Symbols;

/// A place in source code.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Place {
    /// Full function name.
    pub function: String,
    /// Source file.
    pub file: String,
    /// Line, 0 when unknown.
    pub line: u32,
}

impl Place {
    /// Where a frame stands.
    pub(crate) fn of(frame: &Frame) -> Self {
        Self { function: frame.function.clone(), file: frame.file.clone(), line: frame.line }
    }

    /// The `go` statement whose call to `runtime.newproc` returns to `creation_pc`; none for goroutines that no `go`
    /// statement made (the main goroutine, for one).
    pub(crate) fn of_creation(symbols: &Symbols, creation_pc: u64) -> Option<Self> {
        if creation_pc == 0 {
            return None;
        }
        let place = symbols.return_address(creation_pc).first().map(Self::of);
        // So the runtime makes the main goroutine (rt0_go).
        place.filter(|place| place.function != "runtime.newproc")
    }

    /// Where a stack blocks: its first frame outside the machinery of waiting.
    pub(crate) fn of_blocking(stack: &[Frame]) -> Option<Self> {
        stack.iter().find(|frame| !frame.is_plumbing()).map(Self::of)
    }

    /// Where a stack is in the program's own code: its innermost frame of the main module, else outside the standard library.
    pub(crate) fn of_program(stack: &[Frame], module: Option<&str>) -> Option<Self> {
        let own = stack.iter().find(|frame| is_of_module(&frame.function, module));
        own.or_else(|| stack.iter().find(|frame| !is_standard(&frame.function))).map(Self::of)
    }
}

impl Place {
    /// Without the paths of package and file.
    pub(crate) fn short(&self) -> String {
        let text = format!("{} {}:{}", short::function(&self.function), short::file(&self.file), self.line);
        printable(&text)
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}:{}", printable(&self.function), printable(&self.file), self.line)
    }
}
