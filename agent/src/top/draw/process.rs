//! The page of one process: what there is to know of it, then its incidents, its signs and its groups.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::Style;
use ratatui::text::{Line, Span, Text};
use ratatui::widgets::{Cell, Paragraph, Row, Table, TableState};

use super::super::model::{GroupId, Shown};
use super::super::view::{Item, View, first_root};
use super::processes::goroutines;
use super::{bold, chosen, dim, scrolled, verdict, visible};
use crate::node::{ProcessKey, WatchState};
use crate::report::{self, Group, Numbers, Report, held};
use crate::words::numbers::{number, signed_rate};
use crate::words::{printable, short};

/// Columns of each line of numbers, on a screen of that width.
const fn line_width(screen: u16) -> usize {
    if screen < 110 { 8 } else { 16 }
}

/// Incidents and signs above the groups, of a page of that height.
fn most_told(height: u16) -> usize {
    usize::from(height / 3).max(1)
}

pub(super) fn draw(frame: &mut Frame<'_>, area: Rect, view: &View, key: ProcessKey, process: Option<&Shown>) {
    let Some(process) = process else {
        return frame.render_widget(Paragraph::new("Waiting for the first look at it …"), area);
    };
    let Some(report) = &process.report else {
        let title = format!("{} (pid {})", printable(&process.name), key.pid);
        return scrolled(frame, area, view, &title, &not_watched(process));
    };
    let items = view.items(process);
    let at = view.item(&items);
    let told = items.iter().filter(|item| !matches!(item, Item::Group(_))).count();
    let shown = told.min(most_told(area.height));
    let [head, above, below] =
        Layout::vertical([Constraint::Length(4), Constraint::Length(shown as u16), Constraint::Min(0)]).areas(area);
    frame.render_widget(Paragraph::new(heading(key, process, report, line_width(area.width))), head);
    let (above_at, from) = (at.min(told.saturating_sub(1)), visible(at.min(told.saturating_sub(1)), shown));
    let lines = items[..told].iter().enumerate().skip(from).take(shown).map(|(place, item)| {
        let is_chosen = at < told && place == above_at;
        let style = if is_chosen { chosen() } else { Style::new() };
        Line::from(short::cut(&sentence(*item, report), area.width.into())).style(style)
    });
    frame.render_widget(Paragraph::new(Text::from_iter(lines)), above);
    let groups: Vec<&Group> = items[told..].iter().filter_map(|item| group(*item, report)).collect();
    if groups.is_empty() {
        let text = if report.groups.is_empty() {
            format!("\nNo goroutine has been parked longer than {:.1} s.", report.observed.threshold_seconds)
        } else {
            format!("\nNone of the {} groups is one that was asked for.", report.groups.len())
        };
        return frame.render_widget(Paragraph::new(text), below);
    }
    table(frame, below, view, &groups, at.checked_sub(told));
}

fn not_watched(process: &Shown) -> String {
    let why = match &process.state {
        WatchState::Refused { message, .. } => format!("It is not watched: {message}"),
        WatchState::Unselected { why } => format!("It is not watched: {why}"),
        WatchState::Starting | WatchState::Watched => "Waiting for the first look at it …".to_owned(),
    };
    format!("{}\n\n{}", printable(&process.described.command), printable(&why))
}

/// The group that a line is about.
pub(super) fn group(item: Item, report: &Report) -> Option<&Group> {
    let Item::Group(wanted) = item else { return None };
    report.groups.iter().find(|group| GroupId::of(group) == wanted)
}

/// An incident or a sign in one line.
fn sentence(item: Item, report: &Report) -> String {
    match item {
        Item::Incident(root) => {
            let incident = report.incidents.iter().find(|incident| first_root(&incident.roots) == root);
            incident.map(|incident| format!("INCIDENT {}", printable(&incident.headline))).unwrap_or_default()
        }
        Item::Sign(index) => {
            let sign = report.runtime.as_ref().and_then(|runtime| runtime.signs.get(index));
            sign.map(|sign| format!("! {}: {}", sign.rule, printable(&sign.says))).unwrap_or_default()
        }
        Item::Group(_) => String::new(),
    }
}

fn heading<'a>(key: ProcessKey, process: &Shown, report: &Report, width: usize) -> Vec<Line<'a>> {
    let (target, observed) = (&report.target, &report.observed);
    let mut name = vec![Span::styled(format!("{} (pid {})", printable(&process.name), key.pid), bold())];
    if !process.described.user.is_empty() {
        name.push(Span::raw(format!("  {}", printable(&process.described.user))));
    }
    name.push(Span::raw(format!(
        "  {} {}{}  watched {}",
        printable(&target.go_version),
        target.arch,
        if target.stripped { ", stripped" } else { "" },
        short::time(observed.seconds)
    )));
    vec![Line::from(name), counts(process, width), costs(process, report), Line::default()]
}

