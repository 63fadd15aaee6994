//! `parkwarden prove`: goroutines that can never run again, proven on a copy of the target's memory.
//!
//! What can be done while the target runs is done then: its binary is understood, the copy's size and the pause are
//! estimated, memory for it is made ready. Then the target is stopped, what changes is copied, and it runs on; the proof
//! works on the copy. Over the pause budget the attempt is given up, before stopping if that can be told before.

mod behind;
mod copy;
mod file;
mod parked;
mod report;
mod text;
mod tracked;
mod unstopped;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::ProveConfig;
use crate::discover::info::TargetInfo;
use crate::golang::pclntab::PcLnTab;
use crate::golang::proof_layout::ReachLayout;
use crate::live::{Target, TargetError};
use crate::memory::census::{CensusReader, Goroutine};
use crate::memory::image::Image;
use crate::memory::process::ProcessMemory;
use crate::memory::stop::{StopError, Thread, after_others, hurried, while_stopped};
use crate::memory::written::Written;
use crate::memory::{Fault, Memory, Request};
use crate::reach::contents::Reads;
use crate::reach::heap::Spans;
use crate::reach::roots::Modules;
use crate::reach::{self, Helpers, Proof, ReachError, Subject, Variables};

pub use copy::CopyError;
pub use file::FileError;
pub use report::{ProofGroup, ProofReport, SCHEMA};
pub use text::render;
pub use unstopped::{Unreached, unreached};

use behind::Behind;
use copy::Recorder;
use parked::Parked;
use tracked::Tracked;

/// Bytes read of the heap to learn how fast it can be read.
const TRIAL: u64 = 16 << 20;
/// Goroutines read to learn how fast they can be.
const TRIAL_GOROUTINES: usize = 4096;
/// Added to what was measured: structs, threads, and what changed since the estimate.
const OVERHEAD: Duration = Duration::from_millis(2);

/// Marked, watched, opaque.
const OBJECT_BITS: u64 = 3;
/// What is known of a span, and what each thread that marks notes of it.
const SPAN_BYTES: u64 = 256;
/// What is known of a goroutine from several looks, and of what it waits for.
const GOROUTINE_BYTES: u64 = 2048;

/// Why nothing was proven.
#[derive(Debug, thiserror::Error)]
pub enum ProveError {
    /// The target cannot be looked at.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// Its binary does not tell what a proof needs.
    #[error("pid {pid} cannot be proven to leak: {reason}")]
    Unsupported {
        /// Target.
        pid: u32,
        /// What is missing.
        reason: String,
    },
    /// The pause would be, or was, too long.
    #[error(
        "pid {pid} was not stopped: copying {megabytes} MB would take about {}, and --max-pause is {}; --max-pause {} would do",
        whole_milliseconds(*.estimate), in_units(*.budget), whole_milliseconds(enough_for(*.estimate))
    )]
    TooLarge {
        /// Target.
        pid: u32,
        /// Megabytes to copy.
        megabytes: u64,
        /// How long it would have taken.
        estimate: Duration,
        /// How long it may take.
        budget: Duration,
    },
    /// It would take too much of parkwarden's own memory.
    #[error(
        "pid {pid} was not stopped: its copy and the proof would take about {needed_mib} MiB of memory, and --prove-memory-mib \
         (watch.prove_memory_mib) is {limit_mib}"
    )]
    Memory {
        /// Target.
        pid: u32,
        /// MiB it would take.
        needed_mib: u64,
        /// MiB it may take.
        limit_mib: u32,
    },
    /// The copy was given up.
    #[error(
        "pid {pid} was not examined: copying took longer than --max-pause {} and was given up; the process runs on",
        in_units(*.budget)
    )]
    Late {
        /// Target.
        pid: u32,
        /// How long it may take.
        budget: Duration,
    },
    /// It could not be stopped.
    #[error("pid {pid} was not examined: {source}")]
    Stop {
        /// Target.
        pid: u32,
        /// Why.
        source: StopError,
    },
    /// Its memory does not allow a proof.
    #[error("nothing can be proven of pid {pid}: {source}")]
    Reach {
        /// Target.
        pid: u32,
        /// Why.
        source: ReachError,
    },
    /// A file cannot be written or read.
    #[error(transparent)]
    File(#[from] FileError),
}

