//! A look at what the running program can still reach: what `prove` does, without stopping it.
//!
//! The heap is read while the program changes it, a span after the other, so that a pointer can move behind the reader's back from
//! what is read later to what was read before, and its goroutine look unreachable for a moment. So one look proves nothing; that
//! several in a row, and several passes within each, lead to nothing is a strong sign. What registers hold is not known either.

use std::time::Duration;

use hashbrown::HashSet;
use rustix::time::{ClockId, clock_gettime};

use super::report::{ProofGroup, Shown, groups};
use super::{Program, ProveError};
use crate::memory::blocks::Blocks;
use crate::memory::census::{CensusReader, Goroutine};
use crate::memory::process::ProcessMemory;
use crate::memory::unwind::has_not_run;
use crate::reach::contents::Reads;
use crate::reach::{self, Helpers, Leaked, Proof, ReachError, Subject};

/// Passes, each from elsewhere, that have to reach nobody whom those before have not: of a pointer that moves all the time each
/// finds by chance whether it is where it is being looked for.
const AGREED: u32 = 2;

/// Passes of one look at most.
const MAX_PASSES: u64 = 12;

/// What one look led to nowhere.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Unreached {
    /// Goroutines that stood still and wait for what nothing was found to lead to.
    pub groups: Vec<ProofGroup>,
    /// The same as they stood.
    pub goroutines: Vec<Goroutine>,
    /// Goroutines that a timer wakes, and to whose other cases nothing was found to lead.
    pub timed: Vec<ProofGroup>,
    /// Bytes of heap whose objects can hold pointers.
    pub heap_bytes: u64,
}

/// Looks once, reading as much as `reads` allows. Tells how much processor time it took, also if it came to nothing.
pub fn unreached(pid: u32, program: &Program, reads: Reads) -> (Duration, Result<Unreached, ProveError>) {
    let began = cpu_time();
    let found = look(pid, program, reads);
    (cpu_time().saturating_sub(began), found)
}

fn look(pid: u32, program: &Program, reads: Reads) -> Result<Unreached, ProveError> {
    let memory = ProcessMemory::new(pid);
    let failed = |source| ProveError::Reach { pid, source };
    let mut proof = pass(&memory, program, reads).map_err(failed)?;
    let mut agreed = 0;
    for further in 1..MAX_PASSES {
        if proof.leaked.is_empty() && proof.timed.is_empty() || agreed == AGREED {
            break;
        }
        let turn = reads.turn.wrapping_add(further);
        let again = pass(&memory, program, Reads { turn, ..reads }).map_err(failed)?;
        let before = proof.leaked.len() + proof.timed.len();
        only_both(&mut proof.leaked, &again.leaked);
        only_both(&mut proof.timed, &again.timed);
        agreed = if proof.leaked.len() + proof.timed.len() == before { agreed + 1 } else { 0 };
    }
    only_standing(&mut proof, program, &memory).map_err(failed)?;
    Ok(Unreached {
        groups: groups(program, &proof, &proof.leaked, Shown::Running),
        timed: groups(program, &proof, &proof.timed, Shown::Timed),
        goroutines: proof.leaked.iter().map(|leaked| leaked.goroutine).collect(),
        heap_bytes: proof.scannable_bytes,
    })
}

/// Leaves out whoever is not among `others`.
fn only_both(stuck: &mut Vec<Leaked>, others: &[Leaked]) {
    let others: HashSet<u64> = others.iter().map(|leaked| leaked.goroutine.goid).collect();
    stuck.retain(|leaked| others.contains(&leaked.goroutine.goid));
}

/// Follows everything that can run once.
fn pass(memory: &ProcessMemory, program: &Program, reads: Reads) -> Result<Proof, ReachError> {
    let blocks = Blocks::new(memory, reads.window / 4);
    log::trace!("a pass from turn {}", reads.turn);
    reach::prove(&Subject { reads, helpers: Helpers::NONE, ..program.subject(&blocks, memory, &[]) })
}

/// Leaves out whoever has moved meanwhile.
fn only_standing(proof: &mut Proof, program: &Program, memory: &ProcessMemory) -> Result<(), ReachError> {
    let addresses: Vec<u64> = proof.leaked.iter().map(|leaked| leaked.goroutine.address).collect();
    let reader = CensusReader::new(program.layout.g, program.variables.allgs);
    let after =
        reader.reread(memory, &addresses).map_err(|source| ReachError::Memory { what: "its goroutines", source })?;
    let mut after = after.into_iter();
    proof.leaked.retain(|leaked| {
        let after = after.next().flatten();
        after.is_some_and(|after| has_not_run(&leaked.goroutine, &after))
    });
    Ok(())
}

/// Of this thread.
fn cpu_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}
