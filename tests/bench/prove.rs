//! How long `prove` stops a program, beside what the program's own profiles cost it.

use std::time::Duration;

use anyhow::bail;
use parkwarden::prove::ProofReport;
use parkwarden_tests::wait::nothing_for;

use crate::document::Section;
use crate::measure::{Stall, TIMES, median, milliseconds, parkwarden};

/// MiB of heap that holds pointers, and stuck goroutines.
const SIZES: [(u32, u32); 6] = [(10, 100), (100, 100), (256, 100), (1000, 100), (10, 10_000), (10, 120_000)];

pub fn run() -> anyhow::Result<Section> {
    let mut rows = Vec::new();
    for (heap, goroutines) in SIZES {
        let mut stall = Stall::start(heap, goroutines);
        let (mut idle, mut pauses, mut stalls, mut copied) = (Vec::new(), Vec::new(), Vec::new(), 0);
        let (mut own, mut dump) = (Vec::new(), Vec::new());
        for _ in 0..TIMES {
            idle.push(stall.during(|_| nothing_for(Duration::from_millis(300))).1);
            let (report, longest) = stall.during(|stall| prove(stall.pid()));
            let report = report?;
            if report.goroutines.proven != u64::from(goroutines) {
                bail!("proved {} of {goroutines} goroutines", report.goroutines.proven);
            }
            pauses.push(report.pause.seconds);
            copied = report.pause.copied_bytes;
            stalls.push(longest);
            own.extend(profile_stall(&mut stall, "goroutineleak", 0));
            dump.extend(profile_stall(&mut stall, "goroutine", 2));
        }
        rows.push(vec![
            format!("{heap} MiB"),
            goroutines.to_string(),
            format!("{} MiB", copied >> 20),
            milliseconds(median(pauses)),
            milliseconds(median(stalls)),
            milliseconds(median(idle)),
            milliseconds(median(own)),
            milliseconds(median(dump)),
        ]);
    }
    Ok(Section {
        title: "Pause of `prove`",
        about: "How long the target stands still, and the longest a 50 µs ticker in it is kept waiting: during `parkwarden \
                prove`, during nothing, and while the program (Go 1.27.3) writes its own profiles. Medians of five."
            .to_owned(),
        columns: vec![
            "heap with pointers",
            "stuck goroutines",
            "copied",
            "pause",
            "stall: prove",
            "stall: nothing",
            "stall: own `goroutineleak`",
            "stall: own `goroutine` `debug=2`",
        ],
        rows,
    })
}

fn profile_stall(stall: &mut Stall, name: &str, debug: u32) -> Option<f64> {
    let (taken, longest) = stall.during(|stall| stall.profile(name, debug));
    taken.map(|_| longest)
}

/// A pause as long as it takes: what the default allows is in the table.
fn prove(pid: u32) -> anyhow::Result<ProofReport> {
    let output =
        parkwarden().args(["prove", "--max-pause", "10s", "--format", "json", "--pid", &pid.to_string()]).output()?;
    if !output.status.success() {
        bail!("prove: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}
