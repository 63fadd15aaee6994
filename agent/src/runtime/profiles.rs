//! The runtime's own profiles: memory, blocking, contention of mutexes, and where threads were made; what `/debug/pprof/heap`,
//! `block`, `mutex` and `threadcreate` serve, from the lists of records that they are made of (`src/runtime/mprof.go`).
//!
//! Nothing is switched on: a program that records nothing has nothing to tell, and the error says what it would have to do.

use serde::{Deserialize, Serialize};

use crate::golang::layout::{LayoutError, Structs, Wanted};
use crate::memory::Memory;

use super::{RuntimeError, View, words};

/// The fields that are read.
pub const WANTED: &Wanted = &[
    ("runtime.bucket", &[("allnext", 8), ("typ", 8), ("hash", 8), ("size", 8), ("nstk", 8)]),
    ("runtime.memRecord", &[("active", 0), ("future", 0)]),
    ("runtime.memRecordCycle", &[("allocs", 8), ("frees", 8)]),
    ("runtime.blockRecord", &[("count", 8), ("cycles", 8)]),
    ("runtime.m", &[("alllink", 8), ("createstack", 256)]),
    // Go 1.23 and later.
    ("runtime.ticksType", &[("val", 8)]),
];

/// Records read at most.
const MAX_RECORDS: usize = 1_000_000;
/// Frames of one record; the runtime keeps 32, or `GODEBUG=profstackdepth` of them, which is 1024 at most.
const MAX_FRAMES: u64 = 1026;
/// Bytes of a record; that of memory has 64 or, with Go 1.22 and earlier, 128.
const MAX_RECORD: u64 = 1024;
/// Threads read at most.
const MAX_THREADS: usize = 20_000;
/// First element of a stack whose frames are one each (`logicalStackSentinel`).
const LOGICAL: u64 = u64::MAX;

/// Which list a record is in (`bucketType`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum List {
    /// `memProfile`
    Memory = 1,
    /// `blockProfile`
    Block = 2,
    /// `mutexProfile`
    Mutex = 3,
}

impl List {
    /// The variable that holds its head.
    pub const fn variable(self) -> &'static str {
        match self {
            Self::Memory => "runtime.mbuckets",
            Self::Block => "runtime.bbuckets",
            Self::Mutex => "runtime.xbuckets",
        }
    }
}

/// Why a program has no such profile, and what it would have to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoProfile {
    /// `runtime.MemProfileRate` is 0.
    #[error(
        "pid {pid} keeps no heap profile: its runtime.MemProfileRate is 0. The linker sets that for programs that never read a heap profile (importing net/http/pprof is enough to keep it), and a program can set it itself"
    )]
    Memory {
        /// Target.
        pid: u32,
    },
    /// `runtime.SetBlockProfileRate` was not called.
    #[error("pid {pid} keeps no block profile: it would have to call runtime.SetBlockProfileRate")]
    Block {
        /// Target.
        pid: u32,
    },
    /// `runtime.SetMutexProfileFraction` was not called.
    #[error("pid {pid} keeps no mutex profile: it would have to call runtime.SetMutexProfileFraction")]
    Mutex {
        /// Target.
        pid: u32,
    },
}

impl NoProfile {
    /// That a list is not kept.
    pub const fn of(list: List, pid: u32) -> Self {
        match list {
            List::Memory => Self::Memory { pid },
            List::Block => Self::Block { pid },
            List::Mutex => Self::Mutex { pid },
        }
    }
}

/// Allocations of one size in one place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allocations {
    /// Return addresses, innermost first, one for each call, inlined ones too.
    pub stack: Vec<u64>,
    /// Bytes of an object.
    pub size: u64,
    /// Objects that were sampled.
    pub allocs: u64,
    /// Of them those that were freed.
    pub frees: u64,
}

