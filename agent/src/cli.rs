//! The command line.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};

use crate::config::settings::Settings;
use crate::config::{BpfLog, ModeChoice, Percent, ProveConfig, RecordConfig, Rules, WatchConfig};
use crate::record::Selection;

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
    Watch(WatchArgs),
    /// List every Go process of this host: its Go version, its goroutines, and whether it can be watched.
    Ps(PsArgs),
    /// Look once at all goroutines of a running Go program, with their stacks; no probes, nothing is stopped.
    Snapshot(SnapshotArgs),
    /// Stop a running Go program for a moment and prove which of its goroutines can never run again.
    Prove(ProveArgs),
    /// Watch every Go process of this host for as long as it runs, and serve what is seen over HTTP: metrics, reports, profiles.
    Agent(Box<AgentArgs>),
    /// Tell from a recording what leaked, since when, how fast, and how it ended; or list what the recording holds.
    Timeline(TimelineArgs),
    /// Check whether this host can run parkwarden, and say what is missing.
    Doctor(DoctorArgs),
}

impl Command {
    /// The process it is about, if it is about one.
    pub fn pid(&self) -> Option<u32> {
        match self {
            Self::Watch(args) => args.pid,
            Self::Snapshot(args) => Some(args.pid),
            Self::Prove(args) => args.pid,
            Self::Ps(_) | Self::Agent(_) | Self::Timeline(_) | Self::Doctor(_) => None,
        }
    }
}

/// Exit statuses, for `--help`; [`crate::exit`] has the numbers.
const EXIT_HELP: &str = "Exit status: 0 done; 1 parkwarden failed; 2 wrong usage; 3 a leak was found and --fail-on-leak \
                         was given; 4 the target cannot be watched.";

/// Arguments of `watch`.
#[derive(Debug, Args)]
#[command(after_help = EXIT_HELP)]
pub struct WatchArgs {
    /// The process to watch. Needs root, or CAP_BPF, CAP_PERFMON and CAP_SYS_PTRACE.
    #[arg(long, value_name = "PID", required_unless_present = "replay", conflicts_with = "replay")]
    pub pid: Option<u32>,

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

    /// When goroutines are a likely leak, try to prove it: stop the process for a moment and follow everything that can still
    /// run. At most once an interval, and for at most 1 % of the time.
    #[arg(long, conflicts_with = "replay")]
    pub prove: bool,

    /// With --prove: longest time the process may stand still; if copying its memory would take longer it is left alone.
    #[arg(long, value_name = "TIME", default_value_t = ProveConfig::default().max_pause.into(), requires = "prove")]
    pub max_pause: humantime::Duration,

    /// How to print the report: text is refreshed on a terminal, json is one document at the end.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,

    /// Exit with status 3 if a group behaves like a leak.
    #[arg(long)]
    pub fail_on_leak: bool,

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

    /// Size of the ring buffer between the kernel and parkwarden, in KiB (rounded up to a power of two).
    #[arg(long, value_name = "KIB", default_value_t = WatchConfig::default().ring_bytes / 1024,
          value_parser = clap::value_parser!(u32).range(4..=1 << 20))]
    pub ring: u32,
}

/// Arguments of `ps`.
#[derive(Debug, Args)]
#[command(after_help = "Exit status: 0 done, whatever was found; 1 parkwarden failed; 2 wrong usage.")]
pub struct PsArgs {
    /// How to print the list.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,
}

/// Arguments of `snapshot`.
#[derive(Debug, Args)]
#[command(after_help = "Exit status: 0 done; 1 parkwarden failed; 2 wrong usage; 4 the process cannot be looked at.")]
pub struct SnapshotArgs {
    /// The process to look at. Needs root, or CAP_SYS_PTRACE.
    #[arg(long, value_name = "PID")]
    pub pid: u32,

    /// How to print it: pprof is a gzip'ed profile.proto that `go tool pprof` opens.
    #[arg(long, value_enum, default_value_t = SnapshotFormat::Text)]
    pub format: SnapshotFormat,

    /// What goroutines of one group have in common: the go statement that made them, the stack they block in, or both.
    #[arg(long, value_enum, default_value_t = Grouping::Both)]
    pub group_by: Grouping,

    /// Compare with an earlier snapshot (--format json): what grew, and what went away.
    #[arg(long, value_name = "FILE", conflicts_with = "group_by")]
    pub diff: Option<PathBuf>,

