//! Words and places that reports of all kinds share.

pub(crate) mod group;
pub mod numbers;
mod place;

pub use place::Place;

use crate::symbolize::Symbols;

/// Name of the function that starts at `start_pc`.
pub(crate) fn start_function(symbols: &Symbols, start_pc: u64) -> String {
    symbols.at(start_pc).last().map_or_else(|| format!("unknown ({start_pc:#x})"), |frame| frame.function.clone())
}

/// Whether the goroutine that starts at `start_pc` is the runtime's own.
pub(crate) fn is_system(symbols: &Symbols, start_pc: u64) -> bool {
    symbols.at(start_pc).last().is_some_and(|frame| crate::golang::goroutine::is_system_goroutine(&frame.function))
}

/// The runtime's words for a wait reason.
pub(crate) fn wait_reason(reasons: &[String], number: u8) -> String {
    match reasons.get(usize::from(number)) {
        Some(text) if !text.is_empty() => text.clone(),
        _ => format!("unknown wait reason {number}"),
    }
}

/// Nanoseconds as seconds, rounded to the millisecond: more digits are noise to a reader.
pub(crate) fn seconds(ns: u64) -> f64 {
    (ns as f64 / 1e6).round() / 1e3
}

/// Who made goroutines, for a person.
pub(crate) fn creator(place: Option<&Place>) -> String {
    place.map_or_else(|| "the runtime, by no go statement".to_owned(), Place::to_string)
}

/// Where goroutines block, for a person.
pub(crate) fn blocker(place: Option<&Place>) -> String {
    place.map_or_else(|| "the runtime, with no frame of the program's".to_owned(), Place::to_string)
}

/// The word a value has in the JSON document.
pub(crate) fn serde_word(value: &impl serde::Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        _ => String::new(),
    }
}

/// Names come from the target's binary: nothing in them may steer the terminal.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// `1 goroutine`, `2 goroutines`.
pub(crate) fn goroutines(count: u64) -> String {
    format!("{count} goroutine{}", if count == 1 { "" } else { "s" })
}
