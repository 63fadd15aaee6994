//! What the agent takes for itself while it watches a node's worth of programs that do little.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use parkwarden_tests::wait::nothing_for;
use parkwarden_tests::{BuildFlags, Target, fixture};
use serde_json::Value;
use xtask::toolchain;

use crate::document::Section;
use crate::measure::parkwarden;

/// How many processes, of how many executables.
const PROGRAMS: usize = 50;
const EXECUTABLES: usize = 20;

/// Goroutines of each: 16 times this many wait in different ways.
const EACH: &str = "20";

/// Goroutines of one large program.
const MANY: &str = "200000";

/// Until the agent has found all and has settled on a mode for each.
const SETTLE: Duration = Duration::from_secs(45);

/// How long it is measured.
const TIME: Duration = Duration::from_secs(60);

/// An agent; killed when dropped.
struct Agent(Child);

impl Drop for Agent {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub fn run() -> anyhow::Result<Section> {
    let mut rows = node()?;
    rows.push(many()?);
    Ok(Section {
        title: "The agent beside programs that do little",
        about: format!(
            "`parkwarden agent`, otherwise with its defaults, beside {PROGRAMS} processes of {EXECUTABLES} executables (one program \
             of several Go versions, built in several ways) with some 300 goroutines each, all parked; and beside one with \
             {MANY} parked goroutines. {} s after the start, over {} s: what the agent took, with the scrape at the end. Most: \
             the largest RSS so far.",
            SETTLE.as_secs(),
            TIME.as_secs()
        ),
        columns: vec![
            "programs",
            "mode",
            "CPU",
            "RSS",
            "most",
            "threads",
            "descriptors",
            "scrape",
            "end after SIGTERM",
        ],
        rows,
    })
}

/// Beside many small programs.
fn node() -> anyhow::Result<Vec<Vec<String>>> {
    let dir = tempfile::tempdir()?;
    let flags = [BuildFlags::Stripped, BuildFlags::Default, BuildFlags::PieStripped];
    let built = flags.into_iter().flat_map(|flags| toolchain::VERSIONS.map(|version| (flags, version)));
    let mut programs = Vec::new();
    for (flags, version) in built.take(EXECUTABLES) {
        let program = dir.path().join(format!("idle-{version}-{}", flags.name()));
        std::fs::copy(fixture("leaks", version, flags), &program)?;
        programs.push(program);
    }
    let mut targets = Vec::new();
    for program in programs.iter().cycle().take(PROGRAMS) {
        let (mut target, _): (Target, Value) = Target::ready(program, ["-wait", "-n", EACH]);
        let _: Value = target.ask("go");
        targets.push(target);
    }
    let pattern = format!("{}/*", dir.path().display());
    ["auto", "census"].iter().map(|mode| row(&format!("{PROGRAMS}"), PROGRAMS, mode, &pattern)).collect()
}

/// Beside one large program.
fn many() -> anyhow::Result<Vec<String>> {
    let dir = tempfile::tempdir()?;
    let program = dir.path().join("many");
    std::fs::copy(fixture("swing", toolchain::NEWEST, BuildFlags::Stripped), &program)?;
    let (mut target, _): (Target, Value) = Target::ready(&program, ["-parked", MANY]);
    let _: Value = target.ask("idle");
    row(&format!("1 with {MANY} goroutines"), 1, "auto", &format!("{}/*", dir.path().display()))
}

fn row(name: &str, programs: usize, mode: &str, pattern: &str) -> anyhow::Result<Vec<String>> {
    let mut child = parkwarden()
        .args(["agent", "--listen", "127.0.0.1:0", "--kubernetes", "off", "--mode", mode, "--exe", pattern])
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut errors = BufReader::new(child.stderr.take().context("a pipe")?).lines();
    let mut agent = Agent(child);
    let url = loop {
        let line = errors.next().context("the agent serves nothing")??;
        if let Some((_, url)) = line.split_once("serving on ") {
            break url.to_owned();
        }
    };
    // What it says later has to go somewhere.
    std::thread::spawn(move || errors.map_while(Result::ok).for_each(drop));
    nothing_for(SETTLE);
    let pid = agent.0.id();
    let usage = || parkwarden::discover::usage::Usage::of(pid).context("the agent lives");
    let (before, start) = (usage()?, Instant::now());
    nothing_for(TIME);
    let (after, seconds) = (usage()?, start.elapsed().as_secs_f64());
    let scrape = ureq::get(format!("{url}/metrics")).call()?.body_mut().read_to_string()?;
    let watched = scrape.lines().filter(|line| line.starts_with("parkwarden_goroutines{")).count();
    ensure!(watched == programs, "{watched} processes are watched");
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let most =
        status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse::<f64>().ok());
    let count = |what: &str| std::fs::read_dir(format!("/proc/{pid}/{what}")).map_or(0, Iterator::count);
    let (threads, descriptors) = (count("task"), count("fd"));
    let start = Instant::now();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid.cast_signed()), nix::sys::signal::Signal::SIGTERM)?;
    agent.0.wait()?;
    Ok(vec![
        name.to_owned(),
        format!("`{mode}`"),
        format!("{:.2} % of a core", 100.0 * (after.cpu_ns - before.cpu_ns) as f64 / 1e9 / seconds),
        format!("{:.1} MiB", after.rss_bytes as f64 / f64::from(1 << 20)),
        format!("{:.1} MiB", most.context("the agent's memory")? / 1024.0),
        threads.to_string(),
        descriptors.to_string(),
        format!("{} KiB, {} lines", scrape.len() / 1024, scrape.lines().count()),
        format!("{:.1} s", start.elapsed().as_secs_f64()),
    ])
}
