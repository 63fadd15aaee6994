//! Scrapes of made-up nodes.

use std::sync::Arc;

use super::definitions::{ALL, Definition, Kind, PROCESS};
use super::{AgentNumbers, Exporter, Format, runtime};
use crate::config::node::{Limits, Metrics};
use crate::config::settings::{RuntimeMetrics, RuntimeNames};
use crate::discover::describe::Description;
use crate::discover::workload::Workload;
use crate::node::{Node, NodeProcess, ProcessKey, WatchState};
use crate::record::{Exit, ExitKind, Moment};
use crate::report::{Report, Runtime};
use crate::runtime::mem::NO_LIMIT;

/// A report with likely leaks, as `watch --format json` printed it.
pub(super) fn report() -> Report {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/leaks.json");
    serde_json::from_str(&std::fs::read_to_string(path).expect("the golden report")).expect("a report")
}

pub(super) fn process(pid: u32, exe: &str) -> Arc<NodeProcess> {
    let key = ProcessKey { pid, start_ticks: 7 };
    Arc::new(NodeProcess::new(key, exe.to_owned(), Description::default(), Some("go1.27.3".to_owned()), Some(true)))
}

fn scrape(node: &Node, limits: Limits) -> String {
    let text = Exporter::default().render(
        Format::Text,
        node,
        limits,
        &of(RuntimeMetrics::All),
        &AgentNumbers::default(),
        None,
    );
    String::from_utf8(text).expect("UTF-8")
}

/// Lines of one metric.
fn lines<'t>(text: &'t str, name: &str) -> Vec<&'t str> {
    let is = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
    text.lines().filter(is).collect()
}

#[test]
fn the_series_of_a_process_go_with_it_and_counters_stay() {
    let node = Node::default();
    let process = process(7, "/srv/cart");
    node.insert(Arc::clone(&process));
    node.looked(&process, Arc::new(report()));
    let before = scrape(&node, Limits::default());
    let series = lines(&before, "parkwarden_goroutines");
    assert!(series.len() == 1 && series[0].contains("exe=\"cart\",pid=\"7\""), "{series:?}");
    node.exited(&process, None);
    node.remove(process.key);
    let after = scrape(&node, Limits::default());
    assert!(!after.contains("pid=\"7\""), "{after}");
    assert_eq!(lines(&before, "parkwarden_events_total"), lines(&after, "parkwarden_events_total"));
    assert_eq!(
        lines(&after, "parkwarden_process_exits_total"),
        ["parkwarden_process_exits_total{namespace=\"\",pod=\"\",container=\"\",exe=\"cart\",how=\"unknown\"} 1"]
    );
}

#[test]
fn the_first_end_of_its_kind_is_seen_to_grow_and_has_the_labels_of_its_leaks() {
    let node = Node::default();
    let process = process(7, "/srv/cart");
    let id = "4f0c8ab9d8f7e6b5a4c3d2e1f00112233445566778899aabbccddeeff0011223";
    process.set_workload(Workload { container_id: Some(id.to_owned()), ..Workload::default() });
    let series = format!(
        "parkwarden_process_exits_total{{namespace=\"\",pod=\"\",container=\"{id}\",exe=\"cart\",how=\"oom\"}}"
    );
    let count = || {
        let text = scrape(&node, Limits::default());
        let line = text.lines().find_map(|line| line.strip_prefix(&*series)).map(str::to_owned);
        line.map(|value| value.trim().to_owned())
    };
    node.insert(Arc::clone(&process));
    assert_eq!(count(), None, "nothing is known of it yet");
    node.looked(&process, Arc::new(report()));
    assert_eq!(count().as_deref(), Some("0"));
    let at = Moment { mono_ns: 0, unix_ns: 0 };
    node.exited(&process, Some(&Exit { at, kind: ExitKind::OomKilled, evidence: String::new() }));
    node.remove(process.key);
    assert_eq!(count().as_deref(), Some("1"));
}

#[test]
fn a_counter_that_began_anew_is_added_whole() {
    let node = Node::default();
    let process = process(7, "/srv/cart");
    let mut report = report();
    for created in [10, 25, 5] {
        report.observed.events.created = created;
        node.looked(&process, Arc::new(report.clone()));
    }
    assert_eq!(node.totals().events["created"], 30);
}

#[test]
fn leaks_beyond_the_largest_groups_are_summed() {
    let mut report = report();
    let mut group = report.groups.first().expect("a group").clone();
    group.verdict = crate::detect::Verdict::Likely;
    report.groups.clear();
    for count in 1..=5 {
        let mut group = group.clone();
        group.count = count;
        group.created_by.as_mut().expect("a place").line = count as u32;
        report.groups.push(group);
    }
    let node = Node::default();
    let process = process(7, "/srv/cart");
    node.insert(Arc::clone(&process));
    node.looked(&process, Arc::new(report));
    let text = scrape(&node, Limits { groups: 2, ..Limits::default() });
    let counts: Vec<&str> =
        lines(&text, "parkwarden_leaked_goroutines").iter().filter_map(|line| Some(line.rsplit_once(' ')?.1)).collect();
    assert_eq!(counts, ["5", "4", "6"]);
    assert!(text.contains("created_by=\"other\""), "{text}");
}

