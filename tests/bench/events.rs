//! How many events parkwarden takes, from the kernel's ring into its registry, and what that costs it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use nix::time::{ClockId, clock_gettime};
use parkwarden::config::{Mode, ModeChoice, Percent, WatchConfig};
use parkwarden::discover::info::TargetInfo;
use parkwarden::golang::Arch;
use parkwarden::golang::binary::SymbolSource;
use parkwarden::golang::layout::LayoutSource;
use parkwarden::governor::Budget;
use parkwarden::probe::measure::{GENERATE, Generator};
use parkwarden::probe::{Bell, Options, Prober};
use parkwarden::session::{Header, Input, Modes, Session};
use parkwarden_tests::wait;

use crate::document::Section;

/// Events a second that are asked for, and of how many goroutines.
const LOADS: [(u64, u64); 7] = [
    (500_000, 1_000),
    (1_000_000, 1_000),
    (1_000_000, 1_000_000),
    (2_000_000, 1_000),
    (2_000_000, 1_000_000),
    (5_000_000, 1_000),
    (20_000_000, 1_000_000),
];

const TIME: Duration = Duration::from_secs(5);

/// As a watch does it.
const TAKE_EVERY: Duration = Duration::from_millis(100);

pub fn run() -> anyhow::Result<Section> {
    let rows = LOADS.iter().map(|(rate, goroutines)| row(*rate, *goroutines)).collect::<anyhow::Result<_>>()?;
    Ok(Section {
        title: "Events a second",
        about: format!(
            "A BPF program writes records of goroutines that park and are woken, in their real sizes, into the ring (8 MiB, \
             the default) at the rate that is asked for; parkwarden takes them out and applies them to its registry, as in a \
             watch. {} s each. The generator runs on one of the CPUs; CPU is what all other threads used. Every event is \
             accounted for: made is taken and lost together, or the section fails.",
            TIME.as_secs()
        ),
        columns: vec!["asked for", "goroutines", "made", "taken", "lost", "CPU of an event", "CPU used"],
        rows,
    })
}

fn row(rate: u64, goroutines: u64) -> anyhow::Result<Vec<String>> {
    let ring_bytes = WatchConfig::default().ring_bytes;
    let options = Options { ring_bytes, further: vec![GENERATE], ..Options::of_nothing() };
    let prober = Prober::load(&options)?;
    let stream = prober.stream(Bell::default());
    let generator = prober.generator(&stream)?;
    let mut session = Session::new(header());
    let stop = AtomicBool::new(false);
    let mut records = Vec::new();
    let before = process_cpu()?;
    let start = Instant::now();
    let generated = std::thread::scope(|scope| -> anyhow::Result<Duration> {
        let generating = scope.spawn(|| generate(&generator, rate, goroutines, &stop));
        while start.elapsed() < TIME {
            wait::nothing_for(TAKE_EVERY);
            feed(&mut session, &stream, &mut records);
        }
        stop.store(true, Ordering::Relaxed);
        generating.join().ok().context("the generator panicked")?
    })?;
    let elapsed = start.elapsed().as_secs_f64();
    feed(&mut session, &stream, &mut records);
    let cpu = process_cpu()?.saturating_sub(before).saturating_sub(generated).as_secs_f64();
    let counters = prober.counters(generator.index)?;
    let made = counters.hits * Generator::EVENTS_PER_HIT;
    let events = session.registry().events();
    let taken = events.parked + events.readied;
    anyhow::ensure!(taken + counters.ring_full == made, "{made} made, {taken} taken, {} lost", counters.ring_full);
    Ok(vec![
        format!("{rate}/s"),
        goroutines.to_string(),
        format!("{:.0}/s", made as f64 / elapsed),
        format!("{:.0}/s", taken as f64 / elapsed),
        counters.ring_full.to_string(),
        format!("{:.0} ns", 1e9 * cpu / taken as f64),
        format!("{:.0} %", 100.0 * cpu / elapsed),
    ])
}

fn feed(session: &mut Session, stream: &parkwarden::probe::EventStream, records: &mut Vec<u8>) {
    let ring_fill = stream.take(records);
    let input = Input::Events { records: std::mem::take(records), ring_fill };
    session.feed(&input);
    if let Input::Events { records: used, .. } = input {
        *records = used;
    }
}

/// Makes events at that rate until told to stop; the CPU time that took.
fn generate(generator: &Generator, rate: u64, goroutines: u64, stop: &AtomicBool) -> anyhow::Result<Duration> {
    const PER_HIT: u64 = Generator::EVENTS_PER_HIT;
    let start = Instant::now();
    let mut made = 0;
    while !stop.load(Ordering::Relaxed) {
        let due = (start.elapsed().as_secs_f64() * rate as f64) as u64;
        if made >= due {
            wait::nothing_for(Duration::from_micros(200));
        }
        while made < due && !stop.load(Ordering::Relaxed) {
            // Spread over all goroutines, so that no cache holds them.
            generator.hit(1 + (made / PER_HIT).wrapping_mul(7919 * 32) % goroutines.max(32));
            made += PER_HIT;
        }
    }
    Ok(Duration::from(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?))
}

fn process_cpu() -> anyhow::Result<Duration> {
    Ok(Duration::from(clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID)?))
}

fn header() -> Header {
    Header {
        target: TargetInfo {
            pid: std::process::id(),
            exe: "bench".to_owned(),
            go_version: String::new(),
            arch: Arch::Amd64,
            module: None,
            stripped: false,
            pie: false,
            layout_source: LayoutSource::Table,
            symbol_source: SymbolSource::Symtab,
        },
        probes: Vec::new(),
        modes: Modes {
            choice: ModeChoice::Trace,
            first: Mode::Trace,
            no_probes: None,
            refused: Vec::new(),
            budget: Budget { of_target: Percent::new(1_000) },
        },
        wait_reasons: Vec::new(),
        started_ns: 0,
        started_unix_ns: 0,
        ring_bytes: 0,
        threshold_ns: 0,
        interval_ns: 1_000_000_000,
    }
}
