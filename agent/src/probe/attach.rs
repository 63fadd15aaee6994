//! Attaching the programs to one target.

use std::ffi::{CStr, CString};
use std::io;
use std::num::NonZeroU32;
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd};
use std::time::Instant;

use aya::maps::MapError;
use parkwarden_common::cookie::{Cookie, MAX_SLOTS, PROBES_PER_SLOT};
use parkwarden_common::filter::{Park, SiteCounts, Slot};

use super::load::{LoadError, Prober, program_name};
use super::programs::Uprobes;
use super::stream::EventStream;
use super::uprobe;
use crate::config::Mode;
use crate::golang::layout::RuntimeLayout;
use crate::golang::sites::Site;

/// Why probes could not be attached. Those that were are removed again.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// The kernel lets only those with more rights put a probe into another program.
    #[error(
        "the kernel does not permit the probe in {0}: an uprobe by a perf event needs root or CAP_SYS_ADMIN (`parkwarden \
         doctor` tells what is missing), and mode census needs none"
    )]
    NotPermitted(String),
    /// The kernel refused a probe.
    #[error("the kernel refused the probe in {function} at file offset {offset:#x}")]
    Refused {
        /// Runtime function.
        function: String,
        /// Offset in the executable.
        offset: u64,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// The object is incomplete.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The binary does not map a site to a file offset.
    #[error("address {address:#x} of {function} is in no segment of the executable")]
    NoOffset {
        /// Runtime function.
        function: String,
        /// Link-time address.
        address: u64,
    },
    /// An offset does not fit the attach cookie.
    #[error("the runtime's field offsets do not fit parkwarden's probes: {0:?}")]
    Layout(Cookie),
    /// Too many probes at once.
    #[error("all {0} targets there can be are watched already: watch fewer processes")]
    NoSlot(u32),
}

/// A breakpoint and the program that its hits run. Dropping it removes both.
#[derive(Debug)]
pub(super) struct Probe {
    // Without its program a hit costs less: first.
    link: Option<OwnedFd>,
    place: Place,
}

/// Where a breakpoint is.
#[derive(Debug)]
enum Place {
    /// It is there as long as this.
    PerfEvent(OwnedFd),
    /// It comes and goes with the link.
    Multi { path: CString, offset: u64, pid: NonZeroU32 },
}

impl Probe {
    /// A probe at that place. Its hits run nothing yet; with perf events the breakpoint is there already.
    pub(super) fn open(uprobes: Uprobes, path: &CStr, offset: u64, pid: NonZeroU32) -> io::Result<Self> {
        let place = match uprobes {
            Uprobes::Multi => Place::Multi { path: path.to_owned(), offset, pid },
            Uprobes::PerfEvent => Place::PerfEvent(uprobe::open(path, offset, pid.get())?),
        };
        Ok(Self { link: None, place })
    }

    /// Has hits run `program` from now on; whoever opened it still has to have the file of its path open.
    pub(super) fn run(&mut self, program: BorrowedFd<'_>, cookie: u64) -> io::Result<()> {
        self.link = Some(match &self.place {
            Place::Multi { path, offset, pid } => uprobe::multi(program, path, *offset, pid.get(), cookie)?,
            Place::PerfEvent(event) => uprobe::link(program, event, cookie)?,
        });
        Ok(())
    }

    /// Whether nothing is left of it once it has no link.
    fn is_link_alone(&self) -> bool {
        matches!(self.place, Place::Multi { .. })
    }
}

/// Takes away the programs of probes: that of the first only after those of the others. The first site is that of creations:
/// as long as anything is told of goroutines, their creation is too.
pub(super) fn unlink<'p>(probes: impl IntoIterator<Item = &'p mut Probe>) {
    let mut links = probes.into_iter().map(|probe| probe.link.take());
    let first = links.next();
    std::thread::scope(|scope| {
        for link in links.flatten() {
            // The kernel waits for every CPU, for all of them at once. Without a thread it is dropped here.
            let _ = std::thread::Builder::new().name("unlink".to_owned()).spawn_scoped(scope, move || drop(link));
        }
    });
    drop(first);
}

/// The probes of one target. Dropping it removes them, makes their indices available again, and forgets what the kernel
/// held for them.
#[derive(Debug, Default)]
pub struct Attachment {
    slot: Option<(Slot, Prober)>,
    mode: Option<Mode>,
    probes: Vec<(u16, Probe)>,
}

impl Drop for Attachment {
    fn drop(&mut self) {
        self.remove(&[]);
        if let Some((slot, prober)) = self.slot.take() {
            prober.release(slot, self.mode);
        }
    }
}

impl Attachment {
    /// The probe indices, in the order of the sites they were attached at.
    pub fn probes(&self) -> impl Iterator<Item = u16> {
        self.probes.iter().map(|(index, _)| *index)
    }

    /// Takes a target's programs away: from here on no hit is counted, but each still costs its place's price where the
    /// breakpoint is a perf event.
    ///
    /// What the kernel holds of the target stays until this is dropped.
    pub fn unlink(&mut self) {
        unlink(self.probes.iter_mut().map(|(_, probe)| probe));
    }

    /// Removes a target's probes, the first of `order` (their indices) first, and tells when each was gone.
    pub fn remove(&mut self, order: &[u16]) -> Vec<Removed> {
        let begun = Instant::now();
        self.unlink();
        let position = |index: &u16| order.iter().position(|first| first == index).unwrap_or(usize::MAX);
        self.probes.sort_by_key(|(index, _)| position(index));
        let removed = self.probes.drain(..).map(|(index, probe)| {
            // The breakpoint goes at the beginning of this, which then takes long, or went with its program.
            let at = if probe.is_link_alone() { begun } else { Instant::now() };
            drop(probe);
            Removed { index, at }
        });
        removed.collect()
    }

