//! `parkwarden mem`.

use std::io::{self, Write as _};
use std::time::Duration;

use anyhow::Context as _;
use clap::{ArgGroup, Args};
use parkwarden::clock::now_ns;
use parkwarden::discover::cgroup::MemoryGroup;
use parkwarden::exit::Exit;
use parkwarden::golang::layout::Structs;
use parkwarden::live::Target;
use parkwarden::report::documents::MemDocument;
use parkwarden::runtime::mem::{self, Memories, NO_GOAL, NO_LIMIT};
use parkwarden::runtime::mem_signs::{self, Seen};
use parkwarden::runtime::timers::{self};
use parkwarden::words::printable;

use super::which::{WHICH, Which};
use super::{Format, Interrupts, OVERVIEW_EXIT, failed, print_json, print_signs};

/// Looks, and how long they take together.
const LOOKS: u32 = 10;
const TIME: Duration = Duration::from_secs(1);
/// Lines of groups of timers, and of pauses, in text.
const SHOWN: usize = 10;

/// Arguments of `mem`.
#[derive(Debug, Args)]
#[command(after_help = OVERVIEW_EXIT)]
#[command(group = ArgGroup::new("which").required(true).args(WHICH))]
pub struct MemArgs {
    #[command(flatten)]
    pub which: Which,

    /// How to print it.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,
}

pub fn run(args: &MemArgs) -> anyhow::Result<Exit> {
    let mut target = Target::open(args.which.pid()?)?;
    let interrupt = Interrupts::expected()?;
    let document = look(&target, &interrupt)?;
    let mut out = io::stdout().lock();
    match args.format {
        Format::Json => print_json(&mut out, &document)?,
        Format::Text => {
            write!(out, "{}", render(&document))?;
            print_signs(&mut out, &document.signs, &mut target)?;
        }
    }
    out.flush()?;
    Ok(Exit::Done)
}

fn look(target: &Target, interrupt: &Interrupts) -> anyhow::Result<MemDocument> {
    let structs: Structs = target.runtime_structs();
    let places = target.memory_places().map_err(|reason| failed(target, reason))?;
    let mut looks: Vec<Memories> = Vec::new();
    for _ in 0..LOOKS {
        if !looks.is_empty() && interrupt.wait(TIME / LOOKS) {
            break;
        }
        match mem::read(target.memory(), &structs, &places, now_ns()) {
            Ok(look) => looks.push(look),
            Err(error) => return Err(failed(target, error)),
        }
    }
    let timers = timers::read(target.memory(), &structs, &timers::Places { allp: places.allp }, now_ns(), &mut |pc| {
        target.runs(pc)
    })
    .map_err(|error| failed(target, error))?;
    let group = MemoryGroup::of(target.process());
    let (used, limit) =
        (group.as_ref().and_then(MemoryGroup::used_bytes), group.as_ref().and_then(MemoryGroup::limit_bytes));
    // As many deadlines as connections are ordinary.
    let counted = timers.groups.iter().filter(|group| group.kind != timers::Kind::Deadline);
    let by: Vec<(String, u64)> =
        counted.map(|group| (format!("{} {}", group.kind, group.function), group.count)).collect();
    let signs = mem_signs::signs(&Seen { looks: &looks, group: used.zip(limit), timers: &by });
    let span = looks.last().zip(looks.first()).map_or(0, |(last, first)| last.read_ns - first.read_ns);
    let count = looks.len();
    let memory = looks.pop().context("no look was taken")?;
    Ok(MemDocument {
        schema: 1,
        target: target.info(),
        looks: count,
        looked_seconds: span as f64 / 1e9,
        metrics: memory.metrics(),
        memory,
        group_used_bytes: used,
        group_limit_bytes: limit,
        timers,
        signs,
    })
}

fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / (1 << 20) as f64)
}

/// What the CPU time that there was went to; none before the first collection, and where the runtime does not keep it.
fn shares(memory: &Memories) -> Option<String> {
    let total = memory.cpu_class_ns("total").filter(|total| *total > 0)?;
    let share = |class| Some(memory.cpu_class_ns(class)? as f64 * 100.0 / total as f64);
    Some(format!(
        "{:.1} % the program, {:.1} % the collector, {:.1} % giving memory back, {:.1} % idle, as of the last collection",
        share("user")?,
        share("gc/total")?,
        share("scavenge/total")?,
        share("idle")?
    ))
}

