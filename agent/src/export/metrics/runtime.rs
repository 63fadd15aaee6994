//! The metrics that Go programs export of themselves with Prometheus' client library, of programs that export nothing: by the same
//! names and with the same meaning, read from outside at the last look.
//!
//! `basic` has what the client library's default collectors give, `all` also what `runtime/metrics` has and can be read from
//! outside ([`NOT_READ`] is the rest). [`OPENTELEMETRY`] has the same numbers by the names of OpenTelemetry's semantic conventions,
//! as its exporters spell them for Prometheus: dots are underscores, units come last, and counters end in `_total`.
//!
//! Sources: `model/go` of `open-telemetry/semantic-conventions`; `prometheus/client_golang`, `prometheus/go_collector*.go`, `process_collector.go` and
//! `internal/go_runtime_metrics.go`; `src/runtime/metrics/description.go`.

use super::definitions::{Definition, Kind};
use super::scrape::{Scrape, Value};
use crate::config::node::Metrics;
use crate::config::settings::{RuntimeMetrics, RuntimeNames};
use crate::discover::usage::ProcessNumbers;
use crate::report::{Report, Runtime};
use crate::runtime::histogram::Histogram;
use crate::runtime::mem::{CLASS_SIZES, MemStats, NO_LIMIT};
use crate::runtime::vitals::Vitals;

/// Buckets of times grow by this factor and end at one second, as the client library has them.
const TIME_FACTOR: f64 = 10.0;
const LONGEST: f64 = 1.0;
/// Buckets of sizes grow by this factor.
const SIZE_FACTOR: f64 = 2.0;

