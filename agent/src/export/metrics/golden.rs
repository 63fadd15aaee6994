//! A whole scrape of a made-up node that has something to say in every metric, compared with `tests/golden/metrics.txt`.
//!
//! `UPDATE_GOLDEN=1 cargo test --package parkwarden metrics` rewrites it; read the diff. The integration tests have
//! `promtool check metrics` read it too.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::definitions::{ALL, Definition, PROCESS};
use super::tests::{process, report};
use super::{AgentNumbers, Exporter, Format, runtime};
use crate::cause::{Cause, CauseKind};
use crate::config::Mode;
use crate::config::node::{Limits, Metrics};
use crate::config::settings::{RuntimeMetrics, RuntimeNames};
use crate::detect::Verdict;
use crate::discover::usage::ProcessNumbers;
use crate::discover::workload::{Owner, Workload};
use crate::export::http::HttpNumbers;
use crate::kube::{EventCounts, PodsStatus};
use crate::node::{Node, WatchState};
use crate::record;
use crate::registry::EventCounts as Events;
use crate::registry::durations::Durations;
use crate::report::{Goroutines, Group, LabelValues, Lost, ParkDurations, Proofs, Report, Ring, Runtime};
use crate::runtime::histogram::Histogram;
use crate::runtime::mem::{MemStats, Memories};
use crate::runtime::sched::{ExtraThreads, Scheduler};
use crate::runtime::signs::Sign;
use crate::runtime::vitals::{Between, Vitals};
use crate::words::Place;

/// What a scrape at another time would say otherwise.
const VARIES: [&str; 2] =
    ["parkwarden_process_last_look_timestamp_seconds{", "parkwarden_goroutine_oldest_parked_timestamp_seconds{"];

fn place(function: &str, line: u32) -> Option<Place> {
    Some(Place { function: function.to_owned(), file: "/src/cart/hub.go".to_owned(), line })
}

fn group(like: &Group, verdict: Verdict, count: u64, line: u32) -> Group {
    let cause = Cause { kind: CauseKind::SendNobodyReceives, sentence: String::new(), remedy: String::new() };
    let mut group = Group {
        verdict,
        count,
        proven: if verdict == Verdict::Proven { count } else { 0 },
        created_by: place("main.(*Hub).subscribe", line),
        blocked_at: place("main.pump", line + 7),
        cause: Some(cause),
        ..like.clone()
    };
    group.parked_seconds.max = 90.5;
    group
}

/// One that says something about everything; the numbers are no more than different ones.
fn telling() -> Report {
    let mut report = report();
    let like = report.groups.first().expect("a group").clone();
    report.groups = vec![
        group(&like, Verdict::Proven, 12, 24),
        group(&like, Verdict::Likely, 7, 40),
        group(&like, Verdict::Likely, 3, 60),
        group(&like, Verdict::Stuck, 2, 80),
    ];
    let values = [("a", 5), ("b", 2), ("other", 1)].map(|(value, count)| (value.to_owned(), count)).to_vec();
    let tenant = LabelValues { key: "tenant".to_owned(), count: 10, distinct: 5, values };
    let request = LabelValues { key: "request".to_owned(), ..tenant.clone() };
    report.groups[1].labels = vec![tenant.clone(), request];
    report.groups[2].labels = vec![LabelValues { count: 4, distinct: 1, values: vec![("c".to_owned(), 4)], ..tenant }];
    report.goroutines = Goroutines {
        live: 65,
        system: 7,
        created: 59,
        exited: 4,
        parked_over_threshold: 22,
        by_wait_reason: BTreeMap::from([("chan send".to_owned(), 19), ("select".to_owned(), 3)]),
        ..report.goroutines
    };
    let mut lasted = Durations::default();
    for ns in [500_000, 20_000_000, 2_000_000_000, 4_000_000_000_000] {
        lasted.add(ns);
    }
    report.park_durations = vec![ParkDurations { wait_reason: "select".to_owned(), lasted }];
    let observed = &mut report.observed;
    observed.mode = Mode::Filter;
    observed.modes.moves = 2;
    observed.cost.target_seconds = 0.25;
    observed.cost.percent_of_target = 1.5;
    observed.cost.over_budget_seconds = 0.5;
    observed.events = Events { created: 59, parked: 76, readied: 54, exited: 4, waited: 18 };
    observed.lost = Lost { ring_full: 5, map_full: 6, ..Lost::default() };
    observed.census.seconds = 0.004;
    observed.ring = Ring { size_bytes: 8192, fill_max_bytes: 2048, ..observed.ring };
    for (probe, hits) in observed.probes.iter_mut().zip([59, 76, 54, 4]) {
        probe.hits = hits;
    }
    report.runtime = Some(vitals());
    let observed = &mut report.observed;
    observed.proofs = Some(Proofs {
        taken: 2,
        refused: 1,
        refusal: None,
        paused_seconds: 0.03,
        longest_pause_seconds: 0.02,
        contradicted: 1,
    });
    report
}

