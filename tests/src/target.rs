//! A Go program of `tests/go` as a running process.
//!
//! Tests talk with it in lines: it prints one line of JSON when it is ready and one per command; commands go to its
//! standard input. Every wait is for a line, or for the process's end, with a deadline. Dropping a target kills it.

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, ErrorKind, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;

use crate::wait;

/// How long a target may take to answer. Generous: a busy machine is no failure.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// A running Go program; killed when dropped.
#[derive(Debug)]
pub struct Target {
    name: String,
    child: Child,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
}

impl Target {
    /// Starts a program. Its standard error is the test's.
    ///
    /// # Panics
    ///
    /// When it cannot be started.
    pub fn spawn<A: AsRef<OsStr>>(program: &Path, arguments: impl IntoIterator<Item = A>) -> Self {
        let mut command = Command::new(program);
        command.args(arguments);
        Self::spawn_command(command)
    }

    /// Starts a command that the caller has prepared, for other namespaces, environments or users.
    ///
    /// # Panics
    ///
    /// When it cannot be started.
    pub fn spawn_command(mut command: Command) -> Self {
        let name = xtask::command::describe(&command);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = spawn(&mut command).unwrap_or_else(|error| panic!("starting {name}: {error}"));
        let input = child.stdin.take();
        let output = child.stdout.take().expect("stdout is a pipe");
        let (sender, lines) = channel();
        // Ends with the target's output, which ends with the target.
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Self { name, child, input, lines }
    }

    /// Starts a program and waits for its first line.
    ///
    /// # Panics
    ///
    /// When it cannot be started or does not say that it is ready.
    pub fn ready<A: AsRef<OsStr>, T: DeserializeOwned>(
        program: &Path,
        arguments: impl IntoIterator<Item = A>,
    ) -> (Self, T) {
        let mut target = Self::spawn(program, arguments);
        let said = target.answer();
        (target, said)
    }

    /// The process's id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends one line.
    ///
    /// # Panics
    ///
    /// When the target is gone.
    pub fn tell(&mut self, command: &str) {
        let input = self.input.as_mut().unwrap_or_else(|| panic!("{}: its input is closed", self.name));
        writeln!(input, "{command}").unwrap_or_else(|error| panic!("telling {} to {command}: {error}", self.name));
    }

    /// Sends one line and reads the answer.
    ///
    /// # Panics
    ///
    /// When there is no answer or it is not what was expected.
    pub fn ask<T: DeserializeOwned>(&mut self, command: &str) -> T {
        self.tell(command);
        self.answer()
    }

    /// The next line the target prints, as JSON.
    ///
    /// # Panics
    ///
    /// When no line comes before the deadline, or it is not the JSON that was expected.
    pub fn answer<T: DeserializeOwned>(&mut self) -> T {
        self.try_answer().unwrap_or_else(|| {
            let status = self.child.wait();
            panic!("{} ended without an answer: {status:?}", self.name)
        })
    }

    /// As [`Target::answer`]; none when the target has ended.
    ///
    /// # Panics
    ///
    /// When no line comes before the deadline, or it is not the JSON that was expected.
    pub fn try_answer<T: DeserializeOwned>(&mut self) -> Option<T> {
        let line = self.line()?;
        Some(serde_json::from_str(&line).unwrap_or_else(|error| panic!("{} said {line:?}: {error}", self.name)))
    }

    /// The next line the target prints, whatever it is; none when the target has ended.
    ///
    /// # Panics
    ///
    /// When no line comes before the deadline.
    pub fn line(&mut self) -> Option<String> {
        match self.lines.recv_timeout(DEADLINE) {
            Ok(line) => Some(line),
            Err(RecvTimeoutError::Timeout) => panic!("{} said nothing for {DEADLINE:?}", self.name),
            Err(RecvTimeoutError::Disconnected) => None,
        }
    }

    /// Tells the target to exit and waits until it has.
    ///
    /// # Panics
    ///
    /// When it does not exit before the deadline.
    pub fn exit(mut self) -> ExitStatus {
        self.tell("exit");
        self.input = None;
        // Its output closes when it ends: a wait with a deadline that needs no polling.
        let deadline = Instant::now() + DEADLINE;
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(_) => {}
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => panic!("{} did not exit in {DEADLINE:?}", self.name),
            }
        }
        self.child.wait().unwrap_or_else(|error| panic!("waiting for {}: {error}", self.name))
    }

    /// Kills the target and waits until it is gone.
    pub fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        self.end();
    }
}

/// Starts a program that was just written: a process forked meanwhile by another test can have it open for a moment.
///
/// # Errors
///
/// When it cannot be started.
pub fn spawn(command: &mut Command) -> std::io::Result<Child> {
    let spawned = wait::within(DEADLINE, || match command.spawn() {
        Err(error) if error.kind() == ErrorKind::ExecutableFileBusy => Err(error),
        spawned => Ok(spawned),
    });
    spawned.unwrap_or_else(Err)
}
