//! Watching one live process: attach, look at its goroutines at every interval, detach.
//!
//! This is wiring: what to do with what is seen is the session's business, how to see it is `probe`'s, `memory`'s and
//! `golang`'s. The target is never stopped.

mod aside;
mod commons;
mod error;
pub mod fate;
mod incidents;
pub mod launch;
mod observer;
mod probes;
pub mod recording;
pub mod replay;
mod rounds;
mod runtime;
mod sink;
mod unstopped;

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, MissedTickBehavior};

pub use commons::Commons;
pub use error::WatchError;

use crate::config::{Mode, WatchConfig};
use crate::discover::process::Process;
use crate::live::{Target, TargetError};
use crate::probe::{LoadError, Prober};
use crate::report::Report;
use crate::session::{EndReason, Session};
use observer::Observer;

/// How long the end of a watch waits for a look at what the target can reach.
const LAST_WAIT: Duration = Duration::from_secs(2);

/// What a watch is doing, for whoever shows it.
#[derive(Debug)]
pub enum Progress<'a> {
    /// The process is open and understood; nothing is attached to it yet.
    Opened(&'a Arc<Process>),
    /// The probes are attached and all goroutines known: from here on nothing is missed.
    Attached,
    /// All goroutines have been read.
    Looked(&'a Session, Arc<Report>),
}

/// How a watch ended.
#[derive(Debug)]
pub struct Outcome {
    /// What was seen.
    pub session: Session,
    /// Why the target could not be watched to the end; what was seen until then is in the session.
    pub cut_short: Option<WatchError>,
}

impl Outcome {
    /// Why the watch did not come to the end it was meant to have. Without a duration that is the target's own, once there was a
    /// look at it.
    pub fn failure(self, config: &WatchConfig) -> Option<WatchError> {
        let until_its_end = config.duration.is_zero() && self.session.latest().is_some();
        let exited = |error: &WatchError| matches!(error, WatchError::Target(TargetError::Exited { .. }));
        self.cut_short.filter(|error| !(until_its_end && exited(error)))
    }
}

/// Whether a watch is one of many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Company {
    /// Somebody sits before it.
    None,
    /// Nobody does, and it has to cost little.
    Others,
}

impl Company {
    /// Longest time between two transfers of events from the ring's reader to the session. Many events, another mode and the
    /// target's end are noticed at once.
    const fn takes_every(self) -> Duration {
        match self {
            Self::None => Duration::from_millis(100),
            Self::Others => Duration::from_secs(30),
        }
    }
}

/// Watches process `pid` until SIGINT or SIGTERM at the latest, and tells `progress` of it.
pub fn run(pid: u32, config: &WatchConfig, mut progress: impl FnMut(Progress<'_>)) -> Result<Outcome, WatchError> {
    runtime()?.block_on(async {
        // Before anything touches the target, so that a signal never finds it half attached.
        let mut interrupt = signal(SignalKind::interrupt()).map_err(WatchError::Runtime)?;
        let mut terminate = signal(SignalKind::terminate()).map_err(WatchError::Runtime)?;
        end_at_a_second_signal().map_err(WatchError::Runtime)?;
        let stop = async {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        };
        let target = Target::open(pid)?;
        progress(Progress::Opened(target.process()));
        let observer = Observer::start(target, config, &Commons::default(), Company::None)?;
        watch(observer, config, Company::None, stop, progress).await
    })
}

/// Has a second SIGINT or SIGTERM do what it does to other programs: a read of a target's memory can take for ever (its pages
/// may be of a file system that does not answer). The kernel removes the probes.
fn end_at_a_second_signal() -> std::io::Result<()> {
    use signal_hook::consts::{SIGINT, SIGTERM};
    let told = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register_conditional_default(signal, Arc::clone(&told))?;
        signal_hook::flag::register(signal, Arc::clone(&told))?;
    }
    Ok(())
}

