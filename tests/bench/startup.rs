//! From the start of `watch` to the first event it can see, and its memory, on small and large programs.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, bail};
use parkwarden_tests::target::DEADLINE;
use parkwarden_tests::{BuildFlags, fixture, wait};
use xtask::{command, toolchain};

use crate::document::Section;
use crate::measure::{TIMES, median, milliseconds, parkwarden};

/// Debian's package, its program, and arguments with which it stays.
const PROGRAMS: [(&str, &str, &[&str]); 4] = [
    ("caddy", "caddy", &["run"]),
    ("rclone", "rclone", &["serve", "http", "/etc", "--addr=127.0.0.1:23897"]),
    ("prometheus", "prometheus", &["--web.listen-address=127.0.0.1:23898"]),
    ("packer", "packer", &["console"]),
];

/// Killed when dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub fn run() -> anyhow::Result<Section> {
    let missing: Vec<&str> = PROGRAMS
        .iter()
        .filter(|(_, program, _)| command::find(program).is_none())
        .map(|(package, ..)| *package)
        .collect();
    if !missing.is_empty() {
        command::apt_install(&missing)?;
    }
    let mut rows = vec![
        row("spin, with DWARF", Command::new(fixture("spin", toolchain::NEWEST, BuildFlags::Default)))?,
        row("spin, stripped", Command::new(fixture("spin", toolchain::NEWEST, BuildFlags::Stripped)))?,
    ];
    for (_, program, arguments) in PROGRAMS {
        let path = command::find(program).with_context(|| format!("{program} is not on the PATH"))?;
        let mut command = Command::new(path);
        command.args(arguments);
        rows.push(row(program, command)?);
    }
    Ok(Section {
        title: "Start of `watch`",
        about: "From the start of the process to the moment when all probes are attached and all goroutines known with their \
                stacks, and the most memory the process had resident until then. Median of five; the programs but `spin` are \
                Debian's, stripped."
            .to_owned(),
        columns: vec!["program", "file", "Go", "attached after", "peak memory"],
        rows,
    })
}

fn row(name: &str, mut program: Command) -> anyhow::Result<Vec<String>> {
    let directory = tempfile::tempdir()?;
    let file = std::fs::metadata(program.get_program())?.len();
    let child = program.current_dir(directory.path()).env("HOME", directory.path());
    // An open input that never says anything: some end with their input.
    let child = child.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    let running = Running(child);
    let version = wait_until_watchable(running.0.id())?;
    let (mut times, mut memory) = (Vec::new(), Vec::new());
    for _ in 0..TIMES {
        let (seconds, bytes) = attach(running.0.id())?;
        times.push(seconds);
        memory.push(bytes as f64);
    }
    Ok(vec![
        name.to_owned(),
        format!("{:.0} MB", file as f64 / 1e6),
        version,
        milliseconds(median(times)),
        format!("{:.0} MB", median(memory) / 1e6),
    ])
}

/// A program can be looked at once its runtime has started; its Go version.
fn wait_until_watchable(pid: u32) -> anyhow::Result<String> {
    let opened = wait::within(DEADLINE, || parkwarden::live::Target::open(pid));
    Ok(opened.context("the program does not start")?.info().go_version)
}

/// Seconds until attached, and the most bytes resident until then.
fn attach(pid: u32) -> anyhow::Result<(f64, u64)> {
    let start = Instant::now();
    let child = parkwarden()
        .args(["watch", "--pid", &pid.to_string(), "--for", "0s", "--format", "json"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut watch = Running(child);
    let mut said = String::new();
    BufReader::new(watch.0.stderr.take().context("a pipe")?).read_line(&mut said)?;
    let seconds = start.elapsed().as_secs_f64();
    if !said.contains("watching pid") {
        bail!("not attached: {said}");
    }
    let status = std::fs::read_to_string(format!("/proc/{}/status", watch.0.id()))?;
    let kilobytes = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB"));
    Ok((seconds, 1024 * kilobytes.context("no VmHWM")?.parse::<u64>()?))
}
