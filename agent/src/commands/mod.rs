//! The command line: each command is one file, with its arguments beside the code that runs it.
//!
//! Deliberately absent: anything that another program could want. That is the library's; here is what is printed, where
//! to, and with which status a command ends.

mod agent;
mod doctor;
mod manual;
mod mem;
mod profile;
mod prove;
mod ps;
mod sched;
mod show;
mod snapshot;
mod timeline;
mod top;
mod watch;
pub mod which;
mod why;

use std::cell::Cell;
use std::io::{self, IsTerminal as _, Read as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use anyhow::Context as _;
use clap::{ArgAction, Parser, Subcommand, ValueEnum};
use parkwarden::config::BpfLog;
use parkwarden::exit::Exit;
use parkwarden::live::Target;
use parkwarden::runtime::signs::Sign;
use parkwarden::snapshot::Look;
use parkwarden::words::printable;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use signal_hook::low_level::pipe;

/// Sees goroutine leaks of running Go programs from outside the process.
///
/// Nothing in the target changes: no import, no endpoint, no restart. parkwarden attaches uprobes to the Go runtime of
/// the running process, reads its goroutines' state from its memory, and names the `go` statements whose goroutines
/// stay parked.
#[derive(Debug, Parser)]
#[command(name = "parkwarden", version, long_version = LONG_VERSION.as_str(), max_term_width = 100)]
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
    /// Show every Go process of this host, live, on a terminal: goroutines, leaks, memory, and of each what is wrong and why.
    Top(top::TopArgs),
    /// Look once at all goroutines of a running Go program, with their stacks; no probes, nothing is stopped.
    Snapshot(snapshot::SnapshotArgs),
    /// Look at the scheduler of a running Go program: the lines of GODEBUG=schedtrace, and what is wrong with it.
    Sched(sched::SchedArgs),
    /// Look at the memory, the collector and the timers of a running Go program, and what is wrong with them.
    Mem(mem::MemArgs),
    /// Take a profile of a running Go program from its memory, as its /debug/pprof would give it.
    Profile(profile::ProfileArgs),
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
    /// Print what a shell needs to complete parkwarden's command line.
    Completions(manual::CompletionsArgs),
    /// Write the manual pages.
    Man(manual::ManArgs),
}

impl Command {
    /// The process it is about, if it is about one.
    pub fn pid(&self) -> Option<u32> {
        match self {
            Self::Watch(args) => args.which.by_pid(),
            Self::Snapshot(args) => args.which.by_pid(),
            Self::Sched(args) => args.which.by_pid(),
            Self::Mem(args) => args.which.by_pid(),
            Self::Profile(args) => args.which.by_pid(),
            Self::Prove(args) => args.which.by_pid(),
            Self::Why(args) => args.which.by_pid(),
            Self::Ps(_)
            | Self::Top(_)
            | Self::Agent(_)
            | Self::Timeline(_)
            | Self::Doctor(_)
            | Self::Completions(_)
            | Self::Man(_) => None,
        }
    }
}

