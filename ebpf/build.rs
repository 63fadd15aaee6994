//! Sets `bpf_target_arch`, the architecture whose registers the programs read.

fn main() {
    aya_build::emit_bpf_target_arch_cfg().expect("the host's architecture, or AYA_BPF_TARGET_ARCH, is one aya knows");
}
