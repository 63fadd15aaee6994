use super::*;
use crate::golang::layout::MLayout;
use crate::memory::census::tests::LAYOUT;
use crate::memory::image::Image;

const RUNNING: u64 = 0xd000;
const THREAD: u64 = 0xa000;
const G0: u64 = 0xb000;

fn function(pc: u64) -> Option<&'static str> {
    match pc {
        0x1000..0x1100 => Some("runtime.main"),
        0x1100..0x2000 => Some("main.work"),
        _ => None,
    }
}

const EXPECTED: Expected<'_> =
    Expected { layout: RuntimeLayout { g: LAYOUT, m: MLayout { g0: 0, curg: 184 } }, reasons: 30, function: &function };

fn goroutine(goid: u64, status: Status, start_pc: u64) -> Goroutine {
    let address = if status == Status::Running { RUNNING } else { 0xe000 };
    let (stack_lo, stack_hi, sp, pc) = (0xc000_0000, 0xc000_2000, 0xc000_1f00, 0x1180);
    Goroutine { address, goid, status, start_pc, stack_lo, stack_hi, sp, pc, wait_reason: 14, ..Goroutine::default() }
}

fn look() -> Census {
    let goroutines = vec![goroutine(1, Status::Waiting, 0x1000), goroutine(7, Status::Running, 0x1110)];
    Census { goroutines, ..Census::default() }
}

/// A thread that runs goroutine 7.
fn memory(g0_thread: u64, current: u64) -> Image {
    let mut image = Image::default();
    let mut words = |address: u64, fields: &[(u32, u64)]| {
        let mut words = vec![0; 60];
        fields.iter().for_each(|(offset, word)| words[*offset as usize / 8] = *word);
        image.insert_words(address, &words);
    };
    words(RUNNING, &[(LAYOUT.m, THREAD)]);
    words(THREAD, &[(0, G0), (184, current)]);
    words(G0, &[(LAYOUT.m, g0_thread)]);
    image
}

fn found(look: &Census, memory: &Image) -> Option<String> {
    contradiction(look, &EXPECTED, memory).expect("readable")
}

#[test]
fn a_go_program_contradicts_nothing() {
    assert_eq!(found(&look(), &memory(THREAD, RUNNING)), None);
    // A goroutine that no longer runs has no thread to look at.
    assert_eq!(found(&look(), &Image::default()), None);
}

#[test]
fn each_contradiction_is_named() {
    type Spoil = fn(&mut Vec<Goroutine>);
    let cases: [(Spoil, &str); 10] = [
        (|all| all[0].goid = 2, "there is no goroutine 1"),
        (|all| all[0].start_pc = 0x1110, "goroutine 1 starts in main.work"),
        (|all| all[0].start_pc = 9, "goroutine 1 starts at 0x9"),
        (|all| all[1].start_pc = 9, "goroutine 7 starts at 0x9"),
        (|all| all[1].status = Status::Unknown(55), "goroutine 7 has the status 55"),
        (|all| all[1].stack_hi = 1, "goroutine 7 has a stack"),
        (|all| all[1].stack_hi = u64::MAX, "goroutine 7 has a stack"),
        (|all| all[0].wait_reason = 30, "waits for reason 30, of 30"),
        (|all| all[0].sp = all[0].stack_hi, "waits with its stack pointer"),
        (|all| all[0].pc = 0x7000, "waits at 0x7000"),
    ];
    for (spoil, expected) in cases {
        let mut look = look();
        spoil(&mut look.goroutines);
        let found = found(&look, &memory(THREAD, RUNNING));
        assert!(found.as_ref().is_some_and(|found| found.contains(expected)), "{expected}: {found:?}");
    }
}

#[test]
fn threads_must_be_threads() {
    assert!(found(&look(), &memory(THREAD + 8, RUNNING)).is_some_and(|found| found.contains("runs on no thread")));
    assert!(found(&look(), &memory(THREAD, RUNNING + 8)).is_some_and(|found| found.contains("runs another one")));
}
