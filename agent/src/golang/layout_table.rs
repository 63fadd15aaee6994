//! What a table of layouts is to a binary that carries none: so much that [`super::binary`] knows none in particular.

use super::Arch;
use super::layout::Structs;
use super::version::GoVersion;

/// Where a layout can come from when the binary has no debug information.
pub trait LayoutTable {
    /// The structs of package runtime of `version` on `arch`, or why they are not known.
    fn structs(&self, version: &GoVersion, arch: Arch) -> Result<Structs, String>;

    /// The text for each number of `g.waitreason` in `version`.
    fn wait_reasons(&self, version: &GoVersion) -> Option<Vec<String>>;
}

/// Knows no layouts: binaries need debug information.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoTable;

impl LayoutTable for NoTable {
    fn structs(&self, _: &GoVersion, _: Arch) -> Result<Structs, String> {
        Err("no table of layouts describes it".into())
    }

    fn wait_reasons(&self, _: &GoVersion) -> Option<Vec<String>> {
        None
    }
}
