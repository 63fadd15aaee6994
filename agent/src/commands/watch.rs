//! `parkwarden watch`: from the command line to the report, on a terminal, in a file or in a recording.

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::{Command, ExitStatus};
use std::sync::Arc;
use std::time::Duration;

use clap::{ArgGroup, Args, ValueEnum};
use parkwarden::config::{
    BpfLog, ModeChoice, Percent, ProveConfig, ReachConfig, RecordConfig, Rules, WatchConfig, nanoseconds,
};
use parkwarden::detect::Verdict;
use parkwarden::discover::process::Process;
use parkwarden::discover::workload::Workload;
use parkwarden::exit::{Exit, chain};
use parkwarden::report::{self, Report};
use parkwarden::top::{self, OneView};
use parkwarden::watch::fate::Fate;
use parkwarden::watch::recording::Recordings;
use parkwarden::watch::{self, Outcome, Progress, replay};

use super::show::ShowArgs;
use super::which::{WHICH, Which};
use super::{EXIT_HELP, MIN_INTERVAL, print_json};

/// Arguments of `watch`.
#[derive(Debug, Args)]
#[command(after_help = EXIT_HELP)]
#[command(group = ArgGroup::new("which").required(true).args(WHICH).args(["replay", "command"]))]
pub struct WatchArgs {
    #[command(flatten)]
    pub which: Which,

    /// Report goroutines parked longer than this.
    #[arg(long, value_name = "TIME", default_value_t = WatchConfig::default().threshold.into())]
    pub threshold: humantime::Duration,

    /// How long to watch; 0s means until Ctrl-C or the target's end.
    #[arg(long = "for", value_name = "TIME", default_value_t = WatchConfig::default().duration.into())]
    pub duration: humantime::Duration,

    /// Time between two looks at all goroutines, and between two reports on a terminal.
    #[arg(long, value_name = "TIME", default_value_t = WatchConfig::default().interval.into())]
    pub interval: humantime::Duration,

    /// Windows of time over which a group of goroutines has to grow to be called a likely leak; a window is an interval, or
    /// two, four, eight… of them.
    #[arg(long, value_name = "N", default_value_t = Rules::default().windows,
          value_parser = clap::value_parser!(u32).range(2..=1000))]
    pub windows: u32,

    /// By how many goroutines a group has to grow over these windows to be called a likely leak.
    #[arg(long, value_name = "N", default_value_t = Rules::default().min_growth,
          value_parser = clap::value_parser!(u64).range(1..))]
    pub min_growth: u64,

    /// How to watch: trace streams every event of four probes; filter keeps parks in the kernel until they are long;
    /// births has two probes, which count what go statements make and what ends, and reads parks as census does;
    /// census attaches nothing and reads the process's memory at every interval; auto moves between them to keep what
    /// it costs the process within the budget.
    #[arg(long, value_enum, default_value_t = WatchConfig::default().mode)]
    pub mode: ModeChoice,

    /// With --mode auto: what probes may cost, of the process's CPU time (never more than 5% of a core).
    #[arg(long, value_name = "PERCENT", default_value_t = WatchConfig::default().budget)]
    pub budget: Percent,

    /// With --mode filter and auto: parks shorter than this are not told one by one.
    #[arg(long, value_name = "TIME", default_value_t = WatchConfig::default().min_park.into())]
    pub min_park: humantime::Duration,

    /// Look at what the running process can still reach, without stopping it, keeping so many MiB of its heap at a time; 0 for no
    /// such looks.
    #[arg(long, value_name = "MIB", default_value_t = WatchConfig::default().reach.window_mib, conflicts_with = "replay",
          value_parser = clap::value_parser!(u32).range(0..=1 << 20))]
    pub reach_window_mib: u32,

    /// When goroutines are a likely leak, try to prove it: stop the process for a moment and follow everything that can still
    /// run. At most once an interval, and for at most 1 % of the time.
    #[arg(long, conflicts_with = "replay")]
    pub prove: bool,

    /// With --prove: longest time the process may stand still; if copying its memory would take longer it is left alone.
    #[arg(long, value_name = "TIME", default_value_t = ProveConfig::default().max_pause.into(), requires = "prove")]
    pub max_pause: humantime::Duration,

    /// With --prove: memory that parkwarden may take for it, in MiB; a process whose copy would take more is left alone.
    #[arg(long, value_name = "MIB", default_value_t = ProveConfig::default().memory_mib, requires = "prove",
          value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    pub prove_memory_mib: u32,

    /// With --prove: copy the heap while the process runs, and in the pause only what it has written since; see `prove --help`.
    #[arg(long, requires = "prove")]
    pub track_writes: bool,

    /// How to print the report: text is a live view on a terminal and the report at its end, json is one document at the end, jsonl one a line at every look.
    #[arg(long, value_enum, default_value_t = WatchFormat::Text)]
    pub format: WatchFormat,

    #[command(flatten)]
    pub show: ShowArgs,

    /// Exit with status 3 if a group behaves like a leak.
    #[arg(long)]
    pub fail_on_leak: bool,

    /// Exit with status 3 if a group is stuck or behaves like a leak.
    #[arg(long)]
    pub fail_on_stuck: bool,

    /// Save everything that is seen to FILE, for --replay.
    #[arg(long, value_name = "FILE", conflicts_with = "replay")]
    pub save: Option<PathBuf>,

    /// Report from a file written by --save, without root and without the target.
    #[arg(long, value_name = "FILE")]
    pub replay: Option<PathBuf>,

    /// Record goroutine counts, verdicts and the process's end to FILE, for `timeline`; a file that is there is continued.
    #[arg(long, value_name = "FILE", conflicts_with = "replay")]
    pub record: Option<PathBuf>,

    /// How long a recording keeps what it holds.
    #[arg(long, value_name = "TIME", requires = "record", default_value_t = RecordConfig::default().max_age.into())]
    pub record_keep: humantime::Duration,

    /// Size at which a recording drops the oldest it holds, in MiB.
    #[arg(long, value_name = "MIB", requires = "record", default_value_t = RecordConfig::default().max_bytes >> 20,
          value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    pub record_size: u64,

    /// Start this command, and watch it from its first goroutine to its end. It has the terminal, so that there is no live view. Of
    /// SIGINT and SIGTERM the first is for the command.
    #[arg(last = true, value_name = "COMMAND", conflicts_with = "duration")]
    pub command: Vec<OsString>,

    /// Size of the ring buffer between the kernel and parkwarden, in KiB (rounded up to a power of two).
    #[arg(long, value_name = "KIB", default_value_t = WatchConfig::default().ring_bytes / 1024,
          value_parser = clap::value_parser!(u32).range(4..=1 << 20))]
    pub ring: u32,
}

