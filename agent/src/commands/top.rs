//! `parkwarden top`.

use std::time::Duration;

use clap::{Args, ColorChoice};
use parkwarden::config::settings::Pattern;
use parkwarden::config::{BpfLog, ModeChoice, Percent, WatchConfig};
use parkwarden::exit::Exit;
use parkwarden::report::Filter;
use parkwarden::top::{self, BELOW_HELP, COLUMNS_HELP, Column, TopConfig};

use super::MIN_INTERVAL;
use super::show::has_colors;

/// Time between two looks at each process.
const INTERVAL: Duration = Duration::from_secs(2);

/// Arguments of `top`.
#[derive(Debug, Args)]
#[command(after_help = BELOW_HELP)]
pub struct TopArgs {
    /// Report goroutines parked longer than this.
    #[arg(long, value_name = "TIME", default_value_t = WatchConfig::default().threshold.into())]
    pub threshold: humantime::Duration,

    /// Time between two looks at all goroutines of a process.
    #[arg(long, value_name = "TIME", default_value_t = INTERVAL.into())]
    pub interval: humantime::Duration,

    /// How to watch; see `watch --help`. Where there can be no probes, auto does without.
    #[arg(long, value_enum, default_value_t = WatchConfig::default().mode)]
    pub mode: ModeChoice,

    /// With --mode auto: what probes may cost, of each process's CPU time (never more than 5% of a core).
    #[arg(long, value_name = "PERCENT", default_value_t = WatchConfig::default().budget)]
    pub budget: Percent,

    /// What to order processes by at first.
    #[arg(long, value_enum, default_value_t = Column::default(), help = COLUMNS_HELP)]
    pub sort: Column,

    /// Watch only processes whose executable's path matches one of these patterns; the others are listed. By default all.
    #[arg(long = "exe", value_name = "PATTERN")]
    pub executables: Vec<Pattern>,

    /// Show only processes with this in their name, command line or user, or with this pid.
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub filter: String,

    /// Colours: by default on a terminal, unless NO_COLOR is set.
    #[arg(long, value_name = "WHEN", default_value_t = ColorChoice::Auto)]
    pub color: ColorChoice,
}

impl TopArgs {
    fn config(&self, bpf_log: BpfLog) -> TopConfig {
        TopConfig {
            watch: WatchConfig {
                threshold: self.threshold.into(),
                interval: Duration::from(self.interval).max(MIN_INTERVAL),
                duration: Duration::ZERO,
                mode: self.mode,
                budget: self.budget,
                bpf_log,
                ..WatchConfig::default()
            },
            executables: self.executables.clone(),
            sort: self.sort,
            filter: self.filter.clone(),
            wanted: Filter::default(),
            color: has_colors(self.color),
        }
    }
}

pub fn run(args: &TopArgs, bpf_log: BpfLog) -> anyhow::Result<Exit> {
    let left = top::run(args.config(bpf_log))?;
    super::say_left(left);
    Ok(Exit::Done)
}
