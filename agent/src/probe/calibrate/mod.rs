//! What a probe hit costs on this host: measured by probing parkwarden's own code, with the programs that targets get.
//!
//! The price of a hit is that of its place (what the kernel does with the instruction there) and that of the program that
//! runs. Both are measured once per boot and kernel and kept in a file, see [`cache`].
//!
//! Deliberately absent: `kernel.bpf_stats_enabled`. It counts a program's time over all targets, and costs every BPF
//! program of the host time of its own.

pub mod cache;
pub(super) mod sites;

use std::num::NonZeroU32;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::FileExt as _;

use parkwarden_common::cookie::Cookie;
use parkwarden_common::record::{Kind, MAX_CREATOR_FRAMES};
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use super::keeper::{Keeper, Refused, Spot};
use super::load::{MapSizes, load_object};
use super::object::LoadError;
use super::programs::{EMPTY, Programs, Uprobes};
use super::uprobe::file_offset;
use crate::config::{BpfLog, Mode};
use crate::golang::sites::SiteClass;
use sites::OwnSite;

/// Nanoseconds that a hit takes of the program that is watched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Costs {
    /// Of hits that follow each other closely: everything is in the caches.
    #[serde(flatten)]
    pub warm: Prices,
    /// Of hits between which the program does as much as a server does, and has the kernel do something.
    pub cold: Prices,
    /// On top of either, where a creation tells which calls led to it.
    pub stack: u32,
}

/// What makes up a hit's price.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Prices {
    /// By place, with a program that does nothing.
    pub sites: SiteCosts,
    /// On top of that, the programs of `trace` mode.
    pub trace: ProgramCosts,
    /// On top of that, the programs of `filter` mode.
    pub filter: ProgramCosts,
    /// On top of that, the program of `births` mode, which runs where goroutines are made and end alone.
    pub births: ProgramCosts,
}

/// What a hit adds to a program, nanoseconds: what it takes, and what it does to the code that comes after it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HitPrice {
    /// Right after another one.
    pub warm_ns: u32,
    /// Where the program has spent [`COLD_AFTER_NS`] on something else.
    pub cold_ns: u32,
}

impl HitPrice {
    /// Of a hit of a program that has so much CPU time of its own between two.
    pub fn after(self, between_ns: u64) -> u32 {
        let colder = u64::from(self.cold_ns.saturating_sub(self.warm_ns));
        let colder = colder * between_ns.min(COLD_AFTER_NS) / COLD_AFTER_NS;
        self.warm_ns.saturating_add(u32::try_from(colder).unwrap_or(u32::MAX))
    }
}

/// Between two hits, CPU time of the program that leaves nothing of the probes in the caches next to the CPU.
pub const COLD_AFTER_NS: u64 = 5_000;

/// By class of the place, nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SiteCosts {
    /// See [`SiteClass::Nop5`]; none where the architecture has no such class.
    pub nop5: Option<u32>,
    /// See [`SiteClass::Emulated`].
    pub emulated: u32,
    /// See [`SiteClass::SingleStep`].
    pub single_step: u32,
}

/// By event, nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ProgramCosts {
    /// See [`Kind::Created`].
    pub created: u32,
    /// See [`Kind::Parked`].
    pub parked: u32,
    /// See [`Kind::Readied`].
    pub readied: u32,
    /// See [`Kind::Exited`].
    pub exited: u32,
}

impl Costs {
    /// Where nothing can be measured: more than on any machine that was.
    pub const ASSUMED: Self = Self {
        warm: Prices {
            sites: SiteCosts { nop5: Some(700), emulated: 1_000, single_step: 15_000 },
            trace: ProgramCosts { created: 600, parked: 400, readied: 600, exited: 400 },
            filter: ProgramCosts { created: 300, parked: 400, readied: 400, exited: 400 },
            births: ProgramCosts { created: 300, parked: 0, readied: 0, exited: 300 },
        },
        cold: Prices {
            sites: SiteCosts { nop5: Some(1_200), emulated: 1_600, single_step: 18_000 },
            trace: ProgramCosts { created: 1_000, parked: 700, readied: 1_000, exited: 700 },
            filter: ProgramCosts { created: 600, parked: 800, readied: 800, exited: 800 },
            births: ProgramCosts { created: 600, parked: 0, readied: 0, exited: 600 },
        },
        stack: 2_000,
    };

    /// What a hit adds to a program.
    pub fn hit(&self, mode: Mode, kind: Kind, class: SiteClass) -> HitPrice {
        let with = |prices: &Prices| with_aftermath(prices.measured_ns(mode, kind, class));
        HitPrice { warm_ns: with(&self.warm), cold_ns: with(&self.cold).max(with(&self.warm)) }
    }

