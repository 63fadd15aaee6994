//! The metrics that Go programs export of themselves with Prometheus' client library, of programs that export nothing: by the same
//! names and with the same meaning, read from outside at the last look.
//!
//! `basic` has what the client library's default collectors give, `all` also what `runtime/metrics` has and can be read from
//! outside. Deliberately absent: what the runtime counts by size class, the parts of CPU time that it does not keep apart in
//! all versions, and calls to C, whose count of threads that have ended is not known.
//!
//! Sources: `prometheus/client_golang`, `prometheus/go_collector*.go`, `process_collector.go` and
//! `internal/go_runtime_metrics.go`; `src/runtime/metrics/description.go`.

use super::definitions::{Definition, Kind};
use super::scrape::{Scrape, Value};
use crate::config::settings::RuntimeMetrics;
use crate::discover::usage::ProcessNumbers;
use crate::report::{Report, Runtime};
use crate::runtime::histogram::Histogram;
use crate::runtime::mem::MemStats;
use crate::runtime::vitals::Vitals;

/// Buckets of times that grow by a factor of ten end at one second, as the client library has them.
const LARGEST_BOUND: f64 = 1.0;
const FACTOR: f64 = 10.0;

/// What a metric is made from.
struct From<'a> {
    report: &'a Report,
    runtime: &'a Runtime,
    now: &'a Vitals,
}

/// What a metric says; nothing where this program's Go version has no such number.
enum Said<'a> {
    Number(Option<f64>),
    Times(Option<&'a Histogram>),
    Pauses,
    Version,
}

/// A row of the table.
pub struct RuntimeMetric {
    /// Its name, type and meaning.
    pub definition: Definition,
    /// The setting with which it is exported.
    pub at: RuntimeMetrics,
    says: for<'a> fn(&From<'a>) -> Said<'a>,
}

macro_rules! rows {
    ($($at:ident $kind:ident $name:literal [$($label:literal),*] $help:literal $says:expr;)*) => {
        /// All of them.
        pub const ALL: &[RuntimeMetric] = &[$(RuntimeMetric {
            definition: Definition {
                name: $name,
                kind: Kind::$kind,
                of_process: true,
                labels: &[$($label),*],
                help: $help,
            },
            at: RuntimeMetrics::$at,
            says: $says,
        }),*];
    };
}

fn number<'a>(number: u64) -> Said<'a> {
    Said::Number(Some(number as f64))
}

fn seconds<'a>(ns: u64) -> Said<'a> {
    Said::Number(Some(ns as f64 / 1e9))
}

fn stat<'a>(from: &From<'a>, of: fn(&MemStats) -> u64) -> Said<'a> {
    number(of(&from.now.memory.stats))
}

/// What `runtime/metrics` has by that name.
fn metric<'a>(from: &From<'a>, name: &str) -> Said<'a> {
    Said::Number(from.now.memory.metrics().get(name).map(|number| *number as f64))
}

fn stops<'a>(from: &From<'a>, name: &str) -> Said<'a> {
    Said::Times(from.now.memory.stop_times.get(name))
}

fn process<'a>(from: &From<'a>, name: &str) -> Said<'a> {
    Said::Number(from.runtime.process.and_then(|process| process_number(&process, name)))
}

/// What a process collector has by that name.
fn process_number(process: &ProcessNumbers, name: &str) -> Option<f64> {
    Some(match name {
        "process_cpu_seconds_total" => process.cpu_ns as f64 / 1e9,
        "process_resident_memory_bytes" => process.rss_bytes as f64,
        "process_virtual_memory_bytes" => process.virtual_bytes as f64,
        "process_start_time_seconds" => process.start_unix_ns as f64 / 1e9,
        "process_open_fds" => process.open_files? as f64,
        "process_max_fds" => process.max_files? as f64,
        _ => return None,
    })
}

