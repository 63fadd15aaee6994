//! The BPF object: built from `ebpf/` for each architecture, committed in `agent/bpf`, embedded by the agent.
//!
//! Building it takes a Rust compiler with the BPF target and a linker made for that compiler's LLVM, which most machines
//! have not. So the objects are committed, together with a digest of the sources they came from, and a test compares.
//! aya-build is not used for this: it insists on rustup's nightly, and not every machine can have its sources.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};
use object::build::elf::{Builder, SectionData};
use sha2::{Digest as _, Sha256};

use crate::command::{self, run, say};

const TARGET: &str = "bpfel-unknown-none";
const LINKER_VERSION: &str = "0.13.0";
/// Crates whose code ends up in the object.
const LINKED_CRATES: [&str; 2] = ["aya-ebpf", "aya-log-ebpf"];
const SOURCE_DIRS: [&str; 2] = ["common", "ebpf"];

/// Architectures that there is an object for, as Rust names them. Any machine can build all of them: only the registers
/// that the programs read differ.
const ARCHITECTURES: [&str; 2] = ["x86_64", "aarch64"];

/// What rustup's nightly lacks on some machines, as Debian packages: a compiler with core for the BPF target, and what
/// bpf-linker needs to be built for the same LLVM.
const DEBIAN_COMPILER: [&str; 2] = ["rustc-web", "libstd-rust-web-dev-bpf"];
const DEBIAN_COMPILER_LLVM: u32 = 22;

fn object_name(architecture: &str) -> String {
    format!("parkwarden.bpf.{architecture}.o")
}

/// A file of the directory with what is committed.
fn committed(name: &str) -> PathBuf {
    crate::root().join("agent/bpf").join(name)
}

/// The committed digests, of the sources and of the objects.
fn digest_path() -> PathBuf {
    committed("parkwarden.bpf.sha256")
}

/// Fails unless the committed objects are what the committed digests say, and came from the sources that are here.
///
/// # Errors
///
/// Says what differs, or what cannot be read.
pub fn check() -> anyhow::Result<()> {
    let digests = fs::read_to_string(digest_path()).context("reading the digests of the BPF objects")?;
    let sources = source_digest()?;
    if !digests.lines().any(|line| line == digest_line(&sources, "sources")) {
        bail!("the BPF objects were built from other sources than these (now {sources}): run `cargo xtask ebpf`");
    }
    for name in ARCHITECTURES.map(object_name) {
        let object = hex(&Sha256::digest(fs::read(committed(&name)).with_context(|| format!("reading {name}"))?));
        if !digests.lines().any(|line| line == digest_line(&object, &name)) {
            bail!("{name} is not what was built from the sources (now {object}): run `cargo xtask ebpf`");
        }
    }
    Ok(())
}

/// Installs the toolchain that [`build`] needs.
///
/// # Errors
///
/// When there is none for this machine, or it cannot be installed.
pub fn install() -> anyhow::Result<()> {
    let toolchain = Toolchain::obtain()?;
    say(format_args!("the BPF objects can be built with {}", toolchain.description));
    Ok(())
}

/// Builds the objects from source, installing the toolchain where it can, and writes them with their digests.
///
/// # Errors
///
/// When there is no toolchain for it and none can be installed, or the build fails.
pub fn build() -> anyhow::Result<()> {
    let toolchain = Toolchain::obtain()?;
    let mut digests = digest_line(&source_digest()?, "sources");
    for architecture in ARCHITECTURES {
        say(format_args!("building the BPF object for {architecture} with {}", toolchain.description));
        let object = build_for(&toolchain, architecture)?;
        let name = object_name(architecture);
        let path = committed(&name);
        fs::create_dir_all(path.parent().context("the object's directory")?)?;
        fs::write(&path, &object).with_context(|| format!("writing {}", path.display()))?;
        write!(digests, "\n{}", digest_line(&hex(&Sha256::digest(&object)), &name))?;
        say(format_args!("wrote {} ({} bytes)", path.display(), object.len()));
    }
    digests.push('\n');
    fs::write(digest_path(), digests).context("writing the digests of the BPF objects")
}

