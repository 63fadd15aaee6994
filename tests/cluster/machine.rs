//! What the cluster needs of the machine, in network and mount namespaces that this process was started in: an address, a
//! `/var` and a `/run` to write to, and kernel settings that kubelets insist on. All of it ends with the namespaces.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use xtask::command::{output, run};

/// The node's address; pods have others of its network.
pub const NODE_ADDRESS: &str = "10.98.0.1";
/// The network of node and pods.
pub const POD_NETWORK: &str = "10.98.0.0/24";
/// The bridge that connects them.
pub const BRIDGE: &str = "cni0";
/// Addresses of services.
pub const SERVICE_NETWORK: &str = "10.96.0.0/24";
/// The first of them: the API server's, as pods know it. It is the node's too, which saves a kube-proxy.
pub const API_ADDRESS: &str = "10.96.0.1";

/// What a kubelet sets if it is not so, for the whole machine.
const KERNEL_SETTINGS: [(&str, &str); 6] = [
    ("vm/overcommit_memory", "1"),
    ("vm/panic_on_oom", "0"),
    ("kernel/panic", "10"),
    ("kernel/panic_on_oops", "1"),
    ("kernel/keys/root_maxkeys", "1000000"),
    ("kernel/keys/root_maxbytes", "25000000"),
];

/// A directory in memory that ends with the namespaces.
#[derive(Debug)]
pub struct Machine {
    dir: PathBuf,
}

impl Machine {
    /// Makes the namespaces of this process a node's.
    ///
    /// # Panics
    ///
    /// When they are the machine's own, or cannot be made so.
    pub fn prepare() -> Self {
        for namespace in ["net", "mnt"] {
            let of = |pid| fs::read_link(format!("/proc/{pid}/ns/{namespace}")).expect("root reads links");
            let (own, outer) = (of(std::process::id()), of(std::os::unix::process::parent_id()));
            assert_ne!(own, outer, "this needs namespaces of its own: `cargo xtask test --cluster`");
        }
        let target = xtask::target_dir();
        for hidden in ["/var", "/run"] {
            assert!(!target.starts_with(hidden), "{hidden} is hidden from the cluster: set CARGO_TARGET_DIR elsewhere");
        }
        let dir = target.join("cluster/run");
        fs::create_dir_all(&dir).expect("a directory");
        let mount = |arguments: &[&str], place: &Path| succeeds(Command::new("mount").args(arguments).arg(place));
        mount(&["-t", "tmpfs", "-o", "mode=755", "cluster"], &dir);
        let machine = Self { dir };

        // What a node writes to is new, and what the machine has is there to read.
        let (upper, work) = (machine.directory("var"), machine.directory("var-work"));
        let layers = format!("lowerdir=/var,upperdir={},workdir={}", upper.display(), work.display());
        mount(&["-t", "overlay", "-o", &layers, "cluster"], Path::new("/var"));
        mount(&["-t", "tmpfs", "-o", "mode=755", "cluster"], Path::new("/run"));
        for (number, (setting, value)) in KERNEL_SETTINGS.into_iter().enumerate() {
            let file = machine.file(&format!("setting-{number}"), value);
            mount(&["--bind", &file.display().to_string()], &Path::new("/proc/sys").join(setting));
        }

        let ip = |words: &str| succeeds(Command::new("ip").args(words.split(' ')));
        ip("link set lo up");
        ip(&format!("address add {API_ADDRESS}/32 dev lo"));
        ip(&format!("link add {BRIDGE} type bridge"));
        ip(&format!("address add {NODE_ADDRESS}/24 dev {BRIDGE}"));
        ip(&format!("link set {BRIDGE} up"));
        fs::write("/proc/sys/net/ipv4/ip_forward", "1").expect("it is this namespace's");
        machine
    }

    /// A path in its directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// A directory in it.
    ///
    /// # Panics
    ///
    /// When it cannot be made.
    pub fn directory(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        path
    }

    /// A file in it.
    ///
    /// # Panics
    ///
    /// When it cannot be written.
    pub fn file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, content).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        path
    }
}

/// Makes a control group in every hierarchy, which a kubelet puts its own below.
///
/// # Panics
///
/// When it cannot.
pub fn control_group(name: &str) {
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("/proc");
    for mount in mounts.lines() {
        // ID PARENT DEVICE ROOT POINT OPTIONS… - TYPE SOURCE OPTIONS
        let Some((before, after)) = mount.split_once(" - ") else { continue };
        let Some(point) = before.split(' ').nth(4).filter(|_| after.starts_with("cgroup")) else { continue };
        let group = Path::new(point).join(name.trim_start_matches('/'));
        fs::create_dir_all(&group).unwrap_or_else(|error| panic!("{}: {error}", group.display()));
    }
}

/// Runs a command that has to succeed.
///
/// # Panics
///
/// When it does not.
pub fn succeeds(command: &mut Command) {
    run(command).unwrap_or_else(|error| panic!("{error:#}"));
}

/// What a command that has to succeed prints.
///
/// # Panics
///
/// When it does not.
pub fn prints(command: &mut Command) -> String {
    output(command).unwrap_or_else(|error| panic!("{error:#}"))
}
