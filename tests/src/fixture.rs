//! Go programs of `tests/go`, built by dimension: Go version × build flags.
//!
//! Each is built once and kept under `target/fixtures`, named by a digest of what went into it, so that a changed source
//! is a new fixture and tests that run at the same time share one build.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use sha2::{Digest as _, Sha256};
use xtask::{command, packages, toolchain};

/// How a fixture is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BuildFlags {
    /// `go build`, with cgo off.
    Default,
    /// `-ldflags "-s -w"`: no symbol table, no DWARF. What production runs.
    Stripped,
    /// `-ldflags -w`: symbols, no DWARF.
    NoDwarf,
    /// `-trimpath`: file names relative to their module.
    Trimpath,
    /// `-buildmode=pie`, linked by Go's own linker.
    Pie,
    /// Stripped and PIE.
    PieStripped,
    /// cgo, dynamically linked with libc.
    Cgo,
    /// Linked by the C compiler, statically.
    ExternalStatic,
    /// Linked by the C compiler, dynamically.
    External,
    /// Linked by the C compiler as a static PIE.
    StaticPie,
    /// `-gcflags=all=-N -l`: no optimization, no inlining.
    Unoptimized,
    /// `-gcflags=-l`: no inlining in the program's own package.
    NoInline,
    /// `-race`.
    Race,
    /// `-cover`.
    Cover,
    /// DWARF that is not compressed.
    PlainDwarf,
    /// For arm64, which cannot run on amd64.
    Arm64,
    /// For arm64, stripped.
    Arm64Stripped,
    /// The package `pl` below the program's own, as a plugin for it.
    Plugin,
}

impl BuildFlags {
    /// Every way of building a program, for tests that go through all of them.
    pub const ALL: [Self; 17] = [
        Self::Default,
        Self::Stripped,
        Self::NoDwarf,
        Self::Trimpath,
        Self::Pie,
        Self::PieStripped,
        Self::Cgo,
        Self::ExternalStatic,
        Self::External,
        Self::StaticPie,
        Self::Unoptimized,
        Self::NoInline,
        Self::Race,
        Self::Cover,
        Self::PlainDwarf,
        Self::Arm64,
        Self::Arm64Stripped,
    ];

    /// A short name, for file names and messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Stripped => "stripped",
            Self::NoDwarf => "no-dwarf",
            Self::Trimpath => "trimpath",
            Self::Pie => "pie",
            Self::PieStripped => "pie-stripped",
            Self::Cgo => "cgo",
            Self::ExternalStatic => "external-static",
            Self::External => "external",
            Self::StaticPie => "static-pie",
            Self::Unoptimized => "unoptimized",
            Self::NoInline => "no-inline",
            Self::Race => "race",
            Self::Cover => "cover",
            Self::PlainDwarf => "plain-dwarf",
            Self::Arm64 => "arm64",
            Self::Arm64Stripped => "arm64-stripped",
            Self::Plugin => "plugin",
        }
    }

    /// Whether the fixture can be run on this machine.
    pub fn runs_here(self) -> bool {
        cfg!(target_arch = "aarch64") == matches!(self, Self::Arm64 | Self::Arm64Stripped)
    }

    fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Default | Self::Arm64 => &[],
            Self::Stripped | Self::Arm64Stripped => &["-ldflags=-s -w"],
            Self::NoDwarf => &["-ldflags=-w"],
            Self::Trimpath => &["-trimpath"],
            Self::Pie => &["-buildmode=pie"],
            Self::PieStripped => &["-buildmode=pie", "-ldflags=-s -w"],
            // The programs use no C themselves; net and os/user do when they may.
            Self::Cgo => &["-tags=netcgo"],
            Self::ExternalStatic => &["-ldflags=-linkmode=external -extldflags=-static", "-tags=netgo,osusergo"],
            Self::External => &["-ldflags=-linkmode=external"],
            Self::StaticPie => {
                &["-buildmode=pie", "-ldflags=-linkmode=external -extldflags=-static-pie", "-tags=netgo,osusergo"]
            }
            Self::Unoptimized => &["-gcflags=all=-N -l"],
            Self::NoInline => &["-gcflags=-l"],
            Self::Race => &["-race"],
            Self::Cover => &["-cover"],
            Self::PlainDwarf => &["-ldflags=-compressdwarf=false"],
            Self::Plugin => &["-buildmode=plugin"],
        }
    }

    fn needs_cgo(self) -> bool {
        matches!(self, Self::Cgo | Self::ExternalStatic | Self::External | Self::StaticPie | Self::Race | Self::Plugin)
    }

    fn arch(self) -> &'static str {
        if matches!(self, Self::Arm64 | Self::Arm64Stripped) { "arm64" } else { "amd64" }
    }
}

