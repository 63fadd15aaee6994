//! The node agent: every Go process of this host found, watched and told of, for months.
//!
//! Each process is watched by a thread of its own; what goes wrong with one stays there.

pub mod config;
mod examine;
mod run;
pub mod select;
pub mod settings;
mod state;
mod supervisor;
mod task;
pub mod totals;

pub use run::{NodeError, run};
pub use state::{Node, Process, ProcessKey, State};