/// A time as the options take it.
fn in_units(time: Duration) -> String {
    humantime::format_duration(time).to_string().replace(' ', "")
}

fn whole_milliseconds(time: Duration) -> String {
    format!("{}ms", time.as_millis().max(1))
}

/// A round pause that is long enough for what was estimated, with a fifth to spare.
fn enough_for(estimate: Duration) -> Duration {
    let millis = estimate.as_micros().saturating_mul(12).div_ceil(10_000) as u64;
    let step = if millis < 20 { 1 } else { 10_u64.pow(millis.ilog10() - 1) };
    Duration::from_millis(millis.next_multiple_of(step))
}

impl ProveError {
    /// Whether the target cannot be examined, as opposed to parkwarden failing.
    pub const fn is_about_the_target(&self) -> bool {
        !matches!(self, Self::File(_) | Self::Stop { source: StopError::Panicked | StopError::Io { .. }, .. })
    }
}

/// What the pause was.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Pause {
    /// How long the target stood still.
    pub seconds: f64,
    /// What was expected beforehand.
    pub estimated_seconds: f64,
    /// What was allowed.
    pub budget_seconds: f64,
    /// Bytes copied, most of them meanwhile.
    pub copied_bytes: u64,
    /// Threads stopped.
    pub threads: u64,
    /// Bytes of the heap that were copied while it ran; 0 where what it writes was not tracked.
    #[serde(default)]
    pub tracked_bytes: u64,
    /// Of those, the bytes that it had written by then, so that they were copied again.
    #[serde(default)]
    pub written_bytes: u64,
}

/// What has to be known of a program, besides its memory, to prove leaks and to tell of them. Saved with an image.
#[derive(Clone, Debug)]
pub struct Program {
    /// What reports say of it.
    pub info: TargetInfo,
    /// Layouts.
    pub layout: ReachLayout,
    /// Where the runtime's variables are.
    pub variables: Variables,
    /// How far above its link-time addresses it is loaded.
    pub slide: u64,
    /// Texts of the wait reasons.
    pub wait_reasons: Vec<String>,
    /// Ranges of its memory that never change.
    pub immutable: Vec<(u64, u64)>,
    /// Function tables.
    pub pclntab: Arc<PcLnTab>,
}

impl Program {
    /// What the binary and process of `target` tell.
    pub fn of(target: &Target) -> Result<Self, ProveError> {
        let binary = target.binary();
        let unsupported = |reason: String| ProveError::Unsupported { pid: target.process().pid(), reason };
        if binary.version.minor < 21 {
            return Err(unsupported(format!(
                "it was built with {}, and a proof needs Go 1.21 or later",
                binary.version
            )));
        }
        let layout = ReachLayout::from_structs(&binary.structs, &binary.version, binary.arch)
            .map_err(|error| unsupported(format!("its debug information lacks what a proof needs: {error}")))?;
        // They move the bitmaps that tell which words of an object are pointers.
        if let Some(collector) = binary.version.experiments().find(|name| name.contains("greenteagc")) {
            return Err(unsupported(format!("it was built with the experiment {collector}")));
        }
        let slide = target.slide();
        let segments = binary.elf.segments.iter().filter(|segment| !segment.write);
        Ok(Self {
            info: target.info(),
            layout,
            variables: variables(target)?,
            slide,
            wait_reasons: binary.wait_reasons.clone(),
            immutable: segments
                .map(|segment| {
                    let from = segment.vaddr.wrapping_add(slide);
                    (from, from.saturating_add(segment.memsz))
                })
                .collect(),
            pclntab: Arc::clone(target.pclntab()),
        })
    }

    pub(crate) fn subject<'a>(
        &'a self,
        memory: &'a dyn Memory,
        constant: &'a dyn Memory,
        threads: &'a [Thread],
    ) -> Subject<'a> {
        Subject {
            memory,
            constant,
            layout: &self.layout,
            pclntab: &self.pclntab,
            slide: self.slide,
            wait_reasons: &self.wait_reasons,
            variables: &self.variables,
            threads,
            immutable: &self.immutable,
            reads: Reads::WHOLE,
            helpers: Helpers { count: copy::readers() - 1, begin: after_others },
        }
    }
}

