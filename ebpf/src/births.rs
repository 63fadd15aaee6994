//! The program of `births` mode, at two of the places: what each `go` statement made, and how much of it has ended, is counted
//! here, and of some creations it is told who they came from. Parks it knows nothing of.

use aya_ebpf::bindings::BPF_NOEXIST;
use aya_ebpf::macros::{map, uprobe};
use aya_ebpf::maps::PerCpuHashMap;
use aya_ebpf::programs::ProbeContext;
use parkwarden_common::filter::{SiteCounts, SiteKey};
use parkwarden_common::record::Kind;

use crate::creators;
use crate::hit::{Hit, increment};

/// Counts of each `go` statement, of the other modes too. The agent sets the size.
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
        Kind::Parked | Kind::Readied | Kind::Waited | Kind::Creator => 0,
    }
}

#[inline(always)]
pub(crate) fn created(hit: &Hit, ctx: &ProbeContext) -> u32 {
    let g = hit.registers.new_g();
    let Some(creation_pc) = hit.field(g, hit.cookie.gopc) else {
        return hit.read_fault(ctx, g);
    };
    match site(hit, creation_pc) {
        Some(counts) => {
            count_created(hit, counts, creation_pc);
            0
        }
        None => hit.map_full(ctx),
    }
}

/// Counts a creation, and tells who it came from if it is its turn.
#[inline(always)]
pub(crate) fn count_created(hit: &Hit, counts: *mut SiteCounts, creation_pc: u64) {
    // SAFETY: the pointer is to this CPU's map value.
    let created = unsafe {
        increment(&raw mut (*counts).created);
        (*counts).created
    };
    creators::tell(hit, creation_pc, created);
}

#[inline(always)]
pub(crate) fn exited(hit: &Hit, ctx: &ProbeContext) -> u32 {
    let g = hit.registers.current_g();
    let Some(creation_pc) = hit.field(g, hit.cookie.gopc) else {
        return hit.read_fault(ctx, g);
    };
    match site(hit, creation_pc) {
        Some(counts) => {
            // SAFETY: the pointer is to this CPU's map value.
            unsafe { increment(&raw mut (*counts).exited) };
            0
        }
        None => hit.map_full(ctx),
    }
}

/// This CPU's counts of a `go` statement, if there is room for them.
#[inline(always)]
pub(crate) fn site(hit: &Hit, creation_pc: u64) -> Option<*mut SiteCounts> {
    let key = SiteKey { creation_pc, slot: hit.cookie.slot(), reserved: 0 };
    if let Some(counts) = SITES.get_ptr_mut(key) {
        return Some(counts);
    }
    // Another CPU may be faster: then it is there as well.
    let _ = SITES.insert(key, SiteCounts::default(), u64::from(BPF_NOEXIST));
    SITES.get_ptr_mut(key)
}
