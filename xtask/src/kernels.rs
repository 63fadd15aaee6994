//! The kernels that parkwarden is tried on, and what boots them: packages of Debian and Ubuntu, unpacked below the target
//! directory, and QEMU without hardware virtualization, so that any machine can run any of them.
//!
//! What was unpacked is used again; remove `target/kernels` to have the newest versions.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};

use crate::apt::{Archive, Release};
use crate::dist::Target;
use crate::packages::once;

/// A kernel, and what it is started with.
#[derive(Clone, Copy, Debug)]
pub struct Kernel {
    /// What tests and tables call it.
    pub name: &'static str,
    /// What it runs on.
    pub target: Target,
    release: Release,
    /// How the name of its package begins and ends; the newest between is taken.
    package: (&'static str, &'static str),
    /// Words of its command line.
    pub words: &'static [&'static str],
    /// Whether probes can be used there.
    pub probes: Probes,
}

/// How probes can be attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probes {
    /// Not at all.
    None,
    /// By a perf event each.
    PerfEvents,
    /// By links that hold any number.
    Links,
}

const fn amd64(name: &'static str, release: Release, package: (&'static str, &'static str)) -> Kernel {
    Kernel { name, target: Target::X86_64, release, package, words: &[], probes: Probes::Links }
}

const fn arm64(name: &'static str, release: Release, package: (&'static str, &'static str)) -> Kernel {
    Kernel { name, target: Target::Aarch64, release, package, words: &[], probes: Probes::Links }
}

/// All of them.
pub const KERNELS: [Kernel; 12] = [
    amd64("5.10", Release::Debian("bullseye"), ("linux-image-5.10.0-", "-cloud-amd64")).with(Probes::None),
    amd64("5.15", Release::Ubuntu("jammy"), ("linux-image-unsigned-5.15.0-", "-generic")).with(Probes::PerfEvents),
    amd64("6.1", Release::Debian("bookworm"), ("linux-image-6.1.0-", "-cloud-amd64")).with(Probes::PerfEvents),
    amd64("6.8", Release::Ubuntu("noble"), ("linux-image-unsigned-6.8.0-", "-generic")).with(Probes::PerfEvents),
    amd64("6.12", Release::Debian("trixie"), ("linux-image-6.12.", "-cloud-amd64")),
    Kernel {
        words: &["lockdown=integrity"],
        ..amd64("6.12-lockdown", Release::Debian("trixie"), ("linux-image-6.12.", "-cloud-amd64"))
    },
    Kernel {
        words: &["apparmor=1", "security=apparmor"],
        ..amd64("6.12-apparmor", Release::Debian("trixie"), ("linux-image-6.12.", "-cloud-amd64"))
    },
    amd64("newest", Release::Sid, ("linux-binary-", "-cloud-amd64")),
    arm64("arm64-6.1", Release::Debian("bookworm"), ("linux-image-6.1.0-", "-cloud-arm64")).with(Probes::PerfEvents),
    arm64("arm64-6.12", Release::Debian("trixie"), ("linux-image-6.12.", "-cloud-arm64")),
    arm64("arm64-6.12-16k", Release::Debian("trixie"), ("linux-image-6.12.", "-arm64-16k")),
    arm64("arm64-newest", Release::Sid, ("linux-binary-", "-cloud-arm64")),
];

fn home() -> PathBuf {
    crate::target_dir().join("kernels")
}

impl Kernel {
    const fn with(self, probes: Probes) -> Self {
        Self { probes, ..self }
    }

    /// The kernel's file, fetched if it is not there yet.
    ///
    /// # Errors
    ///
    /// Names the package that cannot be had.
    pub fn fetch(&self) -> anyhow::Result<PathBuf> {
        let (prefix, suffix) = self.package;
        let directory = home().join(format!("{}{suffix}", prefix.trim_end_matches(['.', '-'])));
        once(
            &directory,
            |directory| image(directory).is_some(),
            |partial| {
                let archive = Archive::of(self.release, self.target.architecture())?;
                archive.take(&archive.newest(prefix, suffix)?, "*/vmlinuz*", partial)
            },
        )
        .with_context(|| format!("fetching the kernel {} ({prefix}*{suffix})", self.name))?;
        image(&directory).context("it was there")
    }
}

fn image(directory: &Path) -> Option<PathBuf> {
    let mut entries = fs::read_dir(directory).ok()?.flatten();
    entries.next().map(|entry| entry.path())
}

/// The release whose programs are used, with their own C library, whatever this machine has.
const TOOLS: Release = Release::Debian("trixie");

/// A command that runs a program of a package for this machine, and the directory where the package is unpacked.
fn tool(package: &str, program: &str) -> anyhow::Result<(Command, PathBuf)> {
    let (architecture, loader, libraries) = match std::env::consts::ARCH {
        "x86_64" => ("amd64", "usr/lib64/ld-linux-x86-64.so.2", "usr/lib/x86_64-linux-gnu"),
        "aarch64" => ("arm64", "usr/lib/ld-linux-aarch64.so.1", "usr/lib/aarch64-linux-gnu"),
        other => bail!("no {package} is fetched for {other}"),
    };
    let root = home().join(package);
    once(
        &root,
        |root| root.join(program).is_file(),
        |partial| Archive::of(TOOLS, architecture)?.unpack_whole(&[package], partial),
    )?;
    let mut command = Command::new(root.join(loader));
    command.arg("--library-path").arg(root.join(libraries)).arg(root.join(program));
    Ok((command, root))
}

/// A command that runs QEMU for a target: a machine without network or disks, whose console is the command's output.
///
/// # Errors
///
/// When QEMU cannot be had, or this machine could not run it.
pub fn qemu(target: Target) -> anyhow::Result<Command> {
    let (package, program, machine) = match target {
        Target::X86_64 => ("qemu-system-x86", "usr/bin/qemu-system-x86_64", "pc"),
        Target::Aarch64 => ("qemu-system-arm", "usr/bin/qemu-system-aarch64", "virt"),
    };
    let (tool, root) = tool(package, program)?;
    // Dropping what holds it ends it, but nothing is dropped by what is killed.
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]).arg(tool.get_program()).args(tool.get_args());
    for data in ["usr/share/qemu", "usr/share/seabios"] {
        command.arg("-L").arg(root.join(data));
    }
    command.args(["-machine", machine, "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "1024"]);
    command.args(["-nographic", "-nic", "none", "-no-reboot"]);
    Ok(command)
}

/// Profiles of AppArmor as a kernel takes them.
///
/// # Errors
///
/// When the compiler cannot be had, or does not take them.
pub fn apparmor_profiles(source: &Path) -> anyhow::Result<Vec<u8>> {
    let (mut command, root) = tool("apparmor", "usr/sbin/apparmor_parser")?;
    let directory = root.join("etc/apparmor.d");
    // This machine's kernel may have no AppArmor: what is not named here would not be mediated.
    command.arg("--kernel-features").arg(directory.join("abi/3.0"));
    // To stdout, loading nothing and keeping nothing.
    command.args(["--stdout", "--skip-kernel-load", "--skip-cache", "--base"]).arg(&directory);
    let output = command.arg(source).output().context("starting apparmor_parser")?;
    if !output.status.success() || output.stdout.is_empty() {
        bail!("apparmor_parser does not take {}: {}", source.display(), String::from_utf8_lossy(&output.stderr));
    }
    Ok(output.stdout)
}

/// The name of the first serial port, where the console is.
pub const fn console(target: Target) -> &'static str {
    match target {
        Target::X86_64 => "ttyS0",
        Target::Aarch64 => "ttyAMA0",
    }
}
