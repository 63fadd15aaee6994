//! What watching has cost the target: the hits of its probes times what a hit of each costs.
//!
//! An estimate: what a hit costs was measured on this host, in code of parkwarden's own; whoever reads the counters sets the price by
//! how closely hits follow each other.

use parkwarden_common::counters::ProbeCounters;

use super::input::{ProbeInfo, ProbeReading};
use crate::governor::{Budget, Purse};

/// What the probes at one place have done, in whatever mode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spent {
    /// The place.
    pub probe: ProbeInfo,
    /// Hits and losses.
    pub counters: ProbeCounters,
    /// What hits cost the target.
    pub cost_ns: u64,
    /// Of that, what telling of the calls cost that led to creations.
    pub stacks_ns: u64,
}

/// All of it over time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Total {
    /// What hits cost the target.
    pub cost_ns: u64,
    /// CPU time that the target used while it was watched.
    pub cpu_ns: u64,
    /// Time in which hits cost more than the budget allows, and had spent before what it allowed before: as the governor sees it.
    pub over_budget_ns: u64,
    /// The longest such time without an end.
    pub longest_over_budget_ns: u64,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Account {
    budget: Budget,
    purse: Purse,
    attached: Vec<ProbeInfo>,
    readings: Vec<ProbeReading>,
    /// Of probes that are gone, by place: as many as there are sites.
    gone: Vec<Spent>,
    /// What removing probes cost: their last hits run no program that could count them.
    uncounted_ns: u64,
    total: Total,
    last: Option<(u64, u64, u64)>,
    over_ns: u64,
}

impl Account {
    pub(super) fn new(budget: Budget, attached: Vec<ProbeInfo>) -> Self {
        Self {
            budget,
            purse: Purse::new(budget),
            attached,
            readings: Vec::new(),
            gone: Vec::new(),
            uncounted_ns: 0,
            total: Total::default(),
            last: None,
            over_ns: 0,
        }
    }

    /// Takes what the counters of the attached probes say.
    pub(super) fn read(&mut self, readings: &[ProbeReading]) {
        readings.clone_into(&mut self.readings);
    }

    /// Other probes, or none, are attached from now on; of those before, the last reading has been taken.
    pub(super) fn replace(&mut self, attached: Vec<ProbeInfo>, uncounted_ns: u64) {
        self.gone = self.spent();
        self.readings.clear();
        if !attached.is_empty() {
            // What a burst left owed was paid by letting go of the probes that cost it.
            self.purse = Purse::new(self.budget);
        }
        self.attached = attached;
        self.uncounted_ns = self.uncounted_ns.saturating_add(uncounted_ns);
    }

    /// Takes what the target's CPU time is.
    pub(super) fn clock(&mut self, time_ns: u64, cpu_ns: u64) {
        let cost_ns = self.spent().iter().fold(self.uncounted_ns, |sum, spent| sum.saturating_add(spent.cost_ns));
        let before = self.last.replace((time_ns, cpu_ns, cost_ns));
        let Some((last_ns, last_cpu_ns, last_cost_ns)) = before else { return };
        let elapsed_ns = time_ns.saturating_sub(last_ns);
        let cpu_ns = cpu_ns.saturating_sub(last_cpu_ns);
        let allowed_ns = self.budget.allowed_ns(elapsed_ns, cpu_ns);
        let spent_ns = cost_ns.saturating_sub(last_cost_ns);
        self.purse.flow(allowed_ns, spent_ns);
        let total = &mut self.total;
        if spent_ns > allowed_ns && self.purse.is_empty() {
            self.over_ns = self.over_ns.saturating_add(elapsed_ns);
            total.over_budget_ns = total.over_budget_ns.saturating_add(elapsed_ns);
        } else {
            self.over_ns = 0;
        }
        total.longest_over_budget_ns = total.longest_over_budget_ns.max(self.over_ns);
        total.cpu_ns = total.cpu_ns.saturating_add(cpu_ns);
        total.cost_ns = cost_ns;
    }

