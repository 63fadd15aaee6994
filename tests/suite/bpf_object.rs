//! The embedded BPF objects, one an architecture, are those that their sources make.

#[test]
fn the_committed_objects_came_from_these_sources() {
    xtask::bpf::check().unwrap_or_else(|error| panic!("{error:#}"));
}
