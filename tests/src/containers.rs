//! Real containers without a daemon, a registry or a network: Debian's containerd and runc, started for one test with
//! directories of their own, and images made here.
//!
//! The socket and all state are in a temporary directory. What the shims keep elsewhere, in `/run/containerd/s`, goes with
//! them. Dropping a [`Containerd`] ends every container and shim it started, whoever asked for them, unmounts their file
//! systems and removes their control groups.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::de::DeserializeOwned;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;
use xtask::{command, packages};

use crate::target::DEADLINE;
use crate::wait;

/// How long a killed process and its control group may take to be gone.
const GONE: Duration = Duration::from_secs(10);

/// It copies files instead of stacking file systems, so that it works on any file system, an overlay too.
pub const SNAPSHOTTER: &str = "native";

/// A containerd that serves `ctr` alone: the kubelet's interface would want a network for its pods.
const WITHOUT_CRI: &str = "disabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n";

/// A containerd of its own; dropped, it and all its containers are gone.
#[derive(Debug)]
pub struct Containerd {
    child: Child,
    /// Where it listens.
    pub socket: PathBuf,
    /// The control group that its containers are below, unless they are started with another.
    pub group: String,
    started: AtomicU32,
    dir: TempDir,
}

/// A container to be started.
#[derive(Clone, Copy, Debug, Default)]
pub struct Run<'a> {
    /// containerd's namespace.
    pub namespace: &'a str,
    /// The image, as it was named when it was made.
    pub image: &'a str,
    /// The uid of the pod whose control group it is put in, as a kubelet would; none for a container of no pod.
    pub pod_uid: Option<&'a str>,
    /// Bytes of memory it may use, without swap.
    pub memory_limit: Option<u64>,
    /// What comes after the image's entrypoint.
    pub arguments: &'a [&'a str],
}

/// A running container. It ends with its [`Containerd`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// Its id: 64 hexadecimal digits, as container runtimes of a kubelet make them.
    pub id: String,
    /// Its first process, as the host numbers it.
    pub pid: u32,
    /// What it prints.
    pub log: PathBuf,
}

impl Containerd {
    /// Starts one that has no pods.
    ///
    /// # Panics
    ///
    /// When it does not come to serve.
    pub fn start() -> Self {
        Self::with(Command::new("containerd"), WITHOUT_CRI)
    }

    /// Starts the command, which is `containerd` or ends by executing it (as `nsenter` does), with a configuration of the
    /// caller's: TOML that says nothing of `version`, `root`, `state`, `grpc`, `ttrpc` and the plugin `opt`, keys before
    /// tables. Containers of pods that others ask it for should use [`SNAPSHOTTER`].
    ///
    /// # Panics
    ///
    /// When it does not come to serve.
    pub fn with(mut containerd: Command, config: &str) -> Self {
        for program in ["containerd", "runc"] {
            packages::program(program).expect("installed");
        }
        assert!(command::is_root(), "containers take root: run the tests with `cargo xtask test`");
        let dir = tempfile::Builder::new().prefix("parkwarden-").tempdir().expect("a directory");
        let place = |name: &str| dir.path().join(name);
        let socket = place("containerd.sock");
        let text = format!(
            "version = 2\nroot = {root:?}\nstate = {state:?}\n{config}\n[grpc]\naddress = {socket:?}\n[ttrpc]\n\
             address = {ttrpc:?}\n[plugins.\"io.containerd.internal.v1.opt\"]\npath = {opt:?}\n",
            root = place("root"),
            state = place("state"),
            ttrpc = place("containerd.sock.ttrpc"),
            opt = place("opt"),
        );
        fs::write(place("config.toml"), text).expect("written");
        let log = File::create(place("containerd.log")).expect("a file");
        containerd.arg("--config").arg(place("config.toml"));
        containerd.stdin(Stdio::null()).stdout(log.try_clone().expect("a file")).stderr(log);
        let child = containerd.spawn().unwrap_or_else(|error| panic!("starting containerd: {error}"));
        let group = format!("/{}", dir.path().file_name().and_then(|name| name.to_str()).expect("a name"));
        let mut containerd = Self { child, socket, group, started: AtomicU32::new(0), dir };
        let served = wait::within(DEADLINE, || {
            let ended = containerd.child.try_wait().expect("it can be waited for");
            assert!(ended.is_none(), "containerd has ended: {}", containerd.log());
            command::output(containerd.ctr("default").arg("version"))
        });
        served.unwrap_or_else(|error| panic!("containerd serves nothing: {error:#}\n{}", containerd.log()));
        containerd
    }

