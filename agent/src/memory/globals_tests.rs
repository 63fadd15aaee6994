//! Tests of the search for `runtime.allgs` on images, misleading and hostile ones among them.

use proptest::prelude::*;

use super::*;
use crate::memory::census::tests::LAYOUT;
use crate::memory::image::Image;

const MAIN: u64 = 0x40_1000;
const DATA: u64 = 0x50_0000;
const LIST: u64 = 0xc000_0000;

fn g(goid: u64, status: u32, start: u64) -> Vec<u8> {
    let mut bytes = vec![0; LAYOUT.size as usize];
    let mut put = |at: u32, word: u64| bytes[at as usize..at as usize + 8].copy_from_slice(&word.to_le_bytes());
    put(LAYOUT.stack_lo, 0xc100_0000 + goid * 0x8000);
    put(LAYOUT.stack_hi, 0xc100_0000 + goid * 0x8000 + 0x2000);
    put(LAYOUT.atomicstatus, u64::from(status));
    put(LAYOUT.goid, goid);
    put(LAYOUT.startpc, start);
    bytes
}

/// A process with two goroutines and a dead one; `data` are its variables.
fn process(data: &[u64]) -> Image {
    let mut image = Image::default();
    image.insert_words(DATA, data);
    image.insert_words(LIST, &[0xd000, 0xe000, 0xf000, 0]);
    image.insert(0xd000, g(1, 4, MAIN));
    image.insert(0xe000, g(2, 2, 0x40_2000));
    image.insert(0xf000, g(0, 6, 0));
    image
}

fn search(image: &Image, words: u64) -> Result<u64, NotFound> {
    Search::new(image, LAYOUT, MAIN).within(std::slice::from_ref(&(DATA..DATA + words * 8)))
}

#[test]
fn the_list_is_found_among_other_slices() {
    let other = [7, LIST + 8, 2, 3, 0, 0xd000, 1, 1, LIST, 4, 4, 1];
    let mut data = other.to_vec();
    data.extend([LIST, 3, 4, LIST]);
    assert_eq!(search(&process(&data), data.len() as u64), Ok(DATA + other.len() as u64 * 8));
    assert_eq!(search(&process(&other), other.len() as u64), Err(NotFound::Nowhere));
}

#[test]
fn two_lists_are_one_too_many() {
    let data = [LIST, 3, 4, 0, LIST, 3, 3];
    let image = process(&data);
    assert_eq!(search(&image, 7), Err(NotFound::Ambiguous(2)));
    // The code knows which.
    let search = Search::new(&image, LAYOUT, MAIN);
    assert_eq!(search.among(&BTreeSet::from([1, DATA + 8, DATA + 32])), Ok(DATA + 32));
    assert_eq!(search.among(&BTreeSet::from([DATA + 8])), Err(NotFound::Nowhere));
}

#[test]
fn elements_that_are_no_goroutines_refute_a_list() {
    let spoil: [fn(&mut Image); 5] = [
        |image| image.insert(0xe000, g(2, 77, 0x40_2000)),
        |image| image.insert(0xe000, g(0, 2, 0x40_2000)),
        |image| image.insert(0xe000, vec![0; 16]),
        |image| image.insert_words(LIST, &[0xd000, 0xd000, 0xf000, 0]),
        |image| image.insert(0xd000, g(1, 4, MAIN + 4)),
    ];
    for (index, spoil) in spoil.iter().enumerate() {
        let mut image = process(&[LIST, 3, 4]);
        assert_eq!(search(&image, 3), Ok(DATA));
        spoil(&mut image);
        assert_eq!(search(&image, 3), Err(NotFound::Nowhere), "{index}");
    }
}

#[test]
fn more_than_is_searched_is_refused() {
    let image = process(&[LIST, 3, 4]);
    let search = Search::new(&image, LAYOUT, MAIN);
    assert_eq!(search.within(std::slice::from_ref(&(DATA..u64::MAX))), Err(NotFound::TooMuch));
    assert_eq!(search.within(&[0..MAX_SEARCH, DATA..u64::MAX]), Err(NotFound::TooMuch));
}

#[test]
fn pages_that_cannot_be_read_are_passed_over() {
    let mut image = Image::default();
    for (address, bytes) in [(0xd000, g(1, 4, MAIN)), (0x7000, vec![0; PAGE])] {
        image.insert(address, bytes);
    }
    image.insert_words(LIST, &[0xd000]);
    let mut page = vec![0u64; PAGE / 8];
    page[100..103].copy_from_slice(&[LIST, 1, 1]);
    image.insert_words(0x9000, &page);
    let search = Search::new(&image, LAYOUT, MAIN);
    assert_eq!(search.within(&[0x7000..0xc000, 0x4_0000..0x8_0000]), Ok(0x9000 + 800));
}

proptest! {
    #[test]
    fn any_memory_is_searched(words in proptest::collection::vec(prop_oneof![any::<u64>(), 0..8u64, Just(DATA)], 0..300)) {
        let image = process(&words);
        let found = search(&image, words.len() as u64);
        prop_assert!(found.is_err() || words.contains(&LIST), "{found:?}");
    }
}
