//! The attach cookie: the whole configuration of one attached probe in the 64 bits that the kernel hands to its BPF
//! program, so that a probe hit needs no map lookup to know where the target's fields are.
//!
//! Layout, low bits first: 12 bits probe index (of the lowest two bits what kind of place it is), 4 bits how far `sched.bp` lies
//! behind `m` divided by 8, then six bytes, each an offset divided by 8.

use crate::record::Kind;

/// Highest probe index + 1: what 12 bits hold.
pub const MAX_PROBES: u32 = 1 << 12;

/// Probes of one attachment: one for each of [`Kind::PROBED`], in their order.
pub const PROBES_PER_SLOT: u32 = Kind::PROBED.len() as u32;

/// Attachments there can be at once.
pub const MAX_SLOTS: u32 = MAX_PROBES / PROBES_PER_SLOT;

/// Offsets a probe's program needs, in bytes, and the index its counters and records carry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cookie {
    /// Index into the counters, unique among the attached probes; below [`MAX_PROBES`].
    pub probe: u16,
    /// Offset of `goid` in `runtime.g`.
    pub goid: u16,
    /// Offset of `parentGoid` in `runtime.g`; 0 where the version has none (before Go 1.21).
    pub parent_goid: u16,
    /// Offset of `gopc` in `runtime.g`.
    pub gopc: u16,
    /// Offset of `startpc` in `runtime.g`.
    pub startpc: u16,
    /// Offset of `m` in `runtime.g`.
    pub m: u16,
    /// Offset of `curg` in `runtime.m`.
    pub curg: u16,
    /// Offset of `sched.bp` in `runtime.g`; 0 where no stacks are to be taken.
    pub sched_bp: u16,
}

impl Cookie {
    /// The 64 bits, or `None` when an offset is not a multiple of 8 below 2048, `sched.bp` is not within 120 bytes behind `m`, or
    /// the index is too large.
    pub const fn encode(&self) -> Option<u64> {
        if self.probe as u32 >= MAX_PROBES {
            return None;
        }
        let offsets = [self.goid, self.parent_goid, self.gopc, self.startpc, self.m, self.curg];
        let mut bits = self.probe as u64;
        if self.sched_bp != 0 {
            if !self.sched_bp.is_multiple_of(8) || self.sched_bp <= self.m || self.sched_bp - self.m > 15 * 8 {
                return None;
            }
            bits |= ((self.sched_bp - self.m) as u64 / 8) << 12;
        }
        let mut i = 0;
        while i < offsets.len() {
            if !offsets[i].is_multiple_of(8) || offsets[i] >= 256 * 8 {
                return None;
            }
            bits |= (offsets[i] as u64 / 8) << (16 + 8 * i);
            i += 1;
        }
        Some(bits)
    }

    /// The attachment this probe is one of: the probes of a slot have consecutive indices.
    #[inline(always)]
    pub const fn slot(&self) -> crate::filter::Slot {
        self.probe as u32 / PROBES_PER_SLOT
    }

    /// What the probe's place stands for: its position within the slot.
    #[inline(always)]
    pub const fn kind(&self) -> Kind {
        match self.probe as u32 % PROBES_PER_SLOT {
            0 => Kind::Created,
            1 => Kind::Parked,
            2 => Kind::Readied,
            _ => Kind::Exited,
        }
    }

    /// The reverse of [`Cookie::encode`]; total, as any 64 bits are some cookie.
    #[inline(always)]
    pub const fn decode(bits: u64) -> Self {
        Self {
            probe: (bits & 0xfff) as u16,
            goid: offset(bits, 0),
            parent_goid: offset(bits, 1),
            gopc: offset(bits, 2),
            startpc: offset(bits, 3),
            m: offset(bits, 4),
            curg: offset(bits, 5),
            sched_bp: match (bits >> 12) & 0xf {
                0 => 0,
                words => offset(bits, 4) + words as u16 * 8,
            },
        }
    }
}

#[inline(always)]
const fn offset(bits: u64, index: u32) -> u16 {
    ((bits >> (16 + 8 * index)) & 0xff) as u16 * 8
}
