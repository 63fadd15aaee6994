//! `parkwarden top`: the Go processes of the host on a terminal, live. And `watch` on a terminal, which is the page of one process.
//!
//! It is the node agent's supervisor with a view over what that knows. `model` is what there is to show, `view` what of it is on
//! the screen and what keys make of that, `draw` draws it: none of them knows a terminal or a clock. Deliberately absent: a second
//! way to find or to watch processes, and anything that a program could want (`ps`, `watch --format json`, the agent).

mod column;
mod draw;
mod model;
mod save;
pub mod terminal;
#[cfg(test)]
mod tests;
mod view;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;
use ratatui::crossterm::event::{Event, KeyEventKind};
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::agent;
use crate::config::node::NodeConfig;
use crate::config::settings::{Pattern, SelectSettings};
use crate::config::{ProveConfig, WatchConfig};
use crate::discover::describe::Description;
use crate::discover::process::Process;
use crate::discover::workload::Workload;
use crate::exit::chain;
use crate::kube::{Events, Pods};
use crate::live::{Target, TargetError};
use crate::node::supervisor::{Message, Supervisor};
use crate::node::{Node, ProcessKey, WatchState};
use crate::probe::LoadError;
use crate::prove;
use crate::report::{Filter, Report};
use crate::watch::Commons;
use crate::why;

pub use column::Column;
pub use draw::{BELOW_HELP, COLUMNS_HELP};
pub use terminal::is_there;

use model::{Model, Shown};
use terminal::{Screen, Stderr};
use view::{Action, View};

/// Longest time until what is new is on the screen, and until a signal is followed.
const TICK: Duration = Duration::from_millis(250);

/// How long two looks are apart that tell who waits for whom; as `why` has it.
const WHY_APART: Duration = Duration::from_secs(1);

/// Why there is no view.
#[derive(Debug, thiserror::Error)]
pub enum TopError {
    /// There is no terminal.
    #[error(
        "there is no terminal to show it on; for programs there are `parkwarden ps --format json`, `parkwarden watch --format \
         json` and `parkwarden agent`"
    )]
    NoTerminal,
    /// The terminal does not do as it should.
    #[error("the terminal cannot be used")]
    Terminal(#[source] io::Error),
    /// The BPF programs cannot be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The host gave no threads, pipes or signal handlers.
    #[error("cannot set up the view")]
    Setup(#[source] io::Error),
    /// A bug.
    #[error("parkwarden panicked; please report this")]
    Panicked,
}

/// What is shown, and how.
#[derive(Clone, Debug)]
pub struct TopConfig {
    /// How each process is watched.
    pub watch: WatchConfig,
    /// Patterns of the paths of executables that are watched; of none, all.
    pub executables: Vec<Pattern>,
    /// What processes are ordered by at first.
    pub sort: Column,
    /// What their names have to have in them at first.
    pub filter: String,
    /// Which groups are shown of each.
    pub wanted: Filter,
    /// Whether there are colours.
    pub color: bool,
}

/// Shows the processes of the host until told to end. Returns how many could not be let go of in time.
pub fn run(config: TopConfig) -> Result<usize, TopError> {
    if !is_there() {
        return Err(TopError::NoTerminal);
    }
    let ends = Arc::new(AtomicBool::new(false));
    // SIGHUP ends it at once: there is no terminal to give back.
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&ends)).map_err(TopError::Setup)?;
    }
    let stderr = Stderr::take().map_err(TopError::Setup)?;
    let (node, (tell, told)) = (Arc::new(Node::default()), channel());
    let select = SelectSettings { executables: Some(config.executables), ..SelectSettings::default() };
    let of = NodeConfig { watch: config.watch, select, ..NodeConfig::default() };
    let supervisor = supervisor(of, Arc::clone(&node), (tell.clone(), told))?;
    let view = View::new(config.sort, config.filter, config.wanted, config.color);
    let shown = show(view, stderr.as_ref(), |model| {
        model.follow(&node);
        !ends.load(Ordering::Acquire) && !supervisor.is_finished()
    });
    // It is gone if it has failed.
    let _ = tell.send(Message::Stop);
    let left = supervisor.join().map_err(|_| TopError::Panicked)??;
    shown.map(|()| left)
}

