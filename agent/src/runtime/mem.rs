//! Memory and the collector: what `runtime.ReadMemStats` and `runtime/metrics` tell, from the variables that they add up.
//!
//! `memstats.heapStats` is three generations that are summed; a reader in the process turns them, which is seen by its `gen`
//! before and after. Small objects reach it only when a P takes a new span for their size: until then they are counted in
//! the spans that the Ps hold, which are read too, as `ReadMemStats` flushes them first.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::golang::layout::{Structs, Wanted};
use crate::memory::Memory;

use super::histogram::Histogram;
use super::{RuntimeError, View, sched};

/// The fields that are read.
pub const WANTED: &Wanted = &[
    (
        "runtime.mstats",
        &[
            ("heapStats", 0),
            ("stacks_sys", 8),
            ("mspan_sys", 8),
            ("mcache_sys", 8),
            ("buckhash_sys", 8),
            ("gcMiscSys", 8),
            ("other_sys", 8),
            ("last_gc_unix", 8),
            ("pause_total_ns", 8),
            ("pause_ns", 2048),
            ("pause_end", 2048),
            ("numgc", 4),
            ("numforcedgc", 4),
            ("gc_cpu_fraction", 8),
            // Until Go 1.21.
            ("gcPauseDist", 0),
        ],
    ),
    ("runtime.consistentHeapStats", &[("stats", 0), ("gen", 4)]),
    (
        "runtime.heapStatsDelta",
        &[
            ("committed", 8),
            ("released", 8),
            ("inHeap", 8),
            ("inStacks", 8),
            ("inWorkBufs", 8),
            // Until Go 1.24.
            ("inPtrScalarBits", 8),
            ("tinyAllocCount", 8),
            ("largeAlloc", 8),
            ("largeAllocCount", 8),
            ("smallAllocCount", 544),
            ("largeFree", 8),
            ("largeFreeCount", 8),
            ("smallFreeCount", 544),
        ],
    ),
    (
        "runtime.gcControllerState",
        &[
            ("gcPercent", 4),
            ("memoryLimit", 8),
            ("gcPercentHeapGoal", 8),
            ("sweepDistMinTrigger", 8),
            ("triggered", 8),
            ("heapLive", 8),
            ("heapScan", 8),
            ("lastStackScan", 8),
            ("globalsScan", 8),
            ("heapMarked", 8),
            ("heapInUse", 8),
            ("heapReleased", 8),
            ("heapFree", 8),
            ("totalAlloc", 8),
            ("totalFree", 8),
            ("mappedReady", 8),
        ],
    ),
    ("runtime.mheap", &[("spanalloc.inuse", 8), ("cachealloc.inuse", 8)]),
    (
        "runtime.workType",
        &[
            // All that is read of it in Go 1.19, which does not add up CPU time.
            ("cycles", 4),
            // Exported names since Go 1.25 or so.
            ("cpuStats.gcTotalTime", 8),
            ("cpuStats.GCTotalTime", 8),
            ("cpuStats.idleTime", 8),
            ("cpuStats.IdleTime", 8),
            ("cpuStats.totalTime", 8),
            ("cpuStats.TotalTime", 8),
            ("cpuStats.gcAssistTime", 8),
            ("cpuStats.GCAssistTime", 8),
            ("cpuStats.gcDedicatedTime", 8),
            ("cpuStats.GCDedicatedTime", 8),
            ("cpuStats.gcIdleTime", 8),
            ("cpuStats.GCIdleTime", 8),
            ("cpuStats.gcPauseTime", 8),
            ("cpuStats.GCPauseTime", 8),
            ("cpuStats.scavengeAssistTime", 8),
            ("cpuStats.ScavengeAssistTime", 8),
            ("cpuStats.scavengeBgTime", 8),
            ("cpuStats.ScavengeBgTime", 8),
            ("cpuStats.scavengeTotalTime", 8),
            ("cpuStats.ScavengeTotalTime", 8),
            ("cpuStats.userTime", 8),
            ("cpuStats.UserTime", 8),
        ],
    ),
    ("runtime.gcCPULimiterState", &[("enabled", 1), ("lastEnabledCycle", 4)]),
    // Go 1.25 and later.
    ("runtime.cleanupQueue", &[("queued", 8), ("executed", 8)]),
    ("runtime.p", &[("mcache", 8), ("cleanupsQueued", 8)]),
    ("runtime.mcache", &[("tinyAllocs", 8), ("alloc", 1088)]),
    ("runtime.mspan", &[("allocCount", 2), ("allocCountBeforeCache", 2), ("spanclass", 1)]),
];

