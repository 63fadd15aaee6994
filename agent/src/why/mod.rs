//! `parkwarden why`: who waits for whom, told as incidents. What hangs together is one incident, and what it hangs on comes first.
//!
//! One look at the running process, compared with one a moment before: whoever moved in between is in nobody's way. Deliberately
//! absent: probes, stopping the target, and the heap; so a look takes what the stacks take, and no more is said than they show.

mod build;
mod dot;
mod text;

use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use dot::render as render_dot;
pub use text::render;

use crate::cause::Cause;
use crate::cause::primitive::Primitive;
use crate::clock::now_ns;
use crate::discover::info::TargetInfo;
use crate::golang::Frame;
use crate::live::Target;
use crate::memory::census::{Census, CensusReader};
use crate::memory::process::ProcessMemory;
use crate::prove::{Program, ProveError};
use crate::reach::ReachError;
use crate::reach::graph::{self, Graph, Suspects};
use crate::words::Place;

pub use crate::reach::graph::{Edge, Link};

/// Goroutines of a group whose requests are told.
const MAX_SERVED: usize = 8;

/// Version of the JSON's structure.
pub const SCHEMA: u32 = 1;

/// What waits for what in one process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct WhyReport {
    /// Version of this structure.
    pub schema: u32,
    /// The process.
    pub target: TargetInfo,
    /// All its goroutines, the runtime's own too.
    pub goroutines: u64,
    /// Those of the program's that have not run for [`WhyReport::stood_seconds`].
    pub standing: u64,
    /// Time between the two looks: how long they have stood at least.
    pub stood_seconds: f64,
    /// The most goroutines first.
    pub incidents: Vec<Incident>,
    /// Goroutines that stand and have to do with no incident, as far as can be seen: the largest groups.
    pub others: Vec<Standing>,
}

/// Goroutines that wait for one another.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Incident {
    /// How many.
    pub goroutines: u64,
    /// In one sentence.
    pub headline: String,
    /// Whether some of them wait for one another in a circle.
    pub cycle: bool,
    /// Of each place the goroutines that stand there: those that the others wait for first, then those that wait for them, and so
    /// on.
    pub groups: Vec<Standing>,
    /// One for the other.
    pub waits: Vec<Edge>,
}

/// Goroutines that one `go` statement made and that stand at the same place.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Standing {
    /// How many.
    pub count: u64,
    /// The ids of some.
    pub goids: Vec<u64>,
    /// How many others are between them and the root, as few as there can be.
    pub distance: u32,
    /// The runtime's words for why they wait.
    pub wait_reason: String,
    /// The `go` statement.
    pub created_by: Option<Place>,
    /// The function it started.
    pub start_function: String,
    /// First frame outside runtime, sync and internal packages.
    pub blocked_at: Option<Place>,
    /// The innermost frame of the main module, else the first outside the standard library.
    #[serde(default)]
    pub in_program: Option<Place>,
    /// Innermost first.
    pub stack: Vec<Frame>,
    /// How long one of them has stood at least, as the garbage collector noted it or the two looks tell.
    pub seconds: f64,
    /// What one of them waits for.
    pub waits_for: Vec<Primitive>,
    /// If it stands at a channel, the ids of those that stand too and could do the other half: their stacks lead to the channel, and
    /// functions of theirs do that. None that runs, or will be made, is among them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub could: Vec<u64>,
    /// Method and path of the HTTP requests that the first of them serve, the query left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub serves: Vec<String>,
    /// Why, and what to do.
    pub cause: Option<Cause>,
}

/// Looks at process `pid` twice, `apart` from each other.
pub fn live(pid: u32, apart: Duration) -> Result<WhyReport, ProveError> {
    let target = Target::open(pid)?;
    let program = Program::of(&target)?;
    let reader = CensusReader::new(program.layout.g, program.variables.allgs);
    let before = reader.read(&ProcessMemory::new(pid), now_ns);
    let before = before.map_err(|error| ProveError::Reach { pid, source: ReachError::from(error) })?;
    std::thread::sleep(apart);
    let graph = graph_of(pid, &program, &before, Suspects::All)?;
    let mut report = of_graph(&graph, &program, &before);
    let in_incidents = report.incidents.iter_mut().flat_map(|incident| &mut incident.groups);
    for group in in_incidents.chain(&mut report.others) {
        let nodes = group.goids.iter().take(MAX_SERVED).filter_map(|goid| graph.nodes.get(goid));
        // Who has gone on, and the target if it has ended, is told by the next call.
        group.serves = nodes.filter_map(|node| target.serves(&node.goroutine, &group.stack).ok()?).collect();
    }
    Ok(report)
}

/// What a graph tells of those that have not run since `before`.
pub fn of_graph(graph: &Graph, program: &Program, before: &Census) -> WhyReport {
    let stood_ns = now_ns().saturating_sub(before.finished_ns);
    build::report(graph, program, now_ns(), stood_ns)
}

/// Who waits for whom of those that have not run since `before`.
pub fn graph_of(pid: u32, program: &Program, before: &Census, suspects: Suspects) -> Result<Graph, ProveError> {
    let memory = ProcessMemory::new(pid);
    graph::of(&program.subject(&memory, &memory, &[]), before, suspects)
        .map_err(|source| ProveError::Reach { pid, source })
}

impl WhyReport {
    /// The same about one goroutine alone: the incident it is in, or how it stands. `None` if it does not stand.
    pub fn of_goroutine(mut self, goid: u64) -> Option<Self> {
        let has = |groups: &[Standing]| groups.iter().any(|group| group.goids.contains(&goid));
        self.incidents.retain(|incident| {
            has(&incident.groups) || incident.waits.iter().any(|waits| waits.from == goid || waits.to == goid)
        });
        self.others.retain(|group| group.goids.contains(&goid));
        (!self.incidents.is_empty() || !self.others.is_empty()).then_some(self)
    }
}
