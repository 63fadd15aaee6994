//! The report as text for a terminal.

use std::fmt::Write as _;

use super::{Group, Lost, Proofs, Reach, Report};
use crate::cause::wait::{C_CALL, RUNNING, SYSCALL};
use crate::detect::Verdict;
use crate::words::group::GroupText;
use crate::words::numbers::{bytes, signed_rate};
use crate::words::{blocker, creator, goroutines, printable, whose, within};

/// Groups shown in full; the others are summed in one line.
const MAX_GROUPS_SHOWN: usize = 20;

/// Frames of a blocking stack shown.
const MAX_FRAMES_SHOWN: usize = 12;

/// Goroutines at one place that are always told of in the summary.
const MANY: u64 = 1000;
/// Of a program with so many goroutines also half of them.
const FEW: u64 = 20;

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
    if let Some(reach) = &observed.reach {
        write_reach(out, reach)?;
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
    for sign in report.runtime.iter().flat_map(|runtime| &runtime.signs) {
        writeln!(out, "  unusual: {}: {}", sign.rule, printable(&sign.says))?;
    }
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

fn write_reach(out: &mut String, reach: &Reach) -> std::fmt::Result {
    let looks = if reach.taken == 1 { "look" } else { "looks" };
    let cpu = reach.cpu_seconds;
    write!(out, "  {} {looks} at what it can still reach, without a stop, took parkwarden {cpu:.2} s", reach.taken)?;
    match &reach.refusal {
        Some(refusal) => writeln!(out, "; {} given up, the last because {}", reach.refused, printable(refusal)),
        None => writeln!(out),
    }
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
        "\n{:<6} {} [{}], {} {:.1} to {:.1} s, {}, {} of stacks{}",
        group.verdict.to_string().to_uppercase(),
        goroutines(group.count),
        printable(&group.wait_reason),
        if [SYSCALL, C_CALL, RUNNING].contains(&group.wait_reason.as_str()) { "for" } else { "parked" },
        group.parked_seconds.min,
        group.parked_seconds.max,
        signed_rate(group.growth_per_second),
        bytes(group.stack_bytes),
        group.heap_bytes.map_or_else(String::new, |heap| format!(", {} of heap", bytes(heap))),
    )?;
    let text = GroupText {
        created_by: Some(creator(group.created_by.as_ref())),
        runs: Some(&group.start_function),
        blocked_at: Some(blocker(group.blocked_at.as_ref())),
        in_program: within(group.in_program.as_ref(), group.blocked_at.as_ref()),
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
    let of = |wanted: fn(Verdict) -> bool| report.groups.iter().filter(move |group| wanted(group.verdict));
    let leaks: Vec<&Group> = of(Verdict::is_leak).collect();
    let stuck: Vec<&Group> = of(|verdict| verdict == Verdict::Stuck).collect();
    let sum = |groups: &[&Group]| groups.iter().map(|group| group.count).sum::<u64>();
    let in_groups =
        |groups: &[&Group]| format!("in {} group{}", groups.len(), if groups.len() == 1 { "" } else { "s" });
    if let Some(largest) = leaks.first() {
        writeln!(
            out,
            "\n{} goroutines {} are leaked or behave like it{}; the largest is {}",
            sum(&leaks),
            in_groups(&leaks),
            match leaks.iter().map(|group| group.proven).sum::<u64>() {
                0 => String::new(),
                proven => format!(", {proven} of them proven"),
            },
            whose(largest.created_by.as_ref(), largest.in_program.as_ref(), &largest.start_function)
        )?;
    }
    if let Some(largest) = stuck.first() {
        writeln!(
            out,
            "\n{} {} {} stuck; the largest is {}",
            goroutines(sum(&stuck)),
            in_groups(&stuck),
            if sum(&stuck) == 1 { "is" } else { "are" },
            whose(largest.created_by.as_ref(), largest.in_program.as_ref(), &largest.start_function)
        )?;
    }
    if leaks.is_empty() && stuck.is_empty() {
        writeln!(out, "\nNo group behaves like a leak.")?;
    }
    write_standing(out, report)
}

/// What stands still in great number is told of, whatever its verdict: that nothing grows does not mean that all is well.
fn write_standing(out: &mut String, report: &Report) -> std::fmt::Result {
    let own = report.goroutines.live.saturating_sub(report.goroutines.system);
    let much = |group: &&Group| group.count >= MANY || own >= FEW && 2 * group.count >= own;
    let idle = report.groups.iter().filter(|group| group.verdict == Verdict::Idle && !group.loops);
    let standing: Vec<&Group> = idle.filter(much).collect();
    let Some(largest) = standing.first() else { return Ok(()) };
    let count: u64 = standing.iter().map(|group| group.count).sum();
    writeln!(
        out,
        "{count} of {own} goroutines have stood at {} place{} for {:.1} s or longer, most of them at {} [{}]",
        standing.len(),
        if standing.len() == 1 { "" } else { "s" },
        standing.iter().map(|group| group.parked_seconds.min).fold(f64::INFINITY, f64::min),
        blocker(largest.blocked_at.as_ref()),
        printable(&largest.wait_reason)
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
