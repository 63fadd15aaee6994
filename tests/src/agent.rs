//! parkwarden as a process, run by tests as its users run it.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use parkwarden::report::Report;

use crate::target::DEADLINE;

/// The `parkwarden` binary of this source tree, built if it must be.
///
/// # Panics
///
/// When it does not build.
pub fn binary() -> &'static PathBuf {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| build(&[]))
}

/// Builds `parkwarden` with further arguments for cargo; the binary.
///
/// # Panics
///
/// When it does not build.
pub fn build(arguments: &[&str]) -> PathBuf {
    let output = xtask::command::cargo()
        .args(["build", "--quiet", "--workspace", "--bin", "parkwarden", "--message-format=json"])
        .args(arguments)
        .stderr(Stdio::inherit())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "parkwarden does not build");
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
        .expect("cargo names the executable")
}

/// Runs parkwarden to its end.
///
/// # Panics
///
/// When it cannot be started.
pub fn run<S: AsRef<std::ffi::OsStr>>(arguments: impl IntoIterator<Item = S>) -> Output {
    Command::new(binary()).args(arguments).stdin(Stdio::null()).output().expect("parkwarden runs")
}

/// Waits until a process has closed its stderr, whose lines these are, that long at most. Returns whether it has.
pub(crate) fn closes_within(lines: &Receiver<String>, time: Duration) -> bool {
    let deadline = Instant::now() + time;
    loop {
        match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(_) => {}
            Err(RecvTimeoutError::Disconnected) => return true,
            Err(RecvTimeoutError::Timeout) => return false,
        }
    }
}

/// A `parkwarden watch --format json` that has attached its probes; killed when dropped.
#[derive(Debug)]
pub struct Watch {
    child: Child,
    errors: Receiver<String>,
    output: Option<std::thread::JoinHandle<String>>,
}

/// How a watch ended.
#[derive(Debug)]
pub struct Ended {
    /// Exit status; none when a signal killed it.
    pub code: Option<i32>,
    /// What it printed.
    pub output: String,
    /// What it said on stderr after it had attached.
    pub errors: Vec<String>,
}

impl Ended {
    /// The report it printed.
    ///
    /// # Panics
    ///
    /// When it printed none.
    pub fn report(&self) -> Report {
        serde_json::from_str(&self.output)
            .unwrap_or_else(|error| panic!("no report: {error}\n{}\n{:?}", self.output, self.errors))
    }
}

impl Watch {
    /// Starts to watch `pid` until told to stop, and returns once the probes are attached.
    ///
    /// # Panics
    ///
    /// When it does not come to that.
    pub fn start(pid: u32, arguments: &[&str]) -> Self {
        Self::try_start(pid, arguments).unwrap_or_else(|said| panic!("parkwarden did not attach to {pid}: {said}"))
    }

    /// As [`Watch::start`]; what it said when it ended without having attached.
    ///
    /// # Errors
    ///
    /// When it refuses the target, or fails.
    ///
    /// # Panics
    ///
    /// When it neither attaches nor ends.
    pub fn try_start(pid: u32, arguments: &[&str]) -> Result<Self, String> {
        Self::with(Command::new(binary()), pid, arguments)
    }

    /// As [`Watch::start`], with further environment variables.
    ///
    /// # Panics
    ///
    /// When it does not come to that.
    pub fn start_in(environment: &[(&str, &str)], pid: u32, arguments: &[&str]) -> Self {
        let mut command = Command::new(binary());
        command.envs(environment.iter().copied());
        Self::with(command, pid, arguments).unwrap_or_else(|said| panic!("parkwarden did not attach to {pid}: {said}"))
    }

    /// As [`Watch::try_start`], with a command that runs another build of parkwarden, or runs it otherwise.
    ///
    /// # Errors
    ///
    /// When it refuses the target, or fails.
    ///
    /// # Panics
    ///
    /// When it cannot be started, or neither attaches nor ends.
    pub fn with(mut command: Command, pid: u32, arguments: &[&str]) -> Result<Self, String> {
        let mut child = command
            .args(["watch", "--pid", &pid.to_string(), "--for", "0s", "--format", "json"])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("parkwarden runs");
        let (sender, errors) = channel();
        let stderr = BufReader::new(child.stderr.take().expect("a pipe"));
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                // Nobody listens any more once the test is over.
                let _ = sender.send(line);
            }
        });
        let mut stdout = child.stdout.take().expect("a pipe");
        let output = std::thread::spawn(move || {
            let mut text = String::new();
            stdout.read_to_string(&mut text).expect("UTF-8");
            text
        });
        let watch = Self { child, errors, output: Some(output) };
        let mut said = Vec::new();
        loop {
            match watch.errors.recv_timeout(DEADLINE) {
                Ok(line) if line.starts_with("parkwarden: watching pid") => return Ok(watch),
                Ok(line) => said.push(line),
                Err(RecvTimeoutError::Disconnected) => return Err(said.join("\n")),
                Err(error) => panic!("parkwarden did not attach to {pid}: {error}: {said:?}"),
            }
        }
    }

    /// Its pid.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal.
    ///
    /// # Panics
    ///
    /// When it has ended already.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).expect("parkwarden runs");
    }

    /// Waits until it says something on stderr.
    ///
    /// # Panics
    ///
    /// When it does not before the deadline.
    pub fn until(&self, is_it: impl Fn(&str) -> bool) {
        let deadline = Instant::now() + DEADLINE;
        loop {
            match self.errors.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) if is_it(&line) => break,
                Ok(_) => {}
                Err(error) => panic!("parkwarden did not say what was waited for: {error}"),
            }
        }
    }

    /// Waits for its end, that long at most. Returns whether it has ended.
    pub fn ends_within(&self, time: Duration) -> bool {
        closes_within(&self.errors, time)
    }

    /// Waits for its end.
    ///
    /// # Panics
    ///
    /// When it does not end before the deadline.
    pub fn ended(mut self) -> Ended {
        let mut errors = Vec::new();
        // Its stderr closes when it ends.
        loop {
            match self.errors.recv_timeout(DEADLINE) {
                Ok(line) => errors.push(line),
                Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => break,
                Err(error) => panic!("parkwarden did not end: {error}: {errors:?}"),
            }
        }
        let code = self.child.wait().expect("it can be waited for").code();
        let output = self.output.take().expect("taken once").join().expect("stdout is read");
        Ended { code, output, errors }
    }

    /// Ends the watch as Ctrl-C does.
    pub fn interrupt(self) -> Ended {
        self.signal(Signal::SIGINT);
        self.ended()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
