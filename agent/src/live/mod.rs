//! A live Go process that can be looked at: its binary understood, its memory readable, its goroutines where the binary
//! says. `watch`, `snapshot` and `ps` all begin here.
//!
//! Deliberately absent: probes. Looking at a target costs it nothing and needs no BPF.

mod binaries;
mod check;
mod error;
pub mod examine;
mod plugins;
mod runtime;
mod started;
mod tables;
mod variables;
mod waits;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hashbrown::{HashMap, HashSet};

pub use binaries::{Binaries, Executable, Refused};
pub use error::TargetError;
pub use tables::LoadedTables;
pub use variables::NoVariable;

use crate::clock::now_ns;
use crate::discover::info::TargetInfo;
use crate::discover::process::Process;
use crate::golang::Frame;
use crate::golang::binary::GoBinary;
use crate::golang::goroutine::is_system_goroutine;
use crate::golang::layout::{self, LayoutSource, Structs, Wanted};
use crate::golang::layout_table::LayoutTable as _;
use crate::golang::pclntab::PcLnTab;
use crate::golang::{dwarf, proof_layout, symbols, table};
use crate::memory::census::{Census, CensusError, CensusReader, Goroutine};
use crate::memory::globals::NotFound;
use crate::memory::labels::{Form, Labelled};
use crate::memory::look::CensusTaken;
use crate::memory::process::ProcessMemory;
use crate::memory::unwind::{Unwinder, Unwound};
use crate::memory::{Fault, StackId, StackTable};
use crate::symbolize::{Symbolizer, call_of};

/// Addresses named for one target at most; a real program shows some thousands.
const MAX_NAMED: usize = 1 << 20;
/// Looks at a target before a contradiction is believed.
const LOOKS: usize = 5;
/// Goroutines looked at for one.
const CHECKED: usize = 16 << 10;

/// See the module.
#[derive(Debug)]
pub struct Target {
    process: Arc<Process>,
    binary: Arc<GoBinary>,
    slide: u64,
    allgs: u64,
    memory: ProcessMemory,
    census: CensusReader,
    unwinder: Unwinder,
    tables: LoadedTables,
    symbolizer: Symbolizer,
    stacks: StackTable,
    /// Stacks that [`Target::news`] has told of.
    told_stacks: usize,
    /// Whether what it writes was tracked by this.
    tracked: AtomicBool,
    named: HashSet<u64>,
}

/// What a look refers to and no look before did.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct News {
    /// Addresses with their frames.
    pub names: Vec<(u64, Arc<[Frame]>)>,
    /// Stacks, innermost return address first, in the order of their ids.
    pub stacks: Vec<Vec<u64>>,
}

impl Target {
    /// Opens process `pid`, understands its binary, and takes a first look: a target that does not look as its binary
    /// says is refused.
    pub fn open(pid: u32) -> Result<Self, TargetError> {
        let (process, binary) = Self::parts(pid)?;
        Self::of(process, binary)
    }

    /// A process, and its binary understood.
    pub fn parts(pid: u32) -> Result<(Arc<Process>, Arc<GoBinary>), TargetError> {
        let process = Arc::new(Process::open(pid)?);
        let binary = GoBinary::parse(process.exe()).map_err(|source| TargetError::Binary {
            pid,
            exe: process.exe_path().display().to_string(),
            source: Box::new(source),
        })?;
        Ok((process, Arc::new(binary)))
    }

    /// The same of a process whose binary is understood already.
    pub fn of(process: Arc<Process>, binary: Arc<GoBinary>) -> Result<Self, TargetError> {
        let mut target = Self::unchecked(process, binary)?;
        target.begun()?;
        Ok(target)
    }

