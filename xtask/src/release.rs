//! What people install: from one tree of files an archive, a `.deb` and an `.rpm`, with an SBOM and SHA256SUMS.
//!
//! The same commit gives the same bytes: files are sorted, belong to root and have the time of `SOURCE_DATE_EPOCH`, else
//! the commit's. Nothing is signed here, and nothing uploaded.

mod bill;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};
use sha2::{Digest as _, Sha256};

use crate::command::{self, output, run, say};
use crate::dist::{self, Target};
use crate::packages;

/// What is released.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Where the agent's configuration is on a host: administrators change it, and packages leave their changes alone.
const CONFIGURATION: &str = "etc/parkwarden/parkwarden.toml";

/// Files that lie in the tree as they are to be installed, below a prefix.
const AS_THEY_ARE: [(&str, &str); 5] = [
    ("deploy/systemd/parkwarden.service", "lib/systemd/system/parkwarden.service"),
    ("deploy/systemd/parkwarden.toml", "share/doc/parkwarden/parkwarden.toml"),
    ("LICENSE-APACHE", "share/doc/parkwarden/LICENSE-APACHE"),
    ("LICENSE-MIT", "share/doc/parkwarden/LICENSE-MIT"),
    ("CHANGELOG.md", "share/doc/parkwarden/CHANGELOG.md"),
];

/// Shells, and where each looks for completions.
const SHELLS: [(&str, &str); 3] = [
    ("bash", "share/bash-completion/completions/parkwarden"),
    ("zsh", "share/zsh/site-functions/_parkwarden"),
    ("fish", "share/fish/vendor_completions.d/parkwarden.fish"),
];

/// Scripts that packages run: ours, as Debian calls it, and as `cargo generate-rpm` does.
const SCRIPTS: [(&str, &str, &str); 3] = [
    ("installed.sh", "postinst", "post_install_script"),
    ("to-be-removed.sh", "prerm", "pre_uninstall_script"),
    ("removed.sh", "postrm", "post_uninstall_script"),
];

/// Builds parkwarden for these targets and packs it, below `target/dist`; the directory.
///
/// # Errors
///
/// When it does not build, or a tool that packs can neither be found nor installed.
pub fn release(targets: &[Target]) -> anyhow::Result<PathBuf> {
    let directory = crate::target_dir().join("dist").join(VERSION);
    for target in targets {
        let program = dist::build(*target)?;
        pack(*target, &program, &directory)?;
    }
    fs::write(directory.join(format!("parkwarden-{VERSION}.cdx.json")), bill::of_materials()?)?;
    write_digests(&directory)?;
    Ok(directory)
}

/// Packs a program that was built for a target into `directory`: the archive, the `.deb` and the `.rpm`.
///
/// # Errors
///
/// When a tool that packs can neither be found nor installed, or fails.
pub fn pack(target: Target, program: &Path, directory: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(directory).with_context(|| format!("creating {}", directory.display()))?;
    let place = tempfile::tempdir().context("a place to pack")?;
    let prefix = place.path().join("usr");
    stage(target, program, &prefix)?;
    archive(&prefix, &format!("parkwarden-{VERSION}-{}", target.triple()), directory)?;
    copy(&crate::root().join("deploy/systemd/parkwarden.toml"), &place.path().join(CONFIGURATION), 0o644)?;
    for (script, as_debian_calls_it, _) in SCRIPTS {
        let from = crate::root().join("deploy/packages").join(script);
        copy(&from, &place.path().join("scripts").join(as_debian_calls_it), 0o755)?;
    }
    let package = Package { place: place.path(), files: files_below(place.path(), &["etc", "usr"])? };
    package.describe()?;
    package.debian(target, directory)?;
    package.rpm(target, directory)
}

/// The time that all files get.
///
/// # Errors
///
/// When neither the environment nor a commit tells.
pub fn time() -> anyhow::Result<String> {
    if let Ok(time) = std::env::var("SOURCE_DATE_EPOCH") {
        return Ok(time);
    }
    let mut git = Command::new("git");
    let time = output(git.args(["log", "-1", "--format=%ct"]).current_dir(crate::root()))
        .context("no time for the files: set SOURCE_DATE_EPOCH where there is no clone")?;
    Ok(time.trim().to_owned())
}

/// Puts everything that is installed below a prefix there.
fn stage(target: Target, program: &Path, prefix: &Path) -> anyhow::Result<()> {
    copy(program, &prefix.join("bin/parkwarden"), 0o755)?;
    for (from, to) in AS_THEY_ARE {
        copy(&crate::root().join(from), &prefix.join(to), 0o644)?;
    }
    // The same of whatever target; the other architecture's program would not run here.
    let speaker = if target.is_ours() { program.to_owned() } else { parkwarden_of_this_machine()? };
    for (shell, path) in SHELLS {
        let text = output(Command::new(&speaker).args(["completions", shell]))?;
        write(&prefix.join(path), text.as_bytes(), 0o644)?;
    }
    run(Command::new(&speaker).arg("man").arg(prefix.join("share/man/man1")))
}

fn parkwarden_of_this_machine() -> anyhow::Result<PathBuf> {
    run(command::cargo().args(["build", "--locked", "--workspace", "--bin", "parkwarden"]))?;
    Ok(crate::target_dir().join("debug/parkwarden"))
}

fn copy(from: &Path, to: &Path, mode: u32) -> anyhow::Result<()> {
    let bytes = fs::read(from).with_context(|| format!("reading {}", from.display()))?;
    write(to, &bytes, mode)
}

