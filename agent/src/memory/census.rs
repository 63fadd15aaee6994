//! A census: every goroutine of the target, read from `runtime.allgs` at one moment, without stopping it.
//!
//! The runtime may change a `g` while it is read, so a census is a hint that events and a second look confirm (see
//! `registry` and [`super::unwind`]). Deliberately absent: trust. The list and everything in it is the target's word:
//! lengths are checked and capped, and a pointer that cannot be read is counted, not followed.

use hashbrown::HashSet;
use serde::{Deserialize, Serialize};

use super::image::Image;
use super::together::in_pieces;
use super::{Fault, Memory, Request, word_at};
use crate::golang::layout::GLayout;

/// Goroutines a census reads at most; `allgs` keeps dead ones too.
pub const MAX_GOROUTINES: u64 = 4_000_000;

/// `g`s read with one system call.
const BATCH: usize = 1024;

/// Goroutines that cannot be read before the list is taken for damaged, if most of the others cannot either.
const MAX_UNREADABLE: u64 = 4096;

/// The bit the garbage collector adds to a status while it scans the stack (`_Gscan`).
const SCAN: u32 = 0x1000;

/// A goroutine's status (`src/runtime/runtime2.go`), without the scan bit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, strum::Display)]
#[strum(serialize_all = "lowercase")]
pub enum Status {
    /// `_Gidle`: just allocated.
    #[default]
    Idle,
    /// `_Grunnable`
    Runnable,
    /// `_Grunning`
    Running,
    /// `_Gsyscall`
    Syscall,
    /// `_Gwaiting`
    Waiting,
    /// `_Gdead`, and `_Gdeadextra` of Go 1.26 and later.
    Dead,
    /// `_Gcopystack`
    Copystack,
    /// `_Gpreempted`
    Preempted,
    /// `_Gleaked`: the runtime itself found it leaked (Go 1.26 and later).
    Leaked,
    /// A number no known version has.
    Unknown(u32),
}

impl From<u32> for Status {
    fn from(word: u32) -> Self {
        match word & !SCAN {
            0 => Self::Idle,
            1 => Self::Runnable,
            2 => Self::Running,
            3 => Self::Syscall,
            4 => Self::Waiting,
            6 | 11 => Self::Dead,
            8 => Self::Copystack,
            9 => Self::Preempted,
            10 => Self::Leaked,
            other => Self::Unknown(other),
        }
    }
}

impl Status {
    /// Whether the goroutine is parked.
    pub const fn is_waiting(self) -> bool {
        matches!(self, Self::Waiting | Self::Leaked)
    }

    /// Whether the goroutine runs or is ready to.
    pub const fn runs(self) -> bool {
        matches!(self, Self::Running | Self::Runnable | Self::Preempted)
    }
}

/// One goroutine as it was read. Addresses are the target's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Goroutine {
    /// Of its `g`.
    pub address: u64,
    /// `g.goid`
    pub goid: u64,
    /// `g.atomicstatus`
    pub status: Status,
    /// `g.waitreason`: meaningful while waiting.
    pub wait_reason: u8,
    /// `g.parentGoid`; 0 before Go 1.21.
    pub parent_goid: u64,
    /// `g.gopc`
    pub creation_pc: u64,
    /// `g.startpc`
    pub start_pc: u64,
    /// `g.waitsince`, set by the garbage collector when it finds the goroutine waiting: `CLOCK_MONOTONIC` nanoseconds.
    pub wait_since_ns: Option<u64>,
    /// `g.stack.lo`
    pub stack_lo: u64,
    /// `g.stack.hi`
    pub stack_hi: u64,
    /// `g.sched.sp`
    pub sp: u64,
    /// `g.sched.pc`
    pub pc: u64,
    /// `g.sched.bp`
    pub bp: u64,
    /// `g.sched.lr`: on arm64 where the innermost function returns to, if it stopped before it had a frame, as a goroutine does
    /// that has not run yet or was preempted as it entered a function. Only a walk needs it: it is in no capture.
    #[serde(skip)]
    pub lr: u64,
    /// `g.syscallsp`: the stack pointer at the system call it is in, else 0.
    pub syscall_sp: u64,
    /// `g.syscallpc`
    pub syscall_pc: u64,
    /// `g.trackingSeq`, one more (of 256) each time the goroutine stops running: as long as it stays the same, the
    /// goroutine has not run.
    pub tracking_seq: Option<u8>,
    /// `g.labels`, see [`super::labels`]; 0 without any.
    pub labels: u64,
    /// Whether the collector has it at the moment (`_Gscan`): it may be moving its stack (`shrinkstack` in src/runtime/stack.go), whose
    /// pointers to itself lead to where it was until then. Only a proof needs it: it is in no capture.
    #[serde(skip)]
    pub scanned: bool,
}

impl Goroutine {
    /// Size of its stack; 0 where its bounds make no sense.
    pub fn stack_bytes(&self) -> u64 {
        // `maxstackceiling` (src/runtime/proc.go) is twice the largest stack of 1 GB.
        self.stack_hi.checked_sub(self.stack_lo).filter(|bytes| *bytes <= 2_000_000_000).unwrap_or(0)
    }

