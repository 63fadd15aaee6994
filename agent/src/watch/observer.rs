//! Produces the inputs of a live session: events from the probes, censuses and stacks from memory, names.
//!
//! The order in which inputs are fed is what makes them consistent; ARCHITECTURE.md, "Census and events", has the
//! reasons.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use hashbrown::HashSet;
use parkwarden_common::counters::ProbeCounters;

use super::error::WatchError;
use super::sink::Sink;
use crate::config::WatchConfig;
use crate::discover::process::Process;
use crate::golang::Frame;
use crate::golang::binary::GoBinary;
use crate::golang::pclntab::PcLnTab;
use crate::golang::sites::{self, BinaryFunctions, Site};
use crate::memory::census::{Census, CensusError, CensusReader, Goroutine};
use crate::memory::process::ProcessMemory;
use crate::memory::unwind::{FrameShape, StackTables, Unwinder, Unwound};
use crate::memory::{Fault, StackTable};
use crate::probe::{Attachment, EventStream, Prober};
use crate::session::{
    CensusTaken, End, EndReason, Header, Input, ProbeInfo, ProbeReading, Session, TargetInfo, call_of,
};
use crate::symbolize::Symbolizer;

/// See the module. Dropping it removes the probes.
#[derive(Debug)]
pub struct Observer {
    // The probes go first: everything below serves them.
    attachment: Attachment,
    stream: EventStream,
    prober: Prober,
    process: Process,
    memory: ProcessMemory,
    census: CensusReader,
    unwinder: Unwinder,
    tables: LoadedTables,
    symbolizer: Symbolizer,
    stacks: StackTable,
    named: HashSet<u64>,
    records: Vec<u8>,
    sink: Sink,
}

