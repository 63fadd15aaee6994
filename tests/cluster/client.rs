//! What a user has: kubectl, and curl for what the agent serves.

use std::fmt::Debug;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parkwarden_tests::wait;
use serde_json::Value;
use xtask::cluster::Parts;
use xtask::command::output;

use crate::keys::Authority;
use crate::machine::{Machine, prints, succeeds};
use crate::servers::Settings;

/// How long anything may take. Generous: a busy machine is no failure.
const DEADLINE: Duration = Duration::from_secs(180);

/// Where the agent serves, and the name in its certificate.
const PORT: u16 = 9465;
const NAME: &str = "parkwarden";

/// Waits until something is there.
///
/// # Panics
///
/// When it does not come, or somebody has had enough of waiting.
pub fn wait_for<T>(what: impl Debug, mut look: impl FnMut() -> anyhow::Result<T>) -> T {
    let found = wait::within(DEADLINE, || {
        assert!(!interrupted().load(Ordering::Relaxed), "interrupted");
        look()
    });
    found.unwrap_or_else(|error| panic!("waiting for {what:?}: {error:#}"))
}

/// Whether somebody has pressed Ctrl-C.
pub fn interrupted() -> &'static Arc<AtomicBool> {
    static INTERRUPTED: std::sync::OnceLock<Arc<AtomicBool>> = std::sync::OnceLock::new();
    INTERRUPTED.get_or_init(Arc::default)
}

/// An administrator of the cluster.
#[derive(Clone, Debug)]
pub struct Kubectl {
    program: PathBuf,
    admin: PathBuf,
    home: PathBuf,
}

impl Kubectl {
    /// With what the administrator was given.
    pub fn new(machine: &Machine, parts: &Parts, settings: &Settings) -> Self {
        Self { program: parts.kubectl.clone(), admin: settings.admin.clone(), home: machine.directory("home") }
    }

    /// kubectl, to be told what to do.
    pub fn command(&self, words: &str) -> Command {
        let mut command = Command::new(&self.program);
        command.env("HOME", &self.home).arg("--kubeconfig").arg(&self.admin).args(words.split(' '));
        command
    }

    /// Does something.
    ///
    /// # Panics
    ///
    /// When it fails.
    pub fn does(&self, words: &str) {
        succeeds(&mut self.command(words));
    }

    /// What it prints.
    ///
    /// # Panics
    ///
    /// When it fails.
    pub fn says(&self, words: &str) -> String {
        prints(&mut self.command(words))
    }

    /// What the API has, such as `pods --namespace shop`.
    ///
    /// # Errors
    ///
    /// When the API does not answer.
    pub fn get(&self, what: &str) -> anyhow::Result<Value> {
        Ok(serde_json::from_str(&output(&mut self.command(&format!("get --output json {what}")))?)?)
    }

    /// The one pod of this namespace that is ready, runs, and is not to end.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub fn ready_pod(&self, namespace: &str) -> anyhow::Result<Value> {
        let list = self.get(&format!("pods --namespace {namespace}"))?;
        let pods = list["items"].as_array().map(Vec::as_slice).unwrap_or_default();
        let alive = |pod: &&Value| pod["metadata"]["deletionTimestamp"].is_null();
        let ready = |pod: &&Value| {
            let conditions = pod["status"]["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
            conditions.iter().any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
        };
        match pods.iter().filter(alive).collect::<Vec<_>>()[..] {
            [pod] if ready(&pod) => Ok(pod.clone()),
            _ => anyhow::bail!("of pods in {namespace} there are {}", self.summary(namespace)),
        }
    }

    /// Nothing but that a node is ready.
    ///
    /// # Errors
    ///
    /// When it is not.
    pub fn node_is_ready(&self, node: &str) -> anyhow::Result<()> {
        let node = self.get(&format!("node {node}"))?;
        let conditions = node["status"]["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
        let ready = conditions.iter().find(|condition| condition["type"] == "Ready");
        anyhow::ensure!(ready.is_some_and(|ready| ready["status"] == "True"), "{ready:?}");
        Ok(())
    }

    fn summary(&self, namespace: &str) -> String {
        let pods = output(&mut self.command(&format!("get pods --output wide --namespace {namespace}")));
        let events = output(&mut self.command(&format!("get events --namespace {namespace}")));
        [pods, events].map(|said| said.unwrap_or_else(|error| error.to_string())).join("\n")
    }
}

/// Who has the agent's token and trusts its certificate.
#[derive(Debug)]
pub struct Agent {
    certificate: PathBuf,
    header: PathBuf,
    address: String,
}

/// One series of a scrape: its name and labels as the text has them, and its value.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// Everything before the value.
    pub name: String,
    /// The value.
    pub value: f64,
}

impl Series {
    /// Whether a label has this value.
    pub fn has(&self, label: &str, value: &str) -> bool {
        self.name.contains(&format!("{label}=\"{value}\""))
    }
}

impl Agent {
    /// Writes what the agent serves HTTPS with, for the secret of the overlay `secured`; the files' names.
    pub fn secret(machine: &Machine, authority: &Authority) -> [String; 3] {
        let signed = authority.sign(&[NAME]);
        machine.file("agent.header", &format!("Authorization: Bearer {TOKEN}"));
        let of =
            |name: &str, content: &str| format!("{name}={}", machine.file(&format!("agent-{name}"), content).display());
        [of("token", TOKEN), of("tls.crt", &signed.certificate), of("tls.key", &signed.key)]
    }

    /// The agent that serves at the address of a pod.
    ///
    /// # Panics
    ///
    /// When the pod has none.
    pub fn of(machine: &Machine, settings: &Settings, pod: &Value) -> Self {
        let address = pod["status"]["podIP"].as_str().expect("an address").to_owned();
        Self { certificate: settings.certificate.clone(), header: machine.path("agent.header"), address }
    }

    /// `curl`, for a path.
    pub fn curl(&self, path: &str) -> Command {
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--show-error", "--fail", "--max-time", "20", "--cacert"]).arg(&self.certificate);
        curl.arg("--connect-to").arg(format!("{NAME}:{PORT}:{}:{PORT}", self.address));
        curl.arg("--header").arg(format!("@{}", self.header.display())).arg(format!("https://{NAME}:{PORT}{path}"));
        curl
    }

    /// What it answers.
    ///
    /// # Errors
    ///
    /// When that is an error, or nothing.
    pub fn get(&self, path: &str) -> anyhow::Result<String> {
        output(&mut self.curl(path))
    }

    /// All series of a metric.
    ///
    /// # Errors
    ///
    /// When it does not answer.
    pub fn series(&self, name: &str) -> anyhow::Result<Vec<Series>> {
        let text = self.get("/metrics")?;
        let of = |line: &str| {
            let (series, value) = line.rsplit_once(' ')?;
            let rest = series.strip_prefix(name)?;
            (rest.is_empty() || rest.starts_with('{')).then_some(())?;
            Some(Series { name: series.to_owned(), value: value.parse().ok()? })
        };
        Ok(text.lines().filter_map(of).collect())
    }

    /// The value of a metric without labels.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub fn value(&self, name: &str) -> anyhow::Result<f64> {
        match self.series(name)?[..] {
            [Series { value, .. }] => Ok(value),
            ref others => anyhow::bail!("{name}: {others:?}"),
        }
    }
}

/// What opens the agent's reports and profiles.
const TOKEN: &str = "a-token-for-the-minutes-of-a-test";
