//! What the report says of the target's runtime: its numbers at the last look, and what is unusual about them.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::discover::usage::ProcessNumbers;
use crate::runtime::signs::Sign;
use crate::runtime::vitals::{Between, Vitals};
use crate::runtime::{mem_signs, sched_signs};
use crate::session::Session;
use crate::words::started;

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Runtime {
    /// Why its numbers are not known, where they are not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unknown: Option<String>,
    /// Its numbers; its Ps, Ms and pauses one by one are left to `parkwarden sched` and `mem`.
    pub now: Option<Vitals>,
    /// Minimum, quartiles and maximum of the last 256 pauses of the collector, in nanoseconds.
    pub pause_quantiles_ns: [u64; 5],
    /// Goroutines that are ready to run and have no P.
    pub runnable: u64,
    /// What passed since the look before.
    pub between: Option<Between>,
    /// What the kernel tells of the process.
    pub process: Option<ProcessNumbers>,
    /// Bytes that its memory control group uses, where that has a limit.
    pub group_used_bytes: Option<u64>,
    /// That limit.
    pub group_limit_bytes: Option<u64>,
    /// For how long the quota of its CPU control group has kept it from running.
    pub throttled_ns: Option<u64>,
    /// What is unusual.
    pub signs: Vec<Sign>,
}

impl Runtime {
    /// Of the last look at the runtime, if there was any.
    pub(super) fn of(session: &Session) -> Option<Self> {
        let looks = session.runtime();
        let process = looks.process();
        let unknown = looks.unknown().map(str::to_owned);
        let Some(latest) = looks.latest() else {
            let halted: Vec<Sign> = looks.halted().map(sched_signs::halted).into_iter().collect();
            let tells = unknown.is_some() || !halted.is_empty();
            return tells.then(|| Self { unknown, process, signs: halted, ..Self::default() });
        };
        let mut now = latest.clone();
        now.memory.pauses = Vec::new();
        (now.scheduler.processors, now.scheduler.machines) = (Vec::new(), Vec::new());
        Some(Self {
            unknown,
            now: Some(now),
            pause_quantiles_ns: latest.pause_quantiles_ns(),
            runnable: latest.scheduler.queued(),
            between: looks.between(),
            process,
            group_used_bytes: looks.memory_group().map(|(used, _)| used),
            group_limit_bytes: looks.memory_group().map(|(_, limit)| limit),
            throttled_ns: looks.throttled_in_all_ns(),
            signs: signs(session),
        })
    }
}

/// By the rules that hold for looks far apart.
fn signs(session: &Session) -> Vec<Sign> {
    let looks = session.runtime();
    if let Some(by) = looks.halted() {
        return vec![sched_signs::halted(by)];
    }
    let mut signs = mem_signs::signs(&mem_signs::Seen {
        looks: looks.memory(),
        group: looks.memory_group(),
        // Reading all timers takes longer than a look should.
        timers: &[],
    });
    let seen =
        sched_signs::Seen { looks: looks.schedulers(), throttled_ns: looks.throttled_ns(), in_events: BTreeSet::new() };
    signs.extend(sched_signs::signs_of_looks_apart(&seen, &mut |pc| started(session.symbols(), pc)));
    signs
}
