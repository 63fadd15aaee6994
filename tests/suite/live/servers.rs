//! Real servers that nobody here built: Debian's packages, stripped, under ordinary work for a minute; with `--long`, for ten
//! minutes, and ten more without any, as the agent would watch them.
//!
//! None of them leaks or hangs, so no group may be called more than idle, and every event must be accounted for.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parkwarden::detect::Verdict;
use parkwarden::ps::Listing;
use parkwarden::report::{Lost, Report};
use parkwarden::snapshot::Snapshot;
use parkwarden_tests::agent::run;
use parkwarden_tests::free_ports;
use parkwarden_tests::target::DEADLINE;
use parkwarden_tests::turn::turn;
use parkwarden_tests::wait;
use xtask::command;

/// Debian package, its program, arguments, and a path to ask for. `DIR` is a directory of its own, `PORT` where it listens;
/// `PEERS` is a port for etcd's own kind, `CONTAINERD` the directory of containerd.
const SERVERS: [(&str, &str, &[&str], &str); 8] = [
    ("containerd", "containerd", &["--config=DIR/containerd.toml"], "/v1/metrics"),
    (
        "docker.io",
        "dockerd",
        &[
            "--host=tcp://127.0.0.1:PORT",
            "--tls=false",
            "--containerd=CONTAINERD/socket",
            "--data-root=DIR/root",
            "--exec-root=DIR/exec",
            "--pidfile=DIR/pid",
            "--iptables=false",
            "--bridge=none",
            "--storage-driver=vfs",
        ],
        "/version",
    ),
    (
        "etcd-server",
        "etcd",
        &[
            "--data-dir=DIR",
            "--listen-client-urls=http://127.0.0.1:PORT",
            "--advertise-client-urls=http://127.0.0.1:PORT",
            "--listen-peer-urls=http://127.0.0.1:PEERS",
            "--initial-advertise-peer-urls=http://127.0.0.1:PEERS",
            "--initial-cluster=default=http://127.0.0.1:PEERS",
        ],
        "/metrics",
    ),
    (
        "prometheus",
        "prometheus",
        &["--config.file=DIR/prometheus.yml", "--storage.tsdb.path=DIR", "--web.listen-address=127.0.0.1:PORT"],
        "/api/v1/query?query=up",
    ),
    ("prometheus-node-exporter", "prometheus-node-exporter", &["--web.listen-address=127.0.0.1:PORT"], "/metrics"),
    ("caddy", "caddy", &["file-server", "--listen=127.0.0.1:PORT", "--root=/etc", "--browse"], "/"),
    (
        "syncthing",
        "syncthing",
        &["serve", "--no-browser", "--gui-address=127.0.0.1:PORT", "--home=DIR", "--no-default-folder"],
        "/rest/noauth/health",
    ),
    ("rclone", "rclone", &["serve", "http", "/etc", "--addr=127.0.0.1:PORT"], "/"),
];

/// With `--long`: how long they have work, and how long they have none after that.
const LONG: Duration = Duration::from_mins(10);

/// Killed when dropped, its children with it.
pub(crate) struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let group = nix::unistd::Pid::from_raw(self.0.id().cast_signed());
        // Fails only when it has ended already.
        let _ = nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGKILL);
        let _ = self.0.wait();
    }
}

/// Set when dropped, however the test ends: the customers go on until then.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A command that runs a program with mounts of its own: dockerd mounts its directory on itself, and killed leaves it so.
fn apart(program: &Path) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "--"]).arg(program);
    command
}

pub(crate) fn start(mut program: Command, arguments: &[String], directory: &std::path::Path) -> Server {
    use std::os::unix::process::CommandExt as _;
    let child = program
        .args(arguments)
        .env("HOME", directory)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn();
    Server(child.unwrap_or_else(|error| panic!("{}: {error}", command::describe(&program))))
}

/// One request on a connection of its own; the status code.
fn get(port: u16, path: &str) -> std::io::Result<u16> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let line = String::from_utf8_lossy(&answer);
    let code = line.split(' ').nth(1).and_then(|code| code.parse().ok());
    code.ok_or_else(|| std::io::Error::other(format!("no HTTP answer: {line:.80}")))
}

