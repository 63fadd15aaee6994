//! The agent's page in Chromium, with real Go processes.

use std::fs;
use std::process::Command;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use parkwarden_tests::browser::Tab;
use parkwarden_tests::copied::Copied;
use parkwarden_tests::leaks::Statement;
use parkwarden_tests::node::Node;
use parkwarden_tests::target::Target;
use parkwarden_tests::{BuildFlags, fixture};
use serde_json::Value;
use xtask::toolchain;

use super::watch::EACH;

/// So that leaks show, and are proven, within seconds.
const SOON: [&str; 8] = ["--threshold", "200ms", "--interval", "500ms", "--prove", "true", "--max-pause", "5s"];

/// A name that is one of HTML's own, as far as a file can be called that.
const HOSTILE: &str = "<img src=x onerror='ran=1'><script>ran=1<!--&amp;";

const SIDEWAYS: &str = "document.documentElement.scrollWidth > document.documentElement.clientWidth";

const TABLE_SIDEWAYS: &str = "((table) => table.scrollWidth > table.clientWidth)(document.querySelector('.processes'))";

fn row(pid: u32) -> String {
    format!("document.querySelector('tr[data-pid=\"{pid}\"]')")
}

/// Text of the cell of a process under that heading, as it is said.
fn cell(tab: &mut Tab, pid: u32, title: &str) -> String {
    let column =
        format!("[...document.querySelectorAll('thead th')].findIndex((head) => head.textContent === {title:?})");
    tab.eval(&format!("{}.children[{column}].textContent", row(pid)))
}

#[test]
fn a_leak_appears_and_a_process_goes_without_a_reload() {
    let program = fixture("leaks", toolchain::NEWEST, BuildFlags::Stripped);
    let copied = Copied::file(&program, HOSTILE);
    let (mut target, _): (_, Value) = Target::ready(&copied.program, ["-wait", "-n", EACH]);
    let recording = copied.dir.path().join("recording.db");
    let record = ["--record", recording.to_str().expect("a path")];
    let node = Node::start(&copied.pattern(), &[&SOON[..], &record].concat());
    let pid = target.pid();
    let mut tab = Tab::open(&node.url, 1280, 900);
    let verdict = format!("{}?.querySelector('.verdict').textContent", row(pid));
    tab.wait_for("the process", &format!("['nothing parked', 'idle'].includes({verdict})"));
    let opened: f64 = tab.eval("performance.timeOrigin");
    assert_eq!(cell(&mut tab, pid, "Leaked"), "0");
    assert_eq!(tab.eval::<String>(&format!("{}.querySelector('.name a').textContent", row(pid))), HOSTILE);

    let _: Statement = target.ask("go");
    tab.wait_for("the leak", &format!("{}.querySelector('.verdict.proven')", row(pid)));
    tab.wait_for("its line", &format!("{}.querySelector('.spark path')", row(pid)));
    assert!(cell(&mut tab, pid, "Leaked").parse::<u64>().expect("a number") > 0);

    assert!(!tab.eval::<bool>(TABLE_SIDEWAYS), "the table of a process that is watched");

    // To its page by the keyboard.
    tab.eval::<()>(&format!("{}.querySelector('.name a').focus(), null", row(pid)));
    tab.press("Enter");
    tab.wait_for("its groups", "document.querySelector('.groups .verdict.proven')");
    tab.wait_for(
        "its chart from the recording",
        "document.querySelector('.chart .area') && document.querySelector('select[aria-label=\"How far back\"]')",
    );
    let happened = "[...document.querySelectorAll('.events span')].map((event) => event.textContent)";
    tab.wait_for("what happened", &format!("{happened}.some((text) => text.endsWith(': proven'))"));

    // Its groups by their number, again by the keyboard.
    let count = "[...document.querySelectorAll('.groups th button')].find((head) => head.textContent === 'Count')";
    tab.eval::<()>(&format!("{count}.focus(), null"));
    for sorted in ["descending", "ascending"] {
        tab.press("Enter");
        tab.wait_for("that order", &format!("{count}.closest('th').getAttribute('aria-sort') === '{sorted}'"));
        assert!(tab.eval::<bool>(&format!("document.activeElement === {count}")), "it keeps the focus");
    }
    let verdict = count.replace("Count", "Verdict");
    tab.eval::<()>(&format!("{verdict}.click(), null"));
    tab.eval::<()>("document.querySelector('.groups .row button').focus(), null");
    tab.press("Enter");
    tab.wait_for("the stack of a group", "document.querySelector('.detail:not([hidden]) .stack li')");
    let looks = "document.querySelector('.chart .area').getAttribute('d')";
    let before: String = tab.eval(looks);
    tab.wait_for(
        "a newer look in the chart",
        &format!("document.querySelector('.chart .area') && {looks} !== {before:?}"),
    );
    assert!(tab.eval::<bool>("!!document.querySelector('.detail:not([hidden])')"), "what was opened stays open");
    assert_eq!(tab.eval::<String>("document.querySelector('h1').textContent"), HOSTILE);
    tab.look_at("process");

    let paper = "getComputedStyle(document.body).backgroundColor";
    let light: String = tab.eval(paper);
    tab.prefer("dark");
    assert_ne!(tab.eval::<String>(paper), light);
    tab.look_at("process-dark");
    tab.size(390, 844);
    tab.wait_for("a chart as wide as the window", "document.querySelector('.chart svg')?.viewBox.baseVal.width < 390");
    assert!(!tab.eval::<bool>(SIDEWAYS), "the page of a process at 390");
    tab.look_at("process-390");
    tab.prefer("light");

    tab.eval::<()>("document.querySelectorAll('nav a')[1].click(), null");
    tab.wait_for(
        "the agent's own numbers",
        "[...document.querySelectorAll('.tally td')].some((cell) => cell.textContent === 'CPU time')",
    );
    assert!(!tab.eval::<bool>(SIDEWAYS), "the agent's own page at 390");
    tab.look_at("health-390");
    tab.eval::<()>("document.querySelectorAll('nav a')[0].click(), null");
    tab.wait_for("the table", &row(pid));
    assert!(!tab.eval::<bool>(SIDEWAYS), "the table at 390");
    tab.look_at("table-390");

    kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL).expect("killed");
    tab.wait_for("its end", &format!("!{}", row(pid)));
    assert_eq!(tab.eval::<f64>("performance.timeOrigin"), opened, "it is the page that was opened");
    assert!(!tab.eval::<bool>("'ran' in window || !!document.querySelector('img')"), "the name stayed text");
    assert_eq!(tab.wrong(), Vec::<String>::new());
    // The stream that the page still has open holds up nothing.
    let (status, took) = node.end();
    assert!(status.success() && took.as_secs() < 5, "{status} after {took:?}");
    tab.wait_for("the page saying so", "document.querySelector('.state.gone')");
}