/// The path of a program of `tests/go`, built with a Go version of [`toolchain::VERSIONS`].
///
/// # Panics
///
/// When it cannot be built.
pub fn fixture(program: &str, version: &str, flags: BuildFlags) -> PathBuf {
    try_fixture(program, version, flags)
        .unwrap_or_else(|error| panic!("building {program} with Go {version}, {}: {error:#}", flags.name()))
}

fn try_fixture(program: &str, version: &str, flags: BuildFlags) -> anyhow::Result<PathBuf> {
    let sources = xtask::root().join("tests/go").join(program);
    let fixtures = fixtures_dir();
    fs::create_dir_all(&fixtures).with_context(|| format!("creating {}", fixtures.display()))?;

    let stem = format!("{}-{version}-{}", program.replace('/', "-"), flags.name());
    let binary = fixtures.join(format!("{stem}-{}", digest(&sources, version, flags)?));
    if binary.is_file() {
        return Ok(binary);
    }
    let lock = File::create(fixtures.join(format!(".{stem}.lock"))).context("creating the fixture's lock file")?;
    lock.lock().context("waiting for another build of the fixture")?;
    if binary.is_file() {
        return Ok(binary);
    }
    let goroot = toolchain::goroot(version)?;
    if flags.needs_cgo() {
        packages::program("gcc")?;
    }
    let partial = fixtures.join(format!(".{stem}.partial"));
    let mut build = toolchain::go_command(&goroot.join("bin/go"))?;
    build.current_dir(&sources);
    build
        .env("CGO_ENABLED", if flags.needs_cgo() { "1" } else { "0" })
        .env("GOARCH", flags.arch())
        .env("GOOS", "linux");
    // VCS stamps would make the binary depend on more than its sources.
    build.args(["build", "-buildvcs=false"]).args(flags.arguments()).arg("-o").arg(&partial);
    build.arg(if flags == BuildFlags::Plugin { "./pl" } else { "." });
    command::output(&mut build)?;
    forget_older(&fixtures, &stem);
    fs::rename(&partial, &binary).context("moving the fixture into place")?;
    Ok(binary)
}

/// Where they are kept.
pub fn fixtures_dir() -> PathBuf {
    xtask::target_dir().join("fixtures")
}

/// A digest of all that decides how the fixture comes out.
fn digest(sources: &Path, version: &str, flags: BuildFlags) -> anyhow::Result<String> {
    let mut hasher = Sha256::new();
    hasher.update(format!("{version}\0{}\0{:?}\0", flags.name(), flags.arguments()));
    for path in sorted_files(sources)? {
        let content = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        // The whole path: the debugging information has it.
        hasher.update(path.as_os_str().as_encoded_bytes());
        hasher.update(content.len().to_le_bytes());
        hasher.update(content);
    }
    Ok(hasher.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect())
}

fn sorted_files(directory: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let entries = fs::read_dir(directory).with_context(|| format!("no such Go program: {}", directory.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(sorted_files(&path)?);
        } else {
            files.push(path);
        }
    }
    if files.is_empty() {
        bail!("{} has no files", directory.display());
    }
    files.sort();
    Ok(files)
}

/// Removes what earlier sources built, so that the directory does not grow for ever.
fn forget_older(fixtures: &Path, stem: &str) {
    let Ok(entries) = fs::read_dir(fixtures) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let digest = name.to_str().and_then(|name| name.strip_prefix(stem)).and_then(|rest| rest.strip_prefix('-'));
        if digest.is_some_and(|digest| digest.len() == 16 && digest.bytes().all(|byte| byte.is_ascii_hexdigit())) {
            let _ = fs::remove_file(entry.path());
        }
    }
}
