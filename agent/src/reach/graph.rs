//! Who waits for whom: a graph of all goroutines that do not run, at one moment.
//!
//! An edge leads from a goroutine that waits to one that it waits for, with what shows it. A deferred unlock that has not run
//! shows who holds a lock, and a deferred `Done` that has not run who is a member of a wait group; a stack that refers to a lock,
//! in a function that locks, shows who may hold it; and who waits for a wait group may wait for whom it has made. Nothing is followed
//! through the heap, so that a look costs the stacks and no more, and the target is not stopped: whoever has moved by the end of
//! the look has no edges.
//!
//! Deliberately absent: a verdict. That somebody is waited for says nothing of whether he will ever come.

use hashbrown::{HashMap, HashSet};

use super::candidates::{Finder, is_parked};
use super::heap::Spans;
use super::partners::{self, Partners};
use super::stack::Stacks;
use super::types::Types;
use super::unlocks::Unlocks;
use super::{MAX_FRAMES, Modules, ReachError, Subject, holders, only_wait_groups, waiting_for};
use crate::cause::primitive::Primitive;
use crate::cause::wait::{Doing, Wait};
use crate::memory::census::{Census, CensusReader, Goroutine};
use crate::memory::unwind::has_not_run;

/// Stacks looked through for members of wait groups at most.
const MAX_MEMBERS: usize = 20_000;

/// A goroutine that does not run.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// As it was read.
    pub goroutine: Goroutine,
    /// What it waits for, if others have to bring it about.
    pub wait: Option<Wait>,
    /// Of that, the state. Of a lock nobody is said to hold it here: edges tell.
    pub primitives: Vec<Primitive>,
    /// Return addresses, innermost first.
    pub stack: Vec<u64>,
    /// If it stands at a channel, who else that stands could do the other half, as far as stacks and code tell ([`Suspects`]).
    pub could: Vec<u64>,
}

impl Node {
    /// Why it does not run.
    pub fn doing(&self) -> Doing {
        Doing::of(&self.goroutine)
    }
}

/// Why somebody is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Link {
    /// It holds the lock: its deferred unlock has not run, and nobody else shows one.
    Holds,
    /// It is a member of the wait group: its deferred `Done` has not run.
    Member,
    /// It may hold the lock.
    MayHold,
    /// It could receive what is sent, as the only one seen, and waits for a lock, a wait group or a condition.
    MayServe,
    /// It was made by the one that waits for a wait group.
    Made,
}

impl Link {
    /// Whether memory shows it.
    pub const fn is_shown(self) -> bool {
        matches!(self, Self::Holds | Self::Member)
    }
}

/// One goroutine waits for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Edge {
    /// Id of the one that waits.
    pub from: u64,
    /// Id of the one that is waited for.
    pub to: u64,
    /// Why.
    pub link: Link,
    /// Address of the lock or wait group; of a channel.
    pub primitive: u64,
}

/// See the module.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Graph {
    /// By goid.
    pub nodes: HashMap<u64, Node>,
    /// In the order of their goids.
    pub edges: Vec<Edge>,
    /// All goroutines, those that run and the runtime's own too.
    pub goroutines: u64,
}

/// Of what stands at a channel, whose partners are looked for among all that stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suspects {
    /// Of everybody.
    All,
    /// Only where one waits for a lock, a wait group or a condition, of which there are few in a program that is well.
    Waiting,
}