/// Waiting in one place.
#[derive(Clone, Debug, PartialEq)]
pub struct Waits {
    /// Return addresses, innermost first.
    pub stack: Vec<u64>,
    /// How often, estimated.
    pub count: f64,
    /// For how many ticks of the processor's clock.
    pub cycles: i64,
}

/// Objects allocated and freed, of each place and size, as of the last collection: a later object is told only once a
/// collection could have freed it. Before the first collection, all.
pub fn memory(
    memory: &dyn Memory,
    structs: &Structs,
    heads: &[u64],
    cycle: u64,
) -> Result<Vec<Allocations>, RuntimeError> {
    let offset = |structure: &'static str, field: &'static str| {
        crate::golang::layout::offset(structs, WANTED, structure, field).map(u64::from)
    };
    let (active, future) = (offset("runtime.memRecord", "active")?, offset("runtime.memRecord", "future")?);
    let (allocs, frees) = (offset("runtime.memRecordCycle", "allocs")?, offset("runtime.memRecordCycle", "frees")?);
    let size = |name: &'static str| {
        Ok::<_, RuntimeError>(u64::from(structs.get(name).ok_or(LayoutError::NoStruct(name))?.size))
    };
    let (record, one) = (size("runtime.memRecord")?, size("runtime.memRecordCycle")?);
    // What a reader in the process would add to the published numbers first (`mProf_FlushLocked`).
    let finished = (memory.read_u64(cycle)? & 0xffff_ffff) >> 1;
    let mut places = Vec::new();
    for bucket in buckets(memory, structs, heads, List::Memory, record)? {
        let pair = |at: u64| {
            let word = |at: u64| bucket.record.get(at as usize / 8).copied().unwrap_or(0);
            (word(at.wrapping_add(allocs)), word(at.wrapping_add(frees)))
        };
        let cycles: Vec<(u64, u64)> = (0..3).map(|index| pair(future.wrapping_add(index * one))).collect();
        places.push((bucket.stack, bucket.size, pair(active), cycles));
    }
    let flushed = |active: (u64, u64), cycles: &[(u64, u64)]| {
        let (allocs, frees) = cycles.get((finished % 3) as usize).copied().unwrap_or_default();
        (active.0.wrapping_add(allocs), active.1.wrapping_add(frees))
    };
    let nothing = places.iter().all(|(_, _, active, cycles)| flushed(*active, cycles) == (0, 0));
    let all = |active: (u64, u64), cycles: &[(u64, u64)]| {
        cycles.iter().fold(active, |sum, cycle| (sum.0.wrapping_add(cycle.0), sum.1.wrapping_add(cycle.1)))
    };
    let allocations = places.into_iter().map(|(stack, size, active, cycles)| {
        let (allocs, frees) = if nothing { all(active, &cycles) } else { flushed(active, &cycles) };
        Allocations { stack, size, allocs, frees }
    });
    Ok(allocations.collect())
}

/// Waits of goroutines, for anything ([`List::Block`]) or for locks, told of who held them ([`List::Mutex`]).
pub fn waits(memory: &dyn Memory, structs: &Structs, heads: &[u64], list: List) -> Result<Vec<Waits>, RuntimeError> {
    let offset = |field| crate::golang::layout::offset(structs, WANTED, "runtime.blockRecord", field);
    let (count, cycles) = (offset("count")? as usize, offset("cycles")? as usize);
    let size = structs.get("runtime.blockRecord").map_or(16, |layout| u64::from(layout.size));
    let of = |bucket: Bucket| Waits {
        stack: bucket.stack,
        count: f64::from_bits(bucket.record.get(count / 8).copied().unwrap_or(0)),
        cycles: bucket.record.get(cycles / 8).copied().unwrap_or(0).cast_signed(),
    };
    Ok(buckets(memory, structs, heads, list, size)?.into_iter().map(of).collect())
}

