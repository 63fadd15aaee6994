//! The page of all processes.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Text};
use ratatui::widgets::{Cell, Clear, Paragraph, Row, Table, TableState};

use clap::ValueEnum as _;

use super::super::column::Column;
use super::super::model::{Model, Shown};
use super::super::view::View;
use super::{bold, chosen, dim, verdict, visible};
use crate::node::{ProcessKey, WatchState};
use crate::words::{numbers, printable, short};

/// Columns of a name at most, and of a user.
const NAME: u16 = 28;
const USER: u16 = 10;

/// Columns of the line of goroutines, where there is room for it.
const LINE: u16 = 24;

pub(super) fn draw(frame: &mut Frame<'_>, area: Rect, view: &View, model: &Model) {
    let [head, how, body] =
        Layout::vertical([Constraint::Length(1), Constraint::Length(1), Constraint::Min(0)]).areas(area);
    frame.render_widget(Paragraph::new(totals(model)), head);
    frame.render_widget(Paragraph::new(Line::styled(order(view, model), dim())), how);
    let list = view.processes(model);
    if list.is_empty() {
        frame.render_widget(Paragraph::new(nothing(view, model)), body);
        return;
    }
    table(frame, body, view, &list, view.process(model));
}

/// What there is in all.
fn totals<'a>(model: &Model) -> Line<'a> {
    let all = || model.processes.values();
    let watched = all().filter(|process| process.numbers().is_some()).count();
    let refused = all().filter(|process| matches!(process.state, WatchState::Refused { .. })).count();
    let sum = |of: fn(&Shown) -> u64| all().map(of).fold(0, u64::saturating_add);
    let goroutines = sum(|process| process.numbers().map_or(0, |numbers| numbers.goroutines));
    let leaked = sum(|process| process.numbers().map_or(0, |numbers| numbers.leaked));
    let stuck = sum(|process| process.numbers().map_or(0, |numbers| numbers.stuck));
    let processes = if model.processes.len() == 1 { "process" } else { "processes" };
    let mut text = format!("{} Go {processes}, {watched} watched", model.processes.len());
    if refused > 0 {
        text += &format!(", {refused} refused");
    }
    text += &format!(
        "; goroutines {}, leaked {}, stuck {}",
        numbers::number(goroutines),
        numbers::number(leaked),
        numbers::number(stuck)
    );
    Line::styled(text, bold())
}

fn order(view: &View, model: &Model) -> String {
    let way = if view.reversed { ", the other way round" } else { "" };
    let filter = if view.filter().is_empty() { String::new() } else { format!("; only {}", printable(view.filter())) };
    let unseen = match model.unseen {
        0 => String::new(),
        1 => "; 1 process may not be looked at: it takes root, or CAP_SYS_PTRACE".to_owned(),
        some => format!("; {some} processes may not be looked at: it takes root, or CAP_SYS_PTRACE"),
    };
    format!("by {}{way}{filter}{unseen}", view.sort.title().to_lowercase())
}

fn nothing(view: &View, model: &Model) -> String {
    match (model.processes.is_empty(), model.ready) {
        (false, _) => format!("\nNo process has “{}” in its name, command line or user.", printable(view.filter())),
        (true, false) => "\nLooking for Go processes …".to_owned(),
        (true, true) if model.unseen > 0 => format!(
            "\nNo Go process is seen. {} processes may not be looked at: run as root, or with CAP_SYS_PTRACE.",
            model.unseen
        ),
        (true, true) => "\nNo Go process runs here.".to_owned(),
    }
}

/// What there is to say of the chosen process.
pub(super) fn said(view: &View, model: &Model) -> String {
    let list = view.processes(model);
    let Some((_, process)) = list.get(view.process(model)) else { return String::new() };
    let why = match &process.state {
        WatchState::Refused { message, .. } => format!("not watched: {message}"),
        WatchState::Unselected { why } => format!("not watched: {why}"),
        WatchState::Starting | WatchState::Watched => process.described.command.clone(),
    };
    printable(&why)
}

/// What a column has of a process.
type Of = dyn Fn(ProcessKey, &Shown) -> String;

