//! Recordings of live programs and on real file systems.

use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::Signal;
use parkwarden::config::RecordConfig;
use parkwarden::detect::Verdict;
use parkwarden::record::{
    CreationSite, ExitKind, GapCause, GroupCount, History, Interval, Moment, ProcessIdentity, Reader, RecordedGroup,
    Recorder, RecorderState, Run, WatchEnd,
};
use parkwarden::report::{self, Numbers, Shown};
use parkwarden::timeline::{self, Timeline, render_html};
use parkwarden_tests::agent::Watch;
use parkwarden_tests::browser::drive;
use parkwarden_tests::leaks::Statement;
use parkwarden_tests::target::DEADLINE;
use parkwarden_tests::{BuildFlags, Target, fixture, wait};
use serde::Deserialize;
use xtask::toolchain::NEWEST;

use super::watch::{EACH, Ready};
use crate::timeline::timeline;

const SECOND: u64 = 1_000_000_000;

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

pub(crate) fn histories(path: &Path) -> Vec<History> {
    let reader = Reader::open(path).expect("readable");
    let entries = reader.entries().expect("entries");
    entries.iter().map(|entry| reader.history(entry, None, None).expect("a history")).collect()
}

/// Waits until the recording holds so many samples.
pub(crate) fn wait_for_samples(path: &Path, at_least: u64) {
    let enough = wait::within(DEADLINE, || {
        let entries = Reader::open(path).and_then(|reader| reader.entries()).unwrap_or_default();
        let samples = entries.iter().map(|entry| entry.samples).sum::<u64>();
        if samples >= at_least { Ok(()) } else { Err(samples) }
    });
    enough.unwrap_or_else(|samples| panic!("{samples} of {at_least} samples"));
}

#[test]
fn a_watch_is_recorded_continued_and_sees_how_the_process_ends() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("recording.db");
    let program = fixture("leaks", NEWEST, BuildFlags::Stripped);
    let (mut target, Ready { .. }) = Target::ready(&program, ["-wait", "-n", EACH]);
    let pid = target.pid();
    let arguments = ["--record", text(&file), "--interval", "200ms", "--threshold", "0s"];

    let watch = Watch::start(pid, &arguments);
    wait_for_samples(&file, 2);
    assert_eq!(watch.interrupt().code, Some(0));

    let watch = Watch::start(pid, &arguments);
    let said: Statement = target.ask("go");
    let before = histories(&file)[0].watches.iter().map(|watch| watch.samples.len() as u64).sum::<u64>();
    wait_for_samples(&file, before + 3);
    watch.signal(Signal::SIGKILL);
    watch.ended();

    let watch = Watch::start(pid, &arguments);
    target.kill();
    assert_eq!(watch.ended().code, Some(0), "it was to watch until then");

    let [history] = histories(&file).try_into().expect("one process");
    let ends: Vec<_> = history.watches.iter().map(|watch| watch.ended).collect();
    assert_eq!(ends, [Some(WatchEnd::Stopped), None, Some(WatchEnd::ProcessEnded)]);
    let gaps: Vec<_> = history.gaps.iter().filter(|gap| gap.cause == GapCause::NotRunning).collect();
    assert_eq!(gaps.len(), 2, "{:?}", history.gaps);
    assert_eq!(history.exit.as_ref().map(|exit| exit.kind), Some(ExitKind::Signaled(9)));
    assert_eq!(history.process.pid, pid);
    assert!(history.process.started.is_some());
    let last = history.watches.last().and_then(|watch| watch.samples.last()).expect("samples");
    assert_eq!(last.live, said.num_goroutine as u64);
    assert!(last.usage.expect("read before it ended").rss_bytes > 1 << 20);
    let runtime = last.runtime.expect("read before it ended");
    assert!(
        runtime.heap_live_bytes > 100_000 && runtime.heap_goal_bytes >= Some(runtime.heap_live_bytes),
        "{runtime:?}"
    );
    assert!(runtime.threads > 1 && runtime.available_cpu_ns >= runtime.gc_cpu_ns, "{runtime:?}");
    for expected in said.of_class("chan-send") {
        let (place, waiting) = (expected.created_by.as_ref(), expected.count as u64);
        let found = last.groups.iter().find(|(index, ..)| {
            let group: &RecordedGroup = &history.groups[*index].group;
            group.wait_reason == expected.wait_reason
                && group.site.created_by.as_ref().map(|at| (&at.function, at.line))
                    == place.map(|at| (&at.function, at.line))
        });
        assert_eq!(found.map(|(_, waiting, ..)| *waiting), Some(waiting), "{expected:#?}");
    }
}

