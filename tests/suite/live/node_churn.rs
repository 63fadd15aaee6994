//! A node where programs come and go all the time: those that stay are watched without a break, and nothing of those that
//! are gone stays in the agent.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use parkwarden::clock::unix_now_ns;
use parkwarden_tests::node::Node;
use parkwarden_tests::target::Target;
use parkwarden_tests::{BuildFlags, fixture, wait};
use serde_json::Value;
use xtask::toolchain::NEWEST;

/// Programs that stay.
const STAY: usize = 20;

/// A program begins every so often: 200 a minute.
const BEGIN_EVERY: Duration = Duration::from_millis(300);

/// How long they live, in turns. A process is left alone for its first two seconds, so half of them are never watched.
const LIVES: [Duration; 4] =
    [Duration::from_millis(100), Duration::from_millis(1000), Duration::from_secs(4), Duration::from_secs(6)];

/// How long that goes on; in a long run (`cargo xtask test --long`) as long as that.
const TIME: Duration = Duration::from_secs(60);
const LONG_TIME: Duration = Duration::from_secs(300);

/// Time between two looks of the agent at a process, and the longest that one may be without a look.
const INTERVAL: &str = "1s";
const LONGEST_WITHOUT: f64 = 15.0;

/// By how much the agent's memory may differ between two moments at which it does the same: programs of other tests pass by
/// meanwhile, some of 100 MB. It understands each, and keeps the last four. What it holds of a watch, kept for each that is
/// over, would be more in a long run.
const MEMORY_SLACK_KIB: u64 = 128 << 10;

/// Descriptors and threads more than before that are none of the programs that went, a hundred at least: as many as answer requests
/// at a moment.
const A_FEW: usize = 4;

/// What the agent takes for itself.
#[derive(Debug)]
struct Taken {
    descriptors: usize,
    threads: usize,
    memory_kib: u64,
    series: BTreeSet<String>,
}

impl Taken {
    fn by(node: &Node) -> Self {
        let process = Path::new("/proc").join(node.pid().to_string());
        let status = fs::read_to_string(process.join("status")).expect("the agent lives");
        let memory = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"));
        let (_, text) = node.get("/metrics");
        let series = text.lines().filter(|line| !line.starts_with('#'));
        Self {
            descriptors: node.descriptors(),
            threads: fs::read_dir(process.join("task")).expect("the agent lives").count(),
            memory_kib: memory.expect("VmRSS").parse().expect("a number"),
            series: series.filter_map(|line| Some(line.rsplit_once(' ')?.0.to_owned())).collect(),
        }
    }

    /// Series of processes, but for those that go as well as come: goroutines of the runtime find new reasons to wait now and
    /// then, a leak changes its verdict, what is unusual passes, and a latency is of goroutines that began to run since the look before.
    fn of_those_that_stay(&self) -> BTreeSet<&str> {
        let own = [",wait_reason=\"", ",created_by=\"", ",rule=\"", "_latency_"];
        let changes = |series: &str| own.iter().any(|part| series.contains(part));
        let of_process = |series: &&str| series.contains(",pid=\"") && !changes(series);
        self.series.iter().map(String::as_str).filter(of_process).collect()
    }

    /// The pids in labels of series, but for the agent's own.
    fn pids(&self) -> BTreeSet<u32> {
        let pid = |series: &String| series.split_once(",pid=\"")?.1.split_once('"')?.0.parse().ok();
        self.series.iter().filter(|series| !series.contains("exe=\"parkwarden\"")).filter_map(pid).collect()
    }
}

/// Has programs come and go until `end`; how many there were.
fn come_and_go(program: &Path, end: Instant, mut beside: impl FnMut()) -> usize {
    let mut alive: Vec<(Duration, Instant, Target)> = Vec::new();
    let (mut begun, mut next) = (0, Instant::now());
    while Instant::now() < end {
        if Instant::now() >= next {
            let life = LIVES[begun % LIVES.len()];
            alive.push((life, Instant::now() + life, Target::spawn(program, ["-n", "10"])));
            (begun, next) = (begun + 1, next + BEGIN_EVERY);
        }
        let (over, still): (Vec<_>, Vec<_>) = alive.into_iter().partition(|(_, until, _)| *until <= Instant::now());
        alive = still;
        for (life, _, target) in over {
            // The last ones end by themselves.
            if life == LIVES[LIVES.len() - 1] { assert!(target.exit().success()) } else { target.kill() }
        }
        beside();
        // A pace, not a wait for anything.
        wait::nothing_for(Duration::from_millis(20));
    }
    begun
}

