//! Trying out, one by one, what watching needs of the kernel: what a host's settings say about BPF and uprobes is not what
//! decides, the kernel's answer is.
//!
//! Nothing outside parkwarden is touched: the probe is on a function of its own, and everything is undone again.

use std::io;
use std::num::NonZeroU32;
use std::os::fd::{AsFd as _, OwnedFd};

use aya_obj::generated::{bpf_cmd, bpf_map_type};

use super::keeper::{Keeper, Refused, Spot};
use super::load::{MapSizes, load_object};
use super::object::LoadError;
use super::programs::{Programs, Uprobes};
pub use super::uprobe::UPROBE_TYPE;
use super::uprobe::{self, For, bpf, nothing_given};
use crate::config::{BpfLog, Mode};

/// Makes the smallest BPF ring buffer.
pub fn ring_buffer() -> io::Result<OwnedFd> {
    let mut attributes = nothing_given();
    attributes.__bindgen_anon_1.map_type = bpf_map_type::BPF_MAP_TYPE_RINGBUF as u32;
    attributes.__bindgen_anon_1.max_entries = u32::try_from(rustix::param::page_size()).unwrap_or(4096);
    // SAFETY: a map is a descriptor; there are no pointers.
    unsafe { bpf(bpf_cmd::BPF_MAP_CREATE, &mut attributes) }
}

/// Loads a BPF program of the kind that probes run, which does nothing.
pub fn program() -> io::Result<OwnedFd> {
    uprobe::load_nothing(For::PerfEvent)
}

/// Has an uprobe on a function of this very program run a program that does nothing, with a cookie.
pub fn attach(uprobes: Uprobes) -> Result<(), Refused> {
    let for_ = match uprobes {
        Uprobes::Multi => For::Multi,
        Uprobes::PerfEvent => For::PerfEvent,
    };
    let program = uprobe::load_nothing(for_).map_err(|source| Refused::Program { spot: 0, source })?;
    let offset = uprobe::file_offset(probed as *const () as u64).map_err(Refused::Keeper)?;
    let pid = NonZeroU32::new(std::process::id()).ok_or_else(|| Refused::Keeper(io::ErrorKind::NotFound.into()))?;
    // A kernel that knows no cookies refuses one that is not zero.
    let spot = Spot { offset, program: program.as_fd(), cookie: 1 };
    Keeper::attach(uprobes, c"/proc/self/exe", pid, &[spot]).map(drop)
}

/// Loads the programs of `modes`, and returns those of which this kernel refuses them, with the reasons.
pub fn refused(modes: &[Mode]) -> Result<Vec<(Mode, String)>, LoadError> {
    let sizes = MapSizes { ring_bytes: 4096, parks: 1, sites: 1, lifecycle_bytes: 4096, min_park_ns: 0 };
    let ebpf = load_object(&sizes, BpfLog::Off)?;
    match Programs::load(&ebpf, modes, &[], Uprobes::here()) {
        Ok(programs) => Ok(programs.refused().to_vec()),
        Err(error) => Err(error),
    }
}

/// What the uprobe is put on.
#[inline(never)]
extern "C" fn probed() {
    std::hint::black_box(());
}