/// Bytes of an object by its size class (`src/runtime/sizeclasses.go`, the same in Go 1.19 to 1.27).
pub const CLASS_SIZES: [u64; 68] = [
    0, 8, 16, 24, 32, 48, 64, 80, 96, 112, 128, 144, 160, 176, 192, 208, 224, 240, 256, 288, 320, 352, 384, 416, 448,
    480, 512, 576, 640, 704, 768, 896, 1024, 1152, 1280, 1408, 1536, 1792, 2048, 2304, 2688, 3072, 3200, 3456, 4096,
    4864, 5376, 6144, 6528, 6784, 6912, 8192, 9472, 9728, 10240, 10880, 12288, 13568, 14336, 16384, 18432, 19072,
    20480, 21760, 24576, 27264, 28672, 32768,
];
/// Looks at the generations, until no reader has turned them meanwhile.
const LOOKS: usize = 5;
/// Pauses that the runtime remembers.
const PAUSES: u64 = 256;
/// No limit of memory (`math.MaxInt64`).
pub const NO_LIMIT: u64 = i64::MAX as u64;
/// A collector that is off has this goal.
pub const NO_GOAL: u64 = u64::MAX;

/// Where the variables are.
#[derive(Clone, Copy, Debug)]
pub struct Places {
    /// `runtime.memstats`
    pub memstats: u64,
    /// `runtime.gcController`
    pub controller: u64,
    /// `runtime.mheap_`
    pub heap: u64,
    /// `runtime.work`
    pub work: u64,
    /// `runtime.gcCPULimiter`
    pub limiter: u64,
    /// `runtime.sched`
    pub sched: u64,
    /// `runtime.allp`
    pub allp: u64,
    /// `runtime.gcCleanups`; Go 1.25 and later.
    pub cleanups: Option<u64>,
    /// `runtime.finqueued` and `runtime.finexecuted`; Go 1.25 and later.
    pub finalizers: Option<[u64; 2]>,
    /// `runtime.startingStackSize`, where it is known.
    pub starting_stack: Option<u64>,
}

/// What `runtime.MemStats` has, in bytes, objects and nanoseconds, by its names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "PascalCase")]
#[expect(missing_docs, reason = "each is what runtime.MemStats has by the name")]
pub struct MemStats {
    pub alloc: u64,
    pub total_alloc: u64,
    pub sys: u64,
    pub mallocs: u64,
    pub frees: u64,
    pub heap_alloc: u64,
    pub heap_sys: u64,
    pub heap_idle: u64,
    pub heap_inuse: u64,
    pub heap_released: u64,
    pub heap_objects: u64,
    pub stack_inuse: u64,
    pub stack_sys: u64,
    #[serde(rename = "MSpanInuse")]
    pub mspan_inuse: u64,
    #[serde(rename = "MSpanSys")]
    pub mspan_sys: u64,
    #[serde(rename = "MCacheInuse")]
    pub mcache_inuse: u64,
    #[serde(rename = "MCacheSys")]
    pub mcache_sys: u64,
    pub buck_hash_sys: u64,
    #[serde(rename = "GCSys")]
    pub gc_sys: u64,
    pub other_sys: u64,
    #[serde(rename = "NextGC")]
    pub next_gc: u64,
    #[serde(rename = "LastGC")]
    pub last_gc: u64,
    pub pause_total_ns: u64,
    #[serde(rename = "NumGC")]
    pub num_gc: u64,
    #[serde(rename = "NumForcedGC")]
    pub num_forced_gc: u64,
    #[serde(rename = "GCCPUFraction")]
    pub gc_cpu_fraction: f64,
}

/// One pause of a collection; a collection has several, which the runtime adds up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Pause {
    /// How long the world stood still.
    pub ns: u64,
    /// When the collection ended, nanoseconds since the Unix epoch.
    pub end_unix_ns: u64,
}

