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

use parkwarden_common::cookie::Cookie;
use parkwarden_common::record::Kind;
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

/// Nanoseconds that a hit adds to the program that is watched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Costs {
    /// By place, with a program that does nothing.
    pub sites: SiteCosts,
    /// On top of that, the programs of `trace` mode.
    pub trace: ProgramCosts,
    /// On top of that, the programs of `filter` mode.
    pub filter: ProgramCosts,
    /// On top of that, the program of `births` mode, which runs where goroutines are made and end alone.
    pub births: ProgramCosts,
}

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
        sites: SiteCosts { nop5: Some(700), emulated: 1_000, single_step: 15_000 },
        trace: ProgramCosts { created: 600, parked: 400, readied: 600, exited: 400 },
        filter: ProgramCosts { created: 300, parked: 400, readied: 400, exited: 400 },
        births: ProgramCosts { created: 300, parked: 0, readied: 0, exited: 300 },
    };

    /// What a hit adds to a program, in nanoseconds: what was measured, and what it does to the code that comes after it.
    pub fn hit_ns(&self, mode: Mode, kind: Kind, class: SiteClass) -> u32 {
        let measured = u64::from(self.measured_ns(mode, kind, class));
        u32::try_from(measured.saturating_mul(100 + AFTERMATH) / 100).unwrap_or(u32::MAX)
    }

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

/// Odd, so that there is a median. What disturbs the machine disturbs some of them.
const BATCHES: usize = 9;

/// Hits before it is measured: the kernel improves some places at their first hit.
const WARM_UP: u64 = 20;

/// Room for the records of all measurements: a full ring would make hits cheaper than they are.
const RING_BYTES: u32 = 1 << 19;

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
}

/// Measures. Takes some tens of milliseconds.
pub fn measure(uprobes: Uprobes) -> Result<Costs, CalibrateError> {
    let sizes = MapSizes { ring_bytes: RING_BYTES, parks: 64, sites: 64, lifecycle_bytes: 4096, min_park_ns: u64::MAX };
    let ebpf = load_object(&sizes, BpfLog::Off)?;
    let programs = Programs::load(&ebpf, &Mode::PROBED, &[EMPTY], uprobes)?;
    let mut g = Box::new(OwnG { goid: 1, parent_goid: 1, gopc: 1, ancestors: 0, startpc: 1, m: 0, curg: 0 });
    let address = std::ptr::from_ref(&*g).addr() as u64;
    (g.m, g.curg) = (address, address);

    let empty = programs.get(EMPTY)?;
    let mut places = Vec::new();
    let mut add = |site: OwnSite, program, kind| places.push(Measured::new(site, program, kind, address));
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
    let pid = NonZeroU32::new(std::process::id()).ok_or_else(|| std::io::Error::other("no process id"))?;
    let spots = places.iter().map(Measured::spot).collect::<Result<Vec<_>, _>>()?;
    let keeper = Keeper::attach(uprobes, c"/proc/self/exe", pid, &spots)?;

    let mut places = places.iter();
    let mut next = |class: SiteClass| places.next().filter(|place| place.site.is(class)).map(Measured::hit_ns);
    let single_step = next(SiteClass::SingleStep).unwrap_or(0);
    // Now and then the kernel fails to turn a nop into a call, and does not try again.
    let nop5 = OwnSite::of(SiteClass::Nop5).filter_map(|_| next(SiteClass::Nop5)).min();
    let emulated = next(SiteClass::Emulated).unwrap_or(0);
    let mut programs = |(mode, program): (Mode, Option<BorrowedFd<'_>>)| {
        let mut cost = |kind| match program {
            Some(_) if mode.probes(kind) => next(SiteClass::Emulated).unwrap_or(emulated).saturating_sub(emulated),
            _ => 0,
        };
        ProgramCosts {
            created: cost(Kind::Created),
            parked: cost(Kind::Parked),
            readied: cost(Kind::Readied),
            exited: cost(Kind::Exited),
        }
    };
    let [births, filter, trace] = modes.map(&mut programs);
    // Removing breakpoints takes the kernel tens of milliseconds, for which nobody has to wait.
    keeper.end();
    std::thread::spawn(move || drop(keeper));
    Ok(Costs { sites: SiteCosts { nop5, emulated, single_step }, trace, filter, births })
}

/// A place in parkwarden's own code, and what its hits run.
struct Measured<'p> {
    site: OwnSite,
    program: BorrowedFd<'p>,
    kind: Kind,
    g: u64,
    /// What passing it took before there was a breakpoint.
    bare_ns: u64,
}

impl<'p> Measured<'p> {
    fn new(site: OwnSite, program: BorrowedFd<'p>, kind: Kind, g: u64) -> Self {
        Self { site, program, kind, g, bare_ns: Self::median_ns(site, g) }
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
            sched_bp: 0,
        };
        let cookie = cookie.encode().unwrap_or_default();
        Ok(Spot { offset: file_offset(self.site.address())?, program: self.program, cookie })
    }

    /// What a hit takes.
    fn hit_ns(&self) -> u32 {
        self.site.pass(WARM_UP, self.g);
        let probed_ns = Self::median_ns(self.site, self.g);
        u32::try_from(probed_ns.saturating_sub(self.bare_ns)).unwrap_or(u32::MAX)
    }

    /// Nanoseconds of CPU time per pass.
    fn median_ns(site: OwnSite, g: u64) -> u64 {
        let mut batches = [0; BATCHES];
        for batch in &mut batches {
            let before = thread_cpu_ns();
            site.pass(HITS, g);
            *batch = thread_cpu_ns().saturating_sub(before) / HITS;
        }
        batches.sort_unstable();
        batches[BATCHES / 2]
    }
}

/// CPU time of this thread: time in which others ran does not count.
fn thread_cpu_ns() -> u64 {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    now.tv_sec.cast_unsigned().saturating_mul(1_000_000_000).saturating_add(now.tv_nsec.cast_unsigned())
}
