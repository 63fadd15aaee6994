//! The report as text for a terminal.

use std::fmt::Write as _;

use super::{Group, Lost, Proofs, Report};
use crate::detect::Verdict;
use crate::words::group::GroupText;
use crate::words::{blocker, creator, goroutines, printable};

/// Groups shown in full; the others are summed in one line.
const MAX_GROUPS_SHOWN: usize = 20;

/// Frames of a blocking stack shown.
const MAX_FRAMES_SHOWN: usize = 12;

/// The report for a person, with lines of at most about 120 columns where names allow.
pub fn render(report: &Report) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = write_report(&mut out, report);
    out
}

fn write_report(out: &mut String, report: &Report) -> std::fmt::Result {
    let target = &report.target;
    let observed = &report.observed;
    writeln!(
        out,
        "parkwarden: pid {} {} ({}, {}{}{})",
        target.pid,
        printable(&target.exe),
        target.go_version,
        target.arch,
        if target.stripped { ", stripped" } else { "" },
        if target.pie { ", PIE" } else { "" },
    )?;
    let events = &observed.events;
    write!(
        out,
        "  watched {:.1} s: {} created, {} exited, {} parked, {} readied",
        observed.seconds, events.created, events.exited, events.parked, events.readied,
    )?;
    // Of mode filter: what it streams instead of parks and wake-ups.
    if events.waited > 0 {
        write!(out, ", {} long waits ended", events.waited)?;
    }
    writeln!(out, "; lost {}", losses(&observed.lost))?;
    writeln!(
        out,
        "  ring {} KiB, fullest {:.1} %, {} lost",
        observed.ring.size_bytes / 1024,
        100.0 * observed.ring.fill_max_bytes as f64 / observed.ring.size_bytes.max(1) as f64,
        observed.ring.lost,
    )?;
    for probe in &observed.probes {
        writeln!(
            out,
            "  probe {:<22} {:>14}  {:<11} {:>10} hits of {} ns",
            probe.function, probe.address, probe.site_class, probe.hits, probe.hit_nanoseconds,
        )?;
    }
    super::cost::write(out, observed)?;
    if let Some(proofs) = &observed.proofs {
        write_proofs(out, proofs)?;
    }
    let goroutines = &report.goroutines;
    let states: Vec<_> = goroutines.by_state.iter().map(|(state, count)| format!("{count} {state}")).collect();
    writeln!(
        out,
        "  goroutines {} live ({}), {} of them the runtime's; {} parked over {:.1} s",
        goroutines.live,
        states.join(", "),
        goroutines.system,
        goroutines.parked_over_threshold,
        observed.threshold_seconds,
    )?;
    if report.groups.is_empty() {
        return writeln!(out, "\nNo goroutine has been parked longer than {:.1} s.", observed.threshold_seconds);
    }
    let mut groups: Vec<&Group> = report.groups.iter().collect();
    groups.sort_by_key(|group| (std::cmp::Reverse(group.verdict), std::cmp::Reverse(group.count)));
    for group in groups.iter().take(MAX_GROUPS_SHOWN) {
        write_group(out, group)?;
    }
    if let Some(rest @ [_, ..]) = groups.get(MAX_GROUPS_SHOWN..) {
        let count: u64 = rest.iter().map(|group| group.count).sum();
        writeln!(out, "\n… and {} more groups with {count} goroutines (all of them: --format json).", rest.len())?;
    }
    write_summary(out, report)
}

fn write_proofs(out: &mut String, proofs: &Proofs) -> std::fmt::Result {
    write!(
        out,
        "  proofs {}, the target stood still {:.1} ms in all, {:.1} ms at most",
        proofs.taken,
        1e3 * proofs.paused_seconds,
        1e3 * proofs.longest_pause_seconds
    )?;
    if proofs.contradicted > 0 {
        write!(out, "; {} were wrong: they ran or ended all the same", goroutines(proofs.contradicted))?;
    }
    writeln!(out)?;
    match &proofs.refusal {
        Some(refusal) => writeln!(out, "  no proof: {}", printable(refusal)),
        None => Ok(()),
    }
}

fn write_group(out: &mut String, group: &Group) -> std::fmt::Result {
    writeln!(
        out,
        "\n{:<6} {} [{}], parked {:.1} to {:.1} s, {:+.1}/s",
        group.verdict.to_string().to_uppercase(),
        goroutines(group.count),
        printable(&group.wait_reason),
        group.parked_seconds.min,
        group.parked_seconds.max,
        group.growth_per_second,
    )?;
    let text = GroupText {
        created_by: Some(creator(group.created_by.as_ref())),
        runs: Some(&group.start_function),
        blocked_at: Some(blocker(group.blocked_at.as_ref())),
        cause: group.cause.as_ref().map(|cause| cause.sentence.as_str()),
        remedy: group.cause.as_ref().map(|cause| cause.remedy.as_str()),
        evidence: &group.evidence,
        stack: if group.verdict > Verdict::Idle { &group.stack } else { &[] },
        frames: MAX_FRAMES_SHOWN,
        ..GroupText::default()
    };
    text.write(out)
}

fn write_summary(out: &mut String, report: &Report) -> std::fmt::Result {
    let leaks: Vec<&Group> = report.groups.iter().filter(|group| group.verdict > Verdict::Idle).collect();
    if leaks.is_empty() {
        return writeln!(out, "\nNo group behaves like a leak.");
    }
    let count: u64 = leaks.iter().map(|group| group.count).sum();
    writeln!(
        out,
        "\n{count} goroutines in {} group{} are leaked or behave like it{}; the largest is made by {}",
        leaks.len(),
        if leaks.len() == 1 { "" } else { "s" },
        match leaks.iter().map(|group| group.proven).sum::<u64>() {
            0 => String::new(),
            proven => format!(", {proven} of them proven"),
        },
        creator(leaks[0].created_by.as_ref())
    )
}

fn losses(lost: &Lost) -> String {
    let causes: Vec<String> = [
        ("ring full", lost.ring_full),
        ("read fault", lost.read_fault),
        ("map full", lost.map_full),
        ("decode error", lost.decode_error),
        ("unknown goroutine", lost.unknown_goroutine),
        ("registry full", lost.registry_full),
        ("census read fault", lost.census_read_fault),
        ("stack cut", lost.stack_cut),
        ("stack unknown", lost.stack_unknown),
        ("groups dropped", lost.groups_dropped),
    ]
    .iter()
    .filter(|(_, count)| *count > 0)
    .map(|(cause, count)| format!("{count} ({cause})"))
    .collect();
    if causes.is_empty() { "nothing".to_owned() } else { causes.join(", ") }
}
