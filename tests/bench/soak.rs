//! Twenty minutes of goroutines and processes that come and go: does parkwarden stay as it was?

use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use parkwarden_tests::agent::Watch;
use parkwarden_tests::wait::nothing_for;
use parkwarden_tests::{BuildFlags, Target, fixture};
use serde::Deserialize;
use serde_json::Value;
use xtask::toolchain;

use crate::document::Section;
use crate::measure::{end, median, parkwarden, watch};

const TIME: Duration = Duration::from_secs(20 * 60);

/// What is compared: the second and the last of so many parts. In the first, things find their size.
const PARTS: u32 = 10;

/// Between two samples, and between two turns of the programs.
const SAMPLE: Duration = Duration::from_secs(2);
const TURN: Duration = Duration::from_millis(50);

/// How long a program that comes and goes is watched.
const VISIT: &str = "1s";

#[derive(Deserialize)]
struct Count {
    num_goroutine: u64,
}

/// A watch that runs all the time.
struct Sampled {
    name: &'static str,
    watch: Watch,
    samples: Vec<(Duration, f64, f64)>,
}

pub fn run() -> anyhow::Result<Section> {
    let churn = fixture("churn", toolchain::NEWEST, BuildFlags::Default);
    let swing = fixture("swing", toolchain::NEWEST, BuildFlags::Default);
    let (mut churning, _): (_, Value) = Target::ready(&churn, ["-n", "500"]);
    let (mut swinging, _): (_, Value) = Target::ready(&swing, ["-parked", "1000"]);
    let mut traced = Sampled::start("churn, `--mode trace`", churning.pid(), "trace")?;
    let mut filtered = Sampled::start("churn, `--mode filter`", churning.pid(), "filter")?;
    let mut governed = Sampled::start("swings, `--mode auto`", swinging.pid(), "auto")?;
    let start = Instant::now();
    let visits = std::thread::spawn(move || -> anyhow::Result<u64> {
        let mut visits = 0;
        while start.elapsed() < TIME {
            let (target, _): (_, Value) = Target::ready(&churn, ["-n", "100"]);
            let pid = target.pid().to_string();
            let mut watch = parkwarden();
            watch.args(["watch", "--for", VISIT, "--format", "json", "--pid", &pid]);
            let output = watch.stdin(Stdio::null()).output()?;
            ensure!(output.status.success(), "a visit: {}", String::from_utf8_lossy(&output.stderr));
            target.kill();
            visits += 1;
        }
        Ok(visits)
    });
    let (mut last, mut turns) = (start, 0u64);
    let (mut churned, mut swung): (Count, Count) = (churning.ask("go"), swinging.ask("idle"));
    while start.elapsed() < TIME {
        churned = churning.ask("go");
        // Ten seconds idle, five busy.
        swung = swinging.ask(if start.elapsed().as_secs() % 15 < 10 { "idle" } else { "busy" });
        nothing_for(TURN);
        turns += 1;
        if last.elapsed() >= SAMPLE {
            last = Instant::now();
            for watch in [&mut traced, &mut filtered, &mut governed] {
                watch.sample(start.elapsed())?;
            }
        }
    }
    let visits = visits.join().ok().context("the visits panicked")??;
    if swung.num_goroutine != 1001 {
        swung = swinging.ask("idle");
    }
    let rows = vec![
        traced.finish(churned.num_goroutine)?,
        filtered.finish(churned.num_goroutine)?,
        governed.finish(swung.num_goroutine)?,
    ];
    Ok(Section {
        title: "Twenty minutes of churn",
        about: format!(
            "One program made {turns} times 500 goroutines, half of which parked, and was watched in two ways at once; another \
             was idle and as busy as it could be in turns. Beside that, {visits} programs came, were watched for {VISIT} with \
             `--mode auto`, and were killed. Memory and open files of the long watches: medians of the second and of the last \
             tenth of the time. Drift: live goroutines by the last report less what the program says. Gone unseen: goroutines \
             that a census missed though no event had told of their end (in `filter` and `census` not counted, as none is told).",
        ),
        columns: vec!["watch", "memory", "then", "open files", "then", "drift", "lost", "gone unseen", "moves"],
        rows,
    })
}

impl Sampled {
    fn start(name: &'static str, pid: u32, mode: &str) -> anyhow::Result<Self> {
        Ok(Self { name, watch: watch(pid, mode, "5s")?, samples: Vec::new() })
    }

    fn sample(&mut self, at: Duration) -> anyhow::Result<()> {
        let process = format!("/proc/{}", self.watch.pid());
        let status = std::fs::read_to_string(format!("{process}/status")).context(self.name)?;
        let kilobytes = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"));
        let files = std::fs::read_dir(format!("{process}/fd"))?.count();
        self.samples.push((at, kilobytes.context("no VmRSS")?.parse::<f64>()? / 1024.0, files as f64));
        Ok(())
    }

    fn finish(self, goroutines: u64) -> anyhow::Result<Vec<String>> {
        let report = end(self.watch).context(self.name)?;
        let part = |index: u32, of: fn(&(Duration, f64, f64)) -> f64| {
            let (from, to) = (TIME * index / PARTS, TIME * (index + 1) / PARTS);
            median(self.samples.iter().filter(|(at, ..)| (from..to).contains(at)).map(of).collect())
        };
        let observed = &report.observed;
        let lost = &observed.lost;
        let lost = lost.ring_full + lost.read_fault + lost.map_full + lost.decode_error + lost.unknown_goroutine;
        Ok(vec![
            self.name.to_owned(),
            format!("{:.1} MiB", part(1, |sample| sample.1)),
            format!("{:.1} MiB", part(PARTS - 1, |sample| sample.1)),
            format!("{:.0}", part(1, |sample| sample.2)),
            format!("{:.0}", part(PARTS - 1, |sample| sample.2)),
            format!("{}", (report.goroutines.live - report.goroutines.system).cast_signed() - goroutines.cast_signed()),
            lost.to_string(),
            observed.anomalies.vanished.to_string(),
            observed.modes.moves.to_string(),
        ])
    }
}
