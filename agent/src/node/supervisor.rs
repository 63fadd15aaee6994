//! Finds the Go processes of the node and gives each a task; one loop, one thread, nothing in it waits for a process.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parkwarden_common::lifecycle::{EXECUTED, Lifecycle};
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::examine::Examiners;
use super::select::{self, Candidate};
use super::state::{Node, NodeProcess, ProcessKey, WatchState};
use super::task::Opened;
use super::task::{Ended, Task};
use crate::config::WatchConfig;
use crate::config::node::NodeConfig;
use crate::discover::confinement;
use crate::discover::describe::pids;
use crate::discover::usage::Stat;
use crate::discover::workload::Workload;
use crate::kube::{Events, Pods};
use crate::live::examine::{Examined, Found};
use crate::probe::OomVictims;
use crate::watch::Commons;
use crate::watch::recording::Recordings;

/// How often processes are looked for in `/proc`: with the kernel telling of them, only for what it lost; and without.
const SCAN_TOLD: Duration = Duration::from_secs(60);
const SCAN_UNTOLD: Duration = Duration::from_secs(5);

/// A process that has just begun is left alone that long: most that begin are soon gone.
const MIN_AGE: Duration = Duration::from_secs(2);

/// How long a process in a pod waits for the cluster to say which.
const WAIT_FOR_POD: Duration = Duration::from_secs(10);

/// When a process that could not be watched is tried again, at first and at most.
const RETRY_FIRST: Duration = Duration::from_secs(30);
const RETRY_LAST: Duration = Duration::from_secs(600);

/// The reason for which a process is refused that there is no place for.
const LIMIT: &str = "limit";

/// Longest time without a look at what is due.
const TICK: Duration = Duration::from_millis(500);

/// How often memory is given back, if there is any to give.
const GIVE_BACK_EVERY: Duration = Duration::from_secs(10);

/// Time in which all tasks have to end once they are told to.
const END_WITHIN: Duration = Duration::from_millis(4500);

/// What the supervisor is told.
#[derive(Debug)]
pub enum Message {
    /// Processes have executed a program or exited; and how many of these messages were lost.
    Lifecycles(Vec<Lifecycle>, u64),
    /// What a process is.
    Examined(u32, Option<Examined>),
    /// A task has ended.
    Ended(ProcessKey, Ended),
    /// Another configuration is in force.
    Configured(Box<NodeConfig>),
    /// More is known of the node's pods.
    Pods,
    /// End.
    Stop,
}

/// Who a process belongs to; `None` while a pod is not known that will be.
pub type Workloads = dyn Fn(&NodeProcess) -> Option<Workload> + Send;

/// See the module.
pub struct Supervisor {
    /// What it tells everybody.
    pub node: Arc<Node>,
    /// The configuration in force.
    pub config: NodeConfig,
    /// Where messages come from, and how others send them.
    pub messages: (Sender<Message>, Receiver<Message>),
    /// What all watches share.
    pub commons: Commons,
    /// Where tasks wait.
    pub runtime: Handle,
    /// Where processes are recorded.
    pub recordings: Option<Recordings>,
    /// Where leaks are told of.
    pub events: Events,
    /// What is known of pods.
    pub pods: Pods,
    /// Whom the OOM killer chooses.
    pub oom_victims: Option<OomVictims>,
    /// Who a process belongs to.
    pub workloads: Box<Workloads>,
    /// Whether the kernel tells of processes that begin.
    pub told: bool,
}

/// A process that was examined.
enum KnownProcess {
    /// No Go program, or not known: which process image that was.
    Other(Option<Image>),
    /// It may not be looked at: the same.
    Denied(Image),
    Go(Box<GoProcess>),
}

/// A Go process.
struct GoProcess {
    process: Arc<NodeProcess>,
    found: Instant,
    task: Option<Running>,
    /// After a refusal: when to try again, and how long to wait the next time.
    retry: Option<(Instant, Duration)>,
}

struct Running {
    config: WatchConfig,
    min_goroutines: u64,
    stop: watch::Sender<bool>,
    thread: JoinHandle<()>,
}

/// What tells one program of a pid from another, without looking at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Image {
    start_ticks: u64,
    exe: Option<(u64, u64)>,
}