/// A program and its memory while it stood still.
#[derive(Debug)]
pub struct Saved {
    /// The program.
    pub program: Program,
    /// Its threads.
    pub threads: Vec<Thread>,
    /// The pause.
    pub pause: Pause,
    /// Its memory.
    pub image: Image,
}

impl Saved {
    /// What is proven of it, and who waits for that; what never changes is in `constant`.
    fn prove(&self, constant: &dyn Memory) -> Result<(Proof, Behind), ProveError> {
        let subject = self.program.subject(&self.image, constant, &self.threads);
        let proven = reach::prove(&subject).and_then(|proof| {
            let behind = Behind::of(&subject, &proof)?;
            Ok((proof, behind))
        });
        proven.map_err(|source| ProveError::Reach { pid: self.program.info.pid, source })
    }
}

/// Stops process `pid` for a moment and proves which of its goroutines are leaked; writes what was copied to `save`.
pub fn live(pid: u32, config: &ProveConfig, save: Option<&Path>) -> Result<ProofReport, ProveError> {
    on(&Target::open(pid)?, config, save)
}

/// The same for a target that is open already.
pub fn on(target: &Target, config: &ProveConfig, save: Option<&Path>) -> Result<ProofReport, ProveError> {
    let pid = target.process().pid();
    let program = Program::of(target)?;
    let memory = ProcessMemory::new(pid);
    let (mut saved, untracked) = stop_and_copy(target, config, program, &memory)?;
    let recorder = Recorder::new(&memory, Image::default(), Vec::new(), None);
    let (proof, behind) = saved.prove(&recorder)?;
    if let Some(path) = save {
        saved.image.merge(recorder.into_image());
        file::write(path, &saved)?;
    }
    Ok(ProofReport { untracked, ..ProofReport::of(&saved.program, saved.pause, &proof, &behind, false) })
}

/// Proves leaks on an image saved before.
pub fn from_image(path: &Path) -> Result<ProofReport, ProveError> {
    let saved = file::read(path)?;
    let (proof, behind) = saved.prove(&saved.image)?;
    Ok(ProofReport::of(&saved.program, saved.pause, &proof, &behind, true))
}

/// The heap of `target` as far as it can be copied while it runs, if that is asked for; or why it cannot.
fn track(target: &Target, config: &ProveConfig, program: &Program, memory: &ProcessMemory) -> Result<Tracked, String> {
    let spans = Spans::read(memory, &program.layout, program.variables.mheap).map_err(|error| error.to_string())?;
    let ranges = copy::merge(copy::scannable(&spans));
    let size: u64 = ranges.iter().map(|(from, to)| to - from).sum();
    if size > u64::from(config.memory_mib) << 20 {
        return Err("its heap is larger than the memory that a proof may take".to_owned());
    }
    let is_ours = target.is_tracked();
    let written = target.process().by_pid(|pid| Some(Written::of(pid, &ranges, is_ours)));
    let written = written.ok_or("it has ended")?.map_err(|error| error.to_string())?;
    target.set_tracked();
    Tracked::copy(memory, written, ranges).map_err(|error| error.to_string())
}