/// The supervisor, on a thread of its own: loading programs takes its time, and the view need not wait for it.
fn supervisor(
    config: NodeConfig,
    node: Arc<Node>,
    messages: (Sender<Message>, Receiver<Message>),
) -> Result<JoinHandle<Result<usize, TopError>>, TopError> {
    let supervise = move || {
        let runtime = agent::runtime("top").map_err(TopError::Setup)?;
        let prober = agent::prober(&config)?;
        let told = agent::sees_host() && agent::lifecycles(messages.0.clone(), agent::missing(&config));
        let supervisor = Supervisor {
            node,
            config,
            messages,
            commons: Commons::new(prober),
            runtime: runtime.handle().clone(),
            recordings: None,
            events: Events::default(),
            pods: Pods::default(),
            oom_victims: None,
            workloads: Box::new(|process| Some(Workload::local(&process.described.identity))),
            told,
        };
        let left = supervisor.run();
        runtime.shutdown_background();
        Ok(left)
    };
    std::thread::Builder::new().name("supervisor".to_owned()).spawn(supervise).map_err(TopError::Setup)
}

/// Shows a view for as long as `follow`, which brings the model up to date, says so and nobody quits.
fn show(mut view: View, stderr: Option<&Stderr>, mut follow: impl FnMut(&mut Model) -> bool) -> Result<(), TopError> {
    let mut screen = Screen::open().map_err(TopError::Terminal)?;
    let mut model = Model::default();
    let mut asides = Asides::default();
    while follow(&mut model) {
        model.logged = stderr.and_then(Stderr::last);
        view.follow(&model);
        if let Some((title, text)) = asides.take() {
            view.show(title, text);
        }
        screen.terminal.draw(|frame| draw::draw(frame, &view, &model)).map_err(TopError::Terminal)?;
        view.height = screen.terminal.size().map_or(view.height, |size| draw::page_height(size.height));
        // All that is typed or pasted at once is drawn once.
        let mut event = terminal::event(TICK).map_err(TopError::Terminal)?;
        while let Some(happened) = event {
            if let Event::Key(key) = happened
                && key.kind != KeyEventKind::Release
            {
                let action = view.update(key, &model);
                if action == Action::Quit {
                    return Ok(());
                }
                asides.act(action, &mut view, &model);
            }
            event = terminal::event(Duration::ZERO).map_err(TopError::Terminal)?;
        }
    }
    Ok(())
}

/// What takes its time, on threads of its own, one after the other: what it was, and what came of it.
#[derive(Debug, Default)]
struct Asides {
    under_way: Option<Receiver<(String, String)>>,
}

impl Asides {
    fn take(&mut self) -> Option<(String, String)> {
        match self.under_way.as_ref()?.try_recv() {
            Err(std::sync::mpsc::TryRecvError::Empty) => None,
            done => {
                self.under_way = None;
                Some(done.unwrap_or_else(|_| ("It came to nothing".to_owned(), TopError::Panicked.to_string())))
            }
        }
    }

    fn act(&mut self, action: Action, view: &mut View, model: &Model) {
        match action {
            Action::None | Action::Quit => {}
            Action::Save(key) => {
                let Some(report) = view::report(key, model) else { return };
                view.said = Some(match save::save(Path::new("."), report) {
                    Ok(name) => format!("saved as {}", name.display()),
                    Err(error) => format!("the report cannot be saved: {error}"),
                });
            }
            Action::Prove(key) => {
                self.begin(view, format!("What can never run again in pid {}", key.pid), move || {
                    prove::on(&open(key)?, &ProveConfig::default(), None).map(|report| prove::render(&report))
                });
            }
            Action::Why(key) => {
                self.begin(view, format!("Who waits for whom in pid {}", key.pid), move || {
                    open(key)?;
                    why::live(key.pid, WHY_APART).map(|report| why::render(&report))
                });
            }
        }
    }

