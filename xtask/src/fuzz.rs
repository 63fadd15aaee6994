//! `cargo xtask fuzz`: every parser of untrusted bytes against a fuzzer, for a bounded time.
//!
//! The targets are in `agent/fuzz`. They are built with coverage but without a sanitizer: what they look for are panics,
//! endless work and allocation by an attacker's number, which `-timeout`, `-rss_limit_mb` and `-malloc_limit_mb` turn
//! into failures. Findings stay under `agent/fuzz/artifacts`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;
use clap::Args;
use xtask::command::{find, run, say};

use parkwarden::golang::binary::GoBinary;
use parkwarden::golang::pclntab::locate;
use parkwarden::golang::sites::{BinaryFunctions, Functions as _};

/// Targets, and the largest input each is given.
const TARGETS: [(&str, usize); 6] = [
    ("binary", 8 << 20),
    ("dwarf", 8 << 20),
    ("pclntab", 4 << 20),
    ("sites", 4 << 10),
    ("events", 64 << 10),
    ("capture", 256 << 10),
];

/// Seeds taken from the fixtures; each is a whole program, so a few show the fuzzer all there is.
const MAX_SEEDS: usize = 6;

/// Arguments of `fuzz`.
#[derive(Debug, Args)]
pub struct FuzzArgs {
    /// Seconds for each target.
    #[arg(long, default_value_t = 60)]
    pub seconds: u64,
    /// Only this target.
    #[arg(long)]
    pub target: Option<String>,
}

/// Runs the targets one after the other.
pub fn fuzz(arguments: &FuzzArgs) -> anyhow::Result<()> {
    let cargo_fuzz = install()?;
    let directory = xtask::root().join("agent/fuzz");
    let fuzz = |subcommand: &str| {
        let mut command = Command::new(&cargo_fuzz);
        command.args(["fuzz", subcommand, "--sanitizer", "none", "--fuzz-dir"]).arg(&directory);
        // The coverage instrumentation is a compiler flag that stable Rust hides.
        command.env("RUSTC_BOOTSTRAP", "1").current_dir(xtask::root().join("agent"));
        command
    };
    let mut names: Vec<&str> = TARGETS.iter().map(|(name, _)| *name).collect();
    if let Some(only) = &arguments.target {
        names.retain(|name| name == only);
        anyhow::ensure!(!names.is_empty(), "there is no fuzz target {only}: {:?}", TARGETS.map(|(name, _)| name));
    }
    seed(&directory.join("corpus"))?;
    for name in names {
        let max_len = TARGETS.iter().find(|(known, _)| *known == name).map_or(4096, |(_, len)| *len);
        run(fuzz("build").arg(name)).with_context(|| format!("the fuzz target {name} does not build"))?;
        say(format_args!("fuzzing {name} for {} s", arguments.seconds));
        run(fuzz("run").arg(name).arg("--").args([
            &format!("-max_total_time={}", arguments.seconds),
            &format!("-max_len={max_len}"),
            "-timeout=20",
            "-rss_limit_mb=2048",
            "-malloc_limit_mb=1024",
            "-print_final_stats=1",
        ]))
        .with_context(|| format!("the fuzz target {name} found something; see agent/fuzz/artifacts/{name}"))?;
    }
    Ok(())
}

/// `cargo-fuzz`, installed if it must be.
fn install() -> anyhow::Result<PathBuf> {
    if let Some(installed) = find("cargo-fuzz") {
        return Ok(installed);
    }
    let root = xtask::cache_dir()?.join("cargo-fuzz");
    let program = root.join("bin/cargo-fuzz");
    if !program.exists() {
        say("installing cargo-fuzz");
        run(Command::new("cargo").args(["install", "cargo-fuzz", "--locked", "--root"]).arg(&root))?;
    }
    Ok(program)
}

/// Writes what the targets begin from.
fn seed(corpus: &Path) -> anyhow::Result<()> {
    let write = |target: &str, name: &str, bytes: &[u8]| -> anyhow::Result<()> {
        let directory = corpus.join(target);
        fs::create_dir_all(&directory)?;
        Ok(fs::write(directory.join(name), bytes)?)
    };
    for (target, _) in TARGETS {
        fs::create_dir_all(corpus.join(target))?;
    }
    write("capture", "golden", &fs::read(xtask::root().join("tests/golden/leaks.capture"))?)?;
    // One record of each kind: parked, exited, readied, created.
    let record = |kind: u8, len: usize| {
        let mut bytes = vec![0; len];
        (bytes[0], bytes[8], bytes[18]) = (1, 5, kind);
        bytes
    };
    write("events", "each", &[record(4, 24), record(2, 24), record(3, 32), record(1, 48)].concat())?;

    let fixtures = xtask::root().join("target/fixtures");
    let mut programs: Vec<PathBuf> = fs::read_dir(&fixtures)
        .map(|entries| entries.filter_map(Result::ok).map(|entry| entry.path()).filter(|path| path.is_file()).collect())
        .unwrap_or_default();
    programs.sort_by_key(|path| (fs::metadata(path).map_or(u64::MAX, |metadata| metadata.len()), path.clone()));
    let mut seeds = 0;
    for path in programs {
        let bytes = fs::read(&path)?;
        let source: &[u8] = &bytes;
        let Ok(binary) = GoBinary::parse(&source) else { continue };
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        write("binary", &name, &bytes)?;
        write("dwarf", &name, &bytes)?;
        if let Some(place) = locate::locate(&source, &binary.elf, None, None)
            && let Ok(table) = locate::read(&source, &binary.elf, place)
        {
            let minor = u8::try_from(binary.version.minor.saturating_sub(18)).unwrap_or(0);
            write("pclntab", &name, &[&[minor], table.as_slice()].concat())?;
        }
        let functions = BinaryFunctions::new(&binary, &source);
        for function in ["runtime.gopark", "runtime.ready", "runtime.goexit1", "runtime.newproc.func1"] {
            if let Some(code) = functions.find(function).and_then(|range| functions.code(&range)) {
                write("sites", &format!("{name}-{function}"), &[&[0, 18], code.as_slice()].concat())?;
            }
        }
        seeds += 1;
        if seeds == MAX_SEEDS {
            break;
        }
    }
    if seeds == 0 {
        say("no fixture has been built yet, so there are no programs to begin from: `cargo xtask test` builds them");
    }
    Ok(())
}
