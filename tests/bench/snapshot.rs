//! How long a look at many goroutines takes, and what the program notices of it.

use std::time::Duration;

use anyhow::bail;

use crate::document::Section;
use crate::measure::{Stall, TIMES, median, milliseconds, nothing_for, parkwarden, timed};

const GOROUTINES: [u32; 3] = [10_000, 100_000, 1_000_000];

pub fn run() -> anyhow::Result<Section> {
    let mut rows = Vec::new();
    for goroutines in GOROUTINES {
        let mut stall = Stall::start(0, goroutines);
        let (mut idle, mut looks, mut stalls) = (Vec::new(), Vec::new(), Vec::new());
        let mut own = [("goroutine", 0), ("goroutine", 2)].map(|profile| (profile, Vec::new(), Vec::new()));
        for _ in 0..TIMES {
            idle.push(stall.during(|_| nothing_for(Duration::from_millis(300))).1);
            let ((look, seconds), longest) = stall.during(|stall| timed(|| snapshot(stall.pid(), goroutines)));
            look?;
            looks.push(seconds);
            stalls.push(longest);
            for ((name, debug), times, longest) in &mut own {
                let (seconds, stalled) = stall.during(|stall| stall.profile(name, *debug));
                times.extend(seconds);
                longest.push(stalled);
            }
        }
        let mut row = vec![
            goroutines.to_string(),
            milliseconds(median(looks)),
            milliseconds(median(stalls)),
            milliseconds(median(idle)),
        ];
        for (_, times, longest) in own {
            row.push(format!("{} / {}", milliseconds(median(times)), milliseconds(median(longest))));
        }
        rows.push(row);
    }
    Ok(Section {
        title: "Looking at all goroutines",
        about: "`parkwarden snapshot --format json`, from its start to its end, and the longest a 50 µs ticker in the target \
                is kept waiting meanwhile; beside the same for the program's own profiles (Go 1.27.3). Medians of five."
            .to_owned(),
        columns: vec![
            "goroutines",
            "snapshot",
            "stall: snapshot",
            "stall: nothing",
            "own `debug=0`: time / stall",
            "own `debug=2`: time / stall",
        ],
        rows,
    })
}

fn snapshot(pid: u32, goroutines: u32) -> anyhow::Result<()> {
    let output = parkwarden().args(["snapshot", "--format", "json", "--pid", &pid.to_string()]).output()?;
    if !output.status.success() {
        bail!("snapshot: {}", String::from_utf8_lossy(&output.stderr));
    }
    let snapshot: parkwarden::snapshot::Snapshot = serde_json::from_slice(&output.stdout)?;
    if snapshot.goroutines.live < u64::from(goroutines) {
        bail!("saw {} of {goroutines} goroutines", snapshot.goroutines.live);
    }
    Ok(())
}