impl Observer {
    /// Opens the target, understands its binary, and attaches.
    pub fn start(pid: u32, config: &WatchConfig) -> Result<Self, WatchError> {
        let process = Process::open(pid)?;
        let exe = process.exe_path().display().to_string();
        let binary =
            GoBinary::parse(process.exe()).map_err(|source| WatchError::Binary { pid, exe: exe.clone(), source })?;
        let slide = process.slide(&binary.elf)?;
        let kernel = kernel();
        let sites = sites::plan(binary.arch, kernel, &BinaryFunctions::new(&binary, process.exe()))
            .map_err(|source| WatchError::Plan { pid, exe: exe.clone(), source })?;
        log::info!("pid {pid} is {}, loaded at a slide of {slide:#x}", binary.version);
        for site in &sites {
            log::info!("{}: {:#x} {} ({:?})", site.function, site.address, site.instruction, site.class);
        }

        let memory = ProcessMemory::new(pid);
        let allgs = binary.allgs.ok_or_else(|| WatchError::Layout {
            pid,
            reason: "its list of goroutines, runtime.allgs, was not found in the binary".to_owned(),
        })?;
        let census = CensusReader::new(binary.layout.g, allgs.wrapping_add(slide));
        // Before anything is attached: a target that does not look as its binary says is left alone.
        let look = census.read(&memory, now_ns).map_err(|error| census_failed(&process, error))?;
        plausible(pid, &look, &LoadedTables { pclntab: Arc::clone(&binary.pclntab), slide })?;

        let options = crate::probe::Options { ring_bytes: config.ring_bytes, log: config.bpf_log };
        let (mut prober, stream) = Prober::load(options)?;
        let located = locate(&binary, sites).map_err(|source| WatchError::Attach { pid, source })?;
        let target = NonZeroU32::new(pid).ok_or(crate::discover::process::OpenError::NoSuchProcess(pid))?;
        let attachment = match prober.attach(target, process.exe(), &located, &binary.layout) {
            Ok(attachment) => attachment,
            Err(_) if process.has_exited() => return Err(WatchError::Exited { pid }),
            Err(source) => return Err(WatchError::Attach { pid, source }),
        };
        let header = Header {
            target: TargetInfo {
                pid,
                exe,
                go_version: binary.version.to_string(),
                arch: binary.arch,
                stripped: binary.stripped,
                pie: binary.pie,
                layout_source: binary.layout_source,
                symbol_source: binary.symbol_source,
            },
            probes: attachment
                .probes()
                .zip(&located)
                .map(|(index, (site, _))| ProbeInfo {
                    index,
                    function: site.function.clone(),
                    address: site.address.wrapping_add(slide),
                    site_class: site.class,
                })
                .collect(),
            wait_reasons: binary.wait_reasons.clone(),
            started_ns: now_ns(),
            started_unix_ns: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |elapsed| u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX)),
            ring_bytes: stream.ring_bytes(),
            threshold_ns: u64::try_from(config.threshold.as_nanos()).unwrap_or(u64::MAX),
        };
        Ok(Self {
            sink: Sink::new(header, config.save.as_deref())?,
            attachment,
            stream,
            prober,
            process,
            memory,
            census,
            unwinder: Unwinder::new(binary.arch),
            tables: LoadedTables { pclntab: Arc::clone(&binary.pclntab), slide },
            symbolizer: Symbolizer::new(Arc::clone(&binary.pclntab), slide),
            stacks: StackTable::default(),
            named: HashSet::new(),
            records: Vec::new(),
        })
    }

    /// Whether the target has exited.
    pub fn target_has_exited(&self) -> bool {
        self.process.has_exited()
    }

    /// What has been seen.
    pub fn session(&self) -> &Session {
        self.sink.session()
    }

    /// Feeds the events that happened since the last time.
    pub fn take_events(&mut self) -> Result<(), WatchError> {
        let ring_fill = self.stream.take(&mut self.records);
        self.prober.flush_log();
        if self.records.is_empty() && ring_fill == 0 {
            return Ok(());
        }
        let input = Input::Events { records: std::mem::take(&mut self.records), ring_fill };
        let fed = self.sink.feed(&input);
        if let Input::Events { records, .. } = input {
            self.records = records;
        }
        Ok(fed?)
    }

    /// Reads all goroutines and the stacks of those that wait.
    pub fn census(&mut self) -> Result<(), WatchError> {
        self.take_events()?;
        self.sink.feed(&Input::CensusBegins)?;
        let census = self.census.read(&self.memory, now_ns).map_err(|error| census_failed(&self.process, error))?;
        let known_stacks = self.stacks.len();
        let taken = self.with_stacks(census).map_err(|fault| memory_failed(&self.process, fault))?;
        self.take_events()?;
        self.read_counters()?;
        self.feed_names(&taken, known_stacks)?;
        self.sink.feed(&Input::Census(taken))?;
        Ok(())
    }

    /// Removes the probes and ends the session.
    pub fn finish(mut self, reason: EndReason) -> Result<Session, WatchError> {
        self.take_events()?;
        self.read_counters()?;
        self.prober.detach(self.attachment);
        self.sink.feed(&Input::End(End { time_ns: now_ns(), reason }))?;
        Ok(self.sink.into_session())
    }

    fn with_stacks(&mut self, census: Census) -> Result<CensusTaken, Fault> {
        let waiting: Vec<Goroutine> =
            census.goroutines.iter().filter(|goroutine| goroutine.status.is_waiting()).copied().collect();
        let Unwound { stacks, moved, cut, unknown } =
            self.unwinder.unwind(&self.memory, &self.tables, &self.census, &waiting, &mut self.stacks)?;
        let mut unwound = stacks.into_iter();
        let stacks = census
            .goroutines
            .iter()
            .map(|goroutine| if goroutine.status.is_waiting() { unwound.next().flatten() } else { None })
            .collect();
        Ok(CensusTaken { census, stacks, stack_moved: moved, stack_cut: cut, stack_unknown: unknown })
    }

    fn read_counters(&mut self) -> Result<(), WatchError> {
        let mut readings = Vec::new();
        for index in self.attachment.probes() {
            let counters: ProbeCounters =
                self.prober.counters(index).map_err(|error| WatchError::Counters(Box::new(error)))?;
            readings.push(ProbeReading { index, counters });
        }
        Ok(self.sink.feed(&Input::Probes(readings))?)
    }

    /// Feeds the stacks that are new and the names of all addresses that are.
    fn feed_names(&mut self, taken: &CensusTaken, known_stacks: usize) -> Result<(), WatchError> {
        let mut names: Vec<(u64, Arc<[Frame]>)> = Vec::new();
        let mut name = |address: u64| {
            if self.named.len() < MAX_NAMED && self.named.insert(address) {
                names.push((address, self.symbolizer.frames(address)));
            }
        };
        let new_stacks: Vec<Vec<u64>> = self.stacks.since(known_stacks).iter().map(|pcs| pcs.to_vec()).collect();
        new_stacks.iter().flatten().for_each(|pc| name(call_of(*pc)));
        for goroutine in &taken.census.goroutines {
            name(call_of(goroutine.creation_pc));
            name(goroutine.start_pc);
        }
        if !names.is_empty() {
            self.sink.feed(&Input::Symbols(names))?;
        }
        if !new_stacks.is_empty() {
            self.sink.feed(&Input::Stacks(new_stacks))?;
        }
        Ok(())
    }
}

