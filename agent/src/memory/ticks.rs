//! How fast the processor's clock ticks, which Go's block and mutex profiles count in (`cputicks`): the time stamp counter on
//! x86-64, the virtual counter on arm64. All processes of a machine read the same one.

use std::time::{Duration, Instant};

/// Measured over that time; Go itself takes 5 ms at least.
const OVER: Duration = Duration::from_millis(50);

/// Ticks in a second, right within a thousandth.
pub fn per_second() -> f64 {
    let (time, ticks) = (Instant::now(), now());
    std::thread::sleep(OVER);
    let ticks = now().wrapping_sub(ticks);
    ticks as f64 / time.elapsed().as_secs_f64()
}

#[cfg(target_arch = "x86_64")]
fn now() -> u64 {
    // SAFETY: the instruction only reads a counter, and every x86-64 processor has it.
    unsafe { core::arch::x86_64::_rdtsc() }
}

#[cfg(target_arch = "aarch64")]
fn now() -> u64 {
    let ticks: u64;
    // SAFETY: the instruction only reads a counter, which Linux lets every process read.
    unsafe { core::arch::asm!("mrs {}, cntvct_el0", out(reg) ticks, options(nomem, nostack)) };
    ticks
}
