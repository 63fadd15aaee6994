//! Tests of the stack walk on images, hostile ones among them.

use proptest::prelude::*;

use super::super::census::Status;
use super::super::census::tests::LAYOUT;
use super::super::image::Image;
use super::*;

const G: u64 = 0x1_0000;
const LO: u64 = 0x2_0000;
const HI: u64 = 0x2_8000;

/// Functions of 0x100 bytes whose frame is as large as their number; function 9 is `goexit`, and 4 is called by signals.
struct Tables;

impl StackTables for Tables {
    fn shape(&self, pc: u64) -> Option<FrameShape> {
        let function = pc >> 8;
        let (outermost, injected) = (function == 9, function == 4);
        (function < 10).then_some(FrameShape { sp_delta: function * 8, outermost, injected })
    }
}

fn goroutine(sp: u64, pc: u64) -> Goroutine {
    Goroutine {
        address: G,
        goid: 5,
        status: Status::Waiting,
        sp,
        pc,
        stack_lo: LO,
        stack_hi: HI,
        ..Goroutine::default()
    }
}

/// The `g` of [`goroutine`] in memory, so that it stands still.
fn with_g(image: &mut Image, g: &Goroutine) {
    let mut bytes = vec![0; LAYOUT.size as usize];
    for (offset, word) in [
        (LAYOUT.stack_lo, g.stack_lo),
        (LAYOUT.stack_hi, g.stack_hi),
        (LAYOUT.sched_sp, g.sp),
        (LAYOUT.sched_pc, g.pc),
        (LAYOUT.goid, g.goid),
    ] {
        bytes[offset as usize..offset as usize + 8].copy_from_slice(&word.to_le_bytes());
    }
    bytes[LAYOUT.atomicstatus as usize] = 4;
    image.insert(G, bytes);
}

fn unwind(image: &Image, g: Goroutine, arch: Arch) -> (Unwound, StackTable) {
    let mut table = StackTable::default();
    let reader = CensusReader::new(LAYOUT, 0);
    let unwound = Unwinder::new(arch).unwind(image, &Tables, &reader, &[g], &mut table).expect("alive");
    (unwound, table)
}

/// A stack of function 2 called by function 3 called by goexit, and `fill` words below.
fn amd64_stack() -> (Image, Goroutine) {
    let mut image = Image::default();
    let sp = HI - 8 * (3 + 4 + 1);
    let mut words = vec![0; ((HI - LO) / 8) as usize];
    let at = |address: u64| ((address - LO) / 8) as usize;
    words[at(sp + 16)] = 0x310;
    words[at(sp + 24 + 24)] = 0x901;
    image.insert_words(LO, &words);
    let g = goroutine(sp, 0x210);
    with_g(&mut image, &g);
    (image, g)
}

#[test]
fn a_stack_is_walked_to_goexit() {
    let (image, g) = amd64_stack();
    let (unwound, table) = unwind(&image, g, Arch::Amd64);
    assert_eq!(unwound, Unwound { stacks: vec![Some(StackId(0))], ..Unwound::default() });
    assert_eq!(&*table.since(0)[0], [0x210, 0x310]);
}

#[test]
fn arm64_finds_the_link_register_at_the_bottom_of_the_frame() {
    let mut image = Image::default();
    let sp = HI - 8 * (2 + 3);
    image.insert_words(sp, &[0x310, 0, 0x901, 0, 0]);
    let g = goroutine(sp, 0x210);
    with_g(&mut image, &g);
    let (unwound, table) = unwind(&image, g, Arch::Arm64);
    assert_eq!(unwound.cut, 0);
    assert_eq!(&*table.since(0)[0], [0x210, 0x310]);
}

#[test]
fn arm64_finds_who_called_what_a_signal_interrupted() {
    // Function 4, as if called by what was interrupted, and above it the link register of that moment.
    let stack = |interrupted: u64, link: u64, rest: &[u64]| {
        let mut words = vec![interrupted, 0, 0, 0, link, 0];
        words.extend(rest);
        let mut image = Image::default();
        let sp = HI - 8 * words.len() as u64;
        image.insert_words(sp, &words);
        let g = goroutine(sp, 0x410);
        with_g(&mut image, &g);
        let (unwound, table) = unwind(&image, g, Arch::Arm64);
        (unwound.cut, table.since(0)[0].to_vec())
    };
    // One with a frame: its own lowest word is its return address, whatever the register held.
    assert_eq!(stack(0x310, 0x777, &[0x210, 0, 0, 0x901, 0]), (0, vec![0x410, 0x310, 0x210]));
    // One without: the register has it.
    assert_eq!(stack(0x010, 0x310, &[0x901, 0, 0]), (0, vec![0x410, 0x010, 0x310]));
}

