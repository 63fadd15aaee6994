//! Why a watch could not be done.

use super::sink::SaveError;
use crate::discover::process::OpenError;
use crate::golang::binary::Refusal;
use crate::golang::sites::PlanError;
use crate::memory::Fault;
use crate::memory::census::CensusError;
use crate::probe::{AttachError, LoadError};

/// See the module. Each message says what to do where something can be done.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// The process cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The executable is not one that can be watched.
    #[error("pid {pid} ({exe}) cannot be watched: {source}")]
    Binary {
        /// Target.
        pid: u32,
        /// Its executable.
        exe: String,
        /// Why.
        source: Refusal,
    },
    /// No certain probe sites.
    #[error(
        "pid {pid} ({exe}) cannot be watched: {source}; parkwarden attaches nowhere it is not certain. Please report \
         the Go version and build flags"
    )]
    Plan {
        /// Target.
        pid: u32,
        /// Its executable.
        exe: String,
        /// Why.
        source: PlanError,
    },
    /// The list of goroutines is not where the binary says.
    #[error("pid {pid} cannot be watched: {reason}")]
    Layout {
        /// Target.
        pid: u32,
        /// What contradicts.
        reason: String,
    },
    /// The process's memory cannot be read.
    #[error("pid {pid} cannot be watched: {source}")]
    Memory {
        /// Target.
        pid: u32,
        /// Why.
        source: Fault,
    },
    /// The goroutines cannot be read.
    #[error("the goroutines of pid {pid} cannot be read: {source}")]
    Census {
        /// Target.
        pid: u32,
        /// Why.
        source: CensusError,
    },
    /// The BPF programs cannot be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The probes cannot be attached.
    #[error("pid {pid} cannot be watched")]
    Attach {
        /// Target.
        pid: u32,
        /// Why.
        source: AttachError,
    },
    /// The target ended while it was attached to or watched.
    #[error("pid {pid} exited while it was being watched")]
    Exited {
        /// Target.
        pid: u32,
    },
    /// The kernel's counters cannot be read.
    #[error("the probes' counters cannot be read")]
    Counters(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The session cannot be saved.
    #[error(transparent)]
    Save(#[from] SaveError),
    /// The host gave no timer or signal handler.
    #[error("cannot set up the watch")]
    Runtime(#[source] std::io::Error),
}

impl WatchError {
    /// Whether it is the target that cannot be watched, rather than parkwarden that failed.
    pub fn is_about_the_target(&self) -> bool {
        match self {
            Self::Open(_)
            | Self::Binary { .. }
            | Self::Plan { .. }
            | Self::Layout { .. }
            | Self::Memory { .. }
            | Self::Census { .. }
            | Self::Attach { .. }
            | Self::Load(LoadError::Refused(_))
            | Self::Exited { .. } => true,
            Self::Load(LoadError::Incomplete(_)) | Self::Counters(_) | Self::Save(_) | Self::Runtime(_) => false,
        }
    }
}
