//! Why a watch could not be done.

use super::sink::SaveError;
use crate::golang::sites::PlanError;
use crate::live::TargetError;
use crate::probe::{AttachError, LoadError};

/// See the module. Each message says what to do where something can be done.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// The process cannot be looked at.
    #[error(transparent)]
    Target(#[from] TargetError),
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
    /// Somebody has killed the process that held the probes.
    #[error(
        "the probes of pid {pid} are gone: somebody killed the process `probe-keeper` that held them; watch it again"
    )]
    ProbesLost {
        /// Target.
        pid: u32,
    },
    /// The kernel's counters cannot be read.
    #[error("the probes' counters cannot be read")]
    Counters(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The session cannot be saved.
    #[error(transparent)]
    Save(#[from] SaveError),
    /// The command cannot be started.
    #[error("{program} cannot be started")]
    Launch {
        /// Its name.
        program: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The host gave no timer or signal handler.
    #[error("cannot set up the watch")]
    Runtime(#[source] std::io::Error),
}

impl WatchError {
    /// One word of a fixed set, for counting.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Target(error) => error.word(),
            Self::Plan { .. } => "no_probe_site",
            Self::Load(_) | Self::Attach { .. } | Self::ProbesLost { .. } | Self::Counters(_) => "kernel",
            Self::Save(_) | Self::Launch { .. } | Self::Runtime(_) => "internal",
        }
    }

    /// Whether the kernel refused something for which a security module can be why.
    pub fn is_denied(&self) -> bool {
        match self {
            Self::Target(error) => error.is_denied(),
            Self::Load(_) | Self::Attach { .. } => true,
            _ => false,
        }
    }

    /// Whether it is the target that cannot be watched, rather than parkwarden that failed.
    pub fn is_about_the_target(&self) -> bool {
        match self {
            Self::Load(LoadError::Refused(_) | LoadError::Verifier { .. } | LoadError::Mode { .. }) => true,
            Self::Target(_) | Self::Plan { .. } | Self::Attach { .. } => true,
            Self::Load(LoadError::Incomplete(_))
            | Self::ProbesLost { .. }
            | Self::Counters(_)
            | Self::Save(_)
            | Self::Launch { .. }
            | Self::Runtime(_) => false,
        }
    }
}