rows! {
    Basic Gauge "go_goroutines" [] "Goroutines of the program, those of the runtime left out."
        |from| number(from.report.goroutines.live.saturating_sub(from.report.goroutines.system));
    Basic Gauge "go_threads" [] "Threads of the program's scheduler." |from| number(from.now.scheduler.threads);
    Basic Gauge "go_info" ["version"] "1, with the program's Go version." |_| Said::Version;
    Basic Summary "go_gc_duration_seconds" []
        "Pauses of collections: count and sum are the runtime's own, of all that there were; quantiles are of the last 256, which is what it remembers."
        |_| Said::Pauses;
    Basic Gauge "go_gc_gogc_percent" [] "GOGC, as it is now; 2^64 - 1 if it is off." |from| metric(from, "/gc/gogc:percent");
    Basic Gauge "go_gc_gomemlimit_bytes" [] "GOMEMLIMIT, as it is now; 2^63 - 1 if there is none."
        |from| metric(from, "/gc/gomemlimit:bytes");
    Basic Gauge "go_sched_gomaxprocs_threads" [] "GOMAXPROCS, as it is now." |from| number(from.now.scheduler.gomaxprocs);
    Basic Gauge "go_memstats_alloc_bytes" [] "Bytes of objects on the heap." |from| stat(from, |stats| stats.alloc);
    Basic Counter "go_memstats_alloc_bytes_total" [] "Bytes of all objects that were allocated, freed ones too."
        |from| stat(from, |stats| stats.total_alloc);
    Basic Gauge "go_memstats_sys_bytes" [] "Bytes obtained from the system." |from| stat(from, |stats| stats.sys);
    Basic Counter "go_memstats_lookups_total" [] "Always 0, as runtime.MemStats has it; some dashboards ask for it." |_| number(0);
    Basic Counter "go_memstats_mallocs_total" [] "Objects allocated." |from| stat(from, |stats| stats.mallocs);
    Basic Counter "go_memstats_frees_total" [] "Objects freed." |from| stat(from, |stats| stats.frees);
    Basic Gauge "go_memstats_heap_alloc_bytes" [] "Bytes of objects on the heap." |from| stat(from, |stats| stats.heap_alloc);
    Basic Gauge "go_memstats_heap_sys_bytes" [] "Bytes of the heap obtained from the system." |from| stat(from, |stats| stats.heap_sys);
    Basic Gauge "go_memstats_heap_idle_bytes" [] "Bytes of the heap that hold no object." |from| stat(from, |stats| stats.heap_idle);
    Basic Gauge "go_memstats_heap_inuse_bytes" [] "Bytes of spans that hold an object." |from| stat(from, |stats| stats.heap_inuse);
    Basic Gauge "go_memstats_heap_released_bytes" [] "Bytes of the heap given back to the system." |from| stat(from, |stats| stats.heap_released);
    Basic Gauge "go_memstats_heap_objects" [] "Objects on the heap." |from| stat(from, |stats| stats.heap_objects);
    Basic Gauge "go_memstats_stack_inuse_bytes" [] "Bytes of goroutines' stacks." |from| stat(from, |stats| stats.stack_inuse);
    Basic Gauge "go_memstats_stack_sys_bytes" [] "Bytes of stacks obtained from the system, those of threads too."
        |from| stat(from, |stats| stats.stack_sys);
    Basic Gauge "go_memstats_mspan_inuse_bytes" [] "Bytes of the runtime's span structures in use." |from| stat(from, |stats| stats.mspan_inuse);
    Basic Gauge "go_memstats_mspan_sys_bytes" [] "Bytes obtained from the system for them." |from| stat(from, |stats| stats.mspan_sys);
    Basic Gauge "go_memstats_mcache_inuse_bytes" [] "Bytes of the runtime's caches in use." |from| stat(from, |stats| stats.mcache_inuse);
    Basic Gauge "go_memstats_mcache_sys_bytes" [] "Bytes obtained from the system for them." |from| stat(from, |stats| stats.mcache_sys);
    Basic Gauge "go_memstats_buck_hash_sys_bytes" [] "Bytes of the runtime's profiles." |from| stat(from, |stats| stats.buck_hash_sys);
    Basic Gauge "go_memstats_gc_sys_bytes" [] "Bytes of the collector's own data." |from| stat(from, |stats| stats.gc_sys);
    Basic Gauge "go_memstats_other_sys_bytes" [] "Other bytes obtained from the system." |from| stat(from, |stats| stats.other_sys);
    Basic Gauge "go_memstats_next_gc_bytes" [] "Size of the heap at which the next collection is to be done; 2^64 - 1 if the collector is off."
        |from| stat(from, |stats| stats.next_gc);
    Basic Gauge "go_memstats_last_gc_time_seconds" [] "When the last collection ended, in seconds since 1970; 0 if there was none."
        |from| seconds(from.now.memory.stats.last_gc);
    Basic Gauge "go_memstats_gc_cpu_fraction" [] "The collector's share of the CPU time since the program began."
        |from| Said::Number(Some(from.now.memory.stats.gc_cpu_fraction));
    Basic Counter "process_cpu_seconds_total" [] "CPU time of the process in user and kernel."
        |from| process(from, "process_cpu_seconds_total");
    Basic Gauge "process_resident_memory_bytes" [] "Resident memory of the process."
        |from| process(from, "process_resident_memory_bytes");
    Basic Gauge "process_virtual_memory_bytes" [] "Address space of the process."
        |from| process(from, "process_virtual_memory_bytes");
    Basic Gauge "process_start_time_seconds" [] "When the process began, in seconds since 1970."
        |from| process(from, "process_start_time_seconds");
    Basic Gauge "process_open_fds" [] "Open files of the process; 100000 are counted at most."
        |from| process(from, "process_open_fds");
    Basic Gauge "process_max_fds" [] "How many files the process may open."
        |from| process(from, "process_max_fds");

    All Counter "go_cpu_classes_gc_total_cpu_seconds_total" [] "CPU time of the collector, as of the last collection."
        |from| seconds(from.now.memory.gc_cpu_ns);
    All Counter "go_cpu_classes_idle_cpu_seconds_total" [] "CPU time that Ps had nothing to do, as of the last collection."
        |from| seconds(from.now.memory.idle_cpu_ns);
    All Counter "go_cpu_classes_total_cpu_seconds_total" [] "CPU time that there was for the program, GOMAXPROCS times the time, as of the last collection."
        |from| seconds(from.now.memory.total_cpu_ns);
    All Counter "go_gc_cleanups_executed_cleanups_total" [] "Cleanups run (Go 1.25 and later)."
        |from| Said::Number(from.now.memory.cleanups_executed.map(|count| count as f64));
    All Counter "go_gc_cleanups_queued_cleanups_total" [] "Cleanups queued (Go 1.25 and later)."
        |from| Said::Number(from.now.memory.cleanups_queued.map(|count| count as f64));
    All Counter "go_gc_cycles_automatic_gc_cycles_total" [] "Collections that nobody asked for." |from| metric(from, "/gc/cycles/automatic:gc-cycles");
    All Counter "go_gc_cycles_forced_gc_cycles_total" [] "Collections that the program asked for." |from| metric(from, "/gc/cycles/forced:gc-cycles");
    All Counter "go_gc_cycles_total_gc_cycles_total" [] "Collections." |from| metric(from, "/gc/cycles/total:gc-cycles");
    All Counter "go_gc_heap_allocs_bytes_total" [] "Bytes of all objects that were allocated." |from| metric(from, "/gc/heap/allocs:bytes");
    All Counter "go_gc_heap_allocs_objects_total" [] "Objects allocated, tiny ones counted by block." |from| metric(from, "/gc/heap/allocs:objects");
    All Counter "go_gc_heap_frees_bytes_total" [] "Bytes of all objects that were freed." |from| metric(from, "/gc/heap/frees:bytes");
    All Counter "go_gc_heap_frees_objects_total" [] "Objects freed, tiny ones counted by block." |from| metric(from, "/gc/heap/frees:objects");
    All Gauge "go_gc_heap_goal_bytes" [] "Size of the heap at which the collection is to end." |from| metric(from, "/gc/heap/goal:bytes");
    All Gauge "go_gc_heap_live_bytes" [] "Bytes that the last collection found live." |from| metric(from, "/gc/heap/live:bytes");
    All Gauge "go_gc_heap_objects_objects" [] "Objects on the heap." |from| metric(from, "/gc/heap/objects:objects");
    All Counter "go_gc_heap_tiny_allocs_objects_total" [] "Tiny objects that came into a block with others." |from| metric(from, "/gc/heap/tiny/allocs:objects");
    All Gauge "go_gc_limiter_last_enabled_gc_cycle" [] "The last collection in which the collector was kept from taking more CPU; 0 for never."
        |from| metric(from, "/gc/limiter/last-enabled:gc-cycle");
    All Histogram "go_gc_pauses_seconds" [] "How long the world stood still for collections, each stop for itself; the sum is a lower bound."
        |from| match stops(from, "/gc/pauses:seconds") {
            // Until Go 1.21, and since.
            Said::Times(None) => stops(from, "/sched/pauses/total/gc:seconds"),
            found => found,
        };
    All Gauge "go_gc_scan_globals_bytes" [] "Bytes of variables that have to be scanned." |from| metric(from, "/gc/scan/globals:bytes");
    All Gauge "go_gc_scan_heap_bytes" [] "Bytes of the heap that have to be scanned." |from| metric(from, "/gc/scan/heap:bytes");
    All Gauge "go_gc_scan_stack_bytes" [] "Bytes of stacks that the last collection scanned." |from| metric(from, "/gc/scan/stack:bytes");
    All Gauge "go_gc_scan_total_bytes" [] "Bytes that have to be scanned." |from| metric(from, "/gc/scan/total:bytes");
    All Gauge "go_memory_classes_heap_free_bytes" [] "Free bytes of the heap that were not given back." |from| metric(from, "/memory/classes/heap/free:bytes");
    All Gauge "go_memory_classes_heap_objects_bytes" [] "Bytes of objects on the heap." |from| metric(from, "/memory/classes/heap/objects:bytes");
    All Gauge "go_memory_classes_heap_released_bytes" [] "Bytes of the heap given back to the system." |from| metric(from, "/memory/classes/heap/released:bytes");
    All Gauge "go_memory_classes_heap_stacks_bytes" [] "Bytes of goroutines' stacks." |from| metric(from, "/memory/classes/heap/stacks:bytes");
    All Gauge "go_memory_classes_heap_unused_bytes" [] "Bytes of spans in use that hold no object." |from| metric(from, "/memory/classes/heap/unused:bytes");
    All Gauge "go_memory_classes_metadata_mcache_free_bytes" [] "Unused bytes for the runtime's caches." |from| metric(from, "/memory/classes/metadata/mcache/free:bytes");
    All Gauge "go_memory_classes_metadata_mcache_inuse_bytes" [] "Bytes of the runtime's caches in use." |from| metric(from, "/memory/classes/metadata/mcache/inuse:bytes");
    All Gauge "go_memory_classes_metadata_mspan_free_bytes" [] "Unused bytes for the runtime's span structures." |from| metric(from, "/memory/classes/metadata/mspan/free:bytes");
    All Gauge "go_memory_classes_metadata_mspan_inuse_bytes" [] "Bytes of the runtime's span structures in use." |from| metric(from, "/memory/classes/metadata/mspan/inuse:bytes");
    All Gauge "go_memory_classes_metadata_other_bytes" [] "Bytes of the runtime's other data." |from| metric(from, "/memory/classes/metadata/other:bytes");
    All Gauge "go_memory_classes_os_stacks_bytes" [] "Bytes of threads' stacks." |from| metric(from, "/memory/classes/os-stacks:bytes");
    All Gauge "go_memory_classes_other_bytes" [] "Other bytes obtained from the system." |from| metric(from, "/memory/classes/other:bytes");
    All Gauge "go_memory_classes_profiling_buckets_bytes" [] "Bytes of the runtime's profiles." |from| metric(from, "/memory/classes/profiling/buckets:bytes");
    All Gauge "go_memory_classes_total_bytes" [] "Bytes obtained from the system." |from| metric(from, "/memory/classes/total:bytes");
    All Gauge "go_sched_goroutines_goroutines" [] "Goroutines of the program; those of the runtime are counted from Go 1.26 on, as the runtime does."
        |from| match from.now.scheduler.created {
            // Counted since the same version.
            Some(_) => number(from.report.goroutines.live),
            None => number(from.report.goroutines.live.saturating_sub(from.report.goroutines.system)),
        };
    All Counter "go_sched_goroutines_created_goroutines_total" [] "Goroutines made so far (Go 1.26 and later)."
        |from| Said::Number(from.now.scheduler.created.map(|count| count as f64));
    All Histogram "go_sched_latencies_seconds" [] "How long goroutines that were ready waited for a P; the runtime looks at one in eight, and the sum is a lower bound."
        |from| Said::Times(from.now.scheduler.latency.as_ref());
    All Histogram "go_sched_pauses_stopping_gc_seconds" [] "How long the world took to stop for collections; the sum is a lower bound (Go 1.22 and later)."
        |from| stops(from, "/sched/pauses/stopping/gc:seconds");
    All Histogram "go_sched_pauses_stopping_other_seconds" [] "The same for other reasons." |from| stops(from, "/sched/pauses/stopping/other:seconds");
    All Histogram "go_sched_pauses_total_gc_seconds" [] "How long the world took to stop for collections and stood still; the sum is a lower bound (Go 1.22 and later)."
        |from| stops(from, "/sched/pauses/total/gc:seconds");
    All Histogram "go_sched_pauses_total_other_seconds" [] "The same for other reasons." |from| stops(from, "/sched/pauses/total/other:seconds");
    All Counter "go_sync_mutex_wait_total_seconds_total" [] "Time that goroutines have waited for mutexes, as the runtime samples it."
        |from| seconds(from.now.scheduler.mutex_wait_ns.saturating_add(from.now.scheduler.runtime_lock_wait_ns.unwrap_or(0)));
}

