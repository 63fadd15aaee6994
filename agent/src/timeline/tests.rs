//! Timelines of histories that are not recorded first, and of any that are.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::record::tests::{at, count, expected, look, populations, process, record_all, run_at};
use crate::record::{Exit, ExitKind, Gap, History, Interval, Reader, Recorder};

const SECOND: u64 = 1_000_000_000;

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn a_recording_gives_the_timeline_of_what_was_recorded(runs in populations()) {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("recording.db");
        record_all(&file, &process(7), &runs);
        let reader = Reader::open(&file).expect("readable");
        let read: Vec<History> =
            reader.entries().expect("entries").iter().map(|e| reader.history(e, None, None).expect("a history")).collect();
        let told = Timeline::of(read);
        let expected = Timeline::of(vec![expected(&process(7), &runs)]);
        prop_assert_eq!(&told, &expected);
        // Every format takes any timeline.
        let json = serde_json::to_string(&told).expect("a document");
        prop_assert_eq!(&serde_json::from_str::<Timeline>(&json).expect("it is read back"), &told);
        prop_assert!(!render_text(&told).is_empty() && render_html(&told).contains("</html>"));
        for segment in told.lives.iter().flat_map(|life| &life.segments) {
            prop_assert!(segment.ms.is_sorted());
            prop_assert!(segment.sites.iter().chain(&segment.groups).all(|row| row.counts.len() == segment.ms.len()));
        }
    }
}

fn timeline_of(interval_of: impl Fn(u64) -> crate::record::Interval, looks: u64) -> Timeline {
    let runs = [((0..looks).map(interval_of).collect(), true)];
    Timeline::of(vec![expected(&process(7), &runs)])
}

#[test]
fn the_axis_goes_forward_whatever_the_wall_clock_does() {
    let stepped = |by: i64| {
        timeline_of(
            move |second| {
                let mut interval = look(second, second);
                if second >= 50 {
                    interval.at.unix_ns = interval.at.unix_ns.saturating_add_signed(by * SECOND.cast_signed());
                }
                interval
            },
            100,
        )
    };
    let back = stepped(-3600);
    let ms = &back.lives[0].segments[0].ms;
    assert!(ms.windows(2).all(|pair| pair[1] - pair[0] == 1000), "what came before moves along");
    assert_eq!(ms[99], at(99).unix_ns / 1_000_000 - 3_600_000);
    assert_eq!(back.marks.iter().filter(|mark| mark.kind == MarkKind::Clock).count(), 1);

    let forward = stepped(3600);
    let ms = &forward.lives[0].segments[0].ms;
    assert_eq!((ms[49], ms[50]), (at(49).unix_ns / 1_000_000, at(50).unix_ns / 1_000_000 + 3_600_000));
    let onset = |timeline: &Timeline| timeline.groups[0].onset.map(|onset| onset.ms);
    assert!(onset(&back).is_some() && onset(&forward).is_some());
    assert_eq!(back.groups[0].growth_per_second, forward.groups[0].growth_per_second, "rates know no wall clock");
}

#[test]
fn gaps_part_what_is_drawn_and_losses_do_not() {
    let mut history = expected(&process(7), &[((0..20).map(|second| look(second, 5)).collect(), true)]);
    let gap = |from, to, cause| Gap { from: at(from), to: at(to), cause, detail: String::new() };
    history.gaps = vec![gap(4, 5, GapCause::EventsLost), gap(9, 10, GapCause::Stalled)];
    let timeline = Timeline::of(vec![history]);
    let looks: Vec<usize> = timeline.lives[0].segments.iter().map(|segment| segment.ms.len()).collect();
    assert_eq!(looks, [10, 10]);
    assert_eq!(timeline.gaps.iter().map(|gap| gap.blind).collect::<Vec<_>>(), [false, true]);
}

#[test]
fn memory_that_a_killed_process_has_given_back_already_is_not_known() {
    let timeline = timeline_of(
        |second| {
            let mut interval = look(second, 5);
            interval.usage = Some(crate::record::Usage { rss_bytes: if second == 3 { 0 } else { 7 << 20 }, cpu_ns: 0 });
            interval
        },
        4,
    );
    let segment = &timeline.lives[0].segments[0];
    assert_eq!(segment.rss_bytes, [Some(7 << 20), Some(7 << 20), Some(7 << 20), None]);
}

#[test]
fn processes_that_overlap_have_lanes_of_their_own() {
    let life = |pid, from: u64, to: u64| expected(&process(pid), &[((from..to).map(|s| look(s, 5)).collect(), true)]);
    let timeline = Timeline::of(vec![life(3, 40, 60), life(1, 0, 30), life(2, 20, 39)]);
    let lanes: Vec<_> = timeline.lives.iter().map(|life| (life.pid, life.lane)).collect();
    assert_eq!(lanes, [(1, 0), (2, 1), (3, 0)]);
}

