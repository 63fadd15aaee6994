//! What a goroutine runs, for people: not the wrapper that the compiler makes of `go f(x)`, and not the runtime's `main`.

use super::Target;
use crate::golang::code::{self, Code};
use crate::golang::pclntab::FuncId;
use crate::memory::Memory as _;
use crate::words::Place;

/// What the main goroutine begins with.
const RUNTIMES_MAIN: &str = "runtime.main";
/// What that calls.
const PROGRAMS_MAIN: &str = "main.main";
/// Functions inlined into a wrapper that are looked at: the first is what it wraps.
const MAX_INLINED: usize = 1;

impl Target {
    /// Name of the function that a goroutine was made for whose first instruction is at `pc`.
    pub fn runs(&self, pc: u64) -> String {
        self.named(self.wrapped(pc).unwrap_or(pc))
    }

    /// The same with its place.
    pub fn started(&mut self, pc: u64) -> String {
        let entry = self.wrapped(pc).unwrap_or(pc);
        let function = self.named(entry);
        let frames = self.symbolizer.frames(entry);
        match frames.last().filter(|frame| frame.line != 0) {
            Some(frame) => Place { function, ..Place::of(frame) }.short(),
            None => function,
        }
    }

    /// Where the function begins that a wrapper only calls.
    fn wrapped(&self, pc: u64) -> Option<u64> {
        let pclntab = self.pclntab();
        let func = pclntab.func(pc.wrapping_sub(self.slide))?;
        if func.name == RUNTIMES_MAIN {
            return Some(pclntab.function_named(PROGRAMS_MAIN)?.entry.wrapping_add(self.slide));
        }
        if func.id != FuncId::Wrapper || func.end - func.entry > code::MAX_CODE {
            return None;
        }
        let mut bytes = vec![0; (func.end - func.entry) as usize];
        self.memory.read(func.entry.wrapping_add(self.slide), &mut bytes).ok()?;
        let calls = Code::read(self.binary.arch, &bytes, func.entry).calls;
        let mut others =
            calls.iter().filter_map(|call| pclntab.func(*call)).filter(|to| !to.name.starts_with("runtime."));
        let only = others.next()?;
        others.all(|other| other.entry == only.entry).then(|| only.entry.wrapping_add(self.slide))
    }

    /// Name of the function at `entry`, or of what a wrapper wraps if that is inlined into it.
    fn named(&self, entry: u64) -> String {
        let func = self.pclntab().func(entry.wrapping_sub(self.slide)).filter(|func| func.id == FuncId::Wrapper);
        let inlined = func.and_then(|func| self.pclntab().inlined_in(&func, MAX_INLINED).next().map(str::to_owned));
        inlined.unwrap_or_else(|| self.function_name(entry))
    }
}