/// Memory and collector at one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Memories {
    /// When it was read, `CLOCK_MONOTONIC` nanoseconds.
    pub read_ns: u64,
    /// As `runtime.ReadMemStats` would give it now.
    pub stats: MemStats,
    /// Bytes of small objects that the runtime has not added up yet; they are in [`Memories::stats`].
    pub unflushed_bytes: u64,
    /// Objects too small to be counted one by one that shared a block with others; they are in [`MemStats::mallocs`] and
    /// [`MemStats::frees`].
    #[serde(default)]
    pub tiny_allocs: u64,
    /// Whether a reader in the process turned the statistics each time they were read: values may not fit together.
    pub torn: bool,
    /// `GOGC`; negative when the collector is off.
    pub gc_percent: i64,
    /// `GOMEMLIMIT`; [`NO_LIMIT`] for none.
    pub memory_limit: u64,
    /// Bytes that were live at the end of the last collection.
    pub heap_marked: u64,
    /// Bytes that are live as the collector counts: marked then or allocated since.
    pub heap_live: u64,
    /// Bytes of the heap that have to be scanned.
    pub heap_scan: u64,
    /// Bytes of stacks that were scanned at the last collection.
    pub stack_scan: u64,
    /// Bytes of variables that have to be scanned.
    pub globals_scan: u64,
    /// Free bytes of the heap that were not given back.
    pub heap_free: u64,
    /// Bytes for the collector's work buffers and the like.
    pub metadata_other: u64,
    /// CPU nanoseconds of the collector so far, as of the last collection; 0 in Go 1.19, which does not keep it.
    pub gc_cpu_ns: u64,
    /// CPU nanoseconds that there were so far, as of the last collection; 0 in Go 1.19.
    pub total_cpu_ns: u64,
    /// CPU nanoseconds that Ps were idle so far, as of the last collection; 0 in Go 1.19.
    pub idle_cpu_ns: u64,
    /// The parts of the CPU time, nanoseconds as of the last collection, by the names of `runtime/metrics` (Go 1.21 and later).
    #[serde(default)]
    pub cpu_classes_ns: BTreeMap<String, u64>,
    /// Whether the collector is kept from taking more CPU now.
    pub limiter_on: bool,
    /// The collection in which that was so last; 0 for never.
    pub limiter_last_cycle: u64,
    /// Cleanups queued so far (Go 1.25 and later).
    pub cleanups_queued: Option<u64>,
    /// Cleanups run so far (Go 1.25 and later).
    pub cleanups_executed: Option<u64>,
    /// Finalizers queued so far (Go 1.25 and later).
    #[serde(default)]
    pub finalizers_queued: Option<u64>,
    /// Finalizers run so far (Go 1.25 and later).
    #[serde(default)]
    pub finalizers_executed: Option<u64>,
    /// Bytes of stack that a new goroutine begins with.
    #[serde(default)]
    pub starting_stack: Option<u64>,
    /// Objects allocated, by size class ([`CLASS_SIZES`]); those larger than all classes come first.
    #[serde(default)]
    pub allocs_by_size: Vec<u64>,
    /// Objects freed, in the same way.
    #[serde(default)]
    pub frees_by_size: Vec<u64>,
    /// The last pauses, the newest first, 256 at most.
    pub pauses: Vec<Pause>,
    /// How long the world took to stop and stood still, by kind, by the names of `runtime/metrics`.
    pub stop_times: BTreeMap<String, Histogram>,
}

