//! Does `auto` keep to its budget, whatever the program does?

use std::time::{Duration, Instant};

use anyhow::Context as _;
use parkwarden::report::Report;
use parkwarden_tests::wait::nothing_for;
use parkwarden_tests::{BuildFlags, Target, fixture};
use serde::Deserialize;
use serde_json::Value;
use xtask::toolchain;

use crate::document::Section;
use crate::measure::{end, watch};
use crate::prometheus::Prometheus;

/// How long each is watched.
const TIME: Duration = Duration::from_secs(120);

/// Does nothing for so long, then as much as it can for so long, or a job.
struct Pattern {
    name: &'static str,
    idle: Duration,
    work: Work,
}

enum Work {
    Busy(Duration),
    /// Values sent to and fro.
    Job(u32),
}

const PATTERNS: [Pattern; 7] = [
    Pattern { name: "1 s idle, 1 s busy", idle: Duration::from_secs(1), work: Work::Busy(Duration::from_secs(1)) },
    Pattern { name: "4 s idle, 4 s busy", idle: Duration::from_secs(4), work: Work::Busy(Duration::from_secs(4)) },
    Pattern { name: "20 s idle, 20 s busy", idle: Duration::from_secs(20), work: Work::Busy(Duration::from_secs(20)) },
    Pattern { name: "busy", idle: Duration::ZERO, work: Work::Busy(TIME) },
    Pattern { name: "a small job every 10 s", idle: Duration::from_secs(10), work: Work::Job(500) },
    Pattern { name: "a small job every 60 s", idle: Duration::from_secs(60), work: Work::Job(3_000) },
    Pattern { name: "a large job every 10 s", idle: Duration::from_secs(10), work: Work::Job(100_000) },
];

#[derive(Deserialize)]
struct Done {
    parks: u64,
    num_goroutine: u64,
}

pub fn run() -> anyhow::Result<Section> {
    let mut rows = PATTERNS.iter().map(row).collect::<anyhow::Result<Vec<_>>>()?;
    rows.push(prometheus()?);
    Ok(Section {
        title: "The budget",
        about: format!(
            "A program with 1000 parked goroutines that does nothing and as much as it can in turns: two ping-pongs and a loop \
             that starts goroutines; or that sends values to and fro now and then, as a job that cron starts: 500 every 10 s, 3000 \
             every 60 s, and 100000 every 10 s; and Prometheus with nothing to scrape but itself. `--mode auto` with its \
             default budget, {} s each. Parks: a second of the busy time, by the program's own count. Cost and time over the budget by parkwarden's account (see \
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
            "mode in the end",
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
        match pattern.work {
            Work::Busy(time) => {
                let _: Done = target.ask("busy");
                nothing_for(time.min(left()));
                let _: Done = target.ask("idle");
            }
            Work::Job(values) => drop(target.ask::<Done>(&format!("job {values}"))),
        }
        busy += began.elapsed();
    }
    let done: Done = target.ask("idle");
    let report = end(watching)?;
    let goroutines = &report.goroutines;
    let live = goroutines.live.checked_sub(goroutines.system).context("more goroutines of the runtime's than live")?;
    let parks = format!("{:.0}/s", done.parks as f64 / busy.as_secs_f64());
    let drift = (live.cast_signed() - done.num_goroutine.cast_signed()).to_string();
    Ok(told(pattern.name, parks, &report, drift))
}

/// A server that does little but scrape itself.
fn prometheus() -> anyhow::Result<Vec<String>> {
    let server = Prometheus::start(None)?;
    let watching = watch(server.pid(), "auto", "1s")?;
    nothing_for(TIME);
    let watched = end(watching)?;
    Ok(told("Prometheus, nearly idle", "-".to_owned(), &watched, "-".to_owned()))
}

fn told(name: &str, parks: String, report: &Report, drift: String) -> Vec<String> {
    let cost = &report.observed.cost;
    vec![
        name.to_owned(),
        parks,
        format!("{:.0} ms", 1e3 * cost.target_seconds),
        format!("{:.2} %", cost.percent_of_target),
        format!("{:.2} s", cost.over_budget_seconds),
        format!("{:.2} s", cost.longest_over_budget_seconds),
        report.observed.modes.moves.to_string(),
        report.observed.mode.to_string(),
        drift,
    ]
}