#[derive(Debug, Deserialize)]
struct Page {
    headline: String,
    facts: Vec<String>,
}

/// What a watch says at its end, the headline of what it recorded, and the page of that, have the same numbers and blame the same
/// `go` statement, of many with as many goroutines.
#[test]
fn a_watch_and_the_timeline_of_its_recording_agree() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("recording.db");
    let program = fixture("leaks", NEWEST, BuildFlags::Stripped);
    let (mut target, Ready { .. }) = Target::ready(&program, ["-wait", "-n", EACH]);
    let arguments =
        ["--record", text(&file), "--interval", "300ms", "--threshold", "200ms", "--prove", "--max-pause", "5s"];
    let watch = Watch::start(target.pid(), &arguments);
    wait_for_samples(&file, 3);
    let _: Statement = target.ask("go");
    let proven = wait::within(DEADLINE, || {
        let entries = Reader::open(&file).and_then(|reader| reader.entries()).unwrap_or_default();
        let verdict = entries.first().and_then(|entry| entry.verdict);
        if verdict == Some(Verdict::Proven) { Ok(()) } else { Err(verdict) }
    });
    proven.expect("proven, and recorded");
    let report = watch.interrupt().report();
    let summary = report::render(&report, &Shown::default());
    let told = Timeline::of(histories(&file));
    let page: Page = drive(
        &render_html(&told),
        1280,
        900,
        "report({ headline: document.querySelector('h1').textContent,
           facts: [...document.querySelectorAll('.facts div')].map((fact) => fact.textContent) });",
    );

    let worst = report.worst_first()[0];
    let culprit = &told.groups[told.culprit.unwrap_or_else(|| panic!("{}", told.headline))];
    assert_eq!(
        (&culprit.created_by, &culprit.wait_reason, culprit.parked_at_end, culprit.verdict),
        (&worst.created_by, &worst.wait_reason, worst.count, Some(worst.verdict)),
        "{}\n{summary}",
        told.headline
    );
    let (life, numbers) = (&told.lives[0], Numbers::of(&report));
    assert_eq!((life.leaked, life.stuck), (numbers.leaked, numbers.stuck), "{summary}");
    assert!(life.leaked > worst.count, "several leak: {summary}");

    let made_by = worst.created_by.as_ref().expect("a go statement");
    let of_all = format!("\n{} goroutines in ", life.leaked);
    let of_worst = format!("; the worst, {} goroutines, is made by {}", worst.count, made_by.function);
    assert!(summary.contains(&of_all) && summary.contains(&of_worst), "{summary}");
    let begins = format!("{} leaked {} goroutines", made_by.function, worst.count);
    assert!(told.headline.starts_with(&begins), "{}", told.headline);
    assert!(
        timeline::render_text(&told)
            .contains(&format!("  leaked {} goroutines, {} of them of", life.leaked, worst.count))
    );
    assert_eq!(page.headline, told.headline);
    for fact in [format!("Leaked{}of {}", worst.count, worst.waiting), format!("All that leak{}in all", life.leaked)] {
        assert!(page.facts.iter().any(|shown| shown.starts_with(&fact)), "{fact}: {:?}", page.facts);
    }
}

/// A file system of a few hundred kilobytes; unmounted when dropped.
struct Tmpfs(tempfile::TempDir);

impl Tmpfs {
    fn new(kib: u32) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let size = format!("size={kib}k");
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(dir.path()).status();
        assert!(mount.expect("mount runs").success(), "a tmpfs takes root");
        Self(dir)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.0.path()).status();
    }
}

fn look(second: u64) -> Interval {
    let site = CreationSite { created_by: None, start_function: "main.work".to_owned() };
    let groups = (0..50).map(|number| GroupCount {
        group: RecordedGroup { site: site.clone(), wait_reason: format!("reason {number}"), stack: Vec::new() },
        waiting: second,
        parked: 0,
        judgement: None,
        examples: Vec::new(),
    });
    let at = Moment { mono_ns: second * SECOND, unix_ns: (1_790_000_000 + second) * SECOND };
    Interval { at, live: second, groups: groups.collect(), ..Interval::default() }
}

