//! Attaching the programs to one target.

use std::ffi::{CStr, CString};
use std::io;
use std::num::NonZeroU32;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};

use aya::programs::UProbe;
use parkwarden_common::cookie::{Cookie, MAX_SLOTS, PROBES_PER_SLOT};
use parkwarden_common::filter::Slot;

use super::load::{LoadError, Prober, program, program_name};
use super::uprobe;
use crate::config::Mode;
use crate::golang::layout::RuntimeLayout;
use crate::golang::sites::Site;

/// Why probes could not be attached. Those that were are removed again.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
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
    event: OwnedFd,
}

impl Probe {
    /// Puts a breakpoint there. Its hits run nothing yet.
    pub(super) fn open(path: &CStr, offset: u64, pid: NonZeroU32) -> io::Result<Self> {
        Ok(Self { link: None, event: uprobe::open(path, offset, pid.get())? })
    }

    /// Has hits run `program` from now on, and no other.
    pub(super) fn run(&mut self, program: &UProbe, cookie: u64) -> io::Result<()> {
        let program = program.fd().map_err(io::Error::other)?;
        let Some(link) = self.link.take() else {
            self.link = Some(uprobe::link(program.as_fd(), &self.event, cookie)?);
            return Ok(());
        };
        // The kernel takes a program away at once, and then waits for every CPU before its call returns. Nobody else has
        // to wait for that.
        let closing = std::thread::Builder::new().name("unlink".to_owned()).spawn(move || drop(link))?;
        loop {
            let finished = closing.is_finished();
            match uprobe::link(program.as_fd(), &self.event, cookie) {
                Ok(link) => break self.link = Some(link),
                Err(error) if error.raw_os_error() == Some(libc::EEXIST) && !finished => std::thread::yield_now(),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// The probes of one target. Dropping it removes them.
#[derive(Debug, Default)]
pub struct Attachment {
    slot: Option<Slot>,
    probes: Vec<(u16, Probe)>,
}

impl Attachment {
    /// The probe indices, in the order of the sites they were attached at.
    pub fn probes(&self) -> impl Iterator<Item = u16> {
        self.probes.iter().map(|(index, _)| *index)
    }
}

impl Prober {
    /// Attaches the probes of a mode, one at each site, for this process only.
    ///
    /// `exe` is the open executable that the sites were planned for: attaching through it reaches that very inode,
    /// whatever has happened to its path.
    pub fn attach(
        &mut self,
        mode: Mode,
        pid: NonZeroU32,
        exe: &std::fs::File,
        sites: &[(Site, u64)],
        layout: &RuntimeLayout,
    ) -> Result<Attachment, AttachError> {
        let path = own_path(exe);
        let slot = self.free_slots.pop().ok_or(AttachError::NoSlot(MAX_SLOTS))?;
        let mut attachment = Attachment { slot: Some(slot), probes: Vec::with_capacity(sites.len()) };
        let attached = (0..PROBES_PER_SLOT).zip(sites).try_for_each(|(position, (site, offset))| {
            let index = u16::try_from(slot * PROBES_PER_SLOT + position).map_err(|_| AttachError::NoSlot(MAX_SLOTS))?;
            self.counters.reset(index).map_err(LoadError::refused)?;
            let cookie = cookie(index, layout)?;
            let name = program_name(mode, site.kind).ok_or(LoadError::Incomplete("program for this mode"))?;
            let program = program(&mut self.ebpf, name)?;
            let probe = Probe::open(&path, *offset, pid)
                .and_then(|mut probe| probe.run(program, cookie).map(|()| probe))
                .map_err(|source| AttachError::Refused { function: site.function.clone(), offset: *offset, source })?;
            attachment.probes.push((index, probe));
            Ok(())
        });
        match attached {
            Ok(()) => Ok(attachment),
            Err(error) => {
                self.detach(attachment);
                Err(error)
            }
        }
    }

    /// Removes a target's probes and makes their indices available again.
    pub fn detach(&mut self, attachment: Attachment) {
        let mut probes = attachment.probes;
        // Last attached, first removed: as long as anything is told of goroutines, their creation is too. All programs
        // go before any breakpoint, which takes the kernel long.
        probes.iter_mut().rev().for_each(|(_, probe)| probe.link = None);
        drop(probes);
        self.free_slots.extend(attachment.slot);
    }
}

/// A path to an open file that leads to that very inode.
fn own_path(file: &std::fs::File) -> CString {
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
