//! The BPF object, and why the kernel does not take it. It is built by `cargo xtask ebpf` for each architecture, since programs
//! read registers by name, and committed, so that parkwarden builds with stable Rust alone.

use sha2::{Digest as _, Sha256};

use crate::config::Mode;

#[cfg(target_arch = "x86_64")]
pub(super) static OBJECT: &[u8] =
    aya::include_bytes_aligned!(concat!(env!("CARGO_MANIFEST_DIR"), "/bpf/parkwarden.bpf.x86_64.o"));

#[cfg(target_arch = "aarch64")]
pub(super) static OBJECT: &[u8] =
    aya::include_bytes_aligned!(concat!(env!("CARGO_MANIFEST_DIR"), "/bpf/parkwarden.bpf.aarch64.o"));

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
compile_error!("parkwarden has BPF programs for x86-64 and arm64 only");

/// The first digits of the object's SHA-256, as the file of digests beside it has them.
pub fn object_digest() -> String {
    Sha256::digest(OBJECT).iter().take(6).map(|byte| format!("{byte:02x}")).collect()
}

/// Why the BPF side could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The kernel refused the object or a program.
    #[error(
        "the kernel did not accept parkwarden's BPF programs; they need root, or CAP_BPF and CAP_PERFMON, and Linux \
         5.15 or later (`parkwarden doctor` tells what is missing)"
    )]
    Refused(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The kernel's verifier refused a program.
    #[error(
        "this kernel's verifier refuses parkwarden's program `{program}`{}; with -v there is all it says",
        last.as_ref().map(|last| format!(" ({last})")).unwrap_or_default()
    )]
    Verifier {
        /// Which.
        program: &'static str,
        /// With which words.
        last: Option<String>,
        /// The kernel's answer.
        #[source]
        source: std::io::Error,
    },
    /// The program of this mode was refused when the others were loaded.
    #[error("mode {mode} is not to be had here: {reason}")]
    Mode {
        /// Which.
        mode: Mode,
        /// Why.
        reason: String,
    },
    /// The object lacks a program or map: it was built from other sources.
    #[error("the embedded BPF object has no {0}: rebuild it with `cargo xtask ebpf`")]
    Incomplete(&'static str),
}

impl LoadError {
    pub(super) fn refused(error: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Refused(Box::new(error))
    }
}
