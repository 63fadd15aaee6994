//! parkwarden sees goroutines from outside the process: it attaches uprobes to the Go runtime of a running program,
//! reads the goroutines' state from its memory, and names the `go` statements whose goroutines stay parked too long.
//!
//! ARCHITECTURE.md follows one command through these modules.

#[cfg(feature = "agent")]
pub mod agent;
pub mod capture;
pub mod cause;
pub mod clock;
pub mod config;
pub mod detect;
pub mod discover;
pub mod doctor;
pub mod exit;
pub mod export;
pub mod files;
pub mod golang;
pub mod governor;
#[cfg(feature = "agent")]
pub mod kube;
pub mod live;
pub mod memory;
#[cfg(feature = "agent")]
pub mod node;
pub mod probe;
pub mod prove;
pub mod ps;
pub mod reach;
pub mod record;
pub mod registry;
pub mod report;
pub mod runtime;
pub mod session;
pub mod snapshot;
pub mod symbolize;
pub mod timeline;
#[cfg(feature = "agent")]
pub mod top;
pub mod watch;
pub mod why;
pub mod words;

#[cfg(test)]
mod word_tests;
