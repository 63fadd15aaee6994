//! The timeline as text for a terminal or a ticket.

use std::fmt::Write as _;

use super::headline::many;
use super::{GroupLine, Life, RuntimeLines, Timeline, lives};
use crate::detect::Verdict;
use crate::words::group::GroupText;
use crate::words::numbers::{self, bytes, number, rate, span};
use crate::words::{blocker, printable};

/// Groups told of; the others are summed in one line.
const MAX_GROUPS_SHOWN: usize = 12;

/// Incidents told of with who waited for whom.
const MAX_INCIDENTS_SHOWN: usize = 5;

/// Frames shown of a stack.
const FRAMES_SHOWN: usize = 8;

/// Marks told of.
const MAX_MARKS_SHOWN: usize = 40;

/// The timeline for a person.
pub fn render(timeline: &Timeline) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = write_timeline(&mut out, timeline);
    out
}

fn write_timeline(out: &mut String, timeline: &Timeline) -> std::fmt::Result {
    writeln!(out, "{}\n", timeline.headline)?;
    let mut lives: Vec<(usize, &Life)> = timeline.lives.iter().enumerate().collect();
    lives.sort_by_key(|(_, life)| life.culprit.is_none());
    for (index, life) in lives {
        write_life(out, life)?;
        write_culprit(out, timeline, index, life)?;
    }
    writeln!(out, "\nwhat happened (UTC)")?;
    let mut happened: Vec<(u64, String)> = timeline.marks.iter().map(|mark| (mark.ms, printable(&mark.text))).collect();
    happened.extend(timeline.gaps.iter().map(|gap| {
        let what = if gap.blind { "gap" } else { "less seen" };
        let cause = gap.cause.to_string().replace('_', " ");
        (gap.from_ms, format!("{what} until {}: {cause}, {}", numbers::full(gap.to_ms), printable(&gap.text)))
    }));
    happened.sort();
    for (ms, what) in happened.iter().take(MAX_MARKS_SHOWN) {
        writeln!(out, "  {}  {what}", numbers::full(*ms))?;
    }
    if happened.len() > MAX_MARKS_SHOWN {
        writeln!(out, "  and {} more", happened.len() - MAX_MARKS_SHOWN)?;
    }
    for incident in timeline.incidents.iter().take(MAX_INCIDENTS_SHOWN) {
        let until = incident.until();
        writeln!(
            out,
            "\nINCIDENT {}; from {} until {until}",
            printable(&incident.headline),
            numbers::full(incident.from_ms)
        )?;
        for line in incident.chain(&timeline.groups) {
            writeln!(out, "  {}", printable(&line))?;
        }
    }
    let told = |group: &&GroupLine| group.strongest > Some(Verdict::Idle) || group.onset.is_some();
    let groups: Vec<&GroupLine> = timeline.groups.iter().filter(told).collect();
    for group in groups.iter().take(MAX_GROUPS_SHOWN) {
        write_group(out, group)?;
    }
    let others = timeline.groups.len() - groups.len().min(MAX_GROUPS_SHOWN);
    writeln!(out, "\n{others} more group{} that did not grow or are smaller.", if others == 1 { "" } else { "s" })?;
    for note in &timeline.notes {
        writeln!(out, "{note}")?;
    }
    Ok(())
}

fn write_life(out: &mut String, life: &Life) -> std::fmt::Result {
    let what = [
        Some(printable(&life.go_version)),
        life.pod_name.as_ref().map(|pod| format!("pod {}", printable(pod))),
        life.pod_uid.as_ref().filter(|_| life.pod_name.is_none()).map(|pod| format!("pod {}", printable(pod))),
        life.container.as_ref().map(|id| format!("container {}", printable(id).chars().take(12).collect::<String>())),
        life.unit.as_ref().map(|unit| printable(unit)),
        life.memory_limit_bytes.map(|limit| format!("limit {}", bytes(limit))),
    ];
    let what: Vec<String> = what.into_iter().flatten().collect();
    writeln!(out, "pid {} {} on {} ({})", life.pid, printable(&life.exe), printable(&life.host), what.join(", "))?;
    let looks: usize = life.segments.iter().map(|segment| segment.ms.len()).sum();
    if let Some((first, last)) = lives::extent(life) {
        let live = life.segments.last().and_then(|segment| segment.live.last()).copied().unwrap_or(0);
        let rss = life.segments.last().and_then(|segment| segment.rss_bytes.last()).copied().flatten();
        writeln!(
            out,
            "  {} to {}, {looks} looks every {} s; {}{} at the last",
            numbers::full(first),
            numbers::full(last),
            life.interval_seconds,
            many(live),
            rss.map(|rss| format!(" and {}", bytes(rss))).unwrap_or_default(),
        )?;
    }
    if let Some(runtime) = life.segments.last().and_then(|segment| segment.runtime.as_ref()) {
        write_runtime(out, runtime)?;
    }
    if let Some(ended) = &life.ended {
        writeln!(out, "  ended with {} at {} ({})", ended.how, numbers::full(ended.ms), printable(&ended.evidence))?;
    }
    Ok(())
}

