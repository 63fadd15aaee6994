//! How integration tests get their targets: Go programs built with a given toolchain in a given way ([`fixture()`]), run
//! as processes that say what state they are in ([`target`]).
//!
//! Functions of this crate panic with a message when they fail, as tests do. Nothing here skips: a toolchain that is
//! missing is installed, and what cannot be installed fails the test.

pub mod agent;
pub mod browser;
pub mod containers;
pub mod control_group;
pub mod copied;
pub mod corpus;
pub mod fixture;
pub mod http;
pub mod incident;
pub mod kernels;
pub mod layouts;
pub mod leaks;
pub mod manifests;
pub mod node;
pub mod pprof;
pub mod promql;
pub mod target;
pub mod terminal;
pub mod turn;
pub mod wait;

pub use fixture::{BuildFlags, fixture};
pub use target::Target;

/// Ports that nobody listens on.
///
/// # Panics
///
/// When there are none.
pub fn free_ports<const N: usize>() -> [u16; N] {
    let listeners: [std::net::TcpListener; N] =
        std::array::from_fn(|_| std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a port is free"));
    listeners.map(|listener| listener.local_addr().expect("it is bound").port())
}
