//! What a program loses by being watched, beside plain uprobes and bpftrace at the same functions.

use std::io::{BufRead as _, BufReader};
use std::num::NonZeroU32;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use nix::sys::signal::{Signal, kill};
use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;
use parkwarden::probe::measure::EmptyProbes;
use parkwarden::probe::{EMPTY, Options, Prober};
use parkwarden_tests::agent::Watch;
use parkwarden_tests::wait::nothing_for;
use parkwarden_tests::{BuildFlags, Target, fixture};
use serde_json::Value;
use xtask::{command, toolchain};

use crate::document::Section;
use crate::measure::{end, median};
use crate::prometheus::Prometheus;

/// What is probed without thought: the functions' first instructions.
const FUNCTIONS: [&str; 4] = ["runtime.newproc1", "runtime.gopark", "runtime.ready", "runtime.goexit1"];

/// How long each is measured, and how often.
const TIME: Duration = Duration::from_millis(1500);
const ROUNDS: usize = 3;

/// Before it is measured: `auto` has to have found its mode.
const SETTLE: Duration = Duration::from_millis(1500);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Watcher {
    Nobody,
    Parkwarden(&'static str),
    EmptyEntry,
    Bpftrace,
}

const WATCHERS: [(&str, Watcher); 8] = [
    ("nothing", Watcher::Nobody),
    ("`--mode census`", Watcher::Parkwarden("census")),
    ("`--mode auto`", Watcher::Parkwarden("auto")),
    ("`--mode births`", Watcher::Parkwarden("births")),
    ("`--mode filter`", Watcher::Parkwarden("filter")),
    ("`--mode trace`", Watcher::Parkwarden("trace")),
    ("entry probes, empty program", Watcher::EmptyEntry),
    ("bpftrace, `count()` at the entries", Watcher::Bpftrace),
];

/// A program under load, and who counts what it does.
pub struct Load {
    /// What it does.
    pub name: &'static str,
    /// The program's process.
    pub pid: u32,
    /// The program itself, or what makes the load.
    counting: Target,
    counter: &'static str,
    /// What else there is of it.
    _others: (Option<Target>, Option<Prometheus>),
}

/// What one unit of its work took.
#[derive(Clone, Copy)]
pub struct Speed {
    /// Units a second.
    pub per_second: f64,
    /// CPU time of each, in nanoseconds.
    pub cpu_ns: f64,
}

pub fn run() -> anyhow::Result<Section> {
    if command::find("bpftrace").is_none() {
        command::apt_install(&["bpftrace"])?;
    }
    let mut rows: Vec<Vec<String>> = WATCHERS.iter().map(|(name, _)| vec![(*name).to_owned()]).collect();
    for mut load in loads(None) {
        let mut speeds = vec![Vec::new(); WATCHERS.len()];
        for _ in 0..ROUNDS {
            for ((_, watcher), speeds) in WATCHERS.iter().zip(&mut speeds) {
                let watching = start(*watcher, &load)?;
                speeds.push(load.measure()?);
                watching.end()?;
            }
        }
        let middle = |speeds: &[Speed], of: fn(&Speed) -> f64| median(speeds.iter().map(of).collect());
        let cpu = |speeds: &[Speed]| middle(speeds, |speed| speed.cpu_ns);
        let rate = |speeds: &[Speed]| middle(speeds, |speed| speed.per_second);
        let nothing = (rate(&speeds[0]), cpu(&speeds[0]));
        for (row, speeds) in rows.iter_mut().zip(&speeds) {
            row.push(format!("{:.1} %", 100.0 * rate(speeds) / nothing.0));
            row.push(format!("{:.0}", cpu(speeds)));
            row.push(format!("{:+.0}", cpu(speeds) - nothing.1));
        }
        eprintln!("bench: cost: {} done", load.name);
    }
    Ok(Section {
        title: "What watching costs the target",
        about: format!(
            "A ping-pong over unbuffered channels (a round: two to four parks), a loop that starts a goroutine and waits for \
             it, and an HTTP server with 32 busy connections (Go 1.27.3), each watched in different ways, one after the \
             other, {ROUNDS} times over, {:.1} s each. Speed: rounds a second, as a share of those with nothing attached. \
             CPU: nanoseconds of CPU time of the target's for each round, and what that is more than with nothing attached. \
             The entry probes are what a plain uprobe tool pays: at the first instructions of {}, with a program that does \
             nothing. `auto` has its default budget, 1 %. Medians.",
            TIME.as_secs_f64(),
            FUNCTIONS.join(", "),
        ),
        columns: vec![
            "watched by",
            "ping-pong: speed",
            "CPU",
            "more",
            "spawn: speed",
            "CPU",
            "more",
            "HTTP: speed",
            "CPU",
            "more",
        ],
        rows,
    })
}

/// The programs, on as many CPUs as there are or on fewer (`GOMAXPROCS`).
pub fn loads(cpus: Option<u32>) -> Vec<Load> {
    let on = |program: &Path, arguments: &[&str], cpus: Option<u32>| -> (Target, Value) {
        let mut command = Command::new(program);
        command.args(arguments).envs(cpus.map(|cpus| ("GOMAXPROCS", cpus.to_string())));
        let mut target = Target::spawn_command(command);
        let ready = target.answer();
        (target, ready)
    };
    let spin = fixture("spin", toolchain::NEWEST, BuildFlags::Default);
    let spinning = |name, pairs: &str, spawners: &str, counter| {
        let (counting, _) = on(&spin, &["-pairs", pairs, "-spawners", spawners], cpus);
        Load { name, pid: counting.pid(), counting, counter, _others: (None, None) }
    };
    let http = fixture("keepalive", toolchain::NEWEST, BuildFlags::Default);
    vec![spinning("ping-pong", "1", "0", "iterations"), spinning("spawn", "0", "1", "spawned"), {
        let (counting, ready) = on(&http, &[], cpus);
        let url = ready["url"].as_str().unwrap_or_default().to_owned();
        let (client, _) = on(&http, &["-client", &url, "-pause", "0s"], None);
        Load { name: "http", pid: counting.pid(), counting, counter: "requests", _others: (Some(client), None) }
    }]
}

/// A server of somebody else's: it is asked to compute, and whoever asks counts.
pub fn prometheus(cpus: Option<u32>) -> anyhow::Result<Load> {
    let server = Prometheus::start(cpus)?;
    let http = fixture("keepalive", toolchain::NEWEST, BuildFlags::Default);
    let query = server.url("/api/v1/query?query=sum(rate(prometheus_http_requests_total[5m]))");
    let (counting, _): (_, Value) = Target::ready(&http, ["-client", &query, "-pause", "0s", "-connections", "8"]);
    Ok(Load { name: "prometheus", pid: server.pid(), counting, counter: "requests", _others: (None, Some(server)) })
}

impl Load {
    /// Looks at it for a while.
    pub fn measure(&mut self) -> anyhow::Result<Speed> {
        let clock = clock_getcpuclockid(Pid::from_raw(self.pid.cast_signed()))?;
        let (before, cpu, start) = (self.count()?, clock_gettime(clock)?, Instant::now());
        nothing_for(TIME);
        let rounds = self.count()?.saturating_sub(before) as f64;
        let elapsed = start.elapsed().as_secs_f64();
        let cpu = Duration::from(clock_gettime(clock)?).saturating_sub(Duration::from(cpu));
        Ok(Speed { per_second: rounds / elapsed, cpu_ns: cpu.as_nanos() as f64 / rounds })
    }

    fn count(&mut self) -> anyhow::Result<u64> {
        let stats: Value = self.counting.ask("stats");
        stats[self.counter].as_u64().context("the program counts what it does")
    }
}

/// What watches.
enum Watching {
    Nobody,
    Parkwarden(Watch),
    Empty(Box<(EmptyProbes, Prober)>),
    Process(Process),
}

impl Watching {
    fn end(self) -> anyhow::Result<()> {
        match self {
            Self::Nobody => {}
            Self::Parkwarden(watch) => drop(end(watch)?),
            Self::Empty(probes) => drop(probes),
            Self::Process(process) => drop(process),
        }
        Ok(())
    }
}

/// Another tool; ends when dropped.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It removes its probes before it ends; both fail only when it has ended already.
        let _ = kill(Pid::from_raw(self.0.id().cast_signed()), Signal::SIGINT);
        let _ = self.0.wait();
    }
}