#[test]
fn programs_that_stay_are_watched_without_a_break_and_those_that_go_leave_nothing() {
    let time = if std::env::var_os("PARKWARDEN_LONG").is_some() { LONG_TIME } else { TIME };
    let dir = tempfile::tempdir().expect("a directory");
    let copy = |name: &str| {
        let program = dir.path().join(name);
        fs::copy(fixture("leaks", NEWEST, BuildFlags::Stripped), &program).expect("copied");
        program
    };
    let (stays, goes) = (copy("stays"), copy("goes"));
    let staying: Vec<Target> = (0..STAY)
        .map(|_| {
            let (target, _): (_, Value) = Target::ready(&stays, ["-n", "10"]);
            target
        })
        .collect();
    let pids: BTreeSet<u32> = staying.iter().map(Target::pid).collect();
    let pattern = format!("{}/*", dir.path().display());
    // One mode, so that no probes come and go for other reasons.
    let node = Node::start(&pattern, &["--interval", INTERVAL, "--threshold", "1s", "--mode", "filter"]);
    for pid in &pids {
        node.wait_for_state(*pid, "watched");
    }

    // The allocator, threads and tables find their size.
    let warm = come_and_go(&goes, Instant::now() + time / 4, || {});
    let settled = |node: &Node| {
        let taken = Taken::by(node);
        // The host has other Go programs too.
        let ours = |process: &Value| process["exe"].as_str().is_some_and(|exe| Path::new(exe).starts_with(dir.path()));
        let known = node.processes().iter().filter(|process| ours(process)).count();
        (taken.pids() == pids && known == STAY).then_some(taken)
    };
    let before = node.wait_for("only those that stay", settled);
    let watched = |pid: u32| node.report(pid).map_or(0.0, |report| report.observed.seconds);
    let (started, watched_before) = (Instant::now(), pids.iter().map(|pid| watched(*pid)).collect::<Vec<_>>());

    let mut longest: f64 = 0.0;
    let mut look_at = Instant::now();
    let begun = come_and_go(&goes, Instant::now() + time, || {
        if Instant::now() < look_at {
            return;
        }
        look_at = Instant::now() + Duration::from_secs(1);
        let looks = node.series("parkwarden_process_last_look_timestamp_seconds");
        for pid in &pids {
            let label = format!(",pid=\"{pid}\"}}");
            let (_, at) = looks.iter().find(|(labels, _)| labels.ends_with(&label)).expect("its series");
            longest = longest.max(unix_now_ns() as f64 / 1e9 - at);
        }
    });
    let passed = started.elapsed().as_secs_f64();
    let had = before.of_those_that_stay();
    let after = node.wait_for("only those that stay, with all they had before, and nothing of the others", |node| {
        let taken = settled(node)?;
        // Threads of the last that went end by and by; what is told only now and then comes back.
        let no_more = |now: usize, then: usize| now <= then + A_FEW;
        let no_more = no_more(taken.descriptors, before.descriptors) && no_more(taken.threads, before.threads);
        let now = taken.of_those_that_stay();
        let lost: Vec<&&str> = had.difference(&now).collect();
        if no_more && lost.is_empty() {
            return Some(taken);
        }
        eprintln!("{} descriptors, {} threads, without {lost:?}", taken.descriptors, taken.threads);
        None
    });

    let expected = time.as_millis() / BEGIN_EVERY.as_millis();
    assert!(begun as u128 >= expected * 9 / 10, "{begun} programs began, {expected} should have: a busy machine?");
    assert!(longest < LONGEST_WITHOUT, "one that stays was not looked at for {longest} s");
    for (pid, before) in pids.iter().zip(watched_before) {
        let (now, least) = (watched(*pid), before + passed - LONGEST_WITHOUT);
        assert!(now >= least, "pid {pid}: its watch of {before} s began anew: {now} s, {passed} s later");
    }
    let ends = node.series("parkwarden_process_exits_total");
    let ended: f64 = ends.iter().map(|(_, count)| count).sum();
    let visited = (warm + begun) as f64;
    assert!(
        ended > visited / 10.0 && ended <= visited,
        "{ended} of {visited} that came and went were watched: {ends:?}"
    );
    let most = before.memory_kib + MEMORY_SLACK_KIB;
    assert!(after.memory_kib <= most, "from {} to {} KiB, after {begun} programs", before.memory_kib, after.memory_kib);
    eprintln!(
        "{begun} programs in {passed:.0} s, {ended} of all {visited} watched; memory {} to {} KiB, descriptors {} to {}, \
         threads {} to {}; longest without a look {longest:.1} s",
        before.memory_kib, after.memory_kib, before.descriptors, after.descriptors, before.threads, after.threads
    );
    let (status, took) = node.end();
    assert!(status.success(), "{status}");
    eprintln!("it let go of {STAY} in {took:?}");
    assert!(took < Duration::from_secs(5), "it took {took:?} to let go of {STAY}");
}