/// Reads memory and collector.
pub fn read(memory: &dyn Memory, structs: &Structs, places: &Places, now_ns: u64) -> Result<Memories, RuntimeError> {
    let view = |name, at| View::read(memory, structs, WANTED, name, at);
    let (heap, torn) = HeapStats::read(memory, structs, places)?;
    let memstats = view("runtime.mstats", places.memstats)?;
    let controller = view("runtime.gcControllerState", places.controller)?;
    let mheap = view("runtime.mheap", places.heap)?;
    let work = view("runtime.workType", places.work)?;
    let limiter = view("runtime.gcCPULimiterState", places.limiter)?;
    let cleanups = places.cleanups.map(|at| view("runtime.cleanupQueue", at)).transpose()?;
    let cached = Cached::read(memory, structs, places.allp)?;
    let cpu = |old, new| work.get(new).or_else(|| work.get(old)).unwrap_or(0);
    let stats = stats(&heap, &cached, &memstats, &controller, &mheap);
    let finalizers = |index: usize| memory.read_u64(places.finalizers?[index]).ok();
    Ok(Memories {
        read_ns: now_ns,
        unflushed_bytes: cached.bytes,
        tiny_allocs: heap.tiny_allocs.wrapping_add(cached.tiny),
        torn,
        gc_percent: controller.signed("gcPercent"),
        memory_limit: controller.number("memoryLimit"),
        heap_marked: controller.number("heapMarked"),
        heap_live: controller.number("heapLive"),
        heap_scan: controller.number("heapScan"),
        stack_scan: controller.number("lastStackScan"),
        globals_scan: controller.number("globalsScan"),
        heap_free: heap.committed.wrapping_sub(heap.in_use()),
        metadata_other: heap.in_work.wrapping_add(memstats.number("gcMiscSys")),
        gc_cpu_ns: cpu("cpuStats.gcTotalTime", "cpuStats.GCTotalTime"),
        total_cpu_ns: cpu("cpuStats.totalTime", "cpuStats.TotalTime"),
        idle_cpu_ns: cpu("cpuStats.idleTime", "cpuStats.IdleTime"),
        limiter_on: limiter.number("enabled") != 0,
        limiter_last_cycle: limiter.number("lastEnabledCycle"),
        cpu_classes_ns: CPU_CLASSES
            .iter()
            .filter_map(|(name, old, new)| Some(((*name).to_owned(), work.get(new).or_else(|| work.get(old))?)))
            .collect(),
        // Those of Ps come on top.
        cleanups_queued: cleanups
            .as_ref()
            .and_then(|queue| queue.get("queued"))
            .map(|ended| ended.wrapping_add(cached.cleanups_queued)),
        cleanups_executed: cleanups.as_ref().and_then(|queue| queue.get("executed")),
        finalizers_queued: finalizers(0),
        finalizers_executed: finalizers(1),
        starting_stack: places.starting_stack.and_then(|at| starting_stack(memory, at)),
        allocs_by_size: heap.allocs_by_size(&cached),
        frees_by_size: heap.frees_by_size(),
        pauses: pauses(&memstats),
        stop_times: stop_times(memory, structs, places, &memstats)?,
        stats,
    })
}

/// Parts of the CPU time, and the fields that have them until Go 1.22, and since.
const CPU_CLASSES: &[(&str, &str, &str)] = &[
    ("/cpu/classes/gc/mark/assist:cpu-seconds", "cpuStats.gcAssistTime", "cpuStats.GCAssistTime"),
    ("/cpu/classes/gc/mark/dedicated:cpu-seconds", "cpuStats.gcDedicatedTime", "cpuStats.GCDedicatedTime"),
    ("/cpu/classes/gc/mark/idle:cpu-seconds", "cpuStats.gcIdleTime", "cpuStats.GCIdleTime"),
    ("/cpu/classes/gc/pause:cpu-seconds", "cpuStats.gcPauseTime", "cpuStats.GCPauseTime"),
    ("/cpu/classes/gc/total:cpu-seconds", "cpuStats.gcTotalTime", "cpuStats.GCTotalTime"),
    ("/cpu/classes/idle:cpu-seconds", "cpuStats.idleTime", "cpuStats.IdleTime"),
    ("/cpu/classes/scavenge/assist:cpu-seconds", "cpuStats.scavengeAssistTime", "cpuStats.ScavengeAssistTime"),
    ("/cpu/classes/scavenge/background:cpu-seconds", "cpuStats.scavengeBgTime", "cpuStats.ScavengeBgTime"),
    ("/cpu/classes/scavenge/total:cpu-seconds", "cpuStats.scavengeTotalTime", "cpuStats.ScavengeTotalTime"),
    ("/cpu/classes/total:cpu-seconds", "cpuStats.totalTime", "cpuStats.TotalTime"),
    ("/cpu/classes/user:cpu-seconds", "cpuStats.userTime", "cpuStats.UserTime"),
];

/// A size, which has 32 bits; none where what is there is no power of two.
fn starting_stack(memory: &dyn Memory, at: u64) -> Option<u64> {
    let mut bytes = [0; 4];
    memory.read(at, &mut bytes).ok()?;
    let size = u32::from_le_bytes(bytes);
    size.is_power_of_two().then_some(u64::from(size))
}

/// What a list of processes shows of each.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Brief {
    /// Bytes of spans that hold an object.
    pub heap_inuse: u64,
    /// The collector's share of the CPU since the program began, as of the last collection.
    pub gc_cpu_fraction: f64,
}

impl Brief {
    /// Reads `runtime.memstats` and `runtime.gcController`.
    pub fn read(memory: &dyn Memory, structs: &Structs, memstats: u64, controller: u64) -> Result<Self, RuntimeError> {
        let memstats = View::read(memory, structs, WANTED, "runtime.mstats", memstats)?;
        let controller = View::read(memory, structs, WANTED, "runtime.gcControllerState", controller)?;
        Ok(Self { heap_inuse: controller.number("heapInUse"), gc_cpu_fraction: fraction(&memstats) })
    }
}

