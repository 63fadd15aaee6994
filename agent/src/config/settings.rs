//! The agent's settings as people write them, in a file or as flags: what is absent is left to the next source, and in the
//! end to the defaults, which live in [`NodeConfig`].

use std::fmt::{self, Display};
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;
use clap::builder::TypedValueParser;
use globset::{GlobBuilder, GlobMatcher};
use serde::{Deserialize, Serialize};

use super::node::{Limits, NodeConfig};
use crate::config::{ModeChoice, Percent};

/// What `watch.windows` may be, in a file as on the command line.
pub const WINDOWS: RangeInclusive<u64> = 2..=1000;
/// The same for `watch.min_growth`.
pub const MIN_GROWTH: RangeInclusive<u64> = 1..=u64::MAX;
/// The same for `watch.reach_window_mib`.
pub const REACH_WINDOW_MIB: RangeInclusive<u64> = 0..=1 << 20;
/// The same for `watch.prove_memory_mib`.
pub const PROVE_MEMORY_MIB: RangeInclusive<u64> = 1..=1 << 20;
/// The same for `record.size_mib`.
pub const SIZE_MIB: RangeInclusive<u64> = 1..=1 << 20;
/// The same for `limits.memory_mib`.
pub const MEMORY_MIB: RangeInclusive<u64> = 0..=1 << 20;
/// The same for `limits.processes`.
pub const PROCESSES: RangeInclusive<u64> = 1..=1000;

/// A number on the command line that is within its range.
fn within<T>(range: RangeInclusive<u64>) -> impl TypedValueParser<Value = T>
where
    T: TryFrom<u64, Error: std::error::Error + Send + Sync + 'static> + Clone + Send + Sync + 'static,
{
    clap::value_parser!(u64).range(range).try_map(T::try_from)
}

/// A setting of one source. Those of `self` come first.
macro_rules! first_of {
    ($a:expr, $b:expr; $($field:ident),* $(,)?) => { Self { $($field: $a.$field.or($b.$field)),* } };
}

/// All of them.
#[derive(Clone, Debug, Default, PartialEq, Args, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Address and port to serve HTTP on.
    #[arg(long, value_name = "ADDRESS")]
    pub listen: Option<SocketAddr>,
    #[command(flatten)]
    #[expect(missing_docs, reason = "the type says it")]
    pub watch: WatchSettings,
    #[command(flatten)]
    #[expect(missing_docs, reason = "the type says it")]
    pub select: SelectSettings,
    #[command(flatten)]
    #[expect(missing_docs, reason = "the type says it")]
    pub http: HttpSettings,
    #[command(flatten)]
    #[expect(missing_docs, reason = "the type says it")]
    pub record: RecordSettings,
    #[command(flatten)]
    #[expect(missing_docs, reason = "the type says it")]
    pub kubernetes: KubernetesSettings,
    #[command(flatten)]
    #[expect(missing_docs, reason = "the type says it")]
    pub limits: LimitSettings,
    #[command(flatten)]
    #[expect(missing_docs, reason = "the type says it")]
    pub metrics: MetricSettings,
}

/// How each process is watched: the settings of `watch`.
#[derive(Clone, Debug, Default, PartialEq, Args, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WatchSettings {
    /// Report goroutines parked longer than this.
    #[arg(long, value_name = "TIME")]
    #[serde(with = "text")]
    pub threshold: Option<humantime::Duration>,
    /// Time between two looks at all goroutines of a process, 500ms at least.
    #[arg(long, value_name = "TIME")]
    #[serde(with = "text")]
    pub interval: Option<humantime::Duration>,
    /// Windows of time over which a group of goroutines has to grow to be called a likely leak.
    #[arg(long, value_name = "N", value_parser = within::<u32>(WINDOWS))]
    pub windows: Option<u32>,
    /// By how many goroutines a group has to grow over these windows to be called a likely leak.
    #[arg(long, value_name = "N", value_parser = within::<u64>(MIN_GROWTH))]
    pub min_growth: Option<u64>,
    /// How to watch: auto, trace, filter, births or census, as for `watch`.
    #[arg(long, value_enum)]
    pub mode: Option<ModeChoice>,
    /// With mode auto: what probes may cost, of a process's CPU time (never more than 5% of a core).
    #[arg(long, value_name = "PERCENT")]
    #[serde(with = "text")]
    pub budget: Option<Percent>,
    /// With modes filter and auto: parks shorter than this are not told one by one.
    #[arg(long, value_name = "TIME")]
    #[serde(with = "text")]
    pub min_park: Option<humantime::Duration>,
    /// Look at what a running process can still reach, keeping so many MiB of its heap at a time; 0 for no such looks.
    #[arg(long, value_name = "MIB", value_parser = within::<u32>(REACH_WINDOW_MIB))]
    pub reach_window_mib: Option<u32>,
    /// Try to prove likely leaks: stop a process that has some for a moment, at most once an interval and 1 % of the time.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    pub prove: Option<bool>,
    /// Longest time a process may stand still for a proof; one whose copy would take longer is left alone.
    #[arg(long, value_name = "TIME")]
    #[serde(with = "text")]
    pub max_pause: Option<humantime::Duration>,
    /// Memory that parkwarden may take to prove something of one process, in MiB; one whose copy would take more is left alone.
    #[arg(long, value_name = "MIB", value_parser = within::<u32>(PROVE_MEMORY_MIB))]
    pub prove_memory_mib: Option<u32>,
    /// For a proof copy the heap while the process runs, and in the pause only what it has written since. It takes a kernel with
    /// CONFIG_MEM_SOFT_DIRTY, and costs the process a page fault for each page that it writes the first time after.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    pub track_writes: Option<bool>,
}

