//! What the agent exports of a program's runtime against what the program says of itself.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Command;

use parkwarden::clock::now_ns;
use parkwarden::export::metrics::runtime as metrics;
use parkwarden_tests::agent::run;
use parkwarden_tests::copied::Copied;
use parkwarden_tests::node::Node;
use parkwarden_tests::target::{DEADLINE, Target};
use parkwarden_tests::{BuildFlags, fixture, wait};
use serde_json::Value;
use xtask::toolchain::{self, NEWEST, VERSIONS};

use crate::deploy::passes_promtool;

/// An agent that watches the program, and the program.
fn watched(version: &str, flags: BuildFlags, arguments: &[&str]) -> (Node, Target) {
    let copied = Copied::file(&fixture("vitals", version, flags), "vitals");
    let mut command = Command::new(&copied.program);
    command.args(arguments).env("GOMAXPROCS", "2");
    let mut target = Target::spawn_command(command);
    let _: Value = target.answer();
    let node = Node::start(
        &copied.pattern(),
        &["--mode", "census", "--interval", "500ms", "--metrics-runtime", "all", "--metrics-runtime-names", "both"],
    );
    node.wait_for_state(target.pid(), "watched");
    (node, target)
}

/// A scrape of a look that began after now: the series of the program by name, with their own labels if they have some.
fn scrape(node: &Node, pid: u32) -> BTreeMap<String, f64> {
    let since = now_ns();
    node.wait_for("a look", |node| node.report(pid)?.runtime?.now.filter(|now| now.memory.read_ns > since));
    let (_, text) = node.get("/metrics");
    let process = format!("exe=\"vitals\",pid=\"{pid}\"");
    let series = |line: &str| {
        let (series, value) = line.rsplit_once(' ')?;
        let (name, labels) = series.split_once('{')?;
        let own = match labels.split_once(&process)?.1.trim_start_matches(',') {
            "}" => String::new(),
            own => format!("{{{own}"),
        };
        Some((format!("{name}{own}"), value.parse().expect("a number")))
    };
    text.lines().filter_map(series).collect()
}

/// `MemStats`'s fields by the names that Prometheus' client library gives them.
const MEM_STATS: [(&str, &str); 24] = [
    ("Alloc", "alloc_bytes"),
    ("TotalAlloc", "alloc_bytes_total"),
    ("Sys", "sys_bytes"),
    ("Lookups", "lookups_total"),
    ("Mallocs", "mallocs_total"),
    ("Frees", "frees_total"),
    ("HeapAlloc", "heap_alloc_bytes"),
    ("HeapSys", "heap_sys_bytes"),
    ("HeapIdle", "heap_idle_bytes"),
    ("HeapInuse", "heap_inuse_bytes"),
    ("HeapReleased", "heap_released_bytes"),
    ("HeapObjects", "heap_objects"),
    ("StackInuse", "stack_inuse_bytes"),
    ("StackSys", "stack_sys_bytes"),
    ("MSpanInuse", "mspan_inuse_bytes"),
    ("MSpanSys", "mspan_sys_bytes"),
    ("MCacheInuse", "mcache_inuse_bytes"),
    ("MCacheSys", "mcache_sys_bytes"),
    ("BuckHashSys", "buck_hash_sys_bytes"),
    ("GCSys", "gc_sys_bytes"),
    ("OtherSys", "other_sys_bytes"),
    ("NextGC", "next_gc_bytes"),
    ("GCCPUFraction", "gc_cpu_fraction"),
    ("LastGC", "last_gc_time_seconds"),
];

/// How the client library calls a metric of `runtime/metrics`, without `_total`.
fn client_name(name: &str) -> String {
    format!("go{}", name.replace(['/', ':', '-'], "_"))
}

/// What the program says, by the names that the client library would export it by.
fn told(theirs: &Value) -> BTreeMap<String, f64> {
    let mut said = BTreeMap::new();
    let number = |value: &Value| value.as_f64().expect("a number");
    for (field, name) in MEM_STATS {
        let unit = if field == "LastGC" { 1e9 } else { 1.0 };
        said.insert(format!("go_memstats_{name}"), number(&theirs["memory"][field]) / unit);
    }
    said.insert("go_gc_duration_seconds_count".to_owned(), number(&theirs["memory"]["NumGC"]));
    said.insert("go_gc_duration_seconds_sum".to_owned(), number(&theirs["memory"]["PauseTotalNs"]) / 1e9);
    for (name, value) in theirs["metrics"].as_object().expect("metrics") {
        let name = client_name(name);
        match value.as_array() {
            Some(counts) => said.insert(format!("{name}_count"), counts.iter().map(number).sum()),
            // Whether it only grows, the scrape knows.
            None => said.insert(name, number(value)),
        };
    }
    // It runs when it asks, and waits for a line in a system call when it is looked at.
    for (state, other) in [("running", -1.0), ("not_in_go", 1.0)] {
        said.entry(format!("go_sched_goroutines_{state}_goroutines")).and_modify(|count| *count += other);
    }
    said.extend(by_opentelemetry(&said));
    said
}

