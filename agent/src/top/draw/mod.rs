//! From view and model to the screen. Everything that is drawn goes through `words::printable`: names are the watched programs'.

mod detail;
mod help;
mod process;
mod processes;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span, Text};
use ratatui::widgets::Paragraph;

use super::model::Model;
use super::view::{Page, View};
use crate::config::ProveConfig;
use crate::detect::Verdict;
use crate::words::printable;

pub use help::{BELOW_HELP, COLUMNS_HELP};

/// Lines below a page: what there is to say, and the keys.
const BELOW: u16 = 2;

/// Lines that a page has on a screen of that height.
pub fn page_height(screen: u16) -> usize {
    screen.saturating_sub(BELOW + 3).into()
}

/// Draws it all.
pub fn draw(frame: &mut Frame<'_>, view: &View, model: &Model) {
    let [page, status, keys] =
        Layout::vertical([Constraint::Min(0), Constraint::Length(1), Constraint::Length(1)]).areas(frame.area());
    match view.page() {
        Page::Processes => processes::draw(frame, page, view, model),
        Page::Process(key) => process::draw(frame, page, view, *key, model.processes.get(key)),
        Page::Item(key, item) => detail::draw(frame, page, view, *key, *item, model.processes.get(key)),
        Page::Text { title, text } => scrolled(frame, page, view, title, text),
        Page::Help => scrolled(frame, page, view, "What keys and columns mean", &help::text()),
    }
    frame.render_widget(Paragraph::new(said(view, model)), status);
    frame.render_widget(Paragraph::new(below(view)), keys);
}

/// The line above the keys.
fn said<'a>(view: &View, model: &Model) -> Line<'a> {
    if let Some(key) = view.asks {
        let most = ProveConfig::default().max_pause.as_millis();
        let text = format!("Stop pid {} for {most} ms at most to prove what leaks? y: yes, other keys: no", key.pid);
        return Line::styled(text, bold());
    }
    let text = match (&view.said, &model.logged) {
        (Some(said), _) => printable(said),
        (None, Some(logged)) if view.read.as_ref() != Some(logged) => printable(logged),
        _ => match view.page() {
            Page::Processes => processes::said(view, model),
            Page::Process(key) | Page::Item(key, _) => {
                model.processes.get(key).map(|process| printable(&process.described.command)).unwrap_or_default()
            }
            Page::Text { .. } | Page::Help => String::new(),
        },
    };
    Line::styled(text, dim())
}

/// The last line: keys, or what is typed.
fn below<'a>(view: &View) -> Line<'a> {
    if view.typing {
        return Line::from(format!("filter: {}▏  Enter: keep  Esc: none", printable(view.filter())));
    }
    let keys: &[(&str, &str)] = match view.page() {
        Page::Processes => &[
            ("Enter", "open"),
            ("/", "filter"),
            ("< >", "sort"),
            ("I", "invert"),
            ("p", "prove"),
            ("s", "save"),
            ("?", "help"),
            ("q", "quit"),
        ],
        Page::Process(_) if view.has_back() => &[
            ("Enter", "open"),
            ("/", "filter"),
            ("w", "why"),
            ("p", "prove"),
            ("s", "save"),
            ("Esc", "back"),
            ("?", "help"),
            ("q", "quit"),
        ],
        Page::Process(_) => &[
            ("Enter", "open"),
            ("/", "filter"),
            ("w", "why"),
            ("p", "prove"),
            ("s", "save"),
            ("?", "help"),
            ("q", "end with the report"),
        ],
        Page::Item(..) => {
            &[("↑ ↓", "scroll"), ("w", "why"), ("p", "prove"), ("s", "save"), ("Esc", "back"), ("q", "quit")]
        }
        Page::Text { .. } | Page::Help => &[("↑ ↓", "scroll"), ("Esc", "back"), ("q", "quit")],
    };
    let words = keys.iter().flat_map(|(key, does)| {
        [
            Span::styled((*key).to_owned(), Style::new().add_modifier(Modifier::REVERSED)),
            Span::raw(format!(" {does}  ")),
        ]
    });
    Line::from_iter(words)
}