impl Image {
    fn of(pid: u32) -> Option<Self> {
        use std::os::unix::fs::MetadataExt as _;
        let exe = std::fs::metadata(format!("/proc/{pid}/exe")).ok();
        Some(Self { start_ticks: Stat::of(pid)?.start_ticks, exe: exe.map(|exe| (exe.dev(), exe.ino())) })
    }
}

/// The loop's own state.
struct Loop {
    own: Supervisor,
    examiners: Examiners,
    known: HashMap<u32, KnownProcess>,
    /// When which pids are to be examined.
    due: BTreeMap<(Instant, u32), ()>,
    scan_at: Instant,
    give_back_at: Instant,
    /// Of the processes that the first scan found, those that are still to be examined.
    first: Option<HashSet<u32>>,
    /// Whether it was said that some may not be looked at.
    told_of_denied: bool,
}

impl Supervisor {
    /// Runs until told to stop; then all tasks have ended, or were given up. Returns how many were.
    pub fn run(self) -> usize {
        let tell = self.messages.0.clone();
        let examiners = Examiners::start(move |pid, examined| {
            // The receiver goes with the supervisor.
            let _ = tell.send(Message::Examined(pid, examined));
        });
        let now = Instant::now();
        Loop {
            own: self,
            examiners,
            known: HashMap::new(),
            due: BTreeMap::new(),
            scan_at: now,
            give_back_at: now + GIVE_BACK_EVERY,
            first: None,
            told_of_denied: false,
        }
        .run()
    }
}

impl Loop {
    fn run(mut self) -> usize {
        loop {
            if Instant::now() >= self.scan_at {
                self.scan();
            }
            match self.own.messages.1.recv_timeout(TICK) {
                Ok(Message::Stop) | Err(RecvTimeoutError::Disconnected) => return self.end(),
                Ok(message) => self.hear(message),
                Err(RecvTimeoutError::Timeout) => {}
            }
            self.tick();
        }
    }

    fn hear(&mut self, message: Message) {
        match message {
            Message::Lifecycles(told, lost) => {
                for Lifecycle { pid, kind } in told {
                    if kind == EXECUTED {
                        self.executed(pid);
                    } else {
                        self.exited(pid);
                    }
                }
                if lost > 0 {
                    log::info!("{lost} processes began or ended too fast to be told of: looking for all");
                    self.scan_at = Instant::now();
                }
            }
            Message::Examined(pid, examined) => self.examined(pid, examined),
            Message::Ended(key, ended) => self.ended(key, ended),
            Message::Configured(config) => {
                let later = self.own.config.at_next_start(&config);
                if !later.is_empty() {
                    log::warn!("what has changed of {} takes effect at the next start", later.join(", "));
                }
                self.own.config = *config;
                self.own.commons.limit_memory(u64::from(self.own.config.limits.memory_mib) << 20);
                // The limits may be others.
                self.places_are_free(usize::MAX);
                self.judge_all();
            }
            Message::Pods => self.judge_all(),
            Message::Stop => {}
        }
    }

    /// What is due by time.
    fn tick(&mut self) {
        let now = Instant::now();
        while let Some((&(at, pid), ())) = self.due.first_key_value()
            && at <= now
        {
            self.due.pop_first();
            self.examiners.examine(pid);
        }
        self.examiners.replace_hung();
        if now >= self.give_back_at {
            self.give_back_at = now + GIVE_BACK_EVERY;
            self.examiners.give_back();
        }
        if self.first.as_ref().is_some_and(HashSet::is_empty) {
            self.own.node.set_ready();
        }
        let (mut unseen, mut retries) = (0, Vec::new());
        for (pid, known) in &self.known {
            match known {
                KnownProcess::Denied(_) => unseen += 1,
                KnownProcess::Go(entry) if entry.task.is_none() && entry.retry.is_some_and(|(at, _)| at <= now) => {
                    retries.push(*pid);
                }
                KnownProcess::Go(_) | KnownProcess::Other(_) => {}
            }
        }
        self.own.node.set_unseen(unseen);
        for pid in retries {
            if let Some(KnownProcess::Go(entry)) = self.known.get_mut(&pid) {
                entry.retry = entry.retry.map(|(_, wait)| (now + wait, wait));
            }
            self.examiners.examine(pid);
        }
    }

