//! What a process uses and when it started, from `/proc/PID/stat` and `statm`.
//!
//! This is the one place that reads `stat`. Six of its fields are a few lines; a crate for all of `/proc` would be more to build
//! than it saves, and most of what else is read there is read in ways of its own: through a pidfd's back, or of a made-up host.

use std::{fs, io};

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// Memory and CPU time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Resident memory.
    pub rss_bytes: u64,
    /// CPU time since its start, in user and kernel.
    pub cpu_ns: u64,
}

impl Usage {
    /// Of process `pid`; none when it is gone.
    pub fn of(pid: u32) -> Option<Self> {
        let statm = fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
        let pages: u64 = statm.split_ascii_whitespace().nth(1)?.parse().ok()?;
        let page = rustix::param::page_size() as u64;
        Some(Self { rss_bytes: pages.saturating_mul(page), cpu_ns: ticks_ns(Stat::of(pid)?.cpu_ticks) })
    }
}

/// What Prometheus' client libraries tell of the process that they are in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ProcessNumbers {
    /// CPU time since its start, in user and kernel.
    pub cpu_ns: u64,
    /// Resident memory.
    pub rss_bytes: u64,
    /// Address space.
    pub virtual_bytes: u64,
    /// When it started, nanoseconds since the Unix epoch.
    pub start_unix_ns: u64,
    /// Open files.
    pub open_files: Option<u64>,
    /// How many it may open.
    pub max_files: Option<u64>,
}

/// Open files that are counted; counting more takes too long.
const MAX_FILES: usize = 100_000;

impl ProcessNumbers {
    /// Of process `pid`; none when it is gone.
    pub fn of(pid: u32) -> Option<Self> {
        let statm = fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
        let mut pages = statm.split_ascii_whitespace().map_while(|pages| pages.parse::<u64>().ok());
        let (whole, resident) = (pages.next()?, pages.next()?);
        let page = rustix::param::page_size() as u64;
        let stat = Stat::of(pid)?;
        let age = crate::clock::now_ns().saturating_sub(start_mono_ns(stat.start_ticks));
        let limits = fs::read_to_string(format!("/proc/{pid}/limits")).ok();
        Some(Self {
            cpu_ns: ticks_ns(stat.cpu_ticks),
            rss_bytes: resident.saturating_mul(page),
            virtual_bytes: whole.saturating_mul(page),
            start_unix_ns: crate::clock::unix_now_ns().saturating_sub(age),
            open_files: fs::read_dir(format!("/proc/{pid}/fd")).ok().map(|files| files.take(MAX_FILES).count() as u64),
            max_files: limits.and_then(|limits| max_files(&limits)),
        })
    }
}

/// The soft limit of open files.
fn max_files(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

/// Some fields of `/proc/PID/stat`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// It has ended, and its parent has not noticed.
    pub is_zombie: bool,
    /// A signal, or a tracer, has stopped it: nothing of it runs.
    pub is_stopped: bool,
    /// It is part of the kernel.
    pub is_kernel_thread: bool,
    /// CPU time in user and kernel, in clock ticks.
    pub cpu_ticks: u64,
    /// When it started, in clock ticks since the boot.
    pub start_ticks: u64,
    /// Bottom of the stack of its first thread; zero for who may not see it, and in the middle of an exec.
    pub start_stack: u64,
    /// What `wait` will tell; of a zombie only.
    pub exit_status: i32,
}

impl Stat {
    /// Of process `pid`; none when there is none.
    pub fn of(pid: u32) -> Option<Self> {
        Self::read(pid).ok()
    }

    /// The same, or why there is none.
    pub fn read(pid: u32) -> io::Result<Self> {
        // The command's name is that of its file, in whatever encoding.
        let stat = fs::read(format!("/proc/{pid}/stat"))?;
        Self::parse(&String::from_utf8_lossy(&stat)).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// The command's name, the second field, is in parentheses and can hold anything.
    fn parse(stat: &str) -> Option<Self> {
        // `PF_KTHREAD`, include/linux/sched.h.
        const KERNEL_THREAD: u64 = 0x0020_0000;
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
        // Numbered as in proc(5), where the state is field 3.
        let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
        Some(Self {
            is_zombie: *fields.first()? == "Z",
            is_stopped: matches!(*fields.first()?, "T" | "t"),
            is_kernel_thread: number(9)? & KERNEL_THREAD != 0,
            cpu_ticks: number(14)?.saturating_add(number(15)?),
            start_ticks: number(22)?,
            start_stack: number(28)?,
            exit_status: fields.get(52 - 3)?.parse().ok()?,
        })
    }
}

/// Clock ticks as nanoseconds.
fn ticks_ns(ticks: u64) -> u64 {
    ticks.saturating_mul(1_000_000_000 / rustix::param::clock_ticks_per_second().max(1))
}

/// Start time in clock ticks as `CLOCK_MONOTONIC` nanoseconds. The kernel counts the ticks on a clock that goes on while
/// the machine sleeps; what it slept until now is taken off.
pub fn start_mono_ns(start_ticks: u64) -> u64 {
    let boottime = clock_gettime(ClockId::Boottime);
    let boottime = boottime.tv_sec.cast_unsigned().saturating_mul(1_000_000_000) + boottime.tv_nsec.cast_unsigned();
    let slept = boottime.saturating_sub(crate::clock::now_ns());
    ticks_ns(start_ticks).saturating_sub(slept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_are_those_of_proc() {
        let stat = "7 (a) b (c)) Z 1 7 7 0 -1 4194560 1 2 3 4 50 60 7 8 20 0 1 0 99 1000 10 0 4194304 5 140 0 0 0 0 0 0 0 0 0 \
                    17 1 0 0 0 0 0 0 0 0 0 0 0 0 9";
        let expected = Stat {
            is_zombie: true,
            is_stopped: false,
            is_kernel_thread: false,
            cpu_ticks: 110,
            start_ticks: 99,
            start_stack: 140,
            exit_status: 9,
        };
        assert_eq!(Stat::parse(stat), Some(expected));
        assert_eq!(Stat::parse("7 (a) S 1"), None);
        assert_eq!(Stat::parse("7 (a"), None);
    }

    #[test]
    fn what_is_ending_is_no_kernel_thread() {
        // Both without an executable: kthreadd, and a process between the loss of its memory and being a zombie.
        let rest = "0 0 0 0 0 0 0 0 20 0 1 0 99 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 17 1 0 0 0 0 0 0 0 0 0 0 0 0 0";
        let is_kernel_thread = |begin: &str| Stat::parse(&format!("{begin} {rest}")).expect("whole").is_kernel_thread;
        assert!(is_kernel_thread("2 (kthreadd) S 0 0 0 0 -1 2129984"));
        assert!(!is_kernel_thread("77 (a) 0) R 1 77 77 0 -1 4228108"));
    }

    #[test]
    fn this_process_uses_something_and_started_before_now() {
        let pid = std::process::id();
        let numbers = ProcessNumbers::of(pid).expect("it lives");
        assert!(numbers.virtual_bytes >= numbers.rss_bytes && numbers.open_files >= Some(3), "{numbers:?}");
        assert!(numbers.max_files >= numbers.open_files && numbers.start_unix_ns < crate::clock::unix_now_ns());
        assert!(Usage::of(pid).expect("it lives").rss_bytes > 1 << 20);
        let start = start_mono_ns(Stat::of(pid).expect("it lives").start_ticks);
        let now = crate::clock::now_ns();
        assert!(start < now && now - start < 3_600_000_000_000, "{start} {now}");
    }
}
