//! Loading the BPF programs that probes run, for whichever of the kernel's two ways of attaching them there is.
//!
//! Linux 6.6 and later have links that are breakpoint and program in one (`BPF_TRACE_UPROBE_MULTI`): they come in
//! microseconds, any number of them goes at once, and a hit costs less than one that passes a perf event. aya 0.14 loads no
//! programs for them, so it is done here, with what aya-obj makes of the object. Everywhere else a breakpoint is a perf event.

use std::collections::{HashMap, HashSet};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd, RawFd};
use std::sync::OnceLock;

use aya::Ebpf;
use aya::maps::{Map, MapData};
use aya::programs::UProbe;
use aya_obj::Object;

use super::load::{LoadError, OBJECT};
use super::uprobe::{self, For};

/// How a program is attached to a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Uprobes {
    /// By one link for each place.
    Multi,
    /// By a perf event for each place, and a link to it.
    PerfEvent,
}

/// Chooses the way of attaching by hand: `multi` or `perf-event`.
const VARIABLE: &str = "PARKWARDEN_UPROBES";

/// The first kernel whose links of this kind mean processes, not threads, by a pid (46ba0e49b642, "bpf: fix multi-uprobe PID
/// filtering logic").
const SINCE: (u32, u32) = (6, 10);

impl Uprobes {
    /// The way that is used on this host.
    pub fn here() -> Self {
        static HERE: OnceLock<Uprobes> = OnceLock::new();
        *HERE.get_or_init(|| match std::env::var(VARIABLE).as_deref() {
            Ok("multi") => Self::Multi,
            Ok("perf-event") => Self::PerfEvent,
            _ if kernel_version() >= SINCE && uprobe::load_nothing(For::Multi).is_ok() => Self::Multi,
            _ => Self::PerfEvent,
        })
    }

    /// One word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Multi => "multi",
            Self::PerfEvent => "perf-event",
        }
    }
}

/// Major and minor version of the running kernel; zeros where it does not say.
pub fn kernel_version() -> (u32, u32) {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// Loaded programs, by name.
pub(super) struct Programs {
    loaded: HashMap<&'static str, OwnedFd>,
    pub(super) uprobes: Uprobes,
}

impl Programs {
    /// Loads those; to be called before maps are taken out of `ebpf`.
    pub(super) fn load(
        ebpf: &mut Ebpf,
        names: impl IntoIterator<Item = &'static str>,
        uprobes: Uprobes,
    ) -> Result<Self, LoadError> {
        let loaded = match uprobes {
            Uprobes::Multi => load_for_multi(ebpf, names)?,
            Uprobes::PerfEvent => {
                let load = |name| Ok((name, load_with_aya(ebpf, name)?));
                names.into_iter().map(load).collect::<Result<_, LoadError>>()?
            }
        };
        Ok(Self { loaded, uprobes })
    }

    /// One of them.
    pub(super) fn get(&self, name: &'static str) -> Result<BorrowedFd<'_>, LoadError> {
        self.loaded.get(name).map(OwnedFd::as_fd).ok_or(LoadError::Incomplete(name))
    }
}

fn load_with_aya(ebpf: &mut Ebpf, name: &'static str) -> Result<OwnedFd, LoadError> {
    let program = ebpf.program_mut(name).ok_or(LoadError::Incomplete(name))?;
    let program: &mut UProbe = program.try_into().map_err(|_| LoadError::Incomplete(name))?;
    program.load().map_err(LoadError::refused)?;
    program.fd().map_err(LoadError::refused)?.as_fd().try_clone_to_owned().map_err(LoadError::refused)
}

/// What aya does, for another type of attachment: the object again, its references to maps filled in with those that aya has
/// made, and its functions put together.
fn load_for_multi(
    ebpf: &Ebpf,
    names: impl IntoIterator<Item = &'static str>,
) -> Result<HashMap<&'static str, OwnedFd>, LoadError> {
    let mut object = Object::parse(OBJECT).map_err(LoadError::refused)?;
    let maps: Vec<(String, RawFd, aya_obj::Map)> = object
        .maps
        .drain()
        .filter_map(|(name, map)| {
            let fd = data(ebpf.map(&name)?)?.fd().as_fd().as_raw_fd();
            Some((name, fd, map))
        })
        .collect();
    let sections: HashSet<usize> = object.functions.keys().map(|(section, _)| *section).collect();
    let made = maps.iter().map(|(name, fd, map)| (name.as_str(), *fd, map));
    object.relocate_maps(made, &sections).map_err(LoadError::refused)?;
    object.relocate_calls(&sections).map_err(LoadError::refused)?;
    let load = |name: &'static str| {
        let program = object.programs.get(name).ok_or(LoadError::Incomplete(name))?;
        let function = object.functions.get(&program.function_key()).ok_or(LoadError::Incomplete(name))?;
        let loaded = uprobe::load(&function.instructions, &program.license, For::Multi);
        Ok((name, loaded.map_err(LoadError::refused)?))
    };
    names.into_iter().map(load).collect()
}

/// What is behind a map of any of the kinds that the object has.
fn data(map: &Map) -> Option<&MapData> {
    match map {
        Map::Array(data)
        | Map::HashMap(data)
        | Map::PerCpuArray(data)
        | Map::PerCpuHashMap(data)
        | Map::RingBuf(data) => Some(data),
        _ => None,
    }
}
