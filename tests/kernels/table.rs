//! What was found: a table for people, and when all kernels were tried docs/kernels.md and a line of docs/support.md.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::time::{Duration, SystemTime};

use parkwarden_tests::kernels;
use serde_json::Value;

use crate::stories::{COLUMNS, Story};

/// What came of one story.
#[derive(Clone, Debug)]
pub struct Cell {
    /// A word or two, or what was wrong.
    pub word: Result<String, String>,
    /// In the machine.
    pub seconds: f64,
}

impl Cell {
    /// Of a story that could not be told.
    pub fn wrong(reason: String) -> Self {
        Self { word: Err(reason), seconds: 0.0 }
    }
}

/// One kernel.
#[derive(Debug)]
pub struct Row {
    name: &'static str,
    release: String,
    arch: String,
    page_kib: u64,
    cells: Vec<(&'static str, String, Cell)>,
    /// By how they were built and with which Go: whether all that was tried with them was right.
    programs: BTreeMap<(String, String), bool>,
    unbootable: Option<String>,
    took: Duration,
}

impl Row {
    /// Of which nothing is known yet.
    pub fn new(name: &'static str) -> Self {
        Self {
            name,
            release: String::new(),
            arch: String::new(),
            page_kib: 0,
            cells: Vec::new(),
            programs: BTreeMap::new(),
            unbootable: None,
            took: Duration::ZERO,
        }
    }

    /// Takes note of what machine it is.
    pub fn is(&mut self, system: &Value) {
        system["release"].as_str().unwrap_or_default().clone_into(&mut self.release);
        system["arch"].as_str().unwrap_or_default().clone_into(&mut self.arch);
        self.page_kib = system["page_size"].as_u64().unwrap_or_default() >> 10;
    }

    /// Takes note that it could not be tried.
    pub fn unbootable(&mut self, reason: String) {
        eprintln!("{reason}");
        self.unbootable = Some(reason);
    }

    /// Takes note of a story.
    pub fn add(&mut self, story: &Story, cell: Cell) {
        if let Some(program) = story.program.filter(|program| program.name == "leaks") {
            let key = (program.flags.name().to_owned(), kernels::minor(program.version).to_owned());
            *self.programs.entry(key).or_insert(true) &= cell.word.is_ok();
        }
        self.cells.push((story.column, story.detail.clone(), cell));
    }

    /// Takes note of the time.
    pub fn took(&mut self, time: Duration) {
        self.took = time;
    }

    /// Whether anything was wrong.
    pub fn failed(&self) -> bool {
        self.unbootable.is_some() || self.cells.is_empty() || self.cells.iter().any(|(.., cell)| cell.word.is_err())
    }

    fn of(&self, column: &str) -> Vec<&Cell> {
        self.cells.iter().filter(|(name, ..)| *name == column).map(|(.., cell)| cell).collect()
    }

    fn cell(&self, column: &str) -> String {
        let cells = self.of(column);
        let seconds: f64 = cells.iter().map(|cell| cell.seconds).sum();
        match cells.last() {
            None => "-".into(),
            Some(_) if cells.iter().any(|cell| cell.word.is_err()) => format!("**no**, {seconds:.0} s"),
            Some(last) => format!("{}, {seconds:.0} s", last.word.as_deref().unwrap_or_default()),
        }
    }

    /// What was wrong, each in a line.
    fn wrong(&self) -> Vec<String> {
        let first = |reason: &str| reason.lines().find(|line| !line.trim().is_empty()).unwrap_or_default().to_owned();
        let unbootable = self.unbootable.iter().map(|reason| format!("{}: {}", self.name, first(reason)));
        let stories = self.cells.iter().filter_map(|(column, detail, cell)| {
            let reason: String = first(cell.word.as_ref().err()?).chars().take(200).collect();
            Some(format!("{}, {column} {detail}: {reason}", self.name))
        });
        unbootable.chain(stories).collect()
    }

