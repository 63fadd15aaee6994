//! The agent's configuration: its defaults, and how it comes from a file and from flags.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::de::DeTable;

use super::settings::{
    HttpSettings, KubernetesSettings, MEMORY_MIB, MIN_GROWTH, PROCESSES, PROVE_MEMORY_MIB, REACH_WINDOW_MIB,
    RuntimeMetrics, RuntimeNames, SIZE_MIB, SelectSettings, Settings, Switch, WINDOWS,
};
use crate::config::{ProveConfig, ReachConfig, RecordConfig, Rules, WatchConfig};

/// Shortest time between two looks at a process: an agent has many.
const MIN_INTERVAL: Duration = Duration::from_millis(500);

/// Size of the ring that all processes share.
const RING_BYTES: u32 = 8 << 20;

/// Everything that can be set.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeConfig {
    /// Where HTTP is served.
    pub listen: SocketAddr,
    /// How each process is watched.
    pub watch: WatchConfig,
    /// Which are.
    pub select: SelectSettings,
    /// The HTTP server.
    pub http: HttpSettings,
    /// The recording, if there is one, and how much it keeps.
    pub record: (Option<PathBuf>, RecordConfig),
    /// The cluster.
    pub kubernetes: KubernetesSettings,
    /// What is kept to.
    pub limits: Limits,
    /// What `/metrics` has of the processes' own.
    pub metrics: Metrics,
}

/// What `/metrics` has of the processes' own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metrics {
    /// How much.
    pub runtime: RuntimeMetrics,
    /// By whose names.
    pub names: RuntimeNames,
    /// Keys of goroutine labels whose values are told.
    pub labels: Vec<String>,
}

/// What the agent keeps to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Leaking groups exported for each process.
    pub groups: usize,
    /// Series exported in all.
    pub series: usize,
    /// Processes watched at once.
    pub processes: u32,
    /// Resident memory of the agent, in MiB, above which it begins nothing that takes more; 0 for no limit.
    pub memory_mib: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { groups: 10, series: 10_000, processes: 500, memory_mib: 0 }
    }
}

impl Default for NodeConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 9465)),
            watch: WatchConfig {
                threshold: Duration::from_secs(60),
                interval: Duration::from_secs(15),
                duration: Duration::ZERO,
                ring_bytes: RING_BYTES,
                ..WatchConfig::default()
            },
            select: SelectSettings::default(),
            http: HttpSettings::default(),
            record: (None, RecordConfig::default()),
            kubernetes: KubernetesSettings::default(),
            limits: Limits::default(),
            metrics: Metrics::default(),
        }
    }
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("the configuration file {} cannot be read", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file says something it cannot say; the text names line and key.
    #[error("the configuration file {} is wrong: {source}", path.display())]
    Parse {
        /// Which.
        path: PathBuf,
        /// Line, key and reason.
        source: Box<toml::de::Error>,
    },
    /// A setting is out of its range, or two do not go together.
    #[error("{place}{key} {why}")]
    Refused {
        /// The file and line, if it is of a file.
        place: String,
        /// The setting.
        key: &'static str,
        /// What is wrong.
        why: String,
    },
}

/// The line of a file that sets a key such as `watch.interval`, in whichever of TOML's ways.
fn line_of(text: &str, key: &str) -> Option<usize> {
    let file = DeTable::parse(text).ok()?;
    let (table, name) = match key.split_once('.') {
        Some((table, name)) => (file.get_ref().get(table)?.get_ref().as_table()?, name),
        None => (file.get_ref(), key),
    };
    let (key, _) = table.get_key_value(name)?;
    Some(1 + text[..key.span().start].matches('\n').count())
}

impl NodeConfig {
    /// From flags and, where they are silent, a file.
    pub fn load(flags: &Settings, path: Option<&Path>) -> Result<Self, ConfigError> {
        let Some(path) = path else { return Self::resolve(flags.clone(), |_| String::new()) };
        let text = fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        let file: Settings = toml::from_str(&text)
            .map_err(|source| ConfigError::Parse { path: path.to_owned(), source: Box::new(source) })?;
        Self::resolve(flags.clone().or(file), |key| {
            // If it stands nowhere in the file, it is of a flag.
            line_of(&text, key).map(|line| format!("{}:{line}: ", path.display())).unwrap_or_default()
        })
    }