/// Adds what there is of them about the agent's own process. It has no namespace, pod and container: Prometheus adds those that it
/// knows of the agent.
pub fn of_agent(scrape: &mut Scrape, pid: u32, process: &ProcessNumbers) {
    for row in ALL {
        if let Some(number) = process_number(process, row.definition.name) {
            let definition = Definition { of_process: false, labels: &["exe", "pid"], ..row.definition };
            scrape.add(&definition, &[env!("CARGO_PKG_NAME"), &pid.to_string()], &Value::Number(number));
        }
    }
}

/// Adds those of one process, with the values of the labels that say which it is; none where its runtime could not be read.
pub fn of_one(scrape: &mut Scrape, process: &[&str], report: &Report, wanted: RuntimeMetrics) {
    let Some((runtime, now)) = report.runtime.as_ref().and_then(|runtime| Some((runtime, runtime.now.as_ref()?)))
    else {
        return;
    };
    let from = From { report, runtime, now };
    for row in ALL.iter().filter(|row| row.at <= wanted) {
        let mut add = |value: &Value<'_>| scrape.add(&row.definition, process, value);
        match (row.says)(&from) {
            Said::Number(Some(number)) => add(&Value::Number(number)),
            Said::Number(None) | Said::Times(None) => {}
            Said::Times(Some(histogram)) => {
                let (bounds, counts, sum) = buckets(histogram);
                add(&Value::Histogram(&bounds, &counts, sum));
            }
            Said::Pauses => {
                let quantiles = runtime.pause_quantiles_ns.map(|ns| ns as f64 / 1e9);
                let quantiles: Vec<(f64, f64)> = [0.0, 0.25, 0.5, 0.75, 1.0].into_iter().zip(quantiles).collect();
                let stats = now.memory.stats;
                add(&Value::Summary(&quantiles, stats.num_gc, stats.pause_total_ns as f64 / 1e9));
            }
            Said::Version => {
                let labels = [process, &[report.target.go_version.as_str()]].concat();
                scrape.add(&row.definition, &labels, &Value::Number(1.0));
            }
        }
    }
}