#[test]
fn on_arm64_the_link_register_leads_out_of_a_function_that_has_no_frame_yet() {
    let stack = |pc: u64, lr: u64, words: &[u64]| {
        let mut image = Image::default();
        let sp = HI - 8 * words.len() as u64;
        image.insert_words(sp, words);
        let g = Goroutine { lr, ..goroutine(sp, pc) };
        with_g(&mut image, &g);
        let (unwound, table) = unwind(&image, g, Arch::Arm64);
        (unwound.cut, table.since(0)[0].to_vec())
    };
    // Preempted as it entered a function that another called.
    assert_eq!(stack(0x010, 0x310, &[0x901, 0, 0]), (0, vec![0x010, 0x310]));
    // Never run: it would return to where all goroutines end.
    assert_eq!(stack(0x010, 0x901, &[0, 0]), (0, vec![0x010]));
    // Only of the innermost does the register tell.
    assert_eq!(stack(0x310, 0x210, &[0x010, 0, 0]), (1, vec![0x310, 0x010]));
    assert_eq!(stack(0x010, 0x010, &[0, 0]), (1, vec![0x010, 0x010]));
}

#[test]
fn a_goroutine_that_moved_has_no_stack() {
    let (image, g) = amd64_stack();
    let (unwound, _) = unwind(&image, Goroutine { wait_reason: 9, ..g }, Arch::Amd64);
    assert_eq!(unwound, Unwound { stacks: vec![None], moved: 1, ..Unwound::default() });
}

#[test]
fn a_deep_stack_is_read_in_growing_steps() {
    let mut image = Image::default();
    let depth = 200;
    let sp = HI - depth * 16;
    // Function 1 calls itself: one word of frame, one of return address.
    let words: Vec<u64> = (0..depth).flat_map(|i| [0, if i + 1 == depth { 0x901 } else { 0x110 }]).collect();
    image.insert_words(sp, &words);
    let g = goroutine(sp, 0x110);
    with_g(&mut image, &g);
    let (unwound, table) = unwind(&image, g, Arch::Amd64);
    assert_eq!((unwound.cut, table.since(0)[0].len()), (0, depth as usize));
}

#[test]
fn stacks_that_loop_or_leave_their_bounds_are_cut() {
    let mut image = Image::default();
    image.insert_words(LO, &vec![0x010; ((HI - LO) / 8) as usize]);
    let g = goroutine(LO, 0x010);
    with_g(&mut image, &g);
    let (unwound, table) = unwind(&image, g, Arch::Amd64);
    assert_eq!((unwound.cut, table.since(0)[0].len()), (1, MAX_FRAMES));

    let near_end = goroutine(HI - 8, 0x210);
    with_g(&mut image, &near_end);
    let (unwound, table) = unwind(&image, near_end, Arch::Amd64);
    assert_eq!((unwound.cut, table.since(0)[0].to_vec()), (1, vec![0x210]));
}

#[test]
fn bounds_that_are_lies_yield_nothing() {
    for (lo, hi) in [(0, u64::MAX), (u64::MAX, 0), (HI, LO)] {
        let mut image = Image::default();
        let g = Goroutine { stack_lo: lo, stack_hi: hi, ..goroutine(LO, 0x210) };
        with_g(&mut image, &g);
        let (unwound, _) = unwind(&image, g, Arch::Amd64);
        assert_eq!(unwound.stacks, [None]);
    }
}

proptest! {
    #[test]
    fn any_stack_is_survived(words in prop::collection::vec(0u64..0xb00, 1..400), pc in 0u64..0xb00, sp_word in 0u64..400, arm in any::<bool>()) {
        let mut image = Image::default();
        let hi = LO + words.len() as u64 * 8;
        image.insert_words(LO, &words);
        let g = Goroutine { stack_hi: hi, ..goroutine(LO + sp_word * 8, pc) };
        with_g(&mut image, &g);
        let arch = if arm { Arch::Arm64 } else { Arch::Amd64 };
        let (unwound, _) = unwind(&image, g, arch);
        prop_assert_eq!(unwound.stacks.len(), 1);
    }
}
