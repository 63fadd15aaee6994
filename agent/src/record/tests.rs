//! What is recorded is read back, whatever happens to the recorder and the file in between.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::interval::{Gap, GapCause};
use super::*;
use crate::config::{RecordConfig, Thin};
use crate::detect::Verdict;
use crate::golang::Frame;
use crate::words::Place;

const SECOND: u64 = 1_000_000_000;
/// Some day in 2026.
const EPOCH: u64 = 1_790_000_000 * SECOND;

pub(crate) fn at(second: u64) -> Moment {
    Moment { mono_ns: 1_000 * SECOND + second * SECOND, unix_ns: EPOCH + second * SECOND }
}

pub(crate) fn run_at(second: u64) -> Run {
    Run {
        boot_id: "boot".to_owned(),
        host: "node".to_owned(),
        started: at(second),
        interval_ns: SECOND,
        threshold_ns: 2 * SECOND,
    }
}

pub(crate) fn process(pid: u32) -> ProcessIdentity {
    ProcessIdentity {
        pid,
        start_ticks: u64::from(pid) * 100,
        started: Some(at(0)),
        exe: "/srv/shop".to_owned(),
        go_version: "go1.27.3".to_owned(),
        arch: "amd64".to_owned(),
        ..ProcessIdentity::default()
    }
}

pub(crate) fn creation_site(number: u32) -> CreationSite {
    let place = Place { function: format!("main.f{number}"), file: "main.go".to_owned(), line: number };
    CreationSite { created_by: (number > 0).then_some(place), start_function: format!("main.f{number}.func1") }
}

pub(crate) fn group(number: u32) -> RecordedGroup {
    let frame = |function: &str| Frame {
        function: function.to_owned(),
        file: "main.go".to_owned(),
        line: number,
        inlined: false,
    };
    let wait_reason = if number.is_multiple_of(2) { "chan receive" } else { "select" };
    RecordedGroup {
        site: creation_site(number / 2),
        wait_reason: wait_reason.to_owned(),
        stack: vec![frame("runtime.gopark"), frame("main.wait")],
    }
}

pub(crate) fn count(number: u32, waiting: u64, verdict: Option<Verdict>) -> GroupCount {
    let judgement = verdict.map(|verdict| Judgement {
        verdict,
        evidence: vec![format!("{waiting} wait")],
        cause: (verdict == Verdict::Proven).then(|| "nobody holds it".to_owned()),
        remedy: None,
    });
    GroupCount { group: group(number), waiting, parked: waiting / 2, judgement, examples: Vec::new() }
}

/// One look with one group of `waiting`.
pub(crate) fn look(second: u64, waiting: u64) -> Interval {
    Interval {
        at: at(second),
        live: waiting + 1,
        parked: waiting / 2,
        sites: vec![CreationSiteCount { site: creation_site(1), live: waiting, created: waiting, exited: 0 }],
        groups: vec![count(2, waiting, Some(Verdict::Likely))],
        ..Interval::default()
    }
}

struct Scratch {
    dir: tempfile::TempDir,
}

impl Scratch {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().expect("a directory") }
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("recording.db")
    }
}

fn recorder(path: &Path, second: u64) -> Recorder {
    Recorder::open(path, RecordConfig::default(), run_at(second)).expect("it can be opened")
}

fn histories(path: &Path) -> Vec<History> {
    let reader = Reader::open(path).expect("readable");
    let entries = reader.entries().expect("entries");
    entries.iter().map(|entry| reader.history(entry, None, None).expect("a history")).collect()
}

fn seconds_of(history: &History) -> Vec<u64> {
    let samples = history.watches.iter().flat_map(|watch| &watch.samples);
    samples.map(|sample| (sample.at.mono_ns - 1_000 * SECOND) / SECOND).collect()
}