/// The runtime's histogram in fewer buckets, as the client library has them: bounds, what lies between them, and the sum, for
/// which each duration is taken for the shortest of its bucket.
fn buckets(histogram: &Histogram) -> (Vec<f64>, Vec<u64>, f64) {
    let lower = |bucket: usize| Histogram::lower_bound(bucket) as f64 / 1e9;
    let (mut bounds, mut counts, mut sum) = (Vec::new(), vec![histogram.underflow], 0.0);
    let mut next = lower(1);
    for (bucket, count) in histogram.counts.iter().enumerate() {
        let bound = lower(bucket);
        if bucket > 0 && bound >= next && bound <= LARGEST_BOUND {
            // A duration that is the bound itself is in the bucket above it here, and would be in the one below there.
            bounds.push(bound.next_down());
            counts.push(0);
            next = bound * FACTOR;
        }
        if let Some(last) = counts.last_mut() {
            *last = last.saturating_add(*count);
        }
        sum += bound * *count as f64;
    }
    if let Some(last) = counts.last_mut() {
        *last = last.saturating_add(histogram.overflow);
    }
    sum += lower(histogram.counts.len()) * histogram.overflow as f64;
    (bounds, counts, sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_those_of_the_client_library() {
        let mut counts = vec![0; 160];
        // 0 to 64 ns; 64 to 128 ns; the last, of days.
        (counts[0], counts[1], counts[159]) = (5, 7, 1);
        let (bounds, counts, sum) = buckets(&Histogram { counts, underflow: 2, overflow: 1 });
        let expected = [6.4e-8, 6.4e-7, 7.168e-6, 8.192e-5, 0.000_917_504, 0.010_485_76, 0.117_440_512];
        assert_eq!(bounds.len(), expected.len());
        assert!(bounds.iter().zip(expected).all(|(ours, theirs)| (ours / theirs - 1.0).abs() < 1e-12), "{bounds:?}");
        assert_eq!(counts, [7, 7, 0, 0, 0, 0, 0, 2]);
        assert!(sum > 100_000.0);
    }

    #[test]
    fn names_are_formed_as_the_client_library_forms_them() {
        for row in ALL {
            let Definition { name, kind, .. } = row.definition;
            assert_eq!(kind == Kind::Counter, name.ends_with("_total"), "{name}");
            assert!(name.starts_with("go_") || name.starts_with("process_"), "{name}");
            assert_eq!(ALL.iter().filter(|other| other.definition.name == name).count(), 1, "{name}");
        }
    }

    /// The metrics of public dashboards for Go processes, as their queries name them.
    const DASHBOARDS: [(&str, &[&str]); 2] = [
        (
            "Go Metrics (10826)",
            &[
                "go_gc_duration_seconds",
                "go_goroutines",
                "go_memstats_alloc_bytes_total",
                "go_memstats_buck_hash_sys_bytes",
                "go_memstats_frees_total",
                "go_memstats_gc_sys_bytes",
                "go_memstats_heap_alloc_bytes",
                "go_memstats_heap_idle_bytes",
                "go_memstats_heap_inuse_bytes",
                "go_memstats_heap_released_bytes",
                "go_memstats_heap_sys_bytes",
                "go_memstats_lookups_total",
                "go_memstats_mallocs_total",
                "go_memstats_mcache_inuse_bytes",
                "go_memstats_mcache_sys_bytes",
                "go_memstats_mspan_inuse_bytes",
                "go_memstats_mspan_sys_bytes",
                "go_memstats_next_gc_bytes",
                "go_memstats_other_sys_bytes",
                "go_memstats_stack_inuse_bytes",
                "go_memstats_stack_sys_bytes",
                "go_memstats_sys_bytes",
            ],
        ),
        (
            "Go Processes (6671)",
            &[
                "go_gc_duration_seconds",
                "go_goroutines",
                "go_info",
                "go_memstats_alloc_bytes",
                "go_memstats_alloc_bytes_total",
                "go_memstats_frees_total",
                "go_memstats_heap_inuse_bytes",
                "go_memstats_mallocs_total",
                "go_memstats_stack_inuse_bytes",
                "go_threads",
                "process_open_fds",
                "process_resident_memory_bytes",
                "process_start_time_seconds",
                "process_virtual_memory_bytes",
            ],
        ),
    ];

    #[test]
    fn what_public_dashboards_ask_for_is_there_by_default() {
        let basic: Vec<&str> =
            ALL.iter().filter(|row| row.at <= RuntimeMetrics::default()).map(|row| row.definition.name).collect();
        for (dashboard, names) in DASHBOARDS {
            let missing: Vec<&&str> = names.iter().filter(|name| !basic.contains(name)).collect();
            assert!(missing.is_empty(), "{dashboard}: {missing:?}");
        }
    }
}
