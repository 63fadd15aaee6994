//! What a recording holds, for those who have yet to choose.

use std::cmp::Reverse;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use crate::detect::Verdict;
use crate::record::{ExitKind, RecordedProcess};
use crate::words::numbers::{self, number};
use crate::words::{aligned, printable};

/// The list as a document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Listing {
    /// [`super::SCHEMA`]
    pub schema: u32,
    /// Oldest first.
    pub processes: Vec<Listed>,
}

/// One process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Listed {
    /// Process id.
    pub pid: u32,
    /// Its executable.
    pub exe: String,
    /// The host it ran on.
    pub host: String,
    /// Container id.
    pub container: Option<String>,
    /// Name of the pod.
    pub pod_name: Option<String>,
    /// Uid of the pod.
    pub pod_uid: Option<String>,
    /// The first look, Unix milliseconds.
    pub first_look_ms: Option<u64>,
    /// The last look.
    pub last_look_ms: Option<u64>,
    /// How many looks.
    pub looks: u64,
    /// Goroutines at the last look.
    pub live: u64,
    /// The strongest verdict that any group had last.
    pub verdict: Option<Verdict>,
    /// How it ended.
    pub ended: Option<ExitKind>,
}

impl Listing {
    /// Of all there is.
    pub fn of(entries: &[RecordedProcess]) -> Self {
        let listed = |entry: &RecordedProcess| Listed {
            pid: entry.process.pid,
            exe: entry.process.exe.clone(),
            host: entry.host.clone(),
            container: entry.process.container.clone(),
            pod_name: entry.process.pod_name.clone(),
            pod_uid: entry.process.pod_uid.clone(),
            first_look_ms: entry.looks.map(|(first, _)| first.unix_ns / 1_000_000),
            last_look_ms: entry.looks.map(|(_, last)| last.unix_ns / 1_000_000),
            looks: entry.samples,
            live: entry.live,
            verdict: entry.verdict,
            ended: entry.exit.as_ref().map(|exit| exit.kind),
        };
        Self { schema: super::SCHEMA, processes: entries.iter().map(listed).collect() }
    }
}

/// The list for a person.
pub fn render(entries: &[RecordedProcess]) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = write_list(&mut out, entries);
    out
}

fn write_list(out: &mut String, entries: &[RecordedProcess]) -> std::fmt::Result {
    let ms = |ns: u64| ns / 1_000_000;
    let heads = [
        "PID",
        "FIRST LOOK (UTC)",
        "LAST LOOK (UTC)",
        "LOOKS",
        "GOROUTINES",
        "VERDICT",
        "ENDED",
        "WHERE",
        "EXECUTABLE",
    ];
    let mut entries: Vec<&RecordedProcess> = entries.iter().collect();
    // Those that leak are what a recording is opened for.
    entries.sort_by_key(|entry| Reverse(entry.verdict.filter(|verdict| verdict.is_leak())));
    let rows = entries.iter().map(|entry| {
        let look = |at: Option<u64>| at.map_or("-".to_owned(), |ns| numbers::full(ms(ns)));
        let process = &entry.process;
        let place = process.pod_name.as_ref().or(process.pod_uid.as_ref()).or(process.unit.as_ref());
        let container = || process.container.as_ref().map(|id| id.chars().take(12).collect());
        [
            process.pid.to_string(),
            look(entry.looks.map(|(first, _)| first.unix_ns)),
            look(entry.looks.map(|(_, last)| last.unix_ns)),
            entry.samples.to_string(),
            number(entry.live),
            entry.verdict.map_or("-".to_owned(), |verdict| verdict.to_string()),
            entry.exit.as_ref().map_or("-".to_owned(), |exit| exit.kind.label()),
            printable(&place.cloned().or_else(container).unwrap_or_else(|| entry.host.clone())),
            printable(&process.exe),
        ]
    });
    let mut table: Vec<[String; 9]> = vec![heads.map(str::to_owned)];
    table.extend(rows);
    for line in aligned(&table) {
        writeln!(out, "{line}")?;
    }
    if entries.is_empty() {
        return writeln!(out, "The recording holds no process.");
    }
    writeln!(out, "\nName one for its timeline: --pid PID, --exe NAME or --pod NAME.")
}
