//! The program of `births` mode, at two of the places: what each `go` statement made, and how much of it has ended, is counted
//! here. Parks it knows nothing of.

use aya_ebpf::bindings::BPF_NOEXIST;
use aya_ebpf::macros::{map, uprobe};
use aya_ebpf::maps::PerCpuHashMap;
use aya_ebpf::programs::ProbeContext;
use parkwarden_common::filter::{SiteCounts, SiteKey};
use parkwarden_common::record::Kind;

use crate::hit::{Hit, increment};

/// Counts of each `go` statement, of `filter` mode too. The agent sets the size.
#[map]
static SITES: PerCpuHashMap<SiteKey, SiteCounts> = PerCpuHashMap::with_max_entries(1 << 10, 0);

/// Where goroutines are made and where they end, see [`crate::programs`].
#[uprobe]
pub fn births(ctx: ProbeContext) -> u32 {
    let Some(hit) = Hit::new(&ctx) else { return 0 };
    match hit.cookie.kind() {
        Kind::Created => created(&hit, &ctx),
        Kind::Exited => exited(&hit, &ctx),
        // It is put on no other place.
        Kind::Parked | Kind::Readied | Kind::Waited => 0,
    }
}

#[inline(always)]
pub(crate) fn created(hit: &Hit, ctx: &ProbeContext) -> u32 {
    let g = hit.registers.new_g();
    let Some(creation_pc) = hit.field(g, hit.cookie.gopc) else {
        return hit.read_fault(ctx, g);
    };
    count_site(hit, ctx, creation_pc, |counts| &raw mut counts.created)
}

#[inline(always)]
pub(crate) fn exited(hit: &Hit, ctx: &ProbeContext) -> u32 {
    let g = hit.registers.current_g();
    let Some(creation_pc) = hit.field(g, hit.cookie.gopc) else {
        return hit.read_fault(ctx, g);
    };
    count_site(hit, ctx, creation_pc, |counts| &raw mut counts.exited)
}

#[inline(always)]
fn count_site(hit: &Hit, ctx: &ProbeContext, creation_pc: u64, count: impl Fn(&mut SiteCounts) -> *mut u64) -> u32 {
    let key = SiteKey { creation_pc, slot: hit.cookie.slot(), reserved: 0 };
    let counts = match SITES.get_ptr_mut(key) {
        Some(counts) => Some(counts),
        None => {
            // Another CPU may be faster: then it is there as well.
            let _ = SITES.insert(key, SiteCounts::default(), u64::from(BPF_NOEXIST));
            SITES.get_ptr_mut(key)
        }
    };
    match counts {
        Some(counts) => {
            // SAFETY: the pointer is to this CPU's map value.
            unsafe { increment(count(&mut *counts)) };
            0
        }
        None => hit.map_full(ctx),
    }
}
