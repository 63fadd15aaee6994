//! The command line: each command is one file, with its arguments beside the code that runs it.
//!
//! Deliberately absent: anything that another program could want. That is the library's; here is what is printed, where
//! to, and with which status a command ends.

mod agent;
mod doctor;
mod prove;
mod ps;
mod snapshot;
mod timeline;
mod watch;
mod why;

use std::io;
use std::path::Path;

use anyhow::Context as _;
use clap::{ArgAction, Parser, Subcommand, ValueEnum};
use parkwarden::config::BpfLog;
use parkwarden::exit::Exit;

/// Sees goroutine leaks of running Go programs from outside the process.
///
/// Nothing in the target changes: no import, no endpoint, no restart. parkwarden attaches uprobes to the Go runtime of
/// the running process, reads its goroutines' state from its memory, and names the `go` statements whose goroutines
/// stay parked.
#[derive(Debug, Parser)]
#[command(name = "parkwarden", version, max_term_width = 100)]
pub struct Cli {
    /// Log more to stderr: -v what parkwarden does, -vv also each event its BPF programs lose, -vvv each hit of a probe
    /// (which slows the target down).
    #[arg(short, long, action = ArgAction::Count, global = true)]
    pub verbose: u8,

    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Watch a running Go program and report the goroutines that stay parked.
    Watch(watch::WatchArgs),
    /// List every Go process of this host: its Go version, its goroutines, and whether it can be watched.
    Ps(ps::PsArgs),
    /// Look once at all goroutines of a running Go program, with their stacks; no probes, nothing is stopped.
    Snapshot(snapshot::SnapshotArgs),
    /// Stop a running Go program for a moment and prove which of its goroutines can never run again.
    Prove(prove::ProveArgs),
    /// Look at a running Go program and say who waits for whom, and what all of them wait for; nothing is stopped.
    Why(why::WhyArgs),
    /// Watch every Go process of this host for as long as it runs, and serve what is seen over HTTP: metrics, reports, profiles.
    Agent(Box<agent::AgentArgs>),
    /// Tell from a recording what leaked, since when, how fast, and how it ended; or list what the recording holds.
    Timeline(timeline::TimelineArgs),
    /// Check whether this host can run parkwarden, and say what is missing.
    Doctor(doctor::DoctorArgs),
}

impl Command {
    /// The process it is about, if it is about one.
    pub fn pid(&self) -> Option<u32> {
        match self {
            Self::Watch(args) => args.pid,
            Self::Snapshot(args) => Some(args.pid),
            Self::Prove(args) => args.pid,
            Self::Why(args) => Some(args.pid),
            Self::Ps(_) | Self::Agent(_) | Self::Timeline(_) | Self::Doctor(_) => None,
        }
    }
}

impl Cli {
    /// Does what is asked for.
    pub fn run(&self) -> anyhow::Result<Exit> {
        match &self.command {
            Command::Watch(args) => watch::run(args, self.bpf_log()),
            Command::Ps(args) => ps::run(args),
            Command::Snapshot(args) => snapshot::run(args),
            Command::Prove(args) => prove::run(args),
            Command::Why(args) => why::run(args),
            Command::Agent(args) => agent::run(args, self.bpf_log()),
            Command::Timeline(args) => timeline::run(args),
            Command::Doctor(args) => doctor::run(args),
        }
    }

    /// How much the BPF programs are to log.
    const fn bpf_log(&self) -> BpfLog {
        match self.verbose {
            0 | 1 => BpfLog::Off,
            2 => BpfLog::Losses,
            _ => BpfLog::Hits,
        }
    }
}

/// Exit statuses, for `--help`; [`parkwarden::exit`] has the numbers.
const EXIT_HELP: &str = "Exit status: 0 done; 1 parkwarden failed; 2 wrong usage; 3 a leak was found and --fail-on-leak \
                         was given; 4 the target cannot be watched.";

/// How to print a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// Where a result goes.
fn output(path: Option<&Path>) -> anyhow::Result<Box<dyn io::Write>> {
    Ok(match path {
        Some(path) => {
            let file = std::fs::File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
            Box::new(io::BufWriter::new(file))
        }
        None => Box::new(io::BufWriter::new(io::stdout().lock())),
    })
}

fn print_json(out: &mut impl io::Write, value: &impl serde::Serialize) -> anyhow::Result<()> {
    serde_json::to_writer_pretty(&mut *out, value)?;
    writeln!(out)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
    }
}
