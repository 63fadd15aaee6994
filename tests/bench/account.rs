//! Is what parkwarden says it costs what it costs?

use crate::cost::{loads, prometheus};
use crate::document::Section;
use crate::measure::{end, median, watch};

const ROUNDS: usize = 5;

pub fn run() -> anyhow::Result<Section> {
    let mut rows = Vec::new();
    for (cpus, word) in [(Some(1), "1"), (None, "all")] {
        for mut load in loads(cpus).into_iter().chain([prometheus(cpus)?]) {
            for mode in ["births", "filter", "trace"] {
                let (mut measured, mut said) = (Vec::new(), Vec::new());
                for _ in 0..ROUNDS {
                    let without = load.measure()?.cpu_ns;
                    let watching = watch(load.pid, mode, "1s")?;
                    let with = load.measure()?.cpu_ns;
                    said.push(end(watching)?.observed.cost.percent_of_target);
                    measured.push(100.0 * (with - without) / with);
                }
                let (measured, said) = (median(measured), median(said));
                rows.push(vec![
                    load.name.to_owned(),
                    word.to_owned(),
                    format!("`{mode}`"),
                    format!("{measured:.1} %"),
                    format!("{said:.1} %"),
                    format!("{:.2}", said / measured),
                ]);
            }
        }
    }
    Ok(Section {
        title: "The account",
        about: format!(
            "The same programs, and Prometheus that eight clients have compute, watched and not in turns, {ROUNDS} times each. Measured: what each round took more of CPU time, \
             as a share of what it took with probes. Said: `percent_of_target` in the report, which is hits times what \
             calibration found a hit to cost on this host. On one CPU (`GOMAXPROCS`) that is all there is; with more, Go's \
             scheduler adds to it, because a program that is slowed down leaves its other threads more time to look for work. \
             Medians."
        ),
        columns: vec!["program", "CPUs", "mode", "measured", "said", "said / measured"],
        rows,
    })
}
