//! What a leaked goroutine waits for, as its own state tells it: a channel's length, a mutex's holders, a wait group's
//! counter.

use serde::{Deserialize, Serialize};

use super::wait::Wait;
use crate::golang::proof_layout::ReachLayout;
use crate::memory::{Memory, word_at};

/// What is waited for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Primitive {
    /// Its address: of the channel, of the coroutine, of the semaphore within the mutex or wait group, of the condition's list.
    pub address: u64,
    /// Its state.
    #[serde(flatten)]
    pub state: PrimitiveState,
    /// How many goroutines wait for it; 0 where that was not counted.
    pub waiters: u64,
    /// Ids of the first of them.
    pub waiting: Vec<u64>,
    /// Of a lock that nothing live leads to: the id of the stuck goroutine that holds it, where that is shown.
    pub holds: Option<u64>,
    /// Else the ids of stuck goroutines that may hold it.
    pub may_hold: Vec<u64>,
}

/// A primitive's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum PrimitiveState {
    /// `runtime.hchan`
    Channel {
        /// Elements in its buffer.
        len: u64,
        /// Room in its buffer.
        cap: u64,
        /// Whether it is closed.
        closed: bool,
        /// Size of an element.
        element_size: u16,
        /// Whether it is the channel of a timer or ticker.
        #[serde(default)]
        timer: bool,
    },
    /// `sync.Mutex`
    Mutex {
        /// Somebody has it.
        locked: bool,
        /// It counts this many waiters.
        counted: u32,
    },
    /// `sync.RWMutex`
    RwMutex {
        /// Readers that hold it or wait for the writer.
        readers: i32,
        /// Readers the writer waits for.
        leaving: i32,
        /// A writer wants it, and waits for those readers, or has it.
        #[serde(default)]
        writer: bool,
    },
    /// `sync.WaitGroup`
    WaitGroup {
        /// Calls of `Done` that are missing.
        counter: i32,
    },
    /// `sync.Cond`
    Cond,
    /// `runtime.coro`
    Coroutine,
    /// Its memory was not copied.
    Unknown,
}

impl Primitive {
    /// Reads the state of what is at `address` and waited for in this way.
    pub fn read(
        memory: &dyn Memory,
        layout: &ReachLayout,
        wait: Wait,
        address: u64,
        waiting: Option<&(u64, Vec<u64>)>,
    ) -> Self {
        let (waiters, waiting) = waiting.cloned().unwrap_or_default();
        let state = PrimitiveState::read(memory, layout, wait, address).unwrap_or(PrimitiveState::Unknown);
        Self { address, state, waiters, waiting, holds: None, may_hold: Vec::new() }
    }
}

impl PrimitiveState {
    /// A `sync.RWMutex` with these counts. A writer that waits or writes takes `rwmutexMaxReaders` off `readerCount`
    /// (src/sync/rwmutex.go).
    const fn rw_mutex(reader_count: i32, reader_wait: i32) -> Self {
        const MAX_READERS: i32 = 1 << 30;
        let writer = reader_count < 0;
        let readers = if writer { reader_count.saturating_add(MAX_READERS) } else { reader_count };
        Self::RwMutex { readers, leaving: reader_wait, writer }
    }

    /// Whether it is a lock that somebody has, or that a writer is about to have.
    pub const fn is_locked(self) -> bool {
        match self {
            Self::Mutex { locked, .. } => locked,
            Self::RwMutex { readers, writer, .. } => writer || readers != 0,
            _ => false,
        }
    }

    /// Whether it is the channel of a timer or ticker.
    pub const fn is_timer(self) -> bool {
        matches!(self, Self::Channel { timer: true, .. })
    }

    /// Whether nothing but its being closed is worth waiting for, as of a context's Done.
    pub const fn is_done(self) -> bool {
        matches!(self, Self::Channel { cap: 0, element_size: 0, .. })
    }

