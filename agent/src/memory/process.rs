//! The memory of a live process, read with `process_vm_readv`: the process is not stopped and does not notice.

use std::io::IoSliceMut;

use nix::errno::Errno;
use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::unistd::Pid;

use super::{Fault, Memory, Request};

/// Reads served by one system call (`IOV_MAX`, `include/uapi/linux/uio.h`).
const MAX_VECTORS: usize = 1024;

/// Longest request that is read together with its neighbours.
const SMALL: usize = 4096;

/// Bytes nobody asked for that are read rather than ask for what is behind them apart: a vector costs the kernel about as
/// much as copying them.
const GAP: u64 = 1024;

/// Longest run of neighbours, and bytes of runs read with one system call.
const MAX_RUN: u64 = 64 << 10;
const MAX_RUNS: usize = 1 << 20;

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

    fn for_threads(&self) -> Option<&(dyn Memory + Sync)> {
        Some(self)
    }

    fn read_many(&self, requests: &mut [Request<'_>]) -> Result<(), Fault> {
        let (mut small, mut large): (Vec<&mut Request<'_>>, Vec<&mut Request<'_>>) =
            requests.iter_mut().partition(|request| request.buf.len() <= SMALL);
        small.sort_unstable_by_key(|request| request.address);
        self.read_runs(&mut small)?;
        self.read_each(&mut large)
    }
}

/// Requests that lie so close together that they are one read: how many, and from where to where.
#[derive(Clone, Copy)]
struct Run {
    requests: usize,
    from: u64,
    to: u64,
}

impl Run {
    const fn len(self) -> usize {
        (self.to - self.from) as usize
    }

