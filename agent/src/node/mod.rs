//! The node agent: every Go process of this host found, watched and told of, for months.
//!
//! Each process is watched by a thread of its own; what goes wrong with one stays there.

mod examine;
mod history;
mod leaks;
pub mod select;
mod state;
pub mod supervisor;
mod task;
pub mod totals;

pub use history::Point;
pub use state::{Node, NodeProcess, ProcessKey, WatchState};