/// The graph of a subject, of which a goroutine was seen in a census before that is `before`: whoever has moved since is left out.
pub fn of(subject: &Subject<'_>, before: &Census, suspects: Suspects) -> Result<Graph, ReachError> {
    let Subject { memory, layout, variables, .. } = *subject;
    let reader = CensusReader::new(layout.g, variables.allgs);
    let census = reader.read(memory, || 0)?;
    let stood = standing(before, census.goroutines.iter());
    let goroutines: Vec<Goroutine> = census
        .goroutines
        .iter()
        .filter(|g| stood.contains(&g.goid) && g.has_stack() && !subject.is_of_runtime(g.start_pc))
        .copied()
        .collect();
    let modules = Modules::read(memory, layout, variables.firstmoduledata)
        .map_err(|source| ReachError::Memory { what: "module data", source })?;
    let immutable = [subject.immutable, &modules.immutable()].concat();
    let types = Types::new(subject.constant, layout.minor, immutable);
    let spans = Spans::read(memory, layout, variables.mheap)?;
    let stacks = Stacks::new(memory, layout.arch, subject.pclntab, subject.slide, &modules, &types);
    let wait = |g: &Goroutine| {
        let reason = subject.wait_reasons.get(usize::from(g.wait_reason)).filter(|_| is_parked(g))?;
        subject.wait_of(reason)
    };
    let mut waits: Vec<Option<Wait>> = goroutines.iter().map(wait).collect();
    if layout.minor < 24 {
        only_wait_groups(subject, &stacks, &goroutines, &mut waits);
    }
    let finder = Finder {
        memory,
        layout,
        spans: &spans,
        modules: &modules,
        goroutines: &goroutines,
        waits: &waits,
        semtable: variables.semtable,
    };
    let found = finder.find();
    let waiting = waiting_for(&found.list, &goroutines);
    let node = |g: &Goroutine| Node {
        goroutine: *g,
        wait: None,
        primitives: Vec::new(),
        stack: stacks.pcs(g, MAX_FRAMES).0,
        could: Vec::new(),
    };
    let mut nodes: HashMap<u64, Node> = goroutines.iter().map(|g| (g.goid, node(g))).collect();
    for candidate in &found.list {
        let Some(node) = nodes.get_mut(&goroutines[candidate.goroutine].goid) else { continue };
        let read = |address: &u64| Primitive::read(memory, layout, candidate.wait, *address, waiting.get(address));
        node.wait = Some(candidate.wait);
        node.primitives = candidate.primitives.iter().filter(|address| **address != 0).map(read).collect();
    }
    let unlocks = Unlocks::new(subject, &stacks);
    let conditions = goroutines.iter().zip(&waits).filter(|(_, wait)| **wait == Some(Wait::Cond));
    let list = |goid: u64| nodes.get(&goid)?.primitives.first().map(|primitive| primitive.address);
    let released = holders::released(&stacks, conditions.map(|(g, _)| (g.goid, list(g.goid))));
    let mut edges = locks(&nodes, &goroutines, &stacks, &unlocks, &spans, &released);
    edges.extend(members(&nodes, &goroutines, &unlocks));
    edges.extend(made(&nodes, &edges));
    let partners = |suspects: &mut dyn Iterator<Item = &Goroutine>| {
        partners::of(&nodes, suspects, memory, &stacks, &unlocks, &spans)
    };
    let of_sync = |g: &&Goroutine| nodes.get(&g.goid).is_some_and(waits_for_one_of_sync);
    let few = (suspects == Suspects::Waiting).then(|| partners(&mut goroutines.iter().filter(of_sync)));
    // Whether one of them is the only one takes all the others.
    let few = few.filter(|few| served(&nodes, few).is_empty());
    let partners = few.unwrap_or_else(|| partners(&mut goroutines.iter()));
    edges.extend(served(&nodes, &partners));
    for node in nodes.values_mut() {
        let partners = partners::wanted(node).and_then(|wanted| partners.get(&wanted));
        node.could = partners.cloned().unwrap_or_default();
    }
    let after = reader.read(memory, || 0)?;
    let stayed = standing(&census, after.goroutines.iter());
    nodes.retain(|goid, _| stayed.contains(goid));
    edges.retain(|edge| stayed.contains(&edge.from) && stayed.contains(&edge.to));
    edges.sort_unstable();
    edges.dedup();
    Ok(Graph { nodes, edges, goroutines: census.goroutines.len() as u64 })
}

/// The address of the lock that a goroutine wants.
pub fn lock_of(node: &Node) -> Option<u64> {
    holders::lock_at(node.wait?, node.primitives.first()?.address)
}

/// Ids of those that have not run since.
pub fn standing<'g>(before: &Census, now: impl Iterator<Item = &'g Goroutine>) -> HashSet<u64> {
    let before: HashMap<u64, &Goroutine> = before.goroutines.iter().map(|g| (g.goid, g)).collect();
    now.filter(|now| before.get(&now.goid).is_some_and(|then| has_not_run(then, now))).map(|now| now.goid).collect()
}