#[test]
fn a_full_disk_stops_recording_and_room_resumes_it() {
    let disk = Tmpfs::new(2048);
    let file = disk.file("recording.db");
    let run = Run {
        boot_id: "boot".to_owned(),
        host: "node".to_owned(),
        started: look(0).at,
        interval_ns: SECOND,
        threshold_ns: SECOND,
    };
    let mut recorder = Recorder::open(&file, RecordConfig::default(), run).expect("there is room yet");
    let id = recorder.begin(ProcessIdentity { pid: 7, exe: "/srv/app".to_owned(), ..ProcessIdentity::default() });
    recorder.interval(id, &look(1));
    assert_eq!(recorder.status().state, RecorderState::Recording);

    let ballast = disk.file("ballast");
    // Ends when the disk is full.
    let _ = std::io::copy(&mut std::io::repeat(1), &mut std::fs::File::create(&ballast).expect("created"));
    let mut second = 1;
    while recorder.status().state == RecorderState::Recording {
        second += 1;
        assert!(second < 5_000, "the disk does not fill");
        recorder.interval(id, &look(second));
    }
    let stopped = second;
    for _ in 0..20 {
        second += 1;
        recorder.interval(id, &look(second));
    }
    let status = recorder.status().clone();
    assert!(matches!(&status.state, RecorderState::Stopped(reason) if !reason.is_empty()), "{status:?}");
    assert_eq!((status.stops, status.intervals_dropped), (1, 21));
    assert!(status.set_aside.is_empty());

    std::fs::remove_file(&ballast).expect("removed");
    for _ in 0..20 {
        second += 1;
        recorder.interval(id, &look(second));
    }
    assert_eq!(recorder.status().state, RecorderState::Recording);
    drop(recorder);

    let [history] = histories(&file).try_into().expect("one process");
    let recorded: Vec<u64> = history.watches.iter().flat_map(|watch| &watch.samples).map(|s| s.live).collect();
    assert_eq!(recorded, (1..stopped).chain(stopped + 21..=second).collect::<Vec<_>>());
    let [gap] = &history.gaps[..] else { panic!("{:?}", history.gaps) };
    assert_eq!(
        (gap.cause, gap.from, gap.to),
        (GapCause::RecordingStopped, look(stopped - 1).at, look(stopped + 21).at)
    );
}

#[test]
fn who_waited_for_whom_is_told_when_the_process_is_gone() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("recording.db");
    let program = fixture("hung", NEWEST, BuildFlags::Stripped);
    let target = Target::spawn(&program, ["lock held while sending to nobody"]);
    let pid = target.pid().to_string();
    let arguments = ["--record", text(&file), "--interval", "500ms", "--threshold", "1s"];
    let watch = Watch::start(target.pid(), &arguments);
    wait::until("an incident", DEADLINE, || {
        let reader = Reader::open(&file).ok()?;
        let history = reader.history(reader.entries().ok()?.first()?, None, None).ok()?;
        history.incidents.iter().any(|incident| incident.goroutines >= 20).then_some(())
    });
    target.kill();
    assert_eq!(watch.ended().code, Some(0), "it was to watch until then");

    let of = ["--record", text(&file), "--pid", &pid];
    let said = timeline(&of);
    let told: Timeline =
        serde_json::from_str(&timeline(&[&of[..], &["--format", "json"]].concat())).expect("a timeline");
    let incident = told.incidents.first().unwrap_or_else(|| panic!("{said}"));
    assert!(incident.headline.contains("sends on"), "{said}");
    assert_eq!((incident.roots.len(), incident.ended_ms, incident.cycle), (1, None, false), "{said}");
    let reasons: Vec<&str> = incident.groups.iter().map(|index| told.groups[*index].wait_reason.as_str()).collect();
    assert_eq!(reasons, ["chan send", "sync.Mutex.Lock"], "the root first: {said}");
    assert_eq!(told.culprit, None, "{said}");
    assert!(told.headline.contains("sends on") && told.headline.contains("SIGKILL"), "{said}");
    assert!(said.contains("; until the end") && said.contains("\nINCIDENT "), "{said}");
}