#[test]
fn two_hundred_processes_are_listed_sorted_and_filtered() {
    let copied = Copied::of("exec");
    let targets: Vec<Target> = (0..200).map(|_| Target::ready::<&str, Value>(&copied.program, []).0).collect();
    let node = Node::start("/nowhere/*", &[]);
    let mut tab = Tab::open(&node.url, 1280, 900);
    tab.wait_for("all of them", "document.querySelectorAll('tbody tr').length >= 200");
    tab.look_at("table");
    for width in [1280, 1440, 1920] {
        tab.size(width, 900);
        assert!(!tab.eval::<bool>(TABLE_SIDEWAYS), "the table at {width}");
    }
    tab.size(1280, 900);
    tab.eval::<()>(
        "[...document.querySelectorAll('thead button')].find((head) => head.textContent === 'PID').click(), null",
    );
    let pids = "[...document.querySelectorAll('tbody tr')].map((row) => Number(row.dataset.pid))";
    let sorted: Vec<u32> = tab.eval(pids);
    assert!(sorted.is_sorted_by(|a, b| a > b), "the largest first: {sorted:?}");
    tab.eval::<()>("document.querySelector('input[type=search]').focus(), null");
    let wanted = targets[7].pid();
    tab.type_text(&wanted.to_string());
    let filtered: Vec<u32> = tab.eval(pids);
    assert!(filtered.contains(&wanted) && filtered.len() < 200, "{filtered:?}");
    let typed: String = tab.eval("document.activeElement.value");
    assert_eq!(typed, wanted.to_string(), "the reader goes on typing where he is");
    assert_eq!(tab.wrong(), Vec::<String>::new());
}