/// How to print what was watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum WatchFormat {
    /// For people.
    Text,
    /// For programs.
    Json,
    /// For programs that follow it.
    Jsonl,
}

impl WatchArgs {
    /// The settings these arguments ask for.
    fn config(&self, bpf_log: BpfLog) -> WatchConfig {
        WatchConfig {
            threshold: self.threshold.into(),
            duration: if self.command.is_empty() { self.duration.into() } else { Duration::ZERO },
            // An interval of zero would read the target without a pause.
            interval: Duration::from(self.interval).max(MIN_INTERVAL),
            rules: Rules { windows: self.windows, min_growth: self.min_growth, ..Rules::default() },
            reach: ReachConfig { window_mib: self.reach_window_mib },
            prove: self.prove.then(|| ProveConfig {
                max_pause: self.max_pause.into(),
                memory_mib: self.prove_memory_mib,
                track_writes: self.track_writes,
            }),
            ring_bytes: self.ring.saturating_mul(1024),
            save: self.save.clone(),
            bpf_log,
            mode: self.mode,
            budget: self.budget,
            min_park: self.min_park.into(),
        }
    }

    /// How much a recording is to keep.
    fn record_config(&self) -> RecordConfig {
        RecordConfig { max_age: self.record_keep.into(), max_bytes: self.record_size << 20, ..RecordConfig::default() }
    }
}

pub fn run(args: &WatchArgs, bpf_log: BpfLog) -> anyhow::Result<Exit> {
    let config = args.config(bpf_log);
    let threshold_ns = nanoseconds(config.threshold);
    if let Some(path) = &args.replay {
        let report = Report::of(&replay::replay(path)?, threshold_ns, &config.rules);
        print_report(&report, args)?;
        return Ok(verdict(&report, args));
    }
    let live = args.format == WatchFormat::Text && args.command.is_empty() && top::is_there();
    let mut view = None;
    // A terminal that cannot be taken does not end the watch; printing the report will tell.
    let show = |process: &Process| {
        let shown = args.show.shown();
        OneView::open(process, shown.filter, shown.color).inspect_err(|error| log::warn!("{}", chain(error))).ok()
    };
    let open = |path| Recordings::open(path, &config, args.record_config(), None);
    let recordings = args.record.as_deref().map(open).transpose()?;
    let mut recording = None;
    // Whoever reads the lines has gone: the watch goes on for its recording, and says so at its end.
    let mut unread = None;
    let mut pid = 0;
    let progress = |progress: Progress<'_>| match progress {
        Progress::Opened(process) => {
            pid = process.pid();
            let of =
                |recordings: &Recordings| (recordings.of(Workload::of(process)), Fate::of(Arc::clone(process), None));
            recording = recordings.as_ref().map(of);
            view = if live { show(process) } else { None };
        }
        Progress::Attached if !live => {
            let how_long =
                if config.duration.is_zero() { "until it exits".to_owned() } else { format!("for {}", args.duration) };
            let early = if args.command.is_empty() { "; Ctrl-C ends the watch early, with its report" } else { "" };
            eprintln!("parkwarden: watching pid {pid} {how_long}{early}");
        }
        Progress::Looked(session, report) => {
            if let Some((recording, fate)) = &mut recording {
                fate.looked();
                recording.looked(session, &report, fate);
            }
            if let Some(view) = &view {
                view.looked(&report);
            } else if args.format == WatchFormat::Jsonl && unread.is_none() {
                unread = print_report(&report, args).err();
            }
        }
        Progress::Attached => {}
    };
    let outcome = watched(args, &config, progress);
    // In this order: the terminal is given back before anything is printed.
    let shown = view.map_or(Ok(()), OneView::close);
    let (outcome, status) = outcome?;
    if let Some(status) = status.filter(|status| !status.success()) {
        eprintln!("parkwarden: the command ended with {status}");
    }
    if let Err(error) = shown {
        eprintln!("parkwarden: {}", chain(&error));
    }
    let report = Report::of(&outcome.session, threshold_ns, &config.rules);
    if let Some((recording, fate)) = recording {
        recording.ended(&outcome.session, &report, &fate, fate.exit(&outcome.session, || false).as_ref());
    }
    print_report(&report, args)?;
    let verdict = verdict(&report, args);
    match outcome.failure(&config) {
        // What was found until then is a finding all the same.
        Some(why) if verdict == Exit::Leak => {
            eprintln!("parkwarden: {}", chain(&why));
            Ok(verdict)
        }
        Some(why) => Err(why.into()),
        None => Ok(verdict),
    }
}

