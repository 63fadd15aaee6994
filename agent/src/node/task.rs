//! Watching one process of the node, on a thread of its own, to its end or until told to stop.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::watch;

use super::leaks::{LOG, LeakLog};
use super::state::{Node, NodeProcess, WatchState};
use crate::clock::now_ns;
use crate::config::WatchConfig;
use crate::discover;
use crate::discover::confinement;
use crate::discover::process;
use crate::golang::binary::GoBinary;
use crate::kube::{Events, LeakStories, Pods};
use crate::live::{Target, TargetError};
use crate::probe::OomVictims;
use crate::record::Exit;
use crate::report::Report;
use crate::session::{EndReason, Session};
use crate::watch::fate::Fate;
use crate::watch::recording::{Recording, Recordings};
use crate::watch::{self as one, Commons, Progress, WatchError};
use crate::words::printable;

/// A process and its binary, open.
pub type Opened = (Arc<process::Process>, Arc<GoBinary>);

/// How often, and how far apart, a process is tried that does not look as its binary says: it may have just started.
const TRIES: u32 = 4;
const TRY_EVERY: Duration = Duration::from_secs(1);

/// How many goroutines there are is looked at this often, while a process has too few to be watched.
const COUNT_EVERY: Duration = Duration::from_secs(30);

/// How long the cluster is waited for to say why a container ended, and its word for lack of memory: a kubelet looks every
/// second, and tells at once.
const END_TOLD_WITHIN: Duration = Duration::from_secs(10);
const OOM_KILLED: &str = "OOMKilled";

/// What a task needs.
pub struct Task {
    /// What it tells everybody.
    pub node: Arc<Node>,
    /// The process, as everybody knows it.
    pub process: Arc<NodeProcess>,
    /// The process and its binary, open.
    pub opened: Opened,
    /// How to watch it.
    pub config: WatchConfig,
    /// It is watched only once it has so many goroutines.
    pub min_goroutines: u64,
    /// What all watches share.
    pub commons: Commons,
    /// Where tasks wait.
    pub runtime: Handle,
    /// Where it is recorded.
    pub recordings: Option<Recordings>,
    /// Where leaks are told of.
    pub events: Events,
    /// What is known of pods.
    pub pods: Pods,
    /// Whom the OOM killer chooses.
    pub oom_victims: Option<OomVictims>,
    /// Turns true when the task is to end.
    pub stop: watch::Receiver<bool>,
}

/// How a task ended.
#[derive(Debug)]
pub enum Ended {
    /// The process did.
    Exited(Option<Exit>),
    /// The process executed another program.
    Replaced,
    /// It was told to.
    Stopped,
    /// The process cannot be watched: one word, and in full.
    Refused(&'static str, String),
}

impl Task {
    /// Watches to the end. A panic is a bug; it ends this task alone.
    pub fn run(self) -> Ended {
        let pid = self.process.key.pid;
        catch_unwind(AssertUnwindSafe(|| self.watch())).unwrap_or_else(|_| {
            log::error!("pid {pid}: parkwarden panicked while watching it; please report this");
            Ended::Refused("internal", "parkwarden panicked while watching it: its log has the message".to_owned())
        })
    }

    fn watch(self) -> Ended {
        let Self { node, process, config, commons, runtime, recordings, events, pods, mut stop, .. } = self;
        let target = match open(self.opened, self.min_goroutines, &process, &runtime, &mut stop) {
            Ok(Some(target)) => target,
            Ok(None) => return Ended::Stopped,
            Err(error) => return failed(process.key.pid, &error.into()),
        };
        let mut fate = Fate::of(Arc::clone(target.process()), self.oom_victims);
        let mut recording = recordings.map(|recordings| recordings.of(process.workload()));
        let (mut stories, mut log) = (LeakStories::default(), LeakLog::default());
        let progress = |progress: Progress<'_>| {
            let Progress::Looked(session, report) = progress else { return };
            fate.looked();
            looked(recording.as_mut(), session, &report, &fate);
            warn(&process, log.observe(&report.groups));
            let workload = process.workload();
            for leak in stories.observe(Duration::from_nanos(now_ns()), &workload, &report.groups) {
                events.leak(&workload, &leak);
            }
            node.looked(&process, report);
        };
        // An error would mean that the supervisor is gone.
        let mut until = stop.clone();
        let stopped = async { drop(until.wait_for(|stop| *stop).await) };
        match one::among(target, &config, &commons, stopped, progress) {
            Ok(outcome) => {
                let container_oom = || {
                    // What is gone is shown no longer while the cluster's word is waited for.
                    node.remove(process.key);
                    oom_killed(&pods, &process, &runtime, &mut stop)
                };
                let exit = fate.exit(&outcome.session, container_oom);
                let report = Report::of(&outcome.session, crate::config::nanoseconds(config.threshold), &config.rules);
                if let Some(recording) = recording {
                    recording.ended(&outcome.session, &report, &fate, exit.as_ref());
                }
                let ended = match outcome.session.end().map(|end| end.reason) {
                    Some(EndReason::TargetExited) => Ended::Exited(exit),
                    Some(EndReason::TargetReplaced) => Ended::Replaced,
                    _ => return Ended::Stopped,
                };
                warn(&process, log.ended(&report.groups));
                ended
            }
            Err(error) => failed(process.key.pid, &error),
        }
    }
}

