//! One look at all goroutines of a process, with their stacks: `parkwarden snapshot`.
//!
//! No probes, no waiting, and the target is not stopped: what a goroutine profile tells, of a process that serves none.
//! A snapshot has no history, so it gives no verdicts; two of them compared tell what grew ([`diff`]).

pub mod diff;
mod text;

use std::collections::BTreeMap;

use hashbrown::{HashMap, HashSet};
use serde::{Deserialize, Serialize};

pub use text::render;

use crate::discover::info::TargetInfo;
use crate::golang::Frame;
use crate::live::{News, Target, TargetError};
use crate::memory::StackId;
use crate::memory::census::{self, Status};
use crate::memory::labels::ByGoroutine;
use crate::memory::look::CensusTaken;
use crate::report::{LabelValues, MAX_GOIDS, Span, most_labels};
use crate::symbolize::{Symbols, call_of};
use crate::words::Place;
use crate::words::{is_system, seconds, start_function, wait_reason};

/// Version of the document's shape; it changes when a field changes its meaning or goes away.
pub const SCHEMA: u32 = 1;

/// Places of labels that are read: where each request has its own, those of so many goroutines.
const MAX_LABELLED: usize = 100_000;

/// What goroutines have in common that are in one group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum GroupBy {
    /// The `go` statement.
    Created,
    /// The stack they stand in, and why they wait.
    Blocked,
    /// Both.
    #[default]
    Both,
}

/// What was read of a process, before it is grouped.
#[derive(Clone, Debug)]
pub struct Look {
    /// The process.
    pub target: TargetInfo,
    /// Its goroutines.
    pub taken: CensusTaken,
    /// Names of all addresses in it.
    pub symbols: Symbols,
    /// Stacks by id, as return addresses, innermost first.
    pub stacks: Vec<Vec<u64>>,
    /// The runtime's wait reasons by number.
    pub wait_reasons: Vec<String>,
    /// When, nanoseconds since the Unix epoch.
    pub unix_ns: u64,
    /// Labels of the goroutines.
    pub labels: ByGoroutine,
    /// Entries of the functions that the stacks return to, by return address.
    entries: HashMap<u64, u64>,
    /// Return addresses in functions that the compiler made to call others.
    wrappers: HashSet<u64>,
}

impl Look {
    /// Looks at a process.
    pub fn at(target: &mut Target) -> Result<Self, TargetError> {
        let taken = target.look(None)?;
        let unix_ns = crate::clock::unix_now_ns();
        let mut look = Self {
            target: target.info(),
            symbols: Symbols::default(),
            stacks: Vec::new(),
            wait_reasons: target.binary().wait_reasons.clone(),
            unix_ns,
            entries: HashMap::new(),
            wrappers: HashSet::new(),
            labels: ByGoroutine::default(),
            taken,
        };
        look.labels = target.labels(&look.taken, MAX_LABELLED)?.into();
        let News { names, stacks } = target.news(&look.taken, std::iter::empty());
        look.symbols.extend(&names);
        look.stacks = stacks;
        let creations = look.taken.census.goroutines.iter().map(|goroutine| goroutine.creation_pc);
        let returns = look.stacks.iter().flatten().copied().chain(creations);
        look.entries = returns.filter_map(|pc| Some((pc, target.function_entry(call_of(pc))?))).collect();
        look.wrappers = look.entries.keys().copied().filter(|pc| target.is_wrapper(call_of(*pc))).collect();
        Ok(look)
    }

    /// Entry of the function that a return address in a stack, or of a `go` statement, is in.
    pub fn entry(&self, return_address: u64) -> Option<u64> {
        self.entries.get(&return_address).copied()
    }

    /// The calls that return to an address, innermost first, as the runtime's own profiles have them: without a wrapper that the
    /// compiler made.
    pub fn calls(&self, return_address: u64) -> &[Frame] {
        let calls = self.symbols.return_address(return_address);
        let wrapper = usize::from(self.wrappers.contains(&return_address));
        &calls[..calls.len().saturating_sub(wrapper)]
    }

    /// A stack's addresses, innermost first; empty for one that could not be read.
    pub fn stack(&self, id: Option<StackId>) -> &[u64] {
        id.and_then(|id| self.stacks.get(id.0 as usize)).map_or(&[], Vec::as_slice)
    }

    /// Why a goroutine does not run: the runtime's reason if it waits, else the word for its status.
    pub fn reason(&self, goroutine: &census::Goroutine) -> String {
        if goroutine.status.is_waiting() {
            wait_reason(&self.wait_reasons, goroutine.wait_reason)
        } else {
            goroutine.status.to_string()
        }
    }

    /// How long a goroutine has certainly been waiting, if the garbage collector noted it.
    pub fn parked_ns(&self, goroutine: &census::Goroutine) -> Option<u64> {
        Some(self.taken.census.finished_ns.saturating_sub(goroutine.wait_since_ns?))
            .filter(|_| goroutine.status.is_waiting())
    }

    /// The program's own goroutines with their stacks.
    pub fn goroutines(&self) -> impl Iterator<Item = (&census::Goroutine, Option<StackId>)> {
        self.taken.goroutines().filter(|(goroutine, _)| !is_system(&self.symbols, goroutine.start_pc))
    }
}

/// The document of `snapshot --format json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Snapshot {
    /// [`SCHEMA`]
    pub schema: u32,
    /// The process.
    pub target: TargetInfo,
    /// When, seconds since the Unix epoch.
    pub taken_unix: f64,
    /// How long reading took, stacks not included; the process was not stopped.
    pub census_seconds: f64,
    /// How many goroutines there are.
    pub goroutines: Counts,
    /// What could not be read.
    pub lost: Lost,
    /// How the groups were made.
    pub group_by: GroupBy,
    /// The program's goroutines, largest group first.
    pub groups: Vec<SnapshotGroup>,
}

