//! `cargo xtask`: set-up, demo, tests and the build of the BPF object.

fn main() {}
