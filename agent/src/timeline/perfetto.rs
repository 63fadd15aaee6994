//! A timeline as a trace: counters by creation site and by group, memory and CPU, what happened as instants, gaps and
//! some of the leaked goroutines as slices.

use std::io::{self, Write};

use serde_json::json;

use super::trace::{Trace, Track};
use super::{Segment, Timeline};
use crate::detect::Verdict;
use crate::words::printable;

/// Threads of a process in the trace that are no goroutines; goroutines follow.
const GAPS: u64 = 1;

/// Writes the trace.
pub fn render(timeline: &Timeline, out: impl Write) -> io::Result<()> {
    let mut trace = Trace::new(out)?;
    for (index, life) in timeline.lives.iter().enumerate() {
        let pid = pid(index);
        trace.process(pid, &format!("{} pid {}", printable(&life.exe), life.pid))?;
        trace.thread(Track { pid, tid: GAPS }, "gaps")?;
        for segment in &life.segments {
            counters(&mut trace, timeline, pid, segment)?;
        }
    }
    for mark in &timeline.marks {
        trace.instant(Track { pid: pid(mark.life), tid: GAPS }, &printable(&mark.text), us(mark.ms))?;
    }
    for gap in &timeline.gaps {
        let track = Track { pid: pid(gap.life), tid: GAPS };
        let name = gap.cause.to_string().replace('_', " ");
        let args = json!({"detail": printable(&gap.text), "blind": gap.blind});
        trace.slice(track, &name, us(gap.from_ms), us(gap.to_ms.saturating_sub(gap.from_ms)), args)?;
    }
    for group in &timeline.groups {
        // Of those that leak it is a mark.
        if let Some(onset) = group.onset.filter(|_| !group.strongest.is_some_and(Verdict::is_leak)) {
            let track = Track { pid: pid(group.life), tid: GAPS };
            trace.instant(track, &format!("onset of {}", group.who()), us(onset.ms))?;
        }
        for example in &group.examples {
            let track = Track { pid: pid(example.life), tid: GAPS + example.goid };
            trace.thread(track, &format!("goroutine {}", example.goid))?;
            if let Some(created) = example.created_ms {
                let lasted = us(example.parked_ms.saturating_sub(created));
                trace.slice(track, "created", us(created), lasted, json!({"by": group.who()}))?;
            }
            let name = format!("parked: {}", printable(&group.wait_reason));
            let lasted = us(example.seen_ms.saturating_sub(example.parked_ms));
            trace.slice(track, &name, us(example.parked_ms), lasted, json!({"seen": example.exact}))?;
        }
    }
    trace.finish()
}

fn counters(trace: &mut Trace<impl Write>, timeline: &Timeline, pid: u64, segment: &Segment) -> io::Result<()> {
    let numbers = |counts: &[u64]| counts.iter().map(|count| Some(*count as f64)).collect::<Vec<_>>();
    let mut tracks = vec![
        ("goroutines".to_owned(), numbers(&segment.live)),
        ("parked long".to_owned(), numbers(&segment.parked)),
        ("memory (bytes)".to_owned(), segment.rss_bytes.iter().map(|rss| rss.map(|rss| rss as f64)).collect()),
        ("CPUs".to_owned(), segment.cpus.clone()),
    ];
    if let Some(runtime) = &segment.runtime {
        let counts = |counts: &[Option<u64>]| counts.iter().map(|count| count.map(|count| count as f64)).collect();
        tracks.extend([
            ("heap live (bytes)".to_owned(), counts(&runtime.heap_live_bytes)),
            ("heap goal (bytes)".to_owned(), counts(&runtime.heap_goal_bytes)),
            ("GC share of the CPU".to_owned(), runtime.gc_cpu_share.clone()),
            ("longest GC pause (ms)".to_owned(), runtime.longest_pause_ms.clone()),
            ("runnable".to_owned(), counts(&runtime.runnable)),
            ("latency p99 (ms)".to_owned(), runtime.latency_p99_ms.clone()),
            ("threads".to_owned(), counts(&runtime.threads)),
        ]);
    }
    for counts in &segment.sites {
        if let Some(site) = timeline.sites.get(counts.of) {
            let at = site.created_by.as_ref().map(|place| format!(":{}", place.line)).unwrap_or_default();
            tracks.push((format!("site {}{at}", printable(&site.name)), numbers(&counts.counts)));
        }
    }
    for counts in &segment.groups {
        if let Some(group) = timeline.groups.get(counts.of) {
            let name = format!("group {} {} [{}]", counts.of, group.who(), printable(&group.wait_reason));
            tracks.push((name, numbers(&counts.counts)));
        }
    }
    for (name, values) in &tracks {
        for (ms, value) in segment.ms.iter().zip(values) {
            if let Some(value) = value {
                trace.counter(pid, name, us(*ms), *value)?;
            }
        }
    }
    Ok(())
}

/// Process 0 is nobody's in a trace.
fn pid(life: usize) -> u64 {
    life as u64 + 1
}

fn us(ms: u64) -> f64 {
    ms as f64 * 1000.0
}
