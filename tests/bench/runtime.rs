//! What it costs the agent to read the runtime of a node's worth of programs at every look, and the programs.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use parkwarden::clock::now_ns;
use parkwarden::discover::usage::Usage;
use parkwarden::live::Target as Live;
use parkwarden::runtime::vitals::Vitals;
use parkwarden_tests::wait::nothing_for;
use parkwarden_tests::{BuildFlags, Target, fixture};
use serde_json::Value;
use xtask::toolchain::{NEWEST, VERSIONS};

use crate::document::Section;

/// How many programs.
const PROGRAMS: usize = 50;

/// Readings of each.
const READINGS: u32 = 40;

/// How often the agent reads each by default.
const INTERVAL: Duration = Duration::from_secs(15);

pub fn run() -> anyhow::Result<Section> {
    let rows = [quiet("1.21.13", 4)?, quiet(NEWEST, 4)?, quiet(NEWEST, 64)?, threads()?];
    Ok(Section {
        title: "Reading the runtimes of a node's programs",
        about: format!(
            "{PROGRAMS} stripped programs, the scheduler, memory and collector of each read {READINGS} times as a watch does at every \
             look: CPU time that a reading takes parkwarden, the first one with its search for the variables apart, and what that is \
             at the agent's interval of {} s. The program is not stopped and runs nothing for it; its CPU time meanwhile is the last \
             column.",
            INTERVAL.as_secs()
        ),
        columns: vec![
            "programs",
            "search for variables",
            "a reading",
            "50 programs every 15 s",
            "elapsed, longest",
            "CPU of the programs",
        ],
        rows: rows.to_vec(),
    })
}

/// Programs that do nothing.
fn quiet(version: &str, processors: usize) -> anyhow::Result<Vec<String>> {
    ensure!(VERSIONS.contains(&version), "no such toolchain");
    measure(&format!("Go {version}, GOMAXPROCS={processors}"), version, processors, &[])
}

/// Programs with many threads.
fn threads() -> anyhow::Result<Vec<String>> {
    measure(&format!("Go {NEWEST}, 100 threads in system calls"), NEWEST, 4, &["-fault", "syscalls", "-n", "100"])
}

fn measure(name: &str, version: &str, processors: usize, arguments: &[&str]) -> anyhow::Result<Vec<String>> {
    let program = fixture("vitals", version, BuildFlags::Stripped);
    let mut targets = Vec::new();
    for _ in 0..PROGRAMS {
        let mut command = std::process::Command::new(&program);
        command.args(arguments).env("GOMAXPROCS", processors.to_string());
        let mut target = Target::spawn_command(command);
        let _: Value = target.answer();
        targets.push(target);
    }
    // What they do when they begin is not to be measured.
    nothing_for(Duration::from_secs(2));
    let lives: Vec<Live> = targets.iter().map(|target| Live::open(target.pid())).collect::<Result<_, _>>()?;
    let begun = own_cpu()?;
    let known = lives
        .iter()
        .map(|live| Ok((live, live.runtime_structs(), live.vital_places()?)))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let searched = own_cpu()? - begun;
    let theirs = || targets.iter().filter_map(|target| Usage::of(target.pid())).map(|usage| usage.cpu_ns).sum::<u64>();
    let (before, start) = (theirs(), own_cpu()?);
    let mut longest = Duration::ZERO;
    for _ in 0..READINGS {
        for (live, structs, places) in &known {
            let began = Instant::now();
            Vitals::read(live.memory(), structs, places, now_ns())?;
            longest = longest.max(began.elapsed());
        }
    }
    let reading = (own_cpu()? - start) as f64 / f64::from(READINGS) / PROGRAMS as f64;
    let took = theirs() - before;
    Ok(vec![
        format!("{PROGRAMS} of {name}"),
        format!("{:.1} ms", searched as f64 / 1e6 / PROGRAMS as f64),
        format!("{:.0} µs", reading / 1e3),
        format!("{:.3} % of a core", 100.0 * reading * PROGRAMS as f64 / INTERVAL.as_nanos() as f64),
        format!("{:.1} ms", longest.as_secs_f64() * 1e3),
        format!("{:.1} ms", took as f64 / 1e6),
    ])
}

/// CPU time of this process.
fn own_cpu() -> anyhow::Result<u64> {
    let time = nix::time::clock_gettime(nix::time::ClockId::CLOCK_PROCESS_CPUTIME_ID)?;
    let ns = u64::try_from(time.tv_sec()).context("a time")? * 1_000_000_000;
    Ok(ns + u64::try_from(time.tv_nsec()).context("a time")?)
}