/// What `runtime/metrics` has and is not exported, by how its names begin, and why.
pub const NOT_READ: &[(&str, &str)] = &[(
    "/godebug/non-default-behavior/",
    "each counter is in an object that the package internal/godebug makes when a setting is first used, and keeps in a map of the \
     program that has no fixed place",
)];

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
    /// Objects by size class, and their bytes.
    Sizes(&'a [u64], u64),
    /// By the value of its label.
    By(Vec<(&'static str, Option<u64>)>, f64),
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
    ($(#[$doc:meta])* $table:ident $($at:ident $kind:ident $name:literal [$($label:literal),*] $help:literal $says:expr;)*) => {
        $(#[$doc])*
        pub const $table: &[RuntimeMetric] = &[$(RuntimeMetric {
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

/// A part of the CPU time.
fn cpu<'a>(from: &From<'a>, class: &str) -> Said<'a> {
    Said::Number(cpu_ns(from, class).map(|ns| ns as f64 / 1e9))
}

fn cpu_ns(from: &From<'_>, class: &str) -> Option<u64> {
    from.now.memory.cpu_class_ns(class)
}

/// What `/sched/goroutines` has.
fn goroutines(from: &From<'_>) -> u64 {
    match from.now.scheduler.created {
        Some(_) => goroutines_and_system(from),
        None => from.report.goroutines.live.saturating_sub(from.report.goroutines.system),
    }
}

/// With the goroutines of the runtime, as it counts them since Go 1.26, which counts those made too. Those that it keeps for calls
/// from C are among them, though they are dead.
fn goroutines_and_system(from: &From<'_>) -> u64 {
    let scheduler = &from.now.scheduler;
    let kept = scheduler.created.and(scheduler.extra_threads).map_or(0, |extra| extra.idle);
    from.report.goroutines.live.saturating_add(kept)
}

/// What `/gc/pauses` has.
fn collections_stops<'a>(from: &From<'a>) -> Said<'a> {
    match stops(from, "/gc/pauses:seconds") {
        // Until Go 1.21, and since.
        Said::Times(None) => stops(from, "/sched/pauses/total/gc:seconds"),
        found => found,
    }
}

rows! {
    /// By the names of Prometheus' client library.
    ALL
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

    All Counter "go_cgo_go_to_c_calls_calls_total" [] "Calls from Go to C; of programs that have symbols."
        |from| Said::Number(from.now.scheduler.all_c_calls.map(|count| count as f64));
    All Counter "go_cpu_classes_gc_mark_assist_cpu_seconds_total" [] "CPU time of goroutines that helped the collector because they allocated, as of the last collection."
        |from| cpu(from, "gc/mark/assist");
    All Counter "go_cpu_classes_gc_mark_dedicated_cpu_seconds_total" [] "CPU time of the collector on Ps of its own, as of the last collection."
        |from| cpu(from, "gc/mark/dedicated");
    All Counter "go_cpu_classes_gc_mark_idle_cpu_seconds_total" [] "CPU time of the collector on Ps that had nothing to do, as of the last collection."
        |from| cpu(from, "gc/mark/idle");
    All Counter "go_cpu_classes_gc_pause_cpu_seconds_total" [] "CPU time that the collector's pauses took from all Ps, as of the last collection."
        |from| cpu(from, "gc/pause");
    All Counter "go_cpu_classes_gc_total_cpu_seconds_total" [] "CPU time of the collector, as of the last collection."
        |from| cpu(from, "gc/total");
    All Counter "go_cpu_classes_idle_cpu_seconds_total" [] "CPU time that Ps had nothing to do, as of the last collection."
        |from| cpu(from, "idle");
    All Counter "go_cpu_classes_scavenge_assist_cpu_seconds_total" [] "CPU time of goroutines that gave memory back because they needed some, as of the last collection."
        |from| cpu(from, "scavenge/assist");
    All Counter "go_cpu_classes_scavenge_background_cpu_seconds_total" [] "CPU time of giving memory back in the background, as of the last collection."
        |from| cpu(from, "scavenge/background");
    All Counter "go_cpu_classes_scavenge_total_cpu_seconds_total" [] "CPU time of giving memory back, as of the last collection."
        |from| cpu(from, "scavenge/total");
    All Counter "go_cpu_classes_total_cpu_seconds_total" [] "CPU time that there was for the program, GOMAXPROCS times the time, as of the last collection."
        |from| cpu(from, "total");
    All Counter "go_cpu_classes_user_cpu_seconds_total" [] "CPU time of the program's own code, as of the last collection."
        |from| cpu(from, "user");
    All Counter "go_gc_cleanups_executed_cleanups_total" [] "Cleanups run (Go 1.25 and later)." |from| metric(from, "/gc/cleanups/executed:cleanups");
    All Counter "go_gc_cleanups_queued_cleanups_total" [] "Cleanups queued (Go 1.25 and later)." |from| metric(from, "/gc/cleanups/queued:cleanups");
    All Counter "go_gc_cycles_automatic_gc_cycles_total" [] "Collections that nobody asked for." |from| metric(from, "/gc/cycles/automatic:gc-cycles");
    All Counter "go_gc_cycles_forced_gc_cycles_total" [] "Collections that the program asked for." |from| metric(from, "/gc/cycles/forced:gc-cycles");
    All Counter "go_gc_cycles_total_gc_cycles_total" [] "Collections." |from| metric(from, "/gc/cycles/total:gc-cycles");
    All Counter "go_gc_finalizers_executed_finalizers_total" [] "Finalizers run (Go 1.25 and later)." |from| metric(from, "/gc/finalizers/executed:finalizers");
    All Counter "go_gc_finalizers_queued_finalizers_total" [] "Finalizers queued (Go 1.25 and later)." |from| metric(from, "/gc/finalizers/queued:finalizers");
    All Histogram "go_gc_heap_allocs_by_size_bytes" [] "Objects allocated, by their size; tiny ones are counted by block."
        |from| Said::Sizes(&from.now.memory.allocs_by_size, from.now.memory.stats.total_alloc);
    All Histogram "go_gc_heap_frees_by_size_bytes" [] "Objects freed, by their size; tiny ones are counted by block."
        |from| Said::Sizes(&from.now.memory.frees_by_size, from.now.memory.stats.total_alloc.saturating_sub(from.now.memory.stats.alloc));
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
        |from| collections_stops(from);
    All Gauge "go_gc_scan_globals_bytes" [] "Bytes of variables that have to be scanned." |from| metric(from, "/gc/scan/globals:bytes");
    All Gauge "go_gc_scan_heap_bytes" [] "Bytes of the heap that have to be scanned." |from| metric(from, "/gc/scan/heap:bytes");
    All Gauge "go_gc_scan_stack_bytes" [] "Bytes of stacks that the last collection scanned." |from| metric(from, "/gc/scan/stack:bytes");
    All Gauge "go_gc_scan_total_bytes" [] "Bytes that have to be scanned." |from| metric(from, "/gc/scan/total:bytes");
    All Gauge "go_gc_stack_starting_size_bytes" [] "Bytes of stack that a new goroutine begins with." |from| metric(from, "/gc/stack/starting-size:bytes");
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
        |from| number(goroutines(from));
    All Gauge "go_sched_goroutines_not_in_go_goroutines" [] "Goroutines in system calls or in C; the runtime itself counts them from Go 1.26 on."
        |from| number(from.now.scheduler.not_in_go);
    All Gauge "go_sched_goroutines_runnable_goroutines" [] "Goroutines that are ready to run; the runtime itself counts them from Go 1.26 on."
        |from| number(from.now.scheduler.runnable);
    All Gauge "go_sched_goroutines_running_goroutines" [] "Goroutines that run; the runtime itself counts them from Go 1.26 on."
        |from| number(from.now.scheduler.running);
    All Gauge "go_sched_goroutines_waiting_goroutines" [] "Goroutines that wait, those of the runtime too; the runtime itself counts them from Go 1.26 on."
        |from| {
            let scheduler = &from.now.scheduler;
            let others = scheduler.not_in_go.saturating_add(scheduler.runnable).saturating_add(scheduler.running);
            number(goroutines_and_system(from).saturating_sub(others))
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
    All Gauge "go_sched_threads_total_threads" [] "Threads of the runtime, those left out that it keeps for calls from C (Go 1.21 and later)."
        |from| Said::Number(from.now.scheduler.own_threads().map(|threads| threads as f64));
    All Counter "go_sync_mutex_wait_total_seconds_total" [] "Time that goroutines have waited for mutexes, as the runtime samples it."
        |from| {
            let runtimes = from.now.scheduler.runtime_lock_wait_ns.unwrap_or(0);
            Said::Number(from.now.scheduler.mutex_wait_ns.map(|ns| ns.saturating_add(runtimes) as f64 / 1e9))
        };
}

rows! {
    /// By the names of OpenTelemetry's semantic conventions.
    OPENTELEMETRY
    Basic Gauge "go_memory_used_bytes" ["go_memory_type"] "go.memory.used: bytes obtained from the system and not given back, those of goroutines' stacks apart."
        |from| {
            let stats = &from.now.memory.stats;
            let used = stats.sys.saturating_sub(stats.heap_released);
            Said::By(vec![("stack", Some(stats.stack_inuse)), ("other", Some(used.saturating_sub(stats.stack_inuse)))], 1.0)
        };
    Basic Gauge "go_memory_limit_bytes" [] "go.memory.limit: GOMEMLIMIT, if there is one."
        |from| Said::Number(Some(from.now.memory.memory_limit).filter(|limit| *limit != NO_LIMIT).map(|limit| limit as f64));
    Basic Counter "go_memory_allocated_bytes_total" [] "go.memory.allocated: bytes of all objects that were allocated." |from| metric(from, "/gc/heap/allocs:bytes");
    Basic Counter "go_memory_allocations_total" [] "go.memory.allocations: objects allocated, tiny ones counted by block." |from| metric(from, "/gc/heap/allocs:objects");
    Basic Gauge "go_memory_gc_goal_bytes" [] "go.memory.gc.goal: size of the heap at which the collection is to end." |from| metric(from, "/gc/heap/goal:bytes");
    Basic Counter "go_memory_gc_cycles_total" [] "go.memory.gc.cycles: collections." |from| metric(from, "/gc/cycles/total:gc-cycles");
    Basic Histogram "go_memory_gc_pause_duration_seconds" [] "go.memory.gc.pause.duration: how long the world took to stop for collections and stood still; the sum is a lower bound."
        |from| collections_stops(from);
    Basic Gauge "go_goroutine_count" [] "go.goroutine.count: goroutines of the program; those of the runtime are counted from Go 1.26 on, as the runtime does."
        |from| number(goroutines(from));
    Basic Gauge "go_processor_limit" [] "go.processor.limit: GOMAXPROCS, as it is now." |from| number(from.now.scheduler.gomaxprocs);
    Basic Histogram "go_schedule_duration_seconds" [] "go.schedule.duration: how long goroutines that were ready waited for a P; the runtime looks at one in eight, and the sum is a lower bound."
        |from| Said::Times(from.now.scheduler.latency.as_ref());
    Basic Gauge "go_config_gogc_percent" [] "go.config.gogc: GOGC, as it is now, if it is not off."
        |from| Said::Number(u64::try_from(from.now.memory.gc_percent).ok().map(|percent| percent as f64));
    Basic Counter "go_cpu_time_seconds_total" ["go_cpu_state"] "go.cpu.time: CPU time that there was for the program, by what it was used for, as of the last collection."
        |from| Said::By([("gc", "gc/total"), ("idle", "idle"), ("scavenge", "scavenge/total"), ("user", "user")]
            .map(|(state, class)| (state, cpu_ns(from, class))).into(), 1e9);
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

/// Those that are wanted.
fn rows(wanted: &Metrics) -> impl Iterator<Item = &'static RuntimeMetric> + use<> {
    let [prometheus, opentelemetry] = match wanted.names {
        RuntimeNames::Prometheus => [ALL, &[]],
        RuntimeNames::OpenTelemetry => [&[], OPENTELEMETRY],
        RuntimeNames::Both => [ALL, OPENTELEMETRY],
    };
    let most = wanted.runtime;
    prometheus.iter().chain(opentelemetry).filter(move |row| row.at <= most)
}

/// Adds those of one process, with the values of the labels that say which it is; none where its runtime could not be read.
pub fn of_one(scrape: &mut Scrape, process: &[&str], report: &Report, wanted: &Metrics) {
    let Some((runtime, now)) = report.runtime.as_ref().and_then(|runtime| Some((runtime, runtime.now.as_ref()?)))
    else {
        return;
    };
    let from = From { report, runtime, now };
    for row in rows(wanted) {
        let mut add = |value: &Value<'_>| scrape.add(&row.definition, process, value);
        match (row.says)(&from) {
            Said::Number(Some(number)) => add(&Value::Number(number)),
            Said::Number(None) | Said::Times(None) => {}
            Said::Times(Some(histogram)) => {
                let (bounds, counts, sum) = buckets(histogram);
                add(&Value::Histogram(&bounds, &counts, sum));
            }
            Said::Sizes(counts, bytes) => {
                if let Some((bounds, counts)) = sizes(counts) {
                    add(&Value::Histogram(&bounds, &counts, bytes as f64));
                }
            }
            Said::By(parts, unit) => {
                for (label, number) in parts.into_iter().filter_map(|(label, number)| Some((label, number?))) {
                    scrape.add(&row.definition, &[process, &[label]].concat(), &Value::Number(number as f64 / unit));
                }
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
        if bucket > 0 && bound >= next && bound <= LONGEST {
            // A duration that is the bound itself is in the bucket above it here, and would be in the one below there.
            bounds.push(bound.next_down());
            counts.push(0);
            next = bound * TIME_FACTOR;
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

/// Objects by size class in fewer buckets, as the client library has them: bounds, and what lies between them. None where they
/// were not read.
fn sizes(by_class: &[u64]) -> Option<(Vec<f64>, Vec<u64>)> {
    let (large, small) = by_class.split_first()?;
    let (mut bounds, mut counts) = (Vec::new(), vec![0u64]);
    // The runtime's bucket of a class begins one byte above the class before it.
    let mut next = SIZE_FACTOR;
    for (class, count) in small.iter().enumerate() {
        let start = (CLASS_SIZES.get(class)? + 1) as f64;
        if start >= next {
            bounds.push(start.next_down());
            counts.push(0);
            next = start * SIZE_FACTOR;
        }
        let last = counts.last_mut()?;
        *last = last.saturating_add(*count);
    }
    bounds.push(((CLASS_SIZES.last()? + 1) as f64).next_down());
    counts.push(*large);
    Some((bounds, counts))
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
    fn sizes_are_those_of_the_client_library() {
        // Large ones, then 8 bytes, 16, 24, 32.
        let mut by_class = vec![0; CLASS_SIZES.len()];
        (by_class[0], by_class[1], by_class[2], by_class[3], by_class[4], by_class[67]) = (9, 1, 2, 4, 8, 16);
        let (bounds, counts) = sizes(&by_class).expect("classes");
        let expected = [9, 25, 65, 145, 321, 705, 1537, 3201, 6529, 13569, 27265, 32769].map(f64::from);
        assert_eq!(bounds, expected.map(f64::next_down));
        assert_eq!(counts, [1, 6, 8, 0, 0, 0, 0, 0, 0, 0, 0, 16, 9]);
        assert_eq!(sizes(&[]), None);
    }

    #[test]
    fn names_are_formed_as_the_client_library_forms_them() {
        for row in ALL.iter().chain(OPENTELEMETRY) {
            let Definition { name, kind, .. } = row.definition;
            assert_eq!(kind == Kind::Counter, name.ends_with("_total"), "{name}");
            assert!(name.starts_with("go_") || name.starts_with("process_"), "{name}");
            assert_eq!(
                ALL.iter().chain(OPENTELEMETRY).filter(|other| other.definition.name == name).count(),
                1,
                "{name}"
            );
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
