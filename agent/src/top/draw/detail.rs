//! The page of one incident, one sign or one group.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::widgets::Paragraph;

use super::super::model::{GroupId, Shown};
use super::super::view::{Item, View, first_root};
use super::process::group;
use super::scrolled;
use crate::node::ProcessKey;
use crate::report::{self, Group, Incident, Report, Shown as HowShown};
use crate::words::{blocker, goroutines, printable, short};

/// Columns of a group's line.
const LINE: usize = 60;

/// Ids told of those that the others wait for.
const MAX_ROOTS: usize = 20;

pub(super) fn draw(
    frame: &mut Frame<'_>,
    area: Rect,
    view: &View,
    key: ProcessKey,
    item: Item,
    process: Option<&Shown>,
) {
    let Some((process, report)) = process.and_then(|process| Some((process, process.report.as_ref()?))) else {
        return frame.render_widget(Paragraph::new("It is not watched any more."), area);
    };
    let title = format!("{} (pid {})", printable(&process.name), key.pid);
    let text = text(item, process, report);
    let text = text.unwrap_or_else(|| "\nThese goroutines are there no more. Esc goes back.".to_owned());
    scrolled(frame, area, view, &title, text.trim_start());
}

fn text(item: Item, process: &Shown, report: &Report) -> Option<String> {
    match item {
        Item::Group(id) => group(item, report).map(|group| of_group(id, group, process, report)),
        Item::Incident(root) => {
            let incident = report.incidents.iter().find(|incident| first_root(&incident.roots) == root)?;
            Some(chain(incident, report, None))
        }
        Item::Sign(index) => {
            let sign = report.runtime.as_ref()?.signs.get(index)?;
            let ids: Vec<String> = sign.goroutines.iter().map(u64::to_string).collect();
            let about = if ids.is_empty() { String::new() } else { format!("\n\ngoroutines {}", ids.join(", ")) };
            Some(format!("{}: {}{about}", sign.rule, sign.says))
        }
    }
}

fn of_group(id: GroupId, group: &Group, process: &Shown, report: &Report) -> String {
    let shown = HowShown { all: true, frames: usize::MAX, ..HowShown::default() };
    let mut text = report::render_group(group, report.target.module.as_deref(), &shown);
    let counts = process.counts(id);
    if counts.len() > 1 {
        text += &format!("  so far      {} {}\n", short::line(&counts, LINE), group.count);
    }
    let place = report.groups.iter().position(|other| std::ptr::eq(other, group));
    let among = report.incidents.iter().filter(|incident| place.is_some_and(|place| incident.groups.contains(&place)));
    for incident in among {
        text += &format!("\n{}", chain(incident, report, place));
    }
    text
}

/// Who waits for whom: those that the others wait for first; `here` is marked.
fn chain(incident: &Incident, report: &Report, here: Option<usize>) -> String {
    let times = if incident.times > 1 { format!(" ({} times)", incident.times) } else { String::new() };
    let mut text = format!("INCIDENT {}{times}.\n\n", incident.headline);
    let roots: Vec<String> = incident.roots.iter().take(MAX_ROOTS).map(u64::to_string).collect();
    let whom = if incident.cycle { "in a circle" } else { "for whom the others wait" };
    text += &format!("  {whom}: goroutines {}\n", roots.join(", "));
    for (index, group) in incident.groups.iter().filter_map(|index| Some((*index, report.groups.get(*index)?))) {
        let is_root = group.goids.iter().any(|goid| incident.roots.contains(goid));
        let mark = if here == Some(index) { '→' } else { ' ' };
        text += &format!(
            "  {mark} {}{} [{}] at {}\n",
            if is_root { "" } else { "behind them: " },
            goroutines(group.count),
            group.wait_reason,
            blocker(group.in_program.as_ref().or(group.blocked_at.as_ref()))
        );
    }
    text + "\n  w: look now who waits for whom, one by one\n"
}