/// Parts of the CPU time.
const CPU_CLASSES: [&str; 11] = [
    "gc/mark/assist",
    "gc/mark/dedicated",
    "gc/mark/idle",
    "gc/pause",
    "gc/total",
    "idle",
    "scavenge/assist",
    "scavenge/background",
    "scavenge/total",
    "total",
    "user",
];

/// Numbers of a runtime, a different one for each.
pub(super) fn vitals() -> Runtime {
    let mut next = 1000;
    let mut number = || {
        next += 1;
        next
    };
    let mut histogram = || {
        let mut counts = vec![0; 160];
        (counts[1], counts[20], counts[90]) = (number(), number(), number());
        Histogram { counts, underflow: 0, overflow: 1 }
    };
    let names = ["stopping/gc", "stopping/other", "total/gc", "total/other"];
    let stop_times = names.map(|name| (format!("/sched/pauses/{name}:seconds"), histogram())).into();
    let latency = Some(histogram());
    // Every field of it, by name.
    let stats: MemStats = serde_json::from_value(match serde_json::to_value(MemStats::default()).expect("JSON") {
        serde_json::Value::Object(fields) => fields
            .into_iter()
            .map(|(name, value)| (name, if value.is_f64() { 0.25.into() } else { number().into() }))
            .collect::<serde_json::Map<_, _>>()
            .into(),
        other => other,
    })
    .expect("numbers");
    let memory = Memories {
        stats,
        tiny_allocs: 9,
        gc_percent: 100,
        memory_limit: 1 << 30,
        heap_marked: number(),
        heap_scan: number(),
        stack_scan: number(),
        globals_scan: number(),
        heap_free: number(),
        metadata_other: number(),
        gc_cpu_ns: 2_500_000_000,
        total_cpu_ns: 10_500_000_000,
        idle_cpu_ns: 4_500_000_000,
        limiter_last_cycle: number(),
        cleanups_queued: Some(number()),
        cleanups_executed: Some(number()),
        finalizers_queued: Some(number()),
        finalizers_executed: Some(number()),
        starting_stack: Some(2048),
        cpu_classes_ns: CPU_CLASSES
            .map(|class| (format!("/cpu/classes/{class}:cpu-seconds"), number() * 1_000_000))
            .into(),
        allocs_by_size: (0..68).collect(),
        frees_by_size: (0..68).map(|class| class / 2).collect(),
        stop_times,
        ..Memories::default()
    };
    let scheduler = Scheduler {
        gomaxprocs: 8,
        threads: 13,
        running: 4,
        runnable: 6,
        not_in_go: 3,
        extra_threads: Some(ExtraThreads { idle: 1, in_use: 0 }),
        all_c_calls: Some(number()),
        created: Some(number()),
        mutex_wait_ns: Some(1_000_000_000),
        runtime_lock_wait_ns: Some(500_000_000),
        latency,
        ..Scheduler::default()
    };
    let process = ProcessNumbers {
        cpu_ns: 12_250_000_000,
        rss_bytes: number(),
        virtual_bytes: number(),
        start_unix_ns: 1_790_000_000_500_000_000,
        open_files: Some(number()),
        max_files: Some(number()),
    };
    Runtime {
        now: Some(Vitals { memory, scheduler }),
        pause_quantiles_ns: [1000, 2000, 3000, 4000, 5_000_000],
        process: Some(process),
        runnable: 6,
        between: Some(Between {
            collections: 4,
            longest_pause_ns: Some(1_500_000),
            latency_p99_ns: Some(250_000),
            ..Between::default()
        }),
        throttled_ns: Some(125_000_000),
        group_used_bytes: Some(300 << 20),
        group_limit_bytes: Some(512 << 20),
        signs: vec![Sign::new("fragmentation", "it is".to_owned())],
        ..Runtime::default()
    }
}

/// A node with a pod's process, one of a unit, one in each other state, and one that has ended.
fn node() -> Node {
    let node = Node::default();
    let cart = process(7, "/srv/cart");
    cart.set_workload(Workload {
        namespace: Some("shop".into()),
        pod: Some("cart-6d5f7c9b8-x2x4z".into()),
        container: Some("server".into()),
        owner: Some(Owner { kind: "Deployment".into(), name: "cart".into() }),
        ..Workload::default()
    });
    let backup = process(8, "/usr/bin/backup");
    backup.set_workload(Workload { unit: Some("backup.service".into()), ..Workload::default() });
    let other = Report { groups: Vec::new(), ..telling() };
    for (process, report) in [(&cart, telling()), (&backup, other)] {
        node.insert(Arc::clone(process));
        node.looked(process, Arc::new(report));
    }
    for (pid, state) in [
        (9, WatchState::Starting),
        (10, WatchState::Unselected { why: "not chosen".into() }),
        (11, WatchState::Refused { reason: "no_layout", message: "its Go version is unknown".into() }),
    ] {
        let process = process(pid, "/srv/other");
        process.set_state(state);
        node.insert(process);
    }
    let ended = process(12, "/srv/pay");
    node.exited(&ended, None);
    node
}

