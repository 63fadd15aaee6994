//! The BPF programs: one for each mode, run at four places of the Go runtime. That of `trace` mode turns a hit into one
//! record of the ring buffer; that of `filter` mode keeps it in a map and tells of long parks alone; that of `births` mode counts
//! at two of them; each tells of some creations who they came from. Which of the places was hit the attach cookie says: so all four can be one link, which comes and goes at once.
//!
//! Each reads what it needs from registers and from the goroutine's `g`, at offsets that come in the attach cookie.
//! Deliberately absent: verdicts, kernel structures (rustc emits no CO-RE relocations) and wake-ups of the reader: a
//! wake-up runs inside the probe and the target pays for it.
//!
//! Only the BPF target has anything to compile: on the host this crate is empty, so that workspace-wide commands work.
#![cfg_attr(target_arch = "bpf", no_std, no_main, feature(asm_experimental_arch))]

#[cfg(target_arch = "bpf")]
mod births;
#[cfg(target_arch = "bpf")]
mod creators;
#[cfg(target_arch = "bpf")]
mod filter;
#[cfg(target_arch = "bpf")]
mod hit;
#[cfg(target_arch = "bpf")]
mod lifecycle;
#[cfg(target_arch = "bpf")]
mod measure;
#[cfg(target_arch = "bpf")]
mod programs;
#[cfg(target_arch = "bpf")]
mod registers;

#[cfg(not(target_arch = "bpf"))]
fn main() {}

/// bpf_probe_read_user, bpf_get_attach_cookie and the ring buffer want a GPL-compatible licence.
#[cfg(target_arch = "bpf")]
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[cfg(target_arch = "bpf")]
#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
