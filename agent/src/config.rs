//! Settings and their defaults. Each default lives here alone; the command line shows these values.

use std::path::PathBuf;
use std::time::Duration;

/// How `watch` watches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchConfig {
    /// Parked longer than this counts as long.
    pub threshold: Duration,
    /// How long to watch; zero means until interrupted or the target's end.
    pub duration: Duration,
    /// Time between two censuses, and between two reports on a terminal.
    pub interval: Duration,
    /// Size of the ring buffer in bytes.
    pub ring_bytes: u32,
    /// Where to save the session.
    pub save: Option<PathBuf>,
    /// Whether the BPF programs log.
    pub bpf_log: bool,
}

impl Default for WatchConfig {
    fn default() -> Self {
        Self {
            threshold: Duration::from_secs(10),
            duration: Duration::from_secs(30),
            interval: Duration::from_secs(5),
            ring_bytes: 8 << 20,
            save: None,
            bpf_log: false,
        }
    }
}
