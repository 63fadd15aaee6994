//! What parkwarden costs and how fast it is: `cargo xtask bench [SECTION ...]` runs the sections, each by itself, and writes
//! what they measured to BENCHMARKS.md. A section that was not asked for keeps what stands there.
//!
//! Machines are noisy, so what matters is measured as a ratio of things that ran side by side, or many times with the median
//! told. Nothing here passes or fails.

mod account;
mod budget;
mod cost;
mod detach;
mod document;
mod events;
mod idle;
mod measure;
mod prometheus;
mod prove;
mod recording;
mod runtime;
mod snapshot;
mod soak;
mod startup;

use std::process::ExitCode;

use anyhow::{Context as _, bail};
use document::{Document, Section};

/// A section: its name on the command line and in the document, and how it is measured.
type Bench = (&'static str, fn() -> anyhow::Result<Section>);

/// In the order of the document.
const SECTIONS: [Bench; 12] = [
    ("cost", cost::run),
    ("account", account::run),
    ("budget", budget::run),
    ("events", events::run),
    ("startup", startup::run),
    ("snapshot", snapshot::run),
    ("prove", prove::run),
    ("detach", detach::run),
    ("idle", idle::run),
    ("runtime", runtime::run),
    ("recording", recording::run),
    ("soak", soak::run),
];

/// Sections that are run only when they are asked for, because they take long.
const ON_REQUEST: [&str; 2] = ["recording", "soak"];

fn main() -> ExitCode {
    // cargo tells every benchmark that it is one.
    let asked: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    match run(&asked) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(asked: &[String]) -> anyhow::Result<()> {
    if let Some(unknown) = asked.iter().find(|name| SECTIONS.iter().all(|(known, _)| known != name)) {
        let names: Vec<_> = SECTIONS.iter().map(|(name, _)| *name).collect();
        bail!("there is no section {unknown}; there are: {}", names.join(", "));
    }
    let path = xtask::root().join("BENCHMARKS.md");
    let mut document = Document::read(&path, SECTIONS.map(|(name, _)| name))?;
    for (name, bench) in SECTIONS {
        let wanted =
            if asked.is_empty() { !ON_REQUEST.contains(&name) } else { asked.iter().any(|wanted| wanted == name) };
        if wanted {
            eprintln!("bench: {name}");
            document.put(name, &bench().with_context(|| format!("section {name}"))?);
            // At once: a later section that fails does not lose this one.
            document.write(&path)?;
        }
    }
    Ok(())
}
