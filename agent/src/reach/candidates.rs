//! The goroutines that may be leaked, and what each waits for: those parked on a channel, a select, a condition, a mutex,
//! a wait group or as an iterator of `iter.Pull`, and on nothing else.
//!
//! A goroutine that somebody is just waking is none of them: its sudog has left the queue of what it waits for. Whatever
//! cannot be told makes a goroutine no candidate.

use std::borrow::Cow;

use hashbrown::{HashMap, HashSet};

use super::heap::{Spans, each_struct};
use super::roots::Modules;
use crate::cause::wait::{Wait, channels_of, in_g, sudog};
use crate::golang::proof_layout::ReachLayout;
use crate::memory::census::{Goroutine, Status};
use crate::memory::{Fault, Memory, bytes_at, word_at};

/// `semTabSize` (`src/runtime/sema.go`).
const SEMTABLE: u64 = 251;
/// Words of a stack searched for the condition its goroutine waits on.
const COND_SEARCH: u64 = 4096;
/// Where `sync.notifyList` keeps the head of its list: after two counters and a lock.
const NOTIFY_HEAD: u64 = 16;
/// Where it keeps the tail.
const NOTIFY_TAIL: u64 = 24;
/// Where `sync.Cond` keeps its `notifyList`: after the `Locker`.
const COND_NOTIFY: u64 = 16;
/// Size of a `runtime.coro`, and of the objects that hold one.
const CORO: u64 = 32;
/// What of the outermost part of a stack is searched for its coroutine: `corostart`, which needs 72 bytes of it in optimized
/// programs, and what it calls.
const CORO_SEARCH: u64 = 256;
/// Largest object a sudog can be in.
const MAX_SUDOG: u64 = 256;

/// A goroutine that may be leaked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Index among the goroutines.
    pub goroutine: usize,
    /// What it does.
    pub wait: Wait,
    /// Its sudogs.
    pub sudogs: Vec<u64>,
    /// Addresses of what it waits for; in the case of channels one for each sudog.
    pub primitives: Vec<u64>,
    /// Those of them that are channels of timers, in a select that has other cases too. Go 1.23 and later: before, nothing about
    /// a channel tells for certain that it is one.
    pub timers: Vec<u64>,
}

/// All candidates.
#[derive(Clone, Debug, Default)]
pub struct Candidates {
    /// See [`Candidate`].
    pub list: Vec<Candidate>,
    /// Goroutines that wait like a candidate and are none: somebody is waking them, or what they wait for was not found.
    pub undecided: u64,
}

/// Finds candidates.
pub struct Finder<'a> {
    /// The target's memory while it stands still.
    pub memory: &'a dyn Memory,
    /// Its layout.
    pub layout: &'a ReachLayout,
    /// Its spans.
    pub spans: &'a Spans,
    /// Its modules.
    pub modules: &'a Modules,
    /// Its goroutines.
    pub goroutines: &'a [Goroutine],
    /// What each goroutine waits for, by the text of its wait reason and its stack; `None` for one that cannot be leaked.
    pub waits: &'a [Option<Wait>],
    /// Address of `runtime.semtable`.
    pub semtable: u64,
}

