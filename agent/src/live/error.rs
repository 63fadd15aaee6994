//! Why a process cannot be looked at.

use crate::discover::process::OpenError;
use crate::golang::binary::Refusal;
use crate::memory::Fault;
use crate::memory::census::CensusError;

/// See the module. Each message says what to do where something can be done.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// The process cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The executable is not one that can be understood.
    #[error("pid {pid} ({exe}) cannot be watched: {source}")]
    Binary {
        /// Target.
        pid: u32,
        /// Its executable.
        exe: String,
        /// Why.
        source: Box<Refusal>,
    },
    /// The process does not look as its binary says.
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
    /// The process runs another program now.
    #[error("pid {pid} has executed another program; watch it again to see that one")]
    Replaced {
        /// Target.
        pid: u32,
    },
    /// The process ended while it was opened, attached to or watched.
    #[error("pid {pid} exited while it was being watched")]
    Exited {
        /// Target.
        pid: u32,
    },
}

impl TargetError {
    /// Whether it is a matter of permission.
    pub fn is_denied(&self) -> bool {
        self.word() == "denied"
    }

    /// One word of a fixed set, for counting.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Open(OpenError::Denied(_))
            | Self::Memory { source: Fault::Denied, .. }
            | Self::Census { source: CensusError::Fault(Fault::Denied), .. } => "denied",
            Self::Open(_) => "unopenable",
            Self::Binary { source, .. } => source.word(),
            Self::Layout { .. } => "layout",
            Self::Memory { .. } | Self::Census { .. } => "memory",
            Self::Replaced { .. } => "replaced",
            Self::Exited { .. } => "exited",
        }
    }
}
