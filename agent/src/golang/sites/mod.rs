//! Where to probe: for each kind of event the instruction of the Go runtime at which the kernel is to call the BPF
//! program, found in the binary at hand rather than taken from a table of versions.
//!
//! A probe in the wrong place lies about every goroutine of somebody's production process, so a site must be
//! certain: every call of the function passes it exactly once (not twice when the stack grows and the function starts
//! over), and on every path to it the registers the program reads still hold what the calling convention put there.
//! Both are checked on the decoded control flow, and what cannot be shown is refused. Among the certain sites the
//! cheapest for the kernel is taken, because that price is paid by the target.
//!
//! Deliberately absent: return probes (they break when a Go stack moves), reading symbols (see [`Functions`]), file
//! offsets and load addresses.

mod amd64;
mod arm64;
mod binary;
mod flow;

use parkwarden_common::record::Kind;
use serde::{Deserialize, Serialize};

use super::Arch;
use flow::{Code, Registers};

pub use binary::BinaryFunctions;

/// Functions longer than this are not looked at. The longest that is asked for has about 1 KiB.
const MAX_FUNCTION: u64 = 16 << 10;

/// What a probe hit at a site costs the target, cheapest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
#[derive(strum::Display, strum::VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum SiteClass {
    /// A 5-byte nop within one page: the kernel turns it into a call, no trap.
    Nop5,
    /// The kernel emulates the instruction: one trap.
    Emulated,
    /// The kernel runs the instruction out of line and steps over it: two traps.
    SingleStep,
}

/// What the kernel that will run the probes can do, as far as it decides the price of a site.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// Nops of several bytes (`0f 1f`) are emulated, and those of 5 bytes turned into calls. x86-64: Linux 6.18.
    /// Before, they were single-stepped.
    pub long_nops: bool,
    /// A nop with an operand size prefix (`66 90`) can be probed at all. x86-64: Linux 6.2; before, attaching failed.
    pub prefixed_nop: bool,
}

impl Kernel {
    /// By version number. A vendor's kernel may do more than its number says, never less.
    pub const fn from_version(major: u32, minor: u32) -> Self {
        Self {
            long_nops: major > 6 || (major == 6 && minor >= 18),
            prefixed_nop: major > 6 || (major == 6 && minor >= 2),
        }
    }
}

/// Where a function is in the binary, at link-time addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunctionRange {
    /// Full name, for example `runtime.gopark`.
    pub name: String,
    /// Its first instruction.
    pub entry: u64,
    /// Behind its last; padding may be included.
    pub end: u64,
}

/// The functions of a binary: the symbol table or the pclntab, and the bytes of the text segment.
pub trait Functions {
    /// The function of that name.
    fn find(&self, name: &str) -> Option<FunctionRange>;

    /// The machine code of a function, all of it.
    fn code(&self, range: &FunctionRange) -> Option<Vec<u8>>;

    /// A function that the compiler inlined that one into, going by the inlining trees, if there is any. Profile-guided
    /// builds do this to functions that no other build inlines; a probe on what is left would miss those calls.
    fn inlined_into(&self, name: &str) -> Option<String>;
}

/// One place to attach a probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    /// What happens there.
    pub kind: Kind,
    /// The runtime function that really runs.
    pub function: String,
    /// The name under which Go programmers know it: `newproc`, `gopark`, `goready`, `goexit`.
    pub asked: &'static str,
    /// Link-time address of the instruction.
    pub address: u64,
    /// What a hit costs.
    pub class: SiteClass,
    /// The instruction, disassembled.
    pub instruction: String,
}

/// Why no certain site exists.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// The binary has no such function.
    #[error("{function}, which runs for {asked}, is not in the binary")]
    Missing {
        /// What was asked for.
        asked: &'static str,
        /// What was looked for.
        function: &'static str,
    },
    /// Its bytes are not in the binary.
    #[error("the code of {function} cannot be read")]
    Unreadable {
        /// Function.
        function: &'static str,
    },
    /// The function's length is not believable.
    #[error("{function} has {size} bytes, more than the {MAX_FUNCTION} that are looked at")]
    TooLarge {
        /// Function.
        function: &'static str,
        /// Its length.
        size: u64,
    },
    /// The control flow cannot be followed.
    #[error("the code of {function} cannot be followed: {problem}")]
    Opaque {
        /// Function.
        function: &'static str,
        /// What stopped it.
        #[source]
        problem: Opaque,
    },
    /// The function does not call what it calls in every known version exactly once.
    #[error("{function} calls {callee} {found} times, expected once")]
    Calls {
        /// Function.
        function: &'static str,
        /// Function it should call.
        callee: &'static str,
        /// How often it does.
        found: usize,
    },
    /// Some of its calls are no calls.
    #[error(
        "{function} is inlined into {into}, as profile-guided builds do: a probe would miss what happens there. \
         Build with -pgo=off to watch by events"
    )]
    Inlined {
        /// Function.
        function: &'static str,
        /// One that contains a copy of it.
        into: String,
    },
    /// No instruction is passed exactly once per call with the needed registers intact.
    #[error("{function} has no instruction that is certain to see each call once with its arguments in registers")]
    NoSite {
        /// Function.
        function: &'static str,
    },
}

