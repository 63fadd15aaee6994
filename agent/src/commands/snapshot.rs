//! `parkwarden snapshot`.

use std::io::Write as _;
use std::path::PathBuf;

use clap::{ArgGroup, Args, ValueEnum};
use parkwarden::exit::Exit;
use parkwarden::export::pprof;
use parkwarden::live::Target;
use parkwarden::snapshot::{self, GroupBy, Look, Snapshot, diff};

use super::which::{WHICH, Which};
use super::{binary_output, output, print_json};

/// Arguments of `snapshot`.
#[derive(Debug, Args)]
#[command(after_help = "Exit status: 0 done; 1 parkwarden failed; 2 wrong usage; 4 the process cannot be looked at.")]
#[command(group = ArgGroup::new("which").required(true).args(WHICH))]
pub struct SnapshotArgs {
    #[command(flatten)]
    pub which: Which,

    /// How to print it: pprof is a gzip'ed profile.proto that `go tool pprof` opens.
    #[arg(long, value_enum, default_value_t = SnapshotFormat::Text)]
    pub format: SnapshotFormat,

    /// What goroutines of one group have in common: the go statement that made them, the stack they block in, or both.
    #[arg(long, value_enum, default_value_t = Grouping::Both)]
    pub group_by: Grouping,

    /// Compare with an earlier snapshot (--format json): what grew, and what went away.
    #[arg(long, value_name = "FILE", conflicts_with = "group_by")]
    pub diff: Option<PathBuf>,

    /// Write to FILE instead of stdout.
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// How to print a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SnapshotFormat {
    /// For people.
    Text,
    /// For programs.
    Json,
    /// For `go tool pprof` and what reads its format.
    Pprof,
}

/// How `snapshot` groups goroutines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Grouping {
    /// By the go statement.
    Created,
    /// By the blocking stack and the wait reason.
    Blocked,
    /// By both.
    Both,
}

impl From<Grouping> for GroupBy {
    fn from(grouping: Grouping) -> Self {
        match grouping {
            Grouping::Created => Self::Created,
            Grouping::Blocked => Self::Blocked,
            Grouping::Both => Self::Both,
        }
    }
}

pub fn run(args: &SnapshotArgs) -> anyhow::Result<Exit> {
    let mut out = match args.format {
        SnapshotFormat::Pprof => binary_output(args.output.as_deref())?,
        SnapshotFormat::Text | SnapshotFormat::Json => output(args.output.as_deref())?,
    };
    let earlier = args.diff.as_deref().map(diff::read).transpose()?;
    let mut target = Target::open(args.which.pid()?)?;
    let look = Look::at(&mut target)?;
    let snapshot = || Snapshot::of(&look, args.group_by.into());
    match (args.format, earlier) {
        (SnapshotFormat::Text, None) => write!(out, "{}", snapshot::render(&snapshot()))?,
        (SnapshotFormat::Text, Some(earlier)) => write!(out, "{}", diff::render(&diff::diff(&earlier, &snapshot())))?,
        (SnapshotFormat::Json, None) => print_json(&mut out, &snapshot())?,
        (SnapshotFormat::Json, Some(earlier)) => print_json(&mut out, &diff::diff(&earlier, &snapshot()))?,
        (SnapshotFormat::Pprof, None) => out.write_all(&pprof::encode(&look, args.group_by.into())?)?,
        (SnapshotFormat::Pprof, Some(_)) => {
            anyhow::bail!("a comparison is text or json; `go tool pprof -base` compares profiles")
        }
    }
    out.flush()?;
    Ok(Exit::Done)
}