    /// `ctr` in a namespace, to be told what to do.
    pub fn ctr(&self, namespace: &str) -> Command {
        let mut ctr = Command::new("ctr");
        ctr.arg("--address").arg(&self.socket).args(["--namespace", namespace]);
        ctr
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it said so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("containerd.log")).unwrap_or_default()
    }

    /// Takes an image made by [`image`], into a namespace.
    ///
    /// # Panics
    ///
    /// When it does not want it.
    pub fn import(&self, namespace: &str, tar: &Path) {
        let mut import = self.ctr(namespace);
        import.args(["image", "import", "--snapshotter", SNAPSHOTTER]).arg(tar);
        self.succeeds(&mut import);
    }

    /// Starts a container, without a network, and returns once its process runs.
    ///
    /// # Panics
    ///
    /// When it does not start.
    pub fn run(&self, run: &Run<'_>) -> Container {
        let number = self.started.fetch_add(1, Ordering::Relaxed);
        let id = hex(&Sha256::digest(format!("{} {number}", self.group)));
        let place = |what: &str| self.dir.path().join(format!("{number}.{what}"));
        let (log, pid) = (place("log"), place("pid"));
        let group = match run.pod_uid {
            Some(uid) => format!("{}/kubepods/besteffort/pod{uid}/{id}", self.group),
            None => format!("{}/{}/{id}", self.group, run.namespace),
        };
        let mut ctr = self.ctr(run.namespace);
        ctr.args(["run", "--detach", "--snapshotter", SNAPSHOTTER, "--cgroup", &group]);
        if let Some(bytes) = run.memory_limit {
            ctr.args(["--memory-limit", &bytes.to_string()]);
        }
        ctr.arg("--runc-root").arg(self.dir.path().join("runc")).arg("--pid-file").arg(&pid);
        ctr.arg("--log-uri").arg(format!("file://{}", log.display())).args([run.image, &id]).args(run.arguments);
        self.succeeds(&mut ctr);
        let pid = fs::read_to_string(&pid).ok().and_then(|pid| pid.trim().parse().ok()).expect("ctr wrote the pid");
        if run.memory_limit.is_some() {
            for group in groups(&group) {
                // Version 2 and 1; what there is of them.
                for knob in ["memory.swap.max", "memory.swappiness"].map(|knob| group.join(knob)) {
                    if knob.exists() {
                        fs::write(&knob, "0").unwrap_or_else(|error| panic!("{}: {error}", knob.display()));
                    }
                }
            }
        }
        Container { id, pid, log }
    }

    fn succeeds(&self, ctr: &mut Command) {
        command::output(ctr).unwrap_or_else(|error| panic!("{error:#}\n{}", self.log()));
    }

    /// Asks for the end of every container in an orderly way, which leaves nothing behind.
    fn delete_tasks(&self) -> anyhow::Result<()> {
        for namespace in command::output(self.ctr("default").args(["namespaces", "list", "--quiet"]))?.lines() {
            for task in command::output(self.ctr(namespace).args(["tasks", "list", "--quiet"]))?.lines() {
                // Fails when it ended meanwhile.
                let _ = command::output(self.ctr(namespace).args(["tasks", "delete", "--force", task]));
            }
        }
        Ok(())
    }

    /// The shims that belong to this containerd: they are nobody's children.
    fn shims(&self) -> Vec<u32> {
        let socket = self.socket.as_os_str().as_encoded_bytes();
        let ours = |pid: &u32| {
            let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let words: Vec<&[u8]> = command.split(|byte| *byte == 0).collect();
            words[0].ends_with(b"containerd-shim-runc-v2") && words.contains(&socket)
        };
        processes().filter(ours).collect()
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        // Whatever does not answer any more is killed below.
        let _ = self.delete_tasks();
        let _ = self.child.kill();
        let _ = self.child.wait();
        let mut killed = self.shims();
        for shim in killed.clone() {
            killed.extend(descendants(shim));
        }
        for pid in &killed {
            // Fails only when it has ended already.
            let _ = kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL);
        }
        let gone = wait::within(GONE, || {
            unmount_below(self.dir.path());
            let left = killed.iter().any(|pid| is_alive(*pid)) | !remove_groups(&self.group);
            if left { Err(()) } else { Ok(()) }
        });
        if gone.is_err() {
            eprintln!("containers of {} are not gone: {killed:?}, {}", self.dir.path().display(), self.group);
        }
    }
}

