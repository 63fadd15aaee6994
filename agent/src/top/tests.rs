//! The view of made-up hosts, as people see it: `tests/golden/top-*.txt`. `UPDATE_GOLDEN=1 cargo test --package parkwarden --lib top`
//! writes them; read the diff. And what keys do.

use std::sync::Arc;

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::column::Column;
use super::draw;
use super::model::{GroupId, Model, Shown};
use super::view::{Action, Item, Page, View};
use crate::cause::{Cause, CauseKind};
use crate::detect::Verdict;
use crate::discover::describe::Description;
use crate::node::{Node, NodeProcess, ProcessKey, WatchState};
use crate::report::{Filter, Incident, Report, Runtime};
use crate::runtime::signs::Sign;
use crate::runtime::vitals::Vitals;
use crate::words::Place;

/// What a program that would have the terminal do something else is called.
const HOSTILE: &str = "ev\u{1b}[2Jil\u{202e}\nname";

/// The report of a session that was recorded, without anything wrong.
fn quiet() -> Report {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/leaks.json");
    serde_json::from_str(&std::fs::read_to_string(path).expect("the golden report")).expect("a report")
}

/// A shop that leaks, with goroutines before a lock that somebody keeps: its look number `look`.
fn shop(look: u64) -> Report {
    let mut report = quiet();
    report.observed.seconds = 2.0 * look as f64;
    report.observed.cost.percent_of_core = 0.047;
    report.goroutines.live = 200 + 10 * look + report.goroutines.system;
    report.groups.truncate(4);
    let [sends, full, waits, holds] = report.groups.as_mut_slice() else { panic!("four groups") };
    (sends.verdict, sends.count, sends.proven, sends.growth_per_second) = (Verdict::Proven, 10 * look, 9 * look, 5.0);
    (sends.stack_bytes, sends.heap_bytes) = (2048 * 10 * look, Some(29 << 10));
    sends.cause = Some(Cause {
        kind: CauseKind::SendNobodyReceives,
        sentence: "sends on an unbuffered channel that nobody can receive from any more".to_owned(),
        remedy: "give the channel a buffer for every send".to_owned(),
    });
    sends.evidence = vec![
        "Waiting here rose in 5 of 5 windows of 5.0 s, from 31 to 156 (+5/s).".to_owned(),
        "nothing that can still run leads to what it waits for (687 goroutines and all variables were followed)"
            .to_owned(),
    ];
    let place = |function: &str, line| {
        Some(Place { function: function.to_owned(), file: "example.com/shop/pay.go".to_owned(), line })
    };
    (full.verdict, full.count, full.created_by) = (Verdict::Likely, 42, place(&format!("main.{HOSTILE}"), 9));
    (waits.verdict, waits.count, waits.wait_reason) = (Verdict::Stuck, 61, "sync.Mutex.Lock".to_owned());
    (waits.in_program, waits.goids) = (place("main.(*till).pay", 23), (32..93).collect());
    (holds.verdict, holds.count, holds.goids, holds.in_program) =
        (Verdict::Stuck, 1, vec![31], place("main.(*till).close", 28));
    report.incidents = vec![Incident {
        headline:
            "61 goroutines wait, directly or not, for goroutine 31, which sends on an unbuffered channel that nobody \
                   receives from at main.(*till).close example.com/shop/pay.go:28"
                .to_owned(),
        times: 1,
        goroutines: 62,
        cycle: false,
        roots: vec![31],
        groups: vec![3, 2],
    }];
    let mut now = Vitals::default();
    now.memory.stats.heap_alloc = (12 << 20) + (look << 19);
    (now.memory.gc_cpu_ns, now.memory.total_cpu_ns) = (1_000_000 * look, 80_000_000 * look);
    let sign = Sign::new("gc-share", format!("the collector took 12 % of the CPU of {HOSTILE}")).about([7, 8]);
    report.runtime = Some(Runtime { now: Some(now), runnable: 3, signs: vec![sign], ..Runtime::default() });
    report
}

fn found(pid: u32, exe: &str) -> NodeProcess {
    let described =
        Description { user: "alice".to_owned(), command: format!("{exe} --port 8080"), ..Description::default() };
    NodeProcess::new(
        ProcessKey { pid, start_ticks: 7 },
        exe.to_owned(),
        described,
        Some("go1.27.3".to_owned()),
        Some(false),
    )
}

/// A host with a program of every kind.
fn host() -> Model {
    let (node, mut model) = (Node::default(), Model::default());
    let (leaking, calm) =
        (Arc::new(found(31_800, "/srv/checkout-service")), Arc::new(found(412, "/usr/bin/prometheus")));
    let [refused, left, begun] =
        [(4_194_304, "/opt/old"), (99, "/srv/left"), (7, HOSTILE)].map(|(pid, exe)| Arc::new(found(pid, exe)));
    refused.set_state(WatchState::Refused {
        reason: "version",
        message: format!("it was built with go1.15, and {HOSTILE}; parkwarden knows Go 1.18 to 1.27"),
    });
    left.set_state(WatchState::Unselected { why: "select.executables does not match /srv/left".to_owned() });
    for process in [&leaking, &calm, &refused, &left, &begun] {
        node.insert(Arc::clone(process));
    }
    for look in 0..16 {
        node.looked(&leaking, Arc::new(shop(look)));
        node.looked(&calm, Arc::new(quiet()));
        model.follow(&node);
    }
    node.set_ready();
    node.set_unseen(2);
    model.follow(&node);
    model
}

