//! `parkwarden profile`.

use std::io::Write as _;
use std::path::PathBuf;

use clap::{ArgGroup, Args};
use parkwarden::exit::Exit;
use parkwarden::export::profile::{self, Kind};
use parkwarden::live::Target;

use super::binary_output;
use super::which::{WHICH, Which};

/// Arguments of `profile`.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit status: 0 done; 1 parkwarden failed; 2 wrong usage; 4 the process cannot be looked at, or keeps no \
                        such profile. The file is what /debug/pprof of the program would give: `go tool pprof FILE`."
)]
#[command(group = ArgGroup::new("which").required(true).args(WHICH))]
pub struct ProfileArgs {
    /// Which profile.
    #[arg(value_enum)]
    pub kind: Kind,

    #[command(flatten)]
    pub which: Which,

    /// Write to FILE instead of stdout.
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

pub fn run(args: &ProfileArgs) -> anyhow::Result<Exit> {
    let mut target = Target::open(args.which.pid()?)?;
    // Before the file is made: a profile that there is not leaves none.
    let bytes = profile::take(&mut target, args.kind)?;
    let mut out = binary_output(args.output.as_deref())?;
    out.write_all(&bytes)?;
    out.flush()?;
    Ok(Exit::Done)
}
