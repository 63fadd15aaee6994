//! `cargo xtask demo`: a leaking Go service, its customers, and parkwarden's report on it.
//!
//! The service and the load end when their standard input does, so nothing is left running however this process ends.

use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, bail};
use xtask::command::{self, run, say};
use xtask::{target_dir, toolchain};

/// How long parkwarden watches. With the customers' start and the detaching it must stay well below a minute.
const WATCH: &str = "30s";
/// Shorter than `watch`'s default, so that most of what leaks in half a minute is in the report.
const THRESHOLD: &str = "5s";
const LOAD: &str = "45s";

/// Builds everything, runs it, and prints the report to stdout.
pub fn demo() -> anyhow::Result<()> {
    let service = build_service()?;
    let parkwarden = build_parkwarden()?;

    let interrupted = Arc::new(AtomicBool::new(false));
    // Ctrl-C reaches parkwarden too, which then ends with its report: wait for that and clean up.
    signal_hook::flag::register(signal_hook::consts::SIGINT, Arc::clone(&interrupted)).context("handling Ctrl-C")?;

    say("starting the service and its customers");
    let mut service = Background::start(Command::new(service).stdout(Stdio::piped()))?;
    let url = service.url()?;
    let program = service.program.clone();
    let _load = Background::start(Command::new(program).args(["-load", &url, "-for", LOAD]))?;

    let pid = service.child.id().to_string();
    let mut watch = command::as_root(parkwarden);
    watch.args(["watch", "--pid", &pid, "--for", WATCH, "--threshold", THRESHOLD, "--prove"]);
    let said = command::describe(&watch);
    say(format_args!("running {said}"));
    let status = watch.status().with_context(|| format!("starting `{said}`"))?;
    if !status.success() {
        bail!("`{said}` failed: {status}");
    }
    if interrupted.load(Ordering::Relaxed) {
        say("interrupted");
    }
    Ok(())
}

fn build_service() -> anyhow::Result<PathBuf> {
    let go = toolchain::default_go()?;
    let service = target_dir().join("demo/shop");
    say(format_args!("building the demo's Go service with {}", go.display()));
    let mut build = toolchain::go_command(&go)?;
    build.current_dir(xtask::root().join("tests/go/demo")).env("CGO_ENABLED", "0");
    run(build.args(["build", "-buildvcs=false", "-trimpath", "-o"]).arg(&service).arg("."))?;
    Ok(service)
}

fn build_parkwarden() -> anyhow::Result<PathBuf> {
    say("building parkwarden");
    run(xtask::command::cargo().args([
        "build",
        "--profile",
        "quick",
        "--locked",
        "--package",
        "parkwarden",
        "--bin",
        "parkwarden",
    ]))?;
    Ok(target_dir().join("quick/parkwarden"))
}

/// A process that runs beside this one; killed when dropped.
struct Background {
    program: PathBuf,
    child: Child,
}

impl Background {
    fn start(command: &mut Command) -> anyhow::Result<Self> {
        let program = Path::new(command.get_program()).to_path_buf();
        // A process group of its own: Ctrl-C is for parkwarden, the service must live to be reported on.
        let child = command
            .stdin(Stdio::piped())
            .process_group(0)
            .spawn()
            .with_context(|| format!("starting {}", program.display()))?;
        Ok(Self { program, child })
    }

    fn url(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        let output = self.child.stdout.take().context("the service has no output")?;
        BufReader::new(output).read_line(&mut line).context("waiting for the service")?;
        let ready: serde_json::Value = serde_json::from_str(&line).context("the service did not start")?;
        Ok(ready["url"].as_str().context("the service names no URL")?.to_owned())
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
