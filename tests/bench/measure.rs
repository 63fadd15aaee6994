//! What sections share: a release build of parkwarden, the program `stall`, medians.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;
use std::time::Instant;

use anyhow::ensure;
use parkwarden::report::Report;
use parkwarden_tests::agent::Watch;
use parkwarden_tests::{BuildFlags, Target, fixture};
use serde::Deserialize;
use serde_json::Value;
use xtask::toolchain;

/// How often a thing is measured.
pub const TIMES: usize = 5;

/// parkwarden as users run it.
pub fn parkwarden() -> Command {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    Command::new(BINARY.get_or_init(|| parkwarden_tests::agent::build(&["--release"])))
}

/// Watches a process in a mode, as users do, from when its probes are attached until it is ended.
pub fn watch(pid: u32, mode: &str, interval: &str) -> anyhow::Result<Watch> {
    Watch::with(parkwarden(), pid, &["--mode", mode, "--interval", interval]).map_err(anyhow::Error::msg)
}

/// Ends a watch as Ctrl-C does; its report.
pub fn end(watch: Watch) -> anyhow::Result<Report> {
    let ended = watch.interrupt();
    ensure!(ended.code == Some(0), "a watch failed: {}", ended.errors.join("\n"));
    Ok(ended.report())
}

/// The middle one.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Milliseconds, with as many digits as mean something.
pub fn milliseconds(seconds: f64) -> String {
    let value = seconds * 1e3;
    if value < 10.0 { format!("{value:.1} ms") } else { format!("{value:.0} ms") }
}

/// A program that holds goroutines and a heap, and knows how long it was kept waiting.
pub struct Stall(Target);

#[derive(Deserialize)]
struct Longest {
    longest: u64,
}

#[derive(Deserialize)]
struct Profile {
    nanoseconds: u64,
    bytes: u64,
}

impl Stall {
    /// With `heap` MiB of objects that hold pointers, and `goroutines` that are stuck.
    pub fn start(heap: u32, goroutines: u32) -> Self {
        Self::start_with(toolchain::NEWEST, heap, goroutines)
    }

    /// The same, built with another Go.
    pub fn start_with(version: &str, heap: u32, goroutines: u32) -> Self {
        let program = fixture("stall", version, BuildFlags::Default);
        let arguments = ["-heap".to_owned(), heap.to_string(), "-n".to_owned(), goroutines.to_string()];
        let (target, _): (_, Value) = Target::ready(&program, arguments);
        Self(target)
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.0.pid()
    }

    /// Runs `what` beside it; its result, and the longest its ticker of 50 µs was kept waiting meanwhile, in seconds.
    pub fn during<T>(&mut self, what: impl FnOnce(&mut Self) -> T) -> (T, f64) {
        let _: Value = self.0.ask("reset");
        let result = what(self);
        let Longest { longest } = self.0.ask("stall");
        (result, longest as f64 / 1e9)
    }

    /// How long it takes to write a profile of itself, in seconds; none if it has no such profile.
    pub fn profile(&mut self, name: &str, debug: u32) -> Option<f64> {
        let Profile { nanoseconds, bytes } = self.0.ask(&format!("profile {name} {debug}"));
        (bytes > 0).then_some(nanoseconds as f64 / 1e9)
    }
}

/// How long something takes, in seconds.
pub fn timed<T>(what: impl FnOnce() -> T) -> (T, f64) {
    let start = Instant::now();
    let result = what();
    (result, start.elapsed().as_secs_f64())
}