/// Where each server's program is. Two of them are not installed, which would start them.
fn programs(unpacked: &Path) -> Vec<PathBuf> {
    let unpack = |package: &str| matches!(package, "docker.io" | "containerd");
    let missing: Vec<&str> = SERVERS
        .iter()
        .filter(|(package, program, ..)| !unpack(package) && command::find(program).is_none())
        .map(|(package, ..)| *package)
        .collect();
    if !missing.is_empty() {
        command::apt_install(&missing).expect("Debian's packages can be installed");
    }
    let program = |(package, program, ..): &(&str, &str, &[&str], &str)| {
        if !unpack(package) {
            return PathBuf::from(program);
        }
        let directory = unpacked.join(package);
        command::apt_unpack(package, &directory).expect("Debian's package can be had");
        let places = ["usr/sbin", "usr/bin"].map(|place| directory.join(place).join(program));
        places.into_iter().find(|path| path.exists()).expect("the package has it")
    };
    SERVERS.iter().map(program).collect()
}

/// What they read: of the two that Prometheus scrapes one is itself.
fn configure(directory: &Path, [containerd, prometheus, node_exporter]: [u16; 3]) {
    let place = directory.display();
    let config = format!(
        "scrape_configs:\n- job_name: itself\n  scrape_interval: 1s\n  static_configs:\n  \
         - targets: ['127.0.0.1:{prometheus}', '127.0.0.1:{node_exporter}']\n"
    );
    std::fs::write(directory.join("prometheus.yml"), config).expect("written");
    let config = format!(
        "version = 2\nroot = '{place}/root'\nstate = '{place}/state'\n[grpc]\naddress = '{place}/socket'\n\
         [metrics]\naddress = '127.0.0.1:{containerd}'\n"
    );
    std::fs::write(directory.join("containerd.toml"), config).expect("written");
}

#[test]
fn servers_from_debian_are_understood_and_none_is_said_to_leak() {
    let _turn = turn();
    let long = std::env::var_os("PARKWARDEN_LONG").is_some();
    let unpacked = tempfile::tempdir().expect("a directory");
    let programs = programs(unpacked.path());
    let directories: Vec<_> = SERVERS.iter().map(|_| tempfile::tempdir().expect("a directory")).collect();
    let [peers, ports @ ..] = free_ports::<{ SERVERS.len() + 1 }>();
    let port_of =
        |name: &str| SERVERS.iter().zip(ports).find(|((_, program, ..), _)| *program == name).expect("it is one").1;
    let containerd = directories[0].path().to_str().expect("UTF-8");
    let servers: Vec<Server> = SERVERS
        .iter()
        .zip(&programs)
        .zip(&directories)
        .zip(ports)
        .map(|((((.., arguments, _), program), directory), port)| {
            configure(directory.path(), ["containerd", "prometheus", "prometheus-node-exporter"].map(port_of));
            let place = directory.path().to_str().expect("UTF-8");
            let argument = |argument: &&str| {
                let argument = argument.replace("CONTAINERD", containerd).replace("DIR", place);
                let argument = argument.replace("PORT", &port.to_string());
                argument.replace("PEERS", &peers.to_string())
            };
            start(apart(program), &arguments.iter().map(argument).collect::<Vec<_>>(), directory.path())
        })
        .collect();
    for ((_, program, _, path), port) in SERVERS.iter().zip(ports) {
        wait::within(DEADLINE, || get(port, path)).unwrap_or_else(|error| panic!("{program} does not answer: {error}"));
    }
    // syncthing is watched by a process of its own binary: the one that serves is its child.
    let pids: Vec<u32> = servers.iter().map(|server| serving_pid(server.0.id())).collect();

    let listing: Listing = serde_json::from_slice(&run(["ps", "--format", "json"]).stdout).expect("a listing");
    let begun = Instant::now();
    let stop = AtomicBool::new(false);
    let served = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let stopped = Stop(&stop);
        // Ordinary work: a request to each in turn, as fast as they answer, by two customers.
        for _ in 0..2 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) && (!long || begun.elapsed() < LONG) {
                    for ((_, _, _, path), port) in SERVERS.iter().zip(ports) {
                        served.fetch_add(u64::from(get(port, path).is_ok()), Ordering::Relaxed);
                    }
                }
            });
        }
        let watches: Vec<_> = SERVERS
            .iter()
            .zip(&pids)
            .map(|((_, program, ..), pid)| {
                let pid = pid.to_string();
                let time = if long { 2 * LONG } else { Duration::from_secs(60) };
                let time = humantime::format_duration(time).to_string();
                let as_agent: &[&str] = if long { &["--interval", "15s", "--threshold", "1m"] } else { &[] };
                let arguments = ["watch", "--pid", &pid, "--for", &time, "--format", "json"].map(str::to_owned);
                (
                    program,
                    scope.spawn(move || run(arguments.iter().map(String::as_str).chain(as_agent.iter().copied()))),
                )
            })
            .collect();
        for ((program, watch), pid) in watches.into_iter().zip(&pids) {
            let output = watch.join().expect("parkwarden runs");
            let errors = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(0), "{program}: {errors}");
            let report: Report = serde_json::from_slice(&output.stdout).expect("a report");
            assert_eq!(report.observed.lost, Lost::default(), "{program}");
            assert!(report.observed.probes.iter().any(|probe| probe.hits > 0), "{program} did nothing");
            let leaks: Vec<_> = report.groups.iter().filter(|group| group.verdict > Verdict::Idle).collect();
            assert!(leaks.is_empty(), "{program} is said to leak: {leaks:#?}");

            let output = run(["snapshot", "--pid", &pid.to_string(), "--format", "json"]);
            let snapshot: Snapshot = serde_json::from_slice(&output.stdout).expect("a snapshot");
            assert_eq!((snapshot.lost.census_read_fault, snapshot.lost.stack_unknown), (0, 0), "{program}");
            let entry = listing.processes.iter().find(|entry| entry.pid == *pid);
            assert!(entry.is_some_and(|entry| entry.supported), "{program}: {entry:?}");
        }
        drop(stopped);
    });
    assert!(served.load(Ordering::Relaxed) > 1000, "the servers did not serve: {served:?}");
}