/// What a recording of these looks must read as: the same, by plain means.
pub(crate) fn expected(process: &ProcessIdentity, runs: &[(Vec<Interval>, bool)]) -> History {
    let mut history = History {
        process: process.clone(),
        host: "node".to_owned(),
        boot: 1,
        watches: Vec::new(),
        sites: Vec::new(),
        groups: Vec::new(),
        incidents: Vec::new(),
        gaps: Vec::new(),
        exit: None,
    };
    let mut last: Option<Moment> = None;
    for (intervals, ends) in runs.iter().filter(|(intervals, _)| !intervals.is_empty()) {
        let mut watch = Watched {
            interval_ns: SECOND,
            threshold_ns: 2 * SECOND,
            samples: Vec::new(),
            ended: ends.then_some(WatchEnd::Stopped),
        };
        let mut in_this_run = false;
        for interval in intervals {
            if let Some(last) = last {
                let late = interval.at.mono_ns - last.mono_ns;
                let cause = if !in_this_run {
                    Some(GapCause::NotRunning)
                } else {
                    (late > 3 * SECOND).then_some(GapCause::Stalled)
                };
                if let Some(cause) = cause {
                    let what = if in_this_run { "no look" } else { "nothing recorded" };
                    let detail = format!("{what} for {:.1} s", late as f64 / 1e9);
                    history.gaps.push(Gap { from: last, to: interval.at, cause, detail });
                }
            }
            watch.samples.push(expected_sample(&mut history, interval));
            last = Some(interval.at);
            in_this_run = true;
        }
        history.watches.push(watch);
    }
    history
}

fn expected_sample(history: &mut History, interval: &Interval) -> Sample {
    let mut site_index = |site: &CreationSite| {
        history.sites.iter().position(|known| known == site).unwrap_or_else(|| {
            history.sites.push(site.clone());
            history.sites.len() - 1
        })
    };
    let mut sites: Vec<_> =
        interval.sites.iter().map(|count| (site_index(&count.site), count.live, count.created, count.exited)).collect();
    let mut groups = Vec::new();
    for count in &interval.groups {
        site_index(&count.group.site);
    }
    for count in &interval.groups {
        let index = history.groups.iter().position(|known| *known.group == count.group).unwrap_or_else(|| {
            let group = Arc::new(count.group.clone());
            history.groups.push(GroupHistory { group, verdicts: Vec::new(), examples: Vec::new() });
            history.groups.len() - 1
        });
        let verdict = count.judgement.as_ref().map(|judgement| judgement.verdict);
        groups.push((index, count.waiting, count.parked, verdict));
        let Some(group) = history.groups.get_mut(index) else { continue };
        if let Some(judgement) = &count.judgement {
            match group.verdicts.last_mut() {
                Some(known) if known.judgement.verdict == judgement.verdict => {
                    if judgement.verdict > Verdict::Idle {
                        known.latest_evidence.clone_from(&judgement.evidence);
                    }
                }
                _ => group.verdicts.push(Verdicts {
                    at: interval.at,
                    judgement: judgement.clone(),
                    latest_evidence: judgement.evidence.clone(),
                }),
            }
        }
        for example in &count.examples {
            match group.examples.iter_mut().find(|(known, _)| known.goid == example.goid) {
                Some((_, seen)) => *seen = interval.at.mono_ns,
                None => group.examples.push((*example, interval.at.mono_ns)),
            }
        }
        group.examples.sort_by_key(|(example, _)| example.goid);
    }
    sites.sort_unstable();
    groups.sort_unstable();
    Sample {
        at: interval.at,
        live: interval.live,
        system: interval.system,
        parked: interval.parked,
        events_lost: interval.events_lost,
        unlisted: interval.unlisted,
        usage: interval.usage,
        runtime: interval.runtime,
        sites,
        groups,
    }
}

