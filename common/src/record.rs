//! Records of the event ring buffer.
//!
//! Every kind has one fixed size, and the kind decides it, so that a record costs the ring no more than its content:
//! 24 bytes parked and exited, 32 readied, 40 waited, 48 created, 296 creator. All integers are in the host's byte order, which is
//! little-endian on every architecture parkwarden runs on.

use core::fmt;
use core::mem::{offset_of, size_of};

/// Records that one hit of the program `generate` writes, which exists to measure how fast events are taken.
pub const GENERATED_PER_HIT: u64 = 64;

/// What happened to a goroutine. The discriminant is the `kind` byte of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// A `go` statement ran: `runtime.newproc` queued a new goroutine.
    Created = 1,
    /// The goroutine called `runtime.gopark`.
    Parked = 2,
    /// `runtime.ready` (inlined into `runtime.goready`) made the goroutine runnable.
    Readied = 3,
    /// The goroutine returned from its start function and reached `runtime.goexit1`.
    Exited = 4,
    /// A park that was long has ended, told at once by the programs of `filter` mode.
    Waited = 5,
    /// Who ran a `go` statement, told of some of its runs in every mode with probes.
    Creator = 6,
}

impl Kind {
    /// The kinds that a place in the runtime stands for, in the order of their discriminants; there is a probe for each.
    pub const PROBED: [Self; 4] = [Self::Created, Self::Parked, Self::Readied, Self::Exited];

    /// Size of this kind's record in bytes.
    pub const fn record_size(self) -> usize {
        match self {
            Self::Created => size_of::<Created>(),
            Self::Readied => size_of::<Readied>(),
            Self::Parked | Self::Exited => size_of::<Header>(),
            Self::Waited => size_of::<Waited>(),
            Self::Creator => size_of::<Creator>(),
        }
    }
}

impl TryFrom<u8> for Kind {
    type Error = DecodeError;

    fn try_from(byte: u8) -> Result<Self, DecodeError> {
        match byte {
            1 => Ok(Self::Created),
            2 => Ok(Self::Parked),
            3 => Ok(Self::Readied),
            4 => Ok(Self::Exited),
            5 => Ok(Self::Waited),
            6 => Ok(Self::Creator),
            _ => Err(DecodeError::UnknownKind(byte)),
        }
    }
}

/// The head of every record, and the whole record of parked and exited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Header {
    /// `CLOCK_MONOTONIC` nanoseconds, from `bpf_ktime_get_ns`: the clock of Go's `nanotime` too.
    pub time_ns: u64,
    /// `g.goid` of the goroutine the record is about.
    pub goid: u64,
    /// Index of the attached probe, see [`crate::cookie::Cookie::probe`].
    pub probe: u16,
    /// A [`Kind`] as a byte.
    pub kind: u8,
    /// Parked and waited: the runtime's `waitReason` number, whose meaning depends on the Go version. Else 0.
    pub wait_reason: u8,
    /// Zero. Explicit, so that no uninitialised byte leaves the kernel.
    pub reserved: u32,
}

/// Record of [`Kind::Created`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Created {
    /// Whose `goid` is the new goroutine's.
    pub header: Header,
    /// `g.parentGoid`: the goroutine that ran the `go` statement.
    pub parent_goid: u64,
    /// `g.gopc`: the return address of the call to `runtime.newproc`, in the target's address space.
    pub creation_pc: u64,
    /// `g.startpc`: entry of the function the goroutine runs.
    pub start_pc: u64,
}

/// Record of [`Kind::Readied`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Readied {
    /// Whose `goid` is the woken goroutine's.
    pub header: Header,
    /// The goroutine that ran on the waking thread, or 0 when the scheduler itself woke it (timers, for one).
    pub waker_goid: u64,
}

/// Record of [`Kind::Waited`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Waited {
    /// Whose `time_ns` is when the goroutine was woken.
    pub header: Header,
    /// When it parked.
    pub since_ns: u64,
    /// See [`Readied::waker_goid`].
    pub waker_goid: u64,
}

/// Return addresses that a [`Creator`] has at most.
pub const MAX_CREATOR_FRAMES: usize = 32;