/// Whether the cluster says, soon enough, that the container of a process was OOM-killed.
fn oom_killed(pods: &Pods, process: &NodeProcess, runtime: &Handle, stop: &mut watch::Receiver<bool>) -> bool {
    let Some(container) = process.workload().container_id else { return false };
    runtime.block_on(async {
        tokio::select! {
            reason = pods.ended(&container, END_TOLD_WITHIN) => reason.is_some_and(|reason| reason == OOM_KILLED),
            _ = stop.wait_for(|stop| *stop) => false,
        }
    })
}

/// Logs what there is to say of a process.
fn warn(process: &NodeProcess, lines: Vec<String>) {
    let workload = process.workload();
    let [namespace, pod, container] = workload.labels();
    let place = [namespace, pod, container].into_iter().filter(|name| !name.is_empty()).collect::<Vec<_>>().join("/");
    let place = if place.is_empty() { place } else { format!(", {place}") };
    for line in lines {
        log::warn!(target: LOG, "pid {} ({}{}): {line}", process.key.pid, printable(process.exe_name()), printable(&place));
    }
}

fn looked(recording: Option<&mut Recording>, session: &Session, report: &Report, fate: &Fate) {
    if let Some(recording) = recording {
        recording.looked(session, report, fate);
    }
}

/// Opens the target, as soon as it looks as its binary says and has enough goroutines; `None` when told to stop.
fn open(
    (process, binary): Opened,
    min_goroutines: u64,
    known: &NodeProcess,
    runtime: &Handle,
    stop: &mut watch::Receiver<bool>,
) -> Result<Option<Target>, TargetError> {
    let mut opened = Target::of(process, Arc::clone(&binary));
    for _ in 1..TRIES {
        match &opened {
            Err(TargetError::Layout { .. } | TargetError::Census { .. }) => {}
            _ => break,
        }
        if stops_within(TRY_EVERY, runtime, stop) {
            return Ok(None);
        }
        let process = discover::process::Process::open(known.key.pid)?;
        if process.start_ticks() != known.key.start_ticks {
            return Err(TargetError::Exited { pid: known.key.pid });
        }
        opened = Target::of(Arc::new(process), Arc::clone(&binary));
    }
    let target = opened?;
    // Without a minimum nothing has to be counted.
    if min_goroutines == 0 {
        return Ok(Some(target));
    }
    loop {
        let count = target.own_goroutines()?;
        if count >= min_goroutines {
            return Ok(Some(target));
        }
        known.set_state(WatchState::Unselected {
            why: format!("it has {count} goroutines, and select.min_goroutines is {min_goroutines}"),
        });
        if stops_within(COUNT_EVERY, runtime, stop) {
            return Ok(None);
        }
    }
}

/// Waits, and tells whether the task is to end.
fn stops_within(time: Duration, runtime: &Handle, stop: &mut watch::Receiver<bool>) -> bool {
    runtime.block_on(async { tokio::time::timeout(time, stop.wait_for(|stop| *stop)).await.is_ok() })
}

fn failed(pid: u32, error: &WatchError) -> Ended {
    match error {
        WatchError::Target(TargetError::Exited { .. }) => Ended::Exited(None),
        WatchError::Target(TargetError::Open(discover::process::OpenError::NoSuchProcess(_))) => Ended::Exited(None),
        WatchError::Target(TargetError::Replaced { .. }) => Ended::Replaced,
        error => {
            let confined = error.is_denied().then(|| confinement::sentence(Some(pid))).flatten();
            let confined = confined.map_or_else(String::new, |sentence| format!("; {sentence}"));
            Ended::Refused(error.word(), crate::exit::chain(error) + &confined)
        }
    }
}
