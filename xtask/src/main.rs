//! `cargo xtask`: set-up, demo, tests, benchmarks, and what is generated: the BPF objects and the table of layouts.

mod check;
mod demo;
mod fuzz;
mod suite;

use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum as _};
use xtask::command::say;
use xtask::{bpf, dist, release};

/// Everything a contributor to parkwarden runs.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Install everything that demo, test and ebpf need.
    Setup,
    /// Build a leaking Go service, put load on it, watch it for half a minute and print the report.
    Demo,
    /// Check formatting and lints and run the unit tests: whether a change is sane. Installs nothing.
    Check,
    /// Check formatting and lints, and run all tests with sudo, or only those whose names match.
    Test(suite::TestArgs),
    /// Build the BPF objects from source, one an architecture, and write them with digests.
    Ebpf(EbpfArgs),
    /// Build parkwarden as one static file (target/dist/TARGET/parkwarden) for both architectures or one, and pack it:
    /// archive, .deb, .rpm, SBOM and digests in target/dist/VERSION.
    Dist(DistArgs),
    /// Fuzz every parser of untrusted bytes, for a bounded time.
    Fuzz(fuzz::FuzzArgs),
    /// Measure what parkwarden costs and how fast it is, and write BENCHMARKS.md.
    Bench(suite::BenchArgs),
    /// Write the table of runtime layouts for stripped binaries, from the Go toolchains.
    Layouts,
}

#[derive(Debug, Args)]
struct EbpfArgs {
    /// Only check that the committed objects came from these sources.
    #[arg(long)]
    check: bool,
}

#[derive(Debug, Args)]
struct DistArgs {
    /// Build it for this alone.
    #[arg(long, value_enum)]
    target: Option<dist::Target>,
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().task {
        Task::Setup => suite::setup(),
        Task::Demo => demo::demo(),
        Task::Check => check::check(),
        Task::Test(arguments) => suite::test(&arguments),
        Task::Ebpf(EbpfArgs { check: true }) => bpf::check(),
        Task::Ebpf(EbpfArgs { check: false }) => bpf::build(),
        Task::Dist(DistArgs { target }) => {
            let targets = target.map_or_else(|| dist::Target::value_variants().to_vec(), |target| vec![target]);
            release::release(&targets).map(drop)
        }
        Task::Fuzz(arguments) => fuzz::fuzz(&arguments),
        Task::Bench(arguments) => suite::bench(&arguments),
        Task::Layouts => suite::layouts(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(format_args!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}
