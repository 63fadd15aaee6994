//! What the agent exports of a program's runtime against what the program says of itself.

use std::collections::BTreeMap;
use std::process::Command;

use parkwarden::clock::now_ns;
use parkwarden_tests::agent::run;
use parkwarden_tests::copied::Copied;
use parkwarden_tests::node::Node;
use parkwarden_tests::target::{DEADLINE, Target};
use parkwarden_tests::{BuildFlags, fixture, wait};
use serde_json::Value;
use xtask::toolchain::{NEWEST, VERSIONS};

use crate::deploy::passes_promtool;

/// An agent that watches the program, and the program.
fn watched(version: &str, arguments: &[&str]) -> (Node, Target) {
    let copied = Copied::file(&fixture("vitals", version, BuildFlags::Stripped), "vitals");
    let mut command = Command::new(&copied.program);
    command.args(arguments).env("GOMAXPROCS", "2");
    let mut target = Target::spawn_command(command);
    let _: Value = target.answer();
    let node = Node::start(&copied.pattern(), &["--mode", "census", "--interval", "500ms", "--metrics-runtime", "all"]);
    node.wait_for_state(target.pid(), "watched");
    (node, target)
}

/// A scrape of a look that began after now: the series of the program by name, those with labels of their own left out.
fn scrape(node: &Node, pid: u32) -> BTreeMap<String, f64> {
    let since = now_ns();
    node.wait_for("a look", |node| node.report(pid)?.runtime?.now.filter(|now| now.memory.read_ns > since));
    let (_, text) = node.get("/metrics");
    let own = format!("exe=\"vitals\",pid=\"{pid}\"}}");
    let series = |line: &str| {
        let (series, value) = line.rsplit_once(' ')?;
        let (name, labels) = series.split_once('{')?;
        labels.ends_with(&own).then(|| (name.to_owned(), value.parse().expect("a number")))
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

/// What the program says, by the names that the client library would export it by.
fn said(theirs: &Value) -> BTreeMap<String, f64> {
    let mut said = BTreeMap::new();
    let number = |value: &Value| value.as_f64().expect("a number");
    for (field, name) in MEM_STATS {
        let unit = if field == "LastGC" { 1e9 } else { 1.0 };
        said.insert(format!("go_memstats_{name}"), number(&theirs["memory"][field]) / unit);
    }
    said.insert("go_gc_duration_seconds_count".to_owned(), number(&theirs["memory"]["NumGC"]));
    said.insert("go_gc_duration_seconds_sum".to_owned(), number(&theirs["memory"]["PauseTotalNs"]) / 1e9);
    for (name, value) in theirs["metrics"].as_object().expect("metrics") {
        let name = format!("go{}", name.replace(['/', ':', '-'], "_"));
        match value.as_array() {
            Some(counts) => said.insert(format!("{name}_count"), counts.iter().map(number).sum()),
            // Whether it only grows, the scrape knows.
            None => said.insert(name, number(value)),
        };
    }
    said
}

/// What is different, and how many were compared.
fn compare(ours: &BTreeMap<String, f64>, theirs: &BTreeMap<String, f64>) -> (Vec<String>, usize) {
    let mut compared = 0;
    let mut different = Vec::new();
    for (name, theirs) in theirs {
        let Some(ours) = ours.get(name).or_else(|| ours.get(&format!("{name}_total"))) else { continue };
        compared += 1;
        if (ours - theirs).abs() > 1e-9 * theirs.abs().max(1.0) {
            different.push(format!("{name}: {ours}, not {theirs}"));
        }
    }
    (different, compared)
}

#[test]
fn what_is_exported_is_what_the_program_says_of_itself() {
    for version in [VERSIONS[0], "1.24.11", NEWEST] {
        let (node, mut target) = watched(version, &[]);
        let _: Value = target.ask("do allocate");
        let pid = target.pid();
        let result = wait::within(DEADLINE, || {
            let _: Value = target.ask("take");
            let ours = scrape(&node, pid);
            let theirs = said(&target.ask("tell"));
            let (different, compared) = compare(&ours, &theirs);
            if different.is_empty() { Ok((ours, compared)) } else { Err(different) }
        });
        let (ours, compared) = result.unwrap_or_else(|different| panic!("Go {version}: {different:#?}"));
        assert!(compared >= 62, "Go {version}: {compared} of {ours:#?}");
        assert_eq!(ours["go_sched_gomaxprocs_threads"], 2.0);
        assert!(ours["process_open_fds"] >= 3.0 && ours["process_max_fds"] > ours["process_open_fds"]);
        let (_, text) = node.get("/metrics");
        assert!(text.contains(&format!("version=\"go{version}\"}} 1\n")), "{text}");
        passes_promtool(&text);
    }
}

#[test]
fn profiles_are_served_as_the_program_would_and_those_it_keeps_none_of_say_so() {
    let (node, target) = watched(NEWEST, &[]);
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
    let (node, target) = watched(NEWEST, &["-fault", "spiral", "-n", "64"]);
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
    let (node, target) = watched(NEWEST, &["-fault", "healthy", "-n", "2"]);
    let pid = target.pid();
    let looked = node.wait_for("many looks", |node| {
        let runtime = node.report(pid)?.runtime?;
        (runtime.now.as_ref()?.memory.stats.num_gc > 100).then_some(runtime)
    });
    assert_eq!(looked.signs, []);
    let between = looked.between.expect("several looks");
    assert!(between.collections > 0 && between.longest_pause_ns.is_some(), "{between:?}");
}