#[test]
fn a_long_history_is_made_sparser_and_keeps_its_highest_looks() {
    let timeline = timeline_of(|second| look(second, if second == 7_777 { 5_000 } else { 50 }), 20_000);
    let segment = &timeline.lives[0].segments[0];
    assert!(segment.ms.len() <= 600, "{}", segment.ms.len());
    assert_eq!(segment.live.iter().max(), Some(&5_001));
    assert_eq!(segment.ms.first().copied(), Some(at(0).unix_ns / 1_000_000));
    assert_eq!(segment.ms.last().copied(), Some(at(19_999).unix_ns / 1_000_000));
    assert!(timeline.notes[0].contains("20000 looks"), "{:?}", timeline.notes);
}

#[test]
fn a_leak_that_was_there_before_is_told_as_such() {
    let timeline = timeline_of(|second| look(second + 500, 1_000 + second * 10), 100);
    let onset = timeline.groups[0].onset.expect("it grows");
    assert!(onset.before_first_look);
    // A thousand goroutines at ten a second lead a hundred seconds back.
    assert!(onset.ms.abs_diff(at(400).unix_ns / 1_000_000) < 2_000, "{onset:?}");
    assert!(timeline.headline.contains("since before the first look"), "{}", timeline.headline);
}

/// A process from that second on whose goroutines begin to leak 40 seconds later, until SIGKILL after 100.
fn killed_while_it_leaked(pid: u32, from: u64) -> History {
    let looks = (from..from + 100).map(|second| look(second, 5 + (second - from).saturating_sub(40) * 10)).collect();
    let mut history = expected(&process(pid), &[(looks, true)]);
    history.process.started = Some(at(from));
    let evidence = "its exit status".to_owned();
    history.exit = Some(Exit { at: at(from + 100), kind: ExitKind::Signaled(9), evidence });
    history
}

#[test]
fn each_process_of_a_history_has_its_onset_and_its_end() {
    let timeline = Timeline::of(vec![killed_while_it_leaked(1, 0), killed_while_it_leaked(2, 200)]);
    let text = render_text(&timeline);
    for (index, from, began) in [(0, 0, MarkKind::Start), (1, 200, MarkKind::Restart)] {
        let life = &timeline.lives[index];
        let of = timeline.groups[life.culprit.expect("it leaks")].in_life(index).expect("it is in that process");
        let onset = of.onset.expect("it grew");
        assert!(onset.ms.abs_diff(at(from + 40).unix_ns / 1_000_000) <= 2_000, "{onset:?}");
        assert!(
            text.contains(&format!("of main.f1 main.go:1 since {}", crate::words::numbers::full(onset.ms))),
            "{text}"
        );
        assert_eq!((life.leaked, of.parked_at_end, of.at_end), (297, 297, 595));
        assert_eq!(life.ended.as_ref().map(|ended| ended.label.as_str()), Some("SIGKILL"));
        let marks = timeline.marks.iter().filter(|mark| mark.life == index && mark.kind != MarkKind::Verdict);
        let marks: Vec<(MarkKind, u64)> = marks.map(|mark| (mark.kind, mark.ms)).collect();
        let end = at(from + 100).unix_ns / 1_000_000;
        assert_eq!(
            marks,
            [(began, at(from).unix_ns / 1_000_000), (MarkKind::Onset, onset.ms), (MarkKind::Killed, end)]
        );
    }
    assert!(timeline.headline.contains("leaked 297 goroutines from"), "{}", timeline.headline);
    assert!(timeline.headline.contains("until its end by SIGKILL at"), "{}", timeline.headline);
}

/// A process whose goroutines have that verdict at each look, as many at the last as at the first.
fn unmoved(pid: u32, from: u64, verdict: Verdict) -> History {
    let groups = || vec![count(2, 24, Some(verdict))];
    let looks = (from..from + 50).map(|second| Interval { groups: groups(), ..look(second, 24) }).collect();
    expected(&process(pid), &[(looks, true)])
}

#[test]
fn those_that_leak_are_told_of_first() {
    let timeline = Timeline::of(vec![unmoved(1, 0, Verdict::Idle), killed_while_it_leaked(2, 100)]);
    assert_eq!(timeline.lives.iter().map(|life| life.culprit).collect::<Vec<_>>(), [None, Some(0)]);
    let text = render_text(&timeline);
    assert!(text.find("pid 2 ") < text.find("pid 1 "), "{text}");
}

#[test]
fn what_leaks_or_is_stuck_without_growing_is_told_of_too() {
    let leaks = Timeline::of(vec![unmoved(1, 0, Verdict::Proven)]);
    assert!(leaks.headline.starts_with("main.f1 leaked 12 goroutines, seen from "), "{}", leaks.headline);
    assert_eq!(leaks.groups[0].onset, None);
    let stuck = Timeline::of(vec![unmoved(1, 0, Verdict::Stuck)]);
    assert_eq!((stuck.culprit, stuck.lives[0].stuck, stuck.lives[0].leaked), (None, 12, 0));
    assert!(stuck.headline.starts_with("Nothing behaves like a leak: 25 goroutines"), "{}", stuck.headline);
    assert!(stuck.headline.ends_with(" Stuck: 12 goroutines, made by main.f1."), "{}", stuck.headline);
}

