//! The table of runtime layouts and wait reasons that parkwarden uses for stripped binaries, made anew: `cargo xtask layouts`
//! writes it.
//!
//! A small program is built with each toolchain for each architecture; its DWARF, read with parkwarden's own reader, says
//! where the runtime keeps its fields. Wait reasons come from the toolchain's source. Go 1.18 and 1.20 cannot be had
//! here: binaries of theirs are watched only if they carry debugging information and symbols.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use parkwarden::golang::layout::{self, Structs, Wanted};
use parkwarden::golang::proof_layout;
use parkwarden::golang::table::{self, Described, KnownLayouts};
use parkwarden::golang::version::GoVersion;
use parkwarden::golang::{Arch, dwarf, elf::Elf};
use parkwarden::runtime;

use xtask::{command, toolchain};

/// All that the agent reads of the runtime's structs: what each reader declares.
fn read() -> Vec<&'static Wanted> {
    [&[layout::WANTED, proof_layout::WANTED], runtime::READ].concat()
}

/// Where the table is kept.
pub fn path() -> PathBuf {
    xtask::root().join("agent/src/golang/layouts.tsv")
}

/// The table, made anew from the toolchains. What it says of a distribution's Go stays as it is where that is not
/// installed: not every distribution has it.
///
/// # Errors
///
/// When another toolchain is missing and cannot be installed, or one does not build or describes no layouts.
pub fn generate() -> anyhow::Result<KnownLayouts> {
    let mut described = Vec::new();
    for version in toolchain::ALL_VERSIONS {
        if version == toolchain::DEBIAN && !toolchain::has_debian_go() {
            command::say(format_args!("Go {version} is not installed: its layouts stay as they are"));
            described.extend(table::bundled().of(version));
            continue;
        }
        let goroot = toolchain::goroot(version)?;
        let source = fs::read_to_string(goroot.join("src/runtime/runtime2.go"))
            .with_context(|| format!("reading the runtime of Go {version}"))?;
        let wait_reasons = wait_reasons_of(&source)?;
        for arch in [Arch::Amd64, Arch::Arm64] {
            let structs =
                structs_of(&goroot, arch).with_context(|| format!("the layouts of Go {version} for {arch:?}"))?;
            let version = GoVersion::parse(&format!("go{version}")).context("a version without numbers")?;
            described.push(Described { version, arch, structs, wait_reasons: wait_reasons.clone() });
        }
    }
    for (name, fields) in layout::together(&read()) {
        for (field, _) in fields {
            let known = |one: &Described| one.structs.get(name).is_some_and(|known| known.fields.contains_key(field));
            if !described.iter().any(known) {
                bail!("no version describes {name}.{field}");
            }
        }
    }
    Ok(KnownLayouts::new(described))
}

/// The layouts in a program built with this toolchain.
fn structs_of(goroot: &Path, arch: Arch) -> anyhow::Result<Structs> {
    let directory = tempfile::tempdir().context("creating a directory")?;
    let program = directory.path().join("layouts");
    let mut build = toolchain::go_command(&goroot.join("bin/go"))?;
    build.current_dir(xtask::root().join("tests/go/layouts")).env("CGO_ENABLED", "0").env("GOOS", "linux");
    build.env("GOARCH", if arch == Arch::Amd64 { "amd64" } else { "arm64" });
    command::output(build.args(["build", "-buildvcs=false", "-o"]).arg(&program).arg("."))?;
    let file = File::open(&program).context("opening the program")?;
    let elf = Elf::parse(&file)?;
    let wanted = layout::together(&read());
    let structs = dwarf::structs(&file, &elf, &wanted)?;
    Ok(structs)
}

/// The texts of the wait reasons in the order of their constants, from the source of `runtime2.go`.
///
/// # Errors
///
/// When the source has another form.
pub fn wait_reasons_of(source: &str) -> anyhow::Result<Vec<String>> {
    let between = |start: &str, end: &str| {
        let (_, rest) = source.split_once(start)?;
        Some(rest.split_once(end)?.0)
    };
    let constants =
        between("type waitReason uint8\n\nconst (\n", "\n)").context("no constants of wait reasons in runtime2.go")?;
    let texts =
        between("var waitReasonStrings = [...]string{\n", "\n}").context("no texts of wait reasons in runtime2.go")?;
    let text = |constant: &str| {
        let line = texts.lines().find(|line| line.trim_start().starts_with(&format!("{constant}:")));
        let text = line.and_then(|line| line.split('"').nth(1)).with_context(|| format!("no text of {constant}"))?;
        Ok(text.to_owned())
    };
    let names = constants.lines().filter_map(|line| line.split_whitespace().next());
    names.filter(|name| name.starts_with("waitReason")).map(text).collect()
}
