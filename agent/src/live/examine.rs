//! What is this pid? The answer of `ps` and of the node agent.

use std::sync::Arc;

use super::{Binaries, Executable, Refused};
use crate::discover::describe::Description;
use crate::discover::process::{OpenError, Process};
use crate::golang::binary::GoBinary;
use crate::golang::buildinfo::BuildInfo;

/// What a process turned out to be.
#[derive(Debug)]
pub enum Examined {
    /// No Go program, or gone already.
    Other,
    /// It may not be looked at.
    Denied,
    /// A Go program.
    Go(Box<Found>),
}

/// A Go program.
#[derive(Debug)]
pub struct Found {
    /// The process, open.
    pub process: Arc<Process>,
    /// User, command line and control groups.
    pub described: Description,
    /// Its executable, or why that is not understood.
    pub binary: Result<Arc<GoBinary>, Arc<Refused>>,
}

impl Found {
    /// What the executable says of how it was built.
    pub fn build(&self) -> Option<&BuildInfo> {
        match &self.binary {
            Ok(binary) => Some(&binary.build),
            Err(refused) => refused.build.as_ref(),
        }
    }

    /// For example `go1.27.3`.
    pub fn go_version(&self) -> Option<String> {
        match &self.binary {
            Ok(binary) => Some(binary.version.to_string()),
            Err(refused) => refused.build.as_ref().map(|build| build.go_version.clone()),
        }
    }

    /// Whether it has no symbol table.
    pub fn stripped(&self) -> Option<bool> {
        self.binary.as_ref().ok().map(|binary| binary.stripped)
    }
}

/// Looks at a process and its executable, which may take as long as its file system does.
pub fn examine(pid: u32, binaries: &Binaries) -> Examined {
    let process = match Process::open(pid) {
        Ok(process) => process,
        Err(OpenError::Denied(_)) => return Examined::Denied,
        // Kernel threads, zombies, and those that have gone meanwhile.
        Err(_) => return Examined::Other,
    };
    let binary = match binaries.of(&process) {
        None | Some(Executable::Other) => return Examined::Other,
        Some(Executable::Go(binary)) => Ok(binary),
        Some(Executable::Refused(refused)) => Err(refused),
    };
    let Some(described) = Description::of(&process) else { return Examined::Other };
    Examined::Go(Box::new(Found { process: Arc::new(process), described, binary }))
}
