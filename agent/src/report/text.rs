//! The report as text for a terminal.

use std::fmt::Write as _;

use super::{Group, LabelValues, Lost, Proofs, Reach, Report, Shown};
use crate::cause::wait::{C_CALL, RUNNING, SYSCALL};
use crate::detect::Verdict;
use crate::words::group::GroupText;
use crate::words::numbers::{bytes, signed_rate};
use crate::words::{Place, aligned, blocker, creator, goroutines, printable, short, whose, within};

/// Incidents shown.
const MAX_INCIDENTS_SHOWN: usize = 5;

/// Columns of a function's name and its place in the table.
const PLACE_WIDTH: usize = 60;

/// Goroutines at one place that are always told of in the summary.
const MANY: u64 = 1000;
/// Of a program with so many goroutines also half of them.
const FEW: u64 = 10;
/// Of one with more, each place where so many stand, if they are a tenth.
const SOME: u64 = 100;

/// The report for a person: what hangs together, all groups as a table, and the worst of them in full.
pub fn render(report: &Report, shown: &Shown) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = write_report(&mut out, report, shown);
    out
}

/// One group in full, of a program whose main module has this path.
pub fn render_group(group: &Group, module: Option<&str>, shown: &Shown) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = write_group(&mut out, group, module, shown);
    out
}

fn write_report(out: &mut String, report: &Report, shown: &Shown) -> std::fmt::Result {
    write_head(out, report, shown)?;
    if report.groups.is_empty() {
        let threshold = report.observed.threshold_seconds;
        return writeln!(out, "\nNo goroutine has been parked longer than {threshold:.1} s.");
    }
    write_incidents(out, report, shown)?;
    let groups: Vec<&Group> = report.worst_first().into_iter().filter(|group| shown.filter.fits(group)).collect();
    if groups.is_empty() {
        writeln!(out, "\nNone of the {} groups is one that was asked for.", report.groups.len())?;
    } else {
        write_table(out, &groups, shown)?;
    }
    let full: Vec<&&Group> = groups.iter().filter(|group| shown.all || group.verdict > Verdict::Idle).collect();
    for group in full.iter().take(shown.details) {
        write_group(out, group, report.target.module.as_deref(), shown)?;
    }
    if shown.details > 0
        && let Some(rest @ [_, ..]) = full.get(shown.details..)
    {
        let are = if rest.len() == 1 { "group is" } else { "groups are" };
        writeln!(out, "\n{} more {are} told in full by --details, and by --format json.", rest.len())?;
    }
    write_summary(out, report)
}

fn write_incidents(out: &mut String, report: &Report, shown: &Shown) -> std::fmt::Result {
    let pid = report.target.pid;
    for incident in report.incidents.iter().take(MAX_INCIDENTS_SHOWN) {
        let times = if incident.times > 1 { format!(" ({} times)", incident.times) } else { String::new() };
        writeln!(out, "\n{} {}{times}.", shown.heading("INCIDENT"), printable(&incident.headline))?;
    }
    match report.incidents.len().saturating_sub(MAX_INCIDENTS_SHOWN) {
        0 if report.incidents.is_empty() => Ok(()),
        0 => writeln!(
            out,
            "  counted when they were found, the groups below at the end; who waits for whom: parkwarden why --pid {pid}"
        ),
        more => writeln!(out, "… and {more} more incidents: parkwarden why --pid {pid}"),
    }
}

/// A line for each group, the worst first.
fn write_table(out: &mut String, groups: &[&Group], shown: &Shown) -> std::fmt::Result {
    let titles = ["COUNT", "GROWTH", "PARKED", "HELD", "WAITS", "WHERE", "MADE BY"].map(str::to_owned);
    let mut rows = vec![titles];
    for group in groups.iter().take(shown.rows) {
        rows.push([
            of_proven(group).unwrap_or_else(|| group.count.to_string()),
            signed_rate(group.growth_per_second),
            short::time(group.parked_seconds.max),
            bytes(super::held(group)),
            printable(&group.wait_reason),
            place(group.in_program.as_ref().or(group.blocked_at.as_ref())),
            place(group.created_by.as_ref()),
        ]);
    }
    let verdicts = groups.iter().map(|group| shown.verdict(group.verdict, VERDICT_WIDTH));
    let firsts = std::iter::once(format!("{:<VERDICT_WIDTH$}", "VERDICT")).chain(verdicts);
    writeln!(out)?;
    for (index, (first, line)) in firsts.zip(aligned(&rows)).enumerate() {
        let line = shown
            .width
            .map_or_else(|| line.clone(), |width| short::cut(&line, width.saturating_sub(VERDICT_WIDTH + 2)));
        let line = format!("{first}  {line}");
        writeln!(out, "{}", if index == 0 { shown.heading(&line) } else { line })?;
    }
    match groups.get(shown.rows..) {
        Some(rest @ [_, ..]) => {
            let count: u64 = rest.iter().map(|group| group.count).sum();
            writeln!(out, "… and {} more groups with {count} goroutines (--top N for more of them)", rest.len())
        }
        _ => Ok(()),
    }
}

