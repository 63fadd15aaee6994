//! Does `auto` keep to its budget, whatever the program does?

use std::time::{Duration, Instant};

use anyhow::Context as _;
use parkwarden_tests::wait::nothing_for;
use parkwarden_tests::{BuildFlags, Target, fixture};
use serde::Deserialize;
use serde_json::Value;
use xtask::toolchain;

use crate::document::Section;
use crate::measure::{end, watch};

/// How long each is watched.
const TIME: Duration = Duration::from_secs(120);

/// Does nothing for so long, then as much as it can for so long.
struct Pattern {
    name: &'static str,
    idle: Duration,
    busy: Duration,
}

const PATTERNS: [Pattern; 4] = [
    Pattern { name: "1 s idle, 1 s busy", idle: Duration::from_secs(1), busy: Duration::from_secs(1) },
    Pattern { name: "4 s idle, 4 s busy", idle: Duration::from_secs(4), busy: Duration::from_secs(4) },
    Pattern { name: "20 s idle, 20 s busy", idle: Duration::from_secs(20), busy: Duration::from_secs(20) },
    Pattern { name: "busy", idle: Duration::ZERO, busy: TIME },
];

#[derive(Deserialize)]
struct Done {
    parks: u64,
    num_goroutine: u64,
}

pub fn run() -> anyhow::Result<Section> {
    let rows = PATTERNS.iter().map(row).collect::<anyhow::Result<_>>()?;
    Ok(Section {
        title: "The budget",
        about: format!(
            "A program with 1000 parked goroutines that does nothing and as much as it can in turns: two ping-pongs and a loop \
             that starts goroutines. `--mode auto` with its default budget, {} s each. Parks: a second of the busy time, by the \
             program's own count. Cost and time over the budget by parkwarden's account (see \
             above). Before the first burst a second of the budget is credit. Drift: live goroutines by the last report less \
             what the program says.",
            TIME.as_secs()
        ),
        columns: vec![
            "program",
            "parks",
            "cost",
            "of the target's CPU time",
            "over budget",
            "longest",
            "moves",
            "drift",
        ],
        rows,
    })
}

fn row(pattern: &Pattern) -> anyhow::Result<Vec<String>> {
    let program = fixture("swing", toolchain::NEWEST, BuildFlags::Default);
    let (mut target, _): (Target, Value) = Target::ready(&program, ["-parked", "1000"]);
    let watching = watch(target.pid(), "auto", "1s")?;
    let (start, mut busy) = (Instant::now(), Duration::ZERO);
    while start.elapsed() < TIME {
        let left = || TIME.saturating_sub(start.elapsed());
        nothing_for(pattern.idle.min(left()));
        let began = Instant::now();
        let _: Done = target.ask("busy");
        nothing_for(pattern.busy.min(left()));
        let _: Done = target.ask("idle");
        busy += began.elapsed();
    }
    let done: Done = target.ask("idle");
    let report = end(watching)?;
    let (cost, goroutines) = (&report.observed.cost, &report.goroutines);
    let live = goroutines.live.checked_sub(goroutines.system).context("more goroutines of the runtime's than live")?;
    Ok(vec![
        pattern.name.to_owned(),
        format!("{:.0}/s", done.parks as f64 / busy.as_secs_f64()),
        format!("{:.0} ms", 1e3 * cost.target_seconds),
        format!("{:.2} %", cost.percent_of_target),
        format!("{:.2} s", cost.over_budget_seconds),
        format!("{:.2} s", cost.longest_over_budget_seconds),
        report.observed.modes.moves.to_string(),
        (live.cast_signed() - done.num_goroutine.cast_signed()).to_string(),
    ])
}
