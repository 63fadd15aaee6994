//! However a Go program was built, with whichever Go: `watch` reports the same groups, or refuses with the reason.
//!
//! docs/support.md's table of what is supported is what this test found:
//! `UPDATE_GOLDEN=1 cargo xtask test --full-matrix` rewrites it; read the diff. A run without `--full-matrix` goes through
//! some of the cells and checks these.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use parkwarden::golang::binary::GoBinary;
use parkwarden::golang::layout::LayoutSource;
use parkwarden::golang::sites::{self, BinaryFunctions, Kernel};
use parkwarden_tests::agent::Watch;
use parkwarden_tests::kernels::{self, minor};
use parkwarden_tests::leaks::Statement;
use parkwarden_tests::target::Target;
use parkwarden_tests::{BuildFlags, fixture};
use xtask::toolchain;

use super::watch::{EACH, Ready, assert_as_said};

/// Ways of building that every run tests with every Go version; the others with the oldest and the newest.
const EVERYWHERE: [BuildFlags; 4] =
    [BuildFlags::Default, BuildFlags::Stripped, BuildFlags::PieStripped, BuildFlags::Arm64Stripped];

const START: &str = "<!-- matrix -->\n";
const END: &str = "<!-- end of matrix -->\n";

type Cell = (&'static str, BuildFlags);

/// What became of a cell.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Outcome {
    /// Watched, and the report was right.
    Watched,
    /// Another machine's program: understood, and it is known where to probe it.
    Planned,
    Refused(String),
}

fn cells() -> Vec<Cell> {
    let ends = [toolchain::ALL_VERSIONS[0], toolchain::VERSIONS[0], toolchain::NEWEST];
    let full = std::env::var_os("PARKWARDEN_FULL_MATRIX").is_some();
    let tested = |version, flags| full || EVERYWHERE.contains(&flags) || ends.contains(&version);
    toolchain::available()
        .flat_map(|version| BuildFlags::ALL.map(|flags| (version, flags)))
        .filter(|(version, flags)| tested(version, *flags) && exists(version, *flags))
        .collect()
}

/// Programs that Go 1.19 links statically with a C library of today abort as they start; `-cover` is newer.
fn exists(version: &str, flags: BuildFlags) -> bool {
    version != toolchain::DEBIAN
        || !matches!(flags, BuildFlags::ExternalStatic | BuildFlags::StaticPie | BuildFlags::Cover)
}

fn outcome((version, flags): Cell) -> Outcome {
    let program = fixture("leaks", version, flags);
    if !flags.runs_here() {
        return planned(&program);
    }
    let what = format!("Go {version}, {}", flags.name());
    let (mut target, Ready { .. }) = Target::ready(&program, ["-wait", "-n", EACH]);
    let watch = match Watch::try_start(target.pid(), &["--threshold", "0s"]) {
        Ok(watch) => watch,
        Err(refusal) => return Outcome::Refused(refusal),
    };
    let said: Statement = target.ask("go");
    let ended = watch.interrupt();
    assert_eq!(ended.code, Some(0), "{what}: {:?}", ended.errors);
    let report = ended.report();
    assert_as_said(&report, &said, &what);
    let lost = report.observed.lost;
    assert_eq!((lost.ring_full, lost.read_fault, lost.decode_error), (0, 0, 0), "{what}");
    let stripped = matches!(flags, BuildFlags::Stripped | BuildFlags::PieStripped);
    let expected = if stripped || flags == BuildFlags::NoDwarf { LayoutSource::Table } else { LayoutSource::Dwarf };
    assert_eq!((report.target.stripped, report.target.layout_source), (stripped, expected), "{what}");
    Outcome::Watched
}

fn planned(program: &PathBuf) -> Outcome {
    let file = File::open(program).expect("readable");
    let binary = match GoBinary::parse(&file) {
        Ok(binary) => binary,
        Err(refusal) => return Outcome::Refused(refusal.to_string()),
    };
    match sites::plan(binary.arch, Kernel::from_version(6, 1), &BinaryFunctions::new(&binary, &file)) {
        Ok(sites) => {
            assert_eq!(sites.len(), 4, "{}", program.display());
            Outcome::Planned
        }
        Err(refusal) => Outcome::Refused(refusal.to_string()),
    }
}

/// Goes through all cells, two at a time: most of one's time is spent waiting.
fn outcomes() -> BTreeMap<(&'static str, &'static str), Outcome> {
    let cells = cells();
    let next = AtomicUsize::new(0);
    let found = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(cell) = cells.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let outcome = outcome(*cell);
                    found.lock().expect("no panic").insert((cell.0, cell.1.name()), outcome);
                }
            });
        }
    });
    found.into_inner().expect("no panic")
}