/// How many of a group are proven, where they are not all of them.
fn of_proven(group: &Group) -> Option<String> {
    let Group { proven, count, .. } = group;
    (1..*count).contains(proven).then(|| format!("{proven} of {count}"))
}

/// Columns of a verdict in the table.
const VERDICT_WIDTH: usize = 7;

/// A place in a column.
pub(crate) fn place(place: Option<&Place>) -> String {
    let Some(place) = place else { return "(runtime)".to_owned() };
    short::cut(&place.short(), PLACE_WIDTH)
}

fn write_head(out: &mut String, report: &Report, shown: &Shown) -> std::fmt::Result {
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
    write!(out, "  watched {:.1} s: {} created, {} exited", observed.seconds, events.created, events.exited,)?;
    // Of mode trace.
    if events.parked + events.readied > 0 {
        write!(out, ", {} parked, {} readied", events.parked, events.readied)?;
    }
    // Of mode filter: what it streams instead of parks and wake-ups.
    if events.waited > 0 {
        write!(out, ", {} long waits ended", events.waited)?;
    }
    writeln!(out, "; lost {}", losses(&observed.lost))?;
    if !shown.all {
        return write_watching(out, report);
    }
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
    write_watching(out, report)
}

/// What watching has cost, and the goroutines it saw.
fn write_watching(out: &mut String, report: &Report) -> std::fmt::Result {
    let observed = &report.observed;
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
    Ok(())
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

fn write_group(out: &mut String, group: &Group, module: Option<&str>, shown: &Shown) -> std::fmt::Result {
    writeln!(
        out,
        "\n{} {} [{}], {} {} to {}, {}, {} of stacks{}",
        shown.verdict(group.verdict, 6),
        of_proven(group).map_or_else(|| goroutines(group.count), |of| format!("{of} goroutines")),
        printable(&group.wait_reason),
        if [SYSCALL, C_CALL, RUNNING].contains(&group.wait_reason.as_str()) { "for" } else { "parked" },
        short::time(group.parked_seconds.min),
        short::time(group.parked_seconds.max),
        signed_rate(group.growth_per_second),
        bytes(group.stack_bytes),
        group.heap_bytes.map_or_else(String::new, |heap| format!(", {} of heap", bytes(heap))),
    )?;
    let text = GroupText {
        created_by: Some(creator(group.created_by.as_ref())),
        started_by: group.started_by.lines(module),
        labels: group.labels.iter().map(LabelValues::line).collect(),
        runs: Some(&group.start_function),
        blocked_at: (group.wait_reason != RUNNING).then(|| blocker(group.blocked_at.as_ref())),
        in_program: within(group.in_program.as_ref(), group.blocked_at.as_ref()),
        cause: group.cause.as_ref().map(|cause| cause.sentence.as_str()),
        remedy: group.cause.as_ref().map(|cause| cause.remedy.as_str()),
        evidence: &group.evidence,
        stack: if shown.all || group.verdict > Verdict::Idle { &group.stack } else { &[] },
        frames: shown.frames,
        ..GroupText::default()
    };
    text.write(out)
}

fn write_summary(out: &mut String, report: &Report) -> std::fmt::Result {
    let groups = report.worst_first();
    let of = |wanted: fn(Verdict) -> bool| groups.iter().copied().filter(move |group| wanted(group.verdict));
    let leaks: Vec<&Group> = of(Verdict::is_leak).collect();
    let stuck: Vec<&Group> = of(|verdict| verdict == Verdict::Stuck).collect();
    let sum = |groups: &[&Group]| groups.iter().map(|group| group.count).sum::<u64>();
    let in_groups =
        |groups: &[&Group]| format!("in {} group{}", groups.len(), if groups.len() == 1 { "" } else { "s" });
    if let Some(worst) = leaks.first() {
        writeln!(
            out,
            "\n{} goroutines {} are leaked or behave like it{}; the worst, {}, is {}",
            sum(&leaks),
            in_groups(&leaks),
            match leaks.iter().map(|group| group.proven).sum::<u64>() {
                0 => String::new(),
                proven => format!(", {proven} of them proven"),
            },
            goroutines(worst.count),
            whose(worst.created_by.as_ref(), worst.in_program.as_ref(), &worst.start_function)
        )?;
        super::memory::write(out, report)?;
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
    let much = |group: &&Group| {
        group.count >= MANY || own >= FEW && 2 * group.count >= own || group.count >= SOME && 10 * group.count >= own
    };
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

/// What was lost, in words.
pub(crate) fn losses(lost: &Lost) -> String {
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

#[cfg(test)]
mod tests {
    use super::super::shown::tests::group;
    use super::*;

    #[test]
    fn who_is_proven_is_told_from_who_came_later() {
        let some = Group { proven: 126, ..group("main.serve", "chan send", Verdict::Proven, 151) };
        let all = Group { proven: 151, ..some.clone() };
        let mut out = String::new();
        write_table(&mut out, &[&some, &all], &Shown::default()).expect("a String");
        write_group(&mut out, &some, None, &Shown::default()).expect("a String");
        assert!(out.contains("\nPROVEN   126 of 151  ") && out.contains("\nPROVEN   151         "), "{out}");
        assert!(out.contains("\nPROVEN 126 of 151 goroutines [chan send], parked"), "{out}");
    }
}