/// A column as it is drawn.
struct Drawn {
    title: String,
    width: u16,
    is_text: bool,
    sorted: bool,
    cell: Box<Of>,
}

/// The columns, as many as fit; names have the room that is left.
fn columns(view: &View, width: u16, list: &[(ProcessKey, &Shown)]) -> Vec<Drawn> {
    let pid = list.iter().map(|(key, _)| key.pid.to_string().len() as u16).max().unwrap_or(3).max(3);
    let mut drawn: Vec<Drawn> = Column::value_variants()
        .iter()
        .map(|column| Drawn {
            title: column.title().to_owned(),
            width: if *column == Column::Pid { pid } else { column.width() },
            is_text: column.is_text(),
            sorted: *column == view.sort,
            cell: Box::new(|key, process| column.cell(key, process)),
        })
        .collect();
    let used = |drawn: &[Drawn]| drawn.iter().map(|column| column.width + 1).sum::<u16>().saturating_sub(1);
    let mut left = width.saturating_sub(used(&drawn));
    let name = if left >= NAME + LINE { NAME } else { left };
    drawn[1].width = name;
    left -= name;
    let mut further = |left: &mut u16, title: &str, width: u16, cell: Box<Of>| {
        if *left > width {
            *left -= width + 1;
            drawn.push(Drawn { title: title.to_owned(), width, is_text: true, sorted: false, cell });
        }
    };
    further(
        &mut left,
        "GOROUTINES SO FAR",
        LINE,
        Box::new(|_, process| short::line(&goroutines(process), LINE.into())),
    );
    further(&mut left, "USER", USER, Box::new(|_, process| printable(&process.described.user)));
    // The command line has all that is left, if that is worth it.
    let rest = left.saturating_sub(1);
    further(&mut left, "COMMAND", rest.max(20), Box::new(|_, process| printable(&process.described.command)));
    drawn
}

/// How many goroutines there were at each look.
pub(super) fn goroutines(process: &Shown) -> Vec<u64> {
    process.history.iter().map(|look| look.goroutines).collect()
}

fn table(frame: &mut Frame<'_>, area: Rect, view: &View, list: &[(ProcessKey, &Shown)], at: usize) {
    let columns = columns(view, area.width, list);
    let titles = columns.iter().map(|column| {
        let style = if column.sorted { bold().add_modifier(Modifier::REVERSED) } else { bold() };
        cell(&column.title, column, style)
    });
    let rows = usize::from(area.height.saturating_sub(1));
    let from = visible(at, rows);
    let shown = list.iter().skip(from).take(rows);
    let lines = shown.clone().map(|(key, process)| {
        let said = process.numbers().and_then(|numbers| numbers.verdict);
        Row::new(columns.iter().enumerate().map(|(place, column)| {
            let style = if place == 2 { verdict(said, view.color) } else { Style::new() };
            cell(&(column.cell)(*key, process), column, style)
        }))
    });
    let widths = columns.iter().map(|column| Constraint::Length(column.width));
    let table = Table::new(lines, widths).header(Row::new(titles)).column_spacing(1).row_highlight_style(chosen());
    frame.render_stateful_widget(table, area, &mut TableState::new().with_selected(Some(at - from)));
    // Why a process is not watched has the place of its numbers.
    let first: u16 = columns.iter().take(3).map(|column| column.width + 1).sum();
    for (line, (_, process)) in shown.enumerate() {
        let why = match &process.state {
            WatchState::Refused { message, .. } => message,
            WatchState::Unselected { why } => why,
            WatchState::Starting | WatchState::Watched => continue,
        };
        let room = Rect { x: area.x + first, y: area.y + 1 + line as u16, height: 1, width: area.width };
        let room = room.intersection(area);
        let style = if from + line == at { chosen() } else { dim() };
        frame.render_widget(Clear, room);
        let text = short::cut(&printable(why), room.width.into());
        frame.render_widget(Paragraph::new(text).style(style), room);
    }
}

fn cell<'a>(text: &str, column: &Drawn, style: Style) -> Cell<'a> {
    let text = Text::from(short::cut(text, column.width.into()));
    Cell::from(if column.is_text { text } else { text.right_aligned() }).style(style)
}
