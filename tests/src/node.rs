//! `parkwarden agent` as a process, with the HTTP that it serves.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::agent::{binary, closes_within};
use crate::target::DEADLINE;
use crate::wait;

/// A running agent; killed when dropped.
#[derive(Debug)]
pub struct Node {
    child: Child,
    /// What it says on stderr.
    pub errors: Receiver<String>,
    /// Where it serves, such as `http://127.0.0.1:9465`.
    pub url: String,
    /// What requests to it bring, if it wants a token.
    pub token: Option<String>,
}

impl Node {
    /// Starts an agent that watches processes of `executables` alone, a pattern, on a port of its own, and returns once it
    /// serves.
    ///
    /// # Panics
    ///
    /// When it does not come to that.
    pub fn start(executables: &str, arguments: &[&str]) -> Self {
        let mut command = Command::new(binary());
        command.args(["agent", "--listen", "127.0.0.1:0", "--kubernetes", "off"]);
        if !executables.is_empty() {
            command.args(["--exe", executables]);
        }
        command.args(arguments);
        Self::spawn(&mut command)
    }

    /// Starts a command that the caller has prepared.
    ///
    /// # Panics
    ///
    /// When it does not come to serve.
    pub fn spawn(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::inherit())
            .stderr(Stdio::piped())
            .spawn()
            .expect("parkwarden runs");
        let (sender, errors) = channel();
        let stderr = BufReader::new(child.stderr.take().expect("a pipe"));
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                // Nobody listens any more once the test is over.
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let mut said = Vec::new();
        loop {
            match errors.recv_timeout(DEADLINE) {
                Ok(line) => match line.split_once("serving on ") {
                    Some((_, url)) => return Self { child, errors, url: url.trim().to_owned(), token: None },
                    None => said.push(line),
                },
                Err(_) => panic!("the agent serves nothing: {said:#?}"),
            }
        }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it answers to a GET: status and body.
    ///
    /// # Panics
    ///
    /// When it does not answer.
    pub fn get(&self, path: &str) -> (u16, String) {
        let (status, body) = self.get_bytes(path);
        (status, String::from_utf8_lossy(&body).into_owned())
    }

    /// The same as bytes.
    ///
    /// # Panics
    ///
    /// When it does not answer.
    pub fn get_bytes(&self, path: &str) -> (u16, Vec<u8>) {
        let config = ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(DEADLINE)).build();
        let agent: ureq::Agent = config.into();
        let mut request = agent.get(format!("{}{path}", self.url));
        if let Some(token) = &self.token {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        let mut response = request.call().expect("an answer");
        let body = response.body_mut().with_config().limit(1 << 28).read_to_vec().expect("a body");
        (response.status().as_u16(), body)
    }

    /// The list of processes.
    ///
    /// # Panics
    ///
    /// When there is none.
    pub fn processes(&self) -> Vec<Value> {
        let (status, body) = self.get("/api/v1/processes");
        assert_eq!(status, 200, "{body}");
        let list: Value = serde_json::from_str(&body).expect("JSON");
        list["processes"].as_array().expect("a list").clone()
    }

    /// The entry of a process in that list.
    ///
    /// # Panics
    ///
    /// When there is no list.
    pub fn process(&self, pid: u32) -> Option<Value> {
        self.processes().into_iter().find(|process| process["pid"] == pid)
    }

    /// The report of a process.
    pub fn report(&self, pid: u32) -> Option<parkwarden::report::Report> {
        let (status, body) = self.get(&format!("/api/v1/processes/{pid}"));
        if status == 200 { serde_json::from_str(&body).ok() } else { None }
    }

    /// The values of all series of a metric, by their labels as the text format has them.
    pub fn series(&self, name: &str) -> Vec<(String, f64)> {
        let (_, text) = self.get("/metrics");
        let of = |line: &str| {
            let rest = line.strip_prefix(name)?;
            let (labels, value) = rest.rsplit_once(' ')?;
            (labels.is_empty() || labels.starts_with('{')).then_some(())?;
            Some((labels.to_owned(), value.parse().ok()?))
        };
        text.lines().filter_map(of).collect()
    }

    /// Waits until something is there.
    ///
    /// # Panics
    ///
    /// When it does not come.
    pub fn wait_for<T>(&self, what: &str, mut look: impl FnMut(&Self) -> Option<T>) -> T {
        let found = wait::within(DEADLINE, || look(self).ok_or(()));
        found.unwrap_or_else(|()| panic!("waited in vain for {what}; it said {:#?}", self.said()))
    }

    /// Waits until a process is in that state.
    ///
    /// # Panics
    ///
    /// When it does not come to that.
    pub fn wait_for_state(&self, pid: u32, state: &str) -> Value {
        self.wait_for(&format!("pid {pid} being {state}"), |node| {
            node.process(pid).filter(|process| process["state"] == state)
        })
    }

    /// Everything on stderr since the last time.
    pub fn said(&self) -> Vec<String> {
        self.errors.try_iter().collect()
    }

    /// Sends a signal.
    ///
    /// # Panics
    ///
    /// When it is gone.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).expect("signalled");
    }

    /// Waits for its end, that long at most. Returns whether it has ended.
    pub fn ends_within(&self, time: Duration) -> bool {
        closes_within(&self.errors, time)
    }

    /// Tells it to end, and waits until it has; how long that took.
    ///
    /// # Panics
    ///
    /// When it does not end.
    pub fn end(mut self) -> (ExitStatus, Duration) {
        let start = Instant::now();
        self.signal(Signal::SIGTERM);
        let status = wait::until("the agent's end", DEADLINE, || self.child.try_wait().expect("waited for"));
        (status, start.elapsed())
    }

    /// Open file descriptors.
    pub fn descriptors(&self) -> usize {
        std::fs::read_dir(Path::new("/proc").join(self.pid().to_string()).join("fd")).map_or(0, Iterator::count)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