/// Of those that want a lock, who holds it or may.
fn locks(
    nodes: &HashMap<u64, Node>,
    goroutines: &[Goroutine],
    stacks: &Stacks<'_>,
    unlocks: &Unlocks<'_>,
    spans: &Spans,
    released: &holders::Released,
) -> Vec<Edge> {
    let want = |node: &Node| {
        let primitive = node.primitives.first()?;
        let lock = holders::lock_at(node.wait?, primitive.address)?;
        primitive.state.is_locked().then_some((node.goroutine.goid, lock))
    };
    let wants: HashSet<(u64, u64)> = nodes.values().filter_map(want).collect();
    let known = holders::of(&wants, goroutines.iter(), stacks, unlocks, spans, released);
    let mut edges = Vec::new();
    for (from, lock) in wants {
        let Some(holders) = known.get(&lock) else { continue };
        let mut add = |to: u64, link: Link| edges.push(Edge { from, to, link, primitive: lock });
        match &holders.shown[..] {
            [holder] => add(*holder, Link::Holds),
            several => several.iter().chain(&holders.perhaps).for_each(|holder| add(*holder, Link::MayHold)),
        }
    }
    edges
}

/// Of those that wait for a wait group, who of its members has a deferred `Done` that has not run.
fn members(nodes: &HashMap<u64, Node>, goroutines: &[Goroutine], unlocks: &Unlocks<'_>) -> Vec<Edge> {
    let mut groups: HashMap<u64, Vec<u64>> = HashMap::new();
    for node in nodes.values().filter(|node| node.wait == Some(Wait::WaitGroup)) {
        let semaphore = node.primitives.first().map(|primitive| primitive.address);
        // The counter is the word before the semaphore, in all versions.
        if let Some(group) = semaphore.and_then(|at| at.checked_sub(8)) {
            groups.entry(group).or_default().push(node.goroutine.goid);
        }
    }
    let mut edges = Vec::new();
    if groups.is_empty() {
        return edges;
    }
    for g in goroutines.iter().take(MAX_MEMBERS) {
        for group in unlocks.dones(g) {
            let waiting = groups.get(&group).into_iter().flatten().filter(|from| **from != g.goid);
            edges.extend(waiting.map(|from| Edge { from: *from, to: g.goid, link: Link::Member, primitive: group }));
        }
    }
    edges
}

/// Whether it waits for what the package `sync` has, and so for what another goroutine does sooner or later.
fn waits_for_one_of_sync(node: &Node) -> bool {
    matches!(node.wait, Some(Wait::Mutex | Wait::Lock | Wait::RLock | Wait::WaitGroup | Wait::Cond))
}

/// Of those that send the only one that could receive, if that one cannot do so now. Who receives is another matter: whoever has
/// work for it may not be there yet.
fn served(nodes: &HashMap<u64, Node>, partners: &Partners) -> Vec<Edge> {
    let mut edges = Vec::new();
    for node in nodes.values() {
        let Some(wanted) = partners::wanted(node).filter(|_| node.wait == Some(Wait::Send)) else { continue };
        let Some([only]) = partners.get(&wanted).map(Vec::as_slice) else { continue };
        if nodes.get(only).is_some_and(waits_for_one_of_sync) {
            edges.push(Edge { from: node.goroutine.goid, to: *only, link: Link::MayServe, primitive: wanted.0 });
        }
    }
    edges
}

/// Whom those have made that wait for a wait group and of whom nothing better is known.
fn made(nodes: &HashMap<u64, Node>, known: &[Edge]) -> Vec<Edge> {
    let known: HashSet<u64> = known.iter().map(|edge| edge.from).collect();
    let mut edges = Vec::new();
    for node in nodes.values() {
        let Some(parent) = nodes.get(&node.goroutine.parent_goid) else { continue };
        let from = parent.goroutine.goid;
        if parent.wait == Some(Wait::WaitGroup) && !known.contains(&from) {
            let primitive = parent.primitives.first().map_or(0, |primitive| primitive.address);
            edges.push(Edge { from, to: node.goroutine.goid, link: Link::Made, primitive });
        }
    }
    edges
}