    /// Where the kernel keeps what is this target's, in mode [`Mode::Filter`].
    fn filter_slot(&self) -> Option<Slot> {
        let (slot, _) = self.slot.as_ref()?;
        (self.mode == Some(Mode::Filter)).then_some(*slot)
    }
}

impl Prober {
    /// Attaches the probes of a mode, one at each site, for this process only.
    ///
    /// `exe` is the open executable that the sites were planned for: attaching through it reaches that very inode,
    /// whatever has happened to its path.
    pub fn attach(
        &self,
        mode: Mode,
        pid: NonZeroU32,
        exe: &std::fs::File,
        sites: &[(Site, u64)],
        layout: &RuntimeLayout,
        stream: &EventStream,
    ) -> Result<Attachment, AttachError> {
        let path = own_path(exe);
        let slot = self.kernel().free_slots.pop().ok_or(AttachError::NoSlot(MAX_SLOTS))?;
        let uprobes = self.kernel().programs.uprobes;
        self.ring.route(slot, stream);
        let mut attachment =
            Attachment { slot: Some((slot, self.clone())), mode: Some(mode), probes: Vec::with_capacity(sites.len()) };
        for (position, (site, offset)) in (0..PROBES_PER_SLOT).zip(sites) {
            let index = u16::try_from(slot * PROBES_PER_SLOT + position).map_err(|_| AttachError::NoSlot(MAX_SLOTS))?;
            self.kernel().counters.reset(index).map_err(LoadError::refused)?;
            let probe = Probe::open(uprobes, &path, *offset, pid).map_err(|source| refused(site, *offset, source))?;
            attachment.probes.push((index, probe));
        }
        // All at once, because putting a breakpoint there takes long.
        self.run(mode, &mut attachment, sites, layout)?;
        Ok(attachment)
    }

    /// Has the hits of opened probes run the programs of a mode.
    fn run(
        &self,
        mode: Mode,
        attachment: &mut Attachment,
        sites: &[(Site, u64)],
        layout: &RuntimeLayout,
    ) -> Result<(), AttachError> {
        let kernel = self.kernel();
        for ((index, probe), (site, offset)) in attachment.probes.iter_mut().zip(sites) {
            let cookie = cookie(*index, layout)?;
            let name = program_name(mode, site.kind).ok_or(LoadError::Incomplete("program for this mode"))?;
            let program = kernel.programs.get(name)?;
            probe.run(program, cookie).map_err(|source| refused(site, *offset, source))?;
        }
        Ok(())
    }

    /// Goroutines whose parks the kernel holds for an attachment in mode [`Mode::Filter`]; one with `since_ns` 0 is not
    /// parked.
    pub fn parks(&self, attachment: &Attachment) -> io::Result<Vec<(u64, Park)>> {
        attachment.filter_slot().map_or_else(|| Ok(Vec::new()), |slot| self.kernel().held.parks(slot))
    }

    /// Has the kernel forget goroutines that are gone: not every end passes a probe.
    pub fn forget(&self, attachment: &Attachment, goids: impl IntoIterator<Item = u64>) {
        if let Some(slot) = attachment.filter_slot() {
            self.kernel().held.forget(slot, goids);
        }
    }

    /// Counts of `go` statements, by the return address of the call to `runtime.newproc`, that the kernel keeps for an
    /// attachment in mode [`Mode::Filter`].
    pub fn sites(&self, attachment: &Attachment) -> Result<Vec<(u64, SiteCounts)>, MapError> {
        attachment.filter_slot().map_or_else(|| Ok(Vec::new()), |slot| self.kernel().held.sites(slot))
    }

    fn release(&self, slot: Slot, mode: Option<Mode>) {
        self.ring.unroute(slot);
        let mut kernel = self.kernel();
        if mode == Some(Mode::Filter) {
            kernel.held.clear(slot);
        }
        kernel.free_slots.push(slot);
    }
}

/// A probe that was removed.
#[derive(Clone, Copy, Debug)]
pub struct Removed {
    /// Its index.
    pub index: u16,
    /// When.
    pub at: Instant,
}

fn refused(site: &Site, offset: u64, source: io::Error) -> AttachError {
    let function = site.function.clone();
    if source.kind() == io::ErrorKind::PermissionDenied {
        return AttachError::NotPermitted(function);
    }
    AttachError::Refused { function, offset, source }
}

/// A path to an open file that leads to that very inode.
pub(super) fn own_path(file: &std::fs::File) -> CString {
    // A number has no NUL.
    CString::new(format!("/proc/self/fd/{}", file.as_raw_fd())).unwrap_or_default()
}

fn cookie(probe: u16, layout: &RuntimeLayout) -> Result<u64, AttachError> {
    // Saturating: what does not fit is refused by `encode`.
    let offset = |offset: u32| u16::try_from(offset).unwrap_or(u16::MAX);
    let cookie = Cookie {
        probe,
        goid: offset(layout.g.goid),
        parent_goid: offset(layout.g.parent_goid.unwrap_or(0)),
        gopc: offset(layout.g.gopc),
        startpc: offset(layout.g.startpc),
        m: offset(layout.g.m),
        curg: offset(layout.m.curg),
    };
    cookie.encode().ok_or(AttachError::Layout(cookie))
}
