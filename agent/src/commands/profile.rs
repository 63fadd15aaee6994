//! `parkwarden profile`.

use std::io::Write as _;
use std::path::PathBuf;

use clap::Args;
use parkwarden::exit::Exit;
use parkwarden::export::profile::{self, Kind};
use parkwarden::live::Target;

use super::output;

/// Arguments of `profile`.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit status: 0 done; 1 parkwarden failed; 2 wrong usage; 4 the process cannot be looked at, or keeps no \
                        such profile. The file is what /debug/pprof of the program would give: `go tool pprof FILE`."
)]
pub struct ProfileArgs {
    /// Which profile.
    #[arg(value_enum)]
    pub kind: Kind,

    /// The process to take it of. Needs root, or CAP_SYS_PTRACE.
    #[arg(long, value_name = "PID")]
    pub pid: u32,

    /// Write to FILE instead of stdout.
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

pub fn run(args: &ProfileArgs) -> anyhow::Result<Exit> {
    let mut target = Target::open(args.pid)?;
    // Before the file is made: a profile that there is not leaves none.
    let bytes = profile::take(&mut target, args.kind)?;
    let mut out = output(args.output.as_deref())?;
    out.write_all(&bytes)?;
    out.flush()?;
    Ok(Exit::Done)
}
