//! Decides in which mode a target is watched, so that what its probes cost it stays within a budget.
//!
//! A state machine of readings: what hits have cost so far, and how much CPU time the target has used. It saves what the
//! budget allows and spends what hits cost; who spends more than was saved loses its probes at once. To learn whether
//! hits have become fewer takes probes, so from time to time it tries, and the longer the oftener it failed.
//!
//! Pure: no clock, and nothing is attached or removed here.

use serde::{Deserialize, Serialize};

use crate::config::{Mode, Percent};

/// What hits may cost a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Budget {
    /// Of the CPU time that the target uses.
    pub of_target: Percent,
}

/// Of a core, whatever the target uses: the most a budget allows.
const MOST: Percent = Percent::new(5_000);

/// Of what the budget allows a target that uses a whole core, what it allows one that hardly runs: there the share
/// means nothing.
const LEAST: u64 = 10;

impl Budget {
    /// What hits may cost, in nanoseconds, over a time in which the target used `cpu_ns`.
    pub fn allowed_ns(&self, elapsed_ns: u64, cpu_ns: u64) -> u64 {
        let most = MOST.of(elapsed_ns);
        let least = (self.of_target.of(elapsed_ns) / LEAST).min(most);
        self.of_target.of(cpu_ns).clamp(least, most)
    }
}

impl std::fmt::Display for Budget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let core = |nanoseconds: u64| 100.0 * nanoseconds as f64 / SECOND as f64;
        let (least, most) = (self.allowed_ns(SECOND, 0), self.allowed_ns(SECOND, u64::MAX));
        let of_target = self.of_target;
        write!(f, "{of_target} of its CPU time, but {}% to {}% of a core", core(least), core(most))
    }
}

/// Totals since the watch began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// When it was taken.
    pub time_ns: u64,
    /// CPU time that the target used.
    pub cpu_ns: u64,
    /// What hits have cost it.
    pub spent_ns: u64,
    /// What they would have cost in mode [`Mode::Trace`].
    pub traced_ns: u64,
}

/// A decision to go to another mode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Move {
    /// Where to.
    pub mode: Mode,
    /// Why, with numbers.
    pub reason: String,
}

const SECOND: u64 = 1_000_000_000;

/// How long more than the budget may be spent, however much was saved.
const MAX_OVER: u64 = SECOND;

/// How long hits must be few before every event is streamed.
const CALM: u64 = 5 * SECOND;

/// Shortest and longest time without probes before they are tried again.
const BACKOFF: (u64, u64) = (4 * SECOND, 60 * SECOND);

/// A target that has become calm is tried again after this long at the latest, whatever is owed: without probes nothing tells
/// what they would cost now.
const MAX_CALM_WAIT: u64 = 10 * SECOND;

/// Probes that stay this long were no failed attempt.
const SETTLED: u64 = 30 * SECOND;

/// See the module.
#[derive(Debug)]
pub struct Governor {
    budget: Budget,
    /// Modes with probes that there are on this host, one at least.
    probed: Vec<Mode>,
    mode: Mode,
    entered_ns: u64,
    last: Option<Reading>,
    /// What was allowed and not spent, or spent beforehand.
    saved_ns: i64,
    /// What was owed when probes were tried again all the same, and is still to be saved.
    carried_ns: i64,
    over_ns: u64,
    calm_ns: u64,
    backoff_ns: u64,
    /// Share of a core that the target used when its probes were removed.
    busy: Option<f64>,
    /// Share of a core that it uses, over the last second or so.
    cpu: f64,
}

impl Governor {
    /// A governor of a target that is watched in the first of `probed` from now on: the modes with probes that there are.
    pub fn new(budget: Budget, probed: Vec<Mode>) -> Self {
        Self {
            budget,
            mode: probed.first().copied().unwrap_or(Mode::Census),
            probed,
            entered_ns: 0,
            last: None,
            // As if a core had been used for a second.
            saved_ns: i64::try_from(budget.allowed_ns(SECOND, SECOND)).unwrap_or(i64::MAX),
            carried_ns: 0,
            over_ns: 0,
            calm_ns: 0,
            backoff_ns: BACKOFF.0,
            busy: None,
            cpu: 0.0,
        }
    }

    /// What it governs by.
    pub const fn budget(&self) -> Budget {
        self.budget
    }

