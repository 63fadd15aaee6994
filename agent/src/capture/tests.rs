//! Tests of the capture format: what was written comes back, and whatever is broken is an error that names where.

use proptest::prelude::*;

use super::{Error, Reader, Writer};
use crate::config::{Mode, ModeChoice, Percent};
use crate::discover::info::TargetInfo;
use crate::golang::Arch;
use crate::golang::binary::SymbolSource;
use crate::golang::layout::LayoutSource;
use crate::governor::Budget;
use crate::session::{End, EndReason, Header, Input, Modes};

pub(crate) fn header() -> Header {
    Header {
        target: TargetInfo {
            pid: 7,
            exe: "/srv/app".to_owned(),
            go_version: "go1.27.3".to_owned(),
            arch: Arch::Amd64,
            module: None,
            stripped: false,
            pie: false,
            layout_source: LayoutSource::Dwarf,
            symbol_source: SymbolSource::Symtab,
        },
        probes: Vec::new(),
        modes: Modes {
            choice: ModeChoice::Census,
            first: Mode::Census,
            no_probes: None,
            refused: Vec::new(),
            budget: Budget { of_target: Percent::new(1_000) },
        },
        wait_reasons: vec![String::new(), "sleep".to_owned()],
        started_ns: 100,
        started_unix_ns: 1_000,
        ring_bytes: 4096,
        threshold_ns: 10,
        interval_ns: 10,
    }
}

fn session() -> Vec<Input> {
    vec![
        Input::Begin(header()),
        Input::Events { records: vec![1, 2, 3], ring_fill: 24 },
        Input::CensusBegins,
        Input::Stacks(vec![vec![1, 2], vec![]]),
        Input::End(End { time_ns: 5, reason: EndReason::Elapsed }),
    ]
}

fn written(inputs: &[Input]) -> Vec<u8> {
    let mut file = Vec::new();
    let mut writer = Writer::new(&mut file).expect("memory");
    for input in inputs {
        writer.write(input).expect("memory");
    }
    file
}

fn read(file: &[u8]) -> Result<Vec<Input>, Error> {
    let mut reader = Reader::new(file)?;
    std::iter::from_fn(|| reader.next_input().transpose()).collect()
}

#[test]
fn what_was_written_comes_back() {
    assert_eq!(read(&written(&session())).expect("a whole capture"), session());
}

#[test]
fn every_truncation_is_noticed_and_located() {
    let file = written(&session());
    for length in 0..file.len() {
        match read(&file[..length]) {
            Err(Error::Magic) => assert!(length < 8),
            Err(Error::Truncated { offset, .. }) => assert_eq!(offset, length as u64),
            other => panic!("{length} bytes of {} gave {other:?}", file.len()),
        }
    }
}

#[test]
fn every_changed_byte_is_noticed() {
    let file = written(&session());
    for index in 0..file.len() {
        let mut changed = file.clone();
        changed[index] ^= 0x10;
        assert!(read(&changed).is_err(), "byte {index} of {} changed unnoticed", file.len());
    }
}

#[test]
fn a_huge_length_costs_nothing() {
    let mut file = written(&session()[..1]);
    file.extend_from_slice(&super::MAX_PAYLOAD.to_le_bytes());
    file.extend_from_slice(&[0; 4]);
    assert!(matches!(read(&file), Err(Error::Truncated { .. })));
}

#[test]
fn inputs_after_the_end_or_a_second_header_are_refused() {
    let mut inputs = session();
    inputs.push(Input::CensusBegins);
    assert!(matches!(read(&written(&inputs)), Err(Error::Corrupt { .. })));
    let twice = [session()[0].clone(), session()[0].clone()];
    assert!(matches!(read(&written(&twice)), Err(Error::Corrupt { .. })));
    assert!(matches!(read(&written(&session()[1..])), Err(Error::Corrupt { .. })));
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..512), with_magic in any::<bool>()) {
        let mut file = if with_magic { written(&[]) } else { Vec::new() };
        file.extend(bytes);
        let _ = read(&file);
    }
}
