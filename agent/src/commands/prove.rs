//! `parkwarden prove`.

use std::io::{self, Write as _};
use std::path::PathBuf;

use clap::{ArgGroup, Args};
use parkwarden::config::ProveConfig;
use parkwarden::exit::Exit;
use parkwarden::prove;

use super::which::{WHICH, Which};
use super::{EXIT_HELP, Format, print_json};

/// Arguments of `prove`.
#[derive(Debug, Args)]
#[command(after_help = EXIT_HELP)]
#[command(group = ArgGroup::new("which").required(true).args(WHICH).arg("image"))]
pub struct ProveArgs {
    #[command(flatten)]
    pub which: Which,

    /// Longest time the process may stand still; if copying its memory would take longer it is left alone.
    #[arg(long, value_name = "TIME", default_value_t = ProveConfig::default().max_pause.into())]
    pub max_pause: humantime::Duration,

    /// Memory that parkwarden may take for it, in MiB; a process whose copy would take more is left alone.
    #[arg(long, value_name = "MIB", default_value_t = ProveConfig::default().memory_mib,
          value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    pub prove_memory_mib: u32,

    /// Copy the heap while the process runs, and in the pause only what it has written since. It takes a kernel with
    /// CONFIG_MEM_SOFT_DIRTY (Debian's and Ubuntu's for x86-64 have it), and costs the process a page fault for each page that it
    /// writes the first time after. Not while somebody else tracks that, as CRIU does.
    #[arg(long, conflicts_with = "image")]
    pub track_writes: bool,

    /// Save what was copied to FILE, for --image. It holds the program's memory, secrets included.
    #[arg(long, value_name = "FILE", conflicts_with = "image")]
    pub save_image: Option<PathBuf>,

    /// Examine a file written by --save-image, without root and without the process.
    #[arg(long, value_name = "FILE")]
    pub image: Option<PathBuf>,

    /// How to print the proof.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,

    /// Exit with status 3 if a leak is proven.
    #[arg(long)]
    pub fail_on_leak: bool,
}

pub fn run(args: &ProveArgs) -> anyhow::Result<Exit> {
    let report = match &args.image {
        Some(path) => prove::from_image(path)?,
        None => prove::live(
            args.which.pid()?,
            &ProveConfig {
                max_pause: args.max_pause.into(),
                memory_mib: args.prove_memory_mib,
                track_writes: args.track_writes,
            },
            args.save_image.as_deref(),
        )?,
    };
    let mut out = io::stdout().lock();
    match args.format {
        Format::Text => write!(out, "{}", prove::render(&report))?,
        Format::Json => print_json(&mut out, &report)?,
    }
    Ok(if args.fail_on_leak && report.goroutines.proven > 0 { Exit::Leak } else { Exit::Done })
}