/// All there is, by all names.
fn everything() -> Metrics {
    Metrics { runtime: RuntimeMetrics::All, names: RuntimeNames::Both, labels: vec!["tenant".to_owned()] }
}

fn scrape(format: Format) -> String {
    let stopped = record::RecorderStatus {
        state: record::RecorderState::Recording,
        intervals: 100,
        intervals_dropped: 3,
        stops: 1,
        set_aside: Vec::new(),
    };
    let numbers = AgentNumbers {
        recording: Some((stopped, 4096)),
        pods: Some(PodsStatus { synced: true, connected: true, watch_errors: 2, pods: 1, left_out: 0 }),
        events: Some(EventCounts { written: 4, repeated: 3, dropped: 2, failed: 1 }),
        process: Some((
            99,
            ProcessNumbers {
                cpu_ns: 2_500_000_000,
                rss_bytes: 70 << 20,
                virtual_bytes: 90 << 20,
                start_unix_ns: 1_790_000_000_250_000_000,
                open_files: Some(31),
                max_files: Some(1024),
            },
        )),
    };
    let http = HttpNumbers::default();
    http.accepted();
    http.answered("/metrics", 200);
    let limits = Limits { groups: 2, ..Limits::default() };
    let text = Exporter::default().render(format, &node(), limits, &everything(), &numbers, Some(&http));
    let text = String::from_utf8(text).expect("UTF-8");
    let normal = |line: &str| match line.rsplit_once(' ') {
        Some((series, _)) if VARIES.iter().any(|name| line.starts_with(name)) => format!("{series} 0\n"),
        _ => format!("{line}\n").replace(env!("CARGO_PKG_VERSION"), "VERSION"),
    };
    text.lines().map(normal).collect()
}

#[test]
fn a_scrape_is_as_it_was_and_has_every_metric() {
    let scrape = scrape(Format::Text);
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/metrics.txt");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(path, &scrape).expect("written");
    }
    let all: Vec<&Definition> =
        ALL.iter().chain(runtime::ALL.iter().chain(runtime::OPENTELEMETRY).map(|row| &row.definition)).collect();
    for metric in &all {
        let family = format!("# HELP {0} {1}\n# TYPE {0} {2}\n{0}", metric.name, metric.help, metric.kind.name());
        let series = scrape.split_once(&family).unwrap_or_else(|| panic!("no series of {}", metric.name)).1;
        let series = series.lines().next().unwrap_or_default();
        let process: &[&str] = if metric.of_process { &PROCESS } else { &[] };
        for label in process.iter().chain(metric.labels) {
            assert!(series.contains(&format!("{label}=\"")), "{}: {series}", metric.name);
        }
    }
    let families = scrape.lines().filter(|line| line.starts_with("# TYPE ")).count();
    assert_eq!(families, all.len());
    let golden = std::fs::read_to_string(path).expect("the golden scrape");
    assert!(
        scrape == golden,
        "the scrape is not tests/golden/metrics.txt; if it should not be, run with UPDATE_GOLDEN=1 and read the diff\n{scrape}"
    );
}

/// Each sample as name and labels, with its value; bounds and quantiles as numbers, which the formats write differently.
fn samples(text: &str) -> BTreeMap<String, String> {
    let normal = |series: &str| {
        let mut parts: Vec<String> = Vec::new();
        for part in series.split_inclusive(',') {
            let bound = ["le=\"", "quantile=\""].iter().find_map(|name| part.find(name).map(|at| at + name.len()));
            parts.push(match bound.and_then(|from| part[from..].split_once('"').map(|(number, _)| (from, number))) {
                Some((from, number)) => format!("{}{:?}", &part[..from], number.parse::<f64>()),
                None => part.to_owned(),
            });
        }
        parts.concat()
    };
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| line.rsplit_once(' ').expect("a value")).map(|(s, value)| (normal(s), value.to_owned())).collect()
}

#[test]
fn open_metrics_say_the_same_in_their_own_way() {
    let (text, open) = (scrape(Format::Text), scrape(Format::OpenMetrics));
    assert_eq!(samples(&text), samples(&open));
    assert!(open.ends_with("\n# EOF\n") && open.matches("# EOF").count() == 1);
    // No sample of a family has a name that another family may use.
    let mut names: BTreeMap<String, String> = BTreeMap::new();
    for (family, kind) in open.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')) {
        let suffixes: &[&str] = match kind {
            "counter" => &["_total", "_created"],
            "histogram" => &["_bucket", "_sum", "_count", "_created"],
            "summary" => &["", "_sum", "_count", "_created"],
            _ => &[""],
        };
        for name in suffixes.iter().map(|suffix| format!("{family}{suffix}")).chain([family.to_owned()]) {
            if let Some(other) = names.insert(name.clone(), family.to_owned()) {
                assert_eq!(other, family, "{name}");
            }
        }
    }
    assert!(open.contains("# TYPE parkwarden_losses counter\n") && open.contains("\nparkwarden_losses_total{"));
    assert!(open.contains("# TYPE go_memstats_alloc_bytes_total unknown\n"));
}
