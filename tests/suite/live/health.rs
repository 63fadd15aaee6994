//! Whoever asks the agent how it is gets an answer at once, whatever else it waits for.

use std::fs::{File, OpenOptions};
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use parkwarden_tests::agent::binary;
use parkwarden_tests::copied::Copied;
use parkwarden_tests::node::Node;
use parkwarden_tests::{BuildFlags, Target, fixture, incident};
use serde_json::{Value, json};

use super::node_attack::{address, ask, get};

/// How long an answer may take.
const SOON: Duration = Duration::from_secs(2);

/// Keeps SQLite from writing to a recording, as a disk does that does not answer: its lock for writers of the write-ahead log
/// (`WAL_WRITE_LOCK`, byte 120 of the `-shm` file) is held from here. Let go of when dropped.
struct Held {
    _shared: File,
}

impl Held {
    fn of(recording: &Path) -> Self {
        let path = format!("{}-shm", recording.display());
        let shared =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).expect("a file");
        let lock =
            libc::flock { l_type: libc::F_WRLCK as _, l_whence: libc::SEEK_SET as _, l_start: 120, l_len: 1, l_pid: 0 };
        fcntl(&shared, FcntlArg::F_SETLKW(&lock)).expect("the lock");
        Self { _shared: shared }
    }
}

/// The status of an answer, which has to come soon.
fn soon(node: &Node, path: &str) -> u16 {
    let begun = Instant::now();
    let status = ask(address(node), &get(path, "")).unwrap_or_else(|| panic!("{path} is not answered"));
    assert!(begun.elapsed() < SOON, "{path} took {:?}", begun.elapsed());
    status
}

#[test]
fn health_and_metrics_wait_for_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let recording = directory.path().join("recording.db");
    incident::record(&recording);
    // An API server that accepts connections and says nothing.
    let api = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let server = format!("http://{}", api.local_addr().expect("it is bound"));
    let kubeconfig = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": server}}], "users": [{"name": "u", "user": {}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
    });
    let config = directory.path().join("kubeconfig");
    std::fs::write(&config, kubeconfig.to_string()).expect("written");
    // A process whose memory never answers, and one to be watched.
    let hostile = Copied::file(&fixture("hostile", "1.22.10", BuildFlags::Default), "hostile");
    let (hanging, _): (_, Value) = Target::ready(&hostile.program, ["hang"]);
    let honest = Copied::of("leaks");
    let (watched, _): (_, Value) = Target::ready(&honest.program, ["-n", "3"]);

    let held = Held::of(&recording);
    let mut command = Command::new(binary());
    command.args(["agent", "--listen", "127.0.0.1:0", "--interval", "500ms", "--record"]).arg(&recording);
    command.args(["--kubernetes", "on", "--node-name", "node-1"]).env("KUBECONFIG", &config);
    command.args(["--exe", &hostile.pattern(), "--exe", &honest.pattern()]);
    let node = Node::spawn(&mut command);
    // It has not even started: it waits for the recording.
    assert_eq!((soon(&node, "/healthz"), soon(&node, "/readyz"), soon(&node, "/metrics")), (200, 503, 200));
    assert!(node.series("parkwarden_recording_up").is_empty());
    drop(held);
    node.wait_for_state(watched.pid(), "watched");
    node.wait_for("readiness", |node| (soon(node, "/readyz") == 200).then_some(()));
    assert_eq!(node.process(hanging.pid()).expect("it is known")["state"], "starting", "its memory never answers");

    let _held = Held::of(&recording);
    let done = AtomicBool::new(false);
    let errors = |node: &Node| node.series("parkwarden_recording_errors_total")[0].1;
    let before = errors(&node);
    std::thread::scope(|scope| {
        let url = address(&node);
        let profile = format!("/debug/pprof/goroutine?pid={}", hanging.pid());
        // As many as there are threads to serve, and more.
        for path in ["/metrics", "/metrics", "/metrics", "/api/v1/processes", &profile] {
            let (done, request) = (&done, get(path, ""));
            scope.spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    ask(url, &request);
                }
            });
        }
        let held_up = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            // What could not be written in time is given up and counted: all that time it was held up.
            while errors(&node) < before + 1.0 {
                for path in ["/healthz", "/readyz", "/metrics"] {
                    assert_eq!(soon(&node, path), 200, "{path}");
                }
            }
        }));
        done.store(true, Ordering::Relaxed);
        held_up.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}
