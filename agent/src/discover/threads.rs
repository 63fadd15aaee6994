//! What the kernel says that threads of a process wait for.

use std::collections::BTreeSet;
use std::fs;

/// Threads of a process that are looked through at most.
const MAX_THREADS: usize = 10_000;

/// System calls that wait for events, timers or connections, and may last as long as there are none: `poll`, `select`, `epoll_wait`,
/// `nanosleep`, `accept` and their kin.
#[cfg(target_arch = "x86_64")]
const EVENTS: &[u64] = &[7, 23, 35, 43, 128, 208, 230, 232, 270, 271, 281, 288, 441];
#[cfg(target_arch = "aarch64")]
const EVENTS: &[u64] = &[4, 22, 72, 73, 101, 115, 137, 202, 242, 441];

/// Those of `threads`, numbered as in the process's own PID namespace, that wait for events.
pub fn waiting_for_events(pid: u32, threads: &BTreeSet<u64>) -> BTreeSet<u64> {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return BTreeSet::new() };
    let in_events = |directory: std::path::PathBuf| {
        let number = own_number(&String::from_utf8_lossy(&fs::read(directory.join("status")).ok()?))?;
        let call = threads.contains(&number).then(|| fs::read_to_string(directory.join("syscall")).ok())??;
        is_event(&call).then_some(number)
    };
    tasks.take(MAX_THREADS).filter_map(|task| in_events(task.ok()?.path())).collect()
}

/// A thread's number in the innermost PID namespace that it is in.
fn own_number(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
    line.split_ascii_whitespace().last()?.parse().ok()
}

/// Whether `/proc/PID/task/TID/syscall` names a call that waits for events.
fn is_event(call: &str) -> bool {
    call.split_ascii_whitespace().next().and_then(|call| call.parse().ok()).is_some_and(|call| EVENTS.contains(&call))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_is_told_by_its_own_number_and_its_call() {
        assert_eq!(own_number("Name:\ta\nNSpid:\t4301\t17\n"), Some(17));
        assert_eq!(own_number("Name:\ta\n"), None);
        assert!(is_event(&format!("{} 0x0 0x0", EVENTS[0])));
        for other in ["running", "1 0x2", "-1 0x7ffc 0x40"] {
            assert!(!is_event(other), "{other}");
        }
    }

    #[test]
    fn who_accepts_connections_waits_for_events() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("its address");
        let (tell, told) = std::sync::mpsc::channel();
        let accepting = std::thread::spawn(move || {
            tell.send(u64::from(nix::unistd::gettid().as_raw().unsigned_abs())).expect("heard");
            listener.accept().map(drop)
        });
        let accepts = BTreeSet::from([told.recv().expect("its number")]);
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        let mut seen = false;
        while !seen && std::time::Instant::now() < deadline {
            seen = waiting_for_events(std::process::id(), &accepts) == accepts;
            std::thread::yield_now();
        }
        drop(std::net::TcpStream::connect(address));
        accepting.join().expect("it ends").expect("connected");
        assert!(seen);
    }
}