/// Of those, how many may be calls within the runtime: `newproc` calls `systemstack`, which has a frame of its own or has not,
/// depending on the architecture.
const MAX_OF_RUNTIME: usize = 2;

/// Record of [`Kind::Creator`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Creator {
    /// Whose `goid` is 0: it is about the `go` statement.
    pub header: Header,
    /// See [`Created::creation_pc`].
    pub creation_pc: u64,
    /// One in so many runs of the `go` statement was told of at that time; never 0.
    pub weight: u64,
    /// Return addresses of the calls that led there, innermost first, as the frame pointers of the goroutine that ran it tell;
    /// after the last, zeros. First come those within the runtime, if there are any, and then `creation_pc`.
    pub frames: [u64; MAX_CREATOR_FRAMES],
}

impl Creator {
    /// Decodes one record, which must fill `bytes` exactly.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        if bytes.len() != size_of::<Self>() {
            return Err(DecodeError::Size { expected: size_of::<Self>(), found: bytes.len() });
        }
        let kind = bytes[offset_of!(Header, kind)];
        if kind != Kind::Creator as u8 {
            return Err(DecodeError::UnknownKind(kind));
        }
        let probe = offset_of!(Header, probe);
        Ok(Self {
            header: Header {
                time_ns: u64_at(bytes, offset_of!(Header, time_ns)),
                goid: u64_at(bytes, offset_of!(Header, goid)),
                probe: u16::from_ne_bytes([bytes[probe], bytes[probe + 1]]),
                kind,
                wait_reason: bytes[offset_of!(Header, wait_reason)],
                reserved: 0,
            },
            creation_pc: u64_at(bytes, offset_of!(Self, creation_pc)),
            weight: u64_at(bytes, offset_of!(Self, weight)).max(1),
            frames: core::array::from_fn(|index| u64_at(bytes, offset_of!(Self, frames) + 8 * index)),
        })
    }

    /// The return addresses from `creation_pc` on, innermost first; none if it is not where it should be.
    pub fn calls(&self) -> &[u64] {
        let end = self.frames.iter().position(|pc| *pc == 0).unwrap_or(self.frames.len());
        let known = &self.frames[..end];
        match known.iter().take(MAX_OF_RUNTIME + 1).position(|pc| *pc == self.creation_pc) {
            Some(from) => &known[from..],
            None => &[],
        }
    }
}

impl Header {
    /// The record of a goroutine that parked at `time_ns`, as the programs write it.
    pub fn parked(time_ns: u64, goid: u64, probe: u16, wait_reason: u8) -> [u8; size_of::<Self>()] {
        let mut bytes = [0; size_of::<Self>()];
        bytes[..8].copy_from_slice(&time_ns.to_ne_bytes());
        bytes[offset_of!(Self, goid)..][..8].copy_from_slice(&goid.to_ne_bytes());
        bytes[offset_of!(Self, probe)..][..2].copy_from_slice(&probe.to_ne_bytes());
        bytes[offset_of!(Self, kind)] = Kind::Parked as u8;
        bytes[offset_of!(Self, wait_reason)] = wait_reason;
        bytes
    }
}

const _: () = {
    assert!(size_of::<Header>() == 24);
    assert!(size_of::<Waited>() == 40);
    assert!(offset_of!(Waited, since_ns) == 24);
    assert!(offset_of!(Waited, waker_goid) == 32);
    assert!(size_of::<Readied>() == 32);
    assert!(size_of::<Created>() == 48);
    assert!(size_of::<Creator>() == 296);
    assert!(offset_of!(Creator, creation_pc) == 24);
    assert!(offset_of!(Creator, weight) == 32);
    assert!(offset_of!(Creator, frames) == 40);
    assert!(offset_of!(Header, goid) == 8);
    assert!(offset_of!(Header, probe) == 16);
    assert!(offset_of!(Header, kind) == 18);
    assert!(offset_of!(Header, wait_reason) == 19);
    assert!(offset_of!(Header, reserved) == 20);
    assert!(offset_of!(Readied, waker_goid) == 24);
    assert!(offset_of!(Created, parent_goid) == 24);
    assert!(offset_of!(Created, creation_pc) == 32);
    assert!(offset_of!(Created, start_pc) == 40);
};

