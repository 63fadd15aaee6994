//! `watch -- COMMAND`: a program that is started, and watched from its first goroutine to its end.
//!
//! It is held before its first instruction until the probes are attached, so that they see all that its runtime does. What is in its
//! memory is believed once that looks as its binary says.

use std::io::{self, IsTerminal as _};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

use super::observer::Observer;
use super::{Commons, Company, Outcome, Progress, WatchError, end_at_a_second_signal, runtime, watch};
use crate::config::WatchConfig;
use crate::live::{Target, TargetError};
use crate::memory::launch::Launched;

/// How long a program may take until its runtime has begun, and how often it is looked whether it has.
const BEGINS_WITHIN: Duration = Duration::from_secs(10);
const LOOKS_EVERY: Duration = Duration::from_micros(500);

/// Starts a command and watches it to its end, which is also told. The first SIGINT or SIGTERM is for the command.
pub fn run(
    command: Command,
    config: &WatchConfig,
    mut progress: impl FnMut(Progress<'_>),
) -> Result<(Outcome, ExitStatus), WatchError> {
    runtime()?.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt()).map_err(WatchError::Runtime)?;
        let mut terminate = signal(SignalKind::terminate()).map_err(WatchError::Runtime)?;
        end_at_a_second_signal().map_err(WatchError::Runtime)?;
        let program = command.get_program().to_string_lossy().into_owned();
        let failed = |source| WatchError::Launch { program: program.clone(), source };
        let mut launched = Launched::start(command).map_err(failed)?;
        let pid = launched.pid();
        let (process, binary) = Target::parts(pid)?;
        let target = Target::unchecked(process, binary)?;
        progress(Progress::Opened(target.process()));
        let mut observer = Observer::start(target, config, &Commons::default(), Company::None)?;
        launched.let_go().map_err(failed)?;
        let handed_on = async {
            tokio::select! {
                // A terminal sends it to both.
                _ = interrupt.recv() => if !io::stdin().is_terminal() { send(pid, Signal::SIGINT) },
                _ = terminate.recv() => send(pid, Signal::SIGTERM),
            }
            std::future::pending().await
        };
        begun(&mut observer).await?;
        let outcome = watch(observer, config, Company::None, handed_on, progress).await?;
        // It may have executed another program, or be watched no more: it is waited for all the same.
        let status = launched.wait().map_err(failed)?;
        Ok((outcome, status))
    })
}

/// Waits until a program's runtime has begun.
async fn begun(observer: &mut Observer) -> Result<(), WatchError> {
    let deadline = Instant::now() + BEGINS_WITHIN;
    while !observer.has_begun()? {
        if Instant::now() >= deadline {
            return Err(TargetError::Layout {
                pid: observer.pid(),
                reason: format!("its runtime has not begun within {BEGINS_WITHIN:?}"),
            }
            .into());
        }
        tokio::time::sleep(LOOKS_EVERY).await;
    }
    Ok(())
}

/// Sends the command a signal. It is not waited for yet, so that its pid is nobody else's.
fn send(pid: u32, signal: Signal) {
    // One that has ended needs none.
    let _ = kill(Pid::from_raw(pid.cast_signed()), signal);
}
