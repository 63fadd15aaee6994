//! `parkwarden doctor`.

use std::io::{self, Write as _};

use clap::Args;
use parkwarden::doctor;
use parkwarden::exit::Exit;

use super::{Format, print_json};

/// Arguments of `doctor`.
#[derive(Debug, Args)]
#[command(after_help = "Exit status: 0 `watch` can work here; 1 it cannot.")]
pub struct DoctorArgs {
    /// How to print the checks.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,
}

pub fn run(args: &DoctorArgs) -> anyhow::Result<Exit> {
    let report = doctor::run(&doctor::LiveHost);
    let mut out = io::stdout().lock();
    match args.format {
        Format::Text => write!(out, "{}", doctor::render(&report))?,
        Format::Json => print_json(&mut out, &report)?,
    }
    Ok(if report.watch_possible { Exit::Done } else { Exit::Failed })
}
