//! What the agent knows as Prometheus metrics, made anew for each scrape: the series of a process go with it.
//!
//! The names in labels are the watched programs' words: they are shortened, and how many series there are is limited.

pub mod definitions;
#[cfg(test)]
mod golden;
pub mod openmetrics;
pub mod runtime;
mod scrape;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus::{Encoder as _, TextEncoder};
use strum::VariantNames as _;

use crate::config::node::{Limits, Metrics};
use crate::detect::Verdict;
use crate::discover::usage::ProcessNumbers;
use crate::export::http::HttpNumbers;
use crate::kube::{EventCounts, PodsStatus};
use crate::node::totals::{EndKey, SECONDS, Totals};
use crate::node::{Node, NodeProcess, WatchState};
use crate::record;
use crate::registry::durations::BOUNDS_NS;
use crate::report::{Group, Report, Runtime};
use definitions::{
    AVAILABLE_CPU, BUILD, CENSUS, CONTRADICTED, CREATED, Definition, ENDS, EVENTS, EXITED, GC_CPU, GC_PAUSE,
    GOROUTINES, GROUP_LIMIT, GROUP_USED, HEAP_MARKED, HITS, HTTP_ANSWERS, HTTP_CONNECTIONS, INFO, KUBERNETES_ERRORS,
    KUBERNETES_EVENTS, KUBERNETES_UP, LABELLED, LATENCY, LEAKED, LEAKED_BYTES, LIMITER, LOOKED, LOSSES, MOVES, OLDEST,
    OVER_BUDGET, OVERHEAD_RATIO, OVERHEAD_SECONDS, PARK_DURATION, PARKED, PARKED_LONG, PAUSE, PROCESSES,
    PROOFS_REFUSED, RECORDING_BYTES, RECORDING_ERRORS, RECORDING_UP, REFUSED, RING_FILL, RUNNABLE, SERIES_DROPPED,
    STUCK, THROTTLED, UNSEEN, UNUSUAL,
};
use scrape::{Scrape, Value};

/// Numbers of the agent that no process has.
#[derive(Debug, Default)]
pub struct AgentNumbers {
    /// How recording goes, and how large the file is.
    pub recording: Option<(record::RecorderStatus, u64)>,
    /// How well pods are known.
    pub pods: Option<PodsStatus>,
    /// What became of Events.
    pub events: Option<EventCounts>,
    /// The agent's own pid, and what its process takes.
    pub process: Option<(u32, ProcessNumbers)>,
}

/// How a scrape is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// The text format of Prometheus.
    #[default]
    Text,
    /// OpenMetrics.
    OpenMetrics,
}

/// What lasts from scrape to scrape.
#[derive(Debug, Default)]
pub struct Exporter {
    dropped: AtomicU64,
}

impl Exporter {
    /// All metrics.
    pub fn render(
        &self,
        format: Format,
        node: &Node,
        limits: Limits,
        metrics: &Metrics,
        numbers: &AgentNumbers,
        http: Option<&HttpNumbers>,
    ) -> Vec<u8> {
        let mut scrape = Scrape::default();
        let processes = node.processes();
        let totals = node.totals();
        agent(&mut scrape, &totals, numbers, http);
        states(&mut scrape, &processes);
        scrape.add(&UNSEEN, &[], &Value::Number(node.unseen() as f64));
        ends(&mut scrape, totals.ends, &processes);
        let mut watched: Vec<(&NodeProcess, std::sync::Arc<Report>)> =
            processes.iter().filter_map(|process| Some((&**process, process.report()?))).collect();
        // If there are too many, the smallest are left out.
        watched.sort_by_key(|(process, report)| (std::cmp::Reverse(report.goroutines.live), process.key));
        let fill = watched.iter().map(|(_, report)| {
            let ring = report.observed.ring;
            if ring.size_bytes == 0 { 0.0 } else { ring.fill_max_bytes as f64 / ring.size_bytes as f64 }
        });
        scrape.add(&RING_FILL, &[], &Value::Number(fill.fold(0.0, f64::max)));
        let mut dropped = 0;
        let mut add = |of_process: Scrape| {
            if scrape.series() + of_process.series() < limits.series {
                scrape.append(of_process);
            } else {
                dropped += of_process.series() as u64;
            }
        };
        for (process, report) in &watched {
            let mut of_process = Scrape::default();
            labelled(process, |labels| of_watch(&mut of_process, labels, process, report, limits.groups));
            labelled(process, |labels| labels_of(&mut of_process, labels, report, &metrics.labels, limits.groups));
            add(of_process);
        }
        // What nobody else tells comes before what the program could export itself.
        for (process, report) in &watched {
            let mut of_runtime = Scrape::default();
            labelled(process, |labels| runtime::of_one(&mut of_runtime, labels, report, metrics));
            add(of_runtime);
        }
        let dropped = self.dropped.fetch_add(dropped, Ordering::Relaxed) + dropped;
        scrape.add(&SERIES_DROPPED, &[], &Value::Number(dropped as f64));
        if let Some((pid, process)) = &numbers.process {
            runtime::of_agent(&mut scrape, *pid, process);
        }
        let families = scrape.families();
        if format == Format::OpenMetrics {
            return openmetrics::encode(&families);
        }
        let mut text = Vec::new();
        if let Err(error) = TextEncoder::new().encode(&families, &mut text) {
            log::error!("the metrics cannot be written: {error}");
        }
        text
    }
}

