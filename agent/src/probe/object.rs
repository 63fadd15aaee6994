//! The BPF object: built by `cargo xtask ebpf` for each architecture, since programs read registers by name, and
//! committed, so that parkwarden builds with stable Rust alone.

#[cfg(target_arch = "x86_64")]
pub(super) static OBJECT: &[u8] =
    aya::include_bytes_aligned!(concat!(env!("CARGO_MANIFEST_DIR"), "/bpf/parkwarden.bpf.x86_64.o"));

#[cfg(target_arch = "aarch64")]
pub(super) static OBJECT: &[u8] =
    aya::include_bytes_aligned!(concat!(env!("CARGO_MANIFEST_DIR"), "/bpf/parkwarden.bpf.aarch64.o"));

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
compile_error!("parkwarden has BPF programs for x86-64 and arm64 only");
