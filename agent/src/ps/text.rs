//! The list of processes as a table for a terminal.

use std::fmt::Write as _;

use super::{Listing, ProcessRow};
use crate::words::numbers::bytes;
use crate::words::{aligned, printable};

/// Characters of a command line that are shown.
const MAX_COMMAND: usize = 60;

/// The list for a person.
pub fn render(listing: &Listing) -> String {
    let mut rows = vec![
        ["PID", "USER", "GOROUTINES", "RSS", "HEAP", "GC", "GO", "MODULE", "STRIPPED", "WHERE", "COMMAND"]
            .map(str::to_owned),
    ];
    rows.extend(listing.processes.iter().map(row));
    let mut out = String::new();
    for (index, line) in aligned(&rows).into_iter().enumerate() {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{line}");
        if let Some(reason) = index.checked_sub(1).and_then(|i| listing.processes[i].reason.as_deref()) {
            let _ = writeln!(out, "    not supported: {}", printable(reason));
        }
    }
    if listing.processes.is_empty() {
        out = "No Go process was found.\n".to_owned();
    }
    if listing.not_permitted > 0 {
        let _ = writeln!(
            out,
            "not permitted to look at {} more: run as root, or with CAP_SYS_PTRACE, to see all that can be seen",
            listing.not_permitted
        );
    }
    out
}

fn row(entry: &ProcessRow) -> [String; 11] {
    let size = |count: Option<u64>| count.map_or_else(|| "-".to_owned(), bytes);
    let or_dash = |text: Option<&str>| text.map_or_else(|| "-".to_owned(), printable);
    let identity = &entry.identity;
    let place = match (&identity.container, &identity.unit) {
        // As the container tools shorten an id.
        (Some(id), _) => Some(id.get(..12).unwrap_or(id)),
        (None, unit) => unit.as_deref(),
    };
    let mut command: String = printable(&entry.command).chars().take(MAX_COMMAND).collect();
    if command.len() < entry.command.len() {
        command.push('…');
    }
    [
        entry.pid.to_string(),
        printable(&entry.user),
        entry.goroutines.map_or_else(|| "-".to_owned(), |count| count.to_string()),
        size(entry.rss_bytes),
        size(entry.heap_bytes),
        entry.gc_cpu_share.map_or_else(|| "-".to_owned(), |share| format!("{:.1} %", 100.0 * share)),
        or_dash(entry.go_version.as_deref()),
        or_dash(entry.main_module.as_deref()),
        or_dash(entry.stripped.map(|stripped| if stripped { "yes" } else { "no" })),
        or_dash(place),
        command,
    ]
}
