//! What the Go runtime knows of itself, read from the memory of a live process: its scheduler, its memory and collector, its
//! timers and its profiles. What `GODEBUG=schedtrace`, `runtime.MemStats`, `runtime/metrics` and `/debug/pprof` tell where
//! somebody built that in, of any process at any moment.
//!
//! Each reader declares the fields it reads ([`READ`] has the lists together), reads them, and gives plain values. The
//! process is not stopped: values that belong together are read twice where they must agree, and what a moment can make
//! wrong is said with the value. Deliberately absent: opening a process (`live`), judging (`signs` has the rules), and trust:
//! every count that the process tells is capped before anything is read or allocated by it.

pub mod histogram;
pub mod mem;
pub mod mem_signs;
pub mod profiles;
pub mod sched;
pub mod sched_signs;
pub mod schedtrace;
pub mod signs;
pub mod timers;
mod view;
pub mod vitals;

use crate::golang::layout::{self, LayoutError, Wanted};
use crate::golang::variables;
use crate::memory::Fault;

pub use view::{View, word, words};

/// What all readers read of the runtime's structs.
pub const READ: &[&Wanted] = &[
    layout::WANTED,
    variables::WANTED,
    histogram::WANTED,
    sched::WANTED,
    mem::WANTED,
    timers::WANTED,
    profiles::WANTED,
];

/// Why something of the runtime cannot be told.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuntimeError {
    /// The struct or a field is not known.
    #[error("the runtime's layout lacks it: {0}")]
    Layout(#[from] LayoutError),
    /// A variable was not found.
    #[error("{0}")]
    Variable(String),
    /// Its memory cannot be read.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// What was read contradicts itself.
    #[error("{what} of the process is {found}, which no runtime has")]
    Absurd {
        /// For example `the number of Ps`.
        what: &'static str,
        /// What was read.
        found: u64,
    },
}