/// Which processes are watched: those that every given list has a match for.
#[derive(Clone, Debug, Default, PartialEq, Args, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SelectSettings {
    /// Watch only processes of pods in namespaces that match one of these patterns (`*` and `?`).
    #[arg(long = "namespace", value_name = "PATTERN")]
    pub namespaces: Option<Vec<Pattern>>,
    /// Watch no process of a pod in a namespace that matches one of these patterns.
    #[arg(long = "exclude-namespace", value_name = "PATTERN")]
    pub exclude_namespaces: Option<Vec<Pattern>>,
    /// Watch only processes of pods that have all of these labels.
    #[arg(long = "pod-label", value_name = "KEY=VALUE")]
    pub pod_labels: Option<Vec<Label>>,
    /// Watch only processes in containers whose name, or id where there is no name, matches one of these patterns.
    #[arg(long = "container", value_name = "PATTERN")]
    pub containers: Option<Vec<Pattern>>,
    /// Watch only processes whose executable's path matches one of these patterns.
    #[arg(long = "exe", value_name = "PATTERN")]
    pub executables: Option<Vec<Pattern>>,
    /// Watch only processes of these users, by name or number.
    #[arg(long = "user", value_name = "USER")]
    pub users: Option<Vec<String>>,
    /// Watch a process only once it has this many goroutines.
    #[arg(long, value_name = "N")]
    pub min_goroutines: Option<u64>,
}

/// The HTTP server.
#[derive(Clone, Debug, Default, PartialEq, Args, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HttpSettings {
    /// File with the token that requests for anything but metrics and health have to bring.
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Certificate chain (PEM) to serve HTTPS with.
    #[arg(long, value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,
    /// Private key (PEM) of that certificate.
    #[arg(long, value_name = "FILE")]
    pub tls_key: Option<PathBuf>,
    /// Whether to serve processes, reports and profiles: auto does on loopback addresses and where there is a token.
    #[arg(long, value_enum)]
    pub api: Option<Switch>,
}

/// The recording, for `timeline`.
#[derive(Clone, Debug, Default, PartialEq, Args, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RecordSettings {
    /// Record every process to this file; one that is there is continued.
    #[arg(long = "record", value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// How long a recording keeps what it holds.
    #[arg(long = "record-keep", value_name = "TIME")]
    #[serde(with = "text")]
    pub keep: Option<humantime::Duration>,
    /// Size at which a recording drops the oldest it holds, in MiB.
    #[arg(long = "record-size", value_name = "MIB", value_parser = within::<u64>(SIZE_MIB))]
    pub size_mib: Option<u64>,
}

/// The cluster.
#[derive(Clone, Debug, Default, PartialEq, Args, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KubernetesSettings {
    /// Whether to ask the Kubernetes API for the names of pods: auto does in a pod with a service account, and where
    /// KUBECONFIG is set.
    #[arg(long = "kubernetes", value_enum)]
    pub enabled: Option<Switch>,
    /// This node's name in the cluster.
    #[arg(long = "node-name", value_name = "NAME", env = "NODE_NAME")]
    pub node: Option<String>,
    /// Whether to write an Event on a pod the first time it is found to leak.
    #[arg(long = "kubernetes-events", value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    pub events: Option<bool>,
}

