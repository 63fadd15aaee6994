//! What watching has cost, and in which modes, for reports.

use super::{Bound, Cost, Modes, Moved, Observed, Precision, Probe, RefusedMode};
use crate::session::Session;
use crate::words::{printable, seconds};

/// Moves shown to a person; JSON has all of them.
const MAX_MOVES_SHOWN: usize = 5;

impl Cost {
    /// So far.
    pub(super) fn of(session: &Session) -> Self {
        let total = session.cost();
        let elapsed_ns = session.now_ns().saturating_sub(session.header().started_ns);
        let percent = |of: u64| {
            let share = 100.0 * total.cost_ns as f64 / of.max(1) as f64;
            (share * 1e3).round() / 1e3
        };
        Self {
            target_seconds: micro(total.cost_ns),
            percent_of_core: percent(elapsed_ns),
            percent_of_target: percent(total.cpu_ns.max(total.cost_ns)),
            target_cpu_seconds: seconds(total.cpu_ns),
            budget: session.budget().to_string(),
            over_budget_seconds: seconds(total.over_budget_ns),
            longest_over_budget_seconds: seconds(total.longest_over_budget_ns),
        }
    }
}

impl Precision {
    /// So far.
    pub(super) fn of(session: &Session) -> Self {
        let lossless = session.lost_events() == 0;
        let bound = |seen: bool| if seen && lossless { Bound::Exact } else { Bound::LowerBound };
        Self { creations_and_exits: bound(session.saw_births()), parked_times: bound(session.saw_parks()) }
    }

    fn sentence(self) -> &'static str {
        match (self.creations_and_exits, self.parked_times) {
            (Bound::Exact, Bound::Exact) => "exact: creations, exits, times of parks that began meanwhile",
            (Bound::Exact, Bound::LowerBound) => "exact: creations and exits; lower bounds: parked times",
            (Bound::LowerBound, _) => "lower bounds: creations, exits, parked times",
        }
    }
}

impl Modes {
    /// So far.
    pub(super) fn of(session: &Session) -> Self {
        let header = session.header();
        let (moves, more) = session.moves();
        let history: Vec<Moved> = moves
            .iter()
            .map(|entered| Moved {
                seconds: seconds(entered.time_ns.saturating_sub(header.started_ns)),
                mode: entered.mode,
                reason: entered.reason.clone(),
            })
            .collect();
        Self {
            choice: header.modes.choice,
            first: header.modes.first,
            no_probes: header.modes.no_probes.clone(),
            refused: header
                .modes
                .refused
                .iter()
                .map(|(mode, reason)| RefusedMode { mode: *mode, reason: reason.clone() })
                .collect(),
            moves: history.len() as u64 + more,
            history,
        }
    }
}

/// The probes, by place.
pub(super) fn probes(session: &Session) -> Vec<Probe> {
    let place = |spent: crate::session::Spent| Probe {
        function: spent.probe.function,
        address: format!("{:#x}", spent.probe.address),
        site_class: spent.probe.site_class,
        hits: spent.counters.hits,
        hit_nanoseconds: u32::try_from(spent.cost_ns / spent.counters.hits.max(1)).unwrap_or(u32::MAX),
        target_seconds: micro(spent.cost_ns),
        stacks: spent.counters.stacks,
        stacks_target_seconds: micro(spent.stacks_ns),
    };
    session.probes().into_iter().map(place).collect()
}

/// Nanoseconds as seconds, rounded to the microsecond: hits can be few.
fn micro(ns: u64) -> f64 {
    (ns as f64 / 1e3).round() / 1e6
}

/// The lines for a person.
pub(super) fn write(out: &mut String, observed: &Observed) -> std::fmt::Result {
    use std::fmt::Write as _;
    let Observed { modes, cost, .. } = observed;
    write!(out, "  mode {}", observed.mode)?;
    if modes.choice != observed.mode.into() {
        write!(out, " (asked for {})", modes.choice)?;
    }
    writeln!(
        out,
        "; probes cost {:.3} % of a core, {:.2} % of the target's CPU time (budget: {}; over it for {:.1} s)",
        cost.percent_of_core, cost.percent_of_target, cost.budget, cost.over_budget_seconds,
    )?;
    writeln!(out, "  {}", observed.known.sentence())?;
    if let Some(reason) = &modes.no_probes {
        writeln!(out, "  no probes: {}", printable(reason))?;
    }
    for RefusedMode { mode, reason } in &modes.refused {
        writeln!(out, "  no mode {}: {}", mode, printable(reason))?;
    }
    let hidden = modes.history.len().saturating_sub(MAX_MOVES_SHOWN);
    if modes.moves > MAX_MOVES_SHOWN as u64 {
        writeln!(out, "  {} moves between modes; the last:", modes.moves)?;
    }
    for moved in modes.history.iter().skip(hidden) {
        writeln!(out, "  at {:.1} s to {}: {}", moved.seconds, moved.mode, printable(&moved.reason))?;
    }
    Ok(())
}