fn view() -> View {
    View::new(Column::default(), String::new(), Filter::default(), true)
}

fn press(view: &mut View, model: &Model, code: KeyCode) -> Action {
    view.update(KeyEvent::new(code, KeyModifiers::NONE), model)
}

fn keys(view: &mut View, model: &Model, keys: &str) {
    for key in keys.chars() {
        let code = if key == '\n' { KeyCode::Enter } else { KeyCode::Char(key) };
        press(view, model, code);
    }
}

fn drawn(view: &View, model: &Model, (width, height): (u16, u16)) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("no I/O");
    terminal.draw(|frame| draw::draw(frame, view, model)).expect("no I/O");
    let buffer = terminal.backend().buffer();
    let line = |row: u16| (0..width).map(|column| buffer[(column, row)].symbol()).collect::<String>();
    (0..height).map(|row| line(row).trim_end().to_owned() + "\n").collect()
}

/// Compares what is drawn with the golden file of that name, at both sizes.
fn golden(name: &str, view: &View, model: &Model) {
    for size in [(80, 24), (200, 50)] {
        let screen = drawn(view, model, size);
        assert!(!screen.contains(['\u{1b}', '\u{202e}']), "{screen}");
        let file = format!("{}/../tests/golden/top-{name}-{}.txt", env!("CARGO_MANIFEST_DIR"), size.0);
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&file, &screen).expect("written");
        }
        let expected = std::fs::read_to_string(&file).expect("the golden file");
        assert!(
            screen == expected,
            "{file} differs; if it should, run with UPDATE_GOLDEN=1 and read the diff\n{screen}"
        );
    }
}

#[test]
fn the_processes_of_a_host() {
    let model = host();
    golden("processes", &view(), &model);
    let mut sorted = view();
    keys(&mut sorted, &model, "NI/SERVICE");
    golden("filtered", &sorted, &model);
}

#[test]
fn a_process_a_group_and_an_incident() {
    let model = host();
    let mut view = view();
    keys(&mut view, &model, "\n");
    golden("process", &view, &model);
    keys(&mut view, &model, "\n");
    golden("incident", &view, &model);
    press(&mut view, &model, KeyCode::Esc);
    keys(&mut view, &model, "jj\n");
    golden("group", &view, &model);
    keys(&mut view, &model, "?");
    golden("help", &view, &model);
}

#[test]
fn whatever_the_size_there_is_something_to_see() {
    let model = host();
    let mut view = view();
    for open in ["", "\n", "\n", "?"] {
        keys(&mut view, &model, open);
        for size in [(1, 1), (8, 3), (20, 5), (80, 2), (300, 90)] {
            drawn(&view, &model, size);
        }
    }
    assert!(drawn(&self::view(), &Model::default(), (80, 24)).contains("Looking for Go processes"));
}

#[test]
fn the_worst_come_first_and_those_that_are_not_watched_last() {
    let model = host();
    let mut view = view();
    let order = |view: &View| -> Vec<u32> { view.processes(&model).iter().map(|(key, _)| key.pid).collect() };
    assert_eq!(order(&view), [31_800, 412, 7, 99, 4_194_304]);
    keys(&mut view, &model, "I");
    assert_eq!(order(&view)[..2], [412, 31_800]);
    assert!(order(&view)[2..].contains(&7), "nothing is known of the others, whichever way round");
    keys(&mut view, &model, "IN");
    assert_eq!((view.sort, order(&view)), (Column::Pid, vec![412, 31_800, 7, 99, 4_194_304]));
    keys(&mut view, &model, "<");
    assert_eq!(view.sort, Column::Cost);
}

#[test]
fn what_is_chosen_stays_chosen_while_the_order_changes() {
    let model = host();
    let mut view = view();
    keys(&mut view, &model, "j");
    let chosen = |view: &View| view.subject(&model).map(|key| key.pid);
    assert_eq!((view.process(&model), chosen(&view)), (1, Some(412)));
    keys(&mut view, &model, "I");
    assert_eq!((view.process(&model), chosen(&view)), (0, Some(412)));
    press(&mut view, &model, KeyCode::End);
    assert_eq!(view.process(&model), 4);
    press(&mut view, &model, KeyCode::Home);
    assert_eq!(view.process(&model), 0);
}