    /// What a creation adds that tells which calls led to it.
    pub fn stack_ns(&self) -> u32 {
        with_aftermath(self.stack)
    }
}

fn with_aftermath(measured: u32) -> u32 {
    u32::try_from(u64::from(measured).saturating_mul(100 + AFTERMATH) / 100).unwrap_or(u32::MAX)
}

impl Prices {
    /// What a hit takes, in nanoseconds.
    pub fn measured_ns(&self, mode: Mode, kind: Kind, class: SiteClass) -> u32 {
        let programs = match mode {
            Mode::Census => return 0,
            Mode::Births => &self.births,
            Mode::Filter => &self.filter,
            Mode::Trace => &self.trace,
        };
        let program = match kind {
            Kind::Created => programs.created,
            Kind::Parked => programs.parked,
            Kind::Readied => programs.readied,
            Kind::Exited => programs.exited,
            Kind::Waited | Kind::Creator => 0,
        };
        let site = match class {
            SiteClass::Nop5 => self.sites.nop5.unwrap_or(self.sites.emulated),
            SiteClass::Emulated => self.sites.emulated,
            SiteClass::SingleStep => self.sites.single_step,
        };
        site.saturating_add(program)
    }
}

/// Percent that a hit costs a Go program more than the loop that is measured: the kernel leaves the caches and the branch
/// predictors cold. Found by comparing with the CPU time of `tests/go/spin` for each round: 19 to 38 % in either mode.
pub const AFTERMATH: u64 = 30;

