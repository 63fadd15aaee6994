//! `cargo xtask fuzz`: every parser of untrusted bytes against a fuzzer, for a bounded time.
//!
//! The targets are in `agent/fuzz`. They are built with coverage but without a sanitizer: what they look for are panics,
//! endless work and allocation by an attacker's number, which `-timeout`, `-rss_limit_mb` and `-malloc_limit_mb` turn
//! into failures. Findings stay under `agent/fuzz/artifacts`.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Context as _;
use clap::Args;
use xtask::command::{self, find, run, say};

/// Targets, and the largest input each is given.
const TARGETS: [(&str, usize); 6] = [
    ("binary", 8 << 20),
    ("dwarf", 8 << 20),
    ("pclntab", 4 << 20),
    ("sites", 4 << 10),
    ("events", 64 << 10),
    ("capture", 256 << 10),
];

/// Arguments of `fuzz`.
#[derive(Debug, Args)]
pub struct FuzzArgs {
    /// Seconds for each target.
    #[arg(long, default_value_t = 60)]
    pub seconds: u64,
    /// Only this target.
    #[arg(long)]
    pub target: Option<String>,
    /// Optimize little: a short run is over sooner, a long one tries less.
    #[arg(long)]
    pub quick: bool,
}

/// Runs the targets one after the other.
pub fn fuzz(arguments: &FuzzArgs) -> anyhow::Result<()> {
    let cargo_fuzz = install()?;
    let directory = xtask::root().join("agent/fuzz");
    let fuzz = |subcommand: &str| {
        let mut command = Command::new(&cargo_fuzz);
        command.args(["fuzz", subcommand, "--sanitizer", "none", "--fuzz-dir"]).arg(&directory);
        if arguments.quick {
            // By the environment: lints of the same tree keep to the profile that they share with those of the workspace.
            command.arg("--dev");
            command.env("CARGO_PROFILE_DEV_OPT_LEVEL", "1");
        }
        // The coverage instrumentation is a compiler flag that stable Rust hides.
        command.env("RUSTC_BOOTSTRAP", "1").current_dir(xtask::root().join("agent"));
        command
    };
    let mut names: Vec<&str> = TARGETS.iter().map(|(name, _)| *name).collect();
    if let Some(only) = &arguments.target {
        names.retain(|name| name == only);
        anyhow::ensure!(!names.is_empty(), "there is no fuzz target {only}: {:?}", TARGETS.map(|(name, _)| name));
    }
    run(command::cargo().args(["build", "--quiet", "--locked", "--workspace", "--bin", "fuzz-seeds"]))?;
    run(Command::new(xtask::target_dir().join("debug/fuzz-seeds")).arg(directory.join("corpus")))?;
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
        let mut cargo = Command::new("cargo");
        // It only calls cargo: nothing worth optimizing.
        cargo.args(["install", "cargo-fuzz", "--locked", "--debug", "--root"]).arg(&root);
        run(cargo.env("CARGO_PROFILE_DEV_DEBUG", "false"))?;
    }
    Ok(program)
}
