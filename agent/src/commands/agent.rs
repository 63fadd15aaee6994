//! `parkwarden agent`. Its options are the settings of its configuration file.

use std::io::{self, Write as _};
use std::path::PathBuf;

use clap::Args;
use parkwarden::agent;
use parkwarden::config::BpfLog;
use parkwarden::config::node::NodeConfig;
use parkwarden::config::settings::Settings;
use parkwarden::exit::Exit;

/// Arguments of `agent`.
#[derive(Debug, Args)]
#[command(
    after_help = "SIGHUP reads the configuration file again; a wrong one leaves the old in force. SIGTERM lets go of every \
                        process and ends. --print-config shows the defaults.\n\nExit status: 0 told to end; 1 parkwarden \
                        failed; 2 wrong usage."
)]
pub struct AgentArgs {
    /// The configuration, in TOML; each key is also an option here, which comes first.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Print the configuration that these arguments make, as a file that says all of it, what is not set as comments, and exit.
    #[arg(long)]
    pub print_config: bool,

    #[command(flatten)]
    pub settings: Settings,
}

pub fn run(args: &AgentArgs, bpf_log: BpfLog) -> anyhow::Result<Exit> {
    let file = args.config.as_deref();
    if args.print_config {
        write!(io::stdout().lock(), "{}", NodeConfig::load(&args.settings, file)?.to_toml())?;
        return Ok(Exit::Done);
    }
    let left = agent::run(&args.settings, file, bpf_log)?;
    super::say_left(left);
    Ok(Exit::Done)
}