fn build_for(toolchain: &Toolchain, architecture: &str) -> anyhow::Result<Vec<u8>> {
    // Of its own: the build script's word for the architecture would have each build begin anew in a shared one.
    let target_dir = crate::target_dir().join("ebpf").join(architecture);
    let mut cargo = toolchain.cargo(&target_dir)?;
    // aya's crates and ours take the architecture of the machine that compiles unless they are told.
    run(cargo.current_dir(crate::root()).env("AYA_BPF_TARGET_ARCH", architecture))?;

    let built = target_dir.join(TARGET).join("release/parkwarden-ebpf");
    let linked = fs::read(&built).with_context(|| format!("reading {}", built.display()))?;
    let object = without_dwarf(&linked).context("removing debugging information from the BPF object")?;
    for directory in [crate::root(), cargo_home()?, rustup_home()?] {
        if contains(&object, directory.as_os_str().as_encoded_bytes()) {
            bail!("the BPF object names this machine's directory {}", directory.display());
        }
    }
    Ok(object)
}

/// How this machine can compile for BPF.
struct Toolchain {
    description: String,
    linker: PathBuf,
    /// rustup's nightly with core from source, or the distribution's compiler that comes with core.
    nightly: bool,
}

impl Toolchain {
    fn obtain() -> anyhow::Result<Self> {
        if nightly_has_core() {
            let llvm = llvm_version(Command::new("rustup").args(["run", "nightly", "rustc", "-vV"]))?;
            let linker = linker(&format!("bpf-linker-{llvm}"), llvm)?;
            return Ok(Self { description: "rustup's nightly".into(), linker, nightly: true });
        }
        command::apt_install(&DEBIAN_COMPILER).context(
            "no compiler for BPF: neither rustup's nightly with its rust-src component \
             (`rustup toolchain install nightly --component rust-src`) nor Debian's rustc-web",
        )?;
        let llvm = llvm_version(Command::new("/usr/bin/rustc").arg("-vV"))?;
        if llvm != DEBIAN_COMPILER_LLVM {
            bail!("/usr/bin/rustc uses LLVM {llvm}, expected {DEBIAN_COMPILER_LLVM}");
        }
        let linker = linker("bpf-linker", llvm)?;
        Ok(Self { description: "the distribution's rustc".into(), linker, nightly: false })
    }

    fn cargo(&self, target_dir: &Path) -> anyhow::Result<Command> {
        let mut cargo;
        if self.nightly {
            cargo = clean(Command::new("rustup"));
            cargo.args(["run", "nightly", "cargo", "build", "-Zbuild-std=core"]);
        } else {
            cargo = clean(Command::new("cargo"));
            // The distribution's compiler is a stable one; the BPF target needs two unstable features.
            cargo.arg("build").env("RUSTC", "/usr/bin/rustc").env("RUSTC_BOOTSTRAP", "1");
        }
        cargo.args(["--release", "--locked", "--target", TARGET, "--package", "parkwarden-ebpf", "--target-dir"]);
        cargo.arg(target_dir);
        cargo.env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", &self.linker);
        let remap = |from: &Path, to: &str| format!("--remap-path-prefix={}={to}", from.display());
        let flags = [
            remap(&crate::root(), "."),
            remap(&cargo_home()?, "/cargo"),
            remap(&rustup_home()?, "/rustup"),
            "-Cdebuginfo=2".into(),
            "-Clink-arg=--btf".into(),
        ];
        cargo.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));
        Ok(cargo)
    }
}

fn nightly_has_core() -> bool {
    let list =
        command::output(Command::new("rustup").args(["component", "list", "--installed", "--toolchain", "nightly"]));
    list.is_ok_and(|components| components.lines().any(|line| line.starts_with("rust-src")))
}

fn llvm_version(rustc: &mut Command) -> anyhow::Result<u32> {
    let version = command::output(rustc)?;
    let line = version.lines().find_map(|line| line.strip_prefix("LLVM version: ")).context("rustc names no LLVM")?;
    let major = line.split('.').next().unwrap_or_default();
    major.parse().with_context(|| format!("not an LLVM version: {line}"))
}

