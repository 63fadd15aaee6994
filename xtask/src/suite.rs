//! `cargo xtask setup`, `test` and `bench`: what the tests need, and all of them or some.

use std::process::{Command, Stdio};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use clap::{Args, ValueEnum};
use xtask::command::{self, run, say};
use xtask::{bpf, cluster, packages, toolchain};

use crate::check::{self, as_root, cargo, step};

/// What names of tests in `tests/suite/live` begin with: they attach probes or start containers, and so need root and a kernel
/// with BPF.
const LIVE: &str = "live::";

/// What cargo tests: the integration tests.
const SUITE: [&str; 3] = ["--workspace", "--test", "suite"];

/// Arguments of `test`.
#[derive(Debug, Args)]
pub struct TestArgs {
    /// Run only tests whose names contain this, without formatting and lints, and install only what they use.
    #[arg(conflicts_with_all = ["cluster", "kernels", "packages", "skip"])]
    filter: Option<String>,
    /// Build the BPF object from source first, and test with that one.
    #[arg(long)]
    rebuild_bpf: bool,
    /// Test every Go version with every way of building, not only some with each. The builds take long; they are kept.
    #[arg(long)]
    full_matrix: bool,
    /// Let the tests that take their time have it: minutes instead of seconds of programs that come and go.
    #[arg(long)]
    long: bool,
    /// Run the agent in a Kubernetes cluster of one node instead, as deploy/ has it. The cluster's servers are built from
    /// source the first time, which takes some minutes.
    #[arg(long, conflicts_with_all = ["rebuild_bpf", "full_matrix", "long", "skip"])]
    cluster: bool,
    /// Run parkwarden on other kernels and on arm64 instead, in machines that QEMU emulates: on those whose names match,
    /// words separated by commas, or on all, which writes docs/kernels.md. Everything it takes is fetched the first time.
    #[arg(long, value_name = "PATTERN", num_args = 0..=1, default_missing_value = "",
          conflicts_with_all = ["rebuild_bpf", "full_matrix", "long", "cluster", "skip"])]
    kernels: Option<String>,
    /// Pack parkwarden twice and compare, and install and run the `.deb` on a clean Debian instead, which is fetched.
    #[arg(long, conflicts_with_all = ["rebuild_bpf", "full_matrix", "long", "cluster", "kernels", "skip"])]
    packages: bool,
    /// With `--kernels`: less of what takes long.
    #[arg(long, requires = "kernels")]
    quick: bool,
    /// Leave tests out. Without it, a test whose needs the machine does not meet fails.
    #[arg(long, value_enum, env = "PARKWARDEN_SKIP")]
    skip: Option<Skip>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Skip {
    /// Tests that attach probes to running programs or start containers: they need root and BPF.
    Live,
}

/// Arguments of `bench`.
#[derive(Debug, Args)]
pub struct BenchArgs {
    /// Measure only these sections; what the others said in BENCHMARKS.md stays.
    sections: Vec<String>,
}

/// Installs everything the demo, the tests and the build of the BPF object need.
pub fn setup() -> anyhow::Result<()> {
    install()?;
    bpf::install()
}

fn install() -> anyhow::Result<()> {
    for version in toolchain::VERSIONS {
        toolchain::goroot(version)?;
    }
    if let Err(error) = toolchain::goroot(toolchain::DEBIAN) {
        say(format_args!("without Go {}, which only Debian has: {error:#}", toolchain::DEBIAN));
    }
    packages::programs()?;
    packages::kubernetes()?;
    packages::helm()?;
    packages::grafana()?;
    Ok(())
}

/// Runs every check and test there is, or those that were asked for.
pub fn test(arguments: &TestArgs) -> anyhow::Result<()> {
    if arguments.cluster {
        return test_cluster();
    }
    if let Some(pattern) = &arguments.kernels {
        return test_kernels(pattern, arguments.quick);
    }
    if arguments.packages {
        return step("packages", &mut Command::new(built_test("packages")?));
    }
    if arguments.filter.is_none() {
        install()?;
    }
    if arguments.rebuild_bpf {
        // Before it is overwritten: the committed object is the one users get.
        bpf::check()?;
        bpf::build()?;
    }
    match &arguments.filter {
        Some(filter) => test_matching(filter, arguments),
        None => test_all(arguments),
    }
}

fn test_all(arguments: &TestArgs) -> anyhow::Result<()> {
    for (subcommand, component) in check::COMPONENTS {
        if !check::has(subcommand) {
            say(format_args!("installing {component} with rustup"));
            run(Command::new("rustup").args(["component", "add", component]))
                .with_context(|| format!("`cargo {subcommand}` is missing"))?;
        }
    }
    check::formatting_and_lints()?;
    build_parkwarden()?;
    check::unit_tests(&[])?;
    let (others, skipped): (&[&str], _) = match arguments.skip {
        None => (&[], Vec::new()),
        Some(Skip::Live) => (&["--skip", LIVE], live_tests()?),
    };
    integration_tests(arguments, others)?;
    for test in &skipped {
        say(format_args!("skipped {test}"));
    }
    say(format_args!("all passed, {} skipped", skipped.len()));
    Ok(())
}

