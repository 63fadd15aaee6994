//! Wiring: configuration, signals, the kernel's news of processes, HTTP, the cluster, and the supervisor.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};

use crate::config::node::{ConfigError, NodeConfig};
use crate::config::settings::Settings;
use crate::config::{BpfLog, ModeChoice};
use crate::discover::usage::ProcessNumbers;
use crate::discover::workload::Workload;
use crate::export::http::{self, HttpConfig, HttpError};
use crate::export::metrics::{AgentNumbers, Exporter};
use crate::kube::{self, Pods};
use crate::node::supervisor::{Message, Supervisor};
use crate::node::{Node, NodeProcess};
use crate::probe::{Lifecycles, LoadError, OomVictims, Prober};
use crate::record::RecordError;
use crate::watch;
use crate::watch::recording::{RecordingProgress, Recordings};

/// `/proc/self/ns/pid` of the PID namespace that the kernel's pids are of (`PROC_PID_INIT_INO`,
/// include/linux/proc_ns.h).
const INITIAL_PID_NAMESPACE: &str = "pid:[4026531836]";

/// How often news of pods is acted on.
const BETWEEN_PODS: Duration = Duration::from_secs(1);

/// Why the agent cannot run.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The BPF programs cannot be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// There can be no recording.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// There can be no server.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// The cluster cannot be asked.
    #[error(transparent)]
    Cluster(#[from] kube::StartError),
    /// The host gave no threads, timers or signal handlers.
    #[error("cannot set up the agent")]
    Runtime(#[source] std::io::Error),
}

/// Runs the agent until SIGTERM or SIGINT. Returns how many processes could not be let go of in time.
pub fn run(flags: &Settings, file: Option<&Path>, bpf_log: BpfLog) -> Result<usize, NodeError> {
    // Before there are threads.
    crate::memory::allocator::keep_little();
    let config = load(flags, file, bpf_log)?;
    let (sender, receiver) = channel();
    let runtime = runtime("agent").map_err(NodeError::Runtime)?;
    signals(&runtime, sender.clone(), flags.clone(), file.map(Path::to_owned), bpf_log)?;
    // Before everything that may take its time: whoever asks how the agent is gets an answer, whatever that waits for.
    let serving_on = self::runtime("http").map_err(NodeError::Runtime)?;
    let node = Arc::new(Node::default());
    let started = Arc::new(Started::default());
    let http = HttpConfig {
        token_file: config.http.token_file.clone(),
        tls: config.http.tls_cert.clone().zip(config.http.tls_key.clone()),
        api: config.http.api.unwrap_or_default(),
        recording: config.record.0.clone(),
    };
    let metrics = metrics(&node, &config, &started);
    let serving = serving_on.block_on(http::serve(config.listen, &http, Arc::clone(&node), metrics))?;
    // Not a matter of the log's level: whoever starts it wants to know.
    eprintln!("parkwarden: serving on {}", serving.url());
    let prober = prober(&config)?;
    let (path, kept) = &config.record;
    // In a pod the host's name is the pod's, and another one each time.
    let host = config.kubernetes.node.clone().filter(|node| !node.is_empty());
    let open = |path: &PathBuf| Recordings::open(path, &config.watch, kept.clone(), host);
    let recordings = path.as_ref().map(open).transpose()?;
    if let Some(recordings) = &recordings {
        started.recording.get_or_init(|| recordings.progress());
    }
    let cluster = runtime.block_on(kube::start(&config.kubernetes))?;
    follow_pods(&runtime, &cluster.pods, sender.clone());
    started.cluster.get_or_init(|| cluster.clone());
    let sees_host = sees_host();
    let missing = missing(&config);
    let told = sees_host && lifecycles(sender.clone(), missing);
    let oom_victims = if sees_host { oom_victims(missing) } else { None };
    let pods = cluster.pods.clone();
    let commons = watch::Commons::new(prober);
    commons.limit_memory(u64::from(config.limits.memory_mib) << 20);
    let supervisor = Supervisor {
        node: Arc::clone(&node),
        config,
        messages: (sender, receiver),
        commons,
        runtime: runtime.handle().clone(),
        recordings,
        events: cluster.events,
        pods: cluster.pods,
        oom_victims,
        workloads: Box::new(move |process| workload(&pods, process)),
        told,
    };
    let left = supervisor.run();
    drop(serving);
    // What still runs there serves nobody any more.
    serving_on.shutdown_background();
    runtime.shutdown_background();
    Ok(left)
}

/// What metrics tell of besides processes, as soon as it has been started.
#[derive(Debug, Default)]
struct Started {
    recording: OnceLock<RecordingProgress>,
    cluster: OnceLock<kube::Cluster>,
}

/// Where tasks wait.
pub(crate) fn runtime(name: &str) -> std::io::Result<Runtime> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(2).thread_name(name).enable_all().build()
}

fn load(flags: &Settings, file: Option<&Path>, bpf_log: BpfLog) -> Result<NodeConfig, ConfigError> {
    let mut config = NodeConfig::load(flags, file)?;
    config.watch.bpf_log = bpf_log;
    Ok(config)
}

/// How loudly to say that BPF cannot be used: who asks for mode census alone does without.
pub(crate) fn missing(config: &NodeConfig) -> log::Level {
    if config.watch.mode == ModeChoice::Census { log::Level::Info } else { log::Level::Warn }
}

