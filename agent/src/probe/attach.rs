//! Attaching the programs to one target.

use std::ffi::CString;
use std::io;
use std::num::NonZeroU32;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::time::Instant;

use aya::maps::MapError;
use parkwarden_common::cookie::{Cookie, MAX_SLOTS, PROBES_PER_SLOT};
use parkwarden_common::filter::{Park, SiteCounts, Slot};
use parkwarden_common::record::Kind;

use super::keeper::{Keeper, Refused, Spot};
use super::load::Prober;
use super::object::LoadError;
use super::stream::EventStream;
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
    /// There is no process that would hold the probes.
    #[error(
        "no process can be made that holds the probes: is a limit of processes reached (pids.max, ulimit -u), or does a \
             seccomp profile forbid clone or close_range?"
    )]
    Keeper(#[source] io::Error),
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

/// The probes of one target. Dropping it removes them, makes their indices available again, and forgets what the kernel
/// held for them.
#[derive(Debug, Default)]
pub struct Attachment {
    slot: Option<(Slot, Prober)>,
    mode: Option<Mode>,
    keeper: Option<Keeper>,
    indices: Vec<u16>,
}

impl Drop for Attachment {
    fn drop(&mut self) {
        self.remove();
        if let Some((slot, prober)) = self.slot.take() {
            prober.release(slot, self.mode);
        }
    }
}

impl Attachment {
    /// The probe indices, in the order of the sites they were attached at.
    pub fn probes(&self) -> impl Iterator<Item = u16> {
        self.indices.iter().copied()
    }

    /// Whether the process that held the probes was killed, and they have gone with it.
    pub fn is_lost(&self) -> bool {
        self.keeper.as_ref().is_some_and(Keeper::has_ended)
    }

    /// Removes a target's probes, one after the other, and tells when each was gone. From here on no hit is counted or told of.
    ///
    /// What the kernel holds of the target stays until this is dropped.
    pub fn remove(&mut self) -> Vec<Removed> {
        let Some(keeper) = self.keeper.take() else { return Vec::new() };
        if let Some((slot, prober)) = &self.slot
            && let Err(error) = prober.kernel().muted.set(*slot, 1, 0)
        {
            // Only a bug could make this fail; then some events are told of goroutines whose others are not.
            log::error!("hits of probes that are being removed are told of: {error}");
        }
        let begun = Instant::now();
        drop(keeper);
        let taken = begun.elapsed();
        let indices = std::mem::take(&mut self.indices);
        let places = u32::try_from(indices.len()).unwrap_or(u32::MAX).max(1);
        // Each in about the same time, and the first last.
        let gone = |nth: u32| begun + taken * (places + 1 - nth) / places;
        indices.into_iter().zip(1..).map(|(index, nth)| Removed { index, at: gone(nth) }).collect()
    }

    /// Where the kernel keeps what is this target's, in one of these modes.
    fn slot_in(&self, modes: &[Mode]) -> Option<Slot> {
        let (slot, _) = self.slot.as_ref()?;
        self.mode.is_some_and(|mode| modes.contains(&mode)).then_some(*slot)
    }
}

impl Prober {
    /// Attaches the probes of a mode, one at each site that it has one at, for this process only.
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
        let slot = self.kernel().free_slots.pop().ok_or(AttachError::NoSlot(MAX_SLOTS))?;
        let (program, uprobes) = {
            let kernel = self.kernel();
            let program = kernel.programs.of(mode)?.try_clone_to_owned().map_err(LoadError::refused);
            (program, kernel.programs.uprobes)
        };
        self.ring.route(slot, stream);
        self.kernel().muted.set(slot, 0, 0).map_err(LoadError::refused)?;
        let mut attachment = Attachment {
            slot: Some((slot, self.clone())),
            mode: Some(mode),
            keeper: None,
            indices: Vec::with_capacity(sites.len()),
        };
        let program = program?;
        let mut spots = Vec::with_capacity(sites.len());
        let sites: Vec<&(Site, u64)> = sites.iter().filter(|(site, _)| mode.probes(site.kind)).collect();
        for (site, offset) in &sites {
            let index = index(slot, site.kind).ok_or(AttachError::NoSlot(MAX_SLOTS))?;
            self.kernel().counters.reset(index).map_err(LoadError::refused)?;
            attachment.indices.push(index);
            spots.push(Spot { offset: *offset, program: program.as_fd(), cookie: cookie(index, layout)? });
        }
        let keeper = Keeper::attach(uprobes, &own_path(exe), pid, &spots);
        attachment.keeper = Some(keeper.map_err(|refused| not_attached(&sites, refused))?);
        Ok(attachment)
    }

    /// Goroutines whose parks the kernel holds for an attachment in mode [`Mode::Filter`]; one with `since_ns` 0 is not
    /// parked.
    pub fn parks(&self, attachment: &Attachment) -> io::Result<Vec<(u64, Park)>> {
        attachment.slot_in(&[Mode::Filter]).map_or_else(|| Ok(Vec::new()), |slot| self.kernel().held.parks(slot))
    }

    /// Has the kernel forget goroutines that are gone: not every end passes a probe.
    pub fn forget(&self, attachment: &Attachment, goids: impl IntoIterator<Item = u64>) {
        if let Some(slot) = attachment.slot_in(&[Mode::Filter]) {
            self.kernel().held.forget(slot, goids);
        }
    }

    /// Counts of `go` statements, by the return address of the call to `runtime.newproc`, that the kernel keeps for an
    /// attachment in a mode that counts.
    pub fn sites(&self, attachment: &Attachment) -> Result<Vec<(u64, SiteCounts)>, MapError> {
        let slot = attachment.slot_in(&COUNTING);
        slot.map_or_else(|| Ok(Vec::new()), |slot| self.kernel().held.sites(slot))
    }

    fn release(&self, slot: Slot, mode: Option<Mode>) {
        self.ring.unroute(slot);
        let mut kernel = self.kernel();
        if mode == Some(Mode::Filter) {
            kernel.held.clear_parks(slot);
        }
        // In mode `trace` too, though nobody asks for them there.
        if mode.is_some() {
            kernel.held.clear_sites(slot);
        }
        kernel.free_slots.push(slot);
    }
}

/// Modes whose programs count what `go` statements make.
const COUNTING: [Mode; 2] = [Mode::Births, Mode::Filter];

/// A probe that was removed.
#[derive(Clone, Copy, Debug)]
pub struct Removed {
    /// Its index.
    pub index: u16,
    /// When.
    pub at: Instant,
}

/// The index of the probe that an attachment has for events of a kind.
fn index(slot: Slot, kind: Kind) -> Option<u16> {
    let position = Kind::PROBED.iter().position(|probed| *probed == kind)?;
    u16::try_from(slot * PROBES_PER_SLOT + u32::try_from(position).ok()?).ok()
}

fn not_attached(sites: &[&(Site, u64)], refused: Refused) -> AttachError {
    let (spot, source) = match refused {
        Refused::Keeper(source) => return AttachError::Keeper(source),
        Refused::Breakpoint { spot, source } | Refused::Program { spot, source } => (spot, source),
    };
    let (function, offset) = sites.get(spot).map(|(site, offset)| (site.function.clone(), *offset)).unwrap_or_default();
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
        sched_bp: offset(layout.g.sched_bp),
    };
    // Without the last it can do.
    let short = Cookie { sched_bp: 0, ..cookie };
    cookie.encode().or_else(|| short.encode()).ok_or(AttachError::Layout(cookie))
}