    /// The release and, if it is not the usual one, the size of a page.
    fn described(&self) -> String {
        if self.page_kib == 4 {
            self.release.clone()
        } else {
            format!("{} ({} KiB pages)", self.release, self.page_kib)
        }
    }
}

/// The table of all rows.
pub fn render(rows: &[Row]) -> String {
    let mut text = String::from("| kernel | release | architecture | page |");
    for column in COLUMNS {
        let _ = write!(text, " {column} |");
    }
    text.push_str(" in all |\n|---|---|---|---|");
    text.push_str(&"---|".repeat(COLUMNS.len() + 1));
    for row in rows {
        let _ = write!(text, "\n| {} | {} | {} | {} KiB |", row.name, row.release, row.arch, row.page_kib);
        for column in COLUMNS {
            let _ = write!(text, " {} |", row.cell(column));
        }
        let _ = write!(text, " {:.0} s |", row.took.as_secs_f64());
    }
    text.push('\n');
    text
}

/// Writes what a full run has found.
///
/// # Errors
///
/// When a file cannot be read or written, or docs/support.md has no place for it.
pub fn publish(rows: &[Row]) -> anyhow::Result<()> {
    let now = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    let date = now.split('T').next().unwrap_or_default();
    let mut text = format!(
        "# Kernels\n\nWhat `cargo xtask test --kernels` found on {date}: parkwarden {} in machines that QEMU emulates. \
         `tests/kernels/stories.rs` says what each column tries. `yes` is exactly what was expected, with nothing lost; the \
         seconds are those of an emulated machine and measure nothing; `-` was not tried there.\n\n{}\n",
        env!("CARGO_PKG_VERSION"),
        render(rows)
    );
    let wrong: Vec<String> = rows.iter().flat_map(Row::wrong).collect();
    if !wrong.is_empty() {
        let _ = write!(text, "What was wrong:\n\n- {}\n\n", wrong.join("\n- "));
    }
    text.push_str("## Go programs on arm64\n\n`yes` where the modes census, filter and trace reported exactly what the program says of itself.\n\n");
    text.push_str(&programs(rows));
    fs::write(kernels::document(), text)?;

    let page = xtask::root().join("docs/support.md");
    let old = fs::read_to_string(&page)?;
    fs::write(&page, kernels::with_line(&old, &line(rows, date))?)?;
    Ok(())
}

/// The table that [`kernels::runs_on_arm64`] reads.
fn programs(rows: &[Row]) -> String {
    let rows: Vec<&Row> = rows.iter().filter(|row| row.arch == "arm64").collect();
    let mut text = String::from("| built with | Go |");
    rows.iter().for_each(|row| text.push_str(&format!(" {} |", row.described())));
    text.push_str("\n|---|---|");
    text.push_str(&"---|".repeat(rows.len()));
    let all: BTreeMap<_, _> = rows.iter().flat_map(|row| &row.programs).collect();
    for key in all.into_keys() {
        let _ = write!(text, "\n| {} | {} |", key.0, key.1);
        for row in &rows {
            text.push_str(match row.programs.get(key) {
                Some(true) => " yes |",
                Some(false) => " **no** |",
                None => " - |",
            });
        }
    }
    text.push('\n');
    text
}

fn line(rows: &[Row], date: &str) -> String {
    let of = |arch: &str, is: &dyn Fn(&Row) -> bool| {
        let mut releases: Vec<String> =
            rows.iter().filter(|row| row.arch == arch && is(row)).map(Row::described).collect();
        releases.dedup();
        releases.join(", ")
    };
    let probed = |row: &Row| !row.failed() && row.of("filter").iter().all(|cell| cell.word.as_deref() == Ok("yes"));
    let refused =
        |row: &Row| !row.failed() && row.of("filter").iter().any(|cell| cell.word.as_deref() == Ok("refused"));
    let parts = [
        ("amd64 with Linux ", of("amd64", &probed)),
        ("arm64 with Linux ", of("arm64", &probed)),
        ("without probes, which are refused with the reason, ", of("amd64", &refused)),
    ];
    let told: Vec<String> =
        parts.iter().filter(|(_, of)| !of.is_empty()).map(|(what, of)| format!("{what}{of}")).collect();
    let mut text = format!("Tried on {date} ([how, and what](kernels.md)): {}.", told.join("; "));
    let failed: Vec<&str> = rows.iter().filter(|row| row.failed()).map(|row| row.name).collect();
    if !failed.is_empty() {
        let _ = write!(text, " Something was wrong on {}.", failed.join(", "));
    }
    text
}
