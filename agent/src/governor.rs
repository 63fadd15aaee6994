//! Decides in which mode a target is watched, so that what its probes cost it stays within a budget.
//!
//! A state machine of readings: what hits have cost so far, what they would have cost in other modes, and how much CPU time the
//! target has used. What a target does in bursts is judged by what the budget has allowed before: each mode has a
//! [`Purse`], and one whose purse is empty is left at once for a mode that would last. What parks cost shows
//! only where they are probed, so from time to time it tries, and the longer the oftener it failed. Moves are counted out: one a
//! minute in the long run.
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

/// What the budget has allowed and hits have not spent: so a burst is paid by the time before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Purse(i64);

impl Purse {
    /// The most there can be in it, or be owed: what is allowed a target that hardly runs in some four minutes, which is longer
    /// than the rhythms of most programs (scrapes, tickers, jobs). No target is slowed down by more than that before the probes go.
    const MOST: i64 = SECOND.cast_signed() / 4;

    /// With what to begin: as if a core had been used for a second.
    pub fn new(budget: Budget) -> Self {
        Self(budget.allowed_ns(SECOND, SECOND).cast_signed())
    }

    /// Puts in what is allowed over a time, and takes out what hits cost in it.
    pub fn flow(&mut self, allowed_ns: u64, spent_ns: u64) {
        let change = i128::from(allowed_ns) - i128::from(spent_ns);
        let most = i128::from(Self::MOST);
        self.0 = i64::try_from((i128::from(self.0) + change).clamp(-most, most)).unwrap_or(-Self::MOST);
    }

    /// Whether more was spent than was allowed.
    pub const fn is_empty(self) -> bool {
        self.0 < 0
    }

