//! How long a look at many goroutines takes, and what the program notices of it.

use std::io::Write as _;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use parkwarden_tests::wait::{self, nothing_for};
use xtask::{command, toolchain};

use crate::document::Section;
use crate::measure::{Stall, TIMES, median, milliseconds, parkwarden, timed};

const GOROUTINES: [u32; 3] = [10_000, 100_000, 1_000_000];

/// How long delve may take.
const DELVE_WITHIN: Duration = Duration::from_secs(120);

pub fn run() -> anyhow::Result<Section> {
    if command::find("dlv").is_none() {
        command::apt_install(&["delve"])?;
    }
    let mut rows = Vec::new();
    for goroutines in GOROUTINES {
        let (mut stall, other) = (Stall::start(0, goroutines), Stall::start(0, goroutines));
        let (mut idle, mut looks, mut stalls, mut elsewhere) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let mut own = [("goroutine", 0), ("goroutine", 2)].map(|profile| (profile, Vec::new(), Vec::new()));
        for _ in 0..TIMES {
            let ((look, seconds), longest) = stall.during(|stall| timed(|| snapshot(stall.pid(), goroutines)));
            look?;
            looks.push(seconds);
            stalls.push(longest);
            let (look, longest) = stall.during(|_| snapshot(other.pid(), goroutines));
            look?;
            elsewhere.push(longest);
            // As long: the longest of more waits is longer.
            idle.push(stall.during(|_| nothing_for(Duration::from_secs_f64(seconds))).1);
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
            milliseconds(median(elsewhere)),
            milliseconds(median(idle)),
        ];
        for (_, times, longest) in own {
            row.push(format!("{} / {}", milliseconds(median(times)), milliseconds(median(longest))));
        }
        drop(stall);
        row.push(delve(goroutines)?);
        rows.push(row);
    }
    Ok(Section {
        title: "Looking at all goroutines",
        about: "`parkwarden snapshot --format json`, from its start to its end, and the longest a 50 µs ticker in the target \
                is kept waiting meanwhile; the same while another program of the same size is looked at, so that as much is to \
                do for the CPUs; while nothing is done for as long; and for the program's own profiles (Go 1.27.3). Medians of \
                five. And once for Debian's delve, which lists all goroutines of the same program, built with a Go that it knows \
                (1.19.8), within two minutes or not at all."
            .to_owned(),
        columns: vec![
            "goroutines",
            "snapshot",
            "stall: snapshot",
            "stall: snapshot of another",
            "stall: nothing",
            "own `debug=0`: time / stall",
            "own `debug=2`: time / stall",
            "delve: time / stall",
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

/// What it takes Debian's delve to attach, list all goroutines and let go, and what the program notices of it.
fn delve(goroutines: u32) -> anyhow::Result<String> {
    let mut stall = Stall::start_with(toolchain::DEBIAN, 0, goroutines);
    let ((outcome, seconds), longest) = stall.during(|stall| timed(|| list_with_delve(stall.pid(), goroutines)));
    Ok(match outcome? {
        true => format!("{} / {}", milliseconds(seconds), milliseconds(longest)),
        false => format!("over {} s", DELVE_WITHIN.as_secs()),
    })
}

/// Whether it was done in time.
fn list_with_delve(pid: u32, goroutines: u32) -> anyhow::Result<bool> {
    /// Killed when dropped.
    struct Delve(Child);
    impl Drop for Delve {
        fn drop(&mut self) {
            // Both fail only when it has ended already.
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
    let mut output = tempfile::tempfile()?;
    let child = Command::new("dlv")
        .args(["attach", "--allow-non-terminal-interactive=true", &pid.to_string()])
        .stdin(Stdio::piped())
        .stdout(output.try_clone()?)
        .stderr(Stdio::null())
        .spawn()
        .context("starting dlv")?;
    let mut delve = Delve(child);
    // To the question whether to kill the program, too.
    delve.0.stdin.take().context("a pipe")?.write_all(b"goroutines\nexit\nn\n")?;
    let ended = wait::within(DELVE_WITHIN, || delve.0.try_wait().transpose().ok_or(()));
    let Ok(ended) = ended else { return Ok(false) };
    ended?;
    std::io::Seek::rewind(&mut output)?;
    let text = std::io::read_to_string(&mut output)?;
    let listed = text.lines().filter(|line| line.trim_start_matches(['*', ' ', '(']).starts_with("Goroutine ")).count();
    if listed < goroutines as usize {
        bail!("delve listed {listed} of {goroutines} goroutines: {:.500}", text);
    }
    Ok(true)
}
