//! Looks at a target's runtime, one at each look at its goroutines: some tens of reads of its memory and a few files of `/proc` and
//! its control groups. Nothing is stopped or probed.

use crate::clock::now_ns;
use crate::discover::cgroup::{CpuGroup, MemoryGroup};
use crate::discover::usage::{ProcessNumbers, Stat};
use crate::golang::layout::Structs;
use crate::live::Target;
use crate::runtime::vitals::{Places, Vitals};
use crate::session::RuntimeTaken;

/// Looks at which its variables are searched for: a program that has just started may not have all of them yet.
const TRIES: u32 = 3;

/// See the module.
#[derive(Debug)]
pub struct RuntimeReader {
    known: Result<(Structs, Places), String>,
    tries: u32,
    memory_group: Option<MemoryGroup>,
    cpu_group: Option<CpuGroup>,
}

impl RuntimeReader {
    /// For a target; its variables are searched for at the first look.
    pub fn of(target: &Target) -> Self {
        Self {
            known: Err(String::new()),
            tries: 0,
            memory_group: MemoryGroup::of(target.process()),
            cpu_group: CpuGroup::of(target.process()),
        }
    }

    /// Looks; none at one that has ended, or is stopped by a signal: it would seem not to be preempted.
    pub fn look(&mut self, target: &Target) -> Option<RuntimeTaken> {
        if target.process().by_pid(Stat::of).is_some_and(|stat| stat.is_stopped) {
            return None;
        }
        if self.known.is_err() && self.tries < TRIES {
            self.tries += 1;
            let places = target.vital_places();
            self.known = places.map(|places| (target.runtime_structs(), places)).map_err(|error| error.to_string());
        }
        let vitals = match &self.known {
            Ok((structs, places)) => Vitals::read(target.memory(), structs, places, now_ns())
                .map(Box::new)
                .map_err(|error| error.to_string()),
            Err(reason) => Err(reason.clone()),
        };
        if target.process().has_exited() {
            return None;
        }
        let group = self.memory_group.as_ref();
        let (used, limit) = (group.and_then(MemoryGroup::used_bytes), group.and_then(MemoryGroup::limit_bytes));
        Some(RuntimeTaken {
            vitals,
            process: target.process().by_pid(ProcessNumbers::of),
            memory_group: used.zip(limit),
            throttled_ns: self.cpu_group.as_ref().and_then(CpuGroup::throttled_ns),
        })
    }
}
