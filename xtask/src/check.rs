//! `cargo xtask check`: whether a change is sane, in less than a minute and without installing anything.
//!
//! `cargo xtask test` begins with the same.

use std::process::Command;

use anyhow::ensure;
use xtask::command::{self, run, say};

/// Subcommands of cargo, and the components of rustup that have them: a minimal toolchain has neither.
pub const COMPONENTS: [(&str, &str); 2] = [("fmt", "rustfmt"), ("clippy", "clippy")];

/// What cargo tests: the unit tests.
///
/// Here and wherever tests are built, the whole workspace is named: of some of its packages alone, cargo would choose other features
/// of what they depend on, and build all of it once more.
pub const UNIT_TESTS: [&str; 6] = ["--workspace", "--lib", "--bin", "parkwarden", "--bin", "xtask"];

/// Checks formatting and lints, and runs the unit tests.
pub fn check() -> anyhow::Result<()> {
    for (subcommand, component) in COMPONENTS {
        ensure!(has(subcommand), "`cargo {subcommand}` is missing: run `rustup component add {component}`");
    }
    formatting_and_lints()?;
    unit_tests(&[])?;
    say("formatted, no lint, all unit tests passed");
    Ok(())
}

/// Whether cargo has a subcommand, without rustup's installing it.
pub fn has(subcommand: &str) -> bool {
    command::output(cargo(&[subcommand, "--version"]).env("RUSTUP_AUTO_INSTALL", "0")).is_ok()
}

pub fn formatting_and_lints() -> anyhow::Result<()> {
    step("formatting", &mut cargo(&["fmt", "--all", "--check"]))?;
    step("lints", &mut cargo(&["clippy", "--workspace", "--all-targets", "--locked", "--", "--deny", "warnings"]))?;
    // A target that an ordinary `cargo test` leaves out is left out there too.
    let rarely = ["clippy", "--workspace", "--test", "cluster", "--test", "kernels", "--test", "packages", "--locked"];
    step("lints of what runs by itself", cargo(&rarely).args(["--", "--deny", "warnings"]))?;
    // A workspace of its own, which nothing else here would build; in one folder with the rest, for what both depend on.
    let mut fuzzing = cargo(&["clippy", "--locked", "--manifest-path"]);
    fuzzing.arg(xtask::root().join("agent/fuzz/Cargo.toml")).arg("--target-dir").arg(xtask::target_dir());
    step("lints of what is fuzzed", fuzzing.args(["--", "--deny", "warnings"]))
}

/// Runs the unit tests, all or those that are asked for in libtest's words. They take no rights.
pub fn unit_tests(which: &[&str]) -> anyhow::Result<()> {
    let mut test = cargo(&["test", "--locked"]);
    test.args(UNIT_TESTS).arg("--").args(which);
    step("unit tests", &mut test)
}

/// The names of the tests that cargo would run with these arguments, and libtest with those.
pub fn listed(tests: &[&str], which: &[&str]) -> anyhow::Result<Vec<String>> {
    let mut list = cargo(&["test", "--quiet", "--locked"]);
    list.args(tests).arg("--").args(which).args(["--list", "--format", "terse"]);
    let list = command::output(&mut list)?;
    Ok(list.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect())
}

/// Runs a command after saying what it is for.
pub fn step(name: &str, command: &mut Command) -> anyhow::Result<()> {
    say(format_args!("{name}: {}", command::describe(command)));
    run(command)
}

/// A cargo that is told this.
pub fn cargo(arguments: &[&str]) -> Command {
    let mut command = command::cargo();
    command.args(arguments);
    command
}

/// Has cargo run what it builds as root, without building as root.
pub fn as_root(cargo: &mut Command) -> anyhow::Result<&mut Command> {
    if !command::is_root() {
        let variable = format!("CARGO_TARGET_{}_UNKNOWN_LINUX_GNU_RUNNER", std::env::consts::ARCH.to_uppercase());
        // Cargo takes it as of the directory that it is called in, and splits it at blanks: not the whole path.
        cargo.env(variable, command::AS_ROOT).env("PARKWARDEN_CACHE", xtask::cache_dir()?);
    }
    Ok(cargo)
}