/// Why nothing could be measured.
#[derive(Debug, thiserror::Error)]
pub enum CalibrateError {
    /// The programs cannot be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// A probe cannot be attached to parkwarden itself.
    #[error("a probe on parkwarden's own code was refused")]
    Attach(#[from] Refused),
    /// It is not known where parkwarden itself is.
    #[error("parkwarden does not find its own code")]
    Own(#[from] std::io::Error),
}

/// Hits in one measurement, of which there are [`BATCHES`]: few, because a single-stepped one can take 10 µs.
const HITS: u64 = 100;

/// Odd, so that there is a median.
const BATCHES: usize = 9;

/// Hits before it is measured: the kernel improves some places at their first hit.
const WARM_UP: u64 = 20;

/// Room for the records of all measurements: a full ring would make hits cheaper than they are.
const RING_BYTES: u32 = 1 << 19;

/// Hits with something else between them; odd, too.
const COLD_HITS: usize = 201;

/// A `g` as the programs read it, with `g.m.curg` leading back to it.
#[repr(C)]
struct OwnG {
    goid: u64,
    parent_goid: u64,
    gopc: u64,
    /// In between as in the runtime, because a program reads past it.
    ancestors: u64,
    startpc: u64,
    m: u64,
    curg: u64,
    sched_bp: u64,
    /// A frame's caller's, and a return address.
    frames: [[u64; 2]; MAX_CREATOR_FRAMES],
}

/// Measures. Takes some tens of milliseconds.
pub fn measure(uprobes: Uprobes) -> Result<Costs, CalibrateError> {
    let sizes =
        MapSizes { ring_bytes: RING_BYTES, parks: 64, sites: SITES, lifecycle_bytes: 4096, min_park_ns: u64::MAX };
    let ebpf = load_object(&sizes, BpfLog::Off)?;
    let programs = Programs::load(&ebpf, &Mode::PROBED, &[EMPTY], uprobes)?;
    let mut own = Own::new()?;

    let empty = programs.get(EMPTY)?;
    let mut places = Vec::new();
    let mut add = |site: OwnSite, program, kind| places.push(Measured::new(site, program, kind, &own));
    for class in [SiteClass::SingleStep, SiteClass::Nop5] {
        OwnSite::of(class).for_each(|site| add(site, empty, Kind::Exited));
    }
    let mut emulated_sites = OwnSite::of(SiteClass::Emulated);
    emulated_sites.by_ref().take(1).for_each(|site| add(site, empty, Kind::Exited));
    // One that this kernel refuses is never run.
    let modes = Mode::PROBED.map(|mode| (mode, programs.of(mode).ok()));
    for (mode, program) in &modes {
        let Some(program) = program else { continue };
        let kinds = Kind::PROBED.into_iter().filter(|kind| mode.probes(*kind));
        kinds.zip(emulated_sites.by_ref()).for_each(|(kind, site)| add(site, *program, kind));
    }
    // Where a creation tells of its stack, with the program that does least beside.
    let with_stack = modes.iter().find_map(|(_, program)| *program).zip(emulated_sites.next());
    if let Some((program, site)) = with_stack {
        places.push(Measured { tells_stack: true, ..Measured::new(site, program, Kind::Created, &own) });
    }
    let pid = NonZeroU32::new(std::process::id()).ok_or_else(|| std::io::Error::other("no process id"))?;
    let spots = places.iter().map(Measured::spot).collect::<Result<Vec<_>, _>>()?;
    let keeper = Keeper::attach(uprobes, c"/proc/self/exe", pid, &spots)?;

    let stack = places.pop_if(|place| place.tells_stack).map(|place| place.hit(&mut own));
    let mut places = places.iter();
    let mut next =
        |class: SiteClass| places.next().filter(|place| place.site.is(class)).map(|place| place.hit(&mut own));
    let single_step = next(SiteClass::SingleStep).unwrap_or_default();
    // Now and then the kernel fails to turn a nop into a call, and does not try again.
    let nop5 = OwnSite::of(SiteClass::Nop5).filter_map(|_| next(SiteClass::Nop5)).min_by_key(|hit| hit.warm);
    let emulated = next(SiteClass::Emulated).unwrap_or_default();
    let [births, filter, trace] = modes.map(|(mode, program)| {
        Kind::PROBED.map(|kind| match program {
            Some(_) if mode.probes(kind) => next(SiteClass::Emulated).unwrap_or(emulated),
            _ => emulated,
        })
    });
    let prices = |of: fn(Hit) -> u32| {
        let programs = |hits: [Hit; Kind::PROBED.len()]| {
            let [created, parked, readied, exited] = hits.map(|hit| of(hit).saturating_sub(of(emulated)));
            ProgramCosts { created, parked, readied, exited }
        };
        Prices {
            sites: SiteCosts { nop5: nop5.map(of), emulated: of(emulated), single_step: of(single_step) },
            trace: programs(trace),
            filter: programs(filter),
            births: programs(births),
        }
    };
    let (warm, cold) = (prices(|hit| hit.warm), prices(|hit| hit.cold));
    let [without_stack, ..] = [births, filter, trace].map(|[created, ..]| created.cold);
    let stack = stack.map_or(0, |hit| hit.cold.saturating_sub(without_stack));
    // Removing breakpoints takes the kernel tens of milliseconds, for which nobody has to wait.
    keeper.end();
    std::thread::spawn(move || drop(keeper));
    Ok(Costs { warm, cold, stack })
}

/// `go` statements that creations with stacks are of: each is of one that was not seen before, so that all tell of them.
const SITES: u32 = 1 << 10;

/// What a hit takes, nanoseconds.
#[derive(Clone, Copy, Debug, Default)]
struct Hit {
    /// Right after another one.
    warm: u32,
    /// After something else.
    cold: u32,
}

/// A goroutine of parkwarden's own, and what it does between two hits.
struct Own {
    g: Box<OwnG>,
    between: Between,
}

impl Own {
    fn new() -> std::io::Result<Self> {
        let mut g = Box::new(OwnG {
            goid: 1,
            parent_goid: 1,
            gopc: 1,
            ancestors: 0,
            startpc: 1,
            m: 0,
            curg: 0,
            sched_bp: 0,
            frames: [[0; 2]; MAX_CREATOR_FRAMES],
        });
        let address = std::ptr::from_ref(&*g).addr() as u64;
        (g.m, g.curg) = (address, address);
        // Frames as in a stack: each leads to the next one, and above the last there is none.
        let first = address + std::mem::offset_of!(OwnG, frames) as u64;
        g.sched_bp = first;
        for (index, frame) in (1..).zip(&mut g.frames) {
            *frame = [if index < MAX_CREATOR_FRAMES as u64 { first + 16 * index } else { 0 }, index];
        }
        Ok(Self { g, between: Between::new()? })
    }

    fn address(&self) -> u64 {
        std::ptr::from_ref(&*self.g).addr() as u64
    }
}

/// What a server does between two hits, as far as caches are concerned: it has the kernel do something, and goes through memory.
struct Between {
    file: std::fs::File,
    text: [u8; 512],
    memory: Vec<u8>,
}

/// Bytes of memory gone through: as many as a CPU has next to it.
const MEMORY: usize = 64 << 10;
/// Bytes that a CPU takes at once.
const LINE: usize = 64;

impl Between {
    fn new() -> std::io::Result<Self> {
        Ok(Self { file: std::fs::File::open("/proc/self/stat")?, text: [0; 512], memory: vec![1; MEMORY] })
    }

    fn run(&mut self) {
        // How much of it there is does not matter.
        let _ = self.file.read_at(&mut self.text, 0);
        // An odd number of lines ahead each time, so that all come and no CPU sees the next one coming.
        let lines = MEMORY / LINE;
        let sum = (0..lines).fold(0_u64, |sum, line| sum + u64::from(self.memory[(line * 397 % lines) * LINE]));
        std::hint::black_box(sum);
    }
}

/// A place in parkwarden's own code, and what its hits run.
struct Measured<'p> {
    site: OwnSite,
    program: BorrowedFd<'p>,
    kind: Kind,
    /// Its creations tell of their stacks.
    tells_stack: bool,
    /// What passing it took before there was a breakpoint, of passes close to each other: else that is nothing.
    bare_ns: u32,
}

impl<'p> Measured<'p> {
    fn new(site: OwnSite, program: BorrowedFd<'p>, kind: Kind, own: &Own) -> Self {
        let mut measured = Self { site, program, kind, tells_stack: false, bare_ns: 0 };
        measured.bare_ns = measured.warm_ns(own);
        measured
    }