#[test]
fn only_what_is_proven_counts_as_proven() {
    let mut report = report();
    report.groups.truncate(1);
    let group = report.groups.first_mut().expect("a group");
    (group.verdict, group.count, group.proven) = (crate::detect::Verdict::Proven, 2846, 298);
    let node = Node::default();
    let process = process(7, "/srv/cart");
    node.insert(Arc::clone(&process));
    node.looked(&process, Arc::new(report));
    let text = scrape(&node, Limits::default());
    let of = |verdict: &str| {
        let all = lines(&text, "parkwarden_leaked_goroutines").into_iter();
        all.filter(|line| line.contains(verdict)).filter_map(|line| Some(line.rsplit_once(' ')?.1)).collect::<Vec<_>>()
    };
    assert_eq!((of("verdict=\"proven\""), of("verdict=\"likely\"")), (vec!["298"], vec!["2548"]));
}

#[test]
fn the_number_of_series_is_limited_and_what_is_left_out_is_counted() {
    let node = Node::default();
    for pid in 1..=50 {
        let process = process(pid, "/srv/cart");
        node.insert(Arc::clone(&process));
        let mut report = report();
        report.goroutines.live = u64::from(pid);
        node.looked(&process, Arc::new(report));
    }
    let text = scrape(&node, Limits { series: 400, ..Limits::default() });
    let series = text.lines().filter(|line| !line.starts_with('#')).count();
    assert!(series <= 401, "{series}");
    let kept = lines(&text, "parkwarden_goroutines");
    assert!(kept.iter().any(|line| line.contains("pid=\"50\"")), "the largest stays: {kept:?}");
    let dropped = lines(&text, "parkwarden_series_dropped_total");
    assert!(!dropped[0].ends_with(" 0"), "{dropped:?}");
}

#[test]
fn names_from_a_hostile_program_stay_within_their_label() {
    let node = Node::default();
    let mut report = report();
    let group = report.groups.first_mut().expect("a group");
    group.verdict = crate::detect::Verdict::Proven;
    let place = group.created_by.as_mut().expect("a place");
    let end = format!("ü {}:{}\"", place.file, place.line);
    place.function = format!("a\"}} 1\nevil{{x=\"{}", "ü".repeat(10_000));
    let process = process(7, "/srv/\"\n\\");
    process.set_state(WatchState::Watched);
    node.insert(Arc::clone(&process));
    node.looked(&process, Arc::new(report));
    let text = scrape(&node, Limits::default());
    let ours = |line: &str| ["parkwarden_", "go_", "process_", "# "].iter().any(|start| line.starts_with(start));
    assert!(text.lines().all(ours), "{text}");
    assert!(text.lines().all(|line| line.chars().count() < 2000), "shortened");
    let leak = lines(&text, "parkwarden_leaked_goroutines").into_iter().find(|line| line.contains("evil"));
    let leak = leak.expect("its series");
    assert!(leak.contains(&end), "file and line stay: {leak}");
}

#[test]
fn of_runtimes_there_is_what_is_wanted_and_can_be_read() {
    let node = Node::default();
    let (known, unknown) = (process(7, "/srv/cart"), process(8, "/srv/odd"));
    for process in [&known, &unknown] {
        node.insert(Arc::clone(process));
    }
    node.looked(&known, Arc::new(Report { runtime: Some(super::golden::vitals()), ..report() }));
    let none = Runtime { unknown: Some("its layout is not known".to_owned()), ..Runtime::default() };
    node.looked(&unknown, Arc::new(Report { runtime: Some(none), ..report() }));
    let series = |wanted: Metrics, limits| {
        let text = Exporter::default().render(Format::Text, &node, limits, &wanted, &AgentNumbers::default(), None);
        let text = String::from_utf8(text).expect("UTF-8");
        let of_runtime = |line: &&str| line.starts_with("go_") || line.starts_with("process_");
        let lines: Vec<String> = text.lines().filter(of_runtime).map(str::to_owned).collect();
        assert!(lines.iter().all(|line| line.contains("pid=\"7\"")), "{lines:?}");
        assert_eq!(super::tests::lines(&text, "parkwarden_goroutines").len(), 2);
        lines.len()
    };
    let counts = [RuntimeMetrics::Off, RuntimeMetrics::Basic, RuntimeMetrics::All]
        .map(|wanted| series(of(wanted), Limits::default()));
    assert_eq!(counts, [0, 43, 188], "as the settings' description says, about");
    let named = |names| series(Metrics { names, ..of(RuntimeMetrics::All) }, Limits::default());
    assert_eq!(named(RuntimeNames::Prometheus), counts[2]);
    assert_eq!(named(RuntimeNames::Both), counts[2] + named(RuntimeNames::OpenTelemetry));
    let others = Exporter::default()
        .render(Format::Text, &node, Limits::default(), &of(RuntimeMetrics::Off), &AgentNumbers::default(), None)
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.starts_with(b"#"))
        .count();
    let few = Limits { series: others + 40, ..Limits::default() };
    assert_eq!(series(of(RuntimeMetrics::All), few), 0, "they are left out before others");
}