/// The same by OpenTelemetry's names, as its instrumentation for Go computes them.
fn by_opentelemetry(said: &BTreeMap<String, f64>) -> BTreeMap<String, f64> {
    let used = said["go_memory_classes_total_bytes"] - said["go_memory_classes_heap_released_bytes"];
    let stacks = said["go_memory_classes_heap_stacks_bytes"];
    let mut named = BTreeMap::from([
        ("go_memory_used_bytes{go_memory_type=\"stack\"}".to_owned(), stacks),
        ("go_memory_used_bytes{go_memory_type=\"other\"}".to_owned(), used - stacks),
    ]);
    let mut same = |name: &str, theirs: &str| named.insert(name.to_owned(), said[theirs]);
    for (name, theirs) in [
        ("go_memory_allocated_bytes", "go_gc_heap_allocs_bytes"),
        ("go_memory_allocations", "go_gc_heap_allocs_objects"),
        ("go_memory_gc_goal_bytes", "go_gc_heap_goal_bytes"),
        ("go_memory_gc_cycles", "go_gc_cycles_total_gc_cycles"),
        ("go_memory_gc_pause_duration_seconds_count", "go_gc_pauses_seconds_count"),
        ("go_goroutine_count", "go_sched_goroutines_goroutines"),
        ("go_processor_limit", "go_sched_gomaxprocs_threads"),
        ("go_schedule_duration_seconds_count", "go_sched_latencies_seconds_count"),
        ("go_config_gogc_percent", "go_gc_gogc_percent"),
    ] {
        same(name, theirs);
    }
    for (state, class) in [("gc", "gc_total"), ("idle", "idle"), ("scavenge", "scavenge_total"), ("user", "user")] {
        let name = format!("go_cpu_time_seconds_total{{go_cpu_state=\"{state}\"}}");
        same(&name, &format!("go_cpu_classes_{class}_cpu_seconds"));
    }
    named
}

/// What the program says of itself and nobody exported.
fn missing<'a>(ours: &BTreeMap<String, f64>, theirs: &'a BTreeMap<String, f64>) -> Vec<&'a str> {
    let exported = |name: &str| ours.contains_key(name) || ours.contains_key(&format!("{name}_total"));
    theirs.keys().map(String::as_str).filter(|name| !exported(name)).collect()
}

/// What both tell of, differently.
fn compare(ours: &BTreeMap<String, f64>, theirs: &BTreeMap<String, f64>) -> Vec<String> {
    let mut different = Vec::new();
    for (name, theirs) in theirs {
        let Some(ours) = ours.get(name).or_else(|| ours.get(&format!("{name}_total"))) else { continue };
        if (ours - theirs).abs() > 1e-9 * theirs.abs().max(1.0) {
            different.push(format!("{name}: {ours}, not {theirs}"));
        }
    }
    different
}

#[test]
fn what_is_exported_is_what_the_program_says_of_itself() {
    let programs = [VERSIONS[0], "1.24.11", NEWEST].map(|version| (version, BuildFlags::Stripped));
    for (version, flags) in programs.into_iter().chain([VERSIONS[0], NEWEST].map(|version| (version, BuildFlags::Cgo)))
    {
        let said = format!("Go {version}, {}", flags.name());
        let (node, mut target) = watched(version, flags, &[]);
        for work in ["do allocate", "do finalize", "do clean"] {
            let _: Value = target.ask(work);
        }
        let pid = target.pid();
        let result = wait::within(DEADLINE, || {
            let _: Value = target.ask("take");
            let ours = scrape(&node, pid);
            let theirs = told(&target.ask("tell"));
            let different = compare(&ours, &theirs);
            if different.is_empty() { Ok((ours, theirs)) } else { Err(different) }
        });
        let (ours, theirs) = result.unwrap_or_else(|different| panic!("{said}: {different:#?}"));
        // Where there are no symbols, it is not known where calls to C are counted.
        let unknown: &[&str] = if flags == BuildFlags::Cgo { &[] } else { &["go_cgo_go_to_c_calls_calls"] };
        assert_eq!(missing(&ours, &theirs), unknown, "{said}");
        assert_eq!(ours["go_sched_gomaxprocs_threads"], 2.0);
        assert!(ours["process_open_fds"] >= 3.0 && ours["process_max_fds"] > ours["process_open_fds"]);
        let (_, text) = node.get("/metrics");
        assert!(text.contains(&format!("version=\"go{version}\"}} 1\n")), "{text}");
        passes_promtool(&text);
    }
}