/// `heapStatsDelta`: the three generations summed.
#[derive(Clone, Debug, Default, PartialEq)]
struct HeapStats {
    committed: u64,
    released: u64,
    in_heap: u64,
    in_stacks: u64,
    /// Work buffers and, until Go 1.24, unrolled programs of pointer masks.
    in_work: u64,
    tiny_allocs: u64,
    large_alloc: u64,
    large_alloc_count: u64,
    large_free: u64,
    large_free_count: u64,
    small_allocs: Vec<u64>,
    small_frees: Vec<u64>,
}

impl HeapStats {
    /// The sum, and whether it is of different moments.
    fn read(memory: &dyn Memory, structs: &Structs, places: &Places) -> Result<(Self, bool), RuntimeError> {
        let memstats = View::read(memory, structs, WANTED, "runtime.mstats", places.memstats)?;
        let at = memstats.at("heapStats").unwrap_or(places.memstats);
        let mut found = Self::sum(memory, structs, at)?;
        for _ in 1..LOOKS {
            let (before, sum, after) = (found.0, found.1, Self::sum(memory, structs, at)?);
            // The same generation twice, and the same sum: nobody turned it and nobody was in the middle of it.
            if before == after.0 && sum.balance() == after.1.balance() {
                return Ok((after.1, false));
            }
            found = after;
        }
        Ok((found.1, true))
    }

    /// What a reader in the process would change by half, and writers change seldom.
    fn balance(&self) -> (u64, u64, u64, u64) {
        (self.committed, self.in_heap, self.in_stacks, self.released)
    }

    fn sum(memory: &dyn Memory, structs: &Structs, at: u64) -> Result<(u64, Self), RuntimeError> {
        let whole = View::read(memory, structs, WANTED, "runtime.consistentHeapStats", at)?;
        let size = structs.get("runtime.heapStatsDelta").map_or(0, |layout| u64::from(layout.size));
        let first = whole.at("stats").unwrap_or(at);
        let addresses: Vec<u64> = (0..3).map(|index| first.wrapping_add(index * size)).collect();
        let parts = View::read_many(memory, structs, WANTED, "runtime.heapStatsDelta", &addresses)?;
        let mut sum = Self::default();
        for part in parts.iter().flatten() {
            sum.add(part);
        }
        Ok((whole.number("gen"), sum))
    }

    fn add(&mut self, part: &View<'_>) {
        let add = |to: &mut u64, field| *to = to.wrapping_add(part.number(field));
        add(&mut self.committed, "committed");
        add(&mut self.released, "released");
        add(&mut self.in_heap, "inHeap");
        add(&mut self.in_stacks, "inStacks");
        add(&mut self.in_work, "inWorkBufs");
        add(&mut self.in_work, "inPtrScalarBits");
        add(&mut self.tiny_allocs, "tinyAllocCount");
        add(&mut self.large_alloc, "largeAlloc");
        add(&mut self.large_alloc_count, "largeAllocCount");
        add(&mut self.large_free, "largeFree");
        add(&mut self.large_free_count, "largeFreeCount");
        for (to, field) in [(&mut self.small_allocs, "smallAllocCount"), (&mut self.small_frees, "smallFreeCount")] {
            to.resize(CLASS_SIZES.len(), 0);
            for (to, count) in to.iter_mut().zip(part.array(field).unwrap_or_default()) {
                *to = to.wrapping_add(count);
            }
        }
    }

    /// Objects allocated by size class, large ones first, those in the spans of Ps too.
    fn allocs_by_size(&self, cached: &Cached) -> Vec<u64> {
        let mut counts = self.small_allocs.clone();
        for (count, cached) in counts.iter_mut().zip(&cached.by_class) {
            *count = count.wrapping_add(*cached);
        }
        if let Some(large) = counts.first_mut() {
            *large = self.large_alloc_count;
        }
        counts
    }

    fn frees_by_size(&self) -> Vec<u64> {
        let mut counts = self.small_frees.clone();
        if let Some(large) = counts.first_mut() {
            *large = self.large_free_count;
        }
        counts
    }

    /// Committed memory that is used for something.
    fn in_use(&self) -> u64 {
        self.in_heap.wrapping_add(self.in_stacks).wrapping_add(self.in_work)
    }
}

