//! What the numbers in `g.waitreason` mean: read from the binary's own table, else from what the toolchains'
//! sources say of each version.
//!
//! Deliberately absent: what a reason says about a leak.

use super::Source;
use super::bytes::u64_at;
use super::elf::{Elf, ElfError, Image};
use super::symbols::Symbol;
use super::version::GoVersion;

/// `waitReason` is a `uint8`.
const MAX_REASONS: usize = 255;
/// Twice the longest in any version.
const MAX_TEXT: u64 = 64;

/// A pointer and a length.
const STRING_HEADER: usize = 16;

/// How to read `runtime.waitReasonStrings`: the request for its string headers, if `symbol` looks like that array.
pub(super) fn request(symbol: Symbol) -> Option<Image> {
    let len = usize::try_from(symbol.size).ok()?;
    let plausible = len > 0 && len.is_multiple_of(STRING_HEADER) && len / STRING_HEADER <= MAX_REASONS;
    plausible.then(|| Image::at(symbol.address, len))
}

/// The strings behind the headers that [`request`] asked for. `None` when they are not wait reasons.
pub(super) fn from_headers(source: &dyn Source, elf: &Elf, headers: &Image) -> Result<Option<Vec<String>>, ElfError> {
    let mut reasons = Vec::new();
    for header in headers.bytes.chunks_exact(STRING_HEADER) {
        let (Some(pointer), Some(len)) = (u64_at(header, 0), u64_at(header, 8)) else { return Ok(None) };
        if len > MAX_TEXT {
            return Ok(None);
        }
        let mut text = vec![0; len as usize];
        if len > 0 {
            elf.read_at_vaddr(source, pointer, &mut text)?;
        }
        let Ok(text) = String::from_utf8(text) else { return Ok(None) };
        reasons.push(text);
    }
    // Number 0 is the empty reason and 2 is "IO wait" in every version: an array that differs is something else.
    let known = reasons.first().is_some_and(String::is_empty) && reasons.get(2).is_some_and(|text| text == "IO wait");
    Ok(known.then_some(reasons))
}

/// The reasons of `version`; `None` for versions not listed here.
pub fn table(version: &GoVersion) -> Option<&'static [&'static str]> {
    match (version.major, version.minor) {
        (1, 21) => TO_1_23.get(..32),
        (1, 22) => TO_1_23.get(..37),
        (1, 23) => Some(TO_1_23),
        (1, 24) => Some(IN_1_24),
        (1, 25) => Some(IN_1_25),
        (1, 26 | 27) => Some(FROM_1_26),
        _ => None,
    }
}

// Generated from `src/runtime/runtime2.go` (the order of the constants, with the texts of `waitReasonStrings`) of the
// toolchains named.

/// go1.23.9; go1.21.13 has the first 32, go1.22.10 the first 37.
const TO_1_23: &[&str] = &[
    "",
    "GC assist marking",
    "IO wait",
    "chan receive (nil chan)",
    "chan send (nil chan)",
    "dumping heap",
    "garbage collection",
    "garbage collection scan",
    "panicwait",
    "select",
    "select (no cases)",
    "GC assist wait",
    "GC sweep wait",
    "GC scavenge wait",
    "chan receive",
    "chan send",
    "finalizer wait",
    "force gc (idle)",
    "semacquire",
    "sleep",
    "sync.Cond.Wait",
    "sync.Mutex.Lock",
    "sync.RWMutex.RLock",
    "sync.RWMutex.Lock",
    "trace reader (blocked)",
    "wait for GC cycle",
    "GC worker (idle)",
    "GC worker (active)",
    "preempted",
    "debug call",
    "GC mark termination",
    "stopping the world",
    "flushing proc caches",
    "trace goroutine status",
    "trace proc status",
    "page trace flush",
    "coroutine",
    "GC weak to strong wait",
];