    /// Opens a process that may not have run yet. Nothing of its memory is known before [`Target::begun`].
    pub fn unchecked(process: Arc<Process>, binary: Arc<GoBinary>) -> Result<Self, TargetError> {
        let pid = process.pid();
        let slide = process.slide(&binary.elf)?;
        if let Some(difference) = binary.layout_differs.first() {
            log::warn!(
                "pid {pid}: the runtime's layouts are not those of {}: {difference}, and {} more; its debugging \
                 information is believed",
                binary.version,
                binary.layout_differs.len() - 1
            );
        }
        let memory = ProcessMemory::new(pid);
        let pclntab = plugins::with(&binary, &memory, slide).map_err(|source| TargetError::Memory { pid, source })?;
        let tables = LoadedTables::new(Arc::clone(&pclntab), slide);
        let target = Self {
            memory,
            allgs: 0,
            census: CensusReader::new(binary.layout.g, 0),
            unwinder: Unwinder::new(binary.arch),
            symbolizer: Symbolizer::new(Arc::clone(&pclntab), slide),
            tables,
            stacks: StackTable::default(),
            told_stacks: 0,
            tracked: AtomicBool::new(false),
            named: HashSet::new(),
            process,
            binary,
            slide,
        };
        log::info!("pid {pid} is {}, loaded at a slide of {slide:#x}", target.binary.version);
        Ok(target)
    }

    /// Finds its goroutines, and refuses a process that does not look as its binary says; one that has just started may do so later.
    pub fn begun(&mut self) -> Result<(), TargetError> {
        if self.allgs == 0 {
            self.allgs = self.find_allgs()?;
            self.census = CensusReader::new(self.binary.layout.g, self.allgs);
        }
        self.check()
    }

    fn find_allgs(&self) -> Result<u64, TargetError> {
        let pid = self.process.pid();
        match variables::allgs(&self.process, &self.binary, self.slide, &self.memory) {
            Ok(address) => Ok(address),
            Err(_) if self.process.has_exited() => Err(TargetError::Exited { pid }),
            Err(NotFound::Fault(source)) => Err(TargetError::Memory { pid, source }),
            Err(error) => {
                let reason = format!(
                    "it has no symbols, and its list of goroutines, runtime.allgs, was not found: {error} (if it has \
                     just started, try again)"
                );
                Err(TargetError::Layout { pid, reason })
            }
        }
    }

    /// The process.
    pub fn process(&self) -> &Arc<Process> {
        &self.process
    }

    /// Its binary.
    pub fn binary(&self) -> &GoBinary {
        &self.binary
    }

    /// How far above its link-time addresses the binary is loaded.
    pub fn slide(&self) -> u64 {
        self.slide
    }

    /// Its function tables, with those of the plugins it had opened by then.
    pub fn pclntab(&self) -> &Arc<PcLnTab> {
        self.symbolizer.pclntab()
    }

    /// Where the function begins that contains the address `pc` of the process.
    pub fn function_entry(&self, pc: u64) -> Option<u64> {
        self.tables.entry(pc)
    }

    /// Name of the function that contains the address `pc` of the process, for people.
    pub fn function_name(&self, pc: u64) -> String {
        self.tables.function(pc).map_or_else(|| format!("unknown (0x{pc:x})"), str::to_owned)
    }

    /// The calls that the address `pc` of the process stands in, innermost first, without a wrapper that the compiler made: the
    /// runtime shows none either. For a return address pass `pc - 1`.
    pub fn calls(&mut self, pc: u64) -> Vec<Frame> {
        let mut calls = self.symbolizer.frames(pc).to_vec();
        if self.is_wrapper(pc) {
            calls.pop();
        }
        calls
    }

    /// Whether the compiler made the function that contains the address `pc` of the process, to call another one.
    pub fn is_wrapper(&self, pc: u64) -> bool {
        self.tables.is_wrapper(pc)
    }

    /// Where the variable of package runtime called `name` is in the process; for binaries without symbols, where its
    /// code and contents leave no doubt.
    pub fn variable(&self, name: &str) -> Option<u64> {
        self.locate(name).ok()
    }

    /// As [`Target::variable`], with the reason where it is not known.
    pub fn locate(&self, name: &str) -> Result<u64, NoVariable> {
        if name == "runtime.allgs" {
            return Ok(self.allgs);
        }
        if let Some(address) = self.symbol(name) {
            return Ok(address);
        }
        let structs = self.structs(&[crate::golang::variables::WANTED, proof_layout::WANTED]);
        variables::find(name, &self.process, &self.binary, &structs, self.slide, &self.memory)
    }