/// The table; a cell that was not tested in this run is as in `before`.
fn render(outcomes: &BTreeMap<(&'static str, &'static str), Outcome>, before: &str) -> String {
    let versions = toolchain::ALL_VERSIONS;
    let mut text = String::from("| built with |");
    for version in versions {
        let _ = write!(text, " {} |", minor(version));
    }
    text.push_str("\n|---|");
    text.push_str(&"---|".repeat(versions.len()));
    let mut reasons: Vec<&str> = Vec::new();
    for flags in BuildFlags::ALL {
        let _ = write!(text, "\n| {} |", flags.name());
        let old = before.lines().find(|line| line.starts_with(&format!("| {} |", flags.name())));
        for (column, version) in versions.iter().enumerate() {
            let cell = match outcomes.get(&(*version, flags.name())) {
                Some(Outcome::Watched) => "yes".to_owned(),
                // What cannot run here may have run in a machine that was emulated.
                Some(Outcome::Planned) if kernels::runs_on_arm64(version, flags.name()) => "yes".to_owned(),
                Some(Outcome::Planned) => "read".to_owned(),
                Some(Outcome::Refused(reason)) => {
                    let number = reasons.iter().position(|known| known == reason).unwrap_or_else(|| {
                        reasons.push(reason);
                        reasons.len() - 1
                    });
                    format!("no ({})", number + 1)
                }
                None if !exists(version, flags) => "-".to_owned(),
                None => old.and_then(|line| line.split('|').nth(column + 2)).unwrap_or_default().trim().to_owned(),
            };
            let _ = write!(text, " {cell} |");
        }
    }
    text.push('\n');
    for (index, reason) in reasons.iter().enumerate() {
        let _ = write!(text, "\n{}. {reason}", index + 1);
    }
    if !reasons.is_empty() {
        text.push('\n');
    }
    text
}

#[test]
fn however_a_program_is_built_its_leaks_are_reported_as_it_says() {
    let outcomes = outcomes();
    let refused: Vec<_> = outcomes.iter().filter(|(_, outcome)| matches!(outcome, Outcome::Refused(_))).collect();
    // What is refused is in that page too; nothing of the matrix is.
    assert!(refused.is_empty(), "{refused:#?}");
    let path = xtask::root().join("docs/support.md");
    let page = std::fs::read_to_string(&path).expect("docs/support.md");
    let (head, rest) = page.split_once(START).expect("a place for the table");
    let (before, tail) = rest.split_once(END).expect("a place for the table");
    let table = render(&outcomes, before);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, format!("{head}{START}{table}{END}{tail}")).expect("written");
        return;
    }
    assert_eq!(
        before, table,
        "the table of docs/support.md is not what was found: run with UPDATE_GOLDEN=1 and read the diff"
    );
}

/// A program of the newest Go, said to be of one that does not exist yet.
fn of_the_future(flags: BuildFlags, directory: &std::path::Path) -> PathBuf {
    let mut bytes = std::fs::read(fixture("leaks", toolchain::NEWEST, flags)).expect("readable");
    let (version, future) = (format!("go{}", toolchain::NEWEST), b"go1.99.9");
    assert_eq!(version.len(), future.len());
    let places: Vec<usize> = (0..bytes.len() - version.len())
        .filter(|start| bytes.get(*start..start + version.len()) == Some(version.as_bytes()))
        .collect();
    assert!(!places.is_empty());
    for start in places {
        if let Some(place) = bytes.get_mut(start..start + future.len()) {
            place.copy_from_slice(future);
        }
    }
    let path = directory.join(flags.name());
    std::fs::write(&path, bytes).expect("written");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&path, mode).expect("executable");
    path
}

#[test]
fn a_version_to_come_is_watched_with_debugging_information_and_refused_without() {
    let directory = tempfile::tempdir().expect("a directory");
    let program = of_the_future(BuildFlags::PlainDwarf, directory.path());
    let (target, said): (_, Statement) = Target::ready(&program, ["-n", EACH]);
    let report = Watch::start(target.pid(), &["--threshold", "0s"]).interrupt().report();
    assert_eq!(report.target.go_version, "go1.99.9");
    assert_as_said(&report, &said, "go1.99.9");

    let program = of_the_future(BuildFlags::Stripped, directory.path());
    let (target, _): (_, Statement) = Target::ready(&program, ["-n", EACH]);
    let refusal = Watch::try_start(target.pid(), &[]).expect_err("nothing is known of its layout");
    assert!(refusal.contains("go1.99.9"), "{refusal}");
}
