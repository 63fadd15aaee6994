//! From a graph of goroutines to incidents.

use std::collections::BTreeMap;
use std::sync::Arc;

use hashbrown::{HashMap, HashSet};

use super::{Incident, SCHEMA, Standing, WhyReport};
use crate::cause::wait::Wait;
use crate::cause::{Case, Cause};
use crate::prove::Program;
use crate::reach::graph::{Edge, Graph, Link, Node};
use crate::symbolize::Symbolizer;
use crate::words::{Named, Place, goroutines, seconds};

/// Ids told of each group.
const MAX_GOIDS: usize = 1000;
/// Edges told of each incident.
const MAX_WAITS: usize = 10_000;
/// Steps of a way that may be a circle.
const MAX_WAY: usize = 1000;
/// Groups told that belong to no incident.
const MAX_OTHERS: usize = 100;

/// The report of a graph.
pub(super) fn report(graph: &Graph, program: &Program, now_ns: u64, stood_ns: u64) -> WhyReport {
    let mut describe = Describe {
        symbolizer: Symbolizer::new(Arc::clone(&program.pclntab), program.slide),
        reasons: &program.wait_reasons,
        module: program.info.module.as_deref(),
        now_ns,
        stood_ns,
    };
    let next = next(graph);
    let components = components(graph, &next);
    let mut incidents: Vec<Incident> =
        components.iter().map(|members| incident(graph, &next, members, &mut describe)).collect();
    // Who waits for a group of goroutines that have work to do is none of the worst.
    let rests = |incident: &Incident| {
        let at_rest = ["chan receive", "select", "IO wait", "sleep"];
        !incident.cycle
            && incident.groups.first().is_some_and(|root| at_rest.contains(&root.wait_reason.as_str()))
            && incident.waits.iter().all(|waits| matches!(waits.link, Link::Member | Link::Made))
    };
    incidents.sort_by(|a, b| {
        rests(a).cmp(&rests(b)).then(b.goroutines.cmp(&a.goroutines)).then_with(|| a.headline.cmp(&b.headline))
    });
    let told: HashSet<u64> = components.into_iter().flatten().collect();
    let rest: Vec<(u64, u32)> =
        graph.nodes.keys().filter(|goid| !told.contains(*goid)).map(|goid| (*goid, 0)).collect();
    let mut others = describe.groups(graph, &rest);
    others.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.goids.cmp(&b.goids)));
    others.truncate(MAX_OTHERS);
    WhyReport {
        schema: SCHEMA,
        target: program.info.clone(),
        goroutines: graph.goroutines,
        standing: graph.nodes.len() as u64,
        stood_seconds: seconds(stood_ns),
        incidents,
        others,
    }
}

/// Of each goroutine for whom it waits, by what is most certain: one who may hold a lock counts only if there is no other.
fn next(graph: &Graph) -> HashMap<u64, Vec<&Edge>> {
    let mut next: HashMap<u64, Vec<&Edge>> = HashMap::new();
    for edge in &graph.edges {
        next.entry(edge.from).or_default().push(edge);
    }
    for edges in next.values_mut() {
        let best = edges.iter().map(|edge| edge.link).min();
        edges.retain(|edge| Some(edge.link) == best);
        if best == Some(Link::MayHold) && edges.len() > 1 {
            edges.clear();
        }
    }
    next.retain(|_, edges| !edges.is_empty());
    next
}

/// Goroutines that hang together, in groups: by who waits for whom, and by what several want that only one can have.
fn components(graph: &Graph, next: &HashMap<u64, Vec<&Edge>>) -> Vec<Vec<u64>> {
    let mut parent: HashMap<u64, u64> = HashMap::new();
    fn find(parent: &mut HashMap<u64, u64>, mut of: u64) -> u64 {
        while let Some(up) = parent.get(&of).copied().filter(|up| *up != of) {
            let above = parent.get(&up).copied().unwrap_or(up);
            parent.insert(of, above);
            of = up;
        }
        of
    }
    let mut join = |a: u64, b: u64| {
        let (a, b) = (find(&mut parent, a), find(&mut parent, b));
        parent.insert(a.max(b), a.min(b));
        parent.entry(a.min(b)).or_insert(a.min(b));
    };
    next.values().flatten().for_each(|edge| join(edge.from, edge.to));
    let mut by_primitive: HashMap<u64, u64> = HashMap::new();
    for (goid, node) in &graph.nodes {
        let rivals = matches!(node.wait, Some(Wait::Mutex | Wait::Lock | Wait::RLock | Wait::Send));
        let Some(primitive) = node.primitives.first().filter(|_| rivals) else { continue };
        // The semaphores of writers and readers are in the same lock.
        let lock = crate::reach::graph::lock_of(node).unwrap_or(primitive.address);
        // Alone, who wants a lock is an incident, and who sends is not.
        if node.wait != Some(Wait::Send) {
            join(*goid, *goid);
        }
        if let Some(other) = by_primitive.insert(lock, *goid) {
            join(other, *goid);
        }
    }
    let mut components: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    let members: Vec<u64> = parent.keys().copied().collect();
    for goid in members {
        components.entry(find(&mut parent, goid)).or_default().push(goid);
    }
    let mut components: Vec<Vec<u64>> = components.into_values().collect();
    components.iter_mut().for_each(|members| members.sort_unstable());
    components
}

