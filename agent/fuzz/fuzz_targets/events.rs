//! Records of the event ring, and the state machine behind them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use parkwarden::registry::Registry;
use parkwarden::session::{Record, split_record};

fuzz_target!(|bytes: &[u8]| {
    let mut registry = Registry::new(1000);
    let mut rest = bytes;
    while let Some((record, after)) = split_record(rest) {
        match record {
            Record::Event(event) => registry.apply(&event),
            Record::Creator(creator) => assert!(creator.calls().iter().all(|pc| *pc != 0)),
        }
        rest = after;
    }
    assert!(registry.len() <= 1000);
});
