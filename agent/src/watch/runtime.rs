//! Looks at a target's runtime, one at each look at its goroutines: some tens of reads of its memory and a few files of `/proc` and
//! its control groups. Nothing is stopped or probed.

use crate::clock::now_ns;
use crate::discover::cgroup::{CpuGroup, MemoryGroup};
use crate::discover::halted::Halts;
use crate::discover::usage::ProcessNumbers;
use crate::golang::layout::Structs;
use crate::live::Target;
use crate::runtime::vitals::{Places, Vitals};
use crate::session::{Input, RuntimeTaken};

/// Looks at which its variables are searched for: a program that has just started may not have all of them yet.
const TRIES: u32 = 3;

/// See the module.
#[derive(Debug)]
pub struct RuntimeReader {
    known: Result<(Structs, Places), String>,
    tries: u32,
    memory_group: Option<MemoryGroup>,
    cpu_group: Option<CpuGroup>,
    halts: Halts,
}

impl RuntimeReader {
    /// For a target; its variables are searched for at the first look.
    pub fn of(target: &Target) -> Self {
        Self {
            known: Err(String::new()),
            tries: 0,
            memory_group: MemoryGroup::of(target.process()),
            cpu_group: CpuGroup::of(target.process()),
            halts: Halts::of(target.process()),
        }
    }

    /// Looks; none at one that has ended. One that is halted would seem not to be preempted: that it is has to do.
    pub fn look(&mut self, target: &Target) -> Option<Input> {
        if let Some(by) = self.halts.now(target.process()) {
            return Some(Input::Halted(by));
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
        Some(Input::Runtime(RuntimeTaken {
            vitals,
            process: target.process().by_pid(ProcessNumbers::of),
            memory_group: used.zip(limit),
            throttled_ns: self.cpu_group.as_ref().and_then(CpuGroup::throttled_ns),
        }))
    }
}
