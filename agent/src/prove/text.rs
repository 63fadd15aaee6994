//! The proof as text for a terminal.

use std::fmt::Write as _;

use super::report::{ProofGroup, ProofReport};
use crate::words::group::GroupText;
use crate::words::{blocker, creator, goroutines, printable, within};

/// Groups shown in full.
const MAX_GROUPS_SHOWN: usize = 20;
/// Frames of a stack shown.
const MAX_FRAMES_SHOWN: usize = 12;
/// Ids shown.
const MAX_GOIDS_SHOWN: usize = 8;

/// The report for a person.
pub fn render(report: &ProofReport) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = write_report(&mut out, report);
    out
}

fn write_report(out: &mut String, report: &ProofReport) -> std::fmt::Result {
    let target = &report.target;
    let pause = &report.pause;
    writeln!(
        out,
        "parkwarden: pid {} {} ({}, {}){}",
        target.pid,
        printable(&target.exe),
        target.go_version,
        target.arch,
        if report.from_image { ", from a saved image" } else { "" }
    )?;
    writeln!(
        out,
        "  stopped {:.1} ms ({:.1} ms expected, {:.0} ms allowed), {} threads, to copy {:.1} MB",
        1e3 * pause.seconds,
        1e3 * pause.estimated_seconds,
        1e3 * pause.budget_seconds,
        pause.threads,
        pause.copied_bytes as f64 / 1e6,
    )?;
    if pause.tracked_bytes > 0 {
        writeln!(
            out,
            "  copied {:.1} MB of its heap while it ran; it had written {:.1} MB of that by then",
            pause.tracked_bytes as f64 / 1e6,
            pause.written_bytes as f64 / 1e6
        )?;
    }
    if let Some(reason) = &report.untracked {
        writeln!(out, "  copied nothing while it ran: {}", printable(reason))?;
    }
    let counts = &report.goroutines;
    writeln!(
        out,
        "  {} live, {} of them wait in a way that can be a leak: {} proven leaked, {} undecided",
        goroutines(counts.live),
        counts.candidates + counts.undecided,
        counts.proven,
        counts.undecided
    )?;
    if counts.sharing > 0 {
        writeln!(
            out,
            "  {} for a lock that shares a small allocation: what leads there may lead to the lock, or to another value",
            if counts.sharing == 1 {
                "1 goroutine waits".to_owned()
            } else {
                format!("{} goroutines wait", counts.sharing)
            }
        )?;
    }
    for group in report.timer_loops.iter().take(MAX_GROUPS_SHOWN) {
        write_group(out, group)?;
    }
    if report.leaks.is_empty() {
        return writeln!(out, "\nNo goroutine is proven to be leaked.");
    }
    for group in report.leaks.iter().take(MAX_GROUPS_SHOWN) {
        write_group(out, group)?;
    }
    for group in report.held_up.iter().take(MAX_GROUPS_SHOWN) {
        write_group(out, group)?;
    }
    if let Some(rest @ [_, ..]) = report.leaks.get(MAX_GROUPS_SHOWN..) {
        let count: u64 = rest.iter().map(|group| group.count).sum();
        writeln!(out, "\n… and {} more groups with {count} goroutines (all of them: --format json).", rest.len())?;
    }
    let held_up = match report.held_up.iter().map(|group| group.count).sum::<u64>() {
        0 => String::new(),
        1 => "; 1 more waits for what they hold".to_owned(),
        count => format!("; {count} more wait for what they hold"),
    };
    writeln!(
        out,
        "\n{} in {} group{} can never run again{held_up}.",
        goroutines(counts.proven),
        report.leaks.len(),
        if report.leaks.len() == 1 { "" } else { "s" }
    )
}

fn write_group(out: &mut String, group: &ProofGroup) -> std::fmt::Result {
    let verdict = group.verdict.to_uppercase();
    writeln!(out, "\n{verdict} {} [{}]", goroutines(group.count), printable(&group.wait_reason))?;
    let goids = group.goids.get(..MAX_GOIDS_SHOWN).unwrap_or(&group.goids);
    let text = GroupText {
        created_by: Some(creator(group.created_by.as_ref())),
        runs: Some(&group.start_function),
        blocked_at: Some(blocker(group.blocked_at.as_ref())),
        in_program: within(group.in_program.as_ref(), group.blocked_at.as_ref()),
        cause: group.cause.as_ref().map(|cause| cause.sentence.as_str()),
        remedy: group.cause.as_ref().map(|cause| cause.remedy.as_str()),
        evidence: &group.evidence,
        goids: Some((goids, group.count > goids.len() as u64)),
        stack: &group.stack,
        frames: MAX_FRAMES_SHOWN,
        ..GroupText::default()
    };
    text.write(out)
}
