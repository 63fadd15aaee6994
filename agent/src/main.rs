//! The `parkwarden` command: parses the command line, runs what it asks for, and says how that ended.

mod commands;

use std::io;
use std::process::ExitCode;

use clap::Parser as _;
use parkwarden::discover::confinement;
use parkwarden::exit::{Exit, chain};
use parkwarden::export::profile::ProfileError;
use parkwarden::live::TargetError;
use parkwarden::memory::stop::StopError;
use parkwarden::prove::ProveError;
use parkwarden::watch::WatchError;

use commands::which::WhichError;
use commands::{Cli, Command};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let level = match cli.verbose {
        // What leaks is on the screen.
        0 if matches!(cli.command, Command::Top(_)) => "warn,kube_client=off,parkwarden::leaks=off",
        // kube tells of each try of what parkwarden tells of once.
        0 => "warn,kube_client=off",
        1 => "parkwarden=info,warn,kube_client=off",
        2 => "parkwarden=debug,info",
        _ => "parkwarden=trace,debug",
    };
    env_logger::Builder::from_env(env_logger::Env::new().filter_or("PARKWARDEN_LOG", level)).init();
    match cli.run() {
        Ok(exit) => exit.into(),
        Err(error) if is_broken_pipe(&error) => Exit::Done.into(),
        Err(error) => {
            let confined = is_denied(&error).then(|| confinement::sentence(cli.command.pid())).flatten();
            let confined = confined.map_or_else(String::new, |sentence| format!("; {sentence}"));
            eprintln!("parkwarden: {}{confined}", chain(error.as_ref()));
            exit_of(&error).into()
        }
    }
}

fn exit_of(error: &anyhow::Error) -> Exit {
    match error.downcast_ref::<WatchError>() {
        Some(error) if error.is_about_the_target() => Exit::Unwatchable,
        None if error.is::<WhichError>() => match error.downcast_ref() {
            Some(WhichError::Several { .. }) => Exit::Usage,
            _ => Exit::Unwatchable,
        },
        None if error.is::<TargetError>() => Exit::Unwatchable,
        None if matches!(error.downcast_ref(), Some(ProfileError::Target(_) | ProfileError::None(_))) => {
            Exit::Unwatchable
        }
        None if error.downcast_ref::<ProveError>().is_some_and(ProveError::is_about_the_target) => Exit::Unwatchable,
        _ => Exit::Failed,
    }
}

/// Whether the kernel refused something for which a security module can be why.
fn is_denied(error: &anyhow::Error) -> bool {
    match (error.downcast_ref::<WatchError>(), error.downcast_ref::<ProveError>()) {
        (Some(error), _) => error.is_denied(),
        (_, Some(ProveError::Target(error))) => error.is_denied(),
        (_, Some(ProveError::Stop { source, .. })) => matches!(source, StopError::Denied),
        _ if let Some(ProfileError::Target(error)) = error.downcast_ref() => error.is_denied(),
        _ => error.downcast_ref::<TargetError>().is_some_and(TargetError::is_denied),
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
            || cause
                .downcast_ref::<serde_json::Error>()
                .is_some_and(|e| e.io_error_kind() == Some(io::ErrorKind::BrokenPipe))
    })
}
