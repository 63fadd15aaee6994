//! The table of runtime layouts and wait reasons that parkwarden uses for stripped binaries, made anew: `cargo xtask layouts`
//! writes it.
//!
//! A small program is built with each toolchain for each architecture; its DWARF, read with parkwarden's own reader, says
//! where the runtime keeps its fields. Wait reasons come from the toolchain's source. Go 1.18 and 1.20 cannot be had
//! here: binaries of theirs are watched only if they carry debugging information and symbols.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use parkwarden::golang::layout::{self, Structs};
use parkwarden::golang::table::{self, Described, KnownLayouts};
use parkwarden::golang::version::GoVersion;
use parkwarden::golang::{Arch, dwarf, elf::Elf};

use xtask::{command, toolchain};

type Fields = &'static [(&'static str, u32)];

/// What the table holds besides [`layout::WANTED`]: what reading channels, semaphores, the heap and stacks needs.
const BESIDES: &[(&str, Fields)] = &[
    ("runtime.g", &[("_defer", 8), ("_panic", 8), ("sched.ctxt", 8), ("sched.lr", 8), ("param", 8), ("lockedm", 8)]),
    ("runtime.m", &[("id", 8), ("procid", 8), ("gsignal", 8), ("p", 8), ("alllink", 8), ("lockedg", 8)]),
    ("runtime.p", &[("id", 4), ("status", 4), ("m", 8), ("runqhead", 4), ("runqtail", 4), ("runq", 0), ("runnext", 8)]),
    ("runtime.gobuf", &[("sp", 8), ("pc", 8), ("ctxt", 8), ("lr", 8), ("bp", 8)]),
    (
        "runtime.sudog",
        &[
            ("g", 8),
            ("next", 8),
            ("prev", 8),
            ("elem", 0),
            ("elem.vu", 8),
            ("isSelect", 1),
            ("parent", 8),
            ("waitlink", 8),
            ("c", 0),
            ("c.vu", 8),
        ],
    ),
    (
        "runtime.hchan",
        &[
            ("qcount", 8),
            ("dataqsiz", 8),
            ("buf", 8),
            ("elemsize", 2),
            ("closed", 4),
            ("timer", 8),
            ("elemtype", 8),
            ("recvq.first", 8),
            ("recvq.last", 8),
            ("sendq.first", 8),
            ("sendq.last", 8),
        ],
    ),
    ("runtime.waitq", &[("first", 8), ("last", 8)]),
    ("runtime.semaRoot", &[("treap", 8), ("nwait", 0)]),
    (
        "runtime.mspan",
        &[
            ("startAddr", 8),
            ("npages", 8),
            ("freeindex", 0),
            ("nelems", 0),
            ("allocBits", 8),
            ("gcmarkBits", 8),
            ("spanclass", 1),
            ("state", 0),
            ("elemsize", 8),
            ("limit", 8),
            ("specials", 8),
            ("largeType", 8),
        ],
    ),
    ("runtime.mheap", &[("allspans.array", 8), ("allspans.len", 8), ("arenas", 0)]),
    ("runtime.heapArena", &[("bitmap", 0), ("noMorePtrs", 0), ("spans", 0)]),
    ("runtime.special", &[("next", 8), ("offset", 0), ("kind", 1)]),
    ("runtime.specialfinalizer", &[("special", 0), ("fn", 8)]),
    ("runtime.funcval", &[("fn", 8)]),
    (
        "runtime.moduledata",
        &[
            ("data", 8),
            ("edata", 8),
            ("bss", 8),
            ("ebss", 8),
            ("noptrdata", 8),
            ("enoptrdata", 8),
            ("noptrbss", 8),
            ("enoptrbss", 8),
            ("types", 8),
            ("etypes", 8),
            ("rodata", 8),
            ("gcdatamask.n", 4),
            ("gcdatamask.bytedata", 8),
            ("gcbssmask.n", 4),
            ("gcbssmask.bytedata", 8),
        ],
    ),
];

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
            let structs = structs_of(&goroot, version, arch)
                .with_context(|| format!("the layouts of Go {version} for {arch:?}"))?;
            let version = GoVersion::parse(&format!("go{version}")).context("a version without numbers")?;
            described.push(Described { version, arch, structs, wait_reasons: wait_reasons.clone() });
        }
    }
    Ok(KnownLayouts::new(described))
}

/// The layouts in a program built with this toolchain.
fn structs_of(goroot: &Path, version: &str, arch: Arch) -> anyhow::Result<Structs> {
    let directory = tempfile::tempdir().context("creating a directory")?;
    let program = directory.path().join("layouts");
    let mut build = toolchain::go_command(&goroot.join("bin/go"))?;
    build.current_dir(xtask::root().join("tests/go/layouts")).env("CGO_ENABLED", "0").env("GOOS", "linux");
    build.env("GOARCH", if arch == Arch::Amd64 { "amd64" } else { "arm64" });
    command::output(build.args(["build", "-buildvcs=false", "-o"]).arg(&program).arg("."))?;
    let file = File::open(&program).context("opening the program")?;
    let elf = Elf::parse(&file)?;
    let wanted = wanted();
    let view: Vec<(&str, &[(&str, u32)])> = wanted.iter().map(|(name, fields)| (*name, fields.as_slice())).collect();
    let structs = dwarf::structs(&file, &elf, &view)?;
    for (name, _) in &view {
        if !structs.contains_key(*name) {
            bail!("Go {version} does not describe {name}");
        }
    }
    Ok(structs)
}

/// All structs and fields of the table.
fn wanted() -> BTreeMap<&'static str, Vec<(&'static str, u32)>> {
    let mut wanted: BTreeMap<&str, Vec<(&str, u32)>> = BTreeMap::new();
    for (name, fields) in layout::WANTED.iter().chain(BESIDES) {
        let known = wanted.entry(name).or_default();
        for field in *fields {
            if !known.iter().any(|(name, _)| *name == field.0) {
                known.push(*field);
            }
        }
    }
    wanted
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
