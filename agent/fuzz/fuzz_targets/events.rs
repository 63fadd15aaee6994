//! Records of the event ring, and the state machine behind them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use parkwarden::registry::Registry;
use parkwarden::session::split_record;

fuzz_target!(|bytes: &[u8]| {
    let mut registry = Registry::new(1000);
    let mut rest = bytes;
    while let Some((event, after)) = split_record(rest) {
        registry.apply(&event);
        rest = after;
    }
    assert!(registry.len() <= 1000);
});
