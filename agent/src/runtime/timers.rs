//! Timers that wait, by what they call: each P keeps a heap of them.
//!
//! From Go 1.23 on a timer or ticker with a channel is in a heap only while somebody waits for the channel: one that nobody
//! listens to is garbage like any other object, and is not told of here.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::golang::layout::{Structs, Wanted};
use crate::memory::Memory;

use super::{RuntimeError, View, sched, word, words};

/// The fields that are read.
pub const WANTED: &Wanted = &[
    // A slice of timers until Go 1.22, since then a struct with one.
    ("runtime.p", &[("timers", 0), ("timers.heap", 24)]),
    (
        "runtime.timer",
        &[
            ("when", 8),
            ("period", 8),
            ("f", 8),
            ("arg", 16),
            // Until Go 1.22, and since.
            ("status", 4),
            ("state", 1),
        ],
    ),
    ("runtime.hchan", &[("recvq.first", 8)]),
    ("runtime.sudog", &[("g", 8)]),
    ("runtime.g", &[("startpc", 8)]),
];

/// Timers read at most.
const MAX_TIMERS: u64 = 2_000_000;
/// Timers read at once.
const BATCH: usize = 16_384;
/// `timerZombie`: stopped, and in the heap still; Go 1.23 and later.
const ZOMBIE: u64 = 4;
/// `timerWaiting`, `timerModifying`, `timerModifiedEarlier`, `timerModifiedLater`, `timerMoving`; Go 1.22 and earlier.
const PENDING: [u64; 5] = [1, 6, 7, 8, 9];

/// What a timer does when its time comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, strum::Display)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// It starts a goroutine that calls a function.
    #[strum(to_string = "time.AfterFunc calling")]
    AfterFunc,
    /// It wakes a goroutine that sleeps.
    #[strum(to_string = "time.Sleep in goroutines of")]
    Sleep,
    /// It sends on a channel once, for a goroutine that waits for that.
    #[strum(to_string = "time.Timer for goroutines of")]
    Timer,
    /// It sends on a channel again and again.
    #[strum(to_string = "time.Ticker for goroutines of")]
    Ticker,
    /// It ends a read or write of a connection or file.
    #[strum(to_string = "deadlines by")]
    Deadline,
    /// It calls a function of the runtime.
    #[strum(to_string = "the runtime's")]
    Other,
}

/// Timers that do the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Group {
    /// What they do.
    pub kind: Kind,
    /// The function that they call or that the goroutine runs for which they are; `?` where that is not known.
    pub function: String,
    /// How many.
    pub count: u64,
    /// When the first of them is due, nanoseconds from the look; negative if it is late.
    pub first_ns: i64,
    /// When the last is due.
    pub last_ns: i64,
    /// The interval of a ticker, the shortest of the group.
    pub period_ns: Option<i64>,
}

/// All timers of a process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Timers {
    /// Entries of the heaps, stopped ones that were not removed yet among them.
    pub in_heaps: u64,
    /// Those that wait.
    pub pending: u64,
    /// Those that could not be read.
    pub unreadable: u64,
    /// Whether there are more than are read.
    pub truncated: bool,
    /// By what they do, the largest first.
    pub groups: Vec<Group>,
}

/// Where the variables are.
#[derive(Clone, Copy, Debug)]
pub struct Places {
    /// `runtime.allp`
    pub allp: u64,
}

/// The function that starts at or contains an address.
pub type Names<'a> = dyn FnMut(u64) -> String + 'a;

/// One timer.
struct Timer {
    when: i64,
    period: i64,
    /// What `timer.f` points at: the code.
    calls: u64,
    argument: u64,
}

/// Reads all timers.
pub fn read(
    memory: &dyn Memory,
    structs: &Structs,
    places: &Places,
    now_ns: u64,
    names: &mut Names<'_>,
) -> Result<Timers, RuntimeError> {
    let mut timers = Timers::default();
    let mut groups: HashMap<(Kind, u64), Group> = HashMap::new();
    let processors = View::read_many(memory, structs, WANTED, "runtime.p", &sched::addresses(memory, places.allp)?)?;
    for p in processors.iter().flatten() {
        let addresses = heap(memory, p, &mut timers)?;
        for batch in addresses.chunks(BATCH) {
            let read = batch_of(memory, structs, batch, &mut timers)?;
            group(memory, structs, &read, now_ns, names, &mut groups)?;
            timers.pending += read.len() as u64;
        }
    }
    timers.groups =
        groups.into_iter().map(|((_, function), group)| Group { function: called(function, names), ..group }).collect();
    timers.groups.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.function.cmp(&b.function)));
    Ok(timers)
}

fn called(pc: u64, names: &mut Names<'_>) -> String {
    let name = if pc == 0 { "?".to_owned() } else { names(pc) };
    // A method that is bound to its receiver.
    name.strip_suffix("-fm").map_or_else(|| name.clone(), str::to_owned)
}

/// The timers in the heap of a P.
fn heap(memory: &dyn Memory, p: &View<'_>, timers: &mut Timers) -> Result<Vec<u64>, RuntimeError> {
    let (slice, entry) = match p.at("timers.heap") {
        // `timerWhen`: the timer and its time.
        Some(_) => (p.array("timers.heap"), 2),
        None => (p.array("timers"), 1),
    };
    let slice = slice.unwrap_or_default();
    let (array, len) = (slice.first().copied().unwrap_or(0), slice.get(1).copied().unwrap_or(0));
    timers.in_heaps = timers.in_heaps.saturating_add(len);
    let room = MAX_TIMERS.saturating_sub(timers.pending);
    timers.truncated |= len > room;
    let len = len.min(room);
    let mut bytes = vec![0; len as usize * 8 * entry];
    if len > 0 && memory.read(array, &mut bytes).is_err() {
        // It grew meanwhile, and what was its array is somebody else's.
        timers.unreadable += len;
        return Ok(Vec::new());
    }
    Ok(words(&bytes).into_iter().step_by(entry).collect())
}