#[test]
fn what_is_off_or_has_no_limit_is_left_out_as_opentelemetry_does() {
    let node = Node::default();
    let process = process(7, "/srv/cart");
    node.insert(Arc::clone(&process));
    let mut runtime = super::golden::vitals();
    let memory = &mut runtime.now.as_mut().expect("numbers").memory;
    (memory.gc_percent, memory.memory_limit) = (-1, NO_LIMIT);
    node.looked(&process, Arc::new(Report { runtime: Some(runtime), ..report() }));
    let both = Metrics { names: RuntimeNames::Both, ..Metrics::default() };
    let text =
        Exporter::default().render(Format::Text, &node, Limits::default(), &both, &AgentNumbers::default(), None);
    let text = String::from_utf8(text).expect("UTF-8");
    let value = |name| lines(&text, name).first().and_then(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok());
    assert_eq!((value("go_config_gogc_percent"), value("go_memory_limit_bytes")), (None, None));
    assert_eq!(
        (value("go_gc_gogc_percent"), value("go_gc_gomemlimit_bytes")),
        (Some(2f64.powi(64)), Some(2f64.powi(63)))
    );
}

const RUNTIME: &str = "\n## Go's own metrics\n\nWhat a Go program exports of itself with Prometheus' client library, by the same names, \
of programs that export nothing: read from outside at the last look, with the labels of the process. `metrics.runtime` in the \
configuration, or `--metrics-runtime`, says how much: `off`, `basic` (the default: what the client library gives by default) or \
`all` (also what `runtime/metrics` has and can be read from outside). A number that a program's Go version does not have is left \
out; where nothing of the runtime can be read there are none of these series, and `runtime.unknown` of \
`/api/v1/processes/PID` says why. Where series exceed `limits.series`, these are left out first. Numbers are as of the last look, and \
as exact as the runtime's own: of a program that is at rest they are the same. What changes while it is read can differ by what \
happens in a few hundred microseconds; CPU times and the GC's share are as of the last collection. Goroutines by \
state, finalizers and cleanups are told of older versions than have them in `runtime/metrics` too, where they are known. What \
`runtime/metrics` has and is not exported: [runtime.md](runtime.md#what-is-not-read).\n\n`metrics.runtime_names`, or \
`--metrics-runtime-names`, says by whose names: `prometheus` (the default), `opentelemetry` or `both`. The alerts and the dashboard go by \
those of Prometheus' client library, which also has the `process_*`: with `opentelemetry` alone there are none.\n\nOf the agent's own process there \
are the `process_*` too, whatever the setting says, with `exe=\"parkwarden\"` and its `pid`; its namespace and pod are what Prometheus \
knows of what it scrapes.\n\n";

const OPENTELEMETRY: &str = "\n### By OpenTelemetry's names\n\nThe `go.*` metrics of OpenTelemetry's semantic conventions for the Go \
runtime, as its exporters spell them for Prometheus; the help of each begins with the name it has there. They are exported with \
`basic` and `all` alike, if `metrics.runtime_names` is `opentelemetry` or `both`.\n\n\
| metric | type | with | labels | meaning |\n|---|---|---|---|---|\n";

fn of(runtime: RuntimeMetrics) -> Metrics {
    Metrics { runtime, ..Metrics::default() }
}

fn row(metric: &Definition, of: &str) -> String {
    let labels: Vec<String> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
    format!("| `{}` | {} | {of} | {} | {} |\n", metric.name, metric.kind.name(), labels.join(", "), metric.help)
}

#[test]
fn the_table_of_metrics_is_documented() {
    let mut table = String::from(
        "# Metrics\n\nWhat `/metrics` of `parkwarden agent` exports, in base units. Generated from the code: \
         `UPDATE_GOLDEN=1 cargo test --package parkwarden metrics`.\n\nMetrics of a process have the labels ",
    );
    table.push_str(&PROCESS.map(|label| format!("`{label}`")).join(", "));
    table.push_str(" before their own, empty where there is nothing to say; their series go with the process.\n\n");
    table.push_str("| metric | type | of | labels | meaning |\n|---|---|---|---|---|\n");
    for metric in ALL {
        assert_eq!(metric.kind == Kind::Counter, metric.name.ends_with("_total"), "{}", metric.name);
        let of = if metric.of_process { "process" } else { "agent" };
        table.push_str(&row(metric, of));
    }
    table.push_str(RUNTIME);
    table.push_str("| metric | type | with | labels | meaning |\n|---|---|---|---|---|\n");
    for metric in runtime::ALL {
        let with = if metric.at == RuntimeMetrics::Basic { "basic" } else { "all" };
        table.push_str(&row(&metric.definition, with));
    }
    table.push_str(OPENTELEMETRY);
    for metric in runtime::OPENTELEMETRY {
        table.push_str(&row(&metric.definition, "basic"));
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/metrics.md");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(path, &table).expect("written");
    }
    assert_eq!(std::fs::read_to_string(path).expect("docs/metrics.md"), table, "run with UPDATE_GOLDEN=1");
}
