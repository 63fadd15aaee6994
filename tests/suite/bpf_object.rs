//! The embedded BPF object is the one its sources make.

#[test]
fn the_committed_object_came_from_these_sources() {
    xtask::bpf::check().unwrap_or_else(|error| panic!("{error:#}"));
}
