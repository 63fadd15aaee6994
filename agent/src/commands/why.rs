//! `parkwarden why`.

use std::io::{self, Write as _};
use std::time::Duration;

use anyhow::Context as _;
use clap::{ArgGroup, Args, ValueEnum};
use parkwarden::exit::Exit;
use parkwarden::why;

use super::print_json;
use super::which::{WHICH, Which};

/// Arguments of `why`.
#[derive(Debug, Args)]
#[command(after_help = "Exit status: 0 done; 1 parkwarden failed; 2 wrong usage; 4 the process cannot be looked at.")]
#[command(group = ArgGroup::new("which").required(true).args(WHICH))]
pub struct WhyArgs {
    #[command(flatten)]
    pub which: Which,

    /// Tell of this goroutine alone: the incident it is in, and whom it waits for.
    #[arg(long, value_name = "ID")]
    pub goid: Option<u64>,

    /// Time between the two looks that tell who stands.
    #[arg(long = "for", value_name = "TIME", default_value = "1s")]
    pub duration: humantime::Duration,

    /// How to print it.
    #[arg(long, value_enum, default_value_t = WhyFormat::Text)]
    pub format: WhyFormat,
}

/// How to print incidents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum WhyFormat {
    /// For people.
    Text,
    /// For programs.
    Json,
    /// For Graphviz: `dot -Tsvg`.
    Dot,
}

pub fn run(args: &WhyArgs) -> anyhow::Result<Exit> {
    let pid = args.which.pid()?;
    let mut report = why::live(pid, Duration::from(args.duration))?;
    if let Some(goid) = args.goid {
        report = report.of_goroutine(goid).with_context(|| {
            format!(
                "goroutine {goid} of pid {pid} has run within {}, or there is none of that id: look again, or take the ids from \
                 `parkwarden snapshot --pid {pid} --format json`",
                args.duration
            )
        })?;
    }
    let mut out = io::stdout().lock();
    match args.format {
        WhyFormat::Text => write!(out, "{}", why::render(&report))?,
        WhyFormat::Json => print_json(&mut out, &report)?,
        WhyFormat::Dot => write!(out, "{}", why::render_dot(&report))?,
    }
    Ok(Exit::Done)
}
