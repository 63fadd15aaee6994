//! Which processes of the host execute a program or exit, as they do it, and whom the OOM killer chooses, by raw tracepoints:
//! they need no tracefs.
//!
//! Deliberately absent: what the processes are. Pids are those of the initial PID namespace.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use aya::Ebpf;
use aya::maps::{HashMap, MapData, MapError, PerCpuArray, RingBuf};
use aya::programs::RawTracePoint;
use parkwarden_common::lifecycle::Lifecycle;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::load::{MapSizes, load_object};
use super::object::LoadError;
use crate::config::BpfLog;

/// Room for some 16 000 processes between two looks.
const RING_BYTES: u32 = 256 << 10;

/// The programs and the tracepoints they are attached to.
const OF_LIFECYCLES: [(&str, &str); 2] =
    [("process_executed", "sched_process_exec"), ("process_exited", "sched_process_exit")];
const OF_VICTIMS: [(&str, &str); 2] = [("victim_marked", "mark_victim"), ("victim_exited", "sched_process_exit")];

/// Loads the object with what `programs` need, and attaches them.
fn attach(ring_bytes: u32, programs: [(&'static str, &str); 2]) -> Result<Ebpf, LoadError> {
    let sizes = MapSizes { ring_bytes: 4096, parks: 1, sites: 1, lifecycle_bytes: ring_bytes, min_park_ns: 0 };
    let mut ebpf = load_object(&sizes, BpfLog::Off)?;
    for (name, tracepoint) in programs {
        let program = ebpf.program_mut(name).ok_or(LoadError::Incomplete(name))?;
        let program: &mut RawTracePoint = program.try_into().map_err(|_| LoadError::Incomplete(name))?;
        program.load().map_err(LoadError::refused)?;
        program.attach(tracepoint).map_err(LoadError::refused)?;
    }
    Ok(ebpf)
}

/// See the module. Dropping it detaches.
pub struct Lifecycles {
    ring: RingBuf<MapData>,
    lost: PerCpuArray<MapData, u64>,
    lost_before: u64,
    _ebpf: Ebpf,
}

impl std::fmt::Debug for Lifecycles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lifecycles").field("lost_before", &self.lost_before).finish_non_exhaustive()
    }
}

impl Lifecycles {
    /// Attaches to both tracepoints.
    pub fn attach() -> Result<Self, LoadError> {
        let mut ebpf = attach(RING_BYTES, OF_LIFECYCLES)?;
        let ring = ebpf.take_map("LIFECYCLES").ok_or(LoadError::Incomplete("map LIFECYCLES"))?;
        let lost = ebpf.take_map("LIFECYCLES_LOST").ok_or(LoadError::Incomplete("map LIFECYCLES_LOST"))?;
        Ok(Self {
            ring: RingBuf::try_from(ring).map_err(LoadError::refused)?,
            lost: PerCpuArray::try_from(lost).map_err(LoadError::refused)?,
            lost_before: 0,
            _ebpf: ebpf,
        })
    }

    /// Waits until there is something to tell, at most that long, and adds it to `told`. Returns how many records were
    /// lost since the last time: then only a look at all processes tells.
    pub fn wait(&mut self, timeout: Duration, told: &mut Vec<Lifecycle>) -> io::Result<u64> {
        let time = Timespec {
            tv_sec: timeout.as_secs().try_into().unwrap_or(i64::MAX),
            tv_nsec: timeout.subsec_nanos().into(),
        };
        match poll(&mut [PollFd::new(&self.ring, PollFlags::IN)], Some(&time)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        while let Some(record) = self.ring.next() {
            told.extend(Lifecycle::decode(&record));
        }
        let lost = self.lost().map_err(io::Error::other)?;
        Ok(lost - std::mem::replace(&mut self.lost_before, lost).min(lost))
    }

    fn lost(&self) -> Result<u64, MapError> {
        Ok(self.lost.get(&0, 0)?.iter().sum())
    }
}

/// Which processes the kernel's OOM killer has chosen. Its clones are the same; dropping the last one detaches.
#[derive(Clone)]
pub struct OomVictims(Arc<Victims>);

struct Victims {
    chosen: HashMap<MapData, u32, u64>,
    _ebpf: Ebpf,
}

impl std::fmt::Debug for OomVictims {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OomVictims").finish_non_exhaustive()
    }
}

impl OomVictims {
    /// Attaches to the OOM killer's tracepoint and that of exits.
    pub fn attach() -> Result<Self, LoadError> {
        let mut ebpf = attach(4096, OF_VICTIMS)?;
        let chosen = ebpf.take_map("OOM_VICTIMS").ok_or(LoadError::Incomplete("map OOM_VICTIMS"))?;
        let chosen = HashMap::try_from(chosen).map_err(LoadError::refused)?;
        Ok(Self(Arc::new(Victims { chosen, _ebpf: ebpf })))
    }

    /// When, on `CLOCK_MONOTONIC`, a process was chosen that had this pid and has exited, if any was lately. It is known once a
    /// pidfd tells of the exit.
    pub fn chosen_ns(&self, pid: u32) -> Option<u64> {
        self.0.chosen.get(&pid, 0).ok()
    }
}
