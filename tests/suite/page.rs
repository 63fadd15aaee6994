//! The page of a timeline, in a browser.

use std::collections::{BTreeMap, BTreeSet};

use parkwarden::record::GapCause;
use parkwarden::timeline::{GapSpan, IncidentLine, Timeline, render_html};
use parkwarden::words::Place;
use parkwarden_tests::browser::{Tab, drive};
use parkwarden_tests::incident::{CAUSE, REMEDY};
use serde::Deserialize;

use crate::timeline::{incident_file, text, timeline};

#[derive(Debug, Deserialize)]
struct Seen {
    wrong: Vec<String>,
    title: String,
    headline: String,
    facts: Vec<String>,
    legend: Vec<String>,
    /// For each drawn area, the site and the last count.
    areas: Vec<(usize, u64)>,
    /// What the lines of the runtime's numbers are about.
    vitals: Vec<String>,
    gaps: usize,
    flags: Vec<String>,
    readout: String,
    rows: usize,
    closed: bool,
    opened_by_click: String,
    closed_again: bool,
    opened_by_key: bool,
    scrolls_sideways: bool,
    /// Whether each label of an axis says its value, for axes of all sizes.
    axes_are_true: bool,
    requests: usize,
}

/// Works the page as a reader would. A press of Enter on a button is a click to the page, which a script cannot send; it
/// sees to it that the keyboard gets there, and that it is a button.
const SCRIPT: &str = r#"
const texts = (selector) => [...document.querySelectorAll(selector)].map((node) => node.textContent);
const chart = document.querySelector(".chart");
const key = (name) => chart.dispatchEvent(new KeyboardEvent("keydown", { key: name, bubbles: true, cancelable: true }));
chart.focus();
key("End"); key("Home"); key("ArrowRight"); key("End");
const row = document.querySelector(".row"), button = row.querySelector("button");
const detail = document.getElementById(button.getAttribute("aria-controls"));
const seen = { closed: detail.hidden };
row.querySelector(".trend").click();
seen.opened_by_click = detail.hidden ? "" : detail.textContent;
button.click();
seen.closed_again = detail.hidden && button.getAttribute("aria-expanded") === "false";
button.focus();
const native = button.tagName === "BUTTON" && !button.disabled && button.tabIndex === 0;
document.activeElement.click();
seen.opened_by_key = native && document.activeElement === button && !detail.hidden && button.getAttribute("aria-expanded") === "true";
const says = (text) => Number(text.replaceAll("\u00a0", "").replace(/[kKMG]$/, (unit) => ({ k: "e3", M: "e6" })[unit]));
const bytesOf = (text) => parseFloat(text) * ({ K: 1024, M: 1048576, G: 1073741824 }[text.at(-1)] || 1);
const sizes = Array.from({ length: 60 }, (_, i) => Math.ceil(1.4 ** i)).filter((n) => n < 5e7);
seen.axes_are_true = sizes.every((n) => scale(n, 4)[1].every((tick) => says(short(tick)) === tick))
  && sizes.every((n) => scaleBytes(n * 4096)[1].every((tick) => bytesOf(tickBytes(tick)) === tick));
report({ ...seen,
  wrong: window.wrong, title: document.title, headline: document.querySelector("h1").textContent,
  facts: texts(".facts dd"), legend: texts(".legend li"),
  areas: [...document.querySelectorAll(".area")].map((area) => [Number(area.dataset.site), Number(area.dataset.last)]),
  vitals: [...new Set([...document.querySelectorAll(".vital")].map((line) => line.dataset.of))],
  gaps: document.querySelectorAll(".chart .gap").length, flags: texts(".chart .flag"),
  readout: document.querySelector(".readout").textContent, rows: document.querySelectorAll(".row").length,
  scrolls_sideways: document.documentElement.scrollWidth > document.documentElement.clientWidth,
  requests: performance.getEntriesByType("resource").filter((entry) => !entry.name.startsWith("data:")).length });
"#;

