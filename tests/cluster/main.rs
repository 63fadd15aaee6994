//! The agent in a Kubernetes cluster, as deploy/ tells users to run it: real servers, a real node, real pods.
//!
//! `cargo xtask test --cluster` runs this, in network and mount namespaces of its own. It is one story, told in the order in
//! which a user would live it, because everything takes the cluster; a step that fails ends it. What the servers said is
//! kept in `target/cluster/logs`.

mod client;
mod keys;
mod machine;
mod monitoring;
mod pods;
mod servers;
mod steps;

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use parkwarden_tests::containers::{Containerd, SNAPSHOTTER, image};
use parkwarden_tests::{BuildFlags, fixture};
use xtask::cluster::Parts;
use xtask::command::say;
use xtask::toolchain;

use crate::client::{Kubectl, interrupted, wait_for};
use crate::machine::Machine;
use crate::servers::{NODE, Server, Settings};

/// Where kubelets look for images.
const IMAGES: &str = "k8s.io";

/// The image of what holds a pod's namespaces.
const PAUSE: &str = "docker.io/library/pause:1";

/// A cluster of one node.
#[derive(Debug)]
pub struct Cluster {
    /// All but the API server, in the order in which they were started.
    pub servers: Vec<Server>,
    /// None while it is stopped.
    pub api: Option<Server>,
    containerd: Containerd,
    /// Its administrator.
    pub kubectl: Kubectl,
    /// What its servers share.
    pub settings: Settings,
    /// The node's directory.
    pub machine: Machine,
    /// Its programs.
    pub parts: Parts,
}

impl Cluster {
    fn start() -> Self {
        let parts = Parts::installed().expect("xtask has installed them");
        let machine = Machine::prepare();
        // In memory, and so gone with the namespaces.
        tempfile::env::override_temp_dir(&machine.directory("tmp")).expect("set once");
        let settings = Settings::write(&machine);

        let begun = Instant::now();
        let mut containerd = Command::new("containerd");
        // Ctrl-C is for this process, which ends everything in order.
        containerd.process_group(0);
        let runtime = servers::runtime(&machine, &parts, PAUSE, SNAPSHOTTER);
        let mut cluster = Self {
            servers: vec![servers::etcd(&machine, &parts)],
            api: Some(servers::api(&machine, &parts)),
            containerd: Containerd::with(containerd, &runtime),
            kubectl: Kubectl::new(&machine, &parts, &settings),
            settings,
            machine,
            parts,
        };
        cluster.start_node();
        say(format_args!("a cluster of one node after {:.1?}", begun.elapsed()));
        cluster
    }

    fn start_node(&mut self) {
        let Self { machine, parts, containerd, .. } = self;
        self.servers.push(servers::controllers(machine, parts));
        self.servers.push(servers::scheduler(machine, parts));
        let [quotes, front] = ["quotes", "demo"].map(|name| fixture(name, toolchain::NEWEST, BuildFlags::Stripped));
        for (name, inside, outside) in [
            (PAUSE, "/pause", &parts.pause),
            ("docker.io/library/parkwarden:0.1.0", "/parkwarden", &parts.agent),
            ("docker.io/library/quotes:1", "/quotes", &quotes),
            ("docker.io/library/front:1", "/front", &front),
        ] {
            containerd.import(IMAGES, &image(name, &[(inside, outside)], &[inside]));
        }
        self.wait_for("the API server", |cluster| cluster.kubectl.get("namespace default"));
        machine::control_group(&self.containerd.group);
        let kubelet = servers::kubelet(&self.machine, &self.parts, &self.containerd.socket, &self.containerd.group);
        self.servers.push(kubelet);
        self.wait_for("the node", |cluster| cluster.kubectl.node_is_ready(NODE));
    }

    /// Waits for something of a cluster whose servers all run.
    fn wait_for<T>(&mut self, what: &str, look: impl Fn(&Self) -> anyhow::Result<T>) -> T {
        wait_for(what, || {
            self.check();
            look(self)
        })
    }

    /// Fails when a server has ended by itself.
    fn check(&mut self) {
        for server in self.servers.iter_mut().chain(&mut self.api) {
            server.check();
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            say(format_args!("what the servers said is in {}", servers::logs().display()));
            // What pods said goes with the namespaces.
            let copied = Command::new("cp").args(["-rL", "/var/log/pods"]).arg(servers::logs()).status();
            if copied.is_err() {
                say("what the pods said could not be kept");
            }
            let _ = fs::write(servers::logs().join("containerd.log"), self.containerd.log());
        }
        // The kubelet first, so that nobody starts again what the others end.
        while let Some(server) = self.servers.pop() {
            drop(server);
        }
    }
}

fn main() {
    signal_hook::flag::register(signal_hook::consts::SIGINT, Arc::clone(interrupted())).expect("handled");
    signal_hook::flag::register(signal_hook::consts::SIGTERM, Arc::clone(interrupted())).expect("handled");
    // Of an earlier run.
    let _ = fs::remove_dir_all(servers::logs());

    let mut cluster = Cluster::start();
    let story: [(&str, steps::Step); 14] = [
        ("the agent is ready, with the capabilities that its manifest lists and no other", steps::deploys_the_agent),
        ("an overlay gives it what this container runtime asks for", steps::gives_what_the_runtime_asks_for),
        ("a pod that leaks is named in the metrics, with container and go statement", steps::names_a_leaking_pod),
        ("`kubectl describe pod` shows that it leaks", steps::shows_an_event),
        ("`go tool pprof` opens the goroutines of a pod by its name", steps::serves_a_profile_by_pod),
        ("a pod of several programs is told apart by their containers", pods::are_told_apart_by_container),
        ("a profile is to be had without HTTP, in the agent's container", pods::give_profiles_in_the_agents_container),
        ("Alertmanager gets the alert, with pod, container and go statement", steps::raises_an_alert),
        ("an agent that is replaced loses nothing of the recording", steps::keeps_the_recording),
        ("the agent goes on while the API server is away", steps::goes_on_without_the_api),
        ("`kubectl describe pod` shows that a static pod leaks", pods::are_told_of_when_they_are_static),
        ("an OOM kill is told from another kill at the time", pods::end_as_the_oom_killer_says),
        ("other overlays work too", steps::obeys_its_overlays),
        ("without BPF an OOM kill is told by the pod's status, and a doubt as one", pods::end_as_their_status_says),
    ];
    let mut told = steps::Story::default();
    for (what, step) in story {
        let begun = Instant::now();
        step(&mut cluster, &mut told);
        cluster.check();
        say(format_args!("ok, {:4.1} s: {what}", begun.elapsed().as_secs_f64()));
    }
}

/// The path of a file of `tests/cluster/manifests`.
fn manifest(name: &str) -> PathBuf {
    xtask::root().join("tests/cluster/manifests").join(name)
}
