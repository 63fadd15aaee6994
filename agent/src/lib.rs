//! parkwarden sees goroutines from outside the process: it attaches uprobes to the Go runtime of a running program,
//! reads the goroutines' state from its memory, and names the `go` statements whose goroutines stay parked too long.
//!
//! ARCHITECTURE.md follows one command through these modules.

pub mod golang;
pub mod memory;
pub mod symbolize;
