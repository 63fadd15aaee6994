//! What the programs of mode `filter` keep in the kernel, read from outside: parks that have not ended, and, as that of mode
//! `births` does, the counts of each `go` statement.

use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd as _, OwnedFd};

use aya::Ebpf;
use aya::maps::{HashMap, Map, MapData, MapError, PerCpuHashMap};
use parkwarden_common::filter::{Park, ParkKey, SiteCounts, SiteKey, Slot};

use super::object::LoadError;
use super::uprobe;

/// A type of the shared crate in a shape aya can read: that crate may not implement `aya::Pod`.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Raw<T>(T);

// SAFETY: each of these types is integers without padding (asserted where it is defined); any bit pattern is valid.
unsafe impl aya::Pod for Raw<ParkKey> {}
// SAFETY: as above.
unsafe impl aya::Pod for Raw<Park> {}
// SAFETY: as above.
unsafe impl aya::Pod for Raw<SiteKey> {}
// SAFETY: as above.
unsafe impl aya::Pod for Raw<SiteCounts> {}

/// Entries read with one system call.
const BATCH: usize = 4096;

/// The maps of modes `filter` and `births`.
pub(super) struct HeldMaps {
    parks: HashMap<MapData, Raw<ParkKey>, Raw<Park>>,
    /// The same map, to read it in one go.
    parks_fd: OwnedFd,
    sites: PerCpuHashMap<MapData, Raw<SiteKey>, Raw<SiteCounts>>,
}

impl HeldMaps {
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, LoadError> {
        let parks = ebpf.take_map("PARKS").ok_or(LoadError::Incomplete("map PARKS"))?;
        let sites = ebpf.take_map("SITES").ok_or(LoadError::Incomplete("map SITES"))?;
        let parks_fd = match &parks {
            Map::HashMap(map) => map.fd().as_fd().try_clone_to_owned().map_err(LoadError::refused)?,
            _ => return Err(LoadError::Incomplete("hash map PARKS")),
        };
        Ok(Self {
            parks_fd,
            parks: HashMap::try_from(parks).map_err(LoadError::refused)?,
            sites: PerCpuHashMap::try_from(sites).map_err(LoadError::refused)?,
        })
    }

    /// Goroutines of an attachment that park, or have parked and are thought alive.
    pub(super) fn parks(&self, slot: Slot) -> io::Result<Vec<(u64, Park)>> {
        let mut parks = Vec::new();
        let mut keys = vec![ParkKey::default(); BATCH];
        let mut values = vec![Park::default(); BATCH];
        let mut position = None;
        loop {
            // SAFETY: `HashMap` has compared the sizes of keys and values of this map with those of these types, which are
            // integers without padding.
            let (count, next) = unsafe { uprobe::lookup_batch(&self.parks_fd, position, &mut keys, &mut values)? };
            let entries = keys.iter().zip(&values).take(count);
            parks.extend(entries.filter(|(key, _)| key.slot == slot).map(|(key, park)| (key.goid, *park)));
            match next {
                Some(next) => position = Some(next),
                None => return Ok(parks),
            }
        }
    }

    /// Forgets goroutines of an attachment.
    pub(super) fn forget(&mut self, slot: Slot, goids: impl IntoIterator<Item = u64>) {
        for goid in goids {
            // Gone already is what was wanted.
            let _ = self.parks.remove(&Raw(ParkKey { goid, slot, reserved: 0 }));
        }
    }

    /// Counts of an attachment's `go` statements, by the return address of the call to `runtime.newproc`.
    pub(super) fn sites(&self, slot: Slot) -> Result<Vec<(u64, SiteCounts)>, MapError> {
        let mut sites = Vec::new();
        for entry in self.sites.iter() {
            let (Raw(key), per_cpu) = entry?;
            if key.slot == slot {
                let sum = per_cpu.iter().fold(SiteCounts::default(), |sum, Raw(cpu)| SiteCounts {
                    created: sum.created.saturating_add(cpu.created),
                    exited: sum.exited.saturating_add(cpu.exited),
                });
                sites.push((key.creation_pc, sum));
            }
        }
        Ok(sites)
    }

    /// Forgets all goroutines of an attachment that is gone.
    pub(super) fn clear_parks(&mut self, slot: Slot) {
        if let Ok(parks) = self.parks(slot) {
            self.forget(slot, parks.into_iter().map(|(goid, _)| goid));
        }
    }

    /// Forgets all counts of an attachment that is gone.
    pub(super) fn clear_sites(&mut self, slot: Slot) {
        let sites = self.sites(slot).unwrap_or_default();
        for (creation_pc, _) in sites {
            let _ = self.sites.remove(&Raw(SiteKey { creation_pc, slot, reserved: 0 }));
        }
    }
}

const _: () = assert!(size_of::<Raw<Park>>() == size_of::<Park>());
