//! What the view says of itself. The keys are here once, for its own page and for `--help`.

use std::fmt::Write as _;

use clap::ValueEnum as _;

use super::super::column::Column;

/// Keys and what they do.
const KEYS: [(&str, &str); 14] = [
    ("Up Down PgUp PgDn Home End", "choose a line, or scroll; j and k too"),
    ("Enter", "open: a process; then an incident, a sign or a group, with stack, evidence, cause and remedy"),
    ("Esc", "back; first the filter goes"),
    ("/ F4", "filter: processes by name, command line, user or pid; groups by function, file, wait reason or verdict"),
    ("< > F6", "sort by the column before, or after"),
    ("V G L M P N", "sort by verdict, goroutines, leaked, heap, GC share, pid"),
    ("I", "the other way round"),
    ("p", "prove: stop the process for a moment, and tell which goroutines can never run again; asks first"),
    ("w", "look now who waits for whom; nothing is stopped"),
    ("s", "save the report of the process as JSON, in the current directory"),
    ("? F1", "this page"),
    ("q F10 Ctrl-C", "quit"),
    ("", ""),
    (
        "PROVEN",
        "goroutines that can never run again; LIKELY: they behave like a leak; STUCK: they wait for what does not come",
    ),
];

/// What follows the options in `--help`.
pub const BELOW_HELP: &str = "Keys: arrows choose, Enter opens, Esc goes back, / filters, < and > sort, I inverts, p proves, w tells \
                              who waits for whom, s saves, ? explains all of them, q quits.\n\nIt needs a terminal. For programs: \
                              `parkwarden ps --format json` lists the processes, `parkwarden watch --format json` and jsonl report on \
                              one, and `parkwarden agent` serves all over HTTP.\n\nExit status: 0 quit; 1 parkwarden failed; 2 wrong \
                              usage.";

/// What the columns are, above.
pub const COLUMNS_HELP: &str = "What to order processes by at first";

/// The page.
pub(super) fn text() -> String {
    let mut out = String::new();
    for (keys, does) in KEYS {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{keys:<28}{does}");
    }
    out.push('\n');
    for column in Column::value_variants() {
        let _ = writeln!(out, "{:<28}{}", column.title(), column.says());
    }
    out
}
