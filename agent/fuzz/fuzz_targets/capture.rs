//! Capture files, and the report of what they hold.
#![no_main]

use libfuzzer_sys::fuzz_target;
use parkwarden::capture::Reader;
use parkwarden::config::Rules;
use parkwarden::report::{Report, Shown, render};
use parkwarden::session::{Input, Session};

fuzz_target!(|bytes: &[u8]| {
    let Ok(mut reader) = Reader::new(bytes) else { return };
    let Ok(Some(Input::Begin(header))) = reader.next_input() else { return };
    let mut session = Session::new(header);
    while let Ok(Some(input)) = reader.next_input() {
        session.feed(&input);
    }
    let shown = Shown { all: true, ..Shown::default() };
    let _ = render(&Report::of(&session, 0, &Rules::default()), &shown);
});
