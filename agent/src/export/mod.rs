//! What parkwarden saw, in formats that other tools read.

pub mod pprof;
