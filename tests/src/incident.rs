//! A recording of an incident that never happened, with a known truth: three hours of a shop whose hub leaks
//! subscriptions until the kernel kills it, one restart, and one gap.

use std::path::Path;

use parkwarden::config::RecordConfig;
use parkwarden::detect::Verdict;
use parkwarden::golang::Frame;
use parkwarden::record::{
    CreationSite, CreationSiteCount, Example, Exit, ExitKind, GroupCount, Interval, Judgement, Moment, ProcessIdentity,
    RecordedGroup, Recorder, Run, RuntimeSample, Usage,
};
use parkwarden::words::Place;

/// 2026-11-23 00:30:00 UTC, in seconds.
const BEGIN: u64 = 1_795_393_800;
/// Seconds from the beginning to the first look: between two looks, all times are.
const EVERY: u64 = 10;
/// 02:41:13.
pub const ONSET: u64 = BEGIN + 2 * 3600 + 11 * 60 + 13;
/// 03:12:04.
pub const OOM: u64 = BEGIN + 2 * 3600 + 42 * 60 + 4;
/// Goroutines a second.
pub const RATE: u64 = 65;
/// From when until when nothing was recorded: 01:52:00 to 01:58:10.
pub const GAP: (u64, u64) = (BEGIN + 82 * 60, BEGIN + 88 * 60 + 10);
/// 03:30.
const END: u64 = BEGIN + 3 * 3600;
/// The function that leaks.
pub const CULPRIT: &str = "main.(*Hub).subscribe";

/// Why it leaks.
pub const CAUSE: &str = "They wait for an event of a subscription that nobody ends when its client is gone.";
/// What to do about it.
pub const REMEDY: &str = "Select on the request's context too, and return when it is done.";

const SECOND: u64 = 1_000_000_000;
/// How long the machine had run.
const UPTIME: u64 = 90_000;

fn at(second: u64) -> Moment {
    Moment { mono_ns: (UPTIME + second - BEGIN) * SECOND, unix_ns: second * SECOND }
}

fn frame(function: &str, file: &str, line: u32) -> Frame {
    Frame { function: function.to_owned(), file: file.to_owned(), line, inlined: false }
}

/// Creating function, file, line, started function, wait reason, where it blocks, how many.
struct Kind {
    site: CreationSite,
    wait_reason: &'static str,
    stack: Vec<Frame>,
    count: fn(u64) -> u64,
}

fn wave(second: u64, mean: f64, swing: f64, period: f64) -> u64 {
    let t = (second - BEGIN) as f64;
    let slow = (t / period * std::f64::consts::TAU).sin();
    let fast = ((second.wrapping_mul(2_654_435_761) >> 7) % 100) as f64 / 100.0 - 0.5;
    (mean + swing * slow + swing * fast * 0.6).max(0.0) as u64
}

fn kinds() -> Vec<Kind> {
    let site = |function: &str, file: &str, line, starts: &str| CreationSite {
        created_by: Some(Place { function: function.to_owned(), file: file.to_owned(), line }),
        start_function: starts.to_owned(),
    };
    let park = || frame("runtime.gopark", "/usr/local/go/src/runtime/proc.go", 474);
    let select = || frame("runtime.selectgo", "/usr/local/go/src/runtime/select.go", 351);
    let receive = || frame("runtime.chanrecv", "/usr/local/go/src/runtime/chan.go", 667);
    let poll = || frame("internal/poll.runtime_pollWait", "/usr/local/go/src/runtime/netpoll.go", 351);
    vec![
        Kind {
            site: site(CULPRIT, "/src/shop/hub.go", 24, "main.(*Hub).subscribe.func1"),
            wait_reason: "select",
            stack: vec![
                park(),
                select(),
                frame("main.pump", "/src/shop/hub.go", 31),
                frame("main.(*Hub).subscribe.func1", "/src/shop/hub.go", 25),
            ],
            count: |second| 6 + second.saturating_sub(ONSET) * RATE,
        },
        Kind {
            site: site(
                "net/http.(*Server).Serve",
                "/usr/local/go/src/net/http/server.go",
                3604,
                "net/http.(*conn).serve",
            ),
            wait_reason: "IO wait",
            stack: vec![park(), poll(), frame("net/http.(*conn).serve", "/usr/local/go/src/net/http/server.go", 2137)],
            count: |second| wave(second, 2600.0, 900.0, 5200.0),
        },
        Kind {
            site: site("main.newPool", "/src/shop/pool.go", 41, "main.(*pool).work"),
            wait_reason: "chan receive",
            stack: vec![park(), receive(), frame("main.(*pool).work", "/src/shop/pool.go", 58)],
            count: |_| 256,
        },
        Kind {
            site: site("main.(*Search).query", "/src/shop/search.go", 77, "main.(*Search).query.func2"),
            wait_reason: "chan receive",
            stack: vec![park(), receive(), frame("main.(*Search).query.func2", "/src/shop/search.go", 79)],
            count: |second| wave(second, 420.0, 260.0, 1900.0),
        },
        Kind {
            site: site(
                "database/sql.OpenDB",
                "/usr/local/go/src/database/sql/sql.go",
                841,
                "database/sql.(*DB).connectionOpener",
            ),
            wait_reason: "select",
            stack: vec![
                park(),
                select(),
                frame("database/sql.(*DB).connectionOpener", "/usr/local/go/src/database/sql/sql.go", 1261),
            ],
            count: |_| 4,
        },
    ]
}

