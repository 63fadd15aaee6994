//! parkwarden as one static file for a machine of either architecture, as deploy/Containerfile builds it for its own.
//!
//! For the other architecture it takes that one's standard library and a C compiler (SQLite and ring are C). The library
//! comes from rustup where that can be had, else from Debian: its package is only unpacked, and used with Debian's compiler
//! of the same version.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};

use crate::command::{self, output, run, say};

/// What parkwarden is built for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Target {
    /// x86-64.
    #[value(name = "x86_64-unknown-linux-gnu")]
    X86_64,
    /// arm64.
    #[value(name = "aarch64-unknown-linux-gnu")]
    Aarch64,
}

impl Target {
    /// As Rust names it.
    pub const fn triple(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64-unknown-linux-gnu",
            Self::Aarch64 => "aarch64-unknown-linux-gnu",
        }
    }

    /// As Debian and Go name it.
    pub const fn architecture(self) -> &'static str {
        match self {
            Self::X86_64 => "amd64",
            Self::Aarch64 => "arm64",
        }
    }

    /// As GNU's tools name it.
    const fn gnu(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64-linux-gnu",
            Self::Aarch64 => "aarch64-linux-gnu",
        }
    }

    /// As RPM and the kernel name it.
    pub const fn machine(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Aarch64 => "aarch64",
        }
    }

    /// Whether this machine runs what is built for it.
    pub fn is_ours(self) -> bool {
        self.triple().starts_with(std::env::consts::ARCH)
    }

    /// The program, once [`build`] has been here.
    pub fn program(self) -> PathBuf {
        home().join(self.triple()).join("parkwarden")
    }

    /// The same, once [`build_quickly`] has been here.
    pub fn quick_program(self) -> PathBuf {
        home().join(self.triple()).join("parkwarden-quick")
    }
}

fn home() -> PathBuf {
    crate::target_dir().join("dist")
}

/// Builds the program for a target and says where it is.
///
/// # Errors
///
/// When there is no compiler for it and none can be had, or it does not build.
pub fn build(target: Target) -> anyhow::Result<PathBuf> {
    let program = target.program();
    build_with(target, &program, "release")?;
    Ok(program)
}

/// Builds the program for a test that has no time for an optimizer, and says where it is.
///
/// # Errors
///
/// As [`build`].
pub fn build_quickly(target: Target) -> anyhow::Result<PathBuf> {
    let program = target.quick_program();
    build_with(target, &program, "quick")?;
    Ok(program)
}

fn build_with(target: Target, program: &Path, profile: &str) -> anyhow::Result<()> {
    let compiler = if target.is_ours() { Compiler::default() } else { Compiler::across(target)? };
    say(format_args!("building parkwarden for {} with {}", target.triple(), compiler.name));
    // A directory of its own, so that other flags and compilers rebuild nothing elsewhere.
    let built = home().join("build").join(target.triple());
    let mut cargo = command::cargo();
    compiler.prepare(&mut cargo, target);
    // What `parkwarden --version` says; a tree that is no clone has none.
    if let Ok(commit) = output(Command::new("git").args(["rev-parse", "HEAD"]).current_dir(crate::root())) {
        cargo.env("PARKWARDEN_COMMIT", commit.trim());
    }
    // What is installed has no use for symbols: they are five sixths of the file.
    cargo.arg("--config").arg(format!("profile.{profile}.strip=\"symbols\""));
    cargo.args(["build", "--locked", "--profile", profile, "--package", "parkwarden", "--bin", "parkwarden"]);
    run(cargo.args(["--target", target.triple(), "--target-dir"]).arg(&built))?;
    fs::create_dir_all(program.parent().context("the program's directory")?)?;
    let from = built.join(target.triple()).join(profile).join("parkwarden");
    fs::copy(&from, program).with_context(|| format!("copying {}", from.display()))?;
    Ok(())
}

/// What compiles for a target.
struct Compiler {
    name: &'static str,
    /// None: the one that cargo takes by itself.
    rustc: Option<PathBuf>,
    sysroot: Option<PathBuf>,
}

impl Default for Compiler {
    fn default() -> Self {
        Self { name: "this toolchain", rustc: None, sysroot: None }
    }
}

const DEBIAN_RUSTC: &str = "/usr/bin/rustc";

impl Compiler {
    /// One for another architecture, installed where it has to be.
    fn across(target: Target) -> anyhow::Result<Self> {
        let gcc = format!("gcc-{}", target.gnu());
        let libc = format!("libc6-dev-{}-cross", target.architecture());
        command::apt_install(&[&gcc, &libc])?;
        if has_library(target)? {
            return Ok(Self::default());
        }
        say(format_args!("asking rustup for the standard library for {}", target.triple()));
        let mut rustup = Command::new("rustup");
        if command::find("rustup").is_some() && run(rustup.args(["target", "add", target.triple()])).is_ok() {
            return Ok(Self::default());
        }
        let sysroot = debian_library(target)?;
        Ok(Self { name: "the distribution's rustc", rustc: Some(DEBIAN_RUSTC.into()), sysroot: Some(sysroot) })
    }

    fn prepare(&self, cargo: &mut Command, target: Target) {
        let mut flags = vec!["-Ctarget-feature=+crt-static".to_owned()];
        flags.extend(self.sysroot.iter().map(|sysroot| format!("--sysroot={}", sysroot.display())));
        cargo.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));
        if let Some(rustc) = &self.rustc {
            cargo.env("RUSTC", rustc);
        }
        if !target.is_ours() {
            let gcc = format!("{}-gcc", target.gnu());
            let triple = target.triple().replace('-', "_");
            cargo.env(format!("CC_{triple}"), &gcc);
            cargo.env(format!("CARGO_TARGET_{}_LINKER", triple.to_uppercase()), &gcc);
        }
    }
}

/// Whether cargo's own compiler can compile for a target.
fn has_library(target: Target) -> anyhow::Result<bool> {
    let mut rustc = Command::new("rustc");
    let directory =
        output(rustc.current_dir(crate::root()).args(["--print", "target-libdir", "--target", target.triple()]))?;
    Ok(has_rlib(Path::new(directory.trim())))
}

fn has_rlib(directory: &Path) -> bool {
    let mut entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.any(|entry| entry.file_name().to_string_lossy().starts_with("libstd-"))
}

/// A sysroot with the standard library of Debian's rustc-web for a target.
fn debian_library(target: Target) -> anyhow::Result<PathBuf> {
    const COMPILER: &str = "rustc-web";
    command::apt_install(&[COMPILER])
        .context("no standard library: neither rustup's (`rustup target add`) nor that of Debian's rustc-web")?;
    let version = output(Command::new("dpkg-query").args(["-W", "-f", "${Version}", COMPILER]))?;
    let sysroot = home().join("sysroot").join(&version).join(target.triple());
    let library = sysroot.join("lib/rustlib").join(target.triple()).join("lib");
    if has_rlib(&library) {
        return Ok(sysroot);
    }
    let partial = sysroot.with_extension("partial");
    let package = format!("libstd-rust-web-dev={version}");
    crate::apt::Archive::of_this_machine(target.architecture())?.unpack(&package, &partial)?;
    let unpacked = partial.join("usr/lib/rustlib").join(target.triple()).join("lib");
    if !has_rlib(&unpacked) {
        bail!("{package} for {} has no standard library", target.architecture());
    }
    fs::create_dir_all(library.parent().context("the library's directory")?)?;
    fs::rename(&unpacked, &library).context("moving the standard library into place")?;
    fs::remove_dir_all(&partial).context("removing what is not needed of the package")?;
    Ok(sysroot)
}
