//! What xtask's commands and the integration tests share.

pub mod bpf;
pub mod command;
pub mod layouts;
pub mod packages;
pub mod toolchain;

use std::path::PathBuf;

/// The root of the source tree.
pub fn root() -> PathBuf {
    let mut root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    root.pop();
    root
}

/// Where Go toolchains, the BPF linker, packages that tests use and Go's build cache are kept: `$PARKWARDEN_CACHE`, else the user's cache
/// directory.
///
/// # Errors
///
/// When none of the environment variables that could name it is set.
pub fn cache_dir() -> anyhow::Result<PathBuf> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    variable("PARKWARDEN_CACHE")
        .or_else(|| variable("XDG_CACHE_HOME").map(|dir| dir.join("parkwarden")))
        .or_else(|| variable("HOME").map(|dir| dir.join(".cache/parkwarden")))
        .ok_or_else(|| anyhow::anyhow!("no place for downloads: set PARKWARDEN_CACHE or HOME"))
}
