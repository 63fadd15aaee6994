//! BENCHMARKS.md: one part for each section, each saying where and when it was measured.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use anyhow::Context as _;

/// What stands above all sections.
const HEAD: &str = "# Benchmarks\n\nWritten by `cargo xtask bench`, which measures everything anew; with names of sections, \
                    only those. What is compared\nran side by side in one run: compare within a table, not between them.\n";

/// What a section measured.
#[derive(Debug)]
pub struct Section {
    /// Its heading.
    pub title: &'static str,
    /// What was measured, and how.
    pub about: String,
    /// Names of the columns.
    pub columns: Vec<&'static str>,
    /// One cell a column.
    pub rows: Vec<Vec<String>>,
}

/// The file's sections by name.
#[derive(Debug)]
pub struct Document {
    order: Vec<&'static str>,
    sections: BTreeMap<&'static str, String>,
}

impl Document {
    /// What stands in the file, if there is one.
    pub fn read(path: &Path, order: impl Into<Vec<&'static str>>) -> anyhow::Result<Self> {
        let order = order.into();
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error).with_context(|| format!("reading {}", path.display())),
        };
        let sections = order
            .iter()
            .filter_map(|name| {
                let (_, rest) = text.split_once(&start(name))?;
                Some((*name, rest.split("\n<!-- ").next().unwrap_or(rest).trim_end().to_owned()))
            })
            .collect();
        Ok(Self { order, sections })
    }

    /// Puts a section in the place of what was there under its name.
    pub fn put(&mut self, name: &'static str, section: &Section) {
        self.sections.insert(name, section.render());
    }

    /// Writes the file.
    pub fn write(&self, path: &Path) -> anyhow::Result<()> {
        let mut text = HEAD.to_owned();
        for name in &self.order {
            if let Some(section) = self.sections.get(name) {
                let _ = write!(text, "\n{}{section}\n", start(name));
            }
        }
        std::fs::write(path, text).with_context(|| format!("writing {}", path.display()))
    }
}

fn start(name: &str) -> String {
    format!("<!-- {name} -->\n")
}

impl Section {
    fn render(&self) -> String {
        let mut text = format!("## {}\n\n{}\n\n{}\n\n", self.title, self.about, circumstances());
        let _ = writeln!(text, "| {} |", self.columns.join(" | "));
        let _ = writeln!(text, "|{}", "---|".repeat(self.columns.len()));
        for row in &self.rows {
            let _ = writeln!(text, "| {} |", row.join(" | "));
        }
        text.trim_end().to_owned()
    }
}

/// Where and when it was measured.
fn circumstances() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpus = std::thread::available_parallelism().map_or(0, usize::from);
    let info = read("/proc/cpuinfo");
    let of = |name: &str| info.lines().find_map(|line| Some(line.strip_prefix(name)?.split_once(": ")?.1));
    // On arm64 there are numbers of the core's maker and kind instead.
    let model = of("model name").or_else(|| of("CPU part")).unwrap_or("?");
    let virtual_machine = if info.contains(" hypervisor") { ", virtual machine" } else { "" };
    let seconds = std::time::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs());
    let day = humantime::format_rfc3339_seconds(std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds));
    let day = day.to_string();
    let day = day.split('T').next().unwrap_or_default();
    let kernel = read("/proc/sys/kernel/osrelease");
    format!("Linux {}, {cpus} CPUs ({model}{virtual_machine}), {day}.", kernel.trim())
}
