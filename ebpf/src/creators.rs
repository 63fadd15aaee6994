//! Who runs a `go` statement: of some creations, the calls that led there.
//!
//! The first few of each `go` statement are told, and then ever fewer: on each CPU, some [`EACH`] for each time their number
//! doubles. Which of them is left to chance, so that a program with a rhythm of its own does not hide some.

use aya_ebpf::bindings::BPF_RB_NO_WAKEUP;
use aya_ebpf::helpers::generated::bpf_get_prandom_u32;
use parkwarden_common::record::{Creator, Kind, MAX_CREATOR_FRAMES};

use crate::hit::{EVENTS, Hit};

/// All of the first twice as many are told.
const EACH: u64 = 16;

/// Tells of the creation that is number `created` on this CPU, if it is its turn. One that finds no room in the ring is not told,
/// which is no loss: it is one of many.
#[inline(always)]
pub(crate) fn tell(hit: &Hit, creation_pc: u64, created: u64) {
    let others = others(created);
    // SAFETY: the helper has no preconditions.
    if hit.cookie.sched_bp == 0 || (others != 0 && u64::from(unsafe { bpf_get_prandom_u32() }) & others != 0) {
        return;
    }
    // The program runs on the system stack; the stack that it was left for is the goroutine's that runs the `go` statement.
    let Some(frame) = hit.running_g().and_then(|g| hit.field(g, hit.cookie.sched_bp)) else { return };
    let Some(mut entry) = EVENTS.reserve::<Creator>(0) else { return };
    hit.count(|counters| &raw mut counters.stacks);
    let header = hit.header(Kind::Creator, 0, 0);
    entry.write(Creator { header, creation_pc, weight: others + 1, frames: [0; MAX_CREATOR_FRAMES] });
    // SAFETY: it has just been written.
    follow(hit, frame, unsafe { &mut (*entry.as_mut_ptr()).frames });
    entry.submit(u64::from(BPF_RB_NO_WAKEUP));
}

/// How many are not told for one that is: one less than a power of two, and of chance's bits the mask.
#[inline(always)]
fn others(created: u64) -> u64 {
    let mut others = (created / EACH) >> 1;
    others |= others >> 1;
    others |= others >> 2;
    others |= others >> 4;
    others |= others >> 8;
    others |= others >> 16;
    others
}

/// Reads return addresses along the frame pointers, outwards.
#[inline(always)]
fn follow(hit: &Hit, mut frame: u64, frames: &mut [u64; MAX_CREATOR_FRAMES]) {
    for known in frames {
        // Where a frame's caller has its own, and below that the return address: on amd64 and arm64 alike.
        let Some([outer, pc]) = hit.value::<[u64; 2]>(frame, 0) else { return };
        *known = pc;
        if outer <= frame {
            return;
        }
        frame = outer;
    }
}