    /// Where a variable can be that is told from others of its kind by what lies there: where its symbol says, else each
    /// place that the code which names all of them has.
    pub fn places(&self, name: &str) -> Result<Vec<u64>, NoVariable> {
        match self.symbol(name) {
            Some(address) => Ok(vec![address]),
            None => variables::several(name, &self.process, &self.binary, &self.binary.structs, self.slide),
        }
    }

    fn symbol(&self, name: &str) -> Option<u64> {
        let symbols = symbols::lookup(self.process.exe(), &self.binary.elf, &[name]).unwrap_or_default();
        Some(symbols.first().copied().flatten()?.address.wrapping_add(self.slide))
    }

    /// The structs that `lists` declare, as far as they are known: from the binary's debugging information, and where that
    /// lacks any and nothing contradicts, from the table of its version.
    pub fn structs(&self, lists: &[&Wanted]) -> Structs {
        let mut structs = self.binary.structs.clone();
        if self.binary.layout_source == LayoutSource::Table {
            return structs;
        }
        let wanted = layout::together(lists);
        if self.binary.layout_differs.is_empty()
            && let Ok(known) = table::bundled().structs(&self.binary.version, self.binary.arch)
        {
            structs.extend(known);
        }
        match dwarf::structs(self.process.exe(), &self.binary.elf, &wanted) {
            Ok(described) => {
                for (name, layout) in described {
                    let known = structs.entry(name).or_default();
                    known.size = layout.size;
                    known.fields.extend(layout.fields);
                }
            }
            Err(error) => log::debug!("pid {}: its debugging information: {error}", self.process.pid()),
        }
        structs
    }

    /// Whether what it writes was tracked by this before.
    pub fn is_tracked(&self) -> bool {
        self.tracked.load(Ordering::Relaxed)
    }

    /// Notes that what it writes is tracked.
    pub fn set_tracked(&self) {
        self.tracked.store(true, Ordering::Relaxed);
    }

    /// Its memory.
    pub fn memory(&self) -> &ProcessMemory {
        &self.memory
    }

    /// What reports say of it.
    pub fn info(&self) -> TargetInfo {
        TargetInfo {
            pid: self.process.pid(),
            exe: self.process.exe_path().display().to_string(),
            go_version: self.binary.version.to_string(),
            arch: self.binary.arch,
            module: self.binary.build.main.as_ref().map(|module| module.path.clone()),
            stripped: self.binary.stripped,
            pie: self.binary.pie,
            layout_source: self.binary.layout_source,
            symbol_source: self.binary.symbol_source,
        }
    }

    /// A census without stacks.
    pub fn count(&self) -> Result<Census, TargetError> {
        self.count_first(usize::MAX)
    }

    fn count_first(&self, most: usize) -> Result<Census, TargetError> {
        let census = self.census.read_first(&self.memory, now_ns, most).map_err(|error| self.census_failed(error))?;
        self.still_the_same()?;
        Ok(census)
    }

    /// What was read is of the program that was opened only if that still runs: its pid may be another process's by now,
    /// or it has executed another program.
    fn still_the_same(&self) -> Result<(), TargetError> {
        let pid = self.process.pid();
        if self.process.has_exited() {
            return Err(TargetError::Exited { pid });
        }
        if self.process.has_executed() {
            return Err(TargetError::Replaced { pid });
        }
        Ok(())
    }

    /// How many goroutines the program has, those of the runtime not counted.
    pub fn own_goroutines(&self) -> Result<u64, TargetError> {
        let own = |goroutine: &&Goroutine| !self.tables.function(goroutine.start_pc).is_some_and(is_system_goroutine);
        Ok(self.count()?.goroutines.iter().filter(own).count() as u64)
    }

