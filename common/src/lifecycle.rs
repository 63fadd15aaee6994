//! Records of the ring that tells which processes of the host execute a program or exit.

use core::mem::size_of;

/// A process has executed a program.
pub const EXECUTED: u32 = 1;

/// The first thread of a process has exited; the others may be about to.
pub const EXITED: u32 = 2;

/// One record, 8 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Lifecycle {
    /// The process, in the initial PID namespace.
    pub pid: u32,
    /// [`EXECUTED`] or [`EXITED`].
    pub kind: u32,
}

const _: () = assert!(size_of::<Lifecycle>() == 8);

impl Lifecycle {
    /// Decodes a record of the ring; `None` for what is none.
    pub fn decode(record: &[u8]) -> Option<Self> {
        let (pid, kind) = record.split_first_chunk::<4>()?;
        let kind = u32::from_ne_bytes(kind.try_into().ok()?);
        matches!(kind, EXECUTED | EXITED).then_some(Self { pid: u32::from_ne_bytes(*pid), kind })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_records_of_known_kinds_are_taken() {
        let record = |kind: u32| {
            let mut bytes = [0; 8];
            bytes[..4].copy_from_slice(&7u32.to_ne_bytes());
            bytes[4..].copy_from_slice(&kind.to_ne_bytes());
            bytes
        };
        assert_eq!(Lifecycle::decode(&record(EXITED)), Some(Lifecycle { pid: 7, kind: EXITED }));
        assert_eq!(Lifecycle::decode(&record(3)), None);
        assert_eq!(Lifecycle::decode(&record(EXITED)[..7]), None);
    }
}
