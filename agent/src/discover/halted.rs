//! What keeps a process from running at all: whatever is seen of one then looks as if nobody were let on.

use serde::{Deserialize, Serialize};

use super::cgroup::FreezerGroup;
use super::process::Process;
use super::usage::Stat;

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Halted {
    /// A signal (SIGSTOP, SIGTSTP) or a tracer.
    Stopped,
    /// Its control group is frozen.
    Frozen,
}

/// Looks for it.
#[derive(Debug)]
pub struct Halts {
    group: Option<FreezerGroup>,
}

impl Halts {
    /// For a process.
    pub fn of(process: &Process) -> Self {
        Self { group: FreezerGroup::of(process) }
    }

    /// Whether the process is halted now, and by what.
    pub fn now(&self, process: &Process) -> Option<Halted> {
        if process.by_pid(Stat::of).is_some_and(|stat| stat.is_stopped) {
            return Some(Halted::Stopped);
        }
        self.group.as_ref().filter(|group| group.is_frozen()).map(|_| Halted::Frozen)
    }
}