/// go1.24.11
const IN_1_24: &[&str] = &[
    "",
    "GC assist marking",
    "IO wait",
    "chan receive (nil chan)",
    "chan send (nil chan)",
    "dumping heap",
    "garbage collection",
    "garbage collection scan",
    "panicwait",
    "select",
    "select (no cases)",
    "GC assist wait",
    "GC sweep wait",
    "GC scavenge wait",
    "chan receive",
    "chan send",
    "finalizer wait",
    "force gc (idle)",
    "semacquire",
    "sleep",
    "sync.Cond.Wait",
    "sync.Mutex.Lock",
    "sync.RWMutex.RLock",
    "sync.RWMutex.Lock",
    "sync.WaitGroup.Wait",
    "trace reader (blocked)",
    "wait for GC cycle",
    "GC worker (idle)",
    "GC worker (active)",
    "preempted",
    "debug call",
    "GC mark termination",
    "stopping the world",
    "flushing proc caches",
    "trace goroutine status",
    "trace proc status",
    "page trace flush",
    "coroutine",
    "GC weak to strong wait",
    "synctest.Run",
    "synctest.Wait",
    "chan receive (synctest)",
    "chan send (synctest)",
    "select (synctest)",
];

/// go1.25.5
const IN_1_25: &[&str] = &[
    "",
    "GC assist marking",
    "IO wait",
    "chan receive (nil chan)",
    "chan send (nil chan)",
    "dumping heap",
    "garbage collection",
    "garbage collection scan",
    "panicwait",
    "select",
    "select (no cases)",
    "GC assist wait",
    "GC sweep wait",
    "GC scavenge wait",
    "chan receive",
    "chan send",
    "finalizer wait",
    "force gc (idle)",
    "GOMAXPROCS updater (idle)",
    "semacquire",
    "sleep",
    "sync.Cond.Wait",
    "sync.Mutex.Lock",
    "sync.RWMutex.RLock",
    "sync.RWMutex.Lock",
    "sync.WaitGroup.Wait",
    "trace reader (blocked)",
    "wait for GC cycle",
    "GC worker (idle)",
    "GC worker (active)",
    "preempted",
    "debug call",
    "GC mark termination",
    "stopping the world",
    "flushing proc caches",
    "trace goroutine status",
    "trace proc status",
    "page trace flush",
    "coroutine",
    "GC weak to strong wait",
    "synctest.Run",
    "synctest.Wait",
    "chan receive (durable)",
    "chan send (durable)",
    "select (durable)",
    "sync.WaitGroup.Wait (durable)",
    "cleanup wait",
];

/// go1.26.6, go1.27.3
const FROM_1_26: &[&str] = &[
    "",
    "GC assist marking",
    "IO wait",
    "dumping heap",
    "garbage collection",
    "garbage collection scan",
    "panicwait",
    "GC assist wait",
    "GC sweep wait",
    "GC scavenge wait",
    "finalizer wait",
    "force gc (idle)",
    "GOMAXPROCS updater (idle)",
    "semacquire",
    "sleep",
    "chan receive (nil chan)",
    "chan send (nil chan)",
    "select (no cases)",
    "select",
    "chan receive",
    "chan send",
    "sync.Cond.Wait",
    "sync.Mutex.Lock",
    "sync.RWMutex.RLock",
    "sync.RWMutex.Lock",
    "sync.WaitGroup.Wait",
    "trace reader (blocked)",
    "wait for GC cycle",
    "GC worker (idle)",
    "GC worker (active)",
    "preempted",
    "debug call",
    "GC mark termination",
    "stopping the world",
    "flushing proc caches",
    "trace goroutine status",
    "trace proc status",
    "page trace flush",
    "coroutine",
    "GC weak to strong wait",
    "synctest.Run",
    "synctest.Wait",
    "chan receive (durable)",
    "chan send (durable)",
    "select (durable)",
    "sync.WaitGroup.Wait (durable)",
    "cleanup wait",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_supported_version_has_a_table() {
        for (minor, len) in [(21, 32), (22, 37), (23, 38), (24, 44), (25, 47), (26, 47), (27, 47)] {
            let version = GoVersion::parse(&format!("go1.{minor}.1")).unwrap();
            let reasons = table(&version).unwrap();
            assert_eq!((reasons.len(), reasons[2]), (len, "IO wait"), "{version}");
            assert!(reasons.contains(&"chan send"));
        }
        assert_eq!(table(&GoVersion::parse("go1.99").unwrap()), None);
    }

    #[test]
    fn implausible_arrays_are_not_requested() {
        for size in [0, 8, 24, 16 * 256, u64::MAX] {
            assert_eq!(request(Symbol { address: 1, size }), None, "{size}");
        }
        assert!(request(Symbol { address: 1, size: 752 }).is_some());
    }
}
