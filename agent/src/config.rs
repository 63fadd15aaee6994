//! Settings and their defaults. Each default lives here alone; the command line shows these values.

use std::path::PathBuf;
use std::time::Duration;

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
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// No probes: all goroutines are read from memory at every interval.
    Census,
    /// Four probes whose programs keep parks to themselves until they are long; and censuses.
    Filter,
    /// Every event of the four probes, and censuses.
    Trace,
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
}

impl Default for Rules {
    fn default() -> Self {
        Self { windows: 5, min_growth: 5, min_kept_percent: 90 }
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
    /// Size of the ring buffer in bytes.
    pub ring_bytes: u32,
    /// Where to save the session.
    pub save: Option<PathBuf>,
    /// How much the BPF programs log.
    pub bpf_log: BpfLog,
}

impl Default for WatchConfig {
    fn default() -> Self {
        Self {
            threshold: Duration::from_secs(10),
            duration: Duration::from_secs(30),
            interval: Duration::from_secs(5),
            rules: Rules::default(),
            ring_bytes: 8 << 20,
            save: None,
            bpf_log: BpfLog::Off,
        }
    }
}

/// How `prove` proves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProveConfig {
    /// Longest time the target may stand still.
    pub max_pause: Duration,
}

impl Default for ProveConfig {
    fn default() -> Self {
        Self { max_pause: Duration::from_millis(50) }
    }
}