/// Its numbers, each with how it went.
fn counts<'a>(process: &Shown, width: usize) -> Line<'a> {
    let Some(now) = process.numbers() else { return Line::default() };
    let in_trouble = |numbers: &Numbers| numbers.leaked.saturating_add(numbers.stuck);
    let line = |values: Vec<u64>| format!(" {}  ", short::line(&values, width));
    let mut text = format!("goroutines {}{}", number(now.goroutines), line(goroutines(process)));
    text += &format!(
        "leaked {}, stuck {}{}",
        number(now.leaked),
        number(now.stuck),
        line(process.history.iter().map(in_trouble).collect())
    );
    if let Some(heap) = now.heap {
        let heaps = process.history.iter().filter_map(|look| look.heap).collect();
        text += &format!("heap {}{}", short::bytes(heap), line(heaps));
    }
    Line::from(text.trim_end().to_owned())
}

fn costs<'a>(process: &Shown, report: &Report) -> Line<'a> {
    let observed = &report.observed;
    let mut text =
        format!("mode {}, costs it {}% of a core", observed.mode, short::percent(observed.cost.percent_of_core));
    if let Some(share) = process.gc_share() {
        text += &format!("; GC {}%", short::percent(100.0 * share));
    }
    if let Some(runnable) = process.numbers().and_then(|numbers| numbers.runnable) {
        text += &format!("; runnable {runnable}");
    }
    text += &format!("; lost {}", report::losses(&observed.lost));
    if let Some(proofs) = &observed.proofs {
        text += &format!("; proofs {}, stood still {:.1} ms", proofs.taken, 1e3 * proofs.paused_seconds);
    }
    if let Some(why) = &observed.modes.no_probes {
        text += &format!("; no probes: {}", printable(why));
    }
    Line::styled(text, dim())
}

/// Titles, and cells that each needs; the last two share what is left.
const TITLES: [(&str, u16); 7] =
    [("VERDICT", 7), ("COUNT", 6), ("GROWTH", 8), ("PARKED", 6), ("HELD", 5), ("WAITS", 13), ("WHERE", 0)];

fn table(frame: &mut Frame<'_>, area: Rect, view: &View, groups: &[&Group], at: Option<usize>) {
    let fixed: u16 = TITLES.iter().map(|(_, width)| width + 1).sum::<u16>() - 1;
    let left = area.width.saturating_sub(fixed);
    // Where the groups were made is worth a column of its own where there is room; their page says it anyway.
    let wide = left >= 80;
    let place_width = if wide { left / 2 } else { left };
    let mut widths: Vec<u16> = TITLES.iter().map(|(_, width)| *width).collect();
    widths[6] = place_width;
    let mut titles: Vec<&str> = TITLES.iter().map(|(title, _)| *title).collect();
    if wide {
        widths.push(left - place_width - 1);
        titles.push("MADE BY");
    }
    let rows = usize::from(area.height.saturating_sub(1));
    let from = visible(at.unwrap_or(0), rows);
    let lines = groups.iter().skip(from).take(rows).map(|group| {
        let mut texts = cells(group);
        texts.truncate(titles.len());
        Row::new(texts.into_iter().zip(&widths).enumerate().map(|(place, (text, width))| {
            let text = Text::from(short::cut(&text, (*width).into()));
            let is_number = (1..=4).contains(&place);
            let style = if place == 0 { verdict(Some(group.verdict), view.color) } else { Style::new() };
            Cell::from(if is_number { text.right_aligned() } else { text }).style(style)
        }))
    });
    let header = Row::new(titles.iter().enumerate().map(|(place, title)| {
        let text = Text::from(*title);
        Cell::from(if (1..=4).contains(&place) { text.right_aligned() } else { text }).style(bold())
    }));
    let table = Table::new(lines, widths.iter().map(|width| Constraint::Length(*width)))
        .header(header)
        .column_spacing(1)
        .row_highlight_style(chosen());
    frame.render_stateful_widget(table, area, &mut TableState::new().with_selected(at.map(|at| at - from)));
}

fn cells(group: &Group) -> Vec<String> {
    vec![
        group.verdict.to_string().to_uppercase(),
        short::count(group.count),
        signed_rate(group.growth_per_second),
        short::time(group.parked_seconds.max),
        short::bytes(held(group)),
        printable(&group.wait_reason),
        report::place(group.in_program.as_ref().or(group.blocked_at.as_ref())),
        report::place(group.created_by.as_ref()),
    ]
}
