//! What the BPF programs and the agent must agree on byte for byte: the records of the ring buffer, the attach
//! cookie that configures a probe, the counters, and the maps of `filter` mode.
//!
//! Deliberately absent: anything that needs `std`, the Go runtime's field offsets (they travel in the cookie), and
//! the meaning of events (that is the agent's `registry`).
#![no_std]
#![forbid(unsafe_code)]

pub mod cookie;
pub mod counters;
pub mod filter;
pub mod lifecycle;
pub mod record;