/// The stacks that threads were made in, one for each thread; empty where nobody noted it.
pub fn threads(memory: &dyn Memory, structs: &Structs, allm: u64) -> Result<Vec<Vec<u64>>, RuntimeError> {
    let mut stacks = Vec::new();
    let mut next = memory.read_u64(allm)?;
    while next != 0 && stacks.len() < MAX_THREADS {
        let m = View::read(memory, structs, WANTED, "runtime.m", next)?;
        let stack = m.array("createstack").unwrap_or_default();
        stacks.push(stack.into_iter().take_while(|pc| *pc != 0).collect());
        next = m.number("alllink");
    }
    Ok(stacks)
}

/// A record with its stack.
struct Bucket {
    stack: Vec<u64>,
    size: u64,
    record: Vec<u64>,
}

/// The list of one kind: the head is at one of `heads`, told from those of other lists by the kind of its records. None holds
/// one of that kind when there are no such records.
fn buckets(
    memory: &dyn Memory,
    structs: &Structs,
    heads: &[u64],
    list: List,
    record: u64,
) -> Result<Vec<Bucket>, RuntimeError> {
    if record > MAX_RECORD {
        return Err(RuntimeError::Absurd { what: "the size of a profiling record", found: record });
    }
    let header = structs.get("runtime.bucket").ok_or(LayoutError::NoStruct("runtime.bucket"))?.size;
    let mut first = Vec::new();
    for head in heads {
        let address = memory.read_u64(*head)?;
        if address != 0 && of_list(memory, structs, address, list).is_some() {
            first.push(address);
        }
    }
    if first.len() > 1 {
        return Err(RuntimeError::Variable(format!("{} places look like {}", first.len(), list.variable())));
    }
    let mut found = Vec::new();
    let mut next = first.pop().unwrap_or(0);
    while next != 0 && found.len() < MAX_RECORDS {
        let Some(bucket) = of_list(memory, structs, next, list) else {
            return Err(RuntimeError::Absurd { what: "a profiling record", found: next });
        };
        let frames = bucket.number("nstk");
        let mut bytes = vec![0; (frames * 8 + record) as usize];
        memory.read(next.wrapping_add(u64::from(header)), &mut bytes)?;
        let mut stack = words(&bytes);
        let record = stack.split_off(frames as usize);
        if stack.first() == Some(&LOGICAL) {
            stack.remove(0);
        }
        found.push(Bucket { stack, size: bucket.number("size"), record });
        next = bucket.number("allnext");
    }
    Ok(found)
}

/// The record at an address, if it is one of that list.
fn of_list<'a>(memory: &dyn Memory, structs: &'a Structs, address: u64, list: List) -> Option<View<'a>> {
    let bucket = View::read(memory, structs, WANTED, "runtime.bucket", address).ok()?;
    let fits = bucket.number("typ") == list as u64 && (1..=MAX_FRAMES).contains(&bucket.number("nstk"));
    fits.then_some(bucket)
}

/// Objects and bytes that a sample stands for: `scaleHeapSample` in src/runtime/pprof/protomem.go.
pub fn scaled(count: u64, size: u64, rate: u64) -> (i64, i64) {
    if count == 0 || size == 0 {
        return (0, 0);
    }
    let bytes = count.saturating_mul(size);
    if rate <= 1 {
        return (i64::try_from(count).unwrap_or(i64::MAX), i64::try_from(bytes).unwrap_or(i64::MAX));
    }
    let scale = 1.0 / (1.0 - (-(size as f64) / rate as f64).exp());
    ((count as f64 * scale) as i64, (bytes as f64 * scale) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_scaled_as_the_runtime_scales_them() {
        // By `scaleHeapSample` of Go 1.27.3.
        assert_eq!(scaled(3, 100, 1), (3, 300));
        assert_eq!(scaled(0, 100, 524_288), (0, 0));
        assert_eq!(scaled(1, 524_288, 524_288), (1, 829_411));
        assert_eq!(scaled(1, 16, 524_288), (32_768, 524_296));
    }
}
