//! Loading the BPF programs that probes run, for whichever of the kernel's two ways of attaching them there is.
//!
//! Linux 6.6 and later have links that are breakpoints and program in one (`BPF_TRACE_UPROBE_MULTI`): they come in
//! microseconds, any number of them goes at once, and a hit costs less than one that passes a perf event. Everywhere else a
//! breakpoint is a perf event. aya 0.14 loads no programs for such links, and its errors have the verifier's whole log in
//! them, so it is done here, with what aya-obj makes of the object.

use std::collections::{HashMap, HashSet};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd, RawFd};
use std::sync::OnceLock;

use aya::Ebpf;
use aya::maps::{Map, MapData};
use aya_obj::Object;

use super::kernel::{self, MULTI_BY_PROCESS, OLDEST};
use super::object::{LoadError, OBJECT};
use super::uprobe::{self, For};
use crate::config::Mode;
use crate::words::printable;

/// How a program is attached to a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, strum::Display, strum::EnumString)]
#[strum(serialize_all = "kebab-case")]
pub enum Uprobes {
    /// By one link for each place.
    Multi,
    /// By a perf event for each place, and a link to it.
    PerfEvent,
}

/// Chooses the way of attaching by hand: `multi` or `perf-event`.
const VARIABLE: &str = "PARKWARDEN_UPROBES";

impl Uprobes {
    /// The way that is used on this host.
    pub fn here() -> Self {
        static HERE: OnceLock<Uprobes> = OnceLock::new();
        let by_hand = || std::env::var(VARIABLE).ok()?.parse().ok();
        *HERE.get_or_init(|| match by_hand() {
            Some(uprobes) => uprobes,
            None if kernel::running() >= MULTI_BY_PROCESS && uprobe::load_nothing(For::Multi).is_ok() => Self::Multi,
            None => Self::PerfEvent,
        })
    }
}

/// What the program that does nothing is called: what remains of a hit's price is the kernel's own.
pub const EMPTY: &str = "empty";

/// What the program of a mode is called.
const fn name(mode: Mode) -> Option<&'static str> {
    match mode {
        Mode::Trace => Some("trace"),
        Mode::Filter => Some("filter"),
        Mode::Births => Some("births"),
        Mode::Census => None,
    }
}

/// Loaded programs.
pub(super) struct Programs {
    loaded: HashMap<&'static str, OwnedFd>,
    refused: Vec<(Mode, String)>,
    pub(super) uprobes: Uprobes,
}

