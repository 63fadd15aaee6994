//! Processes on the axis: their looks in segments, their lanes.

use std::collections::HashMap;

use super::axis::Axis;
use super::{Counts, Ended, Life, RuntimeLines, Segment};
use crate::detect::Verdict;
use crate::record::{History, RuntimeSample, Sample};

/// Looks of one process in a document; of more, those with the most goroutines stand for their neighbours.
pub const MAX_POINTS: usize = 600;

/// Which row of the document what a history counts goes to; none for those summed as others.
pub struct Rows {
    /// By index of the history's site.
    pub sites: Vec<Option<usize>>,
    /// By index of the history's group.
    pub groups: Vec<Option<usize>>,
    /// The row of everything else.
    pub other: Option<usize>,
}

/// One process, its lane and what leaks in it yet to be found.
pub fn life(history: &History, axis: &Axis, rows: &Rows) -> Life {
    let process = history.process.clone();
    let ms = |mono_ns| axis.ms(history.boot, mono_ns);
    let last = history.watches.last();
    let seconds = |ns: Option<u64>| ns.unwrap_or_default() as f64 / 1e9;
    let groups = || last.and_then(|watch| watch.samples.last()).into_iter().flat_map(|look| &look.groups);
    let parked = |wanted: fn(Verdict) -> bool| {
        groups().filter(|(.., verdict)| verdict.is_some_and(wanted)).map(|(_, _, parked, _)| parked).sum()
    };
    Life {
        pid: process.pid,
        exe: process.exe,
        go_version: process.go_version,
        arch: process.arch,
        host: history.host.clone(),
        container: process.container,
        pod_uid: process.pod_uid,
        pod_name: process.pod_name,
        pod_namespace: process.pod_namespace,
        unit: process.unit,
        memory_limit_bytes: process.memory_limit_bytes,
        started_ms: process.started.map(|at| ms(at.mono_ns)),
        ended: history.exit.as_ref().map(|exit| Ended {
            ms: ms(exit.at.mono_ns),
            kind: exit.kind,
            how: exit.kind.ending(),
            label: exit.kind.label(),
            evidence: exit.evidence.clone(),
        }),
        leaked: parked(Verdict::is_leak),
        stuck: parked(|verdict| verdict == Verdict::Stuck),
        culprit: None,
        interval_seconds: seconds(last.map(|watch| watch.interval_ns)),
        threshold_seconds: seconds(last.map(|watch| watch.threshold_ns)),
        lane: 0,
        segments: segments(history).iter().map(|samples| segment(samples, history, axis, rows)).collect(),
    }
}

/// The looks between which nothing is missing.
fn segments(history: &History) -> Vec<Vec<&Sample>> {
    let total: usize = history.watches.iter().map(|watch| watch.samples.len()).sum();
    let per_point = total.div_ceil(MAX_POINTS).max(1);
    let mut segments = Vec::new();
    for watch in &history.watches {
        let mut segment: Vec<&Sample> = Vec::new();
        for sample in &watch.samples {
            let blind = segment.last().is_some_and(|before| {
                history.gaps.iter().any(|gap| {
                    gap.cause.is_blind() && gap.from.mono_ns >= before.at.mono_ns && gap.to.mono_ns <= sample.at.mono_ns
                })
            });
            if blind {
                segments.push(std::mem::take(&mut segment));
            }
            segment.push(sample);
        }
        segments.push(segment);
    }
    segments.retain(|segment| !segment.is_empty());
    segments.into_iter().map(|segment| sparser(&segment, per_point)).collect()
}

/// One look of each so many, the first and the last of all among them.
fn sparser<'a>(samples: &[&'a Sample], per_point: usize) -> Vec<&'a Sample> {
    let [first, between @ .., last] = samples else { return samples.to_vec() };
    let chosen = between.chunks(per_point).filter_map(|some| some.iter().max_by_key(|sample| sample.live));
    std::iter::once(first).chain(chosen).chain(std::iter::once(last)).copied().collect()
}