    /// Write to FILE instead of stdout.
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// How to print a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SnapshotFormat {
    /// For people.
    Text,
    /// For programs.
    Json,
    /// For `go tool pprof` and what reads its format.
    Pprof,
}

/// How `snapshot` groups goroutines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Grouping {
    /// By the go statement.
    Created,
    /// By the blocking stack and the wait reason.
    Blocked,
    /// By both.
    Both,
}

impl From<Grouping> for crate::snapshot::GroupBy {
    fn from(grouping: Grouping) -> Self {
        match grouping {
            Grouping::Created => Self::Created,
            Grouping::Blocked => Self::Blocked,
            Grouping::Both => Self::Both,
        }
    }
}

/// Arguments of `prove`.
#[derive(Debug, Args)]
#[command(after_help = EXIT_HELP)]
pub struct ProveArgs {
    /// The process to examine. Needs root, or CAP_SYS_PTRACE.
    #[arg(long, value_name = "PID", required_unless_present = "image", conflicts_with = "image")]
    pub pid: Option<u32>,

    /// Longest time the process may stand still; if copying its memory would take longer it is left alone.
    #[arg(long, value_name = "TIME", default_value_t = ProveConfig::default().max_pause.into())]
    pub max_pause: humantime::Duration,

    /// Save what was copied to FILE, for --image. It holds the program's memory, secrets included.
    #[arg(long, value_name = "FILE", conflicts_with = "image")]
    pub save_image: Option<PathBuf>,

    /// Examine a file written by --save-image, without root and without the process.
    #[arg(long, value_name = "FILE")]
    pub image: Option<PathBuf>,

    /// How to print the proof.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,

    /// Exit with status 3 if a leak is proven.
    #[arg(long)]
    pub fail_on_leak: bool,
}

/// Arguments of `agent`.
#[derive(Debug, Args)]
#[command(
    after_help = "SIGHUP reads the configuration file again; a wrong one leaves the old in force. SIGTERM lets go of every \
                        process and ends. --print-config shows the defaults.\n\nExit status: 0 told to end; 1 parkwarden \
                        failed; 2 wrong usage."
)]
pub struct AgentArgs {
    /// The configuration, in TOML; each key is also an option here, which comes first.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Print the configuration that these arguments make, as a file that says all of it, and exit.
    #[arg(long)]
    pub print_config: bool,

    #[command(flatten)]
    #[expect(missing_docs, reason = "the type says it")]
    pub settings: Settings,
}

/// Arguments of `timeline`.
#[derive(Debug, Args)]
#[command(after_help = "Exit status: 0 done; 1 the recording cannot be read, or holds no such process; 2 wrong usage.")]
pub struct TimelineArgs {
    /// The recording, written by `watch --record`.
    #[arg(long, value_name = "FILE", required_unless_present = "capture")]
    pub record: Option<PathBuf>,

    /// A file of `watch --save` instead: a trace for ui.perfetto.dev of what each goroutine did, whatever --format says.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["record", "pid", "exe", "pod", "since", "until", "compare"])]
    pub capture: Option<PathBuf>,

    /// The last process that had this pid.
    #[arg(long, value_name = "PID")]
    pub pid: Option<u32>,

    /// Every process of this executable: its path, or the end of it.
    #[arg(long, value_name = "NAME")]
    pub exe: Option<String>,

    /// Every process of this pod: its name, namespace/name, or its uid.
    #[arg(long, value_name = "NAME")]
    pub pod: Option<String>,

    /// From then on: 2026-11-23T02:41:00Z, or a time before now such as 2h.
    #[arg(long, value_name = "TIME", value_parser = wall_clock_ns)]
    pub since: Option<u64>,

    /// Until then, in the same forms.
    #[arg(long, value_name = "TIME", value_parser = wall_clock_ns)]
    pub until: Option<u64>,

    /// How to print it: html is one self-contained page, perfetto a trace for ui.perfetto.dev.
    #[arg(long, value_enum, default_value_t = TimelineFormat::Text)]
    pub format: TimelineFormat,

    /// Write to FILE instead of stdout.
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,

    /// Compare with an earlier time in the same recording (then with --compare-until or --compare-pid), or in another.
    #[arg(long, value_name = "FILE", num_args = 0..=1)]
    pub compare: Option<Option<PathBuf>>,

    /// The earlier process.
    #[arg(long, value_name = "PID", requires = "compare")]
    pub compare_pid: Option<u32>,

    /// From when on the earlier time is.
    #[arg(long, value_name = "TIME", requires = "compare", value_parser = wall_clock_ns)]
    pub compare_since: Option<u64>,