/// What the agent keeps to, whatever happens on its node.
#[derive(Clone, Debug, Default, PartialEq, Args, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitSettings {
    /// Leaking groups exported for each process; the rest is summed.
    #[arg(long = "max-groups", value_name = "N")]
    pub groups: Option<usize>,
    /// Series of processes exported in all; the agent's own come on top.
    #[arg(long = "max-series", value_name = "N")]
    pub series: Option<usize>,
    /// Processes watched at once.
    #[arg(long = "max-processes", value_name = "N", value_parser = within::<u32>(PROCESSES))]
    pub processes: Option<u32>,
    /// Resident memory of the agent, in MiB, above which it begins nothing that takes more: no watch of another process, no look at
    /// a heap, no proof; 0 for no limit. What it watches already it watches on.
    #[arg(long = "max-memory", value_name = "MIB", value_parser = within::<u32>(MEMORY_MIB))]
    pub memory_mib: Option<u32>,
}

/// What `/metrics` has.
#[derive(Clone, Debug, Default, PartialEq, Args, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MetricSettings {
    /// What of Go's own metrics (go_*, process_*) is exported of each process: off, basic (what Prometheus' client library gives
    /// by default), or all (also what runtime/metrics has).
    #[arg(long = "metrics-runtime", value_enum)]
    pub runtime: Option<RuntimeMetrics>,
    /// By whose names: prometheus (those of Prometheus' client library), opentelemetry (those of its semantic conventions, as
    /// Prometheus spells them: go_memory_used_bytes, go_goroutine_count, ...), or both.
    #[arg(long = "metrics-runtime-names", value_enum)]
    pub runtime_names: Option<RuntimeNames>,
    /// Keys of goroutine labels (pprof.Do) by whose values leaked and stuck goroutines are counted, for example tenant,handler. Not
    /// for keys with a value for each request, of which only the most frequent few are told.
    #[arg(long = "metrics-goroutine-labels", value_name = "KEY,...", value_delimiter = ',')]
    pub goroutine_labels: Option<Vec<String>>,
}

/// By whose names Go's own metrics are exported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum RuntimeNames {
    /// Those of Prometheus' client library.
    #[default]
    Prometheus,
    /// Those of OpenTelemetry's semantic conventions.
    #[value(name = "opentelemetry")]
    OpenTelemetry,
    /// Those and those.
    Both,
}

/// Which of Go's own metrics are exported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum RuntimeMetrics {
    /// None.
    Off,
    /// What Prometheus' client library gives by default: some 45 series a process.
    #[default]
    Basic,
    /// Also what runtime/metrics has: some 190 series a process.
    All,
}

/// On, off, or whatever fits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Switch {
    /// Where it fits.
    #[default]
    Auto,
    /// Always.
    On,
    /// Never.
    Off,
}

impl Settings {
    /// A value of each that has none unless somebody gives it one.
    pub fn examples() -> Self {
        let patterns = |pattern: &str| pattern.parse().ok().map(|pattern| vec![pattern]);
        Self {
            select: SelectSettings {
                namespaces: patterns("shop-*"),
                exclude_namespaces: patterns("kube-*"),
                pod_labels: Some(vec![Label { key: "app".to_owned(), value: "cart".to_owned() }]),
                containers: patterns("server"),
                executables: patterns("/srv/*"),
                users: Some(vec!["www-data".to_owned()]),
                ..SelectSettings::default()
            },
            http: HttpSettings {
                token_file: Some("/etc/parkwarden/token".into()),
                tls_cert: Some("/etc/parkwarden/tls.crt".into()),
                tls_key: Some("/etc/parkwarden/tls.key".into()),
                ..HttpSettings::default()
            },
            record: RecordSettings {
                file: Some("/var/lib/parkwarden/recording.db".into()),
                ..RecordSettings::default()
            },
            kubernetes: KubernetesSettings { node: Some("node-1".to_owned()), ..KubernetesSettings::default() },
            ..Self::default()
        }
    }

    /// These, and where they are silent, `other`.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            listen: self.listen.or(other.listen),
            watch: self.watch.or(other.watch),
            select: self.select.or(other.select),
            http: self.http.or(other.http),
            record: self.record.or(other.record),
            kubernetes: self.kubernetes.or(other.kubernetes),
            limits: self.limits.or(other.limits),
            metrics: self.metrics.or(other.metrics),
        }
    }
}

impl WatchSettings {
    fn or(self, other: Self) -> Self {
        first_of!(self, other; threshold, interval, windows, min_growth, mode, budget, min_park, reach_window_mib, prove, max_pause, prove_memory_mib, track_writes)
    }
}

impl SelectSettings {
    fn or(self, other: Self) -> Self {
        first_of!(self, other; namespaces, exclude_namespaces, pod_labels, containers, executables, users, min_goroutines)
    }
}

impl HttpSettings {
    fn or(self, other: Self) -> Self {
        first_of!(self, other; token_file, tls_cert, tls_key, api)
    }
}