    /// Whether its stack is being moved, or may be: to another place, with pointers to itself that lead to either.
    pub fn stack_moves(&self) -> bool {
        self.scanned || self.status == Status::Copystack
    }

    /// Whether it left its stack in a state that can be walked.
    pub fn has_stack(&self) -> bool {
        match self.status {
            Status::Waiting | Status::Leaked | Status::Runnable | Status::Preempted => true,
            Status::Syscall => self.syscall_sp != 0,
            _ => false,
        }
    }

    /// Program counter and stack pointer from which its stack is walked.
    pub fn resume(&self) -> (u64, u64) {
        if self.status == Status::Syscall { (self.syscall_pc, self.syscall_sp) } else { (self.pc, self.sp) }
    }
}

/// All goroutines at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Census {
    /// When reading began, `CLOCK_MONOTONIC` nanoseconds.
    pub started_ns: u64,
    /// When it ended.
    pub finished_ns: u64,
    /// Those that are neither dead nor just being made.
    pub goroutines: Vec<Goroutine>,
    /// Dead ones, whose `g` waits to be used again.
    pub dead: u64,
    /// Those that could not be read.
    pub unreadable: u64,
    /// Whether there were more than [`MAX_GOROUTINES`].
    pub truncated: bool,
}

/// Why there is no census.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CensusError {
    /// The list itself cannot be read.
    #[error("runtime.allgs is not readable: {0}")]
    Fault(#[from] Fault),
    /// The list is not a slice.
    #[error("runtime.allgs at {address:#x} is not a slice of goroutines: {reason}")]
    Malformed {
        /// Where it should be.
        address: u64,
        /// What is wrong with it.
        reason: String,
    },
}

/// Reads censuses of one target.
#[derive(Clone, Debug)]
pub struct CensusReader {
    layout: GLayout,
    allgs: u64,
    /// The part of a `g` that is read.
    from: u32,
    len: usize,
}

impl CensusReader {
    /// A reader for a target whose slice `runtime.allgs` is at `allgs`.
    pub fn new(layout: GLayout, allgs: u64) -> Self {
        let g = &layout;
        let words = [
            g.stack_lo,
            g.stack_hi,
            g.sched_sp,
            g.sched_pc,
            g.sched_bp,
            g.sched_lr,
            g.goid,
            g.waitsince,
            g.gopc,
            g.startpc,
            g.atomicstatus,
            g.waitreason,
            g.syscallsp,
            g.syscallpc,
            g.labels,
        ];
        let fields = || words.iter().chain(&g.parent_goid).chain(&g.tracking_seq);
        let ends = fields().map(|offset| offset.saturating_add(8));
        let from = fields().copied().min().unwrap_or(0);
        let end = ends.max().unwrap_or(0).min(g.size);
        Self { layout, allgs, from, len: end.saturating_sub(from) as usize }
    }

    /// Reads all goroutines. `now` is `CLOCK_MONOTONIC` in nanoseconds.
    pub fn read(&self, memory: &dyn Memory, now: impl Fn() -> u64) -> Result<Census, CensusError> {
        self.read_first(memory, now, usize::MAX)
    }

    /// The same of so many at most, those first that have their `g`s for longest.
    pub fn read_first(&self, memory: &dyn Memory, now: impl Fn() -> u64, most: usize) -> Result<Census, CensusError> {
        let mut census = Census { started_ns: now(), ..Census::default() };
        let mut addresses = self.addresses(memory, &mut census)?;
        addresses.truncate(most);
        let mut seen = HashSet::with_capacity(addresses.len());
        let read = |memory: &dyn Memory, batch: &[u64]| self.read_batch(memory, batch);
        in_pieces(memory, &addresses, BATCH, read, |_, found| {
            for read in found {
                match read {
                    None => census.unreadable += 1,
                    Some(g) if matches!(g.status, Status::Dead | Status::Idle) => census.dead += 1,
                    // A goroutine is in the list once; a list that says otherwise is damaged or hostile.
                    Some(g) if g.goid == 0 || !seen.insert(g.goid) => census.unreadable += 1,
                    Some(g) => census.goroutines.push(g),
                }
            }
            // A list of addresses where nothing is: each costs a system call, and there may be millions of them.
            if census.unreadable > MAX_UNREADABLE && census.unreadable > census.goroutines.len() as u64 {
                let reason = format!("{} of its goroutines cannot be read", census.unreadable);
                return Err(CensusError::Malformed { address: self.allgs, reason });
            }
            Ok(())
        })?;
        // It is kept until the next.
        census.goroutines.shrink_to_fit();
        census.finished_ns = now();
        Ok(census)
    }

    /// Reads goroutines again by their addresses; `None` for each that cannot be read.
    pub fn reread(&self, memory: &dyn Memory, addresses: &[u64]) -> Result<Vec<Option<Goroutine>>, Fault> {
        let mut goroutines = Vec::with_capacity(addresses.len());
        for batch in addresses.chunks(BATCH) {
            goroutines.extend(self.read_batch(memory, batch)?);
        }
        Ok(goroutines)
    }

