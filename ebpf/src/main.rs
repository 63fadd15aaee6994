//! The BPF programs: four uprobe programs that turn a hit in the Go runtime into one record of the ring buffer.
//!
//! Each reads what it needs from registers and from the goroutine's `g`, at offsets that come in the attach cookie.
//! Deliberately absent: any decision (filtering and verdicts belong to the agent), kernel structures (rustc emits no
//! CO-RE relocations) and wake-ups of the reader: a wake-up runs inside the probe and the target pays for it.
//!
//! Only the BPF target has anything to compile: on the host this crate is empty, so that workspace-wide commands work.
#![cfg_attr(target_arch = "bpf", no_std, no_main, feature(asm_experimental_arch))]

#[cfg(target_arch = "bpf")]
mod programs;
#[cfg(target_arch = "bpf")]
mod registers;

#[cfg(not(target_arch = "bpf"))]
fn main() {}