impl RecordSettings {
    fn or(self, other: Self) -> Self {
        first_of!(self, other; file, keep, size_mib)
    }
}

impl KubernetesSettings {
    fn or(self, other: Self) -> Self {
        first_of!(self, other; enabled, node, events)
    }
}

impl LimitSettings {
    fn or(self, other: Self) -> Self {
        first_of!(self, other; groups, series, processes, memory_mib)
    }
}

impl MetricSettings {
    fn or(self, other: Self) -> Self {
        first_of!(self, other; runtime, runtime_names, goroutine_labels)
    }
}

/// A pattern with `*` and `?`, both of which match `/` too.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Pattern(GlobMatcher);

impl Pattern {
    /// Whether it matches all of `text`.
    pub fn matches(&self, text: &str) -> bool {
        self.0.is_match(text)
    }
}

impl FromStr for Pattern {
    type Err = globset::Error;

    fn from_str(text: &str) -> Result<Self, globset::Error> {
        Ok(Self(GlobBuilder::new(text).literal_separator(false).build()?.compile_matcher()))
    }
}

impl TryFrom<String> for Pattern {
    type Error = globset::Error;

    fn try_from(text: String) -> Result<Self, globset::Error> {
        text.parse()
    }
}

impl From<Pattern> for String {
    fn from(pattern: Pattern) -> Self {
        pattern.0.glob().glob().to_owned()
    }
}

impl Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.glob().glob())
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.0.glob() == other.0.glob()
    }
}

/// A label that a pod has to have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Label {
    /// Its key.
    pub key: String,
    /// Its value.
    pub value: String,
}

impl FromStr for Label {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((key, value)) if !key.is_empty() => Ok(Self { key: key.to_owned(), value: value.to_owned() }),
            _ => Err(format!("{text} is not a label such as app=cart")),
        }
    }
}

impl TryFrom<String> for Label {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Label> for String {
    fn from(label: Label) -> Self {
        label.to_string()
    }
}

impl Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.key, self.value)
    }
}

/// Values that are written as text, in files as on the command line.
mod text {
    use std::fmt::Display;
    use std::str::FromStr;

    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub fn serialize<T: Display, S: Serializer>(value: &Option<T>, to: S) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => to.collect_str(value),
            None => to.serialize_none(),
        }
    }

    pub fn deserialize<'de, T, D>(from: D) -> Result<Option<T>, D::Error>
    where
        T: FromStr<Err: Display>,
        D: Deserializer<'de>,
    {
        String::deserialize(from)?.parse().map(Some).map_err(D::Error::custom)
    }
}

impl From<&NodeConfig> for Settings {
    fn from(config: &NodeConfig) -> Self {
        let NodeConfig { listen, watch, select, http, record, kubernetes, limits, metrics } = config;
        let Limits { groups, series, processes, memory_mib } = *limits;
        let (file, record) = record;
        Self {
            listen: Some(*listen),
            watch: WatchSettings {
                threshold: Some(watch.threshold.into()),
                interval: Some(watch.interval.into()),
                windows: Some(watch.rules.windows),
                min_growth: Some(watch.rules.min_growth),
                mode: Some(watch.mode),
                budget: Some(watch.budget),
                min_park: Some(watch.min_park.into()),
                reach_window_mib: Some(watch.reach.window_mib),
                prove: Some(watch.prove.is_some()),
                max_pause: Some(watch.prove.unwrap_or_default().max_pause.into()),
                prove_memory_mib: Some(watch.prove.unwrap_or_default().memory_mib),
                track_writes: Some(watch.prove.unwrap_or_default().track_writes),
            },
            select: SelectSettings { min_goroutines: Some(select.min_goroutines.unwrap_or(0)), ..select.clone() },
            http: HttpSettings { api: Some(http.api.unwrap_or_default()), ..http.clone() },
            record: RecordSettings {
                file: file.clone(),
                keep: Some(record.max_age.into()),
                size_mib: Some(record.max_bytes >> 20),
            },
            kubernetes: KubernetesSettings {
                enabled: Some(kubernetes.enabled.unwrap_or_default()),
                node: kubernetes.node.clone(),
                events: Some(kubernetes.events.unwrap_or(true)),
            },
            limits: LimitSettings {
                groups: Some(groups),
                series: Some(series),
                processes: Some(processes),
                memory_mib: Some(memory_mib),
            },
            metrics: MetricSettings {
                runtime: Some(metrics.runtime),
                runtime_names: Some(metrics.names),
                goroutine_labels: Some(metrics.labels.clone()),
            },
        }
    }
}
