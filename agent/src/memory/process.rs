//! The memory of a live process, read with `process_vm_readv`: the process is not stopped and does not notice.

use std::io::IoSliceMut;

use nix::errno::Errno;
use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::unistd::Pid;

use super::{Fault, Memory, Request};

/// Reads served by one system call (`IOV_MAX`, `include/uapi/linux/uio.h`).
const MAX_VECTORS: usize = 1024;

/// See the module. Holds no handle: whoever uses it knows, by a pidfd, that the pid still names the same process.
#[derive(Clone, Copy, Debug)]
pub struct ProcessMemory {
    pid: Pid,
}

impl ProcessMemory {
    /// The memory of process `pid`.
    pub fn new(pid: u32) -> Self {
        Self { pid: Pid::from_raw(i32::try_from(pid).unwrap_or(i32::MAX)) }
    }
}

impl Memory for ProcessMemory {
    fn read(&self, address: u64, buf: &mut [u8]) -> Result<(), Fault> {
        let len = buf.len();
        let unmapped = Fault::Unmapped { address, len };
        let base = usize::try_from(address).map_err(|_| unmapped)?;
        match process_vm_readv(self.pid, &mut [IoSliceMut::new(buf)], &[RemoteIoVec { base, len }]) {
            Ok(read) if read == len => Ok(()),
            Ok(_) => Err(unmapped),
            Err(errno) => Err(fault(errno, unmapped)),
        }
    }

    fn read_many(&self, requests: &mut [Request<'_>]) -> Result<(), Fault> {
        for batch in requests.chunks_mut(MAX_VECTORS) {
            let mut rest = batch;
            while !rest.is_empty() {
                let served = self.read_batch(rest)?;
                // The call stops at the first request it cannot serve; whatever comes after it is tried again.
                rest = rest.get_mut(served + 1..).unwrap_or_default();
            }
        }
        Ok(())
    }
}

impl ProcessMemory {
    /// Serves requests up to the first that cannot be served, and returns how many were.
    fn read_batch(&self, requests: &mut [Request<'_>]) -> Result<usize, Fault> {
        let remote: Vec<RemoteIoVec> = requests
            .iter()
            .map(|request| RemoteIoVec {
                base: usize::try_from(request.address).unwrap_or(usize::MAX),
                len: request.buf.len(),
            })
            .collect();
        let mut local: Vec<IoSliceMut<'_>> = requests.iter_mut().map(|request| IoSliceMut::new(request.buf)).collect();
        let mut read = match process_vm_readv(self.pid, &mut local, &remote) {
            Ok(read) => read,
            Err(errno) => match fault(errno, Fault::Unmapped { address: 0, len: 0 }) {
                Fault::Unmapped { .. } => 0,
                other => return Err(other),
            },
        };
        let mut served = 0;
        for (index, request) in requests.iter_mut().enumerate() {
            request.ok = read >= request.buf.len();
            if !request.ok {
                break;
            }
            read -= request.buf.len();
            served = index + 1;
        }
        Ok(served)
    }
}

fn fault(errno: Errno, unmapped: Fault) -> Fault {
    match errno {
        Errno::ESRCH => Fault::Gone,
        Errno::EPERM => Fault::Denied,
        _ => unmapped,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> ProcessMemory {
        ProcessMemory::new(std::process::id())
    }

    #[test]
    fn own_memory_is_read() {
        let word = 0x1234_5678_9abc_def0_u64;
        assert_eq!(own().read_u64(&raw const word as u64), Ok(word));
    }

    #[test]
    fn what_is_not_mapped_is_a_fault() {
        assert!(matches!(own().read_u64(8), Err(Fault::Unmapped { address: 8, len: 8 })));
        assert!(matches!(own().read_u64(u64::MAX), Err(Fault::Unmapped { .. })));
    }

    #[test]
    fn a_faulting_request_does_not_spoil_the_others() {
        let words: Vec<u64> = (0..3000).collect();
        let mut bufs = vec![[0u8; 8]; words.len()];
        let mut requests: Vec<Request<'_>> = bufs
            .iter_mut()
            .zip(&words)
            .map(|(buf, word)| Request {
                address: if word % 700 == 3 { 16 } else { std::ptr::from_ref(word) as u64 },
                buf,
                ok: false,
            })
            .collect();
        own().read_many(&mut requests).expect("alive");
        for (index, request) in requests.iter().enumerate() {
            assert_eq!(request.ok, index % 700 != 3, "request {index}");
            if request.ok {
                assert_eq!(u64::from_le_bytes(request.buf[..8].try_into().expect("8 bytes")), index as u64);
            }
        }
    }

    #[test]
    fn a_process_that_is_gone_is_told_apart() {
        let mut child = std::process::Command::new("true").spawn().expect("true runs");
        let memory = ProcessMemory::new(child.id());
        child.wait().expect("it ends");
        assert_eq!(memory.read_u64(4096), Err(Fault::Gone));
    }
}