    fn begin(
        &mut self,
        view: &mut View,
        title: String,
        work: impl FnOnce() -> Result<String, prove::ProveError> + Send + 'static,
    ) {
        if self.under_way.is_some() {
            view.said = Some("one thing at a time: the one before is still under way".to_owned());
            return;
        }
        let (sender, receiver) = channel();
        let run = move || {
            // A view that has ended wants nothing any more.
            let _ = sender.send((title, work().unwrap_or_else(|error| chain(&error))));
        };
        match std::thread::Builder::new().name("aside".to_owned()).spawn(run) {
            Ok(_) => self.under_way = Some(receiver),
            Err(error) => view.said = Some(format!("there is no thread for it: {error}")),
        }
    }
}

/// Opens a process, if it is the one that was meant.
fn open(key: ProcessKey) -> Result<Target, TargetError> {
    let target = Target::open(key.pid)?;
    if target.process().start_ticks() == key.start_ticks {
        Ok(target)
    } else {
        Err(TargetError::Exited { pid: key.pid })
    }
}

/// The view of one process, on a thread of its own, beside whoever watches it. Dropping it gives the terminal back.
#[derive(Debug)]
pub struct OneView {
    latest: Arc<Mutex<Option<Arc<Report>>>>,
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<(), TopError>>>,
}

impl OneView {
    /// Shows what there will be of a process. Whoever quits is taken to have pressed Ctrl-C, which ends the watch.
    pub fn open(process: &Process, wanted: Filter, color: bool) -> Result<Self, TopError> {
        let (latest, ends) = (Arc::new(Mutex::new(None)), Arc::new(AtomicBool::new(false)));
        for signal in [SIGINT, SIGTERM] {
            signal_hook::flag::register(signal, Arc::clone(&ends)).map_err(TopError::Setup)?;
        }
        let stderr = Stderr::take().map_err(TopError::Setup)?;
        let key = ProcessKey { pid: process.pid(), start_ticks: process.start_ticks() };
        let path = process.exe_path().display().to_string();
        let name = path.rsplit('/').next().unwrap_or(&path).to_owned();
        let described = Description::of(process).unwrap_or_default();
        let (told, until) = (Arc::clone(&latest), Arc::clone(&ends));
        let mut first = Some(Shown::new(name, described, WatchState::Starting));
        let run = move || {
            let shown = show(View::of_one(key, wanted, color), stderr.as_ref(), |model| {
                model.processes.extend(first.take().map(|shown| (key, shown)));
                if let (Some(shown), Some(report)) = (model.processes.get_mut(&key), told.lock().clone()) {
                    shown.looked(report);
                }
                !until.load(Ordering::Acquire)
            });
            if shown.is_ok() && !until.load(Ordering::Acquire) {
                // It has a handler, so that it fails for no reason.
                let _ = signal_hook::low_level::raise(SIGINT);
            }
            shown
        };
        let thread = std::thread::Builder::new().name("view".to_owned()).spawn(run).map_err(TopError::Setup)?;
        Ok(Self { latest, ends, thread: Some(thread) })
    }

    /// It has been looked at.
    pub fn looked(&self, report: &Arc<Report>) {
        *self.latest.lock() = Some(Arc::clone(report));
    }

    /// Ends it, and gives the terminal back.
    pub fn close(mut self) -> Result<(), TopError> {
        self.end()
    }

    fn end(&mut self) -> Result<(), TopError> {
        self.ends.store(true, Ordering::Release);
        let Some(thread) = self.thread.take() else { return Ok(()) };
        thread.join().map_err(|_| TopError::Panicked)?
    }
}

impl Drop for OneView {
    fn drop(&mut self) {
        // Somebody else's failure is what is told.
        let _ = self.end();
    }
}
