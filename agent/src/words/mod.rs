//! Words and places that reports of all kinds share.

pub(crate) mod group;
pub(crate) mod heap;
pub mod numbers;
mod place;
pub mod short;

pub use place::Place;

use crate::cause::wait::Doing;
use crate::golang::Frame;
use crate::golang::names::is_standard;
use crate::memory::census::Goroutine;
use crate::symbolize::{Symbolizer, Symbols, call_of};

/// Name of the function that starts at `start_pc`.
pub(crate) fn start_function(symbols: &Symbols, start_pc: u64) -> String {
    symbols.at(start_pc).last().map_or_else(|| format!("unknown ({start_pc:#x})"), |frame| frame.function.clone())
}

/// The same with its place, as far as a look that is over can tell.
pub(crate) fn started(symbols: &Symbols, start_pc: u64) -> String {
    let place = symbols.at(start_pc).last().filter(|frame| frame.line != 0).map(Place::of);
    place.map_or_else(|| start_function(symbols, start_pc), |place| place.short())
}

/// Where a goroutine stands, who made it and what it runs, as names.
pub(crate) struct Named {
    /// Innermost first.
    pub(crate) stack: Vec<Frame>,
    /// The `go` statement.
    pub(crate) created_by: Option<Place>,
    /// The function it started.
    pub(crate) start_function: String,
}

impl Named {
    /// Names the addresses of a goroutine; those of its stack are return addresses, innermost first.
    pub(crate) fn of(symbolizer: &mut Symbolizer, goroutine: &Goroutine, stack: &[u64]) -> Self {
        let start = goroutine.start_pc;
        Self {
            stack: stack.iter().flat_map(|pc| symbolizer.frames(call_of(*pc)).to_vec()).collect(),
            created_by: match goroutine.creation_pc {
                0 => None,
                pc => symbolizer.frames(call_of(pc)).first().map(Place::of),
            },
            start_function: symbolizer.function(start).map_or_else(|| format!("unknown ({start:#x})"), str::to_owned),
        }
    }
}

/// Whether the goroutine that starts at `start_pc` is the runtime's own.
pub(crate) fn is_system(symbols: &Symbols, start_pc: u64) -> bool {
    symbols.at(start_pc).last().is_some_and(|frame| crate::golang::goroutine::is_system_goroutine(&frame.function))
}

/// The runtime's words for a wait reason.
pub(crate) fn wait_reason(reasons: &[String], number: u8) -> String {
    Doing::Waits(number).reason(reasons, &[])
}

/// Nanoseconds as seconds, rounded to the millisecond: more digits are noise to a reader.
pub(crate) fn seconds(ns: u64) -> f64 {
    (ns as f64 / 1e6).round() / 1e3
}

/// Who made goroutines, for a person.
pub(crate) fn creator(place: Option<&Place>) -> String {
    place.map_or_else(|| "the runtime, by no go statement".to_owned(), Place::to_string)
}

/// Which goroutines these are, in the program's words: the `go` statement that made them, or, if that is a library's, where they are
/// in the program, or what they run.
pub(crate) fn whose(created_by: Option<&Place>, in_program: Option<&Place>, start_function: &str) -> String {
    let Some(created_by) = created_by.filter(|place| is_standard(&place.function)) else {
        return format!("made by {}", creator(created_by));
    };
    let through = printable(&created_by.function);
    match in_program {
        Some(place) => format!("in {place} (made through {through})"),
        None if is_standard(start_function) => format!("made by {created_by}"),
        None => format!("running {} (made through {through})", printable(start_function)),
    }
}

/// Where goroutines block, for a person.
pub(crate) fn blocker(place: Option<&Place>) -> String {
    place.map_or_else(|| "the runtime, with no frame of the program's".to_owned(), Place::to_string)
}

/// Where goroutines are in the program's own code, if they block elsewhere.
pub(crate) fn within(in_program: Option<&Place>, blocked_at: Option<&Place>) -> Option<String> {
    in_program.filter(|place| Some(*place) != blocked_at).map(Place::to_string)
}

/// Names come from the target's binary: nothing in them may steer the terminal, or have it show them in another order than
/// they are in.
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() || turns_text(c) { '\u{fffd}' } else { c }).collect()
}

/// Whether a character has the text around it run in another direction (Unicode's Bidi_Control: marks, embeddings and overrides,
/// isolates).
const fn turns_text(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Rows of a table as lines, the columns two spaces apart.
pub(crate) fn aligned<const N: usize>(rows: &[[String; N]]) -> Vec<String> {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    let line = |row: &[String; N]| {
        let cells: Vec<String> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        cells.join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

/// `1 goroutine`, `2 goroutines`.
pub(crate) fn goroutines(count: u64) -> String {
    format!("{count} goroutine{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_longest_cell() {
        let rows = [["PID", "WHERE"], ["7", "läuft"], ["1234", ""]].map(|row| row.map(str::to_owned));
        assert_eq!(aligned(&rows), ["PID   WHERE", "7     läuft", "1234"]);
    }

    #[test]
    fn names_neither_steer_the_terminal_nor_turn_its_text() {
        assert_eq!(printable("main.\u{1b}[2J(*T[…]).läuft 上"), "main.\u{fffd}[2J(*T[…]).läuft 上");
        let turning = "\u{61c}\u{200e}\u{200f}\u{202a}\u{202b}\u{202c}\u{202d}\u{202e}\u{2066}\u{2067}\u{2068}\u{2069}";
        assert_eq!(printable(turning), "\u{fffd}".repeat(12));
        // Their neighbours are letters' business: joiners, spaces, quotes.
        assert_eq!(printable("\u{200d}\u{2029}\u{202f}\u{2065}\u{206a}"), "\u{200d}\u{2029}\u{202f}\u{2065}\u{206a}");
    }
}