#[test]
fn whoever_has_the_token_signs_in_and_nobody_else() {
    const TOKEN: &str = "0123456789abcdef0123";
    let copied = Copied::of("leaks");
    let (target, _): (_, Value) = Target::ready(&copied.program, ["-wait", "-n", EACH]);
    let file = copied.dir.path().join("token");
    fs::write(&file, TOKEN).expect("written");
    let config = copied.dir.path().join("parkwarden.toml");
    fs::write(&config, format!("[http]\ntoken_file = {:?}\n", file.to_str().expect("a path"))).expect("written");
    let node = Node::start(&copied.pattern(), &["--config", config.to_str().expect("a path")]);
    let mut tab = Tab::open(&format!("{}/processes/{}", node.url, target.pid()), 1280, 900);
    tab.wait_for("the field", "document.activeElement?.id === 'token'");
    assert!(
        !tab.eval::<String>("document.documentElement.outerHTML").contains("leaks"),
        "there are no data without it"
    );
    tab.type_text("wrong-wrong-wrong-wrong");
    tab.press("Enter");
    tab.wait_for(
        "the refusal",
        "document.querySelector('.wrong')?.textContent === 'The agent does not take this token.'",
    );
    tab.look_at("sign-in");
    tab.type_text(TOKEN);
    tab.press("Enter");
    tab.wait_for("the process", "document.querySelector('h1')?.textContent === 'leaks'");
    tab.wait_for("its report", "document.querySelector('.facts')");
    let kept: usize =
        tab.eval("Object.keys(localStorage).length + Object.keys(sessionStorage).length + document.cookie.length");
    assert_eq!(kept, 0, "the token is kept nowhere");
    assert_eq!(tab.wrong(), Vec::<String>::new());
}

#[test]
fn who_waits_for_whom_is_drawn() {
    let copied = Copied::file(&fixture("cases/abba", toolchain::NEWEST, BuildFlags::Default), "abba");
    let target = Target::spawn_command(Command::new(&copied.program));
    let node = Node::start(&copied.pattern(), &["--threshold", "500ms", "--interval", "500ms"]);
    node.wait_for("its incident", |node| {
        node.report(target.pid()).filter(|report| !report.incidents.is_empty()).map(|_| ())
    });
    let mut tab = Tab::open(&format!("{}/processes/{}", node.url, target.pid()), 1280, 900);
    tab.wait_for("the circle", "document.querySelectorAll('.graph .root').length === 2");
    tab.wait_for("an edge each way, and those behind", "document.querySelectorAll('.graph .edge').length >= 3");
    let first: String = tab.eval("document.querySelector('section h2').textContent");
    assert_eq!(first, "Incidents", "they come first");
    tab.look_at("graph");
    let arrows: usize = tab.eval("document.querySelectorAll('.graph .arrow').length");
    assert_eq!(arrows, tab.eval::<usize>("document.querySelectorAll('.graph .edge').length"));
    tab.size(390, 844);
    assert!(!tab.eval::<bool>(SIDEWAYS));
    assert_eq!(tab.wrong(), Vec::<String>::new());
}

#[test]
fn without_a_recording_the_agent_has_the_last_hour_for_whoever_comes_later() {
    let copied = Copied::of("leaks");
    let (target, _): (_, Statement) = Target::ready(&copied.program, ["-n", EACH]);
    let node = Node::start(&copied.pattern(), &SOON);
    let history = format!("/api/v1/processes/{}/history", target.pid());
    node.wait_for("some looks", |node| {
        let (_, body) = node.get(&history);
        let history: Value = serde_json::from_str(&body).ok()?;
        (history["points"].as_array()?.len() > 5).then_some(())
    });
    let mut tab = Tab::open(&format!("{}/processes/{}", node.url, target.pid()), 1280, 900);
    // Of one look there would be no more than two points, above and below.
    tab.wait_for(
        "what was before",
        "document.querySelector('.chart .area')?.getAttribute('d').match(/L/g).length > 10",
    );
    assert_eq!(tab.wrong(), Vec::<String>::new());
}

#[test]
fn where_the_stream_is_refused_the_page_asks_again_and_again() {
    let copied = Copied::of("exec");
    let (first, _): (_, Value) = Target::ready::<&str, Value>(&copied.program, []);
    let node = Node::start("/nowhere/*", &[]);
    let mut tab = Tab::open("about:blank", 1280, 900);
    tab.refuse(&["*/api/v1/events"]);
    tab.go(&node.url);
    tab.wait_for("the table", &row(first.pid()));
    tab.wait_for(
        "what it says",
        "document.querySelector('.state.late')?.textContent === 'asking every 5 s: the stream fails'",
    );
    let (second, _): (_, Value) = Target::ready::<&str, Value>(&copied.program, []);
    tab.wait_for("one that has begun", &row(second.pid()));
    drop(first);
    let gone = second.pid();
    drop(second);
    tab.wait_for("their end", &format!("document.querySelector('table') && !{}", row(gone)));
    assert!(tab.eval::<bool>("!!document.querySelector('.state.late')"), "the stream is still refused");
    tab.refuse(&[]);
    tab.wait_for("the stream", "document.querySelector('.state').textContent === 'live'");
    assert_eq!(tab.wrong(), Vec::<String>::new());
}
