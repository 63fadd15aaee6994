//! What xtask's commands and the integration tests share.

pub mod apt;
pub mod bpf;
pub mod cluster;
pub mod command;
pub mod dist;
pub mod kernels;
pub mod packages;
pub mod release;
pub mod toolchain;

use std::path::PathBuf;

/// The root of the source tree.
pub fn root() -> PathBuf {
    let mut root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    root.pop();
    root
}

/// Where cargo, and everything else that is built from this tree, puts what it builds.
pub fn target_dir() -> PathBuf {
    // Cargo means a relative path to be of the directory it was called in; all our commands call it in the root.
    root().join(std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from))
}

/// Where Go toolchains, the BPF linker, packages that tests use and Go's build cache are kept: `$PARKWARDEN_CACHE`, else
/// the user's cache directory.
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