/// A page of text under a title; it goes down as far as there are lines.
fn scrolled(frame: &mut Frame<'_>, area: Rect, view: &View, title: &str, text: &str) {
    let [head, body] = Layout::vertical([Constraint::Length(2), Constraint::Min(0)]).areas(area);
    frame.render_widget(Paragraph::new(Line::styled(printable(title), bold())), head);
    let lines = wrapped(text, body.width.into());
    let most = lines.len().saturating_sub(body.height.into());
    let shown = lines.into_iter().skip(view.scroll.min(most)).take(body.height.into());
    frame.render_widget(Paragraph::new(Text::from_iter(shown.map(Line::from))), body);
}

/// Text in lines of that many columns. What goes on in the next line stands where the text after the label does.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    text.lines().flat_map(|line| wrapped_line(&printable(line), width.max(8))).collect()
}

fn wrapped_line(line: &str, width: usize) -> Vec<String> {
    let hang = " ".repeat(hang(line).min(width / 2));
    let (mut done, mut now) = (Vec::new(), String::new());
    let begin = |now: &mut String, done: &mut Vec<String>| {
        done.push(now.trim_end().to_owned());
        *now = hang.clone();
    };
    for word in line.split_inclusive(' ') {
        if columns(&now) + columns(word.trim_end()) > width && now.trim() != "" {
            begin(&mut now, &mut done);
        }
        // A word that no line has room for.
        for c in word.chars() {
            if columns(&now) + columns(c.encode_utf8(&mut [0; 4])) > width && c != ' ' {
                begin(&mut now, &mut done);
            }
            now.push(c);
        }
    }
    done.push(now.trim_end().to_owned());
    done
}

/// Where the text of a line begins: behind its label and two spaces or more; a little further in than a line without.
fn hang(line: &str) -> usize {
    /// Columns of a label at most.
    const LABEL: usize = 32;
    let head: Vec<char> = line.chars().take(LABEL).collect();
    let is_text = |place: &usize| head[*place] != ' ' && *place >= 2 && head[*place - 2..*place] == [' ', ' '];
    match (0..head.len()).rev().find(is_text) {
        Some(place) if head[..place].iter().all(|c| *c == ' ') => place + 2,
        Some(place) => place,
        None => 0,
    }
}

/// Columns that a text takes on the screen.
fn columns(text: &str) -> usize {
    Span::raw(text).width()
}

fn bold() -> Style {
    Style::new().add_modifier(Modifier::BOLD)
}

fn dim() -> Style {
    Style::new().add_modifier(Modifier::DIM)
}

/// The line that is chosen.
fn chosen() -> Style {
    Style::new().add_modifier(Modifier::REVERSED)
}

/// As reports on a terminal have verdicts.
fn verdict(verdict: Option<Verdict>, color: bool) -> Style {
    let of = |color_of| if color { bold().fg(color_of) } else { bold() };
    match verdict {
        Some(Verdict::Proven) => of(Color::Red),
        Some(Verdict::Likely) => of(Color::Yellow),
        Some(Verdict::Stuck) => of(Color::Magenta),
        Some(Verdict::Idle) | None => dim(),
    }
}

/// The part of a list that is on the screen: the one of its pages that has the chosen line.
fn visible(chosen: usize, rows: usize) -> usize {
    chosen / rows.max(1) * rows.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_on_stands_below_the_text() {
        let text = "  evidence    Goroutine 31 holds the lock\n              main.f main.go:7\nplain words only";
        let expected = [
            "  evidence    Goroutine 31",
            "              holds the lock",
            "              main.f main.go:7",
            "plain words only",
        ];
        assert_eq!(wrapped(text, 30), expected);
        assert_eq!(wrapped(text, 28)[2..4], ["              main.f", "              main.go:7"], "half of it at most");
        assert_eq!(wrapped("", 27), Vec::<String>::new());
        assert_eq!(wrapped("上上上上上 x", 8), ["上上上上", "上 x"], "two columns each");
        assert_eq!(wrapped("abcdefghij", 1), ["abcdefgh", "ij"], "whatever the width");
    }
}