/// Stops the target for as long as it takes to copy it; and why nothing was copied before, if that was asked for.
fn stop_and_copy(
    target: &Target,
    config: &ProveConfig,
    program: Program,
    memory: &ProcessMemory,
) -> Result<(Saved, Option<String>), ProveError> {
    let pid = target.process().pid();
    let (tracked, untracked) = match config.track_writes.then(|| track(target, config, &program, memory)) {
        Some(Ok(tracked)) => (Some(tracked), None),
        Some(Err(reason)) => (None, Some(reason)),
        None => (None, None),
    };
    let budget = config.max_pause;
    let failed = |error: CopyError| match error {
        CopyError::Late => ProveError::Late { pid, budget },
        CopyError::TooMuch { needed } => {
            ProveError::Memory { pid, needed_mib: needed.div_ceil(1 << 20), limit_mib: config.memory_mib }
        }
        CopyError::Reach(source) => ProveError::Reach { pid, source },
        CopyError::Fault(source) => {
            ProveError::Reach { pid, source: ReachError::Memory { what: "its memory", source } }
        }
    };
    let estimate = Estimate::make(memory, &program, config, tracked.as_ref()).map_err(failed)?;
    log::info!("about to copy {} bytes in about {:?}", estimate.bytes, estimate.pause);
    if estimate.pause > budget {
        let megabytes = estimate.bytes >> 20;
        return Err(ProveError::TooLarge { pid, megabytes, estimate: estimate.pause, budget });
    }
    let constants = {
        let recorder = Recorder::new(memory, Image::default(), Vec::new(), None);
        copy::copy_constants(&recorder, &estimate.modules).map_err(failed)?;
        recorder.into_image()
    };
    let spare = [estimate.heap, estimate.stacks].map(|bytes| copy::spare(with_reserve(bytes))).into();
    let parked = estimate.parked;
    let tracked_bytes = tracked.as_ref().map_or(0, Tracked::size);
    let mut tracked = tracked;
    let stopped = while_stopped(pid, budget, |threads, deadline| {
        let recorder = Recorder::new(memory, constants, spare, Some(deadline));
        let subject = program.subject(&recorder, &recorder, threads);
        let copied = copy::copy_all(&recorder, &subject, &parked, tracked.take())?;
        Ok((recorder.into_image(), threads.to_vec(), copied))
    })
    .map_err(|source| ProveError::Stop { pid, source })?;
    let (mut image, threads, (look, written)) = stopped.result.map_err(failed)?;
    let pause = Pause {
        seconds: stopped.pause.as_secs_f64(),
        estimated_seconds: estimate.pause.as_secs_f64(),
        budget_seconds: budget.as_secs_f64(),
        copied_bytes: image.size(),
        threads: stopped.threads as u64,
        tracked_bytes,
        written_bytes: written.unwrap_or(0),
    };
    image.merge(parked.into_image(&look));
    Ok((Saved { program, threads, pause, image }, untracked))
}

/// What a copy would take, told without stopping the target.
struct Estimate {
    modules: Modules,
    /// Bytes of heap.
    heap: u64,
    /// Goroutines whose stacks need not be copied if they stay.
    parked: Parked,
    /// Bytes of the other stacks.
    stacks: u64,
    /// All bytes.
    bytes: u64,
    pause: Duration,
}

impl Estimate {
    fn make(
        memory: &ProcessMemory,
        program: &Program,
        config: &ProveConfig,
        tracked: Option<&Tracked>,
    ) -> Result<Self, CopyError> {
        let budget = config.max_pause;
        let Program { layout, variables, .. } = program;
        let modules = Modules::read(memory, layout, variables.firstmoduledata)?;
        let (spans, structs) = in_a_hurry(budget, || timed(|| Spans::read(memory, layout, variables.mheap)))?;
        let spans = spans.map_err(ReachError::from)?;
        let subject = program.subject(memory, memory, &[]);
        let first = subject.goroutines()?;
        let second = subject.goroutines()?;
        let needed = memory_for(&spans, &modules, &second.list);
        if needed > u64::from(config.memory_mib) << 20 {
            return Err(CopyError::TooMuch { needed });
        }
        let parked = Parked::read(memory, &subject, &first, &second)?;
        let ranges = copy::scannable(&spans);
        // What was not tracked, and what has been written of that which was, twice over: it goes on until the stop.
        let unknown = tracked.map_or_else(|| ranges.clone(), |tracked| tracked.others(&ranges));
        let (pending, asked) = timed(|| tracked.map_or(Ok(0), Tracked::pending));
        let heap = copy::size([unknown.as_slice(), &parked.channels].concat()).saturating_add(2 * pending?);
        let stacks = copy::size(copy::stacks(&parked.others(&second.list)));
        let bytes = heap + stacks + modules.variables().map(|(_, len)| len).sum::<u64>();
        let tried = copy::size(ranges.clone()).clamp(1, TRIAL);
        let trial = heap_trial(memory, &ranges, tried, budget)?.mul_f64(bytes as f64 / tried as f64);
        let some: Vec<u64> = second.list.iter().take(TRIAL_GOROUTINES).map(|g| g.address).collect();
        let reader = CensusReader::new(layout.g, variables.allgs);
        let (_, look) = in_a_hurry(budget, || timed(|| reader.reread(memory, &some)))?;
        // All are looked at on all CPUs, in what has been copied by then: half of the time is reading, which is counted above.
        let look = look.mul_f64(second.list.len() as f64 / some.len().max(1) as f64 / copy::readers() as f64 / 2.0);
        Ok(Self { modules, heap, parked, stacks, bytes, pause: trial + look + structs + asked + OVERHEAD })
    }
}