#[test]
fn the_page_tells_the_incident_and_can_be_worked() {
    let (_dir, file) = incident_file();
    let page = timeline(&["--record", text(&file), "--exe", "shop", "--format", "html"]);
    let json = timeline(&["--record", text(&file), "--exe", "shop", "--format", "json"]);
    let expected: Timeline = serde_json::from_str(&json).expect("a timeline");
    for (width, height) in [(1280, 900), (390, 844)] {
        let seen: Seen = drive(&page, width, height, SCRIPT);
        assert_eq!(seen.wrong, Vec::<String>::new(), "at {width}");
        assert_eq!(seen.requests, 0, "it asks for nothing");
        assert_eq!(
            (&seen.title, seen.headline.replace('\u{a0}', " ")),
            (&expected.headline, expected.headline.clone())
        );
        assert!(seen.facts.iter().any(|fact| fact.replace('\u{a0}', " ").starts_with("119 411")), "{:?}", seen.facts);
        assert!(seen.facts.iter().any(|fact| fact.starts_with("+65/s")), "{:?}", seen.facts);
        assert!(seen.legend[0].starts_with("main.(*Hub).subscribe"), "{:?}", seen.legend);
        let mut drawn: BTreeMap<usize, Vec<u64>> = BTreeMap::new();
        for (site, last) in &seen.areas {
            drawn.entry(*site).or_default().push(*last);
        }
        let mut data: BTreeMap<usize, Vec<u64>> = BTreeMap::new();
        for counts in expected.lives.iter().flat_map(|life| &life.segments).flat_map(|segment| &segment.sites) {
            data.entry(counts.of).or_default().push(*counts.counts.last().expect("counts"));
        }
        assert_eq!(drawn, data, "every segment of every site is drawn, with its last value");
        assert_eq!(seen.gaps, 2 + 4, "one gap, over goroutines, memory, and four panels of the runtime's numbers");
        let vitals: BTreeSet<&str> = seen.vitals.iter().map(String::as_str).collect();
        let expected_vitals = [
            "heap_live_bytes",
            "heap_goal_bytes",
            "memory_limit_bytes",
            "gc_cpu_share",
            "longest_pause_ms",
            "latency_p99_ms",
            "threads",
            "runnable",
        ];
        assert_eq!(vitals, BTreeSet::from(expected_vitals), "at {width}");
        for flag in ["onset 02:41", "OOM kill 03:12"] {
            assert!(seen.flags.iter().any(|shown| shown == flag), "{flag}: {:?}", seen.flags);
        }
        let last = expected.lives.last().and_then(|life| life.segments.last()).expect("looks");
        let live = last.live.last().expect("a look");
        let readout = seen.readout.replace('\u{a0}', "");
        assert!(readout.contains(&format!("{live}goroutines")), "{readout}");
        assert!(readout.contains("threads 14") && readout.contains("GOMEMLIMIT 450MiB"), "{readout}");
        assert_eq!(seen.rows, expected.groups.len());
        assert!(seen.closed && seen.closed_again && seen.opened_by_key, "{seen:?}");
        for part in [CAUSE, REMEDY, "/src/shop/hub.go:31", "Waiting here grew from 6 to 120061", "184210"] {
            assert!(seen.opened_by_click.contains(part), "{part}: {}", seen.opened_by_click);
        }
        assert!(!seen.scrolls_sideways, "at {width}");
        assert!(seen.axes_are_true);
    }
}

#[test]
fn the_chart_takes_the_width_of_the_window() {
    let (dir, file) = incident_file();
    let page = dir.path().join("timeline.html");
    std::fs::write(&page, timeline(&["--record", text(&file), "--exe", "shop", "--format", "html"])).expect("written");
    let mut tab = Tab::open(&format!("file://{}", page.display()), 1280, 900);
    tab.wait_for("its chart", "document.querySelector('.chart .area')");
    assert!(tab.eval::<bool>("document.querySelector('.chart svg').clientWidth > 1000"));
    tab.look_at("timeline");
}

#[derive(Debug, Deserialize)]
struct Harmless {
    wrong: Vec<String>,
    ran: bool,
    elements: usize,
    name: String,
}

#[test]
fn names_from_the_program_stay_text() {
    let (_dir, file) = incident_file();
    let json = timeline(&["--record", text(&file), "--exe", "shop", "--format", "json"]);
    let mut hostile: Timeline = serde_json::from_str(&json).expect("a timeline");
    let name =
        "</script><img src=x onerror=\"window.ran=1\"><script>window.ran=1</script><!--<script>\u{2028}/* data */";
    let place = Place { function: name.to_owned(), file: name.to_owned(), line: 1 };
    for group in &mut hostile.groups {
        group.created_by = Some(place.clone());
        group.wait_reason = name.to_owned();
        group.evidence = vec![name.to_owned()];
        group.cause = Some(name.to_owned());
        group.remedy = Some(name.to_owned());
        group.stack.iter_mut().for_each(|frame| frame.function = name.to_owned());
    }
    for site in &mut hostile.sites {
        (site.created_by, site.name) = (Some(place.clone()), name.to_owned());
    }
    for life in &mut hostile.lives {
        (life.exe, life.host, life.pod_name) = (name.to_owned(), name.to_owned(), Some(name.to_owned()));
    }
    hostile.headline = name.to_owned();
    let script = r#"
        document.querySelectorAll(".row").forEach((row) => row.click());
        report({ wrong: window.wrong, ran: window.ran !== undefined,
          elements: document.querySelectorAll("img, iframe, object, script[src]").length,
          name: document.querySelector(".row button").textContent });"#;
    let seen: Harmless = drive(&render_html(&hostile), 1280, 900, script);
    assert!(!seen.ran && seen.wrong.is_empty() && seen.elements == 0, "{seen:?}");
    assert_eq!(seen.name, name);
}

