//! A snapshot as text for a terminal.

use std::fmt::Write as _;

use super::{GroupBy, Snapshot, SnapshotGroup};
use crate::report::LabelValues;
use crate::words::group::GroupText;
use crate::words::{blocker, creator, goroutines, printable};

/// Groups shown; the others are summed in one line.
const MAX_GROUPS_SHOWN: usize = 40;

/// Frames of a stack shown.
const MAX_FRAMES_SHOWN: usize = 12;

/// The snapshot for a person.
pub fn render(snapshot: &Snapshot) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = write(&mut out, snapshot);
    out
}

fn write(out: &mut String, snapshot: &Snapshot) -> std::fmt::Result {
    let target = &snapshot.target;
    let counts = &snapshot.goroutines;
    let states: Vec<String> = counts.by_state.iter().map(|(state, count)| format!("{count} {state}")).collect();
    writeln!(out, "parkwarden: pid {} {} ({})", target.pid, printable(&target.exe), target.go_version)?;
    writeln!(
        out,
        "  {} live ({}), {} of them the runtime's; read in {:.3} s",
        goroutines(counts.live),
        states.join(", "),
        counts.system,
        snapshot.census_seconds
    )?;
    let lost = &snapshot.lost;
    if *lost != super::Lost::default() {
        writeln!(
            out,
            "  not read: {} goroutines; {} stacks moved, {} cut, {} unknown",
            lost.census_read_fault, lost.stack_moved, lost.stack_cut, lost.stack_unknown
        )?;
    }
    for group in snapshot.groups.iter().take(MAX_GROUPS_SHOWN) {
        write_group(out, group, snapshot.group_by)?;
    }
    if let Some(rest @ [_, ..]) = snapshot.groups.get(MAX_GROUPS_SHOWN..) {
        let count = rest.iter().map(|group| group.count).sum();
        writeln!(out, "\n… and {} more groups with {} (all of them: --format json).", rest.len(), goroutines(count))?;
    }
    Ok(())
}

fn write_group(out: &mut String, group: &SnapshotGroup, group_by: GroupBy) -> std::fmt::Result {
    let reasons: Vec<String> = match group.reasons.iter().next() {
        Some((only, _)) if group.reasons.len() == 1 => vec![printable(only)],
        _ => group.reasons.iter().map(|(reason, count)| format!("{count} {}", printable(reason))).collect(),
    };
    write!(out, "\n{} [{}]", goroutines(group.count), reasons.join(", "))?;
    match group.parked_seconds {
        Some(span) => writeln!(out, ", parked at least {:.1} to {:.1} s", span.min, span.max)?,
        None => writeln!(out)?,
    }
    let blocked_at = match (&group.blocked_at, group.stack.is_empty()) {
        (None, true) => "not known: it ran or moved while it was read".to_owned(),
        (place, _) => blocker(place.as_ref()),
    };
    let text = GroupText {
        created_by: (group_by != GroupBy::Blocked).then(|| creator(group.created_by.as_ref())),
        labels: group.labels.iter().map(LabelValues::line).collect(),
        runs: group.start_function.as_deref(),
        blocked_at: (group_by != GroupBy::Created).then_some(blocked_at),
        stack: &group.stack,
        frames: MAX_FRAMES_SHOWN,
        ..GroupText::default()
    };
    text.write(out)
}
