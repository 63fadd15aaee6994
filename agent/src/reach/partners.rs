//! Who could bring it about that a send or a receive happens: goroutines whose stacks lead to the channel, in functions that do the
//! other half.
//!
//! A stack leads to a channel that it refers to itself, and to one that a heap object has to which it refers: one step, so that a look
//! costs the stacks and what is next to them. By the functions' code it is told whether they receive, send or close at all; which
//! channel they do it with, it is not. So whoever is found here *could*, and who is not may all the same.

use hashbrown::{HashMap, HashSet};

use super::graph::Node;
use super::heap::Spans;
use super::objects::words;
use super::stack::{Stacks, Start};
use super::unlocks::{Half, Unlocks};
use crate::cause::primitive::PrimitiveState;
use crate::cause::wait::Wait;
use crate::memory::census::Goroutine;
use crate::memory::{Memory, bytes_at};

/// Stacks looked through at most.
const MAX_STACKS: usize = 20_000;
/// Goroutines named for one channel.
const MAX_NAMED: usize = 16;
/// Largest object that is looked into, and how many at most.
const MAX_OBJECT: u64 = 4096;
const MAX_OBJECTS: usize = 10_000;

/// Of each channel that goroutines stand at, by its address and what would have to happen there, who could do it.
pub(super) type Partners = HashMap<(u64, Half), Vec<u64>>;

/// The channel a goroutine stands at, and the other half of what it does there.
pub(super) fn wanted(node: &Node) -> Option<(u64, Half)> {
    let half = match node.wait? {
        Wait::Send => Half::Receive,
        Wait::Receive => Half::Send,
        _ => return None,
    };
    let channel = node.primitives.first()?;
    // A timer's channel gets on by itself.
    matches!(channel.state, PrimitiveState::Channel { timer: false, .. }).then_some((channel.address, half))
}

/// Who of `suspects`, which do not run, could get on those of `nodes` that stand at a channel.
pub(super) fn of<'g>(
    nodes: &HashMap<u64, Node>,
    suspects: impl Iterator<Item = &'g Goroutine>,
    memory: &dyn Memory,
    stacks: &Stacks<'_>,
    unlocks: &Unlocks<'_>,
    spans: &Spans,
) -> Partners {
    let mut partners: Partners = nodes.values().filter_map(|node| Some((wanted(node)?, Vec::new()))).collect();
    let channels: HashSet<u64> = partners.keys().map(|(channel, _)| *channel).collect();
    if channels.is_empty() {
        return partners;
    }
    let mut objects = Next { memory, spans, channels: &channels, known: HashMap::new() };
    for goroutine in suspects.take(MAX_STACKS) {
        let mut found: HashSet<u64> = HashSet::new();
        stacks.scan(goroutine, Start::Walk, &[], &mut |pointer| {
            found.extend(channels.get(&pointer));
            found.extend(objects.of(pointer));
        });
        if found.is_empty() {
            continue;
        }
        let node = nodes.get(&goroutine.goid);
        let own = node.and_then(wanted);
        for half in [Half::Send, Half::Receive] {
            // At the place where it stands it does that with another channel.
            let does = node.and_then(|node| Half::of(node.wait?));
            if !unlocks.does(goroutine, half, does == Some(half)) {
                continue;
            }
            for channel in &found {
                let Some(named) = partners.get_mut(&(*channel, half)).filter(|named| named.len() < MAX_NAMED) else {
                    continue;
                };
                if own.is_none_or(|(own, _)| own != *channel) {
                    named.push(goroutine.goid);
                }
            }
        }
    }
    partners
}

/// Finds the channels that heap objects refer to.
struct Next<'m> {
    memory: &'m dyn Memory,
    spans: &'m Spans,
    channels: &'m HashSet<u64>,
    known: HashMap<(u32, u64), Vec<u64>>,
}

impl Next<'_> {
    /// Those in the object that `pointer` leads to.
    fn of(&mut self, pointer: u64) -> Vec<u64> {
        let Some(object) = self.spans.find(pointer) else { return Vec::new() };
        let key = (object.span, object.index);
        if let Some(known) = self.known.get(&key) {
            return known.clone();
        }
        let Some(span) = self.spans.spans.get(object.span as usize).filter(|span| span.elem <= MAX_OBJECT) else {
            return Vec::new();
        };
        if span.noscan || self.known.len() == MAX_OBJECTS {
            return Vec::new();
        }
        let bytes = bytes_at(self.memory, span.base + object.index * span.elem, span.elem as usize);
        let found: Vec<u64> =
            bytes.iter().flat_map(|bytes| words(bytes)).filter(|word| self.channels.contains(word)).collect();
        self.known.insert(key, found.clone());
        found
    }
}