#[derive(Debug, Deserialize)]
struct Told {
    wrong: Vec<String>,
    subs: Vec<String>,
    happened: Vec<String>,
}

#[test]
fn gaps_in_a_row_are_told_of_together_and_groups_of_one_statement_apart() {
    let (_dir, file) = incident_file();
    let json = timeline(&["--record", text(&file), "--exe", "shop", "--format", "json"]);
    let mut told: Timeline = serde_json::from_str(&json).expect("a timeline");
    let lost = |nth: u64| GapSpan {
        from_ms: told.from_ms + 2000 * nth,
        to_ms: told.from_ms + 2000 * nth + 1000,
        cause: GapCause::EventsLost,
        blind: false,
        text: String::new(),
        life: 0,
    };
    let gaps = (0..21).map(lost).collect();
    told.gaps = gaps;
    let mut elsewhere = told.groups[0].clone();
    elsewhere.blocked_at = Some(Place { function: "main.elsewhere".to_owned(), file: "/src/x.go".to_owned(), line: 7 });
    told.groups.push(elsewhere);
    let script = "
        const texts = (selector) => [...document.querySelectorAll(selector)].map((node) => node.textContent);
        report({ wrong: window.wrong, subs: texts('.row .sub'), happened: texts('.events span') });";
    let seen: Told = drive(&render_html(&told), 1280, 900, script);
    assert_eq!(seen.wrong, Vec::<String>::new());
    let less: Vec<&String> = seen.happened.iter().filter(|text| text.starts_with("Less seen")).collect();
    assert!(less.len() == 1 && less[0].starts_with("Less seen 21 times until"), "{less:?}");
    assert!(less[0].replace('\u{a0}', " ").contains("21 s in all"), "{less:?}");
    assert!(seen.subs.iter().any(|sub| sub.contains("at main.elsewhere")), "{:?}", seen.subs);
}

#[derive(Debug, Deserialize)]
struct Chains {
    wrong: Vec<String>,
    times: Vec<String>,
    headlines: Vec<String>,
    chains: Vec<String>,
    roots: Vec<String>,
}

#[test]
fn who_waited_for_whom_stands_above_the_charts() {
    let (_dir, file) = incident_file();
    let json = timeline(&["--record", text(&file), "--exe", "shop", "--format", "json"]);
    let mut told: Timeline = serde_json::from_str(&json).expect("a timeline");
    let incident = |from_ms, ended_ms| IncidentLine {
        life: 0,
        from_ms,
        ended_ms,
        seen_ms: from_ms,
        headline: "7 goroutines wait for goroutine 9 <b>".to_owned(),
        goroutines: 7,
        cycle: false,
        roots: vec![9],
        groups: vec![1, 0],
    };
    told.incidents = vec![incident(told.from_ms + 60_000, None), incident(told.from_ms, Some(told.to_ms))];
    let script = "
        const texts = (selector) => [...document.querySelectorAll(selector)].map((node) => node.textContent);
        report({ wrong: window.wrong, times: texts('section:first-of-type .events time'), headlines: texts('.events p.hot'),
          chains: texts('.events .stack li'), roots: texts('.events p:not(.hot)') });";
    let seen: Chains = drive(&render_html(&told), 1280, 900, script);
    assert_eq!(seen.wrong, Vec::<String>::new());
    assert!(seen.times[0].ends_with(" to the end") && !seen.times[1].ends_with("the end"), "{:?}", seen.times);
    assert_eq!(seen.headlines, ["7 goroutines wait for goroutine 9 <b>"; 2], "names stay text");
    assert_eq!(seen.roots, ["The others waited for goroutine 9."; 2]);
    let reason = |group: usize| told.groups[group].wait_reason.as_str();
    assert_eq!(seen.chains.len(), 4);
    assert!(seen.chains[0].contains(reason(1)) && seen.chains[1].contains(reason(0)), "{:?}", seen.chains);
}
