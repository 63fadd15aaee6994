//! `parkwarden ps`.

use std::io::{self, Write as _};

use anyhow::Context as _;
use clap::Args;
use parkwarden::exit::Exit;
use parkwarden::ps::{self, Sort};

use super::{Format, print_json};

/// Arguments of `ps`.
#[derive(Debug, Args)]
#[command(after_help = "Exit status: 0 done, whatever was found; 1 parkwarden failed; 2 wrong usage.")]
pub struct PsArgs {
    /// How to print the list.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,

    /// What to order it by: the largest first.
    #[arg(long, value_enum, default_value_t = Sort::default())]
    pub sort: Sort,
}

pub fn run(args: &PsArgs) -> anyhow::Result<Exit> {
    let mut listing = ps::list().context("the processes of this host cannot be listed")?;
    listing.sort(args.sort);
    let mut out = io::stdout().lock();
    match args.format {
        Format::Text => write!(out, "{}", ps::render(&listing))?,
        Format::Json => print_json(&mut out, &listing)?,
    }
    Ok(Exit::Done)
}
