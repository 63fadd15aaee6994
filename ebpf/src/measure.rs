//! Programs that are attached to parkwarden itself alone, to measure: what a hit costs, and how fast events are taken.

use aya_ebpf::macros::uprobe;
use aya_ebpf::programs::ProbeContext;
use parkwarden_common::record::Kind;

use crate::hit::Hit;

/// Records that one hit of [`generate`] writes.
const GENERATED: u64 = parkwarden_common::record::GENERATED_PER_HIT;

/// Does nothing: what is left is the price of the hit itself.
#[uprobe]
pub fn empty(_ctx: ProbeContext) -> u32 {
    0
}

/// Writes many records: goroutines park and are woken, one after the other.
#[uprobe]
pub fn generate(ctx: ProbeContext) -> u32 {
    let Some(hit) = Hit::new(&ctx) else { return 0 };
    let first = hit.registers.current_g();
    for i in 0..GENERATED / 2 {
        let goid = first.wrapping_add(i);
        hit.submit(&ctx, hit.header(Kind::Parked, goid, 7));
        hit.submit(
            &ctx,
            parkwarden_common::record::Readied { header: hit.header(Kind::Readied, goid, 0), waker_goid: 1 },
        );
    }
    0
}