/// Any population of a few sites and groups.
pub(crate) fn populations() -> impl Strategy<Value = Vec<(Vec<Interval>, bool)>> {
    let verdict =
        prop_oneof![Just(None), Just(Some(Verdict::Idle)), Just(Some(Verdict::Likely)), Just(Some(Verdict::Proven))];
    let groups = prop::collection::btree_map(0u32..6, (1u64..1_000_000, verdict), 0..6);
    let sites = prop::collection::btree_map(0u32..4, (0u64..1_000_000, 0u64..1_000_000, 0u64..1_000_000), 0..4);
    let usage = prop::option::of((0u64..1 << 40, 0u64..1 << 60));
    let interval = (groups, sites, usage, 1u64..6, 0u64..10_000, 0u64..9);
    let run = (prop::collection::vec(interval, 0..8), any::<bool>());
    prop::collection::vec(run, 1..4).prop_map(|runs| {
        let mut second = 0;
        let mut build = |(groups, sites, usage, after, live, unlisted)| {
            second += after;
            build_interval(second, &groups, &sites, usage, live, unlisted)
        };
        runs.into_iter().map(|(intervals, ends)| (intervals.into_iter().map(&mut build).collect(), ends)).collect()
    })
}

/// Every number another one, some of them unknown now and then.
fn runtime(bytes: u64, ns: u64) -> RuntimeSample {
    let known = |number: u64| (!number.is_multiple_of(3)).then_some(number);
    RuntimeSample {
        heap_live_bytes: bytes,
        heap_goal_bytes: known(bytes + 1),
        memory_limit_bytes: known(bytes + 2),
        collections: ns % 1009,
        gc_cpu_ns: ns / 7,
        available_cpu_ns: ns,
        gc_pause_ns: ns / 11,
        longest_pause_ns: known(ns / 13),
        runnable: ns % 17,
        latency_p99_ns: known(ns / 19),
        threads: ns % 23,
    }
}

fn build_interval(
    second: u64,
    groups: &std::collections::BTreeMap<u32, (u64, Option<Verdict>)>,
    sites: &std::collections::BTreeMap<u32, (u64, u64, u64)>,
    usage: Option<(u64, u64)>,
    live: u64,
    unlisted: u64,
) -> Interval {
    let with_examples = |(number, (waiting, verdict)): (&u32, &(u64, Option<Verdict>))| {
        let mut count = count(*number, *waiting, *verdict);
        let goid = u64::from(*number) * 100 + waiting % 7;
        if *verdict > Some(Verdict::Idle) {
            let parked_ns = at(0).mono_ns + goid;
            let created_ns = (waiting % 2 == 0).then_some(parked_ns - 1);
            count.examples.push(Example { goid, created_ns, parked_ns, exact: waiting % 3 == 0 });
        }
        count
    };
    Interval {
        at: at(second),
        live,
        system: live % 5,
        parked: live / 2,
        events_lost: 0,
        usage: usage.map(|(rss_bytes, cpu_ns)| Usage { rss_bytes, cpu_ns }),
        runtime: usage.map(|(bytes, ns)| runtime(bytes, ns)),
        sites: sites
            .iter()
            .map(|(number, (live, created, exited))| CreationSiteCount {
                site: creation_site(*number),
                live: *live,
                created: *created,
                exited: *exited,
            })
            .collect(),
        groups: groups.iter().map(with_examples).collect(),
        incidents: Vec::new(),
        unlisted,
    }
}

