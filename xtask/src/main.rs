//! `cargo xtask`: set-up, demo, tests and the build of the BPF object.

use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use xtask::bpf;
use xtask::command::say;

/// Everything a contributor to parkwarden runs.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Build the BPF object from source and write it with a digest of its sources.
    Ebpf(EbpfArgs),
}

#[derive(Debug, Args)]
struct EbpfArgs {
    /// Only check that the committed object came from these sources.
    #[arg(long)]
    check: bool,
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().task {
        Task::Ebpf(EbpfArgs { check: true }) => bpf::check(),
        Task::Ebpf(EbpfArgs { check: false }) => bpf::build(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(format_args!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}