    /// Settings that differ and that a running agent does not take.
    pub fn at_next_start(&self, other: &Self) -> Vec<&'static str> {
        let limits = |config: &Self| Limits { processes: 0, memory_mib: 0, ..config.limits };
        let changed = [
            ("listen", self.listen != other.listen),
            ("[http]", self.http != other.http),
            ("[record]", self.record != other.record),
            ("[kubernetes]", self.kubernetes != other.kubernetes),
            ("[limits]", limits(self) != limits(other)),
            ("[metrics]", self.metrics != other.metrics),
            ("watch.min_park", self.watch.min_park != other.watch.min_park),
        ];
        changed.into_iter().filter_map(|(name, changed)| changed.then_some(name)).collect()
    }

    fn resolve(settings: Settings, place: impl Fn(&'static str) -> String) -> Result<Self, ConfigError> {
        let wrong = |key, why: &str| Err(ConfigError::Refused { place: place(key), key, why: why.to_owned() });
        let default = Self::default();
        let Settings { listen, watch, select, http, record, kubernetes, limits, metrics } = settings;
        if http.tls_cert.is_some() != http.tls_key.is_some() {
            let key = if http.tls_cert.is_some() { "http.tls_cert" } else { "http.tls_key" };
            return wrong(key, "needs the other: a certificate and its private key go together");
        }
        if kubernetes.enabled == Some(Switch::On) && kubernetes.node.as_ref().is_none_or(String::is_empty) {
            return wrong("kubernetes.enabled", "needs kubernetes.node (or NODE_NAME): which node's pods to name");
        }
        for (key, value, range) in [
            ("watch.windows", watch.windows.map(u64::from), WINDOWS),
            ("watch.prove_memory_mib", watch.prove_memory_mib.map(u64::from), PROVE_MEMORY_MIB),
            ("watch.reach_window_mib", watch.reach_window_mib.map(u64::from), REACH_WINDOW_MIB),
            ("watch.min_growth", watch.min_growth, MIN_GROWTH),
            ("record.size_mib", record.size_mib, SIZE_MIB),
            ("limits.processes", limits.processes.map(u64::from), PROCESSES),
            ("limits.memory_mib", limits.memory_mib.map(u64::from), MEMORY_MIB),
        ] {
            if value.is_some_and(|value| !range.contains(&value)) {
                return wrong(key, &format!("must be {} to {}", range.start(), range.end()));
            }
        }
        if watch.interval.is_some_and(|interval| *interval < MIN_INTERVAL) {
            return wrong("watch.interval", "must be at least 500ms: an agent has many processes to look at");
        }
        let prove = default.watch.prove.unwrap_or_default();
        let prove = ProveConfig {
            max_pause: watch.max_pause.map_or(prove.max_pause, Into::into),
            memory_mib: watch.prove_memory_mib.unwrap_or(prove.memory_mib),
            track_writes: watch.track_writes.unwrap_or(prove.track_writes),
        };
        let watch = WatchConfig {
            threshold: watch.threshold.map_or(default.watch.threshold, Into::into),
            interval: watch.interval.map_or(default.watch.interval, Into::into),
            rules: Rules {
                windows: watch.windows.unwrap_or(default.watch.rules.windows),
                min_growth: watch.min_growth.unwrap_or(default.watch.rules.min_growth),
                ..default.watch.rules
            },
            reach: ReachConfig { window_mib: watch.reach_window_mib.unwrap_or(default.watch.reach.window_mib) },
            prove: watch.prove.unwrap_or(default.watch.prove.is_some()).then_some(prove),
            mode: watch.mode.unwrap_or(default.watch.mode),
            budget: watch.budget.unwrap_or(default.watch.budget),
            min_park: watch.min_park.map_or(default.watch.min_park, Into::into),
            ..default.watch
        };
        let (_, kept) = default.record;
        let kept = RecordConfig {
            max_age: record.keep.map_or(kept.max_age, Into::into),
            max_bytes: record.size_mib.map_or(kept.max_bytes, |mib| mib << 20),
            ..kept
        };
        Ok(Self {
            listen: listen.unwrap_or(default.listen),
            watch,
            select,
            http,
            record: (record.file, kept),
            kubernetes,
            limits: Limits {
                groups: limits.groups.unwrap_or(default.limits.groups),
                series: limits.series.unwrap_or(default.limits.series),
                processes: limits.processes.unwrap_or(default.limits.processes),
                memory_mib: limits.memory_mib.unwrap_or(default.limits.memory_mib),
            },
            metrics: Metrics {
                runtime: metrics.runtime.unwrap_or(default.metrics.runtime),
                names: metrics.runtime_names.unwrap_or(default.metrics.names),
                labels: metrics.goroutine_labels.unwrap_or(default.metrics.labels),
            },
        })
    }

    /// As a file that says all of it; what is not set is there as a comment, with an example.
    pub fn to_toml(&self) -> String {
        let settings = Settings::from(self);
        // Nothing in the settings is without a form in TOML.
        let set = toml::to_string(&settings).unwrap_or_default();
        let all = toml::to_string(&settings.or(Settings::examples())).unwrap_or_default();
        // The same lines in the same order, and further ones.
        let mut set = set.lines().peekable();
        let mut text = String::new();
        for line in all.lines() {
            let unset = set.next_if_eq(&line).is_none();
            text.push_str(if unset && !line.is_empty() { "# " } else { "" });
            text.push_str(line);
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use clap::Args as _;

    use super::*;

    fn load(text: &str) -> Result<NodeConfig, ConfigError> {
        let file = tempfile::NamedTempFile::new().expect("a file");
        fs::write(file.path(), text).expect("written");
        NodeConfig::load(&Settings::default(), Some(file.path()))
    }

    #[test]
    fn the_defaults_survive_a_file() {
        let default = NodeConfig::default();
        let again = load(&default.to_toml()).expect("valid");
        assert_eq!(again.to_toml(), default.to_toml());
        assert_eq!(again.watch, default.watch);
        assert_eq!(load("").expect("nothing said"), default);
    }

    #[test]
    fn what_is_not_set_is_shown_as_a_comment() {
        let config =
            load("[record]\nfile = \"/srv/recording.db\"\n[http]\ntoken_file = \"/srv/a\\nb\"\n").expect("valid");
        let text = config.to_toml();
        for line in
            ["# node = \"node-1\"", "# namespaces = [\"shop-*\"]", "# tls_key = ", "file = \"/srv/recording.db\""]
        {
            assert!(text.lines().any(|other| other.starts_with(line)), "{line}: {text}");
        }
        assert_eq!(load(&text).expect("valid"), load(&config.to_toml()).expect("valid"));
        assert_eq!(load(&text).expect("valid").http.token_file, config.http.token_file);
        // Every option of the command is there, in a comment or not.
        let whole = NodeConfig::default().to_toml();
        let options = Settings::augment_args(clap::Command::new("agent")).get_arguments().count();
        assert_eq!(whole.lines().filter(|line| line.contains(" = ")).count(), options, "{whole}");
        let unset: String = whole.lines().map(|line| format!("{}\n", line.trim_start_matches("# "))).collect();
        load(&unset).expect("the examples are valid");
    }

    #[test]
    fn what_takes_effect_at_the_next_start_is_told() {
        let before = NodeConfig::default();
        let after =
            load("listen = \"127.0.0.1:1\"\n[watch]\nthreshold = \"2m\"\n[limits]\nprocesses = 7\n").expect("valid");
        assert_eq!(before.at_next_start(&after), ["listen"]);
        let after = load("[limits]\nseries = 7\n[record]\nfile = \"x\"\n").expect("valid");
        assert_eq!(before.at_next_start(&after), ["[record]", "[limits]"]);
    }

    #[test]
    fn flags_come_before_the_file() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        fs::write(file.path(), "[watch]\nthreshold = \"2m\"\ninterval = \"3s\"\n").expect("written");
        let mut flags = Settings::default();
        flags.watch.interval = Some(Duration::from_secs(7).into());
        let config = NodeConfig::load(&flags, Some(file.path())).expect("valid");
        assert_eq!(config.watch.threshold, Duration::from_secs(120));
        assert_eq!(config.watch.interval, Duration::from_secs(7));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        let text = |text| load(text).expect_err("wrong").to_string();
        for (wrong, line, key) in [
            ("[watch]\nthreshhold = \"1m\"\n", "line 2", "threshhold"),
            ("[watch]\ninterval = \"soon\"\n", "line 2", "interval"),
            ("listen = \"nowhere\"\n", "line 1", "listen"),
            ("\n[select]\npod_labels = [\"cart\"]\n", "line 3", "pod_labels"),
            ("[select]\nnamespaces = [\"[\"]\n", "line 2", "namespaces"),
            ("[http]\n\ntls_key = \"key.pem\"\n", ":3:", "tls_key"),
            ("[kubernetes]\nenabled = \"on\"\n", ":2:", "enabled"),
            ("# enabled = here\n\nkubernetes = { enabled = \"on\" }\n", ":3:", "enabled"),
            ("# http.tls_key\nhttp.tls_key = \"key.pem\"\n", ":2:", "tls_key"),
            ("[limits]\nseries = -1\n", "line 2", "series"),
            ("[limits]\n\nprocesses = 0\n", ":3:", "processes"),
            ("[watch]\nwindows = 1\n", ":2:", "windows"),
            ("watch.min_growth = 0\n", ":1:", "min_growth"),
            ("[watch]\ninterval = \"100ms\"\n", ":2:", "interval"),
            ("[record]\nsize_mib = 1048577\n", ":2:", "size_mib"),
            ("[record]\nfile = '''\nwindows = 1'''\n[watch]\nwindows = 1\n", ":5:", "windows"),
        ] {
            let error = text(wrong);
            assert!(error.contains(line) && error.contains(key), "{wrong:?}: {error}");
        }
    }
}