fn write(to: &Path, bytes: &[u8], mode: u32) -> anyhow::Result<()> {
    fs::create_dir_all(to.parent().context("a file's directory")?)?;
    fs::write(to, bytes).with_context(|| format!("writing {}", to.display()))?;
    Ok(fs::set_permissions(to, fs::Permissions::from_mode(mode))?)
}

/// The archive, to be unpacked anywhere, or over /usr/local.
fn archive(prefix: &Path, name: &str, directory: &Path) -> anyhow::Result<()> {
    command::apt_install_programs(&[("zstd", "zstd")])?;
    let tar = directory.join(format!("{name}.tar"));
    let mut pack = Command::new("tar");
    pack.args(["--create", "--format=ustar", "--sort=name", "--owner=0", "--group=0", "--numeric-owner"]);
    pack.args(["--mode=u=rwX,go=rX", &format!("--mtime=@{}", time()?), &format!("--transform=s,^\\.,{name},")]);
    run(pack.arg("--file").arg(&tar).arg("--directory").arg(prefix).arg("."))?;
    run(Command::new("zstd").args(["-19", "-T2", "--quiet", "--force", "--rm"]).arg(&tar))
}

/// Regular files below some directories of `place`, as paths in it, sorted.
fn files_below(place: &Path, directories: &[&str]) -> anyhow::Result<Vec<String>> {
    let mut found = Vec::new();
    let mut left: Vec<PathBuf> = directories.iter().map(PathBuf::from).collect();
    while let Some(path) = left.pop() {
        if !place.join(&path).is_dir() {
            found.push(path.to_str().context("a name in UTF-8")?.to_owned());
            continue;
        }
        for entry in fs::read_dir(place.join(&path))? {
            left.push(path.join(entry?.file_name()));
        }
    }
    found.sort();
    Ok(found)
}

/// A directory with what packages have, from which cargo-deb and cargo-generate-rpm make them.
struct Package<'a> {
    place: &'a Path,
    files: Vec<String>,
}

impl Package<'_> {
    /// Both take what they pack from a manifest of cargo's. It is written here, so that there is one list of files: that of
    /// the directory.
    fn describe(&self) -> anyhow::Result<()> {
        let mut debian = String::new();
        let mut rpm = String::new();
        for path in &self.files {
            let mode = fs::metadata(self.place.join(path))?.permissions().mode() & 0o777;
            let kind = if path == CONFIGURATION { ", config = \"noreplace\"" } else { "" };
            debian += &format!("  [\"{path}\", \"{path}\", \"{mode:o}\"],\n");
            rpm += &format!("  {{ source = \"{path}\", dest = \"/{path}\", mode = \"{mode:o}\"{kind} }},\n");
        }
        let scripts = SCRIPTS.map(|(_, name, rpm)| format!("{rpm} = \"scripts/{name}\"\n")).concat();
        let manifest = format!(
            r#"[package]
name = "parkwarden"
version = "{VERSION}"
edition = "2024"
description = "sees goroutine leaks of running Go programs from outside"
license = "MIT OR Apache-2.0"
homepage = "{repository}"
repository = "{repository}"

[workspace]

[package.metadata.deb]
maintainer = "The parkwarden contributors <{repository}>"
copyright = "The parkwarden contributors"
extended-description = "parkwarden names the go statement that leaks goroutines in a running Go program, with eBPF."
section = "admin"
depends = ""
conf-files = ["/{CONFIGURATION}"]
maintainer-scripts = "scripts"
assets = [
{debian}]

[package.metadata.generate-rpm]
vendor = "The parkwarden contributors"
auto-req = "disabled"
{scripts}assets = [
{rpm}]
"#,
            repository = env!("CARGO_PKG_REPOSITORY"),
        );
        write(&self.place.join("Cargo.toml"), manifest.as_bytes(), 0o644)?;
        write(&self.place.join("src/main.rs"), b"fn main() {}\n", 0o644)
    }

    fn debian(&self, target: Target, directory: &Path) -> anyhow::Result<()> {
        let mut tool = self.tool(&packages::CARGO_DEB)?;
        tool.args(["deb", "--no-build", "--no-strip", "--target", target.triple(), "--output"]);
        run(tool.arg(directory.join(format!("parkwarden_{VERSION}-1_{}.deb", target.architecture()))))
    }

    fn rpm(&self, target: Target, directory: &Path) -> anyhow::Result<()> {
        let mut tool = self.tool(&packages::CARGO_GENERATE_RPM)?;
        tool.args(["generate-rpm", "--target", target.triple(), "--source-date", &time()?, "--output"]);
        run(tool.arg(directory.join(format!("parkwarden-{VERSION}-1.{}.rpm", target.machine()))))
    }

    fn tool(&self, tool: &packages::CargoTool) -> anyhow::Result<Command> {
        let mut command = Command::new(tool.installed()?);
        command.current_dir(self.place).env("SOURCE_DATE_EPOCH", time()?).env_remove("CARGO_TARGET_DIR");
        Ok(command)
    }
}

/// SHA256SUMS of a directory's files, as `sha256sum --check` reads it.
fn write_digests(directory: &Path) -> anyhow::Result<()> {
    const NAME: &str = "SHA256SUMS";
    let mut lines = String::new();
    for name in files_below(directory, &["."])? {
        let name = name.trim_start_matches("./");
        if name != NAME {
            let digest = Sha256::digest(fs::read(directory.join(name))?);
            lines += &format!("{digest:x}  {name}\n");
        }
    }
    if lines.is_empty() {
        bail!("{} is empty", directory.display());
    }
    fs::write(directory.join(NAME), lines)?;
    say(format_args!("packed into {}", directory.display()));
    Ok(())
}
