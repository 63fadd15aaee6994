//! Processes of this host: opening one so that it stays the one that was meant.

pub mod container;
pub mod process;