    /// The run at the beginning of requests in the order of their addresses.
    fn first(requests: &[&mut Request<'_>]) -> Option<Self> {
        let end = |request: &Request<'_>| request.address.saturating_add(request.buf.len() as u64);
        let (first, rest) = requests.split_first()?;
        let mut run = Self { requests: 1, from: first.address, to: end(first) };
        for request in rest {
            let to = run.to.max(end(request));
            if request.address > run.to.saturating_add(GAP) || to - run.from > MAX_RUN {
                break;
            }
            run = Self { requests: run.requests + 1, to, ..run };
        }
        Some(run)
    }
}

impl ProcessMemory {
    /// Serves requests in the order of their addresses, neighbours together.
    fn read_runs(&self, requests: &mut [&mut Request<'_>]) -> Result<(), Fault> {
        let mut bytes = Vec::new();
        let mut rest = requests;
        while !rest.is_empty() {
            let (mut runs, mut ahead, mut len) = (Vec::new(), &*rest, 0);
            while let Some(run) = Run::first(ahead)
                && runs.len() < MAX_VECTORS
                && len + run.len() <= MAX_RUNS
            {
                ahead = ahead.get(run.requests..).unwrap_or_default();
                len += run.len();
                runs.push(run);
            }
            if bytes.len() < len {
                bytes.resize(len, 0);
            }
            let mut read = self.read_vectors(&mut [IoSliceMut::new(&mut bytes[..len])], runs.iter().copied())?;
            let mut from = 0;
            for run in runs {
                let (served, others) = std::mem::take(&mut rest).split_at_mut(run.requests);
                if read < run.len() {
                    // Something in it cannot be read: each by itself. The call stopped there; what is behind it is next.
                    self.read_each(served)?;
                    rest = others;
                    break;
                }
                for request in served {
                    let at = from + (request.address - run.from) as usize;
                    if let Some(found) = bytes.get(at..at.saturating_add(request.buf.len())) {
                        request.buf.copy_from_slice(found);
                        request.ok = true;
                    }
                }
                rest = others;
                from += run.len();
                read -= run.len();
            }
        }
        Ok(())
    }

    /// Serves requests one by one, with few system calls.
    fn read_each(&self, requests: &mut [&mut Request<'_>]) -> Result<(), Fault> {
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

    /// Serves requests up to the first that cannot be served, and returns how many were.
    fn read_batch(&self, requests: &mut [&mut Request<'_>]) -> Result<usize, Fault> {
        let whole = |request: &Request<'_>| Run {
            requests: 1,
            from: request.address,
            to: request.address.saturating_add(request.buf.len() as u64),
        };
        let runs: Vec<Run> = requests.iter().map(|request| whole(request)).collect();
        let mut local: Vec<IoSliceMut<'_>> = requests.iter_mut().map(|request| IoSliceMut::new(request.buf)).collect();
        let mut read = self.read_vectors(&mut local, runs.into_iter())?;
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

    /// Reads runs one behind the other, up to what cannot be read, and returns how many bytes.
    fn read_vectors(&self, local: &mut [IoSliceMut<'_>], runs: impl Iterator<Item = Run>) -> Result<usize, Fault> {
        let base = |run: &Run| usize::try_from(run.from).unwrap_or(usize::MAX);
        let remote: Vec<RemoteIoVec> = runs.map(|run| RemoteIoVec { base: base(&run), len: run.len() }).collect();
        match process_vm_readv(self.pid, local, &remote) {
            Ok(read) => Ok(read),
            Err(errno) => match fault(errno, Fault::Unmapped { address: 0, len: 0 }) {
                Fault::Unmapped { .. } => Ok(0),
                other => Err(other),
            },
        }
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
    fn neighbours_are_read_together_and_each_for_itself_where_one_cannot_be() {
        let bytes: Vec<u8> = (0..=255).cycle().take(200_000).collect();
        let start = bytes.as_ptr() as u64;
        // Upside down, overlapping, with gaps small and large, and longer than a run.
        let places: Vec<(u64, usize)> = (0..1500_u64)
            .rev()
            .map(|i| (i * 130, 64 + (i % 3) as usize * 100))
            .chain([(0, 190_000), (7, 4096)])
            .collect();
        let mut bufs: Vec<Vec<u8>> = places.iter().map(|(_, len)| vec![0; *len]).collect();
        let mut requests: Vec<Request<'_>> = bufs
            .iter_mut()
            .zip(&places)
            .map(|(buf, (offset, _))| Request { address: start + offset, buf, ok: false })
            .collect();
        own().read_many(&mut requests).expect("alive");
        for (request, (offset, len)) in requests.iter().zip(&places) {
            assert!(request.ok && request.buf[..] == bytes[*offset as usize..][..*len], "{offset} {len}");
        }

        // Where memory begins and where it ends: of the program's first segment and of its first thread's stack.
        let maps = std::fs::read_to_string("/proc/self/maps").expect("maps");
        let range = |line: &str| {
            let (from, to) = line.split_once(' ')?.0.split_once('-')?;
            Some((u64::from_str_radix(from, 16).ok()?, u64::from_str_radix(to, 16).ok()?))
        };
        let (mut end_before, mut begin) = (0, None);
        for line in maps.lines() {
            let (from, to) = range(line).expect("a range");
            // Another test may have mapped something that nobody can read.
            let readable = line.split(' ').nth(1).is_some_and(|rights| rights.starts_with('r'));
            if readable && from > end_before {
                begin = Some(from);
                break;
            }
            end_before = to;
        }
        let begin = begin.expect("a mapping that begins where nothing is");
        let (_, end) = maps.lines().find(|line| line.ends_with("[stack]")).and_then(range).expect("a stack");
        let places = [begin - 16, begin - 8, begin, begin + 8, end - 16, end - 8, end, end + 8];
        let mut bufs = [[0u8; 8]; 8];
        let mut requests: Vec<Request<'_>> =
            bufs.iter_mut().zip(places).map(|(buf, address)| Request { address, buf, ok: false }).collect();
        own().read_many(&mut requests).expect("alive");
        let served: Vec<bool> = requests.iter().map(|request| request.ok).collect();
        assert_eq!(served, [false, false, true, true, true, true, false, false]);
    }

    #[test]
    fn a_process_that_is_gone_is_told_apart() {
        let mut child = std::process::Command::new("true").spawn().expect("true runs");
        let memory = ProcessMemory::new(child.id());
        child.wait().expect("it ends");
        assert_eq!(memory.read_u64(4096), Err(Fault::Gone));
    }
}