    /// What the probes have done, by place.
    pub(super) fn spent(&self) -> Vec<Spent> {
        let mut places = self.gone.clone();
        for probe in &self.attached {
            let reading = self.readings.iter().find(|reading| reading.index == probe.index);
            let (counters, cost_ns, stacks_ns) = reading.map_or((ProbeCounters::default(), 0, 0), |reading| {
                (reading.counters, reading.cost_ns, reading.stacks_ns)
            });
            match places.iter_mut().find(|spent| spent.probe.address == probe.address) {
                Some(spent) => {
                    spent.probe = probe.clone();
                    spent.counters = sum(&spent.counters, &counters);
                    spent.cost_ns = spent.cost_ns.saturating_add(cost_ns);
                    spent.stacks_ns = spent.stacks_ns.saturating_add(stacks_ns);
                }
                None => places.push(Spent { probe: probe.clone(), counters, cost_ns, stacks_ns }),
            }
        }
        places
    }

    pub(super) fn total(&self) -> Total {
        self.total
    }

    pub(super) fn budget(&self) -> Budget {
        self.budget
    }
}

fn sum(a: &ProbeCounters, b: &ProbeCounters) -> ProbeCounters {
    ProbeCounters {
        hits: a.hits.saturating_add(b.hits),
        ring_full: a.ring_full.saturating_add(b.ring_full),
        read_fault: a.read_fault.saturating_add(b.read_fault),
        map_full: a.map_full.saturating_add(b.map_full),
        stacks: a.stacks.saturating_add(b.stacks),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Percent;
    use crate::golang::sites::SiteClass;

    const SECOND: u64 = 1_000_000_000;

    fn probe(index: u16, address: u64) -> ProbeInfo {
        ProbeInfo { index, function: "f".to_owned(), address, site_class: SiteClass::Emulated }
    }

    fn hits(index: u16, hits: u64, hit_ns: u64) -> ProbeReading {
        let counters = ProbeCounters { hits, ..ProbeCounters::default() };
        ProbeReading { index, counters, cost_ns: hits * hit_ns, stacks_ns: hits }
    }

    #[test]
    fn hits_of_probes_that_are_gone_stay_in_the_account() {
        let budget = Budget { of_target: Percent::new(1_000) };
        let mut account = Account::new(budget, vec![probe(0, 10), probe(1, 20)]);
        account.clock(0, 0);
        account.read(&[hits(0, 10, 700), hits(1, 4, 500)]);
        account.replace(vec![probe(4, 10)], 50);
        account.read(&[hits(4, 1, 900)]);
        account.clock(SECOND, SECOND);
        let spent = account.spent();
        let spent: Vec<_> = spent.iter().map(|spent| (spent.counters.hits, spent.cost_ns, spent.stacks_ns)).collect();
        assert_eq!(spent, [(11, 7_900, 11), (4, 2_000, 4)]);
        assert_eq!(account.total(), Total { cost_ns: 9_950, cpu_ns: SECOND, ..Total::default() });
    }

    #[test]
    fn time_over_the_budget_is_told() {
        let mut account = Account::new(Budget { of_target: Percent::new(1_000) }, vec![probe(0, 10)]);
        account.clock(0, 0);
        // 1 % of a core is 10 000 hits a second, and it begins with a second's.
        for (second, total) in
            [(1, 9_000), (2, 29_000), (3, 50_000), (4, 61_000), (5, 62_000), (6, 73_000), (7, 93_000)]
        {
            account.read(&[hits(0, total, 1_000)]);
            account.clock(second * SECOND, second * SECOND);
        }
        let total = account.total();
        assert_eq!((total.over_budget_ns, total.longest_over_budget_ns), (4 * SECOND, 2 * SECOND));
    }

    #[test]
    fn what_other_probes_owed_is_not_held_against_those_that_replace_them() {
        let mut account = Account::new(Budget { of_target: Percent::new(1_000) }, vec![probe(0, 10)]);
        account.clock(0, 0);
        account.read(&[hits(0, 200_000, 1_000)]);
        account.clock(SECOND, SECOND);
        assert_eq!(account.total().over_budget_ns, SECOND);
        account.replace(vec![probe(1, 10)], 0);
        // 12 ms are more than the 10 of this second, and less than these and the 10 to begin with.
        account.read(&[hits(1, 12_000, 1_000)]);
        account.clock(2 * SECOND, 2 * SECOND);
        assert_eq!(account.total().over_budget_ns, SECOND);
    }
}
