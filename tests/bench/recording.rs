//! A month of fifty processes: what recording costs, how large the file is, and how long a timeline takes.

use std::time::Duration;

use parkwarden::config::RecordConfig;
use parkwarden::detect::Verdict;
use parkwarden::golang::Frame;
use parkwarden::record::{
    CreationSite, CreationSiteCount, GroupCount, Interval, Judgement, Moment, ProcessIdentity, Reader, RecordedGroup,
    Recorder, Run, Usage,
};
use parkwarden::timeline::{Timeline, render_html};
use parkwarden::words::Place;

use crate::document::Section;
use crate::measure::{TIMES, median, milliseconds, timed};

const PROCESSES: u32 = 50;
const GROUPS: u32 = 40;
const SECOND: u64 = 1_000_000_000;
const HOUR: u64 = 3600;
const DAYS: u64 = 30;
/// Between two looks.
const EVERY: u64 = 10;
const EPOCH: u64 = 1_790_000_000;

fn at(second: u64) -> Moment {
    Moment { mono_ns: second * SECOND, unix_ns: (EPOCH + second) * SECOND }
}

fn group(process: u32, number: u32) -> RecordedGroup {
    let frame = |depth: u32| Frame {
        function: format!("example.com/service{process}/internal/worker.(*Pool).step{number}_{depth}"),
        file: format!("/src/service{process}/internal/worker/pool{number}.go"),
        line: 10 + depth,
        inlined: false,
    };
    let stack: Vec<Frame> = (0..10).map(frame).collect();
    let created_by = stack.last().map(|frame| Place {
        function: frame.function.clone(),
        file: frame.file.clone(),
        line: frame.line,
    });
    let site =
        CreationSite { created_by, start_function: format!("example.com/service{process}/internal/worker.f{number}") };
    RecordedGroup { site, wait_reason: "chan receive".to_owned(), stack }
}

/// Every count differs from look to look; one group leaks for the last day.
fn look(groups: &[RecordedGroup], second: u64, end: u64) -> Interval {
    let mut interval = Interval { at: at(second), ..Interval::default() };
    for (number, group) in groups.iter().enumerate() {
        let noise = (second / EVERY).wrapping_mul(0x9e37_79b9).wrapping_add(number as u64 * 77) % 997;
        let leaked = if number == 0 { (second + 24 * HOUR).saturating_sub(end) / 2 } else { 0 };
        let (waiting, parked) = (noise + leaked, noise / 2 + leaked);
        let verdict = if leaked > 100 { Verdict::Likely } else { Verdict::Idle };
        let evidence = if leaked > 100 { vec![format!("Waiting here grew to {waiting}.")] } else { Vec::new() };
        interval.live += waiting;
        interval.parked += parked;
        interval.sites.push(CreationSiteCount {
            site: group.site.clone(),
            live: waiting,
            created: second,
            exited: second,
        });
        interval.groups.push(GroupCount {
            group: group.clone(),
            waiting,
            parked,
            judgement: Some(Judgement { verdict, evidence, cause: None, remedy: None }),
            examples: Vec::new(),
        });
    }
    interval.usage = Some(Usage { rss_bytes: (200 << 20) + interval.live * 4096, cpu_ns: second * SECOND / 3 });
    interval
}

/// When looks are left after a month: one in ten seconds, one a minute, one in ten minutes, as thinning leaves them.
fn left(end: u64) -> Vec<u64> {
    let config = RecordConfig::default();
    let mut times = Vec::new();
    let mut second = 0;
    while second <= end {
        times.push(second);
        let age = Duration::from_secs(end - second);
        let thin = config.thin.iter().rev().find(|thin| age > thin.after);
        second += thin.map_or(EVERY, |thin| thin.keep_one_per.as_secs());
    }
    times
}

pub fn run() -> anyhow::Result<Section> {
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("recording.db");
    let end = DAYS * 24 * HOUR;
    let config = RecordConfig { max_age: Duration::from_secs((DAYS + 1) * 24 * HOUR), ..RecordConfig::default() };
    let limit = config.max_bytes;
    let run = Run {
        boot_id: "boot".to_owned(),
        host: "node".to_owned(),
        started: at(0),
        interval_ns: EVERY * SECOND,
        threshold_ns: 10 * SECOND,
    };
    let mut recorder = Recorder::open(&file, config, run)?;
    let groups: Vec<Vec<RecordedGroup>> = (0..PROCESSES).map(|p| (0..GROUPS).map(|g| group(p, g)).collect()).collect();
    let watches: Vec<_> = (0..PROCESSES)
        .map(|pid| {
            recorder.begin(ProcessIdentity {
                pid: 1000 + pid,
                start_ticks: u64::from(pid),
                exe: format!("/srv/service{pid}"),
                go_version: "go1.27.3".to_owned(),
                arch: "amd64".to_owned(),
                ..ProcessIdentity::default()
            })
        })
        .collect();
    let times = left(end);
    for second in &times {
        for (watch, groups) in watches.iter().zip(&groups) {
            recorder.interval(*watch, &look(groups, *second, end));
        }
    }
    // One more round after the other, with everything there is in the file.
    let mut rounds = Vec::new();
    for round in 1..=30 {
        let looks: Vec<Interval> = groups.iter().map(|groups| look(groups, end + round * EVERY, end)).collect();
        let record = || watches.iter().zip(&looks).for_each(|(watch, look)| recorder.interval(*watch, look));
        rounds.push(timed(record).1);
    }
    anyhow::ensure!(recorder.status().intervals_dropped == 0, "{:?}", recorder.status());
    drop(recorder);
    let size = std::fs::metadata(&file)?.len();
    let mut tell = Vec::new();
    for _ in 0..TIMES {
        let (told, seconds) = timed(|| -> anyhow::Result<()> {
            let reader = Reader::open(&file)?;
            let entries = reader.entries()?;
            let history = reader.history(&entries[7], None, None)?;
            let page = render_html(&Timeline::of(vec![history]));
            anyhow::ensure!(page.len() < 8 << 20, "a page of {} bytes", page.len());
            Ok(())
        });
        told?;
        tell.push(seconds);
    }
    let mean = rounds.iter().sum::<f64>() / rounds.len() as f64;
    let row = |what: &str, figure: String| vec![what.to_owned(), figure];
    Ok(Section {
        title: "Recording",
        about: format!(
            "{DAYS} days of {PROCESSES} processes with {GROUPS} groups each, every count different at every look, a look every \
             {EVERY} s. The file holds what thinning leaves of it: {} looks at each process.",
            times.len()
        ),
        columns: vec!["what", "figure"],
        rows: vec![
            row("recording one look at every process, mean of 30", milliseconds(mean)),
            row("share of one core", format!("{:.2} %", 100.0 * mean / EVERY as f64)),
            row("size of the file", format!("{} MiB of at most {}", size >> 20, limit >> 20)),
            row("page of one process, from opening the file", milliseconds(median(tell))),
        ],
    })
}
