//! How much of a report is printed as text, and in which colours.

use std::io::{self, IsTerminal as _};

use clap::{Args, ColorChoice};
use parkwarden::detect::Verdict;
use parkwarden::report::{Filter, Shown};

/// The arguments that say it. They change nothing of JSON, which has everything.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Text")]
pub struct ShowArgs {
    /// Tell every group in full, idle ones too, and what each probe did.
    #[arg(long)]
    pub details: bool,

    /// Rows of the table at most.
    #[arg(long, value_name = "N", default_value_t = Shown::default().rows)]
    pub top: usize,

    /// Only groups made, started or blocked in this package: its path, or the end of it.
    #[arg(long, value_name = "PATH")]
    pub package: Option<String>,

    /// Only groups whose wait reason has this in it, such as `chan send`.
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,

    /// Only groups with this verdict, or a worse one.
    #[arg(long, value_name = "VERDICT", value_parser = verdict)]
    pub verdict: Option<Verdict>,

    /// Only groups with so many goroutines at least.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub min_count: u64,

    /// Colours: by default on a terminal, unless NO_COLOR is set.
    #[arg(long, value_name = "WHEN", default_value_t = ColorChoice::Auto)]
    pub color: ColorChoice,
}

fn verdict(text: &str) -> Result<Verdict, String> {
    text.parse().map_err(|_| "it is idle, stuck, likely or proven".to_owned())
}

impl ShowArgs {
    /// For a report that is printed once.
    pub fn shown(&self) -> Shown {
        let default = Shown::default();
        Shown {
            rows: if self.details { usize::MAX } else { self.top },
            details: if self.details { usize::MAX } else { default.details },
            frames: default.frames,
            all: self.details,
            filter: Filter {
                package: self.package.clone(),
                reason: self.reason.clone(),
                verdict: self.verdict,
                min_count: self.min_count,
            },
            color: has_colors(self.color),
            width: columns(),
        }
    }
}

/// Whether what is printed has colours.
pub fn has_colors(choice: ColorChoice) -> bool {
    match choice {
        ColorChoice::Always => true,
        ColorChoice::Never => false,
        // https://no-color.org: any value but an empty one.
        ColorChoice::Auto => {
            io::stdout().is_terminal()
                && std::env::var_os("NO_COLOR").is_none_or(|set| set.is_empty())
                && std::env::var_os("TERM").is_none_or(|terminal| terminal != "dumb")
        }
    }
}

/// Columns of the terminal that is written to.
fn columns() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(io::stdout()).ok()?;
    (size.ws_col > 0).then_some(size.ws_col.into())
}