    /// Goroutines whose `g`s were copied; `None` for each that was not, or makes no sense.
    pub fn copied<'i>(
        &'i self,
        image: &'i Image,
        addresses: impl Iterator<Item = u64> + 'i,
    ) -> impl Iterator<Item = Option<Goroutine>> + 'i {
        // They lie side by side in few regions.
        let mut region: (u64, &[u8]) = (0, &[]);
        addresses.map(move |address| {
            let from = address.checked_add(u64::from(self.from))?;
            let within = |(start, bytes): (u64, &'i [u8])| {
                let offset = usize::try_from(from.checked_sub(start)?).ok()?;
                bytes.get(offset..offset.checked_add(self.len)?)
            };
            if within(region).is_none() {
                region = image.around(from, self.len)?;
            }
            self.decode(address, within(region)?)
        })
    }

    /// The addresses of all `g`s, dead ones too.
    pub fn list(&self, memory: &dyn Memory) -> Result<Vec<u64>, CensusError> {
        self.addresses(memory, &mut Census::default())
    }

    /// The pointers of `allgs`. The list only grows, and when it is moved its old entries are moved with it: with the
    /// length read before the pointer, the pointer always leads to at least that many entries.
    fn addresses(&self, memory: &dyn Memory, census: &mut Census) -> Result<Vec<u64>, CensusError> {
        let malformed = |reason: String| CensusError::Malformed { address: self.allgs, reason };
        let field = |offset: u64| -> Result<u64, CensusError> {
            Ok(memory.read_u64(self.allgs.checked_add(offset).ok_or_else(|| malformed("out of range".into()))?)?)
        };
        let len = field(8)?;
        let pointer = field(0)?;
        let capacity = field(16)?;
        if len == 0 || len > capacity {
            return Err(malformed(format!("length {len}, capacity {capacity}")));
        }
        if pointer == 0 || pointer % 8 != 0 {
            return Err(malformed(format!("its array is at {pointer:#x}")));
        }
        census.truncated = len > MAX_GOROUTINES;
        let count = len.min(MAX_GOROUTINES) as usize;
        let mut addresses = Vec::new();
        // Piece by piece, so that a length that is a lie fails before it allocates.
        let mut piece = vec![0u8; 64 << 10];
        while addresses.len() < count {
            let bytes = ((count - addresses.len()) * 8).min(piece.len());
            let offset = addresses.len() as u64 * 8;
            let from = pointer.checked_add(offset).ok_or_else(|| malformed("out of range".into()))?;
            memory.read(from, &mut piece[..bytes])?;
            addresses.extend(piece[..bytes].as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word)));
        }
        Ok(addresses)
    }

    fn read_batch(&self, memory: &dyn Memory, addresses: &[u64]) -> Result<Vec<Option<Goroutine>>, Fault> {
        let mut bytes = vec![0u8; addresses.len() * self.len];
        let mut requests: Vec<Request<'_>> = bytes
            .chunks_mut(self.len.max(1))
            .zip(addresses)
            .map(|(buf, address)| Request { address: address.saturating_add(u64::from(self.from)), buf, ok: false })
            .collect();
        memory.read_many(&mut requests)?;
        Ok(requests
            .iter()
            .zip(addresses)
            .map(|(request, address)| if request.ok { self.decode(*address, request.buf) } else { None })
            .collect())
    }

    fn decode(&self, address: u64, bytes: &[u8]) -> Option<Goroutine> {
        let layout = &self.layout;
        let at = |offset: u32| Some(offset.checked_sub(self.from)? as usize);
        let word = |offset: u32| word_at(bytes, at(offset)?);
        let status = at(layout.atomicstatus)?;
        let status = u32::from_le_bytes(bytes.get(status..status.checked_add(4)?)?.try_into().ok()?);
        Some(Goroutine {
            address,
            goid: word(layout.goid)?,
            status: Status::from(status),
            wait_reason: *bytes.get(at(layout.waitreason)?)?,
            parent_goid: match layout.parent_goid {
                Some(offset) => word(offset)?,
                None => 0,
            },
            creation_pc: word(layout.gopc)?,
            start_pc: word(layout.startpc)?,
            wait_since_ns: Some(word(layout.waitsince)?).filter(|since| *since != 0),
            stack_lo: word(layout.stack_lo)?,
            stack_hi: word(layout.stack_hi)?,
            sp: word(layout.sched_sp)?,
            pc: word(layout.sched_pc)?,
            bp: word(layout.sched_bp)?,
            lr: word(layout.sched_lr)?,
            syscall_sp: word(layout.syscallsp)?,
            syscall_pc: word(layout.syscallpc)?,
            tracking_seq: match layout.tracking_seq {
                Some(offset) => Some(*bytes.get(at(offset)?)?),
                None => None,
            },
            labels: word(layout.labels)?,
            scanned: status & SCAN != 0,
        })
    }
}

#[cfg(test)]
#[path = "census_tests.rs"]
pub(crate) mod tests;