fn start(watcher: Watcher, load: &Load) -> anyhow::Result<Watching> {
    let pid = load.pid;
    match watcher {
        Watcher::Nobody => Ok(Watching::Nobody),
        Watcher::Parkwarden(mode) => {
            let watch = crate::measure::watch(pid, mode, "1s")?;
            nothing_for(SETTLE);
            Ok(Watching::Parkwarden(watch))
        }
        Watcher::EmptyEntry => {
            let target = parkwarden::live::Target::open(pid)?;
            let options = Options { further: vec![EMPTY], ..Options::of_nothing() };
            let prober = Prober::load(&options)?;
            let binary = target.binary();
            let symbols = parkwarden::golang::symbols::lookup(target.process().exe(), &binary.elf, &FUNCTIONS)?;
            let offsets: Option<Vec<u64>> =
                symbols.iter().map(|symbol| binary.elf.file_offset(symbol.as_ref()?.address)).collect();
            let pid = NonZeroU32::new(pid).context("a pid")?;
            let probes = prober.attach_empty(pid, target.process().exe(), &offsets.context("the symbols")?)?;
            Ok(Watching::Empty(Box::new((probes, prober))))
        }
        Watcher::Bpftrace => {
            let program = std::fs::read_link(format!("/proc/{pid}/exe"))?;
            let probe = |function: &&str| format!("uprobe:{}:{function} {{ @hits = count(); }}", program.display());
            let probes = FUNCTIONS.iter().map(probe).collect::<Vec<_>>().join(" ");
            let script = format!("BEGIN {{ printf(\"attached\\n\"); }} {probes}");
            let mut command = Command::new("bpftrace");
            command.args(["-B", "none", "-p", &pid.to_string(), "-e", &script]);
            let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
            let mut lines = BufReader::new(child.stdout.take().context("a pipe")?).lines();
            let process = Process(child);
            while !lines.next().context("bpftrace did not start")??.contains("attached") {}
            // What it says later has to go somewhere.
            std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
            // BEGIN runs just before the last probes are there.
            nothing_for(SETTLE);
            Ok(Watching::Process(process))
        }
    }
}