/// Where processes may be watched without probes, none have to be loaded.
pub(crate) fn prober(config: &NodeConfig) -> Result<Option<Prober>, LoadError> {
    match watch::prober(&config.watch) {
        Ok(prober) => {
            for (_, reason) in prober.refused() {
                log::warn!("{reason}");
            }
            Ok(Some(prober))
        }
        Err(error) if matches!(config.watch.mode, ModeChoice::Auto | ModeChoice::Census) => {
            let why = crate::exit::chain(&error);
            log::log!(missing(config), "no process can be watched with probes, only in mode census: {why}");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// What a scrape is answered: nothing in it waits for a disk, a process or the cluster.
fn metrics(node: &Arc<Node>, config: &NodeConfig, started: &Arc<Started>) -> Arc<http::Metrics> {
    let (node, started) = (Arc::clone(node), Arc::clone(started));
    let (limits, metrics) = (config.limits, config.metrics.clone());
    let exporter = Exporter::default();
    Arc::new(move |http, format| {
        let cluster = started.cluster.get();
        let numbers = AgentNumbers {
            recording: started.recording.get().map(RecordingProgress::get),
            pods: cluster.and_then(|cluster| cluster.pods.status()),
            events: cluster.and_then(|cluster| cluster.events.counts()),
            process: ProcessNumbers::of(std::process::id()).map(|process| (std::process::id(), process)),
        };
        exporter.render(format, &node, limits, &metrics, &numbers, Some(http))
    })
}

/// Has the supervisor judge anew when more is known of pods.
fn follow_pods(runtime: &Runtime, pods: &Pods, tell: Sender<Message>) {
    let pods = pods.clone();
    runtime.spawn(async move {
        let mut generation = pods.generation();
        loop {
            generation = pods.changed(generation).await;
            if tell.send(Message::Pods).is_err() {
                return;
            }
            // Pods come and go in bursts, and everything is judged anew each time.
            tokio::time::sleep(BETWEEN_PODS).await;
        }
    });
}

/// Who a process belongs to; `None` while its pod is not known that will be.
fn workload(pods: &Pods, process: &NodeProcess) -> Option<Workload> {
    let known = pods.workload(&process.described.identity);
    let (in_pod, before) = (known.pod_uid.is_some(), process.workload());
    match known.pod {
        // A pod can be gone before its processes are.
        None if before.pod.is_some() => Some(before),
        None if in_pod && pods.status().is_some() => None,
        _ => Some(known),
    }
}

/// Has signals end the agent or change its configuration.
fn signals(
    runtime: &Runtime,
    tell: Sender<Message>,
    flags: Settings,
    file: Option<PathBuf>,
    bpf_log: BpfLog,
) -> Result<(), NodeError> {
    let _context = runtime.enter();
    let listen = |kind| signal(kind).map_err(NodeError::Runtime);
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut terminate = listen(SignalKind::terminate())?;
    let mut hangup = listen(SignalKind::hangup())?;
    runtime.spawn(async move {
        loop {
            let message = tokio::select! {
                _ = interrupt.recv() => Message::Stop,
                _ = terminate.recv() => Message::Stop,
                _ = hangup.recv() => match load(&flags, file.as_deref(), bpf_log) {
                    Ok(config) => {
                        log::info!("the configuration has been read again");
                        Message::Configured(Box::new(config))
                    }
                    Err(error) => {
                        log::error!("the configuration stays as it was: {}", crate::exit::chain(&error));
                        continue;
                    }
                },
            };
            if tell.send(message).is_err() {
                return;
            }
        }
    });
    Ok(())
}

/// Whether this is the host's PID namespace, whose pids are the kernel's.
pub(crate) fn sees_host() -> bool {
    let namespace = std::fs::read_link("/proc/self/ns/pid").unwrap_or_default();
    let is_host = namespace.as_os_str() == INITIAL_PID_NAMESPACE;
    if !is_host {
        log::warn!(
            "this is not the host's PID namespace: only processes of this one are seen, and new ones are looked for \
             every few seconds (a pod needs hostPID: true)"
        );
    }
    is_host
}

/// Has the kernel tell whom its OOM killer chooses, if it does.
fn oom_victims(missing: log::Level) -> Option<OomVictims> {
    let why = |error: &LoadError| {
        log::log!(
            missing,
            "which processes are killed for lack of memory is known from their control groups and the cluster alone: {}",
            crate::exit::chain(error)
        );
    };
    OomVictims::attach().inspect_err(why).ok()
}

/// Has the kernel tell which processes begin and end. Returns whether it does.
pub(crate) fn lifecycles(tell: Sender<Message>, missing: log::Level) -> bool {
    let attached = Lifecycles::attach().map_err(|error| crate::exit::chain(&error));
    let started = attached.and_then(|mut lifecycles| {
        let thread = std::thread::Builder::new().name("lifecycles".to_owned()).spawn(move || {
            loop {
                let mut told = Vec::new();
                let lost = match lifecycles.wait(Duration::from_secs(1), &mut told) {
                    Ok(lost) => lost,
                    Err(error) => return log::error!("the kernel tells of no more processes: {error}"),
                };
                if (!told.is_empty() || lost > 0) && tell.send(Message::Lifecycles(told, lost)).is_err() {
                    return;
                }
            }
        });
        thread.map_err(|error| error.to_string())
    });
    if let Err(error) = &started {
        log::log!(
            missing,
            "new processes are looked for every few seconds, because the kernel does not tell of them: {error}"
        );
    }
    started.is_ok()
}