    /// A census with the stacks of all goroutines that do not run. Those that have not run since this target's look
    /// `before` still have the stacks they had then.
    pub fn look(&mut self, before: Option<&CensusTaken>) -> Result<CensusTaken, TargetError> {
        let census = self.count()?;
        let known = before.map(Standing::of).unwrap_or_default();
        let kept: Vec<Option<StackId>> = census.goroutines.iter().map(|goroutine| known.stack(goroutine)).collect();
        let wanted = |(goroutine, kept): &(&Goroutine, &Option<StackId>)| goroutine.has_stack() && kept.is_none();
        let moving: Vec<Goroutine> =
            census.goroutines.iter().zip(&kept).filter(wanted).map(|(goroutine, _)| *goroutine).collect();
        let Unwound { stacks, moved, cut, unknown } = self
            .unwinder
            .unwind(&self.memory, &self.tables, &self.census, &moving, &mut self.stacks)
            .map_err(|fault| self.memory_failed(fault))?;
        self.still_the_same()?;
        let mut unwound = stacks.into_iter();
        let stacks = census
            .goroutines
            .iter()
            .zip(&kept)
            .map(|each| if wanted(&each) { unwound.next().flatten() } else { *each.1 })
            .collect();
        Ok(CensusTaken { census, stacks, stack_moved: moved, stack_cut: cut, stack_unknown: unknown })
    }

    /// Which of `goroutines` run, or are ready to, each of `samples` times that they are looked at, so far apart.
    pub fn keep_running(
        &self,
        mut goroutines: Vec<Goroutine>,
        samples: u32,
        apart: Duration,
    ) -> Result<Vec<u64>, TargetError> {
        for _ in 0..samples {
            if goroutines.is_empty() {
                break;
            }
            std::thread::sleep(apart);
            let addresses: Vec<u64> = goroutines.iter().map(|goroutine| goroutine.address).collect();
            let now = self.census.reread(&self.memory, &addresses).map_err(|fault| self.memory_failed(fault))?;
            let mut now = now.into_iter();
            goroutines
                .retain(|then| now.next().flatten().is_some_and(|now| now.goid == then.goid && now.status.runs()));
        }
        Ok(goroutines.iter().map(|goroutine| goroutine.goid).collect())
    }

    /// The labels of those that do not run, as far as they stand in `most` places at most.
    pub fn labels(&self, taken: &CensusTaken, most: usize) -> Result<Labelled, TargetError> {
        let form = Form::of(&self.binary.version);
        let read = Labelled::read(&self.memory, form, &self.census, &taken.census.goroutines, most);
        read.map_err(|fault| self.memory_failed(fault))
    }

    /// What `taken` refers to and has not been told of before: names of addresses, and stacks.
    pub fn news(&mut self, taken: &CensusTaken, returns: impl Iterator<Item = u64>) -> News {
        let mut names: Vec<(u64, Arc<[Frame]>)> = Vec::new();
        let mut name = |address: u64| {
            if self.named.len() < MAX_NAMED && self.named.insert(address) {
                names.push((address, self.symbolizer.frames(address)));
            }
        };
        let stacks: Vec<Vec<u64>> = self.stacks.since(self.told_stacks).iter().map(|pcs| pcs.to_vec()).collect();
        stacks.iter().flatten().copied().chain(returns).for_each(|pc| name(call_of(pc)));
        for goroutine in &taken.census.goroutines {
            name(call_of(goroutine.creation_pc));
            name(goroutine.start_pc);
        }
        self.told_stacks = self.stacks.len();
        News { names, stacks }
    }

    /// Refuses a target that, looked at several times, does not look as its binary says.
    fn check(&self) -> Result<(), TargetError> {
        let expected = check::Expected {
            layout: self.binary.layout,
            reasons: self.binary.wait_reasons.len(),
            function: &|pc| self.tables.function(pc),
        };
        let mut found = None;
        for _ in 0..LOOKS {
            let look = self.count_first(CHECKED)?;
            found = check::contradiction(&look, &expected, &self.memory).map_err(|fault| self.memory_failed(fault))?;
            if found.is_none() {
                return Ok(());
            }
        }
        let source = match self.binary.layout_source {
            LayoutSource::Dwarf => "its debugging information describes".to_owned(),
            LayoutSource::Table => format!("{} has", self.binary.version),
        };
        Err(TargetError::Layout {
            pid: self.process.pid(),
            reason: format!(
                "its memory contradicts the layout that {source}: {}; parkwarden attaches nowhere it is not certain",
                found.unwrap_or_default()
            ),
        })
    }

