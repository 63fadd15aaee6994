//! Settings and their defaults. Each default lives here alone; the command line shows these values.

#[cfg(feature = "agent")]
pub mod node;
#[cfg(feature = "agent")]
pub mod settings;

use std::path::PathBuf;
use std::time::Duration;

use parkwarden_common::record::Kind;
use serde::{Deserialize, Serialize};

/// How much the BPF programs say. What is off costs a hit nothing: the kernel's verifier removes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BpfLog {
    /// Nothing.
    #[default]
    Off,
    /// Each event they could not deliver.
    Losses,
    /// Each hit. Slows the target down.
    Hits,
}

/// Where the goroutines' states come from, the cheapest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
#[derive(strum::Display, strum::VariantArray)]
#[strum(serialize_all = "lowercase")]
pub enum Mode {
    /// No probes: all goroutines are read from memory at every interval.
    Census,
    /// Two probes that count what each `go` statement makes and what of it has ended; parks come from censuses.
    Births,
    /// Four probes whose programs keep parks to themselves until they are long; and censuses.
    Filter,
    /// Every event of the four probes, and censuses.
    Trace,
}

impl Mode {
    /// Those with probes, the cheapest first.
    pub const PROBED: [Self; 3] = [Self::Births, Self::Filter, Self::Trace];

    /// Whether it has a probe where events of this kind are seen.
    pub const fn probes(self, kind: Kind) -> bool {
        match kind {
            Kind::Created | Kind::Exited => self.sees_births(),
            Kind::Parked | Kind::Readied | Kind::Waited => self.sees_parks(),
            // No place stands for it.
            Kind::Creator => false,
        }
    }

    /// Whether every creation and exit is seen.
    pub const fn sees_births(self) -> bool {
        !matches!(self, Self::Census)
    }

    /// Whether every park is seen as it happens.
    pub const fn sees_parks(self) -> bool {
        matches!(self, Self::Filter | Self::Trace)
    }
}

/// A duration in nanoseconds, as times are kept everywhere else; what does not fit is the most there is.
pub fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// When goroutines that wait are called a likely leak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Windows of time, one after the other up to now, over which they have to grow, all but one; a window is the time
    /// between two looks, or two, four, eight… times it.
    pub windows: u32,
    /// By how many goroutines they have to grow over these windows.
    pub min_growth: u64,
    /// How many in a hundred that were there as a window began have to be there still.
    pub min_kept_percent: u8,
    /// In how many looks at the running program, one after the other, nothing has to lead to what they wait for.
    pub unreached_looks: u32,
}

impl Default for Rules {
    fn default() -> Self {
        Self { windows: 5, min_growth: 5, min_kept_percent: 90, unreached_looks: 3 }
    }
}

/// How the mode is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, clap::ValueEnum)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
#[derive(strum::Display, strum::VariantArray)]
#[strum(serialize_all = "lowercase")]
pub enum ModeChoice {
    /// Whatever tells most within the budget.
    Auto,
    /// Every event is streamed, whatever that costs.
    Trace,
    /// Only long parks are told one by one, whatever that costs.
    Filter,
    /// Creations and exits are counted as they happen, whatever that costs; parks are read from memory at every interval.
    Births,
    /// Without probes: goroutines are read from memory at every interval.
    Census,
}

impl From<Mode> for ModeChoice {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Census => Self::Census,
            Mode::Births => Self::Births,
            Mode::Filter => Self::Filter,
            Mode::Trace => Self::Trace,
        }
    }
}

impl ModeChoice {
    /// The modes with probes that it may come to, the cheapest first.
    pub fn probed(self) -> Vec<Mode> {
        match self {
            Self::Auto => Mode::PROBED.to_vec(),
            Self::Trace => vec![Mode::Trace],
            Self::Filter => vec![Mode::Filter],
            Self::Births => vec![Mode::Births],
            Self::Census => Vec::new(),
        }
    }
}

/// A share of something, in thousandths of a percent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Percent(u32);

impl Percent {
    /// That many thousandths of a percent, at most all.
    pub const fn new(thousandths: u32) -> Self {
        Self(if thousandths > 100_000 { 100_000 } else { thousandths })
    }