/// Addresses named in one session at most; a real program shows some thousands.
const MAX_NAMED: usize = 1 << 20;

/// The pclntab's stack tables at the addresses where the process runs.
#[derive(Clone, Debug)]
struct LoadedTables {
    pclntab: Arc<PcLnTab>,
    slide: u64,
}

impl StackTables for LoadedTables {
    fn shape(&self, pc: u64) -> Option<FrameShape> {
        let pc = pc.wrapping_sub(self.slide);
        let func = self.pclntab.func(pc)?;
        let outermost = func.is_stack_bottom();
        let sp_delta = if outermost { 0 } else { u64::from(self.pclntab.sp_delta(&func, pc)?) };
        Some(FrameShape { sp_delta, outermost })
    }
}

/// Where each site is in the executable file.
fn locate(binary: &GoBinary, sites: Vec<Site>) -> Result<Vec<(Site, u64)>, crate::probe::AttachError> {
    sites
        .into_iter()
        .map(|site| match binary.elf.file_offset(site.address) {
            Some(offset) => Ok((site, offset)),
            None => Err(crate::probe::AttachError::NoOffset { function: site.function, address: site.address }),
        })
        .collect()
}

/// Whether a first look agrees with what every Go program is: goroutine 1 runs `runtime.main`, and every goroutine
/// starts in a function of the program.
fn plausible(pid: u32, look: &Census, tables: &LoadedTables) -> Result<(), WatchError> {
    let contradiction = |reason: String| {
        Err(WatchError::Layout {
            pid,
            reason: format!(
                "its memory contradicts the layout its binary describes: {reason}; parkwarden attaches \
                             nowhere it is not certain"
            ),
        })
    };
    let Some(main) = look.goroutines.iter().find(|goroutine| goroutine.goid == 1) else {
        return contradiction("there is no goroutine 1 (if it has just started, try again)".to_owned());
    };
    match tables.pclntab.func(main.start_pc.wrapping_sub(tables.slide)) {
        Some(func) if func.name == "runtime.main" => {}
        Some(func) => return contradiction(format!("goroutine 1 starts in {}", func.name)),
        None => return contradiction(format!("goroutine 1 starts at {:#x}, which is no function", main.start_pc)),
    }
    for goroutine in &look.goroutines {
        if goroutine.start_pc != 0 && tables.pclntab.func(goroutine.start_pc.wrapping_sub(tables.slide)).is_none() {
            return contradiction(format!(
                "goroutine {} starts at {:#x}, which is no function",
                goroutine.goid, goroutine.start_pc
            ));
        }
    }
    Ok(())
}

fn census_failed(process: &Process, error: CensusError) -> WatchError {
    match error {
        CensusError::Fault(fault) if fault != Fault::Denied && process.has_exited() => memory_failed(process, fault),
        CensusError::Fault(fault @ (Fault::Gone | Fault::Denied)) => memory_failed(process, fault),
        source => WatchError::Census { pid: process.pid(), source },
    }
}

fn memory_failed(process: &Process, fault: Fault) -> WatchError {
    let pid = process.pid();
    if fault == Fault::Gone || process.has_exited() {
        WatchError::Exited { pid }
    } else {
        WatchError::Memory { pid, source: fault }
    }
}

/// What the running kernel makes of probe sites.
fn kernel() -> sites::Kernel {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse().unwrap_or(0));
    sites::Kernel::from_version(numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// `CLOCK_MONOTONIC`, the clock of the events and of Go's `nanotime`.
fn now_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    // Neither part is negative on this clock.
    now.tv_sec.cast_unsigned().saturating_mul(1_000_000_000).saturating_add(now.tv_nsec.cast_unsigned())
}