#[test]
fn a_library_that_made_them_is_not_to_blame() {
    let mut history = unmoved(1, 0, Verdict::Likely);
    let group = Arc::make_mut(&mut history.groups[0].group);
    group.site.created_by.as_mut().expect("a place").function = "net/http.(*Server).Serve".to_owned();
    group.stack.last_mut().expect("a frame").function = "main.(*shop).track".to_owned();
    let headline = Timeline::of(vec![history]).headline;
    let begins = "main.(*shop).track (through net/http.(*Server).Serve) most likely leaked 12 goroutines";
    assert!(headline.starts_with(begins), "{headline}");
}

#[test]
fn an_end_is_marked_as_what_it_was() {
    for (kind, label, mark) in [
        (ExitKind::Exited(2), "exit with code 2", MarkKind::Exit),
        (ExitKind::Signaled(15), "SIGTERM", MarkKind::Killed),
        (ExitKind::OomKilled, "OOM kill", MarkKind::OomKill),
        (ExitKind::PerhapsOomKilled, "SIGKILL, perhaps for lack of memory", MarkKind::Killed),
        (ExitKind::Replaced, "exec of another program", MarkKind::End),
        (ExitKind::Unknown, "ended", MarkKind::End),
    ] {
        let mut history = killed_while_it_leaked(1, 0);
        history.exit.as_mut().expect("it ended").kind = kind;
        let timeline = Timeline::of(vec![history]);
        assert_eq!(timeline.lives[0].ended.as_ref().map(|ended| ended.label.as_str()), Some(label));
        assert_eq!(timeline.marks.last().map(|last| last.kind), Some(mark), "{label}");
    }
}

#[test]
fn nothing_is_a_timeline_too() {
    let timeline = Timeline::of(Vec::new());
    assert!(timeline.headline.contains("holds nothing"));
    assert!(render_text(&timeline).contains("holds nothing"));
}

#[test]
fn two_boots_follow_each_other() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("recording.db");
    for (boot, from) in [("first", 1000), ("second", 0)] {
        let run = crate::record::Run { boot_id: boot.to_owned(), ..run_at(from) };
        let mut recorder = Recorder::open(&file, crate::config::RecordConfig::default(), run).expect("opened");
        let id = recorder.begin(process(7));
        for second in from..from + 20 {
            let mut interval = look(second, second);
            // The second boot began when the wall clock was at 1100.
            interval.at.unix_ns = at(if boot == "first" { second } else { second + 1100 }).unix_ns;
            recorder.interval(id, &interval);
        }
    }
    let reader = Reader::open(&file).expect("readable");
    let entries = reader.entries().expect("entries");
    let read = entries.iter().map(|entry| reader.history(entry, None, None).expect("a history")).collect();
    let timeline = Timeline::of(read);
    let starts: Vec<u64> = timeline.lives.iter().map(|life| life.segments[0].ms[0]).collect();
    assert_eq!(starts, [at(1000).unix_ns / 1_000_000, at(1100).unix_ns / 1_000_000]);
}

#[test]
fn where_nothing_leaks_an_incident_is_what_is_told() {
    let history = |incidents| {
        let idle = |second| {
            let mut look = look(second, 5);
            look.groups.iter_mut().for_each(|group| group.judgement = None);
            look
        };
        let looks = (0..20).map(idle).collect();
        History { incidents, ..expected(&process(7), &[(looks, true)]) }
    };
    let incident = |from, ended, goroutines| crate::record::IncidentHistory {
        from: at(from),
        seen: at(from + 1),
        ended,
        headline: format!("goroutines {goroutines} wait for goroutine 9"),
        goroutines,
        cycle: false,
        roots: vec![9],
        groups: vec![0, 7],
    };
    let timeline = Timeline::of(vec![history(vec![incident(2, Some(at(4)), 50), incident(5, None, 30)])]);
    let clock = |second| crate::words::numbers::full(at(second).unix_ns / 1_000_000)[11..].to_owned();
    assert_eq!(
        timeline.headline,
        format!("Goroutines 30 wait for goroutine 9; from {} until the last look at {} UTC.", clock(5), clock(19))
    );
    let told: Vec<_> = timeline.incidents.iter().map(|one| (one.goroutines, one.groups.as_slice())).collect();
    assert_eq!(told, [(50, &[0][..]), (30, &[0])], "there is no group 7");
    let marks = timeline.marks.iter().filter(|mark| mark.kind == MarkKind::Incident);
    let marks: Vec<&str> = marks.map(|mark| mark.text.as_str()).collect();
    assert!(
        marks[0].starts_with("goroutines 50 wait for goroutine 9; until 20") && marks[1].ends_with("until the end")
    );
    let said = render_text(&timeline);
    assert!(said.contains("\nINCIDENT goroutines 50 wait for goroutine 9; from "), "{said}");
    assert!(
        said.contains("\n  for whom the others waited: goroutine 9\n  5 goroutines [chan receive] at main.wait "),
        "{said}"
    );
    let over = Timeline::of(vec![history(vec![incident(2, Some(at(4)), 50)])]);
    assert!(over.headline.ends_with(&format!("from {} until {} UTC.", clock(2), clock(4))), "{}", over.headline);
}