    /// This share of `whole`.
    pub fn of(self, whole: u64) -> u64 {
        // A share of a u64 is one.
        u64::try_from(u128::from(whole) * u128::from(self.0) / 100_000).unwrap_or(whole)
    }
}

impl std::fmt::Display for Percent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}%", f64::from(self.0) / 1_000.0)
    }
}

impl std::str::FromStr for Percent {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = text.strip_suffix('%').unwrap_or(text).trim();
        match number.parse::<f64>() {
            Ok(percent) if (0.0..=100.0).contains(&percent) => Ok(Self::new((percent * 1_000.0).round() as u32)),
            _ => Err(format!("{text} is not a percentage such as 1% or 0.5")),
        }
    }
}

/// How `watch` watches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchConfig {
    /// Parked longer than this counts as long.
    pub threshold: Duration,
    /// How long to watch; zero means until interrupted or the target's end.
    pub duration: Duration,
    /// Time between two censuses, and between two reports on a terminal.
    pub interval: Duration,
    /// When goroutines are called a likely leak.
    pub rules: Rules,
    /// How the running program is looked at for what nothing leads to any more.
    pub reach: ReachConfig,
    /// How to prove likely leaks, if that is wanted.
    pub prove: Option<ProveConfig>,
    /// Size of the ring buffer in bytes.
    pub ring_bytes: u32,
    /// Where to save the session.
    pub save: Option<PathBuf>,
    /// How much the BPF programs log.
    pub bpf_log: BpfLog,
    /// How the mode is chosen.
    pub mode: ModeChoice,
    /// What hits may cost, of the target's CPU time, with [`ModeChoice::Auto`].
    pub budget: Percent,
    /// Parks shorter than this are kept in the kernel in mode [`Mode::Filter`].
    pub min_park: Duration,
}

impl Default for WatchConfig {
    fn default() -> Self {
        Self {
            threshold: Duration::from_secs(10),
            duration: Duration::from_secs(30),
            interval: Duration::from_secs(5),
            rules: Rules::default(),
            reach: ReachConfig::default(),
            prove: None,
            ring_bytes: 8 << 20,
            save: None,
            bpf_log: BpfLog::Off,
            mode: ModeChoice::Auto,
            budget: Percent::new(1_000),
            min_park: Duration::from_millis(10),
        }
    }
}

/// How the running program is looked at for what nothing leads to any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReachConfig {
    /// MiB of its heap kept at a time; 0 for no such looks.
    pub window_mib: u32,
}

impl Default for ReachConfig {
    fn default() -> Self {
        Self { window_mib: 64 }
    }
}

/// How `prove` proves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProveConfig {
    /// Longest time the target may stand still.
    pub max_pause: Duration,
    /// Memory that parkwarden may take for the copy and the proof, in MiB.
    pub memory_mib: u32,
    /// Whether the heap is copied while the target runs, and in the pause what it has written since.
    pub track_writes: bool,
}

impl Default for ProveConfig {
    fn default() -> Self {
        Self { max_pause: Duration::from_millis(50), memory_mib: 4096, track_writes: false }
    }
}

/// How much of the past a recording keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordConfig {
    /// What is older goes.
    pub max_age: Duration,
    /// When the file grows beyond this, the oldest goes.
    pub max_bytes: u64,
    /// What is left of older intervals; each at a greater age and a wider spacing than the one before.
    pub thin: Vec<Thin>,
}

/// One step of thinning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thin {
    /// Of what is older than this
    pub after: Duration,
    /// one interval stays in each of these.
    pub keep_one_per: Duration,
}

impl Default for RecordConfig {
    fn default() -> Self {
        const HOUR: Duration = Duration::from_secs(3600);
        Self {
            max_age: HOUR * 24 * 7,
            max_bytes: 1 << 30,
            thin: vec![
                Thin { after: HOUR * 6, keep_one_per: Duration::from_secs(60) },
                Thin { after: HOUR * 48, keep_one_per: Duration::from_secs(600) },
            ],
        }
    }
}