/// Memory that is made ready for so many bytes: there may be more by then.
const fn with_reserve(bytes: u64) -> u64 {
    bytes.saturating_add(bytes / 8).saturating_add(1 << 20)
}

/// About how much memory a proof takes: the one copy that there is of everything, and what is noted of each object, span and
/// goroutine.
fn memory_for(spans: &Spans, modules: &Modules, goroutines: &[Goroutine]) -> u64 {
    let heap = copy::size(copy::scannable(spans));
    let stacks = copy::size(copy::stacks(goroutines));
    let variables: u64 = modules.variables().map(|(_, len)| len).sum();
    let noted = spans.objects * OBJECT_BITS / 8
        + spans.spans.len() as u64 * SPAN_BYTES * copy::readers() as u64
        + goroutines.len() as u64 * GOROUTINE_BYTES;
    [with_reserve(heap), with_reserve(stacks), variables, noted].into_iter().fold(0, u64::saturating_add)
}

/// How long it takes to read `bytes` of the heap, in the way in which all of it will be.
fn heap_trial(
    memory: &ProcessMemory,
    ranges: &[(u64, u64)],
    bytes: u64,
    budget: Duration,
) -> Result<Duration, CopyError> {
    let mut some = copy::spare(bytes);
    let mut rest = some.as_mut_slice();
    let mut requests: Vec<Request<'_>> = Vec::new();
    for (from, to) in ranges {
        let len = ((to - from) as usize).min(rest.len());
        let (buf, later) = rest.split_at_mut(len);
        requests.extend(copy::pieces(*from, buf));
        rest = later;
        if rest.is_empty() {
            break;
        }
    }
    let (read, took) = in_a_hurry(budget, || timed(|| copy::read_all(memory, &mut requests, None)))?;
    read.map(|()| took)
}

fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let began = Instant::now();
    let result = work();
    (result, began.elapsed())
}

fn in_a_hurry<T: Send>(budget: Duration, work: impl FnOnce() -> T + Send) -> Result<T, CopyError> {
    // Nothing is known if it panicked.
    hurried(budget, work).ok_or(CopyError::Fault(Fault::Gone))
}

/// Addresses of the runtime's variables.
fn variables(target: &Target) -> Result<Variables, ProveError> {
    let needed = |name: &str| {
        target.variable(name).ok_or_else(|| ProveError::Unsupported {
            pid: target.process().pid(),
            reason: format!("where {name} is cannot be told with certainty; build it without -ldflags=-s"),
        })
    };
    Ok(Variables {
        allgs: needed("runtime.allgs")?,
        allm: needed("runtime.allm")?,
        mheap: needed("runtime.mheap_")?,
        semtable: needed("runtime.semtable")?,
        firstmoduledata: needed("runtime.firstmoduledata")?,
        allfin: needed("runtime.allfin")?,
        gc_cleanups: if target.binary().version.minor >= 25 { Some(needed("runtime.gcCleanups")?) } else { None },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_a_round_pause_that_is_enough() {
        let refused = |micros: u64| {
            let (pid, megabytes, budget) = (5, 240, Duration::from_millis(50));
            ProveError::TooLarge { pid, megabytes, estimate: Duration::from_micros(micros), budget }.to_string()
        };
        assert_eq!(
            refused(134_567),
            "pid 5 was not stopped: copying 240 MB would take about 134ms, and --max-pause is 50ms; --max-pause 170ms would do"
        );
        for (micros, enough) in
            [(10, 1), (2_400, 3), (51_000, 62), (83_400, 110), (900_000, 1100), (12_345_678, 15_000)]
        {
            assert!(refused(micros).ends_with(&format!("; --max-pause {enough}ms would do")), "{}", refused(micros));
        }
    }
}