#[test]
fn a_process_is_stopped_only_after_a_yes() {
    let model = host();
    let mut view = view();
    let process = ProcessKey { pid: 31_800, start_ticks: 7 };
    for no in ['n', 'q', 'p'] {
        keys(&mut view, &model, "p");
        assert_eq!((view.asks, press(&mut view, &model, KeyCode::Char(no))), (Some(process), Action::None));
        assert_eq!(view.asks, None);
    }
    keys(&mut view, &model, "p");
    assert_eq!(press(&mut view, &model, KeyCode::Char('y')), Action::Prove(process));
    assert_eq!(press(&mut view, &model, KeyCode::Char('s')), Action::Save(process));
    assert_eq!(press(&mut view, &model, KeyCode::Char('w')), Action::Why(process));
    press(&mut view, &model, KeyCode::End);
    let screen = |view: &View| drawn(view, &model, (80, 24));
    keys(&mut view, &model, "\n");
    assert!(screen(&view).contains("It is not watched: it was built with go1.15"), "{}", screen(&view));
    press(&mut view, &model, KeyCode::Esc);
    for key in ['p', 's', 'w'] {
        assert_eq!(press(&mut view, &model, KeyCode::Char(key)), Action::None, "there is nothing on it");
        assert_eq!((view.asks, view.said.as_deref()), (None, Some("pid 4194304 is not watched")));
    }
    assert_eq!(press(&mut view, &model, KeyCode::Char('q')), Action::Quit);
    assert_eq!(view.update(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL), &model), Action::Quit);
}

#[test]
fn escape_takes_the_filter_away_first() {
    let model = host();
    let mut view = view();
    keys(&mut view, &model, "/prom\n");
    assert_eq!((view.filter(), view.processes(&model).len()), ("prom", 1));
    keys(&mut view, &model, "\n/q");
    assert_eq!((view.page(), view.filter()), (&Page::Process(ProcessKey { pid: 412, start_ticks: 7 }), "q"));
    press(&mut view, &model, KeyCode::Enter);
    press(&mut view, &model, KeyCode::Esc);
    assert_eq!((view.filter(), view.has_back()), ("", true));
    press(&mut view, &model, KeyCode::Esc);
    assert_eq!((view.page(), view.filter()), (&Page::Processes, "prom"));
    view.update(KeyEvent::new(KeyCode::Char('j'), KeyModifiers::ALT), &model);
    assert_eq!((view.processes(&model).len(), view.process(&model)), (5, 1), "Esc, and then j");
}

#[test]
fn the_page_of_a_process_goes_with_it() {
    let mut model = host();
    let mut view = view();
    keys(&mut view, &model, "\n\n");
    assert!(matches!(view.page(), Page::Item(_, Item::Incident(31))));
    model.follow(&Node::default());
    view.follow(&model);
    assert_eq!((view.page(), view.said.as_deref()), (&Page::Processes, Some("the process has ended")));
    assert!(model.processes.is_empty());
}

#[test]
fn what_executes_another_program_begins_anew() {
    let (node, mut model) = (Node::default(), Model::default());
    for exe in ["/srv/sh", "/srv/shop"] {
        let process = Arc::new(found(7, exe));
        node.insert(Arc::clone(&process));
        node.looked(&process, Arc::new(quiet()));
        model.follow(&node);
    }
    let [shown] = model.processes.values().collect::<Vec<_>>()[..] else { panic!("one process") };
    assert_eq!((shown.name.as_str(), shown.history.len()), ("shop", 1));
}

#[test]
fn of_one_process_there_is_nothing_to_go_back_to() {
    let key = ProcessKey { pid: 31_800, start_ticks: 7 };
    let mut model = Model::default();
    let mut view = View::of_one(key, Filter { verdict: Some(Verdict::Likely), ..Filter::default() }, false);
    view.follow(&model);
    assert!(drawn(&view, &model, (80, 24)).contains("Waiting for the first look"));
    let mut shown = Shown::new("shop".to_owned(), Description::default(), WatchState::Starting);
    shown.looked(Arc::new(shop(3)));
    model.processes.insert(key, shown);
    press(&mut view, &model, KeyCode::Esc);
    assert_eq!(view.page(), &Page::Process(key));
    let groups = view.items(&model.processes[&key]).iter().filter(|item| matches!(item, Item::Group(_))).count();
    assert_eq!(groups, 2, "those that are wanted");
    assert!(drawn(&view, &model, (80, 24)).contains("end with the report"));
}

#[test]
fn lines_are_bounded_and_begin_anew_with_another_watch() {
    let mut shown = Shown::new("shop".to_owned(), Description::default(), WatchState::Starting);
    for look in 0..300 {
        let report = Arc::new(shop(look));
        shown.looked(Arc::clone(&report));
        shown.looked(report);
    }
    assert_eq!(shown.history.len(), 120, "each look once");
    assert!((shown.growth - 5.0).abs() < 0.1, "ten each two seconds: {}", shown.growth);
    assert!(shown.gc_share().is_some_and(|share| (share - 1.0 / 80.0).abs() < 1e-9));
    let largest = GroupId::of(&shop(299).groups[0]);
    assert_eq!((shown.counts(largest).len(), shown.counts(largest).last()), (120, Some(&2990)));
    shown.looked(Arc::new(shop(1)));
    assert_eq!(shown.history.len(), 1);
}
