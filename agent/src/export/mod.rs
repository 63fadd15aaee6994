//! What parkwarden saw, in formats and by protocols that other tools read.

pub mod goroutine_text;
#[cfg(feature = "agent")]
pub mod http;
#[cfg(feature = "agent")]
pub mod metrics;
pub mod pprof;
pub mod profile;
pub mod profiles;
