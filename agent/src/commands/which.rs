//! Which process a command is about.

use anyhow::Context as _;
use clap::Args;
use parkwarden::discover::describe;

/// The arguments that name one process: one of them, which each command says by a group with these names.
#[derive(Clone, Debug, Default, Args)]
#[group(skip)]
pub struct Which {
    /// The process, by its pid. Needs root, or CAP_SYS_PTRACE; `watch` with probes also CAP_BPF and CAP_PERFMON.
    #[arg(value_name = "PID")]
    process: Option<u32>,

    /// The same.
    #[arg(long, value_name = "PID")]
    pid: Option<u32>,

    /// The one process that runs this executable: its path, or the end of it.
    #[arg(long, value_name = "NAME")]
    exe: Option<String>,
}

/// The names of [`Which`]'s arguments.
pub const WHICH: [&str; 3] = ["process", "pid", "exe"];

impl Which {
    /// The process, if it was named by its pid.
    pub fn by_pid(&self) -> Option<u32> {
        self.process.or(self.pid)
    }

    /// The process.
    pub fn pid(&self) -> anyhow::Result<u32> {
        if let Some(pid) = self.by_pid() {
            return Ok(pid);
        }
        // clap sees to it that there is one of them.
        let name = self.exe.as_deref().unwrap_or_default();
        let found = describe::running(name).context("cannot list the processes of this host")?;
        match found[..] {
            [] => Err(WhichError::None { name: name.to_owned() }.into()),
            [pid] => Ok(pid),
            _ => Err(WhichError::Several { name: name.to_owned(), pids: found }.into()),
        }
    }
}

/// Why it is not known which process is meant.
#[derive(Debug, thiserror::Error)]
pub enum WhichError {
    /// None runs the executable.
    #[error("no process that may be looked at runs {name}: `parkwarden ps` lists the Go processes of this host")]
    None {
        /// What was asked for.
        name: String,
    },
    /// Several do.
    #[error("{} processes run {name}: choose one with --pid ({})", pids.len(), listed(pids))]
    Several {
        /// What was asked for.
        name: String,
        /// They.
        pids: Vec<u32>,
    },
}

/// Pids named in an error at most.
const MAX_NAMED: usize = 20;

fn listed(pids: &[u32]) -> String {
    let named: Vec<String> = pids.iter().take(MAX_NAMED).map(u32::to_string).collect();
    format!("{}{}", named.join(", "), if pids.len() > MAX_NAMED { ", …" } else { "" })
}