fn incident(graph: &Graph, next: &HashMap<u64, Vec<&Edge>>, members: &[u64], describe: &mut Describe<'_>) -> Incident {
    let cycle = cycle(next, members);
    let roots: Vec<u64> = match &cycle {
        Some(cycle) => cycle.clone(),
        None => members.iter().copied().filter(|goid| !next.contains_key(goid)).collect(),
    };
    let distances = distances(next, members, &roots);
    let groups = describe.groups(graph, &distances);
    let waits = members.iter().filter_map(|goid| next.get(goid)).flatten().take(MAX_WAITS).map(|edge| **edge).collect();
    Incident {
        goroutines: members.len() as u64,
        headline: headline(graph, next, members, &roots, cycle.is_some(), &groups),
        cycle: cycle.is_some(),
        groups,
        waits,
    }
}

/// Goroutines that wait for one another in a circle, if there is one. Whoever waits for whom it has made may not wait for all of them.
fn cycle(next: &HashMap<u64, Vec<&Edge>>, members: &[u64]) -> Option<Vec<u64>> {
    let mut done: HashSet<u64> = HashSet::new();
    for start in members {
        // The way here: of each goroutine the edges that are still to be followed.
        let mut way: Vec<(u64, &[&Edge])> = Vec::new();
        let mut enter = Some(*start);
        loop {
            if let Some(at) = enter.take() {
                if let Some(begin) = way.iter().position(|(goid, _)| *goid == at) {
                    return Some(way[begin..].iter().map(|(goid, _)| *goid).collect());
                }
                if way.len() < MAX_WAY && done.insert(at) {
                    way.push((at, next.get(&at).map_or(&[], Vec::as_slice)));
                }
            }
            let Some((_, edges)) = way.last_mut() else { break };
            match edges.split_first() {
                Some((edge, rest)) => {
                    *edges = rest;
                    enter = (edge.link != Link::Made).then_some(edge.to);
                }
                None => drop(way.pop()),
            }
        }
    }
    None
}

/// How far each member is from a root; those that lead to none come last.
fn distances(next: &HashMap<u64, Vec<&Edge>>, members: &[u64], roots: &[u64]) -> Vec<(u64, u32)> {
    let mut waiting: HashMap<u64, Vec<u64>> = HashMap::new();
    for edge in members.iter().filter_map(|goid| next.get(goid)).flatten() {
        waiting.entry(edge.to).or_default().push(edge.from);
    }
    let mut distances: HashMap<u64, u32> = roots.iter().map(|goid| (*goid, 0)).collect();
    let mut level: Vec<u64> = roots.to_vec();
    let mut far = 0;
    while !level.is_empty() {
        far += 1;
        let behind: Vec<u64> = level.iter().filter_map(|goid| waiting.get(goid)).flatten().copied().collect();
        level = Vec::new();
        for goid in behind {
            if !distances.contains_key(&goid) {
                distances.insert(goid, far);
                level.push(goid);
            }
        }
    }
    members.iter().map(|goid| (*goid, distances.get(goid).copied().unwrap_or(far))).collect()
}