/// Watches a target, among others that share `commons`, until `stop` is done at the latest, and tells `progress` of it. Having
/// been stopped it does not look once more.
pub fn among(
    target: Target,
    config: &WatchConfig,
    commons: &Commons,
    stop: impl Future<Output = ()>,
    progress: impl FnMut(Progress<'_>),
) -> Result<Outcome, WatchError> {
    let observer = Observer::start(target, config, commons, Company::Others)?;
    runtime()?.block_on(watch(observer, config, Company::Others, stop, progress))
}

/// Loads what watches with this configuration share.
pub fn prober(config: &WatchConfig) -> Result<Prober, LoadError> {
    Prober::load(&observer::options(config, Mode::PROBED.to_vec()))
}

fn runtime() -> Result<tokio::runtime::Runtime, WatchError> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(WatchError::Runtime)
}

async fn watch(
    mut observer: Observer,
    config: &WatchConfig,
    company: Company,
    stop: impl Future<Output = ()>,
    mut progress: impl FnMut(Progress<'_>),
) -> Result<Outcome, WatchError> {
    // The first look is the baseline that growth is measured against.
    match observer.census().and_then(|()| observer.follow_up(config, Duration::ZERO)) {
        Ok(report) => progress(Progress::Looked(observer.session(), Arc::new(report))),
        Err(error) => return cut_short(observer, error),
    }
    progress(Progress::Attached);

    let mut take = tokio::time::interval(company.takes_every());
    take.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut looks = tokio::time::interval_at(Instant::now() + config.interval, config.interval);
    // A look that takes long does not put off the next ones.
    looks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let end = Instant::now().checked_add(config.duration).filter(|_| !config.duration.is_zero());
    let elapsed = async {
        match end {
            Some(end) => tokio::time::sleep_until(end).await,
            None => std::future::pending().await,
        }
    };
    let exited = exit(observer.target_exit());
    let bell = observer.bell();
    tokio::pin!(elapsed, stop, exited);

    let reason = loop {
        let something = async {
            tokio::select! {
                _ = take.tick() => {}
                () = bell.notified() => {}
            }
        };
        tokio::select! {
            biased;
            () = &mut stop => break EndReason::Interrupted,
            () = &mut elapsed => break EndReason::Elapsed,
            () = &mut exited => break EndReason::TargetExited,
            _ = looks.tick() => {
                match observer.census().and_then(|()| observer.follow_up(config, Duration::ZERO)) {
                    Ok(report) => progress(Progress::Looked(observer.session(), Arc::new(report))),
                    Err(error) => return cut_short(observer, error),
                }
            }
            () = something => {
                let moved = observer.take_events()?;
                if observer.target_has_exited() {
                    break EndReason::TargetExited;
                }
                // What happened between two modes only a census can tell.
                if (moved | observer.follow_governor()?) && let Err(error) = observer.census() {
                    return cut_short(observer, error);
                }
            }
        }
    };
    if reason == EndReason::TargetExited {
        let pid = observer.pid();
        return cut_short(observer, TargetError::Exited { pid }.into());
    }
    let last_look = reason == EndReason::Elapsed || company == Company::None;
    if last_look && let Err(error) = observer.census().and_then(|()| observer.follow_up(config, LAST_WAIT)) {
        return cut_short(observer, error);
    }
    Ok(Outcome { session: observer.finish(reason)?, cut_short: None })
}

/// Waits for a process's end.
async fn exit(pidfd: std::io::Result<OwnedFd>) {
    let exited = async { crate::memory::pidfd::exited(pidfd?).await };
    if let Err(error) = exited.await {
        log::debug!("the target's end is looked for now and then: {error}");
        std::future::pending().await
    }
}

/// The target's end is no failure of the watch: what was seen until then is still worth reporting.
fn cut_short(observer: Observer, error: WatchError) -> Result<Outcome, WatchError> {
    let reason = match &error {
        WatchError::Target(TargetError::Exited { .. }) => EndReason::TargetExited,
        WatchError::Target(TargetError::Replaced { .. }) => EndReason::TargetReplaced,
        _ => return Err(error),
    };
    Ok(Outcome { session: observer.finish(reason)?, cut_short: Some(error) })
}