fn agent(scrape: &mut Scrape, totals: &Totals, numbers: &AgentNumbers, http: Option<&HttpNumbers>) {
    let mut add =
        |definition, labels: &[&str], value: u64| scrape.add(definition, labels, &Value::Number(value as f64));
    add(&BUILD, &[env!("CARGO_PKG_VERSION")], 1);
    for (kind, count) in &totals.events {
        add(&EVENTS, &[kind], *count);
    }
    for (cause, count) in &totals.losses {
        add(&LOSSES, &[cause], *count);
    }
    for ((function, class), hits) in &totals.hits {
        add(&HITS, &[function, class], *hits);
    }
    add(&MOVES, &[], totals.moves);
    add(&PROOFS_REFUSED, &[], totals.proofs_refused);
    add(&CONTRADICTED, &[], totals.contradicted);
    if let Some((status, bytes)) = &numbers.recording {
        add(&RECORDING_BYTES, &[], *bytes);
        add(&RECORDING_UP, &[], u64::from(status.state == record::RecorderState::Recording));
        add(&RECORDING_ERRORS, &[], status.intervals_dropped);
    }
    if let Some(pods) = &numbers.pods {
        add(&KUBERNETES_UP, &[], u64::from(pods.connected));
        add(&KUBERNETES_ERRORS, &[], pods.watch_errors);
    }
    if let Some(EventCounts { written, repeated, dropped, failed }) = numbers.events {
        for (outcome, count) in [("written", written), ("repeated", repeated), ("dropped", dropped), ("failed", failed)]
        {
            add(&KUBERNETES_EVENTS, &[outcome], count);
        }
    }
    if let Some(http) = http {
        for (outcome, count) in http.connections() {
            add(&HTTP_CONNECTIONS, &[outcome], count);
        }
        for ((route, code), count) in http.answers() {
            add(&HTTP_ANSWERS, &[route, &code.to_string()], count);
        }
    }
    for (definition, times) in [(&CENSUS, &totals.censuses), (&PAUSE, &totals.pauses)] {
        scrape.add(definition, &[], &Value::Histogram(&SECONDS, &times.counts, times.sum));
    }
}

fn states(scrape: &mut Scrape, processes: &[std::sync::Arc<NodeProcess>]) {
    let mut states = BTreeMap::from(["starting", "watched", "unselected", "refused"].map(|state| (state, 0)));
    let mut reasons: BTreeMap<&str, u64> = BTreeMap::new();
    for process in processes {
        let state = process.state();
        if let WatchState::Refused { reason, .. } = &state {
            *reasons.entry(reason).or_default() += 1;
        }
        *states.entry(state.into()).or_default() += 1;
    }
    for (state, count) in states {
        scrape.add(&PROCESSES, &[state], &Value::Number(f64::from(count)));
    }
    for (reason, count) in reasons {
        scrape.add(&REFUSED, &[reason], &Value::Number(count as f64));
    }
}

/// How processes ended. A counter that begins with 1 has not grown for Prometheus: those that run have a 0.
fn ends(scrape: &mut Scrape, mut ends: BTreeMap<EndKey, u64>, processes: &[std::sync::Arc<NodeProcess>]) {
    for process in processes.iter().filter(|process| process.report().is_some()) {
        let kind = process.kind();
        for how in record::ExitKind::VARIANTS {
            ends.entry((kind.clone(), *how)).or_insert(0);
        }
    }
    for (([namespace, pod, container, exe], how), count) in ends {
        scrape.add(&ENDS, &[&namespace, &pod, &container, &exe, how], &Value::Number(count as f64));
    }
}

/// Calls `tell` with the values of the labels that say which process it is.
fn labelled(process: &NodeProcess, tell: impl FnOnce(&[&str])) {
    let workload = process.workload();
    let [namespace, pod, container] = workload.labels();
    tell(&[namespace, pod, container, process.exe_name(), &process.key.pid.to_string()]);
}

