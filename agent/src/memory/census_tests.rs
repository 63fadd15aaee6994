//! Tests of the census on images, hostile ones among them.

use proptest::prelude::*;

use super::*;
use crate::memory::image::Image;

pub(crate) const LAYOUT: GLayout = GLayout {
    size: 440,
    stack_lo: 0,
    stack_hi: 8,
    m: 48,
    sched_sp: 56,
    sched_pc: 64,
    sched_bp: 96,
    sched_lr: 88,
    syscallsp: 112,
    syscallpc: 120,
    atomicstatus: 144,
    goid: 152,
    waitsince: 168,
    waitreason: 176,
    parent_goid: Some(280),
    gopc: 288,
    startpc: 304,
    waiting: 320,
    tracking_seq: None,
    labels: 336,
};

const ALLGS: u64 = 0x50_0000;

fn g(goid: u64, status: u32) -> Vec<u8> {
    let mut bytes = vec![0; LAYOUT.size as usize];
    bytes[144..148].copy_from_slice(&status.to_le_bytes());
    bytes[152..160].copy_from_slice(&goid.to_le_bytes());
    bytes[176] = 7;
    bytes[288..296].copy_from_slice(&(0x1000 + goid).to_le_bytes());
    bytes
}

fn image(list: &[u64], len: u64, cap: u64) -> Image {
    let mut image = Image::default();
    image.insert_words(ALLGS, &[0x60_0000, len, cap]);
    image.insert_words(0x60_0000, list);
    image
}

fn read(image: &Image) -> Result<Census, CensusError> {
    CensusReader::new(LAYOUT, ALLGS).read(image, || 5)
}

#[test]
fn goroutines_are_read_and_the_dead_counted() {
    let mut image = image(&[0xc000, 0xd000, 0xe000], 3, 4);
    image.insert(0xc000, g(1, 4));
    image.insert(0xd000, g(2, 6));
    image.insert(0xe000, g(3, 0x1004));
    let census = read(&image).expect("readable");
    assert_eq!(census.dead, 1);
    let seen: Vec<_> = census.goroutines.iter().map(|g| (g.goid, g.status, g.wait_reason, g.creation_pc)).collect();
    assert_eq!(seen, [(1, Status::Waiting, 7, 0x1001), (3, Status::Waiting, 7, 0x1003)]);
}

#[test]
fn an_unreadable_g_is_counted_and_the_others_are_read() {
    let mut image = image(&[0xc000, 0xdead_0000, 0xe000, u64::MAX], 4, 4);
    image.insert(0xc000, g(1, 4));
    image.insert(0xe000, g(3, 4));
    let census = read(&image).expect("readable");
    assert_eq!((census.goroutines.len(), census.unreadable), (2, 2));
}

#[test]
fn a_list_that_repeats_itself_is_counted_once() {
    let mut image = image(&[0xc000; 500], 500, 500);
    image.insert(0xc000, g(1, 4));
    let census = read(&image).expect("readable");
    assert_eq!((census.goroutines.len(), census.unreadable), (1, 499));
}

#[test]
fn lengths_that_are_lies_cost_nothing() {
    assert!(matches!(read(&image(&[0xc000], 1 << 63, 1 << 63)), Err(CensusError::Fault(_))));
    assert!(matches!(read(&image(&[0xc000], 2, 1)), Err(CensusError::Malformed { .. })));
    assert!(matches!(read(&image(&[0xc000], 0, 0)), Err(CensusError::Malformed { .. })));
    assert!(matches!(read(&Image::default()), Err(CensusError::Fault(_))));
}

proptest! {
    #[test]
    fn any_memory_is_survived(header in prop::array::uniform3(any::<u64>()), list in prop::collection::vec(any::<u64>(), 0..40), body in prop::collection::vec(any::<u8>(), 440)) {
        let mut image = Image::default();
        image.insert_words(ALLGS, &header);
        image.insert_words(header[0] & !7, &list);
        for address in &list {
            image.insert(*address, body.clone());
        }
        let _ = read(&image);
    }
}
