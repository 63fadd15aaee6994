//! Attaching the programs to one target.

use std::num::NonZeroU32;
use std::os::fd::AsRawFd;
use std::path::PathBuf;

use aya::programs::uprobe::{UProbe, UProbeAttachLocation, UProbeAttachPoint, UProbeLink, UProbeScope};
use parkwarden_common::cookie::Cookie;

use super::load::{LoadError, Prober, program};
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
        source: Box<dyn std::error::Error + Send + Sync>,
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
    #[error("all {0} probe slots are taken: watch fewer processes")]
    NoSlot(u32),
}

/// The probes of one target. Dropping it removes them.
#[derive(Debug, Default)]
pub struct Attachment {
    probes: Vec<(u16, UProbeLink)>,
}

impl Attachment {
    /// The probe indices, in the order of the sites they were attached at.
    pub fn probes(&self) -> impl Iterator<Item = u16> {
        self.probes.iter().map(|(index, _)| *index)
    }
}

impl Prober {
    /// Attaches a probe at each site, for this process only.
    ///
    /// `exe` is the open executable that the sites were planned for: attaching through it reaches that very inode,
    /// whatever has happened to its path.
    pub fn attach(
        &mut self,
        pid: NonZeroU32,
        exe: &std::fs::File,
        sites: &[(Site, u64)],
        layout: &RuntimeLayout,
    ) -> Result<Attachment, AttachError> {
        let path = PathBuf::from(format!("/proc/self/fd/{}", exe.as_raw_fd()));
        let mut attachment = Attachment { probes: Vec::with_capacity(sites.len()) };
        for (site, offset) in sites {
            let probe = self.free_probes.pop().ok_or(AttachError::NoSlot(parkwarden_common::cookie::MAX_PROBES))?;
            self.counters.reset(probe).map_err(LoadError::refused)?;
            let cookie = cookie(probe, layout)?;
            let program = program(&mut self.ebpf, site.kind)?;
            let link = attach_one(program, &path, *offset, cookie, pid).map_err(|source| AttachError::Refused {
                function: site.function.clone(),
                offset: *offset,
                source,
            });
            match link {
                Ok(link) => attachment.probes.push((probe, link)),
                Err(error) => {
                    self.free_probes.push(probe);
                    self.detach(attachment);
                    return Err(error);
                }
            }
        }
        Ok(attachment)
    }

    /// Removes a target's probes and makes their indices available again.
    pub fn detach(&mut self, attachment: Attachment) {
        // Last attached, first removed: as long as anything is told of goroutines, their creation is too.
        for (index, link) in attachment.probes.into_iter().rev() {
            drop(link);
            self.free_probes.push(index);
        }
    }
}

fn attach_one(
    program: &mut UProbe,
    path: &std::path::Path,
    offset: u64,
    cookie: u64,
    pid: NonZeroU32,
) -> Result<UProbeLink, Box<dyn std::error::Error + Send + Sync>> {
    let point = UProbeAttachPoint { location: UProbeAttachLocation::AbsoluteOffset(offset), cookie: Some(cookie) };
    let id = program.attach(point, path, UProbeScope::OneProcess(pid))?;
    Ok(program.take_link(id)?)
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
