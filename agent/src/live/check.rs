//! Whether a look at a target agrees with what every Go program is. A layout that is wrong by one field shows nonsense
//! here, and nothing is attached.
//!
//! The target is not stopped while it is looked at: whoever asks looks again before believing a contradiction.

use crate::golang::layout::RuntimeLayout;
use crate::memory::census::{Census, Goroutine, Status};
use crate::memory::{Fault, Memory, Request, globals};

/// Goroutines whose threads are looked at.
const MAX_LINKS: usize = 256;

/// What the binary says.
pub(super) struct Expected<'a> {
    pub layout: RuntimeLayout,
    /// How many wait reasons there are.
    pub reasons: usize,
    /// The name of the function at an address of the process.
    pub function: &'a dyn Fn(u64) -> Option<&'a str>,
}

/// The first thing in `look` that no Go program shows.
pub(super) fn contradiction(
    look: &Census,
    expected: &Expected<'_>,
    memory: &dyn Memory,
) -> Result<Option<String>, Fault> {
    let Some(main) = look.goroutines.iter().find(|goroutine| goroutine.goid == 1) else {
        return Ok(Some("there is no goroutine 1 (if it has just started, try again)".to_owned()));
    };
    match (expected.function)(main.start_pc) {
        Some("runtime.main") => {}
        Some(other) => return Ok(Some(format!("goroutine 1 starts in {other}"))),
        None => return Ok(Some(format!("goroutine 1 starts at {:#x}, which is no function", main.start_pc))),
    }
    if look.unreadable > look.goroutines.len() as u64 {
        return Ok(Some(format!("{} of its goroutines cannot be read", look.unreadable)));
    }
    if let Some(what) = look.goroutines.iter().find_map(|g| nonsense(g, expected)) {
        return Ok(Some(what));
    }
    links(look, &expected.layout, memory)
}

/// What a goroutine cannot be.
fn nonsense(g: &Goroutine, expected: &Expected<'_>) -> Option<String> {
    let goid = g.goid;
    let is_function = |pc| (expected.function)(pc).is_some();
    if let Status::Unknown(status) = g.status {
        return Some(format!("goroutine {goid} has the status {status}"));
    }
    if g.start_pc != 0 && !is_function(g.start_pc) {
        return Some(format!("goroutine {goid} starts at {:#x}, which is no function", g.start_pc));
    }
    if !globals::stack_is_sane(g) {
        return Some(format!("goroutine {goid} has a stack from {:#x} to {:#x}", g.stack_lo, g.stack_hi));
    }
    if g.status != Status::Waiting {
        return None;
    }
    if usize::from(g.wait_reason) >= expected.reasons {
        return Some(format!("goroutine {goid} waits for reason {}, of {}", g.wait_reason, expected.reasons));
    }
    if g.sp <= g.stack_lo || g.sp >= g.stack_hi {
        let (lo, hi) = (g.stack_lo, g.stack_hi);
        return Some(format!(
            "goroutine {goid} waits with its stack pointer at {:#x}, outside {lo:#x} to {hi:#x}",
            g.sp
        ));
    }
    (!is_function(g.pc)).then(|| format!("goroutine {goid} waits at {:#x}, which is no function", g.pc))
}

/// A goroutine that runs has a thread (`g.m`), which has a goroutine for the scheduler (`m.g0`), whose thread it is; and
/// the thread's current goroutine is that one (`m.curg`).
fn links(look: &Census, layout: &RuntimeLayout, memory: &dyn Memory) -> Result<Option<String>, Fault> {
    let (g, m) = (layout.g, layout.m);
    let at = |address: u64, offset: u32| address.wrapping_add(u64::from(offset));
    let running: Vec<&Goroutine> = look
        .goroutines
        .iter()
        .filter(|goroutine| matches!(goroutine.status, Status::Running | Status::Syscall))
        .take(MAX_LINKS)
        .collect();
    let (mut linked, mut broken) = (0, None);
    let threads = words(memory, running.iter().map(|goroutine| at(goroutine.address, g.m)))?;
    for (goroutine, thread) in running.iter().zip(threads) {
        // It stopped running in the meantime.
        let Some(thread) = thread.filter(|thread| *thread != 0) else { continue };
        let [g0, current] = words(memory, [at(thread, m.g0), at(thread, m.curg)])?[..] else { continue };
        let back = match g0 {
            Some(g0) => words(memory, [at(g0, g.m)])?.first().copied().flatten(),
            None => None,
        };
        if back != Some(thread) {
            broken = Some(format!("goroutine {} runs on no thread of the runtime", goroutine.goid));
        } else if current == Some(goroutine.address) {
            linked += 1;
        } else {
            broken = Some(format!("the thread of goroutine {} runs another one", goroutine.goid));
        }
    }
    // One that agrees shows that the fields are where they should be; others may have moved on between two reads.
    Ok(broken.filter(|_| linked == 0))
}

fn words(memory: &dyn Memory, addresses: impl IntoIterator<Item = u64>) -> Result<Vec<Option<u64>>, Fault> {
    let addresses: Vec<u64> = addresses.into_iter().collect();
    let mut bytes = vec![[0u8; 8]; addresses.len()];
    let mut requests: Vec<Request<'_>> =
        bytes.iter_mut().zip(addresses).map(|(buf, address)| Request { address, buf, ok: false }).collect();
    memory.read_many(&mut requests)?;
    let served: Vec<bool> = requests.iter().map(|request| request.ok).collect();
    Ok(bytes.into_iter().zip(served).map(|(word, ok)| ok.then_some(u64::from_le_bytes(word))).collect())
}

#[cfg(test)]
#[path = "check_tests.rs"]
mod tests;
