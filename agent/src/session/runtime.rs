//! The last looks at the target's runtime.

use super::RuntimeTaken;
use crate::detect::Series;
use crate::discover::halted::Halted;
use crate::discover::usage::ProcessNumbers;
use crate::runtime::mem::Memories;
use crate::runtime::sched::Scheduler;
use crate::runtime::vitals::{Between, Vitals};

/// Looks that are kept: signs go by several.
const KEPT: usize = 10;

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct RuntimeLooks {
    /// What kept the target from running when a look was due last.
    halted: Option<Halted>,
    /// The last look.
    last: Option<RuntimeTaken>,
    /// Bytes used by the process's memory control group, where that has a limit.
    group_used: Series,
    /// What passed between the last two.
    between: Option<Between>,
    /// For how long the control group kept the process from running, at each of the looks kept.
    throttled_ns: Vec<Option<u64>>,
    memory: Vec<Memories>,
    schedulers: Vec<Scheduler>,
}

impl RuntimeLooks {
    pub(super) fn halted_by(&mut self, by: Halted) {
        self.halted = Some(by);
    }

    pub(super) fn take(&mut self, now_ns: u64, taken: &RuntimeTaken) {
        self.halted = None;
        if let Some((used, _)) = taken.memory_group {
            self.group_used.push(now_ns, used);
        }
        let before = self.last.replace(taken.clone()).and_then(|taken| taken.vitals.ok());
        let Ok(now) = &taken.vitals else {
            let group_used = std::mem::take(&mut self.group_used);
            *self = Self { last: self.last.take(), group_used, ..Self::default() };
            return;
        };
        self.between = before.map(|before| now.since(&before));
        if self.memory.len() >= KEPT {
            self.throttled_ns.remove(0);
            self.memory.remove(0);
            self.schedulers.remove(0);
        }
        // Of the one before only the newest was of use.
        if let (Some(memory), Some(scheduler)) = (self.memory.pop(), self.schedulers.pop()) {
            let mut vitals = Vitals { memory, scheduler };
            vitals.shorten();
            self.memory.push(vitals.memory);
            self.schedulers.push(vitals.scheduler);
        }
        self.throttled_ns.push(taken.throttled_ns);
        self.memory.push(now.memory.clone());
        self.schedulers.push(now.scheduler.clone());
    }

    /// What keeps the target from running now, if anything does.
    pub fn halted(&self) -> Option<Halted> {
        self.halted
    }

    /// Why nothing is known of the runtime, where nothing is.
    pub fn unknown(&self) -> Option<&str> {
        self.last.as_ref()?.vitals.as_ref().err().map(String::as_str)
    }

    /// What the last look found.
    pub fn latest(&self) -> Option<&Vitals> {
        self.last.as_ref()?.vitals.as_deref().ok()
    }

    /// What passed between the last two looks.
    pub fn between(&self) -> Option<Between> {
        self.between
    }

    /// What the kernel told of the process at the last look.
    pub fn process(&self) -> Option<ProcessNumbers> {
        self.last.as_ref()?.process
    }

    /// Use and limit of its memory control group at the last look.
    pub fn memory_group(&self) -> Option<(u64, u64)> {
        self.last.as_ref()?.memory_group
    }

    /// What that group used, over time.
    pub fn group_used(&self) -> &Series {
        &self.group_used
    }

    /// For how long its control group has kept it from running so far.
    pub fn throttled_in_all_ns(&self) -> Option<u64> {
        self.last.as_ref()?.throttled_ns
    }

    /// Memory and collector at the looks that are kept, in order.
    pub fn memory(&self) -> &[Memories] {
        &self.memory
    }

    /// The scheduler at the same looks.
    pub fn schedulers(&self) -> &[Scheduler] {
        &self.schedulers
    }

    /// For how long the control group kept it from running between the first and the last of them.
    pub fn throttled_ns(&self) -> Option<u64> {
        let (first, last) = self.throttled_ns.first().zip(self.throttled_ns.last())?;
        first.zip(*last).map(|(first, last)| last.saturating_sub(first))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(collections: u64) -> RuntimeTaken {
        let mut vitals = Vitals::default();
        vitals.memory.stats.num_gc = collections;
        vitals.memory.pauses = vec![Default::default(); 3];
        RuntimeTaken {
            vitals: Ok(Box::new(vitals)),
            process: None,
            memory_group: None,
            throttled_ns: Some(collections * 10),
        }
    }

    #[test]
    fn the_last_looks_are_kept_and_only_the_newest_in_full() {
        let mut looks = RuntimeLooks::default();
        (0..15).for_each(|collections| looks.take(0, &look(collections)));
        let cycles: Vec<u64> = looks.memory().iter().map(|memory| memory.stats.num_gc).collect();
        assert_eq!(cycles, (5..15).collect::<Vec<u64>>());
        let pauses: Vec<usize> = looks.memory().iter().map(|memory| memory.pauses.len()).collect();
        assert_eq!(pauses, [0, 0, 0, 0, 0, 0, 0, 0, 0, 3]);
        assert_eq!(looks.between().expect("two looks").collections, 1);
        assert_eq!((looks.throttled_ns(), looks.schedulers().len()), (Some(90), 10));
    }

    #[test]
    fn where_nothing_can_be_read_nothing_of_before_is_told() {
        let mut looks = RuntimeLooks::default();
        looks.take(0, &look(1));
        looks.take(0, &RuntimeTaken { vitals: Err("no layout".to_owned()), ..look(2) });
        assert_eq!((looks.unknown(), looks.latest(), looks.between()), (Some("no layout"), None, None));
        assert!(looks.memory().is_empty() && looks.throttled_ns().is_none());
        looks.take(0, &look(9));
        assert_eq!((looks.unknown(), looks.between()), (None, None));
    }
}