    /// Looks for processes that nobody told of, and forgets those that are gone.
    fn scan(&mut self) {
        self.scan_at = Instant::now() + if self.own.told { SCAN_TOLD } else { SCAN_UNTOLD };
        let pids = match pids() {
            Ok(pids) => pids,
            Err(error) => return log::error!("the processes of this host cannot be listed: {error}"),
        };
        let gone: Vec<u32> = self.known.keys().filter(|pid| pids.binary_search(pid).is_err()).copied().collect();
        for pid in gone {
            self.exited(pid);
        }
        self.first.get_or_insert_with(|| pids.iter().copied().collect());
        for pid in pids {
            match self.known.get(&pid) {
                None => self.examine_at(Instant::now(), pid),
                Some(KnownProcess::Other(image)) if *image != Image::of(pid) => self.examine_at(Instant::now(), pid),
                Some(KnownProcess::Denied(image)) if Some(*image) != Image::of(pid) => {
                    self.examine_at(Instant::now(), pid)
                }
                // Its task knows when it executes another program.
                Some(_) => {}
            }
        }
    }

    fn examine_at(&mut self, at: Instant, pid: u32) {
        self.due.insert((at, pid), ());
    }

    fn executed(&mut self, pid: u32) {
        if pid == std::process::id() {
            return;
        }
        match self.known.get(&pid) {
            // A watched process: its task will tell.
            Some(KnownProcess::Go(entry)) if entry.task.is_some() => return,
            Some(KnownProcess::Go(entry)) => self.own.node.remove(entry.process.key),
            Some(KnownProcess::Other(_) | KnownProcess::Denied(_)) | None => {}
        }
        self.known.remove(&pid);
        self.examine_at(Instant::now() + MIN_AGE, pid);
    }

    fn exited(&mut self, pid: u32) {
        match self.known.get(&pid) {
            // Its task tells how.
            Some(KnownProcess::Go(entry)) if entry.task.is_some() => {}
            Some(KnownProcess::Go(entry)) => {
                self.own.node.remove(entry.process.key);
                self.known.remove(&pid);
            }
            Some(KnownProcess::Other(_) | KnownProcess::Denied(_)) => {
                self.known.remove(&pid);
            }
            None => {
                self.due.retain(|(_, due), ()| *due != pid);
                self.settled(pid);
            }
        }
    }

    /// It is known what a process is, or it is gone.
    fn settled(&mut self, pid: u32) {
        if let Some(first) = &mut self.first {
            first.remove(&pid);
        }
    }

    fn examined(&mut self, pid: u32, examined: Option<Examined>) {
        self.settled(pid);
        match examined {
            Some(Examined::Go(found)) => self.found(*found),
            Some(Examined::Other | Examined::Denied) => {
                if matches!(self.known.get(&pid), Some(KnownProcess::Go(entry)) if entry.task.is_some()) {
                    return;
                }
                if let Some(KnownProcess::Go(entry)) = self.known.remove(&pid) {
                    self.own.node.remove(entry.process.key);
                }
                // What is gone needs no place.
                let Some(image) = Image::of(pid) else { return };
                if matches!(examined, Some(Examined::Denied)) {
                    log::info!("pid {pid} may not be looked at: whether it is a Go program is not known");
                    if !std::mem::replace(&mut self.told_of_denied, true) {
                        log::warn!(
                            "some processes, such as pid {pid}, may not be looked at (parkwarden_processes_unseen tells how \
                             many): those of other users need CAP_SYS_PTRACE, and executables that only their owner may \
                             read CAP_DAC_READ_SEARCH{}",
                            confinement::sentence(Some(pid))
                                .map_or_else(String::new, |sentence| format!("; {sentence}"))
                        );
                    }
                    self.known.insert(pid, KnownProcess::Denied(image));
                } else {
                    self.known.insert(pid, KnownProcess::Other(Some(image)));
                }
            }
            None => {
                log::warn!("pid {pid} did not answer: whether it is a Go program is not known");
                self.known.insert(pid, KnownProcess::Other(None));
            }
        }
    }