impl Finder<'_> {
    /// All candidates.
    pub fn find(&self) -> Candidates {
        let semaphores = self.semaphores();
        let conditions = if self.layout.sudog.in_g { HashMap::new() } else { self.conditions() };
        let mut queues = Queues { finder: self, seen: HashSet::new(), queued: HashSet::new(), budget: self.budget() };
        let mut found = Candidates::default();
        for (index, (goroutine, wait)) in self.goroutines.iter().zip(self.waits).enumerate() {
            let Some(wait) = *wait else { continue };
            let sudogs = match wait {
                _ if wait.is_forever() => Some(Vec::new()),
                Wait::Send | Wait::Receive | Wait::Select => channels_of(self.memory, self.layout, goroutine)
                    .filter(|sudogs| !sudogs.is_empty() && self.unwoken(goroutine))
                    .filter(|sudogs| sudogs.iter().all(|(sudog, channel)| queues.holds(*sudog, *channel))),
                Wait::Coroutine => self.coroutine(goroutine).map(|coroutine| vec![(0, coroutine)]),
                Wait::Cond if self.layout.sudog.in_g => in_g(self.memory, self.layout, goroutine),
                Wait::Cond => conditions.get(&goroutine.address).map(|found| vec![*found]),
                _ => semaphores.get(&goroutine.address).map(|found| vec![*found]),
            };
            match sudogs {
                Some(sudogs) => found.list.push(Candidate {
                    goroutine: index,
                    wait,
                    timers: if wait == Wait::Select { self.timers(&sudogs) } else { Vec::new() },
                    sudogs: sudogs.iter().map(|(sudog, _)| *sudog).filter(|sudog| *sudog != 0).collect(),
                    primitives: sudogs.iter().map(|(_, primitive)| *primitive).collect(),
                }),
                None => found.undecided += 1,
            }
        }
        found
    }

    fn budget(&self) -> usize {
        budget(self.goroutines.len())
    }

    fn sudog(&self, address: u64) -> Option<Cow<'_, [u8]>> {
        sudog(self.memory, self.layout, address)
    }

    fn unwoken(&self, goroutine: &Goroutine) -> bool {
        let param = goroutine.address.wrapping_add(u64::from(self.layout.g_param));
        self.memory.read_u64(param) == Ok(0)
    }

    /// Of the channels of a select those of timers, if there are others too.
    fn timers(&self, cases: &[(u64, u64)]) -> Vec<u64> {
        let Some(timer) = self.layout.hchan.timer else { return Vec::new() };
        let is_timer =
            |channel: &u64| self.memory.read_u64(channel.wrapping_add(u64::from(timer))).is_ok_and(|timer| timer != 0);
        let timers: Vec<u64> = cases.iter().map(|(_, channel)| *channel).filter(is_timer).collect();
        if timers.len() < cases.len() { timers } else { Vec::new() }
    }

    /// The `runtime.coro` that an iterator is suspended in: whoever switches to it needs its address, which `next` and `stop`
    /// have. Nothing leads there from the `g` of one that has begun, but `corostart` has it on its stack to leave it in the
    /// end; that of one that has not is in its `g`. It is the one whose `gp` says so: who is suspended is so in one coroutine,
    /// which is where that is noted last of all, and which is not freed meanwhile because its stack leads there.
    fn coroutine(&self, goroutine: &Goroutine) -> Option<u64> {
        let from = goroutine.stack_hi.checked_sub(CORO_SEARCH)?.max(goroutine.resume().1) & !7;
        let stack = bytes_at(self.memory, from, goroutine.stack_hi.checked_sub(from)? as usize)?;
        let g = bytes_at(self.memory, goroutine.address, self.layout.g.size as usize)?;
        let is_own = |address: u64| {
            let object = self.spans.find(address)?;
            let span = self.spans.spans.get(object.span as usize)?;
            let alone = span.elem == CORO && !span.noscan && span.object(object.index) == address;
            let noted = alone && self.memory.read_u64(address) == Ok(goroutine.address);
            (noted && self.memory.read_u64(address + 8).is_ok_and(|f| f != 0)).then_some(address)
        };
        let mut found: Vec<u64> =
            super::objects::words(&stack).chain(super::objects::words(&g)).filter_map(is_own).collect();
        found.sort_unstable();
        found.dedup();
        match found[..] {
            [one] => Some(one),
            _ => None,
        }
    }

    /// The sudogs in `semtable` and the addresses they wait at, by their `g`.
    fn semaphores(&self) -> HashMap<u64, (u64, u64)> {
        let layout = &self.layout.sudog;
        let mut found = HashMap::new();
        let mut seen = HashSet::new();
        let mut todo = Vec::new();
        for index in 0..SEMTABLE {
            let root = self.semtable.wrapping_add(index * u64::from(self.layout.semtable_entry));
            if let Ok(treap) = self.memory.read_u64(root.wrapping_add(u64::from(self.layout.treap))) {
                todo.push(treap);
            }
        }
        while let Some(address) = todo.pop() {
            if address == 0 || seen.len() > self.budget() || !seen.insert(address) {
                continue;
            }
            let Some(sudog) = self.sudog(address) else { continue };
            let word = |offset: u32| word_at(&sudog, offset as usize).unwrap_or(0);
            if word(layout.g) != 0 && word(layout.elem) != 0 {
                found.insert(word(layout.g), (address, word(layout.elem)));
            }
            todo.extend([word(layout.prev), word(layout.next), word(layout.waitlink)]);
        }
        found
    }

    /// The sudogs of goroutines that wait for a condition, and the address of its `notifyList`, by their `g`. Before Go
    /// 1.26 nothing leads from a `g` there: the condition is found on the waiter's stack.
    fn conditions(&self) -> HashMap<u64, (u64, u64)> {
        let mut found: HashMap<u64, (u64, u64)> = HashMap::new();
        let mut tried = HashSet::new();
        let waiters: HashSet<u64> = self
            .goroutines
            .iter()
            .zip(self.waits)
            .filter(|(_, wait)| **wait == Some(Wait::Cond))
            .map(|(goroutine, _)| goroutine.address)
            .collect();
        let mut budget = self.budget();
        for goroutine in self.goroutines.iter().filter(|goroutine| waiters.contains(&goroutine.address)) {
            let (_, sp) = goroutine.resume();
            let len = goroutine.stack_hi.saturating_sub(sp).min(COND_SEARCH);
            let Some(stack) = bytes_at(self.memory, sp, len as usize) else { continue };
            for word in super::objects::words(&stack) {
                if found.contains_key(&goroutine.address) {
                    break;
                }
                for list in [word, word.wrapping_add(COND_NOTIFY)] {
                    let plausible = list > 4096 && list % 8 == 0 && list < 1 << 56;
                    if plausible && tried.insert(list) {
                        self.condition(list, &waiters, &mut found, &mut budget);
                    }
                }
            }
        }
        found
    }

    /// Takes `list` for a `notifyList` and adds who waits on it, if it is one: it lies where conditions do, and its tail is the last
    /// of those that its head leads to.
    fn condition(&self, list: u64, waiters: &HashSet<u64>, found: &mut HashMap<u64, (u64, u64)>, budget: &mut usize) {
        if !self.may_hold_condition(list) {
            return;
        }
        let word = |offset: u64| self.memory.read_u64(list + offset).unwrap_or(0);
        let (mut next, mut last) = (word(NOTIFY_HEAD), 0);
        let mut waiting = Vec::new();
        while next != 0 && *budget > 0 {
            *budget -= 1;
            let Some(sudog) = self.sudog(next).filter(|_| self.is_sudog(next)) else { return };
            let word = |offset: u32| word_at(&sudog, offset as usize).unwrap_or(0);
            waiting.push((word(self.layout.sudog.g), next));
            (last, next) = (next, word(self.layout.sudog.next));
        }
        if next == 0 && last == word(NOTIFY_TAIL) {
            let waiting = waiting.into_iter().filter(|(g, _)| waiters.contains(g));
            waiting.for_each(|(g, sudog)| _ = found.entry(g).or_insert((sudog, list)));
        }
    }

    /// Whether a `sync.Cond` can be at this address: it is never on a stack, because its address goes to the runtime. There are
    /// words on the waiters' stacks that look like a list that begins in its middle.
    fn may_hold_condition(&self, address: u64) -> bool {
        let of_variables = |(from, len): (u64, u64)| address.checked_sub(from).is_some_and(|offset| offset < len);
        self.spans.find(address).is_some() || self.modules.variables().any(of_variables)
    }

    fn is_sudog(&self, address: u64) -> bool {
        self.spans.find(address).is_some_and(|object| {
            let span = self.spans.spans[object.span as usize];
            let sizes = u64::from(self.layout.sudog.size)..=MAX_SUDOG;
            span.object(object.index) == address && sizes.contains(&span.elem)
        })
    }
}