    /// That its runtime cannot be read for a reason, unless it is that it has ended.
    pub fn failed(&self, reason: impl std::fmt::Display) -> TargetError {
        let pid = self.process.pid();
        if self.process.has_exited() {
            return TargetError::Exited { pid };
        }
        TargetError::Layout { pid, reason: reason.to_string() }
    }

    fn census_failed(&self, error: CensusError) -> TargetError {
        match error {
            CensusError::Fault(fault @ (Fault::Gone | Fault::Denied)) => self.memory_failed(fault),
            _ if self.process.has_exited() => self.memory_failed(Fault::Gone),
            _ if self.process.has_executed() => TargetError::Replaced { pid: self.process.pid() },
            source => TargetError::Census { pid: self.process.pid(), source },
        }
    }

    fn memory_failed(&self, fault: Fault) -> TargetError {
        let pid = self.process.pid();
        if fault == Fault::Gone || self.process.has_exited() {
            TargetError::Exited { pid }
        } else {
            TargetError::Memory { pid, source: fault }
        }
    }
}

/// Goroutines of an earlier look, by their addresses, with the stacks they had.
#[derive(Default)]
struct Standing<'a>(HashMap<u64, (&'a Goroutine, StackId)>);

impl<'a> Standing<'a> {
    fn of(before: &'a CensusTaken) -> Self {
        // Which of its stacks were cut is not known any more, and that would be a loss untold.
        if before.stack_cut > 0 {
            return Self::default();
        }
        let whole = before.goroutines().filter_map(|(goroutine, stack)| Some((goroutine.address, (goroutine, stack?))));
        Self(whole.collect())
    }

    /// The stack of a goroutine that has not run since: it has not stopped running since (`g.trackingSeq`), and stands
    /// where it stood. One that stopped 256 times would look the same; then its stack has the same depth and innermost
    /// function at least.
    fn stack(&self, now: &Goroutine) -> Option<StackId> {
        let (then, stack) = self.0.get(&now.address)?;
        now.tracking_seq?;
        (now.has_stack() && Goroutine { wait_since_ns: then.wait_since_ns, ..*now } == **then).then_some(*stack)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::census::Status;

    #[test]
    fn only_who_has_not_run_keeps_its_stack() {
        let parked = Goroutine {
            address: 16,
            goid: 7,
            status: Status::Waiting,
            sp: 100,
            tracking_seq: Some(3),
            ..Goroutine::default()
        };
        let other = Goroutine { address: 32, goid: 8, ..parked };
        let census = Census { goroutines: vec![parked, other], ..Census::default() };
        let stacks = vec![Some(StackId(5)), None];
        let before = CensusTaken { census, stacks, stack_moved: 0, stack_cut: 0, stack_unknown: 1 };
        let kept = |now: Goroutine| Standing::of(&before).stack(&now);
        assert_eq!(kept(parked), Some(StackId(5)));
        assert_eq!(kept(Goroutine { wait_since_ns: Some(9), ..parked }), Some(StackId(5)), "the collector noted it");
        assert_eq!(kept(other), None, "it had none");
        assert_eq!(kept(Goroutine { tracking_seq: Some(4), ..parked }), None, "it ran");
        assert_eq!(kept(Goroutine { sp: 99, ..parked }), None, "its stack was moved");
        assert_eq!(kept(Goroutine { goid: 9, ..parked }), None, "another one");
        assert_eq!(kept(Goroutine { status: Status::Running, ..parked }), None, "it runs");
        assert_eq!(kept(Goroutine { tracking_seq: None, ..parked }), None, "nothing tells");
        let unsure = CensusTaken { stack_cut: 1, ..before.clone() };
        assert_eq!(Standing::of(&unsure).stack(&parked), None);
    }
}