fn look(second: u64, started: u64, leaks: bool, run_began: u64) -> Interval {
    let mut interval = Interval { at: at(second), system: 6, ..Interval::default() };
    for (index, kind) in kinds().into_iter().enumerate() {
        let waiting = if index == 0 && !leaks { 6 } else { (kind.count)(second) };
        let parked = match index {
            0 => (kind.count)(second - 10).min(waiting),
            2 | 4 => waiting,
            _ => 0,
        };
        let grown = index == 0 && leaks && second > ONSET + 20 && second > run_began + 20;
        let verdict = if grown { Verdict::Likely } else { Verdict::Idle };
        let evidence = if grown {
            vec![format!(
                "Waiting here grew from 6 to {waiting} in {} s; the go statement made {} goroutines while watched and 12 of \
                 its goroutines ended.",
                second - ONSET,
                waiting + 12
            )]
        } else {
            Vec::new()
        };
        let mono = |s: u64| at(s).mono_ns;
        let example = |n: u64| {
            let created = ONSET + n * 3;
            let seen = if n == 0 { None } else { Some(mono(created)) };
            Example { goid: 184_210 + n * 195, created_ns: seen, parked_ns: mono(created) + 400_000, exact: n > 0 }
        };
        interval.live += waiting;
        interval.parked += parked;
        interval.sites.push(CreationSiteCount { site: kind.site.clone(), live: waiting, created: waiting, exited: 0 });
        interval.groups.push(GroupCount {
            group: RecordedGroup { site: kind.site, wait_reason: kind.wait_reason.to_owned(), stack: kind.stack },
            waiting,
            parked,
            judgement: (parked > 0).then_some(Judgement {
                verdict,
                evidence,
                cause: grown.then(|| CAUSE.to_owned()),
                remedy: grown.then(|| REMEDY.to_owned()),
            }),
            examples: if grown { (0..8).map(example).collect() } else { Vec::new() },
        });
    }
    let rss = (70 << 20) + interval.live * 3500 + wave(second, 4e6, 3e6, 700.0);
    interval.usage = Some(Usage { rss_bytes: rss, cpu_ns: (second - started) * SECOND / 3 });
    interval.runtime = Some(runtime(second - started, interval.live));
    interval
}

/// A collector that has more to do the more goroutines there are.
fn runtime(seconds: u64, live: u64) -> RuntimeSample {
    let heap = (40 << 20) + live * 900;
    RuntimeSample {
        heap_live_bytes: heap,
        heap_goal_bytes: Some(heap * 2),
        memory_limit_bytes: Some(450 << 20),
        collections: seconds / 20,
        gc_cpu_ns: seconds * SECOND / 50 + live * 1000,
        available_cpu_ns: seconds * 4 * SECOND,
        gc_pause_ns: seconds * 10_000,
        longest_pause_ns: Some(120_000 + live * 10),
        runnable: live % 7,
        latency_p99_ns: Some(80_000 + live * 5),
        threads: 14,
    }
}

fn process(pid: u32, started: u64) -> ProcessIdentity {
    ProcessIdentity {
        pid,
        start_ticks: started,
        started: Some(at(started)),
        exe: "/srv/shop".to_owned(),
        go_version: "go1.27.3".to_owned(),
        arch: "amd64".to_owned(),
        pod_name: Some("shop-7d4b9c-x2x8q".to_owned()),
        pod_namespace: Some("web".to_owned()),
        memory_limit_bytes: Some(512 << 20),
        ..ProcessIdentity::default()
    }
}

fn recorder(path: &Path, started: u64) -> Recorder {
    let run = Run {
        boot_id: "5d1c7c0e".to_owned(),
        host: "node-3".to_owned(),
        started: at(started),
        interval_ns: EVERY * SECOND,
        threshold_ns: 10 * SECOND,
    };
    // Nothing of a few hours may be thinned here.
    let config = RecordConfig { thin: Vec::new(), ..RecordConfig::default() };
    Recorder::open(path, config, run).expect("it can be recorded to")
}

/// Records the incident to `path`.
///
/// # Panics
///
/// When it cannot be recorded.
pub fn record(path: &Path) {
    let started = BEGIN - 12;
    for (from, to) in [(BEGIN, GAP.0), (GAP.1, OOM)] {
        let mut recorder = recorder(path, from);
        let id = recorder.begin(process(4711, started));
        for second in (from..to).step_by(usize::try_from(EVERY).expect("small")) {
            recorder.interval(id, &look(second, started, true, from));
        }
        if to == OOM {
            let evidence = "SIGKILL, and its memory control group counts one more process killed for memory".to_owned();
            recorder.end(id, Some(&Exit { at: at(OOM), kind: ExitKind::OomKilled, evidence }));
            let id = recorder.begin(process(4790, OOM + 21));
            for second in (OOM + 24..END).step_by(usize::try_from(EVERY).expect("small")) {
                recorder.interval(id, &look(second, OOM + 21, false, OOM));
            }
            recorder.end(id, None);
        }
    }
}