impl Cli {
    /// Does what is asked for.
    pub fn run(&self) -> anyhow::Result<Exit> {
        match &self.command {
            Command::Watch(args) => watch::run(args, self.bpf_log()),
            Command::Ps(args) => ps::run(args),
            Command::Top(args) => top::run(args, self.bpf_log()),
            Command::Snapshot(args) => snapshot::run(args),
            Command::Sched(args) => sched::run(args),
            Command::Mem(args) => mem::run(args),
            Command::Profile(args) => profile::run(args),
            Command::Prove(args) => prove::run(args),
            Command::Why(args) => why::run(args),
            Command::Agent(args) => agent::run(args, self.bpf_log()),
            Command::Timeline(args) => timeline::run(args),
            Command::Doctor(args) => doctor::run(args),
            Command::Completions(args) => manual::completions(args),
            Command::Man(args) => manual::man(args),
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

/// The version, and what it was built from.
static LONG_VERSION: LazyLock<String> = LazyLock::new(|| {
    let (version, object) = (env!("CARGO_PKG_VERSION"), parkwarden::probe::object_digest());
    let commit = option_env!("PARKWARDEN_COMMIT").unwrap_or("unknown");
    let (arch, os) = (std::env::consts::ARCH, std::env::consts::OS);
    format!("{version}\ncommit {commit}\ntarget {arch}-{os}\nBPF object {object}")
});

/// Exit statuses, for `--help`; [`parkwarden::exit`] has the numbers.
const EXIT_HELP: &str = "Exit status: 0 done; 1 parkwarden failed; 2 wrong usage; 3 a leak was found and --fail-on-leak \
                         was given; 4 the target cannot be watched.";

/// The same for commands that look at one process's runtime.
const OVERVIEW_EXIT: &str =
    "Exit status: 0 done, whatever was found; 1 parkwarden failed; 2 wrong usage; 4 the process cannot be looked at.";

/// Shortest time between two looks at a process that somebody watches.
const MIN_INTERVAL: Duration = Duration::from_millis(100);

/// Tells of processes that were not let go of in time.
fn say_left(left: usize) {
    if left > 0 {
        // Their probes go with this process.
        eprintln!("parkwarden: {left} processes were not let go of in time; the kernel does it now");
    }
}

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

/// The same for what is no text: not a terminal.
fn binary_output(path: Option<&Path>) -> anyhow::Result<Box<dyn io::Write>> {
    anyhow::ensure!(
        path.is_some() || !io::stdout().is_terminal(),
        "a profile is no text for a terminal: write it with -o FILE, and open that with `go tool pprof FILE`"
    );
    output(path)
}

/// That the runtime of a process cannot be read is about the process.
fn failed(target: &Target, reason: impl std::fmt::Display) -> anyhow::Error {
    target.failed(reason).into()
}

/// Signs as text, with the stack of the first goroutine that each is about, where it stands still to be read.
fn print_signs(out: &mut impl io::Write, signs: &[Sign], target: &mut Target) -> anyhow::Result<()> {
    let look = if signs.iter().any(|sign| !sign.goroutines.is_empty()) { Some(Look::at(target)?) } else { None };
    for sign in signs {
        writeln!(out, "! {}: {}", sign.rule, sign.says)?;
        let Some(look) = &look else { continue };
        let stack = look.taken.goroutines().find_map(|(goroutine, stack)| {
            sign.goroutines.contains(&goroutine.goid).then_some((goroutine.goid, stack?))
        });
        let Some((goid, stack)) = stack else { continue };
        writeln!(out, "    goroutine {goid}:")?;
        for frame in look.stack(Some(stack)).iter().flat_map(|pc| look.symbols.return_address(*pc)) {
            writeln!(out, "      {} {}:{}", printable(&frame.function), printable(&frame.file), frame.line)?;
        }
    }
    Ok(())
}

/// Ctrl-C, for commands that go on until it comes: the first ends them in good order, the second at once.
struct Interrupts {
    pressed: UnixStream,
    seen: Cell<bool>,
}

impl Interrupts {
    fn expected() -> anyhow::Result<Self> {
        let (pressed, sender) = UnixStream::pair().context("cannot wait for Ctrl-C")?;
        let once = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            // In this order: a read of a target's memory can take for ever, and the second signal ends it.
            flag::register_conditional_default(signal, Arc::clone(&once)).context("cannot wait for Ctrl-C")?;
            flag::register(signal, Arc::clone(&once)).context("cannot wait for Ctrl-C")?;
            pipe::register(signal, sender.try_clone()?).context("cannot wait for Ctrl-C")?;
        }
        Ok(Self { pressed, seen: Cell::new(false) })
    }

    /// Waits that long, or until Ctrl-C; whether that came.
    fn wait(&self, time: Duration) -> bool {
        if !self.seen.get() {
            // No time at all would be for ever.
            let timeout = Some(time.max(Duration::from_nanos(1000)));
            let read = self.pressed.set_read_timeout(timeout).and_then(|()| (&self.pressed).read(&mut [0]));
            self.seen.set(read.is_ok());
        }
        self.seen.get()
    }

    fn pressed(&self) -> bool {
        self.wait(Duration::ZERO)
    }
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