fn segment(samples: &[&Sample], history: &History, axis: &Axis, rows: &Rows) -> Segment {
    let mut sites: HashMap<usize, Vec<u64>> = HashMap::new();
    let mut groups: HashMap<usize, Vec<u64>> = HashMap::new();
    let mut segment = Segment::default();
    let mut before: Option<&Sample> = None;
    for (index, sample) in samples.iter().enumerate() {
        segment.ms.push(axis.ms(history.boot, sample.at.mono_ns));
        segment.live.push(sample.live);
        segment.parked.push(sample.parked);
        // One that is being killed has given its memory back and is still there: how much it had is not known any more.
        segment.rss_bytes.push(sample.usage.map(|usage| usage.rss_bytes).filter(|rss| *rss > 0));
        segment.cpus.push(before.and_then(|before| cpus(before, sample)));
        before = Some(sample);
        let add = |counts: &mut HashMap<usize, Vec<u64>>, row: usize, count: u64| {
            if let Some(sum) = counts.entry(row).or_insert_with(|| vec![0; samples.len()]).get_mut(index) {
                *sum += count;
            }
        };
        let mut listed = 0;
        for (site, live, ..) in &sample.sites {
            if let Some(row) = rows.sites.get(*site).copied().flatten() {
                add(&mut sites, row, *live);
                listed += live;
            }
        }
        if let Some(other) = rows.other
            && sample.live > listed
        {
            add(&mut sites, other, sample.live - listed);
        }
        for (group, waiting, ..) in &sample.groups {
            if let Some(row) = rows.groups.get(*group).copied().flatten() {
                add(&mut groups, row, *waiting);
            }
        }
    }
    segment.runtime = samples.iter().any(|sample| sample.runtime.is_some()).then(|| runtime(samples));
    segment.sites = in_order(sites);
    segment.groups = in_order(groups);
    segment
}

fn runtime(samples: &[&Sample]) -> RuntimeLines {
    let mut lines = RuntimeLines::default();
    let ms = |ns: u64| (ns as f64 / 1e3).round() / 1e3;
    let mut before: Option<RuntimeSample> = None;
    for now in samples.iter().map(|sample| sample.runtime) {
        lines.heap_live_bytes.push(now.map(|now| now.heap_live_bytes));
        lines.heap_goal_bytes.push(now.and_then(|now| now.heap_goal_bytes));
        lines.memory_limit_bytes.push(now.and_then(|now| now.memory_limit_bytes));
        lines.gc_cpu_share.push(before.zip(now).and_then(|(before, now)| gc_share(before, now)));
        lines.longest_pause_ms.push(now.and_then(|now| now.longest_pause_ns).map(ms));
        lines.runnable.push(now.map(|now| now.runnable));
        lines.latency_p99_ms.push(now.and_then(|now| now.latency_p99_ns).map(ms));
        lines.threads.push(now.map(|now| now.threads));
        before = now;
    }
    lines
}

fn gc_share(before: RuntimeSample, now: RuntimeSample) -> Option<f64> {
    let passed = now.available_cpu_ns.saturating_sub(before.available_cpu_ns);
    let used = now.gc_cpu_ns.saturating_sub(before.gc_cpu_ns);
    (passed > 0).then(|| (used as f64 / passed as f64 * 1e4).round() / 1e4)
}

fn in_order(counts: HashMap<usize, Vec<u64>>) -> Vec<Counts> {
    let mut rows: Vec<Counts> = counts.into_iter().map(|(of, counts)| Counts { of, counts }).collect();
    rows.sort_by_key(|row| row.of);
    rows
}

fn cpus(before: &Sample, now: &Sample) -> Option<f64> {
    let used = now.usage?.cpu_ns.saturating_sub(before.usage?.cpu_ns) as f64;
    let passed = now.at.mono_ns.saturating_sub(before.at.mono_ns) as f64;
    (passed > 0.0).then(|| (used / passed * 1000.0).round() / 1000.0)
}

/// Where a life begins and ends on the axis.
pub fn extent(life: &Life) -> Option<(u64, u64)> {
    let first = *life.segments.first()?.ms.first()?;
    let last = *life.segments.last()?.ms.last()?;
    Some((first, life.ended.as_ref().map_or(last, |ended| ended.ms.max(last))))
}

/// Puts each life into the first lane that is free. Lives are in the order they began.
pub fn assign_lanes(lives: &mut [Life]) {
    let mut lanes: Vec<u64> = Vec::new();
    for life in lives {
        let Some((first, last)) = extent(life) else { continue };
        let free = lanes.iter().position(|until| *until <= first).unwrap_or(lanes.len());
        match lanes.get_mut(free) {
            Some(until) => *until = last,
            None => lanes.push(last),
        }
        life.lane = free;
    }
}