impl Container {
    /// The first line it prints, as JSON.
    ///
    /// # Panics
    ///
    /// When it prints none before the deadline, or something else.
    pub fn said<T: DeserializeOwned>(&self) -> T {
        let line = wait::until("a line of the container's", DEADLINE, || {
            let mut line = String::new();
            BufReader::new(File::open(&self.log).ok()?).read_line(&mut line).expect("UTF-8");
            line.ends_with('\n').then_some(line)
        });
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("the container said {line}: {error}"))
    }
}

/// An image for [`Containerd::import`], as `docker save` writes it: one layer with copies of files, each executable and at a
/// path in the image, and nothing else.
///
/// # Panics
///
/// When a file cannot be read, or the image not be written.
pub fn image(name: &str, files: &[(&str, &Path)], entrypoint: &[&str]) -> tempfile::TempPath {
    let mut layer = tar::Builder::new(Vec::new());
    for (inside, outside) in files {
        let content = fs::read(outside).unwrap_or_else(|error| panic!("{}: {error}", outside.display()));
        append(&mut layer, inside.trim_start_matches('/'), &content);
    }
    let layer = layer.into_inner().expect("in memory");
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let digest = hex(&Sha256::digest(&layer));
    let config = json!({
        "architecture": architecture, "os": "linux", "config": {"Entrypoint": entrypoint},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{digest}")]},
    });
    let manifest = json!([{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]);
    let file = tempfile::NamedTempFile::new().expect("a file");
    let mut image = tar::Builder::new(file.as_file());
    append(&mut image, "config.json", config.to_string().as_bytes());
    append(&mut image, "layer.tar", &layer);
    append(&mut image, "manifest.json", manifest.to_string().as_bytes());
    image.into_inner().expect("written");
    file.into_temp_path()
}

fn append(tar: &mut tar::Builder<impl std::io::Write>, path: &str, content: &[u8]) {
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(0o755);
    tar.append_data(&mut header, path, content).unwrap_or_else(|error| panic!("{path}: {error}"));
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn processes() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").expect("/proc").flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// Parent and state of a process.
fn parent(pid: u32) -> Option<(u32, char)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before is in parentheses, and may have some.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((fields.next()?.parse().ok()?, state))
}

fn is_alive(pid: u32) -> bool {
    parent(pid).is_some_and(|(_, state)| state != 'Z')
}

fn descendants(pid: u32) -> Vec<u32> {
    let children = processes().filter(|child| parent(*child).is_some_and(|(parent, _)| parent == pid));
    children.flat_map(|child| [vec![child], descendants(child)].concat()).collect()
}

fn unmount_below(dir: &Path) {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(4)).map(Path::new);
    // What was mounted last first.
    for point in points.filter(|point| point.starts_with(dir)).collect::<Vec<_>>().into_iter().rev() {
        // Fails when it went with another.
        let _ = umount2(point, MntFlags::MNT_DETACH);
    }
}

/// Where a control group is, in every hierarchy that has it.
fn groups(group: &str) -> impl Iterator<Item = PathBuf> {
    let root = Path::new("/sys/fs/cgroup");
    // Version 2 alone is mounted here, the hierarchies of version 1 below.
    let below = fs::read_dir(root).into_iter().flatten().flatten().map(|entry| entry.path());
    let hierarchies: BTreeSet<PathBuf> = below.chain([root.to_owned()]).collect();
    let group = group.trim_start_matches('/').to_owned();
    hierarchies.into_iter().map(move |hierarchy| hierarchy.join(&group)).filter(|group| group.is_dir())
}

/// Removes a control group and all below it in every hierarchy; whether it is gone.
fn remove_groups(group: &str) -> bool {
    groups(group).filter(|group| !remove_group(group)).count() == 0
}

fn remove_group(group: &Path) -> bool {
    let below = fs::read_dir(group).into_iter().flatten().flatten().map(|entry| entry.path());
    for inner in below.filter(|path| path.is_dir()) {
        remove_group(&inner);
    }
    fs::remove_dir(group).is_ok()
}