/// Which sudogs are in the queue of their channel.
struct Queues<'f, 'a> {
    finder: &'f Finder<'a>,
    seen: HashSet<u64>,
    queued: HashSet<(u64, u64)>,
    budget: usize,
}

impl Queues<'_, '_> {
    fn holds(&mut self, sudog: u64, channel: u64) -> bool {
        if self.seen.insert(channel) {
            let layout = &self.finder.layout.hchan;
            for first in [layout.recvq_first, layout.sendq_first] {
                let first = channel.wrapping_add(u64::from(first));
                let mut next = self.finder.memory.read_u64(first).unwrap_or(0);
                while next != 0 && self.budget > 0 && self.queued.insert((channel, next)) {
                    self.budget -= 1;
                    let Some(bytes) = self.finder.sudog(next) else { break };
                    next = word_at(&bytes, self.finder.layout.sudog.next as usize).unwrap_or(0);
                }
            }
        }
        self.queued.contains(&(channel, sudog))
    }
}

/// The channels that goroutines wait on: what [`Finder::find`] reads besides the heap. Lists that cannot be read, or that
/// go in circles, are given up: then what waits there is no candidate.
pub fn channels(
    memory: &dyn Memory,
    layout: &ReachLayout,
    goroutines: &[Goroutine],
    waits: &[Option<Wait>],
) -> Result<Vec<u64>, Fault> {
    let waiting = goroutines.iter().zip(waits).filter(|(_, wait)| wait.is_some_and(Wait::is_channel));
    let heads: Vec<u64> = waiting.map(|(g, _)| g.address.wrapping_add(u64::from(layout.g.waiting))).collect();
    let mut level = Vec::new();
    each_struct(memory, &heads, 8, |_, bytes| level.extend(bytes.and_then(|bytes| word_at(bytes, 0))))?;
    let mut channels = Vec::new();
    let mut budget = budget(goroutines.len());
    loop {
        level.retain(|sudog| *sudog != 0 && sudog.is_multiple_of(8));
        let Some(left) = budget.checked_sub(level.len()).filter(|_| !level.is_empty()) else { break };
        budget = left;
        let mut next = Vec::new();
        each_struct(memory, &level, layout.sudog.size, |_, bytes| {
            let word = |offset: u32| bytes.and_then(|bytes| word_at(bytes, offset as usize));
            channels.extend(word(layout.sudog.c));
            next.extend(word(layout.sudog.waitlink));
        })?;
        level = next;
    }
    channels.sort_unstable();
    channels.dedup();
    channels.retain(|channel| *channel != 0);
    Ok(channels)
}

/// Sudogs looked at in one pass: a select has up to 65536, and the lists of a damaged target may go in circles.
fn budget(goroutines: usize) -> usize {
    goroutines.saturating_mul(64).saturating_add(1 << 17)
}

/// Whether a goroutine's status lets it be a candidate at all.
pub fn is_parked(goroutine: &Goroutine) -> bool {
    matches!(goroutine.status, Status::Waiting | Status::Leaked)
}
