//! The runtime's own profiles as `/debug/pprof` serves them: gzip'ed `profile.proto`, with the runtime's sample types, periods
//! and scaling, so that whoever reads those reads these.
//!
//! Source: `src/runtime/pprof`: `protomem.go`, `proto.go` and `pprof.go`.

use hashbrown::HashMap;

use super::pprof::Builder;
use crate::golang::Frame;
use crate::runtime::profiles::{Allocations, Waits, scaled};

/// The calls that an address stands in, innermost first.
pub type Frames<'a> = dyn FnMut(u64) -> Vec<Frame> + 'a;

/// What all profiles have in common.
#[derive(Clone, Copy, Debug)]
pub struct Of<'a> {
    /// Path of the executable.
    pub exe: &'a str,
    /// When it was taken, nanoseconds since the Unix epoch.
    pub unix_ns: u64,
}

/// A profile of memory; `allocated` has what was allocated shown first rather than what is in use.
pub fn memory(
    of: Of<'_>,
    allocations: &[Allocations],
    rate: u64,
    allocated: bool,
    frames: &mut Frames<'_>,
) -> std::io::Result<Vec<u8>> {
    let types =
        [("alloc_objects", "count"), ("alloc_space", "bytes"), ("inuse_objects", "count"), ("inuse_space", "bytes")];
    let mut builder = Builder::of(of.exe, &types, of.unix_ns);
    builder.period("space", "bytes", i64::try_from(rate).unwrap_or(i64::MAX));
    if allocated {
        builder.shown_first("alloc_space");
    }
    for one in allocations {
        let mut locations = locations(&mut builder, without_runtime(&one.stack, frames), frames);
        if locations.is_empty() {
            locations = self::locations(&mut builder, &one.stack, frames);
        }
        let (objects, bytes) = scaled(one.allocs, one.size, rate);
        let (held, held_bytes) = scaled(one.allocs.saturating_sub(one.frees), one.size, rate);
        builder.sample(locations, vec![objects, bytes, held, held_bytes], Some(one.size));
    }
    builder.finish()
}

/// A profile of blocking or of contention.
pub fn waits(of: Of<'_>, waits: &[Waits], ticks_per_second: f64, frames: &mut Frames<'_>) -> std::io::Result<Vec<u8>> {
    let mut builder = Builder::of(of.exe, &[("contentions", "count"), ("delay", "nanoseconds")], of.unix_ns);
    builder.period("contentions", "count", 1);
    let ghz = ticks_per_second / 1e9;
    for one in waits {
        let locations = locations(&mut builder, &one.stack, frames);
        builder.sample(locations, vec![one.count as i64, (one.cycles as f64 / ghz) as i64], None);
    }
    builder.finish()
}

/// A profile of where threads were made.
pub fn threads(of: Of<'_>, stacks: &[Vec<u64>], frames: &mut Frames<'_>) -> std::io::Result<Vec<u8>> {
    let mut builder = Builder::of(of.exe, &[("threadcreate", "count")], of.unix_ns);
    builder.period("threadcreate", "count", 1);
    let mut counts: HashMap<&[u64], i64> = HashMap::new();
    for stack in stacks {
        *counts.entry(stack).or_default() += 1;
    }
    let mut counts: Vec<(&[u64], i64)> = counts.into_iter().collect();
    counts.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(b.0)));
    for (stack, count) in counts {
        let locations = locations(&mut builder, stack, frames);
        builder.sample(locations, vec![count], None);
    }
    builder.finish()
}

/// A stack from its first call outside the runtime on; all of it if there is none. A wrapper of the compiler's, which has no frame, is
/// outside.
fn without_runtime<'s>(stack: &'s [u64], frames: &mut Frames<'_>) -> &'s [u64] {
    let outside = stack.iter().position(|pc| {
        // The address itself, as the runtime looks it up here.
        frames(*pc).first().is_none_or(|frame| {
            !frame.function.starts_with("runtime.") && !frame.function.starts_with("internal/runtime/")
        })
    });
    outside.and_then(|outside| stack.get(outside..)).unwrap_or(stack)
}

/// The locations of a stack: a call with those that it is inlined in is one. Stacks have an address for each call, inlined
/// ones too; those of waits, from Go 1.23 on, have one for each frame but the first.
fn locations(builder: &mut Builder, stack: &[u64], frames: &mut Frames<'_>) -> Vec<u64> {
    let mut ids = Vec::with_capacity(stack.len());
    let mut rest = stack.iter().copied().peekable();
    while let Some(pc) = rest.next() {
        let calls = frames(pc.wrapping_sub(1));
        if calls.first().is_none_or(|call| call.function == "runtime.goexit") {
            continue;
        }
        ids.push(builder.location(pc, &calls));
        for depth in 1..calls.len() {
            // The call that it is inlined in, at the same place: a caller of its own is elsewhere.
            let inlined_in = |next: &u64| same_places(&frames(next.wrapping_sub(1)), calls.get(depth..));
            if rest.next_if(inlined_in).is_none() {
                break;
            }
        }
    }
    ids
}

fn same_places(calls: &[Frame], others: Option<&[Frame]>) -> bool {
    let place = |call: &Frame| (call.function.clone(), call.line);
    others.is_some_and(|others| calls.iter().map(place).eq(others.iter().map(place)))
}
