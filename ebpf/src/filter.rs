//! The program of `filter` mode, at the same places: parks are kept here, and only one that was long reaches the
//! agent when it ends. Those that have not ended, and what each `go` statement made, the agent reads from the maps.

use aya_ebpf::macros::{map, uprobe};
use aya_ebpf::maps::HashMap;
use aya_ebpf::programs::ProbeContext;
use parkwarden_common::filter::{Park, ParkKey};
use parkwarden_common::record::{Header, Kind, Waited};

use crate::births;
use crate::hit::{Hit, now_ns};

/// Goroutines that park, or have parked and live. The agent sets the size.
#[map]
static PARKS: HashMap<ParkKey, Park> = HashMap::with_max_entries(1 << 10, 0);

/// Parks shorter than this do not reach the agent. It sets its own when it loads the object.
#[unsafe(no_mangle)]
static MIN_PARK_NS: u64 = 10_000_000;

/// At each of the four places, see [`crate::programs`].
#[uprobe]
pub fn filter(ctx: ProbeContext) -> u32 {
    let Some(hit) = Hit::new(&ctx) else { return 0 };
    match hit.cookie.kind() {
        Kind::Created => births::created(&hit, &ctx),
        Kind::Parked => parked(&hit, &ctx),
        Kind::Readied => readied(&hit, &ctx),
        // No place stands for the other.
        Kind::Exited | Kind::Waited | Kind::Creator => exited(&hit, &ctx),
    }
}

#[inline(always)]
fn parked(hit: &Hit, ctx: &ProbeContext) -> u32 {
    let g = hit.registers.current_g();
    let Some(key) = park_key(hit, g) else {
        return hit.read_fault(ctx, g);
    };
    let park = Park { since_ns: now_ns(), wait_reason: u64::from(hit.registers.park_reason()) };
    match PARKS.get_ptr_mut(key) {
        Some(known) => {
            // SAFETY: map values live until they are removed, and are not reused before this program ends. Only the
            // goroutine's own park and its waker write here, one after the other.
            unsafe {
                (*known).wait_reason = park.wait_reason;
                (*known).since_ns = park.since_ns;
            }
            0
        }
        None if PARKS.insert(key, park, 0).is_ok() => 0,
        None => hit.map_full(ctx),
    }
}

#[inline(always)]
fn readied(hit: &Hit, ctx: &ProbeContext) -> u32 {
    let g = hit.registers.readied_g();
    let Some(key) = park_key(hit, g) else {
        return hit.read_fault(ctx, g);
    };
    let Some(known) = PARKS.get_ptr_mut(key) else { return 0 };
    // SAFETY: as in `parked`.
    let Park { since_ns, wait_reason } = unsafe { *known };
    if since_ns == 0 {
        return 0;
    }
    // SAFETY: as in `parked`.
    unsafe { (*known).since_ns = 0 };
    let time_ns = now_ns();
    // SAFETY: a constant that the agent has set; volatile, so that the compiler does not take the one above for it.
    if time_ns.wrapping_sub(since_ns) < unsafe { core::ptr::read_volatile(&raw const MIN_PARK_NS) } {
        return 0;
    }
    let header = Header {
        time_ns,
        goid: key.goid,
        probe: hit.cookie.probe,
        kind: Kind::Waited as u8,
        wait_reason: wait_reason as u8,
        reserved: 0,
    };
    hit.submit(ctx, Waited { header, since_ns, waker_goid: hit.running_goid() })
}

#[inline(always)]
fn exited(hit: &Hit, ctx: &ProbeContext) -> u32 {
    let g = hit.registers.current_g();
    // One after the other: of a pair of options LLVM makes code that reads a stack slot which one path has not written,
    // which the verifiers of Linux 5.15 to 6.2 refuse.
    let Some(key) = park_key(hit, g) else {
        return hit.read_fault(ctx, g);
    };
    // Fails for a goroutine that never parked.
    let _ = PARKS.remove(key);
    births::exited(hit, ctx)
}

#[inline(always)]
fn park_key(hit: &Hit, g: u64) -> Option<ParkKey> {
    Some(ParkKey { goid: hit.field(g, hit.cookie.goid)?, slot: hit.cookie.slot(), reserved: 0 })
}