/// Records each run's intervals and ends those that end; the others are as if parkwarden had been killed.
pub(crate) fn record_all(path: &Path, process: &ProcessIdentity, runs: &[(Vec<Interval>, bool)]) {
    for (intervals, ends) in runs {
        let mut recorder = recorder(path, 0);
        let id = recorder.begin(process.clone());
        for interval in intervals {
            recorder.interval(id, interval);
        }
        assert_eq!(recorder.status().state, RecorderState::Recording);
        if *ends && !intervals.is_empty() {
            recorder.end(id, None);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn what_is_recorded_is_read_back(runs in populations()) {
        let scratch = Scratch::new();
        record_all(&scratch.file(), &process(7), &runs);
        let read = histories(&scratch.file());
        let expected = expected(&process(7), &runs);
        match read.as_slice() {
            [history] => {
                // Ids follow the order in which rows came, which is that of the populations.
                prop_assert_eq!(&history.gaps, &expected.gaps);
                prop_assert_eq!(&history.sites, &expected.sites);
                prop_assert_eq!(&history.groups, &expected.groups);
                prop_assert_eq!(&history.watches, &expected.watches);
                prop_assert_eq!(history, &expected);
            }
            [] => prop_assert!(runs.iter().all(|(intervals, _)| intervals.is_empty())),
            _ => prop_assert!(false, "one process was recorded"),
        }
    }
}

#[test]
fn several_processes_and_runs_share_a_file() {
    let scratch = Scratch::new();
    for run in 0..3u64 {
        let mut recorder = recorder(&scratch.file(), run * 100);
        let ids = [7, 8].map(|pid| (pid, recorder.begin(process(pid))));
        for second in 0..5 {
            for (pid, id) in ids {
                recorder.interval(id, &look(run * 100 + second, u64::from(pid)));
            }
        }
        let exit = Exit { at: at(run * 100 + 5), kind: ExitKind::OomKilled, evidence: "counted".to_owned() };
        recorder.end(ids[0].1, (run == 2).then_some(&exit));
    }
    let read = histories(&scratch.file());
    assert_eq!(read.iter().map(|history| history.process.pid).collect::<Vec<_>>(), [7, 8]);
    for history in &read {
        assert_eq!(history.watches.len(), 3);
        assert_eq!(history.gaps.iter().map(|gap| gap.cause).collect::<Vec<_>>(), [GapCause::NotRunning; 2]);
        assert_eq!(history.gaps[0].from, at(4));
        assert_eq!(history.gaps[0].to, at(100));
    }
    assert_eq!(read[0].exit.as_ref().map(|exit| exit.kind), Some(ExitKind::OomKilled));
    assert_eq!(read[0].watches[2].ended, Some(WatchEnd::ProcessEnded));
    assert_eq!(read[1].watches[2].ended, None);
}

#[test]
fn a_process_is_the_same_whatever_its_host_is_called() {
    let scratch = Scratch::new();
    for (begin, host) in [(0, "parkwarden-h6tlh"), (100, "parkwarden-8xk2c")] {
        let run = Run { host: host.to_owned(), ..run_at(begin) };
        let mut recorder = Recorder::open(&scratch.file(), RecordConfig::default(), run).expect("a recorder");
        let id = recorder.begin(process(7));
        recorder.interval(id, &look(begin, 1));
    }
    let [history] = histories(&scratch.file()).try_into().expect("one");
    assert_eq!(history.watches.len(), 2);
    assert_eq!(history.host, "parkwarden-h6tlh");
}

#[test]
fn a_clock_that_steps_does_not_reorder_history() {
    let scratch = Scratch::new();
    let mut recorder = recorder(&scratch.file(), 0);
    let id = recorder.begin(process(7));
    for second in 0..10 {
        let mut interval = look(second, second);
        if second >= 5 {
            interval.at.unix_ns -= 3600 * SECOND;
        }
        recorder.interval(id, &interval);
    }
    drop(recorder);
    let [history] = histories(&scratch.file()).try_into().expect("one");
    assert_eq!(seconds_of(&history), (0..10).collect::<Vec<_>>());
}

#[test]
fn lost_events_and_late_looks_are_gaps() {
    let scratch = Scratch::new();
    let mut recorder = recorder(&scratch.file(), 0);
    let id = recorder.begin(process(7));
    for (second, lost) in [(0, 0), (1, 0), (2, 30), (9, 30)] {
        recorder.interval(id, &Interval { events_lost: lost, ..look(second, 5) });
    }
    drop(recorder);
    let [history] = histories(&scratch.file()).try_into().expect("one");
    let gaps: Vec<_> = history.gaps.iter().map(|gap| (gap.cause, gap.from, gap.to)).collect();
    assert_eq!(gaps, [(GapCause::EventsLost, at(1), at(2)), (GapCause::Stalled, at(2), at(9))]);
    assert_eq!(history.gaps[0].detail, "30 events lost");
}

#[test]
fn a_damaged_file_is_set_aside_and_a_new_one_begun() {
    let scratch = Scratch::new();
    let path = scratch.file();
    for damage in
        [&b"not a database, and longer than any header of one would be, whatever it may say"[..], &[0xff; 9000]]
    {
        std::fs::write(&path, damage).expect("written");
        let mut recorder = recorder(&path, 0);
        let [aside] = &recorder.status().set_aside[..] else { panic!("nothing set aside") };
        assert_eq!(std::fs::read(aside).expect("it is there"), damage);
        let id = recorder.begin(process(7));
        recorder.interval(id, &look(1, 1));
        assert_eq!(recorder.status().intervals, 1);
    }
    assert_eq!(histories(&path).len(), 1);
}

#[test]
fn damage_inside_is_found() {
    let scratch = Scratch::new();
    let path = scratch.file();
    let mut first = recorder(&path, 0);
    let id = first.begin(process(7));
    for second in 0..200 {
        first.interval(id, &look(second, second));
    }
    drop(first);
    let mut bytes = std::fs::read(&path).expect("readable");
    assert!(bytes.len() > 20_000, "{}", bytes.len());
    bytes[8192..16_384].fill(0x5a);
    std::fs::write(&path, bytes).expect("written");
    let second = recorder(&path, 300);
    assert_eq!(second.status().set_aside.len(), 1);
    assert_eq!(second.status().state, RecorderState::Recording);
}

#[test]
fn files_of_others_and_of_newer_versions_are_refused_and_left_alone() {
    let scratch = Scratch::new();
    let open = |path: &Path| Recorder::open(path, RecordConfig::default(), run_at(0)).expect_err("refused");
    let newer = scratch.file();
    drop(recorder(&newer, 0));
    let db = rusqlite::Connection::open(&newer).expect("a database");
    db.pragma_update(None, "user_version", VERSION + 1).expect("settable");
    drop(db);
    let said = open(&newer).to_string();
    assert!(said.contains("newer parkwarden") && said.contains("recording.db"), "{said}");
    assert!(matches!(Reader::open(&newer), Err(RecordError::Newer { .. })));

    let other = scratch.dir.path().join("notes.db");
    rusqlite::Connection::open(&other).expect("a database").execute_batch("CREATE TABLE notes (x)").expect("a table");
    assert!(matches!(open(&other), RecordError::Foreign { .. }));
    assert!(matches!(Reader::open(&other), Err(RecordError::Foreign { .. })));

    let capture = scratch.dir.path().join("capture");
    std::fs::write(&capture, b"PKWCAPT\n and so on").expect("written");
    assert!(matches!(open(&capture), RecordError::Foreign { .. }));
    assert!(matches!(open(scratch.dir.path()), RecordError::Open { .. }));
    assert!(matches!(open(Path::new("/nowhere/at/all")), RecordError::Open { .. }));
    assert!(matches!(Reader::open(&scratch.dir.path().join("absent")), Err(RecordError::Open { .. })));
}

#[test]
fn two_recorders_do_not_share_a_file() {
    let scratch = Scratch::new();
    let first = recorder(&scratch.file(), 0);
    let second = Recorder::open(&scratch.file(), RecordConfig::default(), run_at(0));
    assert!(matches!(second, Err(RecordError::InUse { .. })));
    drop(first);
    recorder(&scratch.file(), 1);
}

#[test]
fn old_intervals_are_thinned_and_older_ones_go() {
    let config = RecordConfig {
        max_age: Duration::from_secs(3000),
        thin: vec![
            Thin { after: Duration::from_secs(300), keep_one_per: Duration::from_secs(10) },
            Thin { after: Duration::from_secs(1000), keep_one_per: Duration::from_secs(100) },
        ],
        ..RecordConfig::default()
    };
    let scratch = Scratch::new();
    let mut recorder = Recorder::open(&scratch.file(), config, run_at(0)).expect("opened");
    let id = recorder.begin(process(7));
    for second in 0..5000 {
        recorder.interval(id, &look(second, second));
    }
    drop(recorder);
    let [history] = histories(&scratch.file()).try_into().expect("one");
    let seconds = seconds_of(&history);
    let within = |from, to| seconds.iter().filter(|second| (from..to).contains(*second)).count();
    assert_eq!(within(4710, 5000), 290, "the newest are all there");
    assert!((67..=69).contains(&within(4000, 4680)), "{}", within(4000, 4680));
    assert!((19..=22).contains(&within(2000, 4000)), "{}", within(2000, 4000));
    assert_eq!(within(0, 1980), 0, "{seconds:?}");
    assert!(seconds.is_sorted());
    // Each that is left is as it was.
    for sample in history.watches.iter().flat_map(|watch| &watch.samples) {
        assert_eq!(sample.live - 1, (sample.at.mono_ns - 1_000 * SECOND) / SECOND);
    }
}

#[test]
fn the_file_stays_within_its_size() {
    const LIMIT: u64 = 2 << 20;
    let config = RecordConfig { max_bytes: LIMIT, thin: Vec::new(), ..RecordConfig::default() };
    let scratch = Scratch::new();
    let mut recorder = Recorder::open(&scratch.file(), config, run_at(0)).expect("opened");
    let id = recorder.begin(process(7));
    let mut largest = 0;
    for second in 0..4_000 {
        let mut interval = look(second * 10, second);
        interval.groups = (0..40).map(|number| count(number, second, None)).collect();
        recorder.interval(id, &interval);
        largest = largest.max(std::fs::metadata(scratch.file()).expect("there").len());
    }
    assert_eq!(recorder.status().state, RecorderState::Recording);
    assert_eq!(recorder.status().stops, 0);
    drop(recorder);
    assert!(largest <= LIMIT, "{largest}");
    let [history] = histories(&scratch.file()).try_into().expect("one");
    let seconds = seconds_of(&history);
    assert_eq!(seconds.last(), Some(&39_990));
    assert!(seconds.first() > Some(&0) && seconds.len() > 100, "{}", seconds.len());
}

#[test]
fn processes_of_which_nothing_is_left_are_forgotten() {
    let config = RecordConfig { max_age: Duration::from_secs(100), ..RecordConfig::default() };
    let scratch = Scratch::new();
    for (run, pid) in [(0, 7), (1, 8)] {
        let mut recorder = Recorder::open(&scratch.file(), config.clone(), run_at(run * 1000)).expect("opened");
        let id = recorder.begin(process(pid));
        for second in 0..50 {
            recorder.interval(id, &look(run * 1000 + second, 3));
        }
        recorder.end(id, None);
    }
    let read = histories(&scratch.file());
    assert_eq!(read.iter().map(|history| history.process.pid).collect::<Vec<_>>(), [8]);
    let db = rusqlite::Connection::open(scratch.file()).expect("a database");
    for table in ["goroutine_group", "site", "verdict", "watch"] {
        let rows: i64 = db.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).expect("a count");
        assert_eq!(rows, 1, "{table}");
    }
}

/// Set in the process that [`a_recorder_that_is_killed_loses_at_most_the_interval_in_progress`] kills.
const CHILD: &str = "PARKWARDEN_TEST_RECORDER";

/// Records as fast as it can, and says of each interval that it is done. Does nothing unless it is that process.
#[test]
fn recorder_process() {
    let Some(path) = std::env::var_os(CHILD) else { return };
    let path = PathBuf::from(path);
    let first: u64 = match Reader::open(&path).and_then(|reader| reader.entries()) {
        Ok(entries) => entries
            .first()
            .and_then(|entry| entry.looks)
            .map_or(0, |(_, last)| (last.mono_ns - 1_000 * SECOND) / SECOND + 1),
        Err(RecordError::Open { .. }) => 0,
        Err(error) => panic!("{error}"),
    };
    let mut recorder = recorder(&path, first);
    assert_eq!(recorder.status().set_aside.len(), 0);
    let id = recorder.begin(process(7));
    let mut out = std::io::stdout().lock();
    for second in first.. {
        recorder.interval(id, &look(second, second));
        assert_eq!(recorder.status().state, RecorderState::Recording);
        writeln!(out, "done {second}").expect("somebody listens");
    }
}

#[test]
fn a_recorder_that_is_killed_loses_at_most_the_interval_in_progress() {
    let scratch = Scratch::new();
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    for round in 0..100 {
        let mut child = Command::new(std::env::current_exe().expect("this test"))
            .args(["--exact", "record::tests::recorder_process", "--nocapture"])
            .env(CHILD, scratch.file())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("it runs");
        let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines().map_while(Result::ok);
        // xorshift: somewhere within the first hundred intervals.
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let done = |line: String| line.strip_prefix("done ")?.parse::<u64>().ok();
        let mut last = lines.by_ref().filter_map(done).nth((random % 100) as usize).expect("it records");
        child.kill().expect("it runs");
        child.wait().expect("it ends");
        // What it said before it was killed.
        last = lines.filter_map(done).last().unwrap_or(last);
        let [history] = histories(&scratch.file()).try_into().expect("one process");
        let seconds = seconds_of(&history);
        let recorded = *seconds.last().expect("samples");
        assert!(recorded == last || recorded == last + 1, "round {round}: {recorded}, said {last}");
        assert!(seconds.iter().copied().eq(0..=recorded), "round {round}: some are missing");
    }
    let db = rusqlite::Connection::open(scratch.file()).expect("a database");
    let check: String = db.query_row("PRAGMA integrity_check", [], |row| row.get(0)).expect("checked");
    assert_eq!(check, "ok");
}

#[test]
fn a_recording_of_the_first_version_is_read_and_continued() {
    let scratch = Scratch::new();
    let mut db = rusqlite::Connection::open(scratch.file()).expect("a database");
    super::schema::first_version(&mut db).expect("made");
    db.execute_batch(
        "INSERT INTO boot VALUES (1, 'boot', 'host');
         INSERT INTO run VALUES (1, 1, '0.1.0', 1, 1, 1000000000, 5000000000);
         INSERT INTO process (id, boot, pid, start_ticks, exe, go_version, arch) VALUES (1, 1, 9, 9, '/old', 'go1.21.1', 'amd64');
         INSERT INTO watch VALUES (1, 1, 1, 1, 'stopped');
         INSERT INTO sample VALUES (1, 1, 5, 5, 42, 3, 1, 0, 0, 4096, 77);",
    )
    .expect("a sample");
    drop(db);
    let old = |histories: Vec<History>| {
        let history = histories.into_iter().find(|history| history.process.pid == 9).expect("it stays");
        history.watches[0].samples.clone()
    };
    assert!(histories(&scratch.file()).iter().all(|history| history.incidents.is_empty()));
    let before = old(histories(&scratch.file()));
    assert_eq!((before.len(), before[0].live, before[0].runtime), (1, 42, None));

    let mut recorder = recorder(&scratch.file(), 0);
    let id = recorder.begin(process(7));
    let known = Some(runtime(1 << 20, 1_000_000));
    recorder.interval(id, &Interval { runtime: known, ..look(1, 10) });
    assert_eq!(recorder.status().set_aside, Vec::<std::path::PathBuf>::new());
    drop(recorder);
    let db = rusqlite::Connection::open(scratch.file()).expect("a database");
    let version: i64 = db.pragma_query_value(None, "user_version", |row| row.get(0)).expect("a version");
    assert_eq!(version, super::VERSION);
    let after = histories(&scratch.file());
    let new = after.iter().find(|history| history.process.pid == 7).expect("recorded");
    assert_eq!(new.watches[0].samples[0].runtime, known);
    assert_eq!(old(after.clone()), before);
}

#[test]
fn the_queries_of_the_documents_run() {
    let scratch = Scratch::new();
    let mut recorder = recorder(&scratch.file(), 0);
    let id = recorder.begin(process(7));
    recorder.interval(id, &look(1, 10));
    drop(recorder);
    let db = rusqlite::Connection::open(scratch.file()).expect("a database");
    let document = include_str!("../../../docs/timeline.md");
    let sql = document.split("```sql\n").nth(1).and_then(|rest| rest.split("```").next()).expect("queries");
    let queries: Vec<&str> = sql.split(';').map(str::trim).filter(|query| !query.is_empty()).collect();
    assert_eq!(queries.len(), 6);
    for query in queries {
        let rows = db.prepare(query).and_then(|mut query| Ok(query.query([])?.mapped(|_| Ok(())).count()));
        // One asks for a function of another program, and one for incidents, of which there are none.
        let expected = usize::from(!query.contains("hub") && !query.contains("incident"));
        assert_eq!(rows.map_err(|error| error.to_string()), Ok(expected), "{query}");
    }
}

#[test]
fn a_recording_and_the_files_beside_it_are_for_their_owner() {
    let scratch = Scratch::new();
    let mut recorder = recorder(&scratch.file(), 0);
    let watch = recorder.begin(process(7));
    recorder.interval(watch, &look(1, 5));
    for suffix in ["", "-wal", "-shm"] {
        let path = format!("{}{suffix}", scratch.file().display());
        assert_eq!(crate::files::mode(Path::new(&path)), 0o600, "{path}");
    }
}

fn incident(roots: &[u64], goroutines: u64) -> IncidentCount {
    let headline = format!("{goroutines} wait");
    IncidentCount { headline, goroutines, cycle: false, roots: roots.to_vec(), groups: vec![group(2)] }
}

#[test]
fn an_incident_is_the_same_as_long_as_one_of_its_roots_is() {
    let scratch = Scratch::new();
    let with = |second, incidents| Interval { incidents, ..look(second, 10) };
    let mut first = recorder(&scratch.file(), 0);
    let id = first.begin(process(7));
    first.interval(id, &with(1, vec![]));
    first.interval(id, &with(2, vec![incident(&[9], 5), incident(&[], 3)]));
    first.interval(id, &with(3, vec![incident(&[9, 11], 8)]));
    drop(first);
    // Another run goes on with it.
    let mut second = recorder(&scratch.file(), 4);
    let id = second.begin(process(7));
    second.interval(id, &with(5, vec![incident(&[11], 6)]));
    second.interval(id, &with(6, vec![incident(&[12], 4)]));
    let [history] = histories(&scratch.file()).try_into().expect("one process");
    assert!(history.incidents.iter().all(|one| one.groups == [0]), "{history:#?}");
    let told: Vec<_> = history
        .incidents
        .iter()
        .map(|one| (one.from, one.seen, one.ended, one.headline.as_str(), one.goroutines, one.roots.as_slice()))
        .collect();
    assert_eq!(
        told,
        [
            (at(2), at(5), Some(at(6)), "8 wait", 8, &[11][..]),
            (at(2), at(2), Some(at(3)), "3 wait", 3, &[]),
            (at(6), at(6), None, "4 wait", 4, &[12]),
        ]
    );
    let reader = Reader::open(&scratch.file()).expect("readable");
    let entries = reader.entries().expect("entries");
    let until = reader.history(&entries[0], None, Some(at(5).unix_ns)).expect("a history");
    assert_eq!(until.incidents.len(), 2, "the third began later");
}

#[test]
fn of_many_incidents_the_newest_are_kept() {
    let scratch = Scratch::new();
    let mut recorder = recorder(&scratch.file(), 0);
    let id = recorder.begin(process(7));
    let incidents = (0..1100).map(|root| incident(&[root], 2)).collect();
    recorder.interval(id, &Interval { incidents, ..look(1, 10) });
    let [history] = histories(&scratch.file()).try_into().expect("one process");
    assert_eq!((history.incidents.len(), history.incidents[0].roots.as_slice()), (1000, &[100][..]));
    // Those that are gone from the file are not missed.
    recorder.interval(id, &Interval { incidents: vec![incident(&[1099], 2)], ..look(2, 10) });
    let [history] = histories(&scratch.file()).try_into().expect("one process");
    assert_eq!(history.incidents.iter().filter(|one| one.ended.is_none()).count(), 1);
}
