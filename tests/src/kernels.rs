//! What the last full run of `cargo xtask test --kernels` found, as it is kept in the documents: for what else is told there.

use std::fs;
use std::path::PathBuf;

use anyhow::Context as _;

/// Where it is kept.
pub fn document() -> PathBuf {
    xtask::root().join("docs/kernels.md")
}

const START: &str = "<!-- kernels -->\n";
const END: &str = "\n<!-- end of kernels -->";

/// What the page about what is supported says of kernels, anew.
///
/// # Errors
///
/// When it has no place for it.
pub fn with_line(page: &str, line: &str) -> anyhow::Result<String> {
    let (head, rest) = page.split_once(START).context("the page has no place for kernels")?;
    let (_, tail) = rest.split_once(END).context("the page has no end of the place for kernels")?;
    Ok(format!("{head}{START}{line}{END}{tail}"))
}

/// Whether a program built so with a version of Go was watched on every arm64 kernel, and the reports were right.
///
/// # Panics
///
/// When the document cannot be read.
pub fn runs_on_arm64(version: &str, flags: &str) -> bool {
    let document = fs::read_to_string(document()).expect("docs/kernels.md");
    let row = format!("| {flags} | {} |", minor(version));
    let found = document.lines().find_map(|line| line.strip_prefix(&row));
    found.is_some_and(|cells| cells.split('|').map(str::trim).filter(|cell| !cell.is_empty()).all(|cell| cell == "yes"))
}

/// A Go version without its patch release.
pub fn minor(version: &str) -> &str {
    version.rsplit_once('.').map_or(version, |(minor, _)| minor)
}