/// Those of the timers that wait.
fn batch_of(
    memory: &dyn Memory,
    structs: &Structs,
    addresses: &[u64],
    timers: &mut Timers,
) -> Result<Vec<Timer>, RuntimeError> {
    let views = View::read_many(memory, structs, WANTED, "runtime.timer", addresses)?;
    timers.unreadable += views.iter().filter(|view| view.is_none()).count() as u64;
    let waits = |timer: &&View<'_>| match timer.get("state") {
        Some(state) => state & ZOMBIE == 0,
        None => PENDING.contains(&timer.number("status")),
    };
    let waiting: Vec<&View<'_>> = views.iter().flatten().filter(waits).collect();
    let functions: Vec<u64> = waiting.iter().map(|timer| timer.number("f")).collect();
    let code = word(memory, &functions)?;
    Ok(waiting
        .iter()
        .zip(code)
        .map(|(timer, code)| Timer {
            when: timer.signed("when"),
            period: timer.signed("period"),
            calls: code.unwrap_or(0),
            argument: timer.array("arg").and_then(|arg| arg.get(1).copied()).unwrap_or(0),
        })
        .collect())
}

/// Adds timers to their groups.
fn group(
    memory: &dyn Memory,
    structs: &Structs,
    timers: &[Timer],
    now_ns: u64,
    names: &mut Names<'_>,
    groups: &mut HashMap<(Kind, u64), Group>,
) -> Result<(), RuntimeError> {
    let mut kinds: HashMap<u64, Kind> = HashMap::new();
    let kinds: Vec<Kind> = timers
        .iter()
        .map(|timer| match *kinds.entry(timer.calls).or_insert_with(|| kind(&names(timer.calls))) {
            Kind::Timer if timer.period > 0 => Kind::Ticker,
            kind => kind,
        })
        .collect();
    let functions = functions(memory, structs, timers, &kinds)?;
    for ((timer, kind), function) in timers.iter().zip(kinds).zip(functions) {
        let due = timer.when.saturating_sub(now_ns.cast_signed());
        let period = (timer.period > 0).then_some(timer.period);
        let group = groups.entry((kind, function)).or_insert_with(|| Group {
            kind,
            function: String::new(),
            count: 0,
            first_ns: due,
            last_ns: due,
            period_ns: period,
        });
        group.count += 1;
        group.first_ns = group.first_ns.min(due);
        group.last_ns = group.last_ns.max(due);
        group.period_ns = group.period_ns.into_iter().chain(period).min();
    }
    Ok(())
}

/// What a timer does that calls this function of the runtime or of package time.
fn kind(function: &str) -> Kind {
    match function {
        "time.goFunc" => Kind::AfterFunc,
        "time.sendTime" => Kind::Timer,
        "runtime.goroutineReady" => Kind::Sleep,
        _ if function.starts_with("runtime.netpoll") => Kind::Deadline,
        _ => Kind::Other,
    }
}

/// For each timer the function that tells it from others of its kind.
fn functions(
    memory: &dyn Memory,
    structs: &Structs,
    timers: &[Timer],
    kinds: &[Kind],
) -> Result<Vec<u64>, RuntimeError> {
    let arguments: Vec<u64> = timers.iter().map(|timer| timer.argument).collect();
    // The code of the function value, where the argument is one.
    let code = word(memory, &arguments)?;
    let goroutines = receivers(memory, structs, &arguments, kinds)?;
    let starts = View::read_many(memory, structs, WANTED, "runtime.g", &goroutines)?;
    let mut functions = Vec::with_capacity(timers.len());
    for (index, timer) in timers.iter().enumerate() {
        let start = starts.get(index).and_then(|g| g.as_ref()).map_or(0, |g| g.number("startpc"));
        functions.push(match kinds.get(index) {
            Some(Kind::AfterFunc) => code.get(index).copied().flatten().unwrap_or(0),
            Some(Kind::Sleep | Kind::Timer | Kind::Ticker) => start,
            _ => timer.calls,
        });
    }
    Ok(functions)
}

/// The `g` that a timer is for: its argument, or the first that waits for the channel that is its argument.
fn receivers(
    memory: &dyn Memory,
    structs: &Structs,
    arguments: &[u64],
    kinds: &[Kind],
) -> Result<Vec<u64>, RuntimeError> {
    let channel = |index: usize| matches!(kinds.get(index), Some(Kind::Timer | Kind::Ticker));
    let channels: Vec<u64> =
        arguments.iter().enumerate().map(|(index, argument)| if channel(index) { *argument } else { 0 }).collect();
    let channels = View::read_many(memory, structs, WANTED, "runtime.hchan", &channels)?;
    let waiting: Vec<u64> =
        channels.iter().map(|channel| channel.as_ref().map_or(0, |channel| channel.number("recvq.first"))).collect();
    let waiting = View::read_many(memory, structs, WANTED, "runtime.sudog", &waiting)?;
    Ok(arguments
        .iter()
        .enumerate()
        .map(|(index, argument)| match (channel(index), kinds.get(index)) {
            (true, _) => waiting.get(index).and_then(|sudog| sudog.as_ref()).map_or(0, |sudog| sudog.number("g")),
            (false, Some(Kind::Sleep)) => *argument,
            _ => 0,
        })
        .collect())
}