    fn read(memory: &dyn Memory, layout: &ReachLayout, wait: Wait, address: u64) -> Option<Self> {
        let word32 = |offset: i64| {
            let mut bytes = [0; 4];
            memory.read(address.checked_add_signed(offset)?, &mut bytes).ok()?;
            Some(i32::from_le_bytes(bytes))
        };
        Some(match wait {
            Wait::Send | Wait::Receive | Wait::Select => {
                let mut bytes = vec![0; layout.hchan.size as usize];
                memory.read(address, &mut bytes).ok()?;
                let hchan = &layout.hchan;
                let word = |offset: u32| word_at(&bytes, offset as usize);
                let cap = word(hchan.dataqsiz)?;
                // Where there is no such field, or with GODEBUG=asynctimerchan=1, a timer's channel is one like others.
                let of_timer = hchan.timer.and_then(word).is_some_and(|timer| timer != 0);
                Self::Channel {
                    len: word(hchan.qcount)?,
                    cap,
                    closed: word(hchan.closed)? & 0xffff_ffff != 0,
                    element_size: (word(hchan.elemsize)? & 0xffff) as u16,
                    timer: of_timer || cap == 1 && word(hchan.elemtype).is_some_and(|it| is_time(memory, it)),
                }
            }
            // The address is that of `sema`, behind `state`: the lowest bit says locked, waiters count from the fourth.
            Wait::Mutex => {
                let state = word32(-4)?.cast_unsigned();
                Self::Mutex { locked: state & 1 != 0, counted: state >> 3 }
            }
            // sync.RWMutex: the writers' mutex, writerSem at 8, readerSem at 12, readerCount at 16, readerWait at 20.
            Wait::Lock => Self::rw_mutex(word32(8)?, word32(12)?),
            Wait::RLock => Self::rw_mutex(word32(4)?, word32(8)?),
            // The counter is the upper half of the word before `sema`.
            Wait::WaitGroup => Self::WaitGroup { counter: word32(-4)? },
            Wait::Cond => Self::Cond,
            Wait::Coroutine => Self::Coroutine,
            Wait::NilSend | Wait::NilReceive | Wait::EmptySelect => return None,
        })
    }
}

/// Kind of a struct, in the low bits of a type descriptor's kind (`abi.Struct`).
const STRUCT: u64 = 25;

/// Whether the type descriptor (`abi.StructType`) at an address is that of `time.Time`: a struct of 24 bytes in package `time`
/// whose first field is `wall`. It is the same in all versions that are supported.
fn is_time(memory: &dyn Memory, descriptor: u64) -> bool {
    let word = |offset: u64| memory.read_u64(descriptor.checked_add(offset)?).ok();
    let is_named = |name: Option<u64>, wanted: &[u8]| {
        // Flags, the length as a varint, and the bytes.
        let mut bytes = vec![0; 2 + wanted.len()];
        name.is_some_and(|name| memory.read(name, &mut bytes).is_ok())
            && usize::from(bytes[1]) == wanted.len()
            && &bytes[2..] == wanted
    };
    let first_field = || memory.read_u64(word(56)?).ok();
    word(0) == Some(24)
        && word(16).is_some_and(|word| word >> 56 & 31 == STRUCT)
        && is_named(word(48), b"time")
        && is_named(first_field(), b"wall")
}

impl std::fmt::Display for Primitive {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let address = self.address;
        match self.state {
            PrimitiveState::Channel { len, cap, closed, .. } => {
                let closed = if closed { "closed" } else { "open" };
                write!(f, "channel {address:#x}: {len} of {cap} buffered, {closed}")?;
            }
            PrimitiveState::Mutex { locked, counted } => {
                let locked = if locked { "locked" } else { "unlocked" };
                write!(f, "mutex with its semaphore at {address:#x}: {locked}, counts {counted} waiting")?;
            }
            PrimitiveState::RwMutex { readers, leaving, writer } => {
                let who = rw_mutex_in_words(readers, leaving, writer);
                write!(f, "read-write mutex with its semaphore at {address:#x}: {who}")?;
            }
            PrimitiveState::WaitGroup { counter } => {
                write!(f, "wait group with its semaphore at {address:#x}: counter {counter}")?;
            }
            PrimitiveState::Cond => write!(f, "condition with its list at {address:#x}")?,
            // One side of it runs, or waits, and this is the other: nobody else ever waits for it.
            PrimitiveState::Coroutine => return write!(f, "coroutine of an iter.Pull at {address:#x}: suspended"),
            PrimitiveState::Unknown => write!(f, "at {address:#x}, whose state was not copied")?,
        }
        let others: Vec<String> = self.waiting.iter().map(u64::to_string).collect();
        match self.waiters {
            0 => Ok(()),
            1 => write!(f, "; nobody else waits for it"),
            count => {
                let more = if count > others.len() as u64 { ", …" } else { "" };
                write!(f, "; {count} goroutines wait for it ({}{more})", others.join(", "))
            }
        }
    }
}