    /// Whether it would not be empty after going on for [`LASTS`] as in this time.
    fn lasts(self, elapsed_ns: u64, allowed_ns: u64, spent_ns: u64) -> bool {
        let change = (allowed_ns as f64 - spent_ns as f64) / elapsed_ns as f64;
        self.0 as f64 + change.min(0.0) * LASTS as f64 >= 0.0
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
    /// What the same hits would have cost in each of [`Mode::PROBED`].
    pub would_ns: [u64; Mode::PROBED.len()],
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

/// How long a cheaper mode has to last, at the rate of the reading that emptied the purse, to be worth going to.
const LASTS: u64 = 5 * SECOND;

/// How long hits must have been few before every event is streamed, when nothing has failed yet.
const CALM: u64 = 5 * SECOND;

/// Shortest and longest time before more is tried again.
const PAUSE: (u64, u64) = (8 * SECOND, 960 * SECOND);

/// A target that has become calm is tried again after that part of the pause.
const CALMER: u64 = 4;

/// A mode that lasted this long was no failed attempt.
const SETTLED: u64 = 600 * SECOND;

/// In the long run there is one move in this time.
const MOVE_EVERY: u64 = 60 * SECOND;

/// Moves there can be without that: to find a mode, and to follow a target that changes now and then.
const MOVES: f64 = 8.0;

/// See the module.
#[derive(Debug)]
pub struct Governor {
    budget: Budget,
    /// Modes with probes that there are on this host, one at least, the cheapest first.
    probed: Vec<Mode>,
    mode: Mode,
    entered_ns: u64,
    last: Option<Reading>,
    /// What each of [`Mode::PROBED`] would have left.
    purses: [Purse; Mode::PROBED.len()],
    /// What is left in truth.
    left: Purse,
    /// What would be left of half the budget in mode [`Mode::Trace`], since this mode was entered.
    calm: Purse,
    pause_ns: u64,
    moves: f64,
    /// Share of a core that the target used when a mode was given up.
    busy: Option<f64>,
    /// Share of a core that it uses, over the last second or so.
    cpu: f64,
}

impl Governor {
    /// A governor of a target that is watched in mode `first` from now on; `probed` are the modes with probes that there are.
    pub fn new(budget: Budget, probed: Vec<Mode>, first: Mode) -> Self {
        Self {
            budget,
            probed,
            mode: first,
            entered_ns: 0,
            last: None,
            purses: [Purse::new(budget); Mode::PROBED.len()],
            left: Purse::new(budget),
            calm: Purse::default(),
            pause_ns: PAUSE.0,
            moves: MOVES,
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
            (self.mode, self.entered_ns) = (mode, reading.time_ns);
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
        let flow = Flow {
            elapsed_ns,
            allowed_ns: self.budget.allowed_ns(elapsed_ns, cpu_ns),
            spent_ns,
            would_ns: std::array::from_fn(|index| match Mode::PROBED[index] == mode {
                true => spent_ns,
                false => reading.would_ns[index].saturating_sub(last.would_ns[index]),
            }),
        };
        let cpu = cpu_ns as f64 / elapsed_ns as f64;
        self.cpu += (cpu - self.cpu) * (elapsed_ns as f64 / SECOND as f64).min(1.0);
        self.take(&flow);
        match purse_of(mode) {
            Some(index) if self.purses[index].is_empty() => Some(self.give_up(cpu, reading.time_ns, &flow)),
            _ => self.try_more(reading.time_ns, &flow),
        }
    }

    fn take(&mut self, flow: &Flow) {
        let Flow { elapsed_ns, allowed_ns, spent_ns, would_ns } = *flow;
        for (purse, would_ns) in self.purses.iter_mut().zip(would_ns) {
            purse.flow(allowed_ns, would_ns);
        }
        self.left.flow(allowed_ns, spent_ns);
        self.calm.flow(allowed_ns / 2, would_ns[Mode::PROBED.len() - 1]);
        self.moves = (self.moves + elapsed_ns as f64 / MOVE_EVERY as f64).min(MOVES);
    }

    fn enter(&mut self, mode: Mode, now_ns: u64) {
        // What was saved has been spent by the mode before, or was saved while it was not known what this one costs; and what is
        // owed is no reason to end an attempt that costs nothing.
        if let Some(index) = purse_of(mode) {
            self.purses[index] = self.purses[index].clamp(Purse::default(), Purse::new(self.budget));
        }
        self.mode = mode;
        self.entered_ns = now_ns;
        self.calm = Purse::default();
        self.moves -= 1.0;
    }

    /// The dearest mode that would last; none without probes.
    fn give_up(&mut self, cpu: f64, now_ns: u64, flow: &Flow) -> Move {
        let settled = now_ns.saturating_sub(self.entered_ns) >= SETTLED;
        self.pause_ns =
            if settled || self.busy.is_none() { PAUSE.0 } else { self.pause_ns.saturating_mul(2).min(PAUSE.1) };
        self.busy = Some(cpu);
        let lasts = |mode: &&Mode| {
            purse_of(**mode).is_some_and(|index| {
                self.purses[index].min(Purse::new(self.budget)).lasts(
                    flow.elapsed_ns,
                    flow.allowed_ns,
                    flow.would_ns[index],
                )
            })
        };
        let below = self.probed.iter().filter(|mode| **mode < self.mode);
        let mode = below.rev().find(lasts).copied().unwrap_or(Mode::Census);
        let reason = format!("{}, and what it allowed before is spent", flow.costs());
        Move { mode, reason }
    }

    /// A mode that tells more, if it is time to try it.
    fn try_more(&self, now_ns: u64, flow: &Flow) -> Option<Move> {
        let waited_ns = now_ns.saturating_sub(self.entered_ns);
        if self.moves < 1.0 {
            return None;
        }
        let next = self.probed.iter().copied().find(|mode| *mode > self.mode)?;
        if self.mode.sees_parks() {
            let needed_ns = CALM.saturating_mul(self.pause_ns / PAUSE.0);
            let calm = waited_ns >= needed_ns && !self.calm.is_empty();
            return calm.then(|| Move { mode: next, reason: flow.costs() });
        }
        // A target that does much less than when it was too much probably parks less, too.
        let calmer = self.busy.is_some_and(|busy| self.cpu < busy / 2.0);
        let pause_ns = if calmer { self.pause_ns / CALMER } else { self.pause_ns };
        let owes = self.left.is_empty() && !calmer;
        let parks = self.probed.iter().copied().find(|mode| mode.sees_parks()).filter(|_| calmer);
        (waited_ns >= pause_ns && !owes).then(|| Move {
            mode: parks.unwrap_or(next),
            reason: format!("after {:.1} s in mode {}, to see what more costs now", waited_ns as f64 / 1e9, self.mode),
        })
    }
}

/// Whose purse is a mode's.
fn purse_of(mode: Mode) -> Option<usize> {
    Mode::PROBED.iter().position(|probed| *probed == mode)
}

/// What happened from one reading to the next.
struct Flow {
    elapsed_ns: u64,
    allowed_ns: u64,
    spent_ns: u64,
    would_ns: [u64; Mode::PROBED.len()],
}

impl Flow {
    fn costs(&self) -> String {
        let percent = |ns: u64| 100.0 * ns as f64 / self.elapsed_ns as f64;
        let (spent, allowed) = (percent(self.spent_ns), percent(self.allowed_ns));
        format!("hits cost {spent:.2} % of a core, the budget allows {allowed:.2} %")
    }
}

#[cfg(test)]
mod tests;