    /// Takes a reading of a target that is watched in `mode`, and says where to go.
    pub fn step(&mut self, mode: Mode, reading: Reading) -> Option<Move> {
        let Some(last) = self.last.replace(reading) else {
            self.enter(mode, reading.time_ns);
            return None;
        };
        if mode != self.mode {
            self.enter(mode, reading.time_ns);
        }
        let elapsed_ns = reading.time_ns.saturating_sub(last.time_ns);
        if elapsed_ns == 0 {
            return None;
        }
        let cpu_ns = reading.cpu_ns.saturating_sub(last.cpu_ns);
        let spent_ns = reading.spent_ns.saturating_sub(last.spent_ns);
        let allowed_ns = self.budget.allowed_ns(elapsed_ns, cpu_ns);
        let cpu = cpu_ns as f64 / elapsed_ns as f64;
        self.cpu += (cpu - self.cpu) * (elapsed_ns as f64 / SECOND as f64).min(1.0);
        self.save(elapsed_ns, allowed_ns, spent_ns);
        if mode == Mode::Census {
            return self.try_again(reading.time_ns);
        }
        self.over_ns = if spent_ns > allowed_ns { self.over_ns + elapsed_ns } else { 0 };
        if self.saved_ns < 0 || self.over_ns >= MAX_OVER {
            self.give_up(cpu, reading.time_ns);
            return Some(self.leave(Mode::Census, elapsed_ns, spent_ns, allowed_ns));
        }
        // Apart, so that it does not go to and fro.
        let (next, calm) = match mode {
            Mode::Filter => {
                let traced_ns = reading.traced_ns.saturating_sub(last.traced_ns);
                (Mode::Trace, traced_ns.saturating_mul(4) <= allowed_ns)
            }
            _ => (Mode::Filter, spent_ns.saturating_mul(4) > allowed_ns.saturating_mul(3)),
        };
        if !self.probed.contains(&next) {
            return None;
        }
        self.calm_ns = if calm { self.calm_ns + elapsed_ns } else { 0 };
        let needed = if next == Mode::Trace { CALM } else { MAX_OVER };
        (self.calm_ns >= needed).then(|| self.leave(next, elapsed_ns, spent_ns, allowed_ns))
    }

    fn enter(&mut self, mode: Mode, now_ns: u64) {
        if self.mode == Mode::Census {
            // What is owed is no reason to end an attempt that costs nothing; it stays owed.
            self.carried_ns = self.carried_ns.saturating_sub(self.saved_ns.min(0));
            self.saved_ns = self.saved_ns.max(0);
        }
        if mode == Mode::Census {
            self.saved_ns = self.saved_ns.saturating_sub(std::mem::take(&mut self.carried_ns)).max(-self.most_owed());
        }
        self.mode = mode;
        self.entered_ns = now_ns;
        (self.over_ns, self.calm_ns) = (0, 0);
    }

    /// Beyond that a reading says more of the past than of now.
    fn most_owed(&self) -> i64 {
        i64::try_from(self.budget.allowed_ns(60 * SECOND, 60 * SECOND)).unwrap_or(i64::MAX)
    }

    /// A second of the budget can be saved, and a minute be owed. What is saved pays first what was owed before.
    fn save(&mut self, elapsed_ns: u64, allowed_ns: u64, spent_ns: u64) {
        let second = i64::try_from(u128::from(allowed_ns) * u128::from(SECOND) / u128::from(elapsed_ns)).unwrap_or(0);
        let mut change = i64::try_from(allowed_ns).unwrap_or(0) - i64::try_from(spent_ns).unwrap_or(i64::MAX);
        let paid = change.clamp(0, self.carried_ns);
        self.carried_ns -= paid;
        change -= paid;
        let most = second.max(i64::try_from(self.budget.allowed_ns(SECOND, SECOND) / LEAST).unwrap_or(0));
        self.saved_ns = self.saved_ns.saturating_add(change).clamp(-self.most_owed(), most.max(self.saved_ns));
    }

    fn give_up(&mut self, cpu: f64, now_ns: u64) {
        let settled = now_ns.saturating_sub(self.entered_ns) >= SETTLED;
        self.backoff_ns =
            if settled || self.busy.is_none() { BACKOFF.0 } else { self.backoff_ns.saturating_mul(2).min(BACKOFF.1) };
        self.busy = Some(cpu);
    }

    fn try_again(&self, now_ns: u64) -> Option<Move> {
        let waited_ns = now_ns.saturating_sub(self.entered_ns);
        // A target that does much less than when it was too much probably parks less, too.
        let calmer = self.busy.is_some_and(|busy| self.cpu < busy / 2.0);
        let due = if calmer {
            waited_ns >= if self.saved_ns >= 0 { MAX_CALM_WAIT.min(self.backoff_ns / 4) } else { MAX_CALM_WAIT }
        } else {
            waited_ns >= self.backoff_ns && self.saved_ns >= 0
        };
        let mode = *self.probed.first()?;
        due.then(|| Move {
            mode,
            reason: format!("after {:.1} s without probes, to see what they cost now", waited_ns as f64 / 1e9),
        })
    }

    fn leave(&self, mode: Mode, elapsed_ns: u64, spent_ns: u64, allowed_ns: u64) -> Move {
        let percent = |ns: u64| 100.0 * ns as f64 / elapsed_ns as f64;
        let reason =
            format!("hits cost {:.2} % of a core, the budget allows {:.2} %", percent(spent_ns), percent(allowed_ns));
        Move { mode, reason }
    }
}

#[cfg(test)]
mod tests;