    fn spot(&self) -> std::io::Result<Spot<'p>> {
        let cookie = Cookie {
            probe: Kind::PROBED.iter().position(|kind| *kind == self.kind).unwrap_or(0) as u16,
            goid: std::mem::offset_of!(OwnG, goid) as u16,
            parent_goid: std::mem::offset_of!(OwnG, parent_goid) as u16,
            gopc: std::mem::offset_of!(OwnG, gopc) as u16,
            startpc: std::mem::offset_of!(OwnG, startpc) as u16,
            m: std::mem::offset_of!(OwnG, m) as u16,
            curg: std::mem::offset_of!(OwnG, curg) as u16,
            sched_bp: if self.tells_stack { std::mem::offset_of!(OwnG, sched_bp) as u16 } else { 0 },
        };
        let cookie = cookie.encode().unwrap_or_default();
        Ok(Spot { offset: file_offset(self.site.address())?, program: self.program, cookie })
    }

    /// What a hit takes.
    fn hit(&self, own: &mut Own) -> Hit {
        self.site.pass(WARM_UP, own.address());
        Hit { warm: self.warm_ns(own).saturating_sub(self.bare_ns), cold: self.cold_ns(own) }
    }

    /// CPU time per pass, close to each other.
    fn warm_ns(&self, own: &Own) -> u32 {
        let mut batches = [0; BATCHES];
        for batch in &mut batches {
            let before = thread_cpu_ns();
            self.site.pass(HITS, own.address());
            *batch = thread_cpu_ns().saturating_sub(before) / HITS;
        }
        middle(&mut batches)
    }

    /// CPU time per pass with something in between, which is measured alone in turns: a machine that does other work does so in either.
    fn cold_ns(&self, own: &mut Own) -> u32 {
        let (mut alone, mut passing) = ([0; COLD_HITS], [0; COLD_HITS]);
        for (alone, passing) in alone.iter_mut().zip(&mut passing) {
            own.g.gopc += u64::from(self.tells_stack);
            let g = own.address();
            let begun = thread_cpu_ns();
            own.between.run();
            let middle = thread_cpu_ns();
            own.between.run();
            self.site.pass(1, g);
            *alone = middle.saturating_sub(begun);
            *passing = thread_cpu_ns().saturating_sub(middle);
        }
        middle(&mut passing).saturating_sub(middle(&mut alone))
    }
}

/// The median: what disturbs the machine makes some slower.
fn middle(times: &mut [u64]) -> u32 {
    times.sort_unstable();
    times.get(times.len() / 2).map_or(0, |middle| u32::try_from(*middle).unwrap_or(u32::MAX))
}

/// CPU time of this thread: time in which others ran does not count.
fn thread_cpu_ns() -> u64 {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    now.tv_sec.cast_unsigned().saturating_mul(1_000_000_000).saturating_add(now.tv_nsec.cast_unsigned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hit_is_the_dearer_the_longer_the_last_one_is_ago() {
        let price = HitPrice { warm_ns: 1_000, cold_ns: 2_000 };
        assert_eq!([0, 2_500, 5_000, u64::MAX].map(|between| price.after(between)), [1_000, 1_500, 2_000, 2_000]);
        assert_eq!(HitPrice { warm_ns: 7, cold_ns: 0 }.after(u64::MAX), 7);
    }
}