#[test]
fn what_an_old_runtime_does_not_keep_is_left_out() {
    // Where the distribution has it.
    for version in toolchain::available().filter(|version| *version == toolchain::DEBIAN) {
        let (node, mut target) = watched(version, BuildFlags::Stripped, &[]);
        let _: Value = target.ask("take");
        let series = scrape(&node, target.pid());
        for kept in
            ["go_memstats_sys_bytes", "go_gc_heap_allocs_by_size_bytes_count", "go_sched_goroutines_waiting_goroutines"]
        {
            assert!(series[kept] > 0.0, "{kept}");
        }
        let words =
            ["cpu_classes", "cpu_time", "latencies", "pauses", "mutex_wait", "finalizers", "cleanups", "created"];
        let told: Vec<&String> = series
            .keys()
            .filter(|name| name.starts_with("go_") && words.iter().any(|word| name.contains(word)))
            .collect();
        assert!(told.is_empty(), "{told:?}");
    }
}

#[test]
fn all_that_the_newest_runtime_measures_is_exported_or_said_not_to_be() {
    let mut target = Target::spawn_command(Command::new(fixture("vitals", NEWEST, BuildFlags::Stripped)));
    let _: Value = target.answer();
    let names: Vec<String> = target.ask("names");
    assert!(names.len() > 100, "{names:?}");
    let exported: BTreeSet<&str> = metrics::ALL.iter().map(|row| row.definition.name).collect();
    let unread = |name: &str| metrics::NOT_READ.iter().any(|(start, _)| name.starts_with(start));
    for name in &names {
        let ours = client_name(name);
        let is_exported = [ours.clone(), format!("{ours}_total")].iter().any(|name| exported.contains(&name[..]));
        assert_ne!(is_exported, unread(name), "{name} is to be one or the other");
    }
    let documented = fs::read_to_string(xtask::root().join("docs/runtime.md")).expect("docs/runtime.md");
    let documented = documented.split_whitespace().collect::<Vec<_>>().join(" ");
    for (start, why) in metrics::NOT_READ {
        assert!(names.iter().any(|name| name.starts_with(start)), "no metric begins with {start}");
        assert!(
            documented.contains(&format!("| `{start}…` | {why} |")),
            "docs/runtime.md does not say: {start}: {why}"
        );
    }
}

#[test]
fn profiles_are_served_as_the_program_would_and_those_it_keeps_none_of_say_so() {
    let (node, target) = watched(NEWEST, BuildFlags::Stripped, &[]);
    let pid = target.pid();
    for kind in ["goroutine", "heap", "allocs", "threadcreate"] {
        let (status, body) = node.get_bytes(&format!("/debug/pprof/{kind}?pid={pid}"));
        assert_eq!(status, 200, "{kind}: {}", String::from_utf8_lossy(&body));
        assert_eq!(body.get(..2), Some(&[0x1f, 0x8b][..]), "{kind} is gzip'ed");
    }
    for (kind, remedy) in [("block", "SetBlockProfileRate"), ("mutex", "SetMutexProfileFraction")] {
        let (status, body) = node.get(&format!("/debug/pprof/{kind}?pid={pid}"));
        assert!(status == 409 && body.contains(remedy), "{kind}: {status} {body}");
    }
    let (status, page) = node.get("/debug/pprof/");
    assert!(status == 200 && page.contains(&format!("heap?pid={pid}")), "{page}");
}

#[test]
fn what_is_unusual_is_in_the_report_and_healthy_programs_show_nothing() {
    let (node, target) = watched(NEWEST, BuildFlags::Stripped, &["-fault", "spiral", "-n", "64"]);
    let pid = target.pid();
    let says = node.wait_for("a sign", |node| {
        let signs = node.report(pid)?.runtime?.signs;
        signs.into_iter().find(|sign| sign.rule == "memory limit").map(|sign| sign.says)
    });
    assert!(says.contains("the memory limit is 64.0 MiB"), "{says}");
    let watch = ["watch", "--pid", &pid.to_string(), "--for", "2s", "--interval", "500ms", "--mode", "census"];
    let text = String::from_utf8(run(watch).stdout).expect("UTF-8");
    assert!(text.lines().any(|line| line.starts_with("  unusual: memory limit: ")), "{text}");
    drop((node, target));
    let (node, target) = watched(NEWEST, BuildFlags::Stripped, &["-fault", "healthy", "-n", "2"]);
    let pid = target.pid();
    let looked = node.wait_for("many looks", |node| {
        let runtime = node.report(pid)?.runtime?;
        (runtime.now.as_ref()?.memory.stats.num_gc > 100).then_some(runtime)
    });
    assert_eq!(looked.signs, []);
    let between = looked.between.expect("several looks");
    assert!(between.collections > 0 && between.longest_pause_ns.is_some(), "{between:?}");
}