/// Who has a `sync.RWMutex` and who wants it.
fn rw_mutex_in_words(readers: i32, leaving: i32, writer: bool) -> String {
    let some = |count: i32, one: &str, more: &str| match count {
        1 => format!("1 reader {one}"),
        count => format!("{count} readers {more}"),
    };
    if !writer {
        return some(readers, "holds it", "hold it");
    }
    let behind = readers.saturating_sub(leaving.max(0));
    let behind =
        if behind > 0 { format!(", {}", some(behind, "waits behind it", "wait behind it")) } else { String::new() };
    match leaving {
        1.. => format!("a writer waits, {}{behind}", some(leaving, "holds it", "hold it")),
        _ => format!("a writer holds it{behind}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::image::Image;

    const TYPE: u64 = 0x1000;
    const PACKAGE: u64 = 0x2000;
    const FIELDS: u64 = 0x3000;
    const FIELD: u64 = 0x4000;

    /// A struct type's descriptor: its size, its kind, its package's name and its first field's.
    fn descriptor(size: u64, kind: u64, package: &str, field: &str) -> Image {
        let mut image = Image::default();
        image.insert_words(TYPE, &[size, size, kind << 56, 0, 0, 0, PACKAGE, FIELDS]);
        image.insert_words(FIELDS, &[FIELD]);
        for (at, name) in [(PACKAGE, package), (FIELD, field)] {
            image.insert(at, [&[0, name.len() as u8], name.as_bytes(), b"and what follows"].concat());
        }
        image
    }

    #[test]
    fn readers_and_writers_are_counted_in_words() {
        const WRITER: i32 = -(1 << 30);
        let cases = [
            ((0, 0), "0 readers hold it"),
            ((1, 0), "1 reader holds it"),
            ((WRITER, 0), "a writer holds it"),
            ((WRITER + 2, 0), "a writer holds it, 2 readers wait behind it"),
            ((WRITER + 1, 1), "a writer waits, 1 reader holds it"),
            ((WRITER + 5, 2), "a writer waits, 2 readers hold it, 3 readers wait behind it"),
            // What a hostile program writes there.
            ((i32::MIN, i32::MIN), "a writer holds it"),
            ((i32::MIN, i32::MAX), "a writer waits, 2147483647 readers hold it"),
        ];
        for ((count, leaving), words) in cases {
            let PrimitiveState::RwMutex { readers, leaving, writer } = PrimitiveState::rw_mutex(count, leaving) else {
                panic!("something else");
            };
            assert_eq!(rw_mutex_in_words(readers, leaving, writer), words);
        }
    }

    #[test]
    fn only_a_time_is_one() {
        let is = |image: Image| is_time(&image, TYPE);
        assert!(is(descriptor(24, STRUCT, "time", "wall")));
        // Flags are above the kind, until Go 1.23.
        assert!(is(descriptor(24, STRUCT | 1 << 5, "time", "wall")));
        // A []byte, other structs of this size, and others of package time, of which only some are exported.
        assert!(!is(descriptor(24, 23, "time", "wall")));
        assert!(!is(descriptor(24, STRUCT, "main", "wall")));
        assert!(!is(descriptor(24, STRUCT, "timer", "wall")));
        assert!(!is(descriptor(24, STRUCT, "time", "offset")));
        assert!(!is(descriptor(32, STRUCT, "time", "wall")));
        // Nothing, and nothing that can be read.
        assert!(!is_time(&Image::default(), 0));
        assert!(!is_time(&Image::default(), u64::MAX));
    }
}