/// What leaked in a process most.
fn write_culprit(out: &mut String, timeline: &Timeline, index: usize, life: &Life) -> std::fmt::Result {
    let culprit = life.culprit.and_then(|group| timeline.groups.get(group));
    let Some((group, of)) = culprit.and_then(|group| Some((group, group.in_life(index)?))) else { return Ok(()) };
    let since = match of.onset {
        Some(onset) if onset.before_first_look => format!(" since before {}", numbers::full(onset.latest_ms)),
        Some(onset) => format!(" since {}", numbers::full(onset.ms)),
        None => String::new(),
    };
    writeln!(out, "  leaked {}, {} of them of {}{since}", many(life.leaked), number(of.parked_at_end), group.who())
}

/// The runtime at the last look, and the worst of the time without a gap before it.
fn write_runtime(out: &mut String, runtime: &RuntimeLines) -> std::fmt::Result {
    fn last<T: Copy>(line: &[Option<T>]) -> Option<T> {
        line.last().copied().flatten()
    }
    let most = |line: &[Option<f64>]| line.iter().flatten().copied().reduce(f64::max);
    let Some(live) = last(&runtime.heap_live_bytes) else { return Ok(()) };
    let parts = [
        Some(format!("heap {} live", bytes(live))),
        last(&runtime.heap_goal_bytes).map(|goal| format!("goal {}", bytes(goal))),
        last(&runtime.memory_limit_bytes).map(|limit| format!("GOMEMLIMIT {}", bytes(limit))),
        most(&runtime.gc_cpu_share).map(|share| format!("GC {:.1} % of the CPU at most", 100.0 * share)),
        most(&runtime.longest_pause_ms).map(|ms| format!("longest pause {ms:.2} ms")),
        last(&runtime.runnable).map(|count| format!("{} runnable", number(count))),
        most(&runtime.latency_p99_ms).map(|ms| format!("scheduling latency (p99) {ms:.2} ms at most")),
        last(&runtime.threads).map(|count| format!("{} threads", number(count))),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    writeln!(out, "  runtime: {}", parts.join(", "))
}

fn write_group(out: &mut String, group: &GroupLine) -> std::fmt::Result {
    let verdict = group.strongest.map_or("-".to_owned(), |verdict| verdict.to_string().to_uppercase());
    let growth = group.growth_per_second.map(|growth| format!(", +{}", rate(growth))).unwrap_or_default();
    writeln!(out, "\n{verdict} {} [{}]{growth}", many(group.at_end), printable(&group.wait_reason))?;
    let onset = group.onset.map(|onset| {
        let since = if onset.before_first_look { "before the first look, by its growth " } else { "" };
        let (at, earliest, latest) = (onset.ms, onset.earliest_ms, onset.latest_ms);
        let width = span(latest.saturating_sub(earliest));
        format!(
            "{since}{} (between {} and {}, {width})",
            numbers::full(at),
            numbers::full(earliest),
            numbers::full(latest)
        )
    });
    let text = GroupText {
        created_by: Some(group.who()),
        runs: Some(&group.start_function),
        blocked_at: Some(blocker(group.blocked_at.as_ref())),
        onset,
        cause: group.cause.as_deref(),
        remedy: group.remedy.as_deref(),
        evidence: &group.evidence,
        stack: &group.stack,
        frames: FRAMES_SHOWN,
        ..GroupText::default()
    };
    text.write(out)
}
