//! Who waits for what a proven goroutine has. It is not proven itself: what it waits for can be reached, and anybody may unlock a
//! lock. But whoever should can never run again.

use std::collections::VecDeque;

use hashbrown::{HashMap, HashSet};

use crate::memory::census::CensusReader;
use crate::memory::{Fault, Memory};
use crate::reach::graph::{self, Edge, Link, Suspects};
use crate::reach::{Leaked, Proof, ReachError, Subject};

/// Goroutines on the way to a proven one that are told.
const MAX_WAY: usize = 4;

/// See the module.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Behind {
    /// Those who wait, not the proven ones.
    pub(super) waiting: Vec<Leaked>,
    /// Of each of them, by its id, whom it waits for.
    towards: HashMap<u64, Edge>,
}

impl Behind {
    /// Who waits for the goroutines of a proof, on the memory that it was made on.
    pub(super) fn of(subject: &Subject<'_>, proof: &Proof) -> Result<Self, ReachError> {
        if proof.leaked.is_empty() {
            return Ok(Self::default());
        }
        let memory = Completed { copied: subject.memory, live: subject.constant };
        let subject = Subject { memory: &memory, ..*subject };
        let census = CensusReader::new(subject.layout.g, subject.variables.allgs).read(&memory, || 0)?;
        let graph = graph::of(&subject, &census, Suspects::Waiting)?;
        let proven = proof.leaked.iter().map(|leaked| leaked.goroutine.goid).collect();
        let towards = towards(&graph.edges, &proven);
        let mut waiting: Vec<Leaked> = graph
            .nodes
            .into_iter()
            .filter(|(goid, _)| towards.contains_key(goid))
            .filter_map(|(_, node)| {
                let (goroutine, primitives, stack) = (node.goroutine, node.primitives, node.stack);
                Some(Leaked { goroutine, wait: node.wait?, primitives, stack })
            })
            .collect();
        waiting.sort_by_key(|leaked| leaked.goroutine.goid);
        Ok(Self { waiting, towards })
    }

    /// On whom a goroutine waits, and that one, to the proven one.
    pub(super) fn sentence(&self, goid: u64) -> String {
        let mut sentence = String::from("waits for");
        let mut at = goid;
        for step in 0..MAX_WAY {
            let Some(edge) = self.towards.get(&at) else { break };
            let has = match edge.link {
                Link::Member => "whose deferred Done has not run",
                _ => "whose deferred unlock has not run",
            };
            let which = if step == 0 { "" } else { ", which waits for" };
            sentence.push_str(&format!("{which} goroutine {}, {has}", edge.to));
            at = edge.to;
        }
        sentence
            + if self.towards.contains_key(&at) {
                ", and which waits for others"
            } else {
                ", and which can never run again"
            }
    }
}

/// What was copied, and where a proof needs none of it, as of locks among variables without pointers, what is there now: those locks
/// are held by who can never run again.
struct Completed<'a> {
    copied: &'a dyn Memory,
    live: &'a dyn Memory,
}

impl Memory for Completed<'_> {
    fn read(&self, address: u64, buf: &mut [u8]) -> Result<(), Fault> {
        self.copied.read(address, buf).or_else(|_| self.live.read(address, buf))
    }
}

/// From whoever waits for a proven goroutine, be it over others, the step that leads there soonest.
fn towards(edges: &[Edge], proven: &HashSet<u64>) -> HashMap<u64, Edge> {
    let mut waiting: HashMap<u64, Vec<&Edge>> = HashMap::new();
    for edge in edges.iter().filter(|edge| edge.link.is_shown()) {
        waiting.entry(edge.to).or_default().push(edge);
    }
    let mut towards: HashMap<u64, Edge> = HashMap::new();
    let mut first: Vec<u64> = proven.iter().copied().collect();
    first.sort_unstable();
    let mut next = VecDeque::from(first);
    while let Some(goid) = next.pop_front() {
        for edge in waiting.get(&goid).into_iter().flatten() {
            if !proven.contains(&edge.from) && !towards.contains_key(&edge.from) {
                towards.insert(edge.from, **edge);
                next.push_back(edge.from);
            }
        }
    }
    towards
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_is_led_to_the_proven_one_over_what_is_shown_alone() {
        let edge = |from, to, link| Edge { from, to, link, primitive: 8 };
        let edges = [
            edge(2, 1, Link::Holds),
            edge(3, 2, Link::Member),
            edge(4, 1, Link::MayHold),
            edge(5, 6, Link::Holds),
            edge(7, 1, Link::Holds),
        ];
        let behind = Behind { waiting: Vec::new(), towards: towards(&edges, &[1, 7].into()) };
        let mut goids: Vec<u64> = behind.towards.keys().copied().collect();
        goids.sort_unstable();
        assert_eq!(goids, [2, 3]);
        assert_eq!(
            behind.sentence(3),
            "waits for goroutine 2, whose deferred Done has not run, which waits for goroutine 1, whose deferred unlock has not run, \
             and which can never run again"
        );
    }
}