/// What is wrong, in one sentence.
fn headline(
    graph: &Graph,
    next: &HashMap<u64, Vec<&Edge>>,
    members: &[u64],
    roots: &[u64],
    cycle: bool,
    groups: &[Standing],
) -> String {
    let all = members.len() as u64;
    let place = |group: &Standing| group.blocked_at.as_ref().map_or_else(String::new, |place| format!(" at {place}"));
    if cycle {
        let around = roots.iter().zip(roots.iter().cycle().skip(1));
        let links: Vec<Link> = around
            .filter_map(|(from, to)| next.get(from)?.iter().find(|edge| edge.to == *to))
            .map(|edge| edge.link)
            .collect();
        let shown = links.iter().all(|link| link.is_shown());
        let locks = links.iter().all(|link| matches!(link, Link::Holds | Link::MayHold));
        let what = if locks { "one another's locks" } else { "one another" };
        let ids: Vec<String> = roots.iter().map(u64::to_string).collect();
        let rest = all - roots.len() as u64;
        let behind = if rest > 0 { format!("; {} more behind them", goroutines(rest)) } else { String::new() };
        return match (&ids[..], shown) {
            ([own], true) => format!("goroutine {own} wants a lock that it holds itself{behind}"),
            ([own], false) => format!("goroutine {own} wants a lock that it may hold itself{behind}"),
            (_, true) => format!("goroutines {} wait for {what} in a circle{behind}", ids.join(", ")),
            (_, false) => format!("goroutines {} may wait for {what} in a circle{behind}", ids.join(", ")),
        };
    }
    let Some(first) = groups.first() else { return String::new() };
    // Whom the others wait for, and who only waits for the same as they.
    let waited_for: HashSet<u64> = next.values().flatten().map(|edge| edge.to).collect();
    let targets: Vec<u64> = roots.iter().copied().filter(|goid| waited_for.contains(goid)).collect();
    let does =
        || first.cause.as_ref().map_or_else(|| format!("[{}]", first.wait_reason), |cause| cause.sentence.clone());
    match &targets[..] {
        [] => {
            let lock = members.iter().filter_map(|goid| graph.nodes.get(goid)).find_map(crate::reach::graph::lock_of);
            match lock {
                Some(lock) => format!(
                    "{} want{} the lock at {lock:#x}{}, and no goroutine that stands is seen to hold it",
                    goroutines(all),
                    if all == 1 { "s" } else { "" },
                    place(first)
                ),
                None => format!(
                    "{} stand{} at the same channel{}",
                    goroutines(all),
                    if all == 1 { "s" } else { "" },
                    place(first)
                ),
            }
        }
        [root] => {
            let shown = next.values().flatten().any(|edge| edge.to == *root && edge.link.is_shown());
            format!(
                "{} wait{}, directly or not, for goroutine {root}, which {}{}{}",
                goroutines(all - 1),
                if all == 2 { "s" } else { "" },
                does(),
                place(first),
                if shown { "" } else { " (as far as its stack tells)" },
            )
        }
        several => format!(
            "{} wait{}, directly or not, for {} goroutines, {} which stand [{}]{}",
            goroutines(all - several.len() as u64),
            if all - several.len() as u64 == 1 { "s" } else { "" },
            several.len(),
            if first.count == several.len() as u64 { "all of" } else { "the most of" },
            first.wait_reason,
            place(first)
        ),
    }
}

/// What goroutines of one group have in common: distance, `go` statement, start, wait reason, stack.
type Alike<'g> = (u32, u64, u64, u8, &'g [u64]);

/// Makes words of nodes.
struct Describe<'a> {
    symbolizer: Symbolizer,
    reasons: &'a [String],
    module: Option<&'a str>,
    now_ns: u64,
    stood_ns: u64,
}

impl Describe<'_> {
    /// Goroutines by where they stand, nearest to the root first, then the largest group.
    fn groups(&mut self, graph: &Graph, members: &[(u64, u32)]) -> Vec<Standing> {
        let mut groups: BTreeMap<Alike<'_>, Vec<&Node>> = BTreeMap::new();
        for (goid, distance) in members {
            let Some(node) = graph.nodes.get(goid) else { continue };
            let g = &node.goroutine;
            let key = (*distance, g.creation_pc, g.start_pc, g.wait_reason, &node.stack[..]);
            groups.entry(key).or_default().push(node);
        }
        let mut groups: Vec<Standing> =
            groups.into_iter().map(|((distance, ..), nodes)| self.standing(distance, &nodes)).collect();
        groups.sort_by(|a, b| {
            a.distance.cmp(&b.distance).then_with(|| b.count.cmp(&a.count)).then_with(|| a.goids.cmp(&b.goids))
        });
        groups
    }

    fn standing(&mut self, distance: u32, nodes: &[&Node]) -> Standing {
        let first = nodes[0];
        let Named { stack, created_by, start_function } =
            Named::of(&mut self.symbolizer, &first.goroutine, &first.stack);
        let wait_reason = first.doing().reason(self.reasons, &stack);
        let cause = Cause::of(&Case {
            wait_reason: &wait_reason,
            primitives: &first.primitives,
            stack: &stack,
            creator: created_by.as_ref().map(|place| place.function.as_str()),
            handler: None,
            loops: false,
            proven: false,
        });
        let noted = nodes.iter().filter_map(|node| node.goroutine.wait_since_ns).min();
        let noted = noted.map_or(0, |since| self.now_ns.saturating_sub(since));
        let mut goids: Vec<u64> = nodes.iter().map(|node| node.goroutine.goid).collect();
        goids.sort_unstable();
        goids.truncate(MAX_GOIDS);
        Standing {
            count: nodes.len() as u64,
            goids,
            distance,
            wait_reason,
            created_by,
            start_function,
            blocked_at: Place::of_blocking(&stack),
            in_program: Place::of_program(&stack, self.module),
            seconds: seconds(noted.max(self.stood_ns)),
            waits_for: first.primitives.clone(),
            could: first.could.clone(),
            serves: Vec::new(),
            cause,
            stack,
        }
    }
}
