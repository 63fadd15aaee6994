//! Integration tests, one module a subject, in one binary.

mod architecture;
mod bpf_object;
mod contributing;
mod deploy;
mod fixtures;
mod golang;
mod golden;
mod helm;
mod labels;
mod layouts;
mod live;
mod mem;
mod page;
mod profiles;
mod ps;
mod sched;
mod schemas;
mod snapshot;
mod timeline;
mod variables;
mod waits;