fn of_watch(scrape: &mut Scrape, process_labels: &[&str], process: &NodeProcess, report: &Report, max_groups: usize) {
    let workload = process.workload();
    let mut add = |definition: &'static Definition, own: &[&str], value: &Value<'_>| {
        scrape.add(definition, &[process_labels, own].concat(), value);
    };
    let (observed, goroutines) = (&report.observed, &report.goroutines);
    let owner = workload.owner.as_ref().map(|owner| format!("{}/{}", owner.kind, owner.name)).unwrap_or_default();
    let mode = observed.mode.to_string();
    let unit = workload.unit.as_deref().unwrap_or_default();
    let info = [report.target.go_version.as_str(), &mode, &owner, unit];
    add(&INFO, &info, &Value::Number(1.0));
    for (reason, count) in &goroutines.by_wait_reason {
        add(&PARKED, &[reason], &Value::Number(*count as f64));
    }
    for (definition, value) in [
        (&GOROUTINES, goroutines.live as f64),
        (&PARKED_LONG, goroutines.parked_over_threshold as f64),
        (&CREATED, goroutines.created as f64),
        (&EXITED, goroutines.exited as f64),
        (&OVERHEAD_SECONDS, observed.cost.target_seconds),
        (&OVERHEAD_RATIO, observed.cost.percent_of_target / 100.0),
        (&OVER_BUDGET, observed.cost.over_budget_seconds),
    ] {
        add(definition, &[], &Value::Number(value));
    }
    // Times and not ages: what is scraped late, or no more, is still right.
    if let Some(looked) = process.looked_unix_ns().map(|ns| ns as f64 / 1e9) {
        add(&LOOKED, &[], &Value::Number(looked));
        let oldest = report.groups.iter().map(|group| group.parked_seconds.max).reduce(f64::max);
        if let Some(parked) = oldest {
            add(&OLDEST, &[], &Value::Number(looked - parked));
        }
    }
    let bounds = BOUNDS_NS.map(|ns| ns as f64 / 1e9);
    for durations in &report.park_durations {
        let lasted = &durations.lasted;
        add(
            &PARK_DURATION,
            &[&durations.wait_reason],
            &Value::Histogram(&bounds, &lasted.counts, lasted.sum_ns as f64 / 1e9),
        );
    }
    if let Some(runtime) = &report.runtime {
        of_runtime(runtime, &mut add);
    }
    leaks(report, max_groups, |labels, count| add(&LEAKED, &labels, &Value::Number(count as f64)));
    let stuck = |group: &Group| (group.verdict == Verdict::Stuck).then_some(group.count);
    by_place(report, max_groups, stuck, |labels, count| add(&STUCK, &labels, &Value::Number(count as f64)));
    let stacks = |group: &Group| group.verdict.is_leak().then_some(group.stack_bytes);
    let heap = |group: &Group| group.heap_bytes.filter(|_| group.verdict.is_leak());
    let mut bytes = |kind: &str, [created_by, blocked_at]: [&str; 2], bytes: u64| {
        add(&LEAKED_BYTES, &[created_by, blocked_at, kind], &Value::Number(bytes as f64));
    };
    by_place(report, max_groups, stacks, |labels, count| bytes("stack", labels, count));
    by_place(report, max_groups, heap, |labels, count| bytes("heap", labels, count));
}

/// What is told of a runtime whether or not its own metrics are exported.
fn of_runtime(runtime: &Runtime, add: &mut dyn FnMut(&'static Definition, &[&str], &Value<'_>)) {
    for sign in &runtime.signs {
        add(&UNUSUAL, &[&sign.rule], &Value::Number(1.0));
    }
    let seconds = |ns: u64| ns as f64 / 1e9;
    let between = runtime.between.unwrap_or_default();
    let mut known = vec![
        (&THROTTLED, runtime.throttled_ns.map(seconds)),
        (&GROUP_USED, runtime.group_used_bytes.map(|bytes| bytes as f64)),
        (&GROUP_LIMIT, runtime.group_limit_bytes.map(|bytes| bytes as f64)),
    ];
    if let Some(memory) = runtime.now.as_ref().map(|now| &now.memory) {
        let cpu = |class| memory.cpu_class_ns(class).map(seconds);
        known.extend([
            (&RUNNABLE, Some(runtime.runnable as f64)),
            (&LATENCY, between.latency_p99_ns.map(seconds)),
            (&GC_CPU, cpu("gc/total")),
            (&AVAILABLE_CPU, cpu("total")),
            (&GC_PAUSE, Some(seconds(between.longest_pause_ns.unwrap_or(0)))),
            (&HEAP_MARKED, Some(memory.heap_marked as f64)),
            (&LIMITER, Some(f64::from(u8::from(memory.is_limited())))),
        ]);
    }
    for (definition, number) in known {
        if let Some(number) = number {
            add(definition, &[], &Value::Number(number));
        }
    }
}