    /// A Go process: chosen, it gets a task.
    fn found(&mut self, found: Found) {
        let (go_version, stripped) = (found.go_version(), found.stripped());
        let Found { process: opened, described, binary } = found;
        let key = ProcessKey { pid: opened.pid(), start_ticks: opened.start_ticks() };
        let exe = opened.exe_path().display().to_string();
        let (since, retry, process) = match self.known.remove(&key.pid) {
            Some(KnownProcess::Go(entry)) if entry.task.is_some() => {
                self.known.insert(key.pid, KnownProcess::Go(entry));
                return;
            }
            Some(KnownProcess::Go(entry)) if entry.process.key == key && entry.process.exe == exe => {
                (entry.found, entry.retry, entry.process)
            }
            _ => (Instant::now(), None, Arc::new(NodeProcess::new(key, exe, described, go_version, stripped))),
        };
        self.own.node.insert(Arc::clone(&process));
        let mut entry = GoProcess { process, found: since, task: None, retry };
        match binary {
            Err(refused) => entry.process.set_state(WatchState::Refused {
                reason: refused.refusal.word(),
                message: refused.refusal.to_string(),
            }),
            Ok(binary) => self.judge_new(&mut entry, (opened, binary)),
        }
        self.known.insert(key.pid, KnownProcess::Go(Box::new(entry)));
    }

    fn judge_new(&mut self, entry: &mut GoProcess, opened: Opened) {
        let Some(workload) = self.workload(entry) else {
            // Asked again when the pods change, or when it has waited long enough.
            // Until then nobody has chosen it, and its profiles are nobody's business.
            entry.process.set_state(WatchState::Unselected { why: "its pod is not known yet".to_owned() });
            return self.examine_at(Instant::now() + Duration::from_secs(1), entry.process.key.pid);
        };
        entry.process.set_workload(workload);
        match self.wanted(&entry.process) {
            Err(why) => entry.process.set_state(WatchState::Unselected { why }),
            Ok(config) => self.start(entry, opened, config),
        }
    }

    /// Who a process belongs to; `None` while that is worth waiting for.
    fn workload(&self, entry: &GoProcess) -> Option<Workload> {
        let known = (self.own.workloads)(&entry.process);
        let waited = entry.found.elapsed() >= WAIT_FOR_POD;
        known.or_else(|| waited.then(|| Workload::local(&entry.process.described.identity)))
    }

    /// How a process is to be watched, or why not.
    fn wanted(&self, process: &NodeProcess) -> Result<WatchConfig, String> {
        let (workload, described) = (process.workload(), &process.described);
        let candidate = Candidate { exe: &process.exe, uid: described.uid, user: &described.user, workload: &workload };
        if let Some(why) = select::unselected(&self.own.config.select, &candidate) {
            return Err(why);
        }
        let (config, wrong) = select::watch_config(&self.own.config.watch, &workload);
        for wrong in wrong {
            log::warn!("pid {}: the annotation of its pod is ignored: {wrong}", process.key.pid);
        }
        Ok(config)
    }

    fn start(&mut self, entry: &mut GoProcess, opened: Opened, config: WatchConfig) {
        let running =
            self.known.values().filter(|known| matches!(known, KnownProcess::Go(entry) if entry.task.is_some()));
        let limit = self.own.config.limits.processes;
        if running.count() >= limit as usize {
            let message = format!("{limit} processes are watched already (limits.processes)");
            return self.refuse(entry, LIMIT, message);
        }
        if let Some((resident, limit)) = self.own.commons.over_memory() {
            let message = format!(
                "the agent has {} MiB resident, more than limits.memory_mib allows ({}): it watches no further process",
                resident >> 20,
                limit >> 20
            );
            return self.refuse(entry, LIMIT, message);
        }
        let (stop, stopped) = watch::channel(false);
        let min_goroutines = self.own.config.select.min_goroutines.unwrap_or(0);
        let task = Task {
            node: Arc::clone(&self.own.node),
            process: Arc::clone(&entry.process),
            opened,
            config: config.clone(),
            min_goroutines,
            commons: self.own.commons.clone(),
            runtime: self.own.runtime.clone(),
            recordings: self.own.recordings.clone(),
            events: self.own.events.clone(),
            pods: self.own.pods.clone(),
            oom_victims: self.own.oom_victims.clone(),
            stop: stopped,
        };
        entry.process.set_state(WatchState::Starting);
        let (key, tell) = (entry.process.key, self.own.messages.0.clone());
        let thread = std::thread::Builder::new().name(format!("watch-{}", key.pid)).spawn(move || {
            let ended = task.run();
            // The receiver goes with the supervisor.
            let _ = tell.send(Message::Ended(key, ended));
        });
        match thread {
            Ok(thread) => entry.task = Some(Running { config, min_goroutines, stop, thread }),
            Err(error) => self.refuse(entry, "internal", format!("no thread to watch it: {error}")),
        }
    }