/// A decoded record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// See [`Header::time_ns`].
    pub time_ns: u64,
    /// See [`Header::goid`].
    pub goid: u64,
    /// See [`Header::probe`].
    pub probe: u16,
    /// What happened.
    pub what: What,
}

/// The part of an event that depends on its kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// See [`Created`].
    Created {
        /// See [`Created::parent_goid`].
        parent_goid: u64,
        /// See [`Created::creation_pc`].
        creation_pc: u64,
        /// See [`Created::start_pc`].
        start_pc: u64,
    },
    /// See [`Kind::Parked`].
    Parked {
        /// See [`Header::wait_reason`].
        wait_reason: u8,
    },
    /// See [`Readied`].
    Readied {
        /// See [`Readied::waker_goid`].
        waker_goid: u64,
    },
    /// See [`Kind::Exited`].
    Exited,
    /// See [`Waited`].
    Waited {
        /// See [`Header::wait_reason`].
        wait_reason: u8,
        /// See [`Waited::since_ns`].
        since_ns: u64,
        /// See [`Readied::waker_goid`].
        waker_goid: u64,
    },
}

/// Why bytes are not a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// The `kind` byte names no [`Kind`].
    UnknownKind(u8),
    /// The bytes end before the record does, or go on after it.
    Size {
        /// What the kind asks for.
        expected: usize,
        /// What there was.
        found: usize,
    },
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownKind(kind) => write!(f, "unknown record kind {kind}"),
            Self::Size { expected, found } => {
                write!(f, "record of {found} bytes where {expected} were expected")
            }
        }
    }
}

impl core::error::Error for DecodeError {}

fn u64_at(bytes: &[u8], offset: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[offset..offset + 8]);
    u64::from_ne_bytes(word)
}

impl Event {
    /// Decodes one record of any kind but [`Kind::Creator`], which must fill `bytes` exactly.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        if bytes.len() < size_of::<Header>() {
            return Err(DecodeError::Size { expected: size_of::<Header>(), found: bytes.len() });
        }
        let kind = Kind::try_from(bytes[offset_of!(Header, kind)])?;
        if bytes.len() != kind.record_size() {
            return Err(DecodeError::Size { expected: kind.record_size(), found: bytes.len() });
        }
        let probe = offset_of!(Header, probe);
        Ok(Self {
            time_ns: u64_at(bytes, offset_of!(Header, time_ns)),
            goid: u64_at(bytes, offset_of!(Header, goid)),
            probe: u16::from_ne_bytes([bytes[probe], bytes[probe + 1]]),
            what: match kind {
                Kind::Creator => return Err(DecodeError::UnknownKind(kind as u8)),
                Kind::Created => What::Created {
                    parent_goid: u64_at(bytes, offset_of!(Created, parent_goid)),
                    creation_pc: u64_at(bytes, offset_of!(Created, creation_pc)),
                    start_pc: u64_at(bytes, offset_of!(Created, start_pc)),
                },
                Kind::Parked => What::Parked { wait_reason: bytes[offset_of!(Header, wait_reason)] },
                Kind::Readied => What::Readied { waker_goid: u64_at(bytes, offset_of!(Readied, waker_goid)) },
                Kind::Exited => What::Exited,
                Kind::Waited => What::Waited {
                    wait_reason: bytes[offset_of!(Header, wait_reason)],
                    since_ns: u64_at(bytes, offset_of!(Waited, since_ns)),
                    waker_goid: u64_at(bytes, offset_of!(Waited, waker_goid)),
                },
            },
        })
    }

    /// The kind of this event.
    pub const fn kind(&self) -> Kind {
        match self.what {
            What::Created { .. } => Kind::Created,
            What::Parked { .. } => Kind::Parked,
            What::Readied { .. } => Kind::Readied,
            What::Exited => Kind::Exited,
            What::Waited { .. } => Kind::Waited,
        }
    }
}
