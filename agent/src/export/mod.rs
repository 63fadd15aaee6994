//! What parkwarden saw, in formats and by protocols that other tools read.

pub mod goroutine_text;
pub mod http;
pub mod metrics;
pub mod pprof;