    fn refuse(&self, entry: &mut GoProcess, reason: &'static str, message: String) {
        log::info!("pid {} is not watched: {message}", entry.process.key.pid);
        entry.process.set_state(WatchState::Refused { reason, message });
        let wait = entry.retry.map_or(RETRY_FIRST, |(_, wait)| (2 * wait).min(RETRY_LAST));
        entry.retry = Some((Instant::now() + wait, wait));
    }

    fn ended(&mut self, key: ProcessKey, ended: Ended) {
        let Some(KnownProcess::Go(mut entry)) = self.known.remove(&key.pid) else { return };
        if let Some(running) = entry.task.take()
            && running.thread.join().is_err()
        {
            log::error!("pid {}: its task panicked", key.pid);
        }
        self.places_are_free(1);
        match ended {
            Ended::Exited(exit) => {
                self.own.node.exited(&entry.process, exit.as_ref());
                self.own.node.remove(key);
                // Who has got its pid since was taken for it.
                self.examine_at(Instant::now(), key.pid);
            }
            Ended::Replaced => {
                self.own.node.remove(key);
                self.examine_at(Instant::now(), key.pid);
            }
            Ended::Stopped => {
                // Told to, so something else is wanted of it.
                entry.process.set_state(WatchState::Starting);
                self.known.insert(key.pid, KnownProcess::Go(entry));
                self.examine_at(Instant::now(), key.pid);
            }
            Ended::Refused(reason, message) => {
                self.refuse(&mut entry, reason, message);
                self.known.insert(key.pid, KnownProcess::Go(entry));
            }
        }
    }

    /// Has as many processes examined as there are places, those first that have waited longest for one.
    fn places_are_free(&mut self, places: usize) {
        let waits = |entry: &GoProcess| matches!(entry.process.state(), WatchState::Refused { reason: LIMIT, .. });
        let waiting = self.known.values_mut().filter_map(|known| match known {
            KnownProcess::Go(entry) if entry.task.is_none() && waits(entry) => Some(entry),
            _ => None,
        });
        let mut waiting: Vec<&mut Box<GoProcess>> = waiting.collect();
        waiting.sort_by_key(|entry| entry.found);
        for entry in waiting.into_iter().take(places) {
            entry.retry = Some((Instant::now(), RETRY_FIRST));
        }
    }

    /// Judges all processes anew: what is chosen, or what is known of pods, has changed.
    fn judge_all(&mut self) {
        let mut again = Vec::new();
        for (pid, known) in &self.known {
            let KnownProcess::Go(entry) = known else { continue };
            if let Some(workload) = self.workload(entry) {
                entry.process.set_workload(workload);
            }
            let wanted = self.wanted(&entry.process);
            let min_goroutines = self.own.config.select.min_goroutines.unwrap_or(0);
            match (&entry.task, wanted) {
                (Some(running), Ok(config)) if running.config == config && running.min_goroutines == min_goroutines => {
                }
                (Some(running), _) => drop(running.stop.send_replace(true)),
                (None, Ok(_)) if !matches!(entry.process.state(), WatchState::Refused { .. }) => again.push(*pid),
                (None, Ok(_)) => {}
                (None, Err(why)) if matches!(entry.process.state(), WatchState::Unselected { .. }) => {
                    entry.process.set_state(WatchState::Unselected { why });
                }
                (None, Err(_)) => {}
            }
        }
        for pid in again {
            self.examine_at(Instant::now(), pid);
        }
    }

    /// Ends all tasks; returns how many did not in time.
    fn end(self) -> usize {
        let deadline = Instant::now() + END_WITHIN;
        let mut running: HashMap<ProcessKey, Running> = HashMap::new();
        for known in self.known.into_values() {
            if let KnownProcess::Go(entry) = known
                && let Some(task) = entry.task
            {
                task.stop.send_replace(true);
                running.insert(entry.process.key, task);
            }
        }
        while !running.is_empty() {
            match self.own.messages.1.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(Message::Ended(key, _)) => drop(running.remove(&key).map(|task| task.thread.join())),
                Ok(_) => {}
                Err(_) => break,
            }
        }
        running.len()
    }
}
