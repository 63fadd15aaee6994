//! Incidents as a graph for Graphviz.

use std::fmt::Write as _;

use super::{Link, WhyReport};
use crate::words::{blocker, printable};

/// Goroutines drawn of one group; the others are as they are.
const MAX_DRAWN: usize = 20;

/// `dot -Tsvg` draws it: an arrow leads from a goroutine to the one it waits for, dashed where that is not shown by memory.
pub fn render(report: &WhyReport) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = write(&mut out, report);
    out
}

fn write(out: &mut String, report: &WhyReport) -> std::fmt::Result {
    writeln!(out, "digraph why {{\n  rankdir=LR;\n  node [shape=box, fontname=monospace];")?;
    for (number, incident) in report.incidents.iter().enumerate() {
        writeln!(out, "  subgraph cluster_{number} {{\n    label={};", quoted(&incident.headline))?;
        let mut drawn = Vec::new();
        for group in &incident.groups {
            for goid in group.goids.iter().take(MAX_DRAWN) {
                drawn.push(*goid);
                let label = format!("goroutine {goid} [{}]\n{}", group.wait_reason, blocker(group.blocked_at.as_ref()));
                writeln!(out, "    g{goid} [label={}];", quoted(&label))?;
            }
            if group.count > MAX_DRAWN as u64 {
                let more = group.count - MAX_DRAWN as u64;
                let label = format!("and {more} more [{}]", group.wait_reason);
                writeln!(out, "    more{}_{} [label={}, style=dashed];", number, group.goids[0], quoted(&label))?;
            }
        }
        let both = |waits: &&super::Edge| drawn.contains(&waits.from) && drawn.contains(&waits.to);
        for waits in incident.waits.iter().filter(both) {
            let (label, style) = match waits.link {
                Link::Holds => ("holds", "solid"),
                Link::Member => ("has yet to call Done", "solid"),
                Link::MayHold => ("may hold", "dashed"),
                Link::MayServe => ("could receive", "dashed"),
                Link::Made => ("made by it", "dashed"),
            };
            writeln!(out, "    g{} -> g{} [label={}, style={style}];", waits.from, waits.to, quoted(label))?;
        }
        writeln!(out, "  }}")?;
    }
    writeln!(out, "}}")
}

/// A string of the DOT language: names come from the target.
fn quoted(text: &str) -> String {
    let lines: Vec<String> =
        text.lines().map(|line| printable(line).replace('\\', "\\\\").replace('"', "\\\"")).collect();
    format!("\"{}\"", lines.join("\\n"))
}
