//! The node agent: every Go process of this host found, watched and told of, for months.
//!
//! Each process is watched by a thread of its own; what goes wrong with one stays there.

pub mod config;
pub mod settings;
mod state;

pub use state::{Node, Process, ProcessKey, State};