/// Objects in the spans that Ps hold, allocated since they took them.
#[derive(Clone, Debug, Default, PartialEq)]
struct Cached {
    objects: u64,
    bytes: u64,
    by_class: Vec<u64>,
    tiny: u64,
    /// Cleanups that the Ps have queued; Go 1.25 and later.
    cleanups_queued: u64,
}

impl Cached {
    fn read(memory: &dyn Memory, structs: &Structs, allp: u64) -> Result<Self, RuntimeError> {
        let ps = View::read_many(memory, structs, WANTED, "runtime.p", &sched::addresses(memory, allp)?)?;
        let caches: Vec<u64> = ps.iter().flatten().map(|p| p.number("mcache")).filter(|at| *at != 0).collect();
        let caches = View::read_many(memory, structs, WANTED, "runtime.mcache", &caches)?;
        let mut spans: Vec<u64> =
            caches.iter().flatten().flat_map(|cache| cache.array("alloc").unwrap_or_default()).collect();
        // Most are the one span that is empty.
        spans.sort_unstable();
        spans.dedup();
        let mut cached = Self { by_class: vec![0; CLASS_SIZES.len()], ..Self::default() };
        for span in View::read_many(memory, structs, WANTED, "runtime.mspan", &spans)?.iter().flatten() {
            let objects = (span.number("allocCount")).saturating_sub(span.number("allocCountBeforeCache"));
            let class = span.number("spanclass") as usize >> 1;
            let size = CLASS_SIZES.get(class).copied().unwrap_or(0);
            if size > 0 {
                cached.by_class[class] = cached.by_class[class].saturating_add(objects);
                cached.objects = cached.objects.saturating_add(objects);
                cached.bytes = cached.bytes.saturating_add(objects.saturating_mul(size));
            }
        }
        cached.tiny = caches.iter().flatten().fold(0, |sum: u64, cache| sum.saturating_add(cache.number("tinyAllocs")));
        cached.cleanups_queued =
            ps.iter().flatten().fold(0, |sum: u64, p| sum.wrapping_add(p.number("cleanupsQueued")));
        Ok(cached)
    }
}

/// `readmemstats_m` in src/runtime/mstats.go.
fn stats(heap: &HeapStats, cached: &Cached, memstats: &View<'_>, controller: &View<'_>, mheap: &View<'_>) -> MemStats {
    let bytes = |counts: &[u64]| {
        counts.iter().zip(CLASS_SIZES).fold(0u64, |sum, (count, size)| sum.wrapping_add(count.wrapping_mul(size)))
    };
    let count = |counts: &[u64]| counts.iter().fold(0u64, |sum, count| sum.wrapping_add(*count));
    let tiny = heap.tiny_allocs.wrapping_add(cached.tiny);
    let total_alloc = heap.large_alloc.wrapping_add(bytes(&heap.small_allocs)).wrapping_add(cached.bytes);
    let total_free = heap.large_free.wrapping_add(bytes(&heap.small_frees));
    let mallocs =
        heap.large_alloc_count.wrapping_add(count(&heap.small_allocs)).wrapping_add(cached.objects).wrapping_add(tiny);
    let frees = heap.large_free_count.wrapping_add(count(&heap.small_frees)).wrapping_add(tiny);
    let alloc = total_alloc.wrapping_sub(total_free);
    let sys = |field| memstats.number(field);
    let (in_use, free, released) =
        (controller.number("heapInUse"), controller.number("heapFree"), controller.number("heapReleased"));
    let others = ["stacks_sys", "mspan_sys", "mcache_sys", "buckhash_sys", "gcMiscSys", "other_sys"];
    let heap_sys = in_use.wrapping_add(free).wrapping_add(released);
    let all = others.iter().fold(heap_sys, |sum, field| sum.wrapping_add(sys(field)));
    MemStats {
        alloc,
        total_alloc,
        sys: all.wrapping_add(heap.in_stacks).wrapping_add(heap.in_work),
        mallocs,
        frees,
        heap_alloc: alloc,
        heap_sys,
        heap_idle: free.wrapping_add(released),
        heap_inuse: in_use,
        heap_released: released,
        heap_objects: mallocs.wrapping_sub(frees),
        stack_inuse: heap.in_stacks,
        stack_sys: heap.in_stacks.wrapping_add(sys("stacks_sys")),
        mspan_inuse: mheap.number("spanalloc.inuse"),
        mspan_sys: sys("mspan_sys"),
        mcache_inuse: mheap.number("cachealloc.inuse"),
        mcache_sys: sys("mcache_sys"),
        buck_hash_sys: sys("buckhash_sys"),
        gc_sys: heap.in_work.wrapping_add(sys("gcMiscSys")),
        other_sys: sys("other_sys"),
        next_gc: goal(controller),
        last_gc: sys("last_gc_unix"),
        pause_total_ns: sys("pause_total_ns"),
        num_gc: sys("numgc"),
        num_forced_gc: sys("numforcedgc"),
        gc_cpu_fraction: fraction(memstats),
    }
}