fn render(document: &MemDocument) -> String {
    let (memory, stats) = (&document.memory, &document.memory.stats);
    let mut text =
        format!("{} ({}), pid {}\n", printable(&document.target.exe), document.target.go_version, document.target.pid);
    let mut row = |name: &str, value: String| {
        text.push_str(&format!("{name:<12}{value}\n"));
    };
    row(
        "heap",
        format!(
            "{} in use, {} of objects ({}), {} free, {} given back",
            mib(stats.heap_inuse),
            mib(stats.alloc),
            stats.heap_objects,
            mib(memory.heap_free),
            mib(stats.heap_released)
        ),
    );
    row(
        "",
        format!(
            "{} since the beginning, {} of them small and not yet counted by the runtime",
            mib(stats.total_alloc),
            mib(memory.unflushed_bytes)
        ),
    );
    row(
        "other",
        format!(
            "{} of stacks, {} for spans, {} for caches, {} for the collector, {} of profiles, {} else",
            mib(stats.stack_sys),
            mib(stats.mspan_sys),
            mib(stats.mcache_sys),
            mib(stats.gc_sys),
            mib(stats.buck_hash_sys),
            mib(stats.other_sys)
        ),
    );
    row("total", format!("{} from the system", mib(stats.sys)));
    let never = memory.gc_percent < 0 && memory.memory_limit == NO_LIMIT;
    let goal = if never || stats.next_gc == NO_GOAL { "none".to_owned() } else { mib(stats.next_gc) };
    let percent = if memory.gc_percent < 0 { "off".to_owned() } else { memory.gc_percent.to_string() };
    let limit = if memory.memory_limit == NO_LIMIT { "none".to_owned() } else { mib(memory.memory_limit) };
    row(
        "collector",
        format!(
            "goal {goal}, {} live, {} marked last; GOGC {percent}, GOMEMLIMIT {limit}",
            mib(memory.heap_live),
            mib(memory.heap_marked)
        ),
    );
    row(
        "",
        format!(
            "{} collections ({} forced), {:.1} % of the CPU, limiter {}",
            stats.num_gc,
            stats.num_forced_gc,
            stats.gc_cpu_fraction * 100.0,
            if memory.limiter_on { "on" } else { "off" }
        ),
    );
    if let Some(last) = memory.pauses.first() {
        let pauses = memory.pauses.iter().map(|pause| pause.ns);
        let (longest, sum) = (pauses.clone().max().unwrap_or(0), pauses.sum::<u64>());
        row(
            "pauses",
            format!(
                "last {:.2} ms, of the last {} the mean {:.2} ms and the longest {:.2} ms; {:.1} ms in all",
                last.ns as f64 / 1e6,
                memory.pauses.len(),
                sum as f64 / 1e6 / memory.pauses.len() as f64,
                longest as f64 / 1e6,
                stats.pause_total_ns as f64 / 1e6
            ),
        );
    }
    if let Some(shares) = shares(memory) {
        row("CPU", shares);
    }
    for (name, queued, executed) in [
        ("finalizers", memory.finalizers_queued, memory.finalizers_executed),
        ("cleanups", memory.cleanups_queued, memory.cleanups_executed),
    ] {
        if let (Some(queued), Some(executed)) = (queued, executed) {
            row(name, format!("{executed} of {queued} run"));
        }
    }
    if let (Some(used), Some(limit)) = (document.group_used_bytes, document.group_limit_bytes) {
        row("group", format!("{} of {}", mib(used), mib(limit)));
    }
    row("timers", format!("{} wait ({} in the heaps)", document.timers.pending, document.timers.in_heaps));
    for group in document.timers.groups.iter().take(SHOWN) {
        row("", format!("{} {} {}", group.count, group.kind, printable(&group.function)));
    }
    if memory.torn {
        row("", "the program read its own statistics all the while: numbers may not fit together".to_owned());
    }
    text
}
