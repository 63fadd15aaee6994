//! The four programs of `trace` mode: every hit is one record.

use aya_ebpf::macros::uprobe;
use aya_ebpf::programs::ProbeContext;
use parkwarden_common::record::{Created, Kind, Readied};

use crate::hit::Hit;

/// At a point of `runtime.newproc.func1` where the new g is complete and about to be queued.
#[uprobe]
pub fn created(ctx: ProbeContext) -> u32 {
    let hit = Hit::new(&ctx);
    let g = hit.registers.new_g();
    let (Some(goid), Some(creation_pc), Some(start_pc)) =
        (hit.field(g, hit.cookie.goid), hit.field(g, hit.cookie.gopc), hit.field(g, hit.cookie.startpc))
    else {
        return hit.read_fault(&ctx, g);
    };
    let parent_goid = if hit.cookie.parent_goid == 0 {
        0
    } else {
        match hit.field(g, hit.cookie.parent_goid) {
            Some(goid) => goid,
            None => return hit.read_fault(&ctx, g),
        }
    };
    let header = hit.header(Kind::Created, goid, 0);
    hit.submit(&ctx, Created { header, parent_goid, creation_pc, start_pc })
}

/// At a point of `runtime.gopark` where its arguments are still in their registers.
#[uprobe]
pub fn parked(ctx: ProbeContext) -> u32 {
    let hit = Hit::new(&ctx);
    let g = hit.registers.current_g();
    let Some(goid) = hit.field(g, hit.cookie.goid) else {
        return hit.read_fault(&ctx, g);
    };
    hit.submit(&ctx, hit.header(Kind::Parked, goid, hit.registers.park_reason()))
}

/// At a point of `runtime.ready` where its arguments are still in their registers.
#[uprobe]
pub fn readied(ctx: ProbeContext) -> u32 {
    let hit = Hit::new(&ctx);
    let g = hit.registers.readied_g();
    let Some(goid) = hit.field(g, hit.cookie.goid) else {
        return hit.read_fault(&ctx, g);
    };
    let header = hit.header(Kind::Readied, goid, 0);
    hit.submit(&ctx, Readied { header, waker_goid: hit.running_goid() })
}

/// At a point of `runtime.goexit1`, which runs on the goroutine that ends.
#[uprobe]
pub fn exited(ctx: ProbeContext) -> u32 {
    let hit = Hit::new(&ctx);
    let g = hit.registers.current_g();
    let Some(goid) = hit.field(g, hit.cookie.goid) else {
        return hit.read_fault(&ctx, g);
    };
    hit.submit(&ctx, hit.header(Kind::Exited, goid, 0))
}