/// Watches whatever is to be watched to its end; of a command, how that ended.
fn watched(
    args: &WatchArgs,
    config: &WatchConfig,
    progress: impl FnMut(Progress<'_>),
) -> anyhow::Result<(Outcome, Option<ExitStatus>)> {
    let [program, arguments @ ..] = args.command.as_slice() else {
        return Ok((watch::run(args.which.pid()?, config, progress)?, None));
    };
    let mut command = Command::new(program);
    command.args(arguments);
    let (outcome, status) = watch::launch::run(command, config, progress)?;
    Ok((outcome, Some(status)))
}

fn verdict(report: &Report, args: &WatchArgs) -> Exit {
    let worst = report.groups.iter().map(|group| group.verdict).max().unwrap_or(Verdict::Idle);
    let fails = args.fail_on_leak && worst.is_leak() || args.fail_on_stuck && worst >= Verdict::Stuck;
    if fails { Exit::Leak } else { Exit::Done }
}

fn print_report(report: &Report, args: &WatchArgs) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    match args.format {
        WatchFormat::Text => write!(out, "{}", report::render(report, &args.show.shown()))?,
        WatchFormat::Json => print_json(&mut out, report)?,
        WatchFormat::Jsonl => writeln!(out, "{}", serde_json::to_string(report)?)?,
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::commands::{Cli, Command};

    #[test]
    fn a_command_is_watched_to_its_end() {
        let watch = |words: &[&str]| Cli::try_parse_from(["parkwarden", "watch"].iter().chain(words));
        let cli = watch(&["--threshold", "1s", "--", "shop", "--port", "80"]).expect("valid");
        let Command::Watch(args) = cli.command else { panic!("watch expected") };
        assert_eq!(args.command, ["shop", "--port", "80"]);
        assert!(args.config(BpfLog::Off).duration.is_zero());
        for wrong in [&["7", "--", "shop"][..], &["--for", "7s", "--", "shop"], &["--"], &["shop"]] {
            assert!(watch(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn defaults_are_those_of_the_config() {
        let cli = Cli::try_parse_from(["parkwarden", "watch", "--pid", "7"]).expect("valid");
        let Command::Watch(args) = cli.command else { panic!("watch expected") };
        assert_eq!(args.config(BpfLog::Off), WatchConfig::default());
        assert_eq!(args.record_config(), RecordConfig::default());
    }

    #[test]
    fn a_process_is_named_in_one_of_three_ways() {
        for words in [&["7"][..], &["--pid", "7"], &["--exe", "shop"]] {
            for command in ["watch", "prove", "why", "snapshot", "sched", "mem"] {
                assert!(
                    Cli::try_parse_from(["parkwarden", command].iter().chain(words)).is_ok(),
                    "{command} {words:?}"
                );
            }
            assert!(Cli::try_parse_from(["parkwarden", "profile", "heap"].iter().chain(words)).is_ok(), "{words:?}");
            assert!(Cli::try_parse_from(["parkwarden", "watch", "--replay", "f"].iter().chain(words)).is_err());
        }
        assert!(Cli::try_parse_from(["parkwarden", "why", "7", "--exe", "shop"]).is_err());
        let cli = Cli::try_parse_from(["parkwarden", "why", "7"]).expect("valid");
        assert_eq!(cli.command.pid(), Some(7));
    }

    #[test]
    fn a_pid_or_a_replay_is_needed_but_not_both() {
        assert!(Cli::try_parse_from(["parkwarden", "watch"]).is_err());
        assert!(Cli::try_parse_from(["parkwarden", "watch", "--pid", "7", "--replay", "f"]).is_err());
        assert!(Cli::try_parse_from(["parkwarden", "watch", "--replay", "f"]).is_ok());
    }
}
