//! The program of `trace` mode: every hit is one record. Creations are counted here too, to know of which to tell who they came from.

use aya_ebpf::macros::uprobe;
use aya_ebpf::programs::ProbeContext;
use parkwarden_common::cookie::Cookie;
use parkwarden_common::record::{Created, Kind, Readied};

use crate::births;
use crate::hit::Hit;

/// At each of the four places.
#[uprobe]
pub fn trace(ctx: ProbeContext) -> u32 {
    let Some(hit) = Hit::new(&ctx) else { return 0 };
    match hit.cookie.kind() {
        Kind::Created => created(&hit, &ctx),
        Kind::Parked => parked(&hit, &ctx),
        Kind::Readied => readied(&hit, &ctx),
        // No place stands for the other.
        Kind::Exited | Kind::Waited | Kind::Creator => exited(&hit, &ctx),
    }
}

/// At a point of `runtime.newproc.func1` where the new g is complete and about to be queued.
#[inline(always)]
fn created(hit: &Hit, ctx: &ProbeContext) -> u32 {
    let g = hit.registers.new_g();
    // One after the other, see `filter::exited`.
    let Some(goid) = hit.field(g, hit.cookie.goid) else {
        return hit.read_fault(ctx, g);
    };
    let Some(Origin { parent_goid, creation_pc, start_pc, .. }) = origin(hit, g) else {
        return hit.read_fault(ctx, g);
    };
    if let Some(counts) = births::site(hit, creation_pc) {
        births::count_created(hit, counts, creation_pc);
    }
    let header = hit.header(Kind::Created, goid, 0);
    hit.submit(ctx, Created { header, parent_goid, creation_pc, start_pc })
}

/// Fields of a `g` that stand in this order, one behind the other, from Go 1.21 on.
#[derive(Clone, Copy)]
#[repr(C)]
struct Origin {
    parent_goid: u64,
    creation_pc: u64,
    ancestors: u64,
    start_pc: u64,
}

/// Where a goroutine comes from, in one read if its fields stand together: each read costs the target time.
#[inline(always)]
fn origin(hit: &Hit, g: u64) -> Option<Origin> {
    let Cookie { parent_goid, gopc, startpc, .. } = hit.cookie;
    if gopc == parent_goid.wrapping_add(8) && startpc == parent_goid.wrapping_add(24) {
        return hit.value(g, parent_goid);
    }
    let parent = if parent_goid == 0 { 0 } else { hit.field(g, parent_goid)? };
    Some(Origin {
        parent_goid: parent,
        creation_pc: hit.field(g, gopc)?,
        ancestors: 0,
        start_pc: hit.field(g, startpc)?,
    })
}

/// At a point of `runtime.gopark` where its arguments are still in their registers.
#[inline(always)]
fn parked(hit: &Hit, ctx: &ProbeContext) -> u32 {
    let g = hit.registers.current_g();
    let Some(goid) = hit.field(g, hit.cookie.goid) else {
        return hit.read_fault(ctx, g);
    };
    hit.submit(ctx, hit.header(Kind::Parked, goid, hit.registers.park_reason()))
}

/// At a point of `runtime.ready` where its arguments are still in their registers.
#[inline(always)]
fn readied(hit: &Hit, ctx: &ProbeContext) -> u32 {
    let g = hit.registers.readied_g();
    let Some(goid) = hit.field(g, hit.cookie.goid) else {
        return hit.read_fault(ctx, g);
    };
    let header = hit.header(Kind::Readied, goid, 0);
    hit.submit(ctx, Readied { header, waker_goid: hit.running_goid() })
}

/// At a point of `runtime.goexit1`, which runs on the goroutine that ends.
#[inline(always)]
fn exited(hit: &Hit, ctx: &ProbeContext) -> u32 {
    let g = hit.registers.current_g();
    let Some(goid) = hit.field(g, hit.cookie.goid) else {
        return hit.read_fault(ctx, g);
    };
    hit.submit(ctx, hit.header(Kind::Exited, goid, 0))
}