/// Goroutine counts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Counts {
    /// Alive, those of the runtime included.
    pub live: u64,
    /// Of these, the runtime's own.
    pub system: u64,
    /// Alive, by status.
    pub by_state: BTreeMap<String, u64>,
}

/// What a snapshot misses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Lost {
    /// Goroutines that could not be read.
    pub census_read_fault: u64,
    /// Goroutines that moved on while their stack was read.
    pub stack_moved: u64,
    /// Stacks whose outer part is missing.
    pub stack_cut: u64,
    /// Goroutines of whose stack nothing could be read.
    pub stack_unknown: u64,
    /// Goroutines whose labels could not be read, or that there were too many of.
    #[serde(default)]
    pub labels_unread: u64,
}

/// Goroutines that have something in common.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SnapshotGroup {
    /// How many.
    pub count: u64,
    /// Why they do not run, and how many for each reason: the runtime's reason for those that wait, else the status.
    pub reasons: BTreeMap<String, u64>,
    /// The `go` statement, if all have the same.
    pub created_by: Option<Place>,
    /// The labels that the program has put on them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<LabelValues>,
    /// The function it started, if all have the same.
    pub start_function: Option<String>,
    /// First frame outside runtime, sync and internal packages, if all have the same stack.
    pub blocked_at: Option<Place>,
    /// Innermost first; empty when they differ, run, or could not be read.
    pub stack: Vec<Frame>,
    /// How long they have been waiting at least, of those whose time the garbage collector noted.
    pub parked_seconds: Option<Span>,
    /// Their ids, ascending, at most [`MAX_GOIDS`].
    pub goids: Vec<u64>,
}

#[derive(Default)]
struct Members {
    count: u64,
    reasons: HashMap<(Status, u8), u64>,
    creation_pc: u64,
    start_pc: u64,
    stack: Option<StackId>,
    parked_ns: Option<(u64, u64)>,
    goids: Vec<u64>,
}

impl Snapshot {
    /// The document of a look.
    pub fn of(look: &Look, group_by: GroupBy) -> Self {
        let mut counts = Counts::default();
        for (goroutine, _) in look.taken.goroutines() {
            counts.live += 1;
            counts.system += u64::from(is_system(&look.symbols, goroutine.start_pc));
            *counts.by_state.entry(goroutine.status.to_string()).or_default() += 1;
        }
        let census = &look.taken.census;
        Self {
            schema: SCHEMA,
            target: look.target.clone(),
            taken_unix: seconds(look.unix_ns),
            census_seconds: seconds(census.finished_ns.saturating_sub(census.started_ns)),
            goroutines: counts,
            lost: Lost {
                census_read_fault: census.unreadable,
                stack_moved: look.taken.stack_moved,
                stack_cut: look.taken.stack_cut,
                stack_unknown: look.taken.stack_unknown,
                labels_unread: look.labels.unread,
            },
            group_by,
            groups: groups(look, group_by),
        }
    }
}

fn groups(look: &Look, group_by: GroupBy) -> Vec<SnapshotGroup> {
    let mut members: HashMap<_, Members> = HashMap::new();
    for (goroutine, stack) in look.goroutines() {
        let waits_for = goroutine.status.is_waiting().then_some(goroutine.wait_reason);
        let blocked = (stack, goroutine.status, waits_for);
        let key = match group_by {
            GroupBy::Created => (Some(goroutine.creation_pc), None),
            GroupBy::Blocked => (None, Some(blocked)),
            GroupBy::Both => (Some(goroutine.creation_pc), Some(blocked)),
        };
        let group = members.entry(key).or_default();
        group.count += 1;
        *group.reasons.entry((goroutine.status, waits_for.unwrap_or_default())).or_default() += 1;
        group.creation_pc = goroutine.creation_pc;
        group.start_pc = goroutine.start_pc;
        group.stack = stack;
        if let Some(ns) = look.parked_ns(goroutine) {
            let (min, max) = group.parked_ns.get_or_insert((ns, ns));
            (*min, *max) = ((*min).min(ns), (*max).max(ns));
        }
        group.goids.push(goroutine.goid);
    }
    let mut groups: Vec<SnapshotGroup> = members.into_values().map(|members| group(look, members, group_by)).collect();
    groups.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.goids.first().cmp(&b.goids.first())));
    groups
}

fn group(look: &Look, mut members: Members, group_by: GroupBy) -> SnapshotGroup {
    let labels = most_labels(members.goids.iter().filter_map(|goid| look.labels.of(*goid)));
    members.goids.sort_unstable();
    members.goids.truncate(MAX_GOIDS);
    let one_creator = group_by != GroupBy::Blocked;
    let stack: Vec<Frame> = match group_by {
        GroupBy::Created => Vec::new(),
        _ => look.stack(members.stack).iter().flat_map(|pc| look.symbols.return_address(*pc)).cloned().collect(),
    };
    SnapshotGroup {
        count: members.count,
        reasons: members
            .reasons
            .into_iter()
            .map(|((status, wait_reason), count)| {
                let one = census::Goroutine { status, wait_reason, ..census::Goroutine::default() };
                (look.reason(&one), count)
            })
            .collect(),
        created_by: if one_creator { Place::of_creation(&look.symbols, members.creation_pc) } else { None },
        labels,
        start_function: one_creator.then(|| start_function(&look.symbols, members.start_pc)),
        blocked_at: Place::of_blocking(&stack),
        stack,
        parked_seconds: members.parked_ns.map(|(min, max)| Span { min: seconds(min), max: seconds(max) }),
        goids: members.goids,
    }
}