/// A number of the groups that have it, those with the same labels together: the largest, and the rest.
fn by_place(
    report: &Report,
    max_groups: usize,
    number: impl Fn(&Group) -> Option<u64>,
    mut tell: impl FnMut([&str; 2], u64),
) {
    let mut groups: BTreeMap<[String; 2], u64> = BTreeMap::new();
    for (group, number) in report.groups.iter().filter_map(|group| Some((group, number(group)?))) {
        let [created_by, blocked_at, ..] = labels(group, group.verdict);
        *groups.entry([created_by, blocked_at]).or_default() += number;
    }
    let mut groups: Vec<_> = groups.into_iter().collect();
    groups.sort_by(|(a, count), (b, other)| other.cmp(count).then_with(|| a.cmp(b)));
    let rest: u64 = groups.drain(groups.len().min(max_groups)..).map(|(_, count)| count).sum();
    for ([created_by, blocked_at], count) in &groups {
        tell([created_by, blocked_at], *count);
    }
    if rest > 0 {
        tell(["other", ""], rest);
    }
}

/// Leaked and stuck goroutines by the values of labels that the program has put on them, of the keys that were asked for: the most
/// frequent values, and the rest.
fn labels_of(scrape: &mut Scrape, process_labels: &[&str], report: &Report, keys: &[String], max_values: usize) {
    let mut counts: BTreeMap<(&str, &str), BTreeMap<&str, u64>> = BTreeMap::new();
    for group in report.groups.iter().filter(|group| group.verdict > Verdict::Idle) {
        for label in group.labels.iter().filter(|label| keys.contains(&label.key)) {
            let values = counts.entry((group.verdict.into(), &label.key)).or_default();
            let told: u64 = label.values.iter().map(|(_, count)| count).sum();
            let rest = ("other", label.count.saturating_sub(told));
            let all = label.values.iter().map(|(value, count)| (value.as_str(), *count)).chain([rest]);
            all.filter(|(_, count)| *count > 0).for_each(|(value, count)| *values.entry(value).or_default() += count);
        }
    }
    for ((verdict, key), values) in counts {
        let mut values: Vec<(&str, u64)> = values.into_iter().collect();
        values.sort_by_key(|(value, count)| (*value == "other", std::cmp::Reverse(*count)));
        let rest: u64 = values.drain(values.len().min(max_values)..).map(|(_, count)| count).sum();
        match values.last_mut() {
            Some((value, count)) if *value == "other" => *count += rest,
            _ if rest > 0 => values.push(("other", rest)),
            _ => {}
        }
        for (value, count) in values {
            let labels = [process_labels, &[verdict, key, value]].concat();
            scrape.add(&LABELLED, &labels, &Value::Number(count as f64));
        }
    }
}

/// The leaking groups, those with the same labels together: the worst and largest of them each, the rest by verdict.
fn leaks(report: &Report, max_groups: usize, mut tell: impl FnMut([&str; 4], u64)) {
    let mut groups: BTreeMap<[String; 4], (Verdict, u64)> = BTreeMap::new();
    for group in report.groups.iter().filter(|group| group.verdict.is_leak()) {
        // Those that came after the proof are likely to leak, too.
        let proven = if group.verdict == Verdict::Proven { group.proven.min(group.count) } else { 0 };
        for (verdict, count) in [(Verdict::Proven, proven), (Verdict::Likely, group.count - proven)] {
            if count > 0 {
                groups.entry(labels(group, verdict)).or_insert((verdict, 0)).1 += count;
            }
        }
    }
    let mut groups: Vec<_> = groups.into_iter().collect();
    groups.sort_by(|(a, (verdict, count)), (b, (other_verdict, other))| {
        (other_verdict, other).cmp(&(verdict, count)).then_with(|| a.cmp(b))
    });
    let rest = groups.split_off(groups.len().min(max_groups));
    for ([created_by, blocked_at, cause, verdict], (_, count)) in &groups {
        tell([created_by, blocked_at, cause, verdict], *count);
    }
    for verdict in [Verdict::Proven, Verdict::Likely] {
        let count: u64 = rest.iter().filter(|(_, (other, _))| *other == verdict).map(|(_, (_, count))| count).sum();
        if count > 0 {
            tell(["other", "", "", verdict.into()], count);
        }
    }
}

fn labels(group: &Group, verdict: Verdict) -> [String; 4] {
    let place = |place: &Option<crate::words::Place>| place.as_ref().map(ToString::to_string).unwrap_or_default();
    [
        place(&group.created_by),
        place(&group.blocked_at),
        group.cause.as_ref().map(|cause| cause.kind.to_string()).unwrap_or_default(),
        verdict.to_string(),
    ]
}
