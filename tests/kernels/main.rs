//! parkwarden on other kernels and on arm64, booted with QEMU: `cargo xtask test --kernels` runs this.
//!
//! A machine is a kernel and an archive of files: parkwarden as one static file, Go programs, and `tests/go/guest`, which is
//! its first process, does what it is told and says what came of it. What has to come of it is decided here. Time is what
//! an emulated machine has in its own way, so nothing here measures.

mod archive;
mod machine;
mod stories;
mod table;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use parkwarden_tests::{BuildFlags, fixture};
use xtask::command::say;
use xtask::dist::{self, Target};
use xtask::kernels::{self, KERNELS, Kernel};
use xtask::toolchain::NEWEST;

use crate::archive::Archive;
use crate::machine::{Machine, Outcome};
use crate::stories::{Program, Step, Story, stories};
use crate::table::{Cell, Row};

fn main() -> ExitCode {
    let (flags, words): (Vec<String>, Vec<String>) = std::env::args().skip(1).partition(|word| word.starts_with("--"));
    let quick = flags.iter().any(|flag| flag == "--quick");
    let pattern = words.join(",");
    let chosen: Vec<&Kernel> = KERNELS.iter().filter(|kernel| is_meant(kernel.name, &pattern)).collect();
    if chosen.is_empty() {
        say(format_args!("no kernel is called {pattern}; there are {}", KERNELS.map(|kernel| kernel.name).join(", ")));
        return ExitCode::FAILURE;
    }
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&interrupted)).expect("handled");
    }
    let targets: BTreeSet<Target> = chosen.iter().map(|kernel| kernel.target).collect();
    for target in targets {
        let built = if quick { dist::build_quickly(target) } else { dist::build(target) };
        built.unwrap_or_else(|error| panic!("{error:#}"));
    }
    // Before some are tried at the same time. What cannot be had is told where it is missed.
    for kernel in &chosen {
        let _ = (kernel.fetch(), kernels::qemu(kernel.target));
    }
    let rows = all_tried(&chosen, quick, &|| interrupted.load(Ordering::Relaxed));
    if interrupted.load(Ordering::Relaxed) {
        return ExitCode::FAILURE;
    }
    let failed = rows.iter().filter(|row| row.failed()).count();
    if chosen.len() == KERNELS.len() && !quick {
        table::publish(&rows).unwrap_or_else(|error| panic!("{error:#}"));
    }
    let told = format!("{}\nkernels: {} passed, {failed} failed", table::render(&rows), rows.len() - failed);
    if writeln!(std::io::stdout(), "{told}").is_err() {
        return ExitCode::FAILURE;
    }
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Whether one of the words, separated by commas, is a kernel's name or, being none's, part of it; nothing means all.
fn is_meant(name: &str, pattern: &str) -> bool {
    let is_name = |word: &str| KERNELS.iter().any(|kernel| kernel.name == word);
    pattern.is_empty()
        || pattern.split(',').any(|word| name == word || (!word.is_empty() && !is_name(word) && name.contains(word)))
}

/// Tries kernels, two at a time: much of one's time is spent waiting.
fn all_tried(chosen: &[&Kernel], quick: bool, interrupted: &(dyn Fn() -> bool + Sync)) -> Vec<Row> {
    let next = AtomicUsize::new(0);
    let found = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(kernel) = chosen.get(index).filter(|_| !interrupted()) else { break };
                    let row = tried(kernel, quick, interrupted);
                    found.lock().expect("no panic").insert(index, row);
                }
            });
        }
    });
    found.into_inner().expect("no panic").into_values().collect()
}

/// Boots a kernel and tells the stories there.
fn tried(kernel: &Kernel, quick: bool, interrupted: &(dyn Fn() -> bool + Sync)) -> Row {
    let begun = Instant::now();
    let stories = stories(kernel, quick);
    let archive = pack(kernel, &stories, quick);
    let mut row = Row::new(kernel.name);
    say(format_args!("booting {}", kernel.name));
    let (mut machine, system) = match Machine::boot(kernel, &archive, interrupted) {
        Ok(booted) => booted,
        Err(error) => {
            row.unbootable(format!("{error:#}"));
            return row;
        }
    };
    row.is(&system.found);
    for story in &stories {
        let outcome = machine.outcome(interrupted);
        let ended = outcome.is_none();
        let cell = match outcome {
            Some(outcome) if outcome.name == story.step.name => judged(story, &outcome),
            Some(outcome) => Cell::wrong(format!("an outcome is missing before this: {outcome:?}")),
            None => Cell::wrong(format!("the machine ended or is silent: {}", machine.last_words())),
        };
        let mark = if cell.word.is_ok() { "ok" } else { "FAILED" };
        say(format_args!("{}: {mark}, {:5.1} s: {} {}", kernel.name, cell.seconds, story.column, story.detail));
        if let Err(reason) = &cell.word {
            let shown: String = reason.chars().take(4000).collect();
            eprintln!("{shown}");
        }
        row.add(story, cell);
        if ended {
            break;
        }
    }
    row.took(begun.elapsed());
    row
}

fn judged(story: &Story, outcome: &Outcome) -> Cell {
    let word = if outcome.failed.is_empty() {
        catch_unwind(AssertUnwindSafe(|| (story.check)(outcome))).map_err(|panic| {
            let text = panic.downcast_ref::<String>().cloned();
            text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
        })
    } else {
        Err(format!("{}\n{}\n{}", outcome.failed, outcome.stdout, outcome.stderr))
    };
    Cell { word, seconds: outcome.seconds }
}

/// The archive that a kernel boots with.
fn pack(kernel: &Kernel, stories: &[Story], quick: bool) -> PathBuf {
    let flags = if kernel.target == Target::Aarch64 { BuildFlags::Arm64Stripped } else { BuildFlags::Stripped };
    let programs: Vec<Program> = stories.iter().filter_map(|story| story.program).collect();
    let system = Step::system();
    let steps: Vec<_> = std::iter::once(&system).chain(stories.iter().map(|story| &story.step)).collect();
    let directory = xtask::target_dir().join("kernels/archives");
    fs::create_dir_all(&directory).expect("a directory");
    let path = directory.join(kernel.name);
    let mut archive = Archive::new(BufWriter::new(File::create(&path).expect("created"))).expect("written");
    archive.copy("init", &fixture("guest", NEWEST, flags)).expect("written");
    let parkwarden = if quick { kernel.target.quick_program() } else { kernel.target.program() };
    archive.copy("bin/parkwarden", &parkwarden).expect("written");
    archive.add("plan.json", &serde_json::to_vec(&steps).expect("JSON")).expect("written");
    if stories.iter().any(|story| story.column == "AppArmor") {
        let profiles = xtask::root().join("tests/kernels/profiles.apparmor");
        archive.add("profiles.bin", &kernels::apparmor_profiles(&profiles).expect("compiled")).expect("written");
    }
    let mut packed: Vec<String> = Vec::new();
    for program in programs {
        let name = program.path();
        if !packed.contains(&name) {
            let built = fixture(program.name, program.version, program.flags);
            archive.copy(name.trim_start_matches('/'), &built).expect("written");
            packed.push(name);
        }
    }
    archive.finish().expect("written");
    path
}