/// The collector's share of the CPU; what a hostile program writes there may be no number.
fn fraction(memstats: &View<'_>) -> f64 {
    let fraction = f64::from_bits(memstats.number("gc_cpu_fraction"));
    if fraction.is_finite() { fraction } else { 0.0 }
}

/// The size of the heap at which the next collection is to be done: `heapGoalInternal` in src/runtime/mgcpacer.go. No version
/// keeps it.
fn goal(controller: &View<'_>) -> u64 {
    /// `minRunway`
    const RUNWAY: u64 = 64 << 10;
    let number = |field| controller.number(field);
    let (percent, limit) = (number("gcPercentHeapGoal"), limit_goal(controller));
    if limit < percent {
        return limit;
    }
    let goal = percent.max(number("sweepDistMinTrigger"));
    match number("triggered") {
        u64::MAX => goal,
        triggered => goal.max(triggered.saturating_add(RUNWAY)),
    }
}

/// `memoryLimitHeapGoal`
fn limit_goal(controller: &View<'_>) -> u64 {
    /// `memoryLimitMinHeapGoalHeadroom`
    const LEAST_HEADROOM: u64 = 1 << 20;
    /// `memoryLimitHeapGoalHeadroomPercent`
    const HEADROOM_PERCENT: u64 = 3;
    let number = |field| controller.number(field);
    let (limit, marked) = (number("memoryLimit"), number("heapMarked"));
    let (mapped, free) = (number("mappedReady"), number("heapFree"));
    let allocated = number("totalAlloc").wrapping_sub(number("totalFree"));
    // They are of different moments: what would be negative is nothing.
    let beside = mapped.saturating_sub(free).saturating_sub(allocated);
    let taken = beside.saturating_add(mapped.saturating_sub(limit));
    if taken >= limit {
        return marked;
    }
    let goal = limit - taken;
    let headroom = (goal / 100).saturating_mul(HEADROOM_PERCENT).max(LEAST_HEADROOM);
    let goal = if goal < headroom || goal - headroom < headroom { headroom } else { goal - headroom };
    goal.max(marked)
}

/// The last pauses, the newest first.
fn pauses(memstats: &View<'_>) -> Vec<Pause> {
    let cycles = memstats.number("numgc");
    let (times, ends) =
        (memstats.array("pause_ns").unwrap_or_default(), memstats.array("pause_end").unwrap_or_default());
    let at = |back: u64| {
        let index = ((cycles + PAUSES - 1 - back) % PAUSES) as usize;
        Some(Pause { ns: *times.get(index)?, end_unix_ns: *ends.get(index)? })
    };
    (0..cycles.min(PAUSES)).filter_map(at).collect()
}