impl Programs {
    /// Loads the programs of modes, as many of them as the kernel takes, one at least if there are any; and `further` ones, all
    /// of them. To be called before maps are taken out of `ebpf`.
    pub(super) fn load(
        ebpf: &Ebpf,
        modes: &[Mode],
        further: &[&'static str],
        uprobes: Uprobes,
    ) -> Result<Self, LoadError> {
        let object = linked(ebpf)?;
        let mut programs = Self { loaded: HashMap::new(), refused: Vec::new(), uprobes };
        for name in further {
            programs.loaded.insert(name, load(&object, name, uprobes)?);
        }
        let mut first_error = None;
        for (mode, name) in modes.iter().filter_map(|mode| Some((*mode, name(*mode)?))) {
            match load(&object, name, uprobes) {
                Ok(program) => {
                    programs.loaded.insert(name, program);
                }
                Err(error) => {
                    programs.refused.push((mode, crate::exit::chain(&error)));
                    first_error.get_or_insert(error);
                }
            }
        }
        match first_error {
            Some(error) if programs.refused.len() == modes.len() => Err(error),
            _ => Ok(programs),
        }
    }

    /// One of them, by its name.
    pub(super) fn get(&self, name: &'static str) -> Result<BorrowedFd<'_>, LoadError> {
        self.loaded.get(name).map(OwnedFd::as_fd).ok_or(LoadError::Incomplete(name))
    }

    /// That of a mode.
    pub(super) fn of(&self, mode: Mode) -> Result<BorrowedFd<'_>, LoadError> {
        match self.refused.iter().find(|(refused, _)| *refused == mode) {
            Some((_, reason)) => Err(LoadError::Mode { mode, reason: reason.clone() }),
            None => self.get(name(mode).unwrap_or("program for this mode")),
        }
    }

    /// Modes whose programs the kernel has refused, and why.
    pub(super) fn refused(&self) -> &[(Mode, String)] {
        &self.refused
    }
}

/// The object again, its references to maps filled in with those that aya has made, and its functions put together.
fn linked(ebpf: &Ebpf) -> Result<Object, LoadError> {
    let mut object = Object::parse(OBJECT).map_err(LoadError::refused)?;
    let mut maps: Vec<(String, RawFd, aya_obj::Map)> = Vec::new();
    for (name, map) in object.maps.drain() {
        let Some(made) = ebpf.map(&name) else { continue };
        let fd = data(made).ok_or(LoadError::Incomplete("map of a kind that is known"))?.fd().as_fd().as_raw_fd();
        maps.push((name, fd, map));
    }
    let sections: HashSet<usize> = object.functions.keys().map(|(section, _)| *section).collect();
    let made = maps.iter().map(|(name, fd, map)| (name.as_str(), *fd, map));
    object.relocate_maps(made, &sections).map_err(LoadError::refused)?;
    object.relocate_calls(&sections).map_err(LoadError::refused)?;
    Ok(object)
}

fn load(object: &Object, name: &'static str, uprobes: Uprobes) -> Result<OwnedFd, LoadError> {
    let program = object.programs.get(name).ok_or(LoadError::Incomplete(name))?;
    let function = object.functions.get(&program.function_key()).ok_or(LoadError::Incomplete(name))?;
    let for_ = match uprobes {
        Uprobes::Multi => For::Multi,
        Uprobes::PerfEvent => For::PerfEvent,
    };
    uprobe::load(&function.instructions, &program.license, for_, &mut []).map_err(|source| {
        let (major, minor) = kernel::running();
        // What the verifier of a kernel without cookies says is that it has none.
        if source.raw_os_error() == Some(libc::EPERM) || (major, minor) < OLDEST {
            return LoadError::Refused(format!("BPF_PROG_LOAD of `{name}` on Linux {major}.{minor}: {source}").into());
        }
        let mut log = vec![0; VERIFIER_LOG];
        // Only a program that is refused is worth the log, which takes the kernel a while.
        let _ = uprobe::load(&function.instructions, &program.license, for_, &mut log);
        let log = String::from_utf8_lossy(log.split(|byte| *byte == 0).next().unwrap_or_default()).into_owned();
        for line in log.lines() {
            log::info!("verifier, program {name}: {}", printable(line));
        }
        LoadError::Verifier { program: name, last: last_words(&log), source }
    })
}

/// Room for what the verifier says of a program.
const VERIFIER_LOG: usize = 1 << 20;

/// Most of a line of it that is worth repeating.
const LAST_WORDS: usize = 160;

/// The line with which the verifier gave up, if it said anything: the last that is no statistics.
fn last_words(log: &str) -> Option<String> {
    let statistics = ["processed ", "verification time", "stack depth"];
    let line = log
        .lines()
        .rev()
        .map(str::trim)
        .find(|line| !line.is_empty() && !statistics.iter().any(|beginning| line.starts_with(beginning)))?;
    Some(printable(&line.chars().take(LAST_WORDS).collect::<String>()))
}

/// What is behind a map of any of the kinds that the object has.
fn data(map: &Map) -> Option<&MapData> {
    match map {
        Map::Array(data)
        | Map::HashMap(data)
        | Map::LruHashMap(data)
        | Map::PerCpuArray(data)
        | Map::PerCpuHashMap(data)
        | Map::RingBuf(data) => Some(data),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verifiers_last_words_are_the_line_with_which_it_gave_up() {
        let log = "0: (bf) r6 = r1\n; let key\n17: (79) r1 = *(u64 *)(r10 -128)\ninvalid read from stack R10 off=-128\u{7}+0 size=8\n\
                   processed 120 insns (limit 1000000) max_states_per_insn 0 total_states 9 peak_states 9 mark_read 3\n\n";
        assert_eq!(last_words(log).as_deref(), Some("invalid read from stack R10 off=-128\u{fffd}+0 size=8"));
        assert_eq!(last_words(&"x".repeat(9_000)).map(|line| line.len()), Some(LAST_WORDS));
        assert_eq!(last_words(""), None);
    }
}
