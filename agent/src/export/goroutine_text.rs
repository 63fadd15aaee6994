//! A look at all goroutines in the two text formats of Go's own goroutine profile, `debug=1` and `debug=2`, for whatever
//! reads them from a program's pprof endpoint.
//!
//! Source: runtime/pprof/pprof.go (`printCountProfile`, `printStackRecord`) and runtime/traceback.go (`goroutineheader`,
//! `traceback2`, `printcreatedby`) of Go 1.26. Absent, because a look does not know them: arguments (`(...)` for all
//! functions), `locked to thread`, and in tracebacks profiler labels.

use std::fmt::Write as _;

use hashbrown::HashMap;

use crate::golang::Frame;
use crate::memory::census::{Goroutine, Status};
use crate::snapshot::Look;
use crate::symbolize::call_of;

/// A frame of a stack: the return address it stands at, and the call there.
type At<'a> = (u64, &'a Frame);

/// Goroutines counted by stack, most first: `debug=1`.
pub fn counts(look: &Look) -> String {
    let mut counts: HashMap<(&[u64], Option<u32>), u64> = HashMap::new();
    let mut total = 0u64;
    for (goroutine, stack) in look.goroutines() {
        total += 1;
        *counts.entry((look.stack(stack), look.labels.index(goroutine.goid))).or_default() += 1;
    }
    let mut counts: Vec<(String, u64, &[u64])> = counts
        .into_iter()
        .map(|((stack, labels), count)| {
            let mut key = stack.iter().fold("@".to_owned(), |mut key, pc| {
                let _ = write!(key, " {pc:#x}");
                key
            });
            if let Some(labels) = labels {
                let labels: Vec<String> = look
                    .labels
                    .set(labels)
                    .iter()
                    .map(|(key, value)| format!("{}:{}", quoted(key), quoted(value)))
                    .collect();
                let _ = write!(key, "\n# labels: {{{}}}", labels.join(", "));
            }
            (key, count, stack)
        })
        .collect();
    counts.sort_by(|(key, count, _), (other_key, other, _)| other.cmp(count).then_with(|| key.cmp(other_key)));
    let mut text = format!("goroutine profile: total {total}\n");
    for (key, count, stack) in counts {
        let _ = writeln!(text, "{count} {key}");
        records(&mut text, look, stack);
    }
    text
}

/// A string as Go's `%q` has it.
fn quoted(text: &str) -> String {
    let mut quoted = "\"".to_owned();
    for c in text.chars() {
        let _ = match c {
            '"' | '\\' => write!(quoted, "\\{c}"),
            '\x07' => write!(quoted, "\\a"),
            '\x08' => write!(quoted, "\\b"),
            '\x0b' => write!(quoted, "\\v"),
            '\x0c' => write!(quoted, "\\f"),
            '\n' => write!(quoted, "\\n"),
            '\r' => write!(quoted, "\\r"),
            '\t' => write!(quoted, "\\t"),
            c if c < ' ' || c == '\x7f' => write!(quoted, "\\x{:02x}", u32::from(c)),
            c if c.is_control() => write!(quoted, "\\u{:04x}", u32::from(c)),
            c => write!(quoted, "{c}"),
        };
    }
    quoted + "\""
}

/// The calls of a stack: those of the runtime at its inner end are left out, unless there are no others.
fn records(text: &mut String, look: &Look, stack: &[u64]) {
    let frames: Vec<At<'_>> = frames(look, stack).filter(|(_, frame)| frame.function != "runtime.goexit").collect();
    let is_runtime =
        |(_, frame): &At<'_>| frame.function.starts_with("runtime.") || frame.function.starts_with("internal/runtime/");
    let first = frames.iter().position(|frame| !is_runtime(frame)).unwrap_or(0);
    let rows: Vec<[String; 4]> = frames[first..]
        .iter()
        .map(|(pc, frame)| {
            let call = call_of(*pc);
            let offset = call.saturating_sub(look.entry(*pc).unwrap_or(call));
            [
                "#".to_owned(),
                format!("{call:#x}"),
                format!("{}+{offset:#x}", frame.function),
                format!("{}:{}", frame.file, frame.line),
            ]
        })
        .collect();
    // As text/tabwriter with cells of at least 1, tabs of 8 and a padding of 1.
    let width = |column: usize| {
        let longest = rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        (longest + 1).next_multiple_of(TAB)
    };
    let widths = [width(0), width(1), width(2)];
    for row in &rows {
        for (cell, width) in row.iter().zip(widths) {
            let tabs = (width - cell.chars().count()).div_ceil(TAB);
            let _ = write!(text, "{cell}{}", "\t".repeat(tabs));
        }
        let _ = writeln!(text, "{}", row[3]);
    }
    text.push('\n');
}

const TAB: usize = 8;

/// Every goroutine with its stack, as a traceback shows them: `debug=2`.
pub fn stacks(look: &Look) -> String {
    let mut text = String::new();
    for (goroutine, stack) in look.goroutines() {
        if !text.is_empty() {
            text.push('\n');
        }
        header(&mut text, look, goroutine);
        let stack = look.stack(stack);
        if stack.is_empty() {
            text.push_str("\tgoroutine running on other thread; stack unavailable\n");
        }
        for (pc, frame) in frames(look, stack).filter(|(_, frame)| is_shown(&frame.function)) {
            let _ = write!(text, "{}(...)\n\t{}:{}", frame.function, frame.file, frame.line);
            if !frame.inlined {
                offset(&mut text, look, pc);
            }
            text.push('\n');
        }
        created_by(&mut text, look, goroutine);
    }
    text
}

fn header(text: &mut String, look: &Look, goroutine: &Goroutine) {
    let _ = write!(text, "goroutine {} [{}", goroutine.goid, look.reason(goroutine));
    if goroutine.status == Status::Leaked {
        text.push_str(" (leaked)");
    }
    let minutes = look.parked_ns(goroutine).unwrap_or(0) / 60_000_000_000;
    if minutes >= 1 {
        let _ = write!(text, ", {minutes} minutes");
    }
    text.push_str("]:\n");
}

fn created_by(text: &mut String, look: &Look, goroutine: &Goroutine) {
    let pc = goroutine.creation_pc;
    // The function whose code it is, not what is inlined there.
    let Some(outer) = look.symbols.return_address(pc).last() else { return };
    if goroutine.goid == 1 || !is_shown(&outer.function) {
        return;
    }
    let _ = write!(text, "created by {}", outer.function);
    if goroutine.parent_goid != 0 {
        let _ = write!(text, " in goroutine {}", goroutine.parent_goid);
    }
    let inner = look.symbols.return_address(pc).first().unwrap_or(outer);
    let _ = write!(text, "\n\t{}:{}", inner.file, inner.line);
    offset(text, look, pc);
    text.push('\n');
}

/// How far into its function a return address is.
fn offset(text: &mut String, look: &Look, pc: u64) {
    if let Some(entry) = look.entry(pc).filter(|entry| *entry < pc) {
        let _ = write!(text, " +{:#x}", pc - entry);
    }
}

/// What a traceback shows of a program: not the runtime, but for what it exports.
fn is_shown(function: &str) -> bool {
    match function.strip_prefix("runtime.") {
        Some(name) => name.starts_with(|first: char| first.is_ascii_uppercase()),
        None => function.contains('.'),
    }
}

fn frames<'a>(look: &'a Look, stack: &'a [u64]) -> impl Iterator<Item = At<'a>> {
    stack.iter().flat_map(|pc| look.calls(*pc).iter().map(|frame| (*pc, frame)))
}