/// Toolchains and programs are installed by the tests that use them.
fn test_matching(filter: &str, arguments: &TestArgs) -> anyhow::Result<()> {
    let units = check::listed(&check::UNIT_TESTS, &[filter])?;
    let others = check::listed(&SUITE, &[filter])?;
    if units.is_empty() && others.is_empty() {
        bail!("no test has {filter:?} in its name");
    }
    if !units.is_empty() {
        check::unit_tests(&[filter])?;
    }
    if !others.is_empty() {
        build_parkwarden()?;
        integration_tests(arguments, &[filter])?;
    }
    say(format_args!("all {} passed that have {filter:?} in their names", units.len() + others.len()));
    Ok(())
}

/// The tests run this one; built here, so that it is not root who builds it.
fn build_parkwarden() -> anyhow::Result<()> {
    step("parkwarden", &mut cargo(&["build", "--locked", "--workspace", "--bin", "parkwarden"]))
}

fn integration_tests(arguments: &TestArgs, which: &[&str]) -> anyhow::Result<()> {
    let mut suite = cargo(&["test", "--locked"]);
    // Most of them watch a program for a while, which takes time and not a CPU.
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get) + 1;
    suite.args(SUITE).args(["--", "--test-threads", &threads.to_string()]).args(which);
    if arguments.full_matrix {
        suite.env("PARKWARDEN_FULL_MATRIX", "1");
    }
    if arguments.long {
        suite.env("PARKWARDEN_LONG", "1");
    }
    step("integration tests", as_root(&mut suite)?)
}

/// Runs `tests/cluster` in network and mount namespaces of its own, which end with it: nothing of the cluster can be
/// reached from the machine, nor is it left there.
fn test_cluster() -> anyhow::Result<()> {
    cluster::install()?;
    // What it needs from elsewhere has to be there before it is cut off.
    toolchain::goroot(toolchain::NEWEST)?;
    let program = built_test("cluster")?;

    leave_interrupts_to_the_test()?;
    let mut test = command::as_root_here("unshare")?;
    test.args(["--net", "--mount", "--propagation", "private", "--"]).arg(program);
    step("cluster", &mut test)
}

/// Runs `tests/kernels`, which needs no rights: the machines are emulated.
fn test_kernels(pattern: &str, quick: bool) -> anyhow::Result<()> {
    let program = built_test("kernels")?;
    leave_interrupts_to_the_test()?;
    let mut test = Command::new(program);
    test.current_dir(xtask::root()).args(quick.then_some("--quick")).arg(pattern);
    step("kernels", &mut test)
}

/// Builds a test that an ordinary `cargo test` leaves out; its program.
fn built_test(name: &str) -> anyhow::Result<String> {
    let mut build = cargo(&["test", "--no-run", "--locked", "--workspace", "--test", name]);
    build.args(["--message-format", "json-render-diagnostics"]).stderr(Stdio::inherit());
    say(format_args!("the test {name}: {}", command::describe(&build)));
    let built = build.output().context("starting cargo")?;
    let messages = String::from_utf8_lossy(&built.stdout);
    let mut messages = messages.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let program = messages.find_map(|message| {
        // Programs of the workspace are built with it, and come first.
        let is_it = message["target"]["name"] == name && message["target"]["kind"][0] == "test";
        message["executable"].as_str().filter(|_| is_it).map(str::to_owned)
    });
    program.filter(|_| built.status.success()).with_context(|| format!("the test {name} does not build"))
}

/// Ctrl-C is for the test, which then ends what it has started. That is waited for, which cargo would not do.
fn leave_interrupts_to_the_test() -> anyhow::Result<()> {
    signal_hook::flag::register(signal_hook::consts::SIGINT, Arc::default()).context("handling Ctrl-C")?;
    Ok(())
}

/// Runs the benchmarks, which write BENCHMARKS.md.
pub fn bench(arguments: &BenchArgs) -> anyhow::Result<()> {
    toolchain::goroot(toolchain::NEWEST)?;
    // What it measures; built here, so that it is not root who builds it.
    run(&mut cargo(&["build", "--release", "--locked", "--package", "parkwarden", "--bin", "parkwarden"]))?;
    let mut bench = cargo(&["bench", "--locked", "--package", "parkwarden-tests", "--bench", "bench", "--"]);
    run(as_root(bench.args(&arguments.sections))?)
}

/// Has the test that compares the table of layouts write it.
pub fn layouts() -> anyhow::Result<()> {
    run(cargo(&["test", "--locked"]).args(SUITE).args(["--", "layouts::"]).env("UPDATE_GOLDEN", "1"))
}

fn live_tests() -> anyhow::Result<Vec<String>> {
    let mut live = check::listed(&SUITE, &[LIVE])?;
    live.retain(|name| name.starts_with(LIVE));
    if live.is_empty() {
        bail!("there are no live tests to skip; are they still in tests/suite/live?");
    }
    Ok(live)
}