/// How long the world took to stop and stood still.
fn stop_times(
    memory: &dyn Memory,
    structs: &Structs,
    places: &Places,
    memstats: &View<'_>,
) -> Result<BTreeMap<String, Histogram>, RuntimeError> {
    let mut found = BTreeMap::new();
    for (name, field) in [
        ("/sched/pauses/stopping/gc:seconds", "stwStoppingTimeGC"),
        ("/sched/pauses/stopping/other:seconds", "stwStoppingTimeOther"),
        ("/sched/pauses/total/gc:seconds", "stwTotalTimeGC"),
        ("/sched/pauses/total/other:seconds", "stwTotalTimeOther"),
    ] {
        if let Some(histogram) = sched::stop_times(memory, structs, places.sched, field)? {
            found.insert(name.to_owned(), histogram);
        }
    }
    if let Some(at) = memstats.at("gcPauseDist") {
        match Histogram::read(memory, structs, at) {
            Ok(histogram) => _ = found.insert("/gc/pauses:seconds".to_owned(), histogram),
            // Go 1.19's histograms have other buckets.
            Err(RuntimeError::Layout(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// Collections for which the limiter is remembered.
pub const LIMITER_CYCLES: u64 = 10;

impl Memories {
    /// Whether the collector is kept from taking more CPU, or was in one of the last collections.
    pub fn is_limited(&self) -> bool {
        let ago = self.stats.num_gc.saturating_sub(self.limiter_last_cycle);
        self.limiter_on || (self.limiter_last_cycle != 0 && ago < LIMITER_CYCLES)
    }

    /// A part of the CPU time, such as `gc/total`; none where the runtime does not keep it (Go 1.19).
    pub fn cpu_class_ns(&self, class: &str) -> Option<u64> {
        self.cpu_classes_ns.get(&format!("/cpu/classes/{class}:cpu-seconds")).copied()
    }

    /// What `runtime/metrics` has by these names, where it is a plain number: the classes of memory add up to their total.
    pub fn metrics(&self) -> BTreeMap<&'static str, u64> {
        let stats = &self.stats;
        let known = [
            ("/gc/cleanups/executed:cleanups", self.cleanups_executed),
            ("/gc/cleanups/queued:cleanups", self.cleanups_queued),
            ("/gc/finalizers/executed:finalizers", self.finalizers_executed),
            ("/gc/finalizers/queued:finalizers", self.finalizers_queued),
            ("/gc/stack/starting-size:bytes", self.starting_stack),
        ];
        let mut metrics = BTreeMap::from([
            ("/memory/classes/heap/free:bytes", self.heap_free),
            ("/memory/classes/heap/objects:bytes", stats.alloc),
            ("/memory/classes/heap/released:bytes", stats.heap_released),
            ("/memory/classes/heap/stacks:bytes", stats.stack_inuse),
            ("/memory/classes/heap/unused:bytes", stats.heap_inuse.saturating_sub(stats.alloc)),
            ("/memory/classes/metadata/mcache/free:bytes", stats.mcache_sys.saturating_sub(stats.mcache_inuse)),
            ("/memory/classes/metadata/mcache/inuse:bytes", stats.mcache_inuse),
            ("/memory/classes/metadata/mspan/free:bytes", stats.mspan_sys.saturating_sub(stats.mspan_inuse)),
            ("/memory/classes/metadata/mspan/inuse:bytes", stats.mspan_inuse),
            ("/memory/classes/metadata/other:bytes", self.metadata_other),
            ("/memory/classes/os-stacks:bytes", stats.stack_sys.saturating_sub(stats.stack_inuse)),
            ("/memory/classes/other:bytes", stats.other_sys),
            ("/memory/classes/profiling/buckets:bytes", stats.buck_hash_sys),
            ("/memory/classes/total:bytes", stats.sys),
            ("/gc/cycles/automatic:gc-cycles", stats.num_gc.saturating_sub(stats.num_forced_gc)),
            ("/gc/cycles/forced:gc-cycles", stats.num_forced_gc),
            ("/gc/cycles/total:gc-cycles", stats.num_gc),
            // Numbers of 64 bits without sign, as the runtime gives them; -1 is off.
            ("/gc/gogc:percent", self.gc_percent.cast_unsigned()),
            ("/gc/gomemlimit:bytes", self.memory_limit),
            ("/gc/heap/allocs:bytes", stats.total_alloc),
            ("/gc/heap/allocs:objects", stats.mallocs.saturating_sub(self.tiny_allocs)),
            ("/gc/heap/frees:bytes", stats.total_alloc.saturating_sub(stats.alloc)),
            ("/gc/heap/frees:objects", stats.frees.saturating_sub(self.tiny_allocs)),
            ("/gc/heap/tiny/allocs:objects", self.tiny_allocs),
            ("/gc/heap/goal:bytes", stats.next_gc),
            ("/gc/heap/live:bytes", self.heap_marked),
            ("/gc/heap/objects:objects", stats.heap_objects),
            ("/gc/limiter/last-enabled:gc-cycle", self.limiter_last_cycle),
            ("/gc/scan/globals:bytes", self.globals_scan),
            ("/gc/scan/heap:bytes", self.heap_scan),
            ("/gc/scan/stack:bytes", self.stack_scan),
            ("/gc/scan/total:bytes", self.heap_scan.saturating_add(self.stack_scan).saturating_add(self.globals_scan)),
        ]);
        metrics.extend(known.into_iter().filter_map(|(name, number)| Some((name, number?))));
        metrics
    }
}
