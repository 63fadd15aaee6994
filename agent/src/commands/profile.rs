//! `parkwarden profile`.

use std::io::Write as _;
use std::path::PathBuf;

use clap::{ArgGroup, Args, ValueEnum};
use parkwarden::clock::unix_now_ns;
use parkwarden::exit::Exit;
use parkwarden::export::pprof;
use parkwarden::export::profiles::{self as encode, Of};
use parkwarden::golang::layout::Structs;
use parkwarden::live::Target;
use parkwarden::memory::{Memory as _, ticks};
use parkwarden::runtime::profiles::{self, List, NoProfile};
use parkwarden::runtime::{self, View};
use parkwarden::snapshot::{GroupBy, Look};

use super::which::{WHICH, Which};
use super::{binary_output, failed, place};

/// Arguments of `profile`.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit status: 0 done; 1 parkwarden failed; 2 wrong usage; 4 the process cannot be looked at, or keeps no \
                        such profile. The file is what /debug/pprof of the program would give: `go tool pprof FILE`."
)]
#[command(group = ArgGroup::new("which").required(true).args(WHICH))]
pub struct ProfileArgs {
    /// Which profile.
    #[arg(value_enum)]
    pub kind: Kind,

    #[command(flatten)]
    pub which: Which,

    /// Write to FILE instead of stdout.
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// The runtime's profiles.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
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

pub fn run(args: &ProfileArgs) -> anyhow::Result<Exit> {
    let mut target = Target::open(args.which.pid()?)?;
    // Before the file is made: a profile that there is not leaves none.
    let bytes = profile(&mut target, args.kind)?;
    let mut out = binary_output(args.output.as_deref())?;
    out.write_all(&bytes)?;
    out.flush()?;
    Ok(Exit::Done)
}

fn profile(target: &mut Target, kind: Kind) -> anyhow::Result<Vec<u8>> {
    if kind == Kind::Goroutine {
        return Ok(pprof::encode(&Look::at(target)?, GroupBy::Both)?);
    }
    let structs = target.structs(runtime::READ);
    let exe = target.info().exe;
    let of = Of { exe: &exe, unix_ns: unix_now_ns() };
    Ok(match kind {
        Kind::Heap | Kind::Allocs => {
            let rate = target.memory().read_u64(place(target, "runtime.MemProfileRate")?);
            let rate = rate.map_err(|fault| failed(target, fault))?;
            if rate == 0 {
                return Err(NoProfile::Memory { pid: target.process().pid() }.into());
            }
            let heads = target.places(List::Memory.variable()).map_err(|reason| failed(target, reason))?;
            let cycle = place(target, "runtime.mProfCycle")?;
            let found = profiles::memory(target.memory(), &structs, &heads, cycle);
            let found = found.map_err(|error| failed(target, error))?;
            encode::memory(of, &found, rate, kind == Kind::Allocs, &mut |pc| target.calls(pc))?
        }
        Kind::Block | Kind::Mutex => {
            let list = if kind == Kind::Block { List::Block } else { List::Mutex };
            let heads = target.places(list.variable()).map_err(|reason| failed(target, reason))?;
            let found = profiles::waits(target.memory(), &structs, &heads, list);
            let found = found.map_err(|error| failed(target, error))?;
            let pid = target.process().pid();
            if found.is_empty() && is_off(target, list) {
                return Err(NoProfile::of(list, pid).into());
            }
            encode::waits(of, &found, ticks_per_second(target, &structs), &mut |pc| target.calls(pc))?
        }
        Kind::Threadcreate => {
            let allm = place(target, "runtime.allm")?;
            let found = profiles::threads(target.memory(), &structs, allm).map_err(|error| failed(target, error))?;
            encode::threads(of, &found, &mut |pc| target.calls(pc))?
        }
        Kind::Goroutine => Vec::new(),
    })
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
