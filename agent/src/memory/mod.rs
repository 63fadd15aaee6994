//! The one door to a target's memory: a live process, a saved image and a test image all are [`Memory`].
//!
//! Deliberately absent: writing. Nothing in parkwarden can change a target's memory. (`allocator` is about parkwarden's own.)

pub mod allocator;
pub mod blocks;
pub mod census;
pub mod chain;
pub mod globals;
pub mod http_request;
pub mod image;
pub mod kinds;
pub mod labels;
pub mod launch;
pub mod look;
pub mod pidfd;
pub mod process;
pub mod stacks;
pub mod stop;
pub mod ticks;
pub mod together;
pub mod unwind;
pub mod written;

use std::borrow::Cow;

pub use stacks::{StackId, StackTable};

/// Reads a target's memory.
pub trait Memory {
    /// Fills `buf` from `address`, all of it or none.
    fn read(&self, address: u64, buf: &mut [u8]) -> Result<(), Fault>;

    /// Lends bytes that are held in this process's own memory; `None` for memory that has to be read.
    fn lend(&self, address: u64, len: usize) -> Option<&[u8]> {
        let _ = (address, len);
        None
    }

    /// The same for several threads, where they may read at the same time.
    fn for_threads(&self) -> Option<&(dyn Memory + Sync)> {
        None
    }

    /// Serves many reads at once, which costs a live process far fewer system calls. Requests that cannot be served
    /// get `ok == false` and an undefined buffer; the others are not affected. Fails as a whole only when nothing can
    /// be read any more.
    fn read_many(&self, requests: &mut [Request<'_>]) -> Result<(), Fault> {
        for request in requests {
            match self.read(request.address, request.buf) {
                Ok(()) => request.ok = true,
                Err(Fault::Unmapped { .. }) => request.ok = false,
                Err(fatal) => return Err(fatal),
            }
        }
        Ok(())
    }

    /// Reads a 64-bit little-endian word.
    fn read_u64(&self, address: u64) -> Result<u64, Fault> {
        let mut word = [0; 8];
        self.read(address, &mut word)?;
        Ok(u64::from_le_bytes(word))
    }
}

/// One read of [`Memory::read_many`].
#[derive(Debug)]
pub struct Request<'a> {
    /// Where to read from.
    pub address: u64,
    /// Where to put it, and how much.
    pub buf: &'a mut [u8],
    /// Whether `buf` was filled.
    pub ok: bool,
}

/// A read that could not be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// No readable memory there.
    #[error("address {address:#x} is not readable ({len} bytes)")]
    Unmapped {
        /// First byte asked for.
        address: u64,
        /// How many bytes.
        len: usize,
    },
    /// The process is gone.
    #[error("the process has exited")]
    Gone,
    /// The kernel does not let this user read that process.
    #[error("no permission to read the process's memory: run as root, or with CAP_SYS_PTRACE")]
    Denied,
}

/// Bytes at `address`: lent if the memory is at hand, else read.
pub fn bytes_at(memory: &dyn Memory, address: u64, len: usize) -> Option<Cow<'_, [u8]>> {
    if let Some(lent) = memory.lend(address, len) {
        return Some(Cow::Borrowed(lent));
    }
    let mut bytes = vec![0; len];
    let mut requests = [Request { address, buf: &mut bytes, ok: false }];
    memory.read_many(&mut requests).ok()?;
    let [request] = requests;
    if request.ok { Some(Cow::Owned(bytes)) } else { None }
}

/// The 64-bit word at `offset` of bytes that were read, if it is all there.
pub(crate) fn word_at(bytes: &[u8], offset: usize) -> Option<u64> {
    let end = offset.checked_add(8)?;
    Some(u64::from_le_bytes(bytes.get(offset..end)?.try_into().ok()?))
}