    /// Until when the earlier time is.
    #[arg(long, value_name = "TIME", requires = "compare", value_parser = wall_clock_ns)]
    pub compare_until: Option<u64>,
}

/// How to print a timeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TimelineFormat {
    /// For people, in a browser.
    Html,
    /// For programs.
    Json,
    /// For ui.perfetto.dev.
    Perfetto,
    /// For a terminal or a ticket.
    Text,
}

impl TimelineArgs {
    /// The processes meant.
    pub fn selection(&self) -> Selection {
        Selection { pid: self.pid, exe: self.exe.clone(), pod: self.pod.clone(), since: self.since, until: self.until }
    }

    /// The processes they are compared with: the same executable or pod, but another pid.
    pub fn compared(&self) -> Selection {
        Selection { pid: self.compare_pid, since: self.compare_since, until: self.compare_until, ..self.selection() }
    }
}

/// A point in time, as nanoseconds since the Unix epoch.
fn wall_clock_ns(text: &str) -> Result<u64, String> {
    let at = match humantime::parse_duration(text) {
        Ok(ago) => SystemTime::now().checked_sub(ago),
        Err(_) => humantime::parse_rfc3339_weak(text).ok(),
    };
    at.and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok())
        .and_then(|since| u64::try_from(since.as_nanos()).ok())
        .ok_or_else(|| "expected a time such as 2026-11-23T02:41:00Z, or one before now such as 2h".to_owned())
}

/// Arguments of `doctor`.
#[derive(Debug, Args)]
#[command(after_help = "Exit status: 0 `watch` can work here; 1 it cannot.")]
pub struct DoctorArgs {
    /// How to print the checks.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,
}

/// How to print a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Text,
    /// For programs.
    Json,
}

impl WatchArgs {
    /// The settings these arguments ask for.
    pub fn config(&self, bpf_log: BpfLog) -> WatchConfig {
        WatchConfig {
            threshold: self.threshold.into(),
            duration: self.duration.into(),
            // An interval of zero would read the target without a pause.
            interval: Duration::from(self.interval).max(MIN_INTERVAL),
            rules: Rules { windows: self.windows, min_growth: self.min_growth, ..Rules::default() },
            prove: self.prove.then(|| ProveConfig { max_pause: self.max_pause.into() }),
            ring_bytes: self.ring.saturating_mul(1024),
            save: self.save.clone(),
            bpf_log,
            mode: self.mode,
            budget: self.budget,
            min_park: self.min_park.into(),
        }
    }
}

impl WatchArgs {
    /// How much a recording is to keep.
    pub fn record_config(&self) -> RecordConfig {
        RecordConfig { max_age: self.record_keep.into(), max_bytes: self.record_size << 20, ..RecordConfig::default() }
    }
}

impl Cli {
    /// How much the BPF programs are to log.
    pub const fn bpf_log(&self) -> BpfLog {
        match self.verbose {
            0 | 1 => BpfLog::Off,
            2 => BpfLog::Losses,
            _ => BpfLog::Hits,
        }
    }
}

/// Shortest time between two censuses.
const MIN_INTERVAL: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
    }

    #[test]
    fn defaults_are_those_of_the_config() {
        let cli = Cli::try_parse_from(["parkwarden", "watch", "--pid", "7"]).expect("valid");
        let Command::Watch(args) = cli.command else { panic!("watch expected") };
        assert_eq!(args.config(BpfLog::Off), WatchConfig::default());
        assert_eq!(args.record_config(), RecordConfig::default());
    }

    #[test]
    fn times_are_absolute_or_before_now() {
        assert_eq!(wall_clock_ns("1970-01-01T00:00:07Z"), Ok(7_000_000_000));
        assert_eq!(wall_clock_ns("1970-01-01 00:01:00"), Ok(60_000_000_000));
        assert!(wall_clock_ns("2h").expect("a time") < wall_clock_ns("1h").expect("a time"));
        assert!(wall_clock_ns("yesterday").is_err() && wall_clock_ns("1960-01-01T00:00:00Z").is_err());
    }

    #[test]
    fn a_pid_or_a_replay_is_needed_but_not_both() {
        assert!(Cli::try_parse_from(["parkwarden", "watch"]).is_err());
        assert!(Cli::try_parse_from(["parkwarden", "watch", "--pid", "7", "--replay", "f"]).is_err());
        assert!(Cli::try_parse_from(["parkwarden", "watch", "--replay", "f"]).is_ok());
    }
}
