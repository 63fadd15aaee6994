//! That each file in `waits` is read, says what it should of its own examples, and nothing of another's.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::io::Direction;
use super::library::{Example, Known, known};
use super::wait::{SYSCALL, Wait};
use super::*;

fn frame(function: &str) -> Frame {
    Frame { function: function.to_owned(), file: String::new(), line: 1, inlined: false }
}

fn stack_of(example: &Example) -> Vec<Frame> {
    example.stack.lines().map(frame).collect()
}

/// Names of all entries that fit, and the one that is chosen.
fn fitting(wait: &str, stack: &[Frame]) -> (BTreeSet<&'static str>, Option<&'static str>) {
    let fit = known().iter().filter(|known| known.fits(wait, stack)).map(|known| known.name);
    (fit.collect(), Known::of(wait, stack).map(|known| known.name))
}

/// That this entry is chosen, and nothing else fits but what it stands before.
fn chosen(known: &Known, wait: &str, stack: &[Frame]) {
    let (fit, chosen) = fitting(wait, stack);
    assert_eq!(chosen, Some(known.name), "{wait}: {stack:#?}");
    let expected = known.instead_of.iter().map(String::as_str).chain([known.name]).collect();
    assert_eq!(fit, expected, "{wait}: {stack:#?}");
}

#[test]
fn every_file_is_embedded() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cause/waits");
    let files = fs::read_dir(folder).expect("the folder").map(|entry| entry.expect("an entry").file_name());
    let files: BTreeSet<String> = files.map(|name| name.to_string_lossy().into_owned()).collect();
    let embedded: BTreeSet<String> = known().iter().map(|known| format!("{}.toml", known.name)).collect();
    assert_eq!(files, embedded, "left: the files in waits, right: those that are named in library.rs");
    let names: Vec<_> = known().iter().map(|known| known.name).collect();
    assert!(names.is_sorted(), "{names:?}");
}

/// Each example is its entry's alone, and the cause and what is waited for are the entry's.
#[test]
fn examples_are_told_apart() {
    for known in known() {
        assert!(!known.examples.is_empty(), "{} has no example", known.name);
        for example in &known.examples {
            let stack = stack_of(example);
            chosen(known, &example.wait, &stack);
            let case = Case {
                wait_reason: &example.wait,
                primitives: &[],
                stack: &stack,
                creator: None,
                handler: None,
                loops: false,
                proven: false,
            };
            let cause = Cause::of(&case).expect("a cause");
            assert_eq!(cause.kind, known.kind, "{}", known.name);
            assert!(cause.sentence.starts_with(&format!("{} {}", known.does, known.does_not)), "{cause:?}");
            let proven = Cause::of(&Case { proven: true, ..case }).expect("a cause");
            let cannot = known.cannot.as_ref().unwrap_or(&known.does_not);
            assert!(proven.sentence.starts_with(&format!("{} {cannot}", known.does)), "{proven:?}");
        }
    }
}

/// The shortest stack for each function that a pattern names: no entry hides another's.
#[test]
fn no_entry_hides_another() {
    for known in known() {
        for wait in &known.waits {
            let patterns = |list: &[String]| -> Vec<Option<String>> {
                if list.is_empty() { vec![None] } else { list.iter().cloned().map(Some).collect() }
            };
            for innermost in patterns(&known.innermost) {
                for through in patterns(&known.through) {
                    for from in patterns(&known.from) {
                        let functions = [&innermost, &through, &from].into_iter().flatten();
                        let functions = functions.flat_map(|pattern| pattern.split(" called by "));
                        let stack: Vec<Frame> = waiting(known).into_iter().chain(functions).map(frame).collect();
                        chosen(known, wait, &stack);
                    }
                }
            }
        }
    }
}

/// The frames of an IO wait.
fn waiting(known: &Known) -> Vec<&'static str> {
    let Some(io) = known.io else { return Vec::new() };
    let direction = match io.direction {
        Direction::Read => "internal/poll.(*pollDesc).waitRead",
        Direction::Write => "internal/poll.(*pollDesc).waitWrite",
        Direction::Accept => "internal/poll.(*FD).Accept",
        Direction::Connect => "net.(*netFD).connect",
    };
    vec![direction, if io.file == File::Os { "os.(*File).Read" } else { "net.(*netFD).Read" }]
}

#[test]
fn entries_are_whole() {
    let reasons = ["IO wait", SYSCALL, super::wait::C_CALL];
    for Known { name, waits, io, innermost, through, cannot, resource, instead_of, .. } in known() {
        let waited = |reason: &String| Wait::of_reason(reason).is_some() || reason == "semacquire";
        assert!(waits.iter().all(|reason| waited(reason) || reasons.contains(&reason.as_str())), "{name}: {waits:?}");
        assert_eq!(
            io.is_some(),
            waits.iter().any(|wait| wait == "IO wait"),
            "{name} says what IO in IO wait, and only there"
        );
        assert!(io.is_none() || innermost.is_empty(), "{name}: in IO wait the innermost function is of net or os");
        assert!(innermost.len() + through.len() > 0, "{name} names no function");
        let provable = waits.iter().all(waited);
        assert!(provable || cannot.is_none(), "{name}: nothing is ever proven of {waits:?}");
        let sign = waits.iter().all(|reason| waited(reason) || reason == SYSCALL);
        assert!(sign || resource.is_none(), "{name}: what is waited for in {waits:?} is no sign");
        for other in instead_of {
            assert!(
                known().iter().any(|known| known.name == other),
                "{name} stands before {other}, which there is not"
            );
        }
    }
}

/// Parts of a sentence, each in one line.
#[test]
fn texts_are_lines() {
    for known in known() {
        for text in
            [&known.does, &known.does_not, &known.remedy].into_iter().chain(&known.cannot).chain(&known.resource)
        {
            assert!(!text.is_empty() && !text.contains('\n') && text.trim() == text, "{}: {text:?}", known.name);
            assert!(!text.ends_with('.') && !text.contains("  "), "{}: {text:?}", known.name);
        }
    }
}

#[test]
fn a_key_that_is_not_known_is_an_error() {
    let entry = r#"
        kind = "pipe-other-end"
        waits = ["select"]
        through = ["io.(*pipe).read"]
        does = "reads"
        does_not = "what is not written"
        remedy = "write"
        examples = [{ wait = "select", stack = "io.(*pipe).read" }]
    "#;
    assert!(toml::from_str::<Known>(entry).is_ok());
    for more in
        ["resources = \"a writer\"", "io = { direction = \"read\", file = \"os\", path = \"\" }", "name = \"pipe\""]
    {
        assert!(toml::from_str::<Known>(&format!("{more}\n{entry}")).is_err(), "{more}");
    }
    assert!(toml::from_str::<Known>(&entry.replace("pipe-other-end", "pipe")).is_err());
}