/// Why code cannot be followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Opaque {
    /// Not an instruction.
    #[error("no valid instruction at {0:#x}")]
    Undecodable(u64),
    /// Two ways to read the same bytes.
    #[error("the jump to {0:#x} leads into the middle of an instruction")]
    Overlap(u64),
    /// A jump through a register or a table.
    #[error("indirect jump at {0:#x}")]
    IndirectJump(u64),
}

/// What to look for in one function.
struct Wanted {
    kind: Kind,
    asked: &'static str,
    function: &'static str,
    place: SiteKind,
}

/// Where in the function the needed values are in registers.
enum SiteKind {
    /// From the entry on, as long as these registers are not written.
    Entry(Registers),
    /// At the call of this function and right before it, in this register.
    Call { callee: &'static str, register: Registers },
}

/// Finds the probe sites of all kinds, or says why there are none: half a plan would miscount.
pub fn plan(arch: Arch, kernel: Kernel, functions: &dyn Functions) -> Result<Vec<Site>, PlanError> {
    match arch {
        Arch::Amd64 => amd64::WANTED.iter().map(|wanted| site(wanted, functions, |c| amd64::read(c, kernel))).collect(),
        Arch::Arm64 => arm64::WANTED.iter().map(|wanted| site(wanted, functions, arm64::read)).collect(),
    }
}

/// The bytes of a function and where they are linked to.
struct Bytes<'a> {
    entry: u64,
    bytes: &'a [u8],
}

fn site(
    wanted: &Wanted,
    functions: &dyn Functions,
    read: impl Fn(&Bytes<'_>) -> Result<Code, Opaque>,
) -> Result<Site, PlanError> {
    let Wanted { kind, asked, function, ref place } = *wanted;
    let range = functions.find(function).ok_or(PlanError::Missing { asked, function })?;
    if let Some(into) = functions.inlined_into(function) {
        return Err(PlanError::Inlined { function, into });
    }
    let size = range.end.checked_sub(range.entry).filter(|&size| size > 0).ok_or(PlanError::Unreadable { function })?;
    if size > MAX_FUNCTION {
        return Err(PlanError::TooLarge { function, size });
    }
    let bytes = functions.code(&range).ok_or(PlanError::Unreadable { function })?;
    if bytes.len() as u64 != size {
        return Err(PlanError::Unreadable { function });
    }
    let mut code = read(&Bytes { entry: range.entry, bytes: &bytes })
        .map_err(|problem| PlanError::Opaque { function, problem })?;
    code.find_stack_growth(&morestack(functions));
    let chosen = match place {
        SiteKind::Entry(registers) => code.entry_site(*registers),
        SiteKind::Call { callee, register } => {
            let target = functions.find(callee).ok_or(PlanError::Missing { asked, function: callee })?.entry;
            let calls = code.calls_to(target);
            let [call] = calls[..] else {
                return Err(PlanError::Calls { function, callee, found: calls.len() });
            };
            code.call_site(call, *register)
        }
    };
    let (address, class, instruction) = chosen.ok_or(PlanError::NoSite { function })?;
    Ok(Site { kind, function: range.name, asked, address, class, instruction })
}

/// Entries of the assembly functions that grow the stack.
fn morestack(functions: &dyn Functions) -> Vec<u64> {
    morestack_names().filter_map(|name| functions.find(&name)).map(|range| range.entry).collect()
}

/// Under which names they go: some tables name assembly functions with their ABI.
fn morestack_names() -> impl Iterator<Item = String> {
    let names = ["runtime.morestack", "runtime.morestack_noctxt", "runtime.morestackc"];
    names.into_iter().flat_map(|name| [name.to_owned(), format!("{name}.abi0")])
}

/// Every function that planning may look for.
fn names() -> Vec<String> {
    let wanted = amd64::WANTED.iter().chain(&arm64::WANTED).flat_map(|wanted| match wanted.place {
        SiteKind::Entry(_) => vec![wanted.function],
        SiteKind::Call { callee, .. } => vec![wanted.function, callee],
    });
    let mut names: Vec<String> = wanted.map(str::to_owned).chain(morestack_names()).collect();
    names.sort_unstable();
    names.dedup();
    names
}

#[cfg(test)]
mod tests;