/// dockerd is a PIE whose pclntab is in no section of its own.
#[test]
fn a_server_without_a_section_for_its_pclntab_is_understood() {
    let package = tempfile::tempdir().expect("a directory");
    command::apt_unpack("docker.io", package.path()).expect("Debian's package can be had");
    let work = package.path().join("work");
    std::fs::create_dir(&work).expect("a directory");
    let path = |name: &str| work.join(name).to_str().expect("UTF-8").to_owned();
    // It waits for a containerd that does not come, which is enough: it runs.
    let arguments = [
        format!("--data-root={}", path("root")),
        format!("--exec-root={}", path("exec")),
        format!("--pidfile={}", path("pid")),
        format!("--host=unix://{}", path("socket")),
        format!("--containerd={}", path("containerd")),
        "--iptables=false".to_owned(),
        "--bridge=none".to_owned(),
        "--storage-driver=vfs".to_owned(),
    ];
    let program = package.path().join("usr/sbin/dockerd");
    let server = start(apart(&program), &arguments, &work);
    let pid = server.0.id().to_string();
    let waits_for_containerd = |snapshot: &Snapshot| {
        let grpc = "google.golang.org/grpc.(*ClientConn)";
        snapshot.groups.iter().any(|group| group.stack.iter().any(|frame| frame.function.starts_with(grpc)))
    };
    let seen = wait::within(DEADLINE, || {
        let output = run(["snapshot", "--pid", &pid, "--format", "json"]);
        let snapshot = serde_json::from_slice::<Snapshot>(&output.stdout).ok().filter(waits_for_containerd);
        snapshot.ok_or_else(|| String::from_utf8_lossy(&output.stderr).into_owned())
    });
    let snapshot = seen.unwrap_or_else(|said| panic!("dockerd is not understood: {said}"));
    assert_eq!((snapshot.lost.census_read_fault, snapshot.lost.stack_unknown), (0, 0));

    let output = run(["watch", "--pid", &pid, "--for", "2s", "--threshold", "0s", "--format", "json"]);
    let report: Report = serde_json::from_slice(&output.stdout).expect("a report");
    assert_eq!(report.observed.lost, Lost::default());
    assert!(report.observed.probes.iter().any(|probe| probe.hits > 0), "{:?}", report.observed.probes);
    assert!(report.target.pie && report.target.stripped);
}

/// The process that serves: the last descendant that runs the same program.
fn serving_pid(pid: u32) -> u32 {
    let comm = |pid: u32| std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let same =
        children.split_whitespace().filter_map(|child| child.parse().ok()).find(|child| comm(*child) == comm(pid));
    same.map_or(pid, serving_pid)
}
