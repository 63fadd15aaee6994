//! What of the model is on the screen, and what keys make of that. A pure value: drawing it is `draw`'s, doing what it asks for the
//! module's.

use std::sync::Arc;

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::column::Column;
use super::model::{GroupId, Model, Shown};
use crate::node::ProcessKey;
use crate::report::{Filter, Group, Report};

/// Characters of a filter at most.
const MAX_FILTER: usize = 60;

/// One page; those that it was reached from are below it.
#[derive(Clone, Debug, PartialEq)]
pub enum Page {
    /// All processes.
    Processes,
    /// One of them: its incidents and signs, and its groups.
    Process(ProcessKey),
    /// One of those.
    Item(ProcessKey, Item),
    /// What something has come to.
    Text {
        /// What.
        title: String,
        /// All of it.
        text: String,
    },
    /// What keys and columns mean.
    Help,
}

/// A line of a process's page that can be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item {
    /// The incident whose first root is this goroutine.
    Incident(u64),
    /// So many signs before this one.
    Sign(usize),
    /// A group of goroutines.
    Group(GroupId),
}

/// What is asked for that the view cannot do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing.
    None,
    /// End.
    Quit,
    /// Stop this process for a moment and prove what leaks.
    Prove(ProcessKey),
    /// Look who waits for whom.
    Why(ProcessKey),
    /// Save its report.
    Save(ProcessKey),
}

/// See the module.
#[derive(Clone, Debug)]
pub struct View {
    pages: Vec<Page>,
    /// What processes are ordered by.
    pub sort: Column,
    /// Whether the other way round.
    pub reversed: bool,
    /// What names or groups have to have in them: of the page of processes, and of one of them.
    filters: [String; 2],
    /// Whether what is typed goes there.
    pub typing: bool,
    /// Whose groups are shown of a process.
    pub wanted: Filter,
    /// Whether there are colours.
    pub color: bool,
    /// The process that is to be stopped, if it may.
    pub asks: Option<ProcessKey>,
    /// What there is to say.
    pub said: Option<String>,
    /// What was logged and has been read: a key was pressed since.
    pub read: Option<String>,
    /// Lines that a page has, for keys that go a page up or down.
    pub height: usize,
    process: Cursor<ProcessKey>,
    item: Cursor<Item>,
    /// Lines that a page of text is scrolled down.
    pub scroll: usize,
}

/// The line of a list that is chosen: known by what it is, and by its place once that is gone.
#[derive(Clone, Copy, Debug)]
struct Cursor<T> {
    on: Option<T>,
    at: usize,
}

impl<T: Copy + PartialEq> Cursor<T> {
    const START: Self = Self { on: None, at: 0 };

    fn place(self, list: &[T]) -> usize {
        let there = list.iter().position(|one| Some(*one) == self.on);
        there.unwrap_or(self.at).min(list.len().saturating_sub(1))
    }

    fn go(&mut self, list: &[T], to: usize) {
        self.at = to.min(list.len().saturating_sub(1));
        self.on = list.get(self.at).copied();
    }

    fn step(&mut self, list: &[T], by: isize) {
        self.go(list, self.place(list).saturating_add_signed(by));
    }
}

impl View {
    /// Of all processes.
    pub fn new(sort: Column, filter: String, wanted: Filter, color: bool) -> Self {
        Self {
            pages: vec![Page::Processes],
            sort,
            reversed: false,
            filters: [filter, String::new()],
            typing: false,
            wanted,
            color,
            asks: None,
            said: None,
            read: None,
            height: 10,
            process: Cursor::START,
            item: Cursor::START,
            scroll: 0,
        }
    }

    /// Of one process, and no other.
    pub fn of_one(key: ProcessKey, wanted: Filter, color: bool) -> Self {
        let view = Self::new(Column::default(), String::new(), wanted, color);
        Self { pages: vec![Page::Process(key)], ..view }
    }

    /// What is on the screen.
    pub fn page(&self) -> &Page {
        self.pages.last().unwrap_or(&Page::Help)
    }

    /// Whether there is a page that this one was reached from.
    pub fn has_back(&self) -> bool {
        self.pages.len() > 1
    }

    /// Shows a text.
    pub fn show(&mut self, title: String, text: String) {
        self.said = None;
        self.open(Page::Text { title, text });
    }

    /// The filter of the page that is shown.
    pub fn filter(&self) -> &str {
        &self.filters[self.filtered()]
    }

    fn filtered(&self) -> usize {
        usize::from(*self.page() != Page::Processes)
    }

