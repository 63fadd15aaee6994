//! Taking one of the runtime's profiles of a live process: finding what it is made of, reading it, and writing it as the program's own
//! `/debug/pprof` would. Nothing is switched on in the process.

use crate::clock::unix_now_ns;
use crate::export::pprof;
use crate::export::profiles::{self as encode, Of};
use crate::golang::layout::Structs;
use crate::live::{Target, TargetError};
use crate::memory::{Memory as _, ticks};
use crate::runtime::View;
use crate::runtime::profiles::{self, List, NoProfile};
use crate::snapshot::{GroupBy, Look};

/// The runtime's profiles.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, strum::EnumString, strum::IntoStaticStr, strum::VariantArray,
)]
#[strum(serialize_all = "lowercase")]
pub enum Kind {
    /// Objects in use, by where they were allocated.
    Heap,
    /// The same, all that were allocated shown first.
    Allocs,
    /// Where goroutines waited, if the program has switched that on.
    Block,
    /// Who held the locks that others waited for, if the program has switched that on.
    Mutex,
    /// Where threads were made.
    Threadcreate,
    /// All goroutines, as `snapshot --format pprof` has them.
    Goroutine,
}

/// Why there is no profile.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// The process cannot be looked at.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// The program keeps none.
    #[error(transparent)]
    None(#[from] NoProfile),
    /// It cannot be encoded.
    #[error("the profile cannot be written")]
    Encode(#[from] std::io::Error),
}

/// Takes a profile, as gzip'ed `profile.proto`.
pub fn take(target: &mut Target, kind: Kind) -> Result<Vec<u8>, ProfileError> {
    match kind {
        Kind::Goroutine => Ok(pprof::encode(&Look::at(target)?, GroupBy::Both)?),
        Kind::Heap => memory(target, false),
        Kind::Allocs => memory(target, true),
        Kind::Block => waits(target, List::Block),
        Kind::Mutex => waits(target, List::Mutex),
        Kind::Threadcreate => threads(target),
    }
}

fn memory(target: &mut Target, allocated: bool) -> Result<Vec<u8>, ProfileError> {
    let rate = target.memory().read_u64(place(target, "runtime.MemProfileRate")?);
    let rate = rate.map_err(|fault| target.failed(fault))?;
    if rate == 0 {
        return Err(NoProfile::Memory { pid: target.process().pid() }.into());
    }
    let heads = target.places(List::Memory.variable()).map_err(|reason| target.failed(reason))?;
    let cycle = place(target, "runtime.mProfCycle")?;
    let structs = target.runtime_structs();
    let found = profiles::memory(target.memory(), &structs, &heads, cycle);
    let found = found.map_err(|error| target.failed(error))?;
    let exe = target.info().exe;
    Ok(encode::memory(of(&exe), &found, rate, allocated, &mut |pc| target.calls(pc))?)
}

fn waits(target: &mut Target, list: List) -> Result<Vec<u8>, ProfileError> {
    let heads = target.places(list.variable()).map_err(|reason| target.failed(reason))?;
    let structs = target.runtime_structs();
    let found = profiles::waits(target.memory(), &structs, &heads, list);
    let found = found.map_err(|error| target.failed(error))?;
    if found.is_empty() && is_off(target, list) {
        return Err(NoProfile::of(list, target.process().pid()).into());
    }
    let exe = target.info().exe;
    Ok(encode::waits(of(&exe), &found, ticks_per_second(target, &structs), &mut |pc| target.calls(pc))?)
}

fn threads(target: &mut Target) -> Result<Vec<u8>, ProfileError> {
    let allm = place(target, "runtime.allm")?;
    let structs = target.runtime_structs();
    let found = profiles::threads(target.memory(), &structs, allm).map_err(|error| target.failed(error))?;
    let exe = target.info().exe;
    Ok(encode::threads(of(&exe), &found, &mut |pc| target.calls(pc))?)
}

fn of(exe: &str) -> Of<'_> {
    Of { exe, unix_ns: unix_now_ns() }
}

fn place(target: &Target, name: &str) -> Result<u64, TargetError> {
    target.locate(name).map_err(|reason| target.failed(reason))
}

/// Whether the program records no such waits. Of what cannot be found, an empty list tells.
fn is_off(target: &Target, list: List) -> bool {
    let variable = if list == List::Block { "runtime.blockprofilerate" } else { "runtime.mutexprofilerate" };
    target.variable(variable).is_none_or(|at| target.memory().read_u64(at).unwrap_or(0) == 0)
}

/// As the program has found out for itself, where it has and its symbols say where; else measured.
fn ticks_per_second(target: &Target, structs: &Structs) -> f64 {
    let known = target.variable("runtime.ticks").and_then(|at| {
        View::read(target.memory(), structs, profiles::WANTED, "runtime.ticksType", at).ok()?.get("val")
    });
    known.filter(|known| *known != 0).map_or_else(ticks::per_second, |known| known as f64)
}