/// bpf-linker reads the compiler's bitcode, so it must be built with the LLVM the compiler was built with.
fn linker(directory: &str, llvm: u32) -> anyhow::Result<PathBuf> {
    let root = crate::cache_dir()?.join(directory);
    let linker = root.join("bin/bpf-linker");
    if linker.is_file() {
        return Ok(linker);
    }
    let (dev, polly) = (format!("llvm-{llvm}-dev"), format!("libpolly-{llvm}-dev"));
    command::apt_install(&["gcc", "g++", &dev, &polly, "libzstd-dev", "zlib1g-dev", "libxml2-dev"])
        .with_context(|| format!("bpf-linker needs LLVM {llvm}"))?;
    say(format_args!("installing bpf-linker {LINKER_VERSION} for LLVM {llvm} from crates.io into the cache"));
    let mut cargo = clean(Command::new("cargo"));
    cargo.env("LLVM_PREFIX", format!("/usr/lib/llvm-{llvm}"));
    cargo.args(["install", "bpf-linker", "--locked", "--version", LINKER_VERSION, "--no-default-features"]);
    // LLVM does the work, so optimizing what calls it takes longer than it ever saves.
    cargo.arg("--debug").env("CARGO_PROFILE_DEV_DEBUG", "false");
    cargo.args(["--features", &format!("llvm-{llvm}"), "--root"]).arg(&root);
    run(&mut cargo)?;
    Ok(linker)
}

/// Removes what the cargo that runs xtask has set for its own toolchain.
fn clean(mut command: Command) -> Command {
    let ours = ["RUSTC", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER", "RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS"];
    for variable in ours.into_iter().chain(["CARGO_TARGET_DIR", "CARGO_BUILD_TARGET", "LD_LIBRARY_PATH"]) {
        command.env_remove(variable);
    }
    command
}

fn cargo_home() -> anyhow::Result<PathBuf> {
    home("CARGO_HOME", ".cargo")
}

fn rustup_home() -> anyhow::Result<PathBuf> {
    home("RUSTUP_HOME", ".rustup")
}

fn home(variable: &str, default: &str) -> anyhow::Result<PathBuf> {
    if let Some(path) = std::env::var_os(variable) {
        return Ok(path.into());
    }
    let home = std::env::var_os("HOME").with_context(|| format!("neither {variable} nor HOME is set"))?;
    Ok(PathBuf::from(home).join(default))
}

/// The object without DWARF, which is nine tenths of it. BTF stays: the kernel names functions and lines with it.
fn without_dwarf(object: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut builder = Builder::read(object)?;
    for section in builder.sections.iter_mut() {
        let name = section.name.as_slice();
        section.delete |= name.starts_with(b".debug_") || name.starts_with(b".rel.debug_");
    }
    builder.delete_orphans();
    // LLVM keeps the names of sections and of symbols in one table; the builder wants one for each.
    let names = builder.sections.add();
    names.name = b".shstrtab"[..].into();
    names.sh_type = object::elf::SHT_STRTAB;
    names.data = SectionData::SectionString;
    builder.set_section_sizes();
    let mut stripped = Vec::new();
    builder.write(&mut stripped)?;
    Ok(stripped)
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

fn digest_line(digest: &str, name: &str) -> String {
    format!("{digest}  {name}")
}

fn hex(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A digest over everything in this tree that decides what the object does.
fn source_digest() -> anyhow::Result<String> {
    let root = crate::root();
    let mut files = Vec::new();
    for directory in SOURCE_DIRS {
        collect(&root.join(directory), &mut files)?;
    }
    files.sort();
    let mut hasher = Sha256::new();
    let mut add = |name: &str, content: &[u8]| {
        hasher.update(format!("{name}\0{}\0", content.len()));
        hasher.update(content);
    };
    for path in files {
        let name = path.strip_prefix(&root)?.to_string_lossy().into_owned();
        add(&name, &fs::read(&path).with_context(|| format!("reading {name}"))?);
    }
    let lock = fs::read_to_string(root.join("Cargo.lock")).context("reading Cargo.lock")?;
    for name in LINKED_CRATES {
        let version = locked_version(&lock, name).with_context(|| format!("Cargo.lock has no {name}"))?;
        add(name, version.as_bytes());
    }
    Ok(hex(&hasher.finalize()))
}

/// Sources and manifests; anything else there, such as an editor's backup, is not built.
fn collect(directory: &Path, files: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    for entry in fs::read_dir(directory).with_context(|| format!("reading {}", directory.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "rs" || extension == "toml") {
            files.push(path);
        }
    }
    Ok(())
}

fn locked_version<'a>(lock: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = lock.split_once(&format!("name = \"{name}\"\nversion = \""))?;
    rest.split('"').next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_come_from_the_lock_file() {
        let lock = "[[package]]\nname = \"aya\"\nversion = \"0.14.0\"\n\n[[package]]\nname = \"aya-ebpf\"\nversion = \"0.2.1\"\n";
        assert_eq!(locked_version(lock, "aya-ebpf"), Some("0.2.1"));
        assert_eq!(locked_version(lock, "aya-log-ebpf"), None);
    }
}