    /// The processes, filtered and in order.
    pub fn processes<'m>(&self, model: &'m Model) -> Vec<(ProcessKey, &'m Shown)> {
        let wanted = self.filters[0].to_lowercase();
        let fits = |(key, process): &(ProcessKey, &Shown)| {
            [&process.name, &process.described.command, &process.described.user]
                .iter()
                .any(|text| text.to_lowercase().contains(&wanted))
                || key.pid.to_string() == wanted
        };
        let mut list: Vec<_> = model.processes.iter().map(|(key, process)| (*key, process)).filter(fits).collect();
        list.sort_by(|a, b| {
            let known = b.1.numbers().is_some().cmp(&a.1.numbers().is_some());
            let order = self.sort.order(*a, *b);
            known.then(if self.reversed { order.reverse() } else { order })
        });
        list
    }

    /// Which of them is chosen.
    pub fn process(&self, model: &Model) -> usize {
        self.process.place(&keys(&self.processes(model)))
    }

    /// What there is of a process, filtered and in order: incidents, signs, groups.
    pub fn items(&self, process: &Shown) -> Vec<Item> {
        let Some(report) = &process.report else { return Vec::new() };
        let incidents = report.incidents.iter().map(|incident| Item::Incident(first_root(&incident.roots)));
        let signs = report.runtime.iter().flat_map(|runtime| &runtime.signs).enumerate();
        let wanted = self.filters[1].to_lowercase();
        let groups = process.groups().into_iter().filter(|group| self.wanted.fits(group) && has(group, &wanted));
        incidents
            .chain(signs.map(|(index, _)| Item::Sign(index)))
            .chain(groups.map(|group| Item::Group(GroupId::of(group))))
            .collect()
    }

    /// Which of them is chosen.
    pub fn item(&self, items: &[Item]) -> usize {
        self.item.place(items)
    }

    /// The process that the page is about; of the page of all, the one that is chosen.
    pub fn subject(&self, model: &Model) -> Option<ProcessKey> {
        let on_page = self.pages.iter().rev().find_map(|page| match page {
            Page::Process(key) | Page::Item(key, _) => Some(*key),
            _ => None,
        });
        on_page.or_else(|| self.processes(model).get(self.process(model)).map(|(key, _)| *key))
    }

    /// The same, if there is a report on it; else that is said.
    fn watched(&mut self, model: &Model) -> Option<ProcessKey> {
        let key = self.subject(model)?;
        if report(key, model).is_none() {
            self.said = Some(format!("pid {} is not watched", key.pid));
            return None;
        }
        Some(key)
    }

    fn open(&mut self, page: Page) {
        if *self.page() != page {
            self.pages.push(page);
        }
        self.scroll = 0;
    }

    fn back(&mut self) {
        if self.pages.len() > 1 {
            self.pages.pop();
            self.scroll = 0;
        }
    }

    /// Leaves the pages of processes that are gone.
    pub fn follow(&mut self, model: &Model) {
        let gone = |page: &Page| match page {
            Page::Process(key) | Page::Item(key, _) => !model.processes.contains_key(key),
            _ => false,
        };
        if let Some(from) = self.pages.iter().position(gone).filter(|from| *from > 0) {
            self.pages.truncate(from);
            self.said = Some("the process has ended".to_owned());
        }
        self.asks = self.asks.filter(|key| model.processes.contains_key(key));
    }

    /// A key was pressed.
    pub fn update(&mut self, key: KeyEvent, model: &Model) -> Action {
        if key.modifiers.contains(KeyModifiers::ALT) {
            // As terminals send Esc and a key that follows at once.
            self.update(KeyCode::Esc.into(), model);
            return self.update(KeyEvent::new(key.code, key.modifiers - KeyModifiers::ALT), model);
        }
        self.said = None;
        self.read = model.logged.clone();
        if key.modifiers.contains(KeyModifiers::CONTROL) && matches!(key.code, KeyCode::Char('c' | 'C')) {
            return Action::Quit;
        }
        if let Some(process) = self.asks.take() {
            return match key.code {
                KeyCode::Char('y' | 'Y') => {
                    self.said = Some(format!("proving what leaks in pid {} …", process.pid));
                    Action::Prove(process)
                }
                _ => Action::None,
            };
        }
        if self.typing {
            self.typed(key.code);
            return Action::None;
        }
        match key.code {
            KeyCode::Char('q' | 'Q') | KeyCode::F(10) => return Action::Quit,
            KeyCode::Char('?' | 'h') | KeyCode::F(1) => self.open(Page::Help),
            KeyCode::Char('p') => self.asks = self.watched(model),
            KeyCode::Char('s') => return self.watched(model).map_or(Action::None, Action::Save),
            KeyCode::Char('w') => return self.why(model),
            KeyCode::Esc | KeyCode::Backspace | KeyCode::Left => self.leave(),
            KeyCode::Enter | KeyCode::Right => self.enter(model),
            KeyCode::Char('/' | '\\') | KeyCode::F(3 | 4) => {
                self.typing = matches!(self.page(), Page::Processes | Page::Process(_));
            }
            code => self.moved(code, model),
        }
        Action::None
    }

    fn why(&mut self, model: &Model) -> Action {
        let Some(process) = self.watched(model) else { return Action::None };
        self.said = Some(format!("looking who waits for whom in pid {} …", process.pid));
        Action::Why(process)
    }

    fn typed(&mut self, code: KeyCode) {
        let place = self.filtered();
        let filter = &mut self.filters[place];
        match code {
            KeyCode::Enter => self.typing = false,
            KeyCode::Esc => {
                filter.clear();
                self.typing = false;
            }
            KeyCode::Backspace => drop(filter.pop()),
            KeyCode::Char(c) if filter.chars().count() < MAX_FILTER => filter.push(c),
            _ => {}
        }
    }

    /// What Esc does: the filter goes first, then the page.
    fn leave(&mut self) {
        let place = self.filtered();
        let is_list = matches!(self.page(), Page::Processes | Page::Process(_));
        if is_list && !self.filters[place].is_empty() {
            self.filters[place].clear();
        } else {
            self.back();
        }
    }

    fn enter(&mut self, model: &Model) {
        match self.page().clone() {
            Page::Processes => {
                if let Some((key, _)) = self.processes(model).get(self.process(model)) {
                    self.item = Cursor::START;
                    self.filters[1].clear();
                    self.open(Page::Process(*key));
                }
            }
            Page::Process(key) => {
                let Some(process) = model.processes.get(&key) else { return };
                let items = self.items(process);
                if let Some(item) = items.get(self.item(&items)) {
                    self.open(Page::Item(key, *item));
                }
            }
            Page::Item(..) | Page::Text { .. } | Page::Help => {}
        }
    }

    fn moved(&mut self, code: KeyCode, model: &Model) {
        let page = self.height.saturating_sub(1).max(1) as isize;
        let by = match code {
            KeyCode::Up | KeyCode::Char('k') => -1,
            KeyCode::Down | KeyCode::Char('j') => 1,
            KeyCode::PageUp => -page,
            KeyCode::PageDown | KeyCode::Char(' ') => page,
            KeyCode::Home => isize::MIN,
            KeyCode::End => isize::MAX,
            code => return self.sorted(code),
        };
        match self.page().clone() {
            Page::Processes => {
                let list = keys(&self.processes(model));
                self.process.step(&list, by);
            }
            Page::Process(key) => {
                let items = model.processes.get(&key).map(|process| self.items(process)).unwrap_or_default();
                self.item.step(&items, by);
            }
            // Drawing goes no further than the last line.
            Page::Item(..) | Page::Text { .. } | Page::Help => self.scroll = self.scroll.saturating_add_signed(by),
        }
    }

    fn sorted(&mut self, code: KeyCode) {
        if *self.page() != Page::Processes {
            return;
        }
        match code {
            KeyCode::Char('>') | KeyCode::F(6) => self.sort = self.sort.beside(true),
            KeyCode::Char('<') => self.sort = self.sort.beside(false),
            KeyCode::Char('I') => self.reversed = !self.reversed,
            // As in htop and top.
            KeyCode::Char('N') => self.sort = Column::Pid,
            KeyCode::Char('M') => self.sort = Column::Heap,
            KeyCode::Char('P') => self.sort = Column::Gc,
            KeyCode::Char('G') => self.sort = Column::Goroutines,
            KeyCode::Char('L') => self.sort = Column::Leaked,
            KeyCode::Char('V') => self.sort = Column::Verdict,
            _ => {}
        }
    }
}

fn keys(list: &[(ProcessKey, &Shown)]) -> Vec<ProcessKey> {
    list.iter().map(|(key, _)| *key).collect()
}

/// The report of a process.
pub fn report(key: ProcessKey, model: &Model) -> Option<&Arc<Report>> {
    model.processes.get(&key)?.report.as_ref()
}

/// What an incident is known by.
pub fn first_root(roots: &[u64]) -> u64 {
    roots.first().copied().unwrap_or(0)
}

/// Whether a text is in what is shown of a group.
fn has(group: &Group, text: &str) -> bool {
    let places = [&group.created_by, &group.blocked_at, &group.in_program].into_iter().flatten();
    places
        .flat_map(|place| [place.function.as_str(), place.file.as_str()])
        .chain([group.wait_reason.as_str(), group.start_function.as_str(), group.verdict.into()])
        .any(|shown| shown.to_lowercase().contains(text))
}
