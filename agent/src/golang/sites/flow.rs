//! The control flow of one function, and the questions a probe site has to answer. Knows no instruction set.

use std::collections::{BTreeMap, BTreeSet};

use super::{Opaque, SiteClass};

/// How many instructions are tried as sites of one function. Real functions have a handful before the first call.
const MAX_CANDIDATES: usize = 256;

/// How long a block that grows the stack can be: it saves and restores at most all argument registers.
const MAX_GROWTH: usize = 64;

/// How many such blocks a function can have. Real ones have one; with more than this none is believed.
const MAX_GROWTHS: usize = 4;

/// A set of general registers, by number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Registers(u32);

impl Registers {
    /// The set of these registers.
    pub(super) const fn of(numbers: &[u32]) -> Self {
        let mut bits = 0;
        let mut i = 0;
        while i < numbers.len() {
            bits |= 1 << numbers[i];
            i += 1;
        }
        Self(bits)
    }

    pub(super) fn insert(&mut self, number: u32) {
        self.0 |= 1 << number;
    }

    const fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

/// Where control goes after an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flow {
    /// To the next instruction.
    Next,
    /// To a function, if it is known which, and back to the next instruction.
    Call(Option<u64>),
    /// To an address.
    Jump(u64),
    /// To an address or to the next instruction.
    Branch(u64),
    /// Back to the caller.
    Return,
    /// Nowhere: the instruction traps.
    Trap,
    /// To a place that the instruction does not name.
    Unknown,
}

/// One decoded instruction.
#[derive(Clone, Debug)]
pub(super) struct Instruction {
    pub(super) length: u8,
    pub(super) flow: Flow,
    /// Registers it writes, wholly or in part, always or sometimes.
    pub(super) writes: Registers,
    /// Price of a probe here; `None` where the kernel or caution forbids one.
    pub(super) class: Option<SiteClass>,
    /// Disassembled.
    pub(super) text: String,
}

/// The reachable instructions of a function by address.
#[derive(Debug)]
pub(super) struct Code {
    entry: u64,
    end: u64,
    instructions: BTreeMap<u64, Instruction>,
    /// Start and last instruction of the blocks that call `morestack` and start the function over.
    growth: Vec<(u64, u64)>,
}

/// Address, class and disassembly of a site.
pub(super) type Choice = (u64, SiteClass, String);

impl Code {
    /// Follows the control flow from `entry`. `decode` is asked once per address within `entry..end`.
    pub(super) fn follow(
        entry: u64,
        end: u64,
        mut decode: impl FnMut(u64) -> Option<Instruction>,
    ) -> Result<Self, Opaque> {
        let mut code = Self { entry, end, instructions: BTreeMap::new(), growth: Vec::new() };
        let mut todo = vec![entry];
        while let Some(address) = todo.pop() {
            if code.instructions.contains_key(&address) {
                continue;
            }
            let instruction = decode(address).ok_or(Opaque::Undecodable(address))?;
            if instruction.flow == Flow::Unknown {
                return Err(Opaque::IndirectJump(address));
            }
            code.instructions.insert(address, instruction);
            todo.extend(code.successors(address).filter(|&next| code.contains(next)));
        }
        let mut behind = entry;
        for (&address, instruction) in &code.instructions {
            if address < behind {
                return Err(Opaque::Overlap(address));
            }
            behind = address.saturating_add(instruction.length.into());
        }
        Ok(code)
    }

    fn contains(&self, address: u64) -> bool {
        (self.entry..self.end).contains(&address)
    }

    /// Where control can go from `address`, leaving the function included.
    fn successors(&self, address: u64) -> impl Iterator<Item = u64> + use<> {
        let Some(instruction) = self.instructions.get(&address) else { return [None, None].into_iter().flatten() };
        let next = address.wrapping_add(instruction.length.into());
        // The assembler puts the growth block behind the function's last instruction. Only the check at the entry
        // branches there; what seems to fall into it is a call that does not return (`throw`).
        let falls = Some(next).filter(|next| !self.growth.iter().any(|(start, _)| start == next));
        match instruction.flow {
            Flow::Next | Flow::Call(_) => [falls, None],
            Flow::Jump(target) => [Some(target), None],
            Flow::Branch(target) => [falls, Some(target)],
            Flow::Return | Flow::Trap | Flow::Unknown => [None, None],
        }
        .into_iter()
        .flatten()
    }

    /// Marks the blocks that grow the stack: branched to, straight on to a call of one of `morestack`, straight on to a
    /// jump to the entry.
    pub(super) fn find_stack_growth(&mut self, morestack: &[u64]) {
        let starts = self.instructions.values().filter_map(|instruction| match instruction.flow {
            Flow::Branch(target) if target != self.entry => Some(target),
            _ => None,
        });
        let starts: BTreeSet<u64> = starts.collect();
        let growth: Vec<(u64, u64)> =
            starts.into_iter().filter_map(|start| Some((start, self.growth_end(start, morestack)?))).collect();
        if growth.len() <= MAX_GROWTHS {
            self.growth = growth;
        }
    }

    fn growth_end(&self, start: u64, morestack: &[u64]) -> Option<u64> {
        let mut grown = false;
        let mut address = start;
        for _ in 0..MAX_GROWTH {
            let instruction = self.instructions.get(&address)?;
            match instruction.flow {
                Flow::Next => {}
                Flow::Call(Some(target)) if !grown && morestack.contains(&target) => grown = true,
                Flow::Jump(target) if grown && target == self.entry => return Some(address),
                _ => return None,
            }
            address = address.checked_add(instruction.length.into())?;
        }
        None
    }

    /// Addresses of the calls of `target`.
    pub(super) fn calls_to(&self, target: u64) -> Vec<u64> {
        let calls = self
            .instructions
            .iter()
            .filter(|(_, i)| matches!(i.flow, Flow::Call(Some(t)) | Flow::Jump(t) if t == target));
        calls.map(|(&address, _)| address).collect()
    }

    /// The cheapest instruction where `needed` still hold what they held at the entry.
    pub(super) fn entry_site(&self, needed: Registers) -> Option<Choice> {
        let clean = self.clean_region(needed);
        cheapest(
            clean
                .into_iter()
                .filter(|&site| self.passed_once(site) && self.arrives_clean(site, needed))
                .filter_map(|address| self.choice(address)),
        )
    }

    /// The cheapest instruction among the call at `call` and those right before it, where `needed` already hold what
    /// they hold at the call.
    pub(super) fn call_site(&self, call: u64, needed: Registers) -> Option<Choice> {
        let targets: Vec<u64> = self
            .instructions
            .values()
            .filter_map(|instruction| match instruction.flow {
                Flow::Jump(target) | Flow::Branch(target) => Some(target),
                _ => None,
            })
            .collect();
        let mut sites = vec![call];
        let mut follower = call;
        for (&address, instruction) in self.instructions.range(..call).rev().take(MAX_CANDIDATES) {
            let adjacent = address.checked_add(instruction.length.into()) == Some(follower);
            if !adjacent
                || targets.contains(&follower)
                || instruction.flow != Flow::Next
                || instruction.writes.intersects(needed)
            {
                break;
            }
            sites.push(address);
            follower = address;
        }
        cheapest(sites.into_iter().filter(|&site| self.passed_once(site)).filter_map(|address| self.choice(address)))
    }

    fn choice(&self, address: u64) -> Option<Choice> {
        let instruction = self.instructions.get(&address)?;
        Some((address, instruction.class?, instruction.text.clone()))
    }

    /// Instructions that some path reaches from the entry with `needed` unwritten and nothing called: all that can be
    /// sites, by address.
    fn clean_region(&self, needed: Registers) -> Vec<u64> {
        let mut seen = Seen::default();
        let mut todo = vec![self.entry];
        while let Some(address) = todo.pop() {
            let Some(instruction) = self.instructions.get(&address) else { continue };
            if seen.insert(address, false) && !dirties(instruction, needed) {
                todo.extend(self.successors(address));
            }
        }
        seen.0.into_iter().map(|(address, _)| address).take(MAX_CANDIDATES).collect()
    }

    /// Whether each call of the function that comes back passes `site`, and none passes it twice.
    fn passed_once(&self, site: u64) -> bool {
        let leaves_without = self.any_reachable(&[self.entry], site, |code, address| {
            code.instructions.get(&address).is_none_or(|instruction| instruction.flow == Flow::Return)
        });
        let after: Vec<u64> = self.successors(site).collect();
        let comes_again = after.contains(&site)
            || self.any_reachable(&after, site, |code, address| code.successors(address).any(|next| next == site));
        !leaves_without && !comes_again
    }

    /// Whether a path from `start` that avoids `avoid` reaches an address with that property.
    fn any_reachable(&self, start: &[u64], avoid: u64, property: impl Fn(&Self, u64) -> bool) -> bool {
        let mut seen = Seen::default();
        let mut todo = start.to_vec();
        while let Some(address) = todo.pop() {
            if address == avoid || !seen.insert(address, false) {
                continue;
            }
            if property(self, address) {
                return true;
            }
            todo.extend(self.successors(address));
        }
        false
    }

    /// Whether no path from the entry to `site` writes `needed` or calls anything. Growing the stack is no exception:
    /// it ends in a fresh entry, with the arguments restored.
    fn arrives_clean(&self, site: u64, needed: Registers) -> bool {
        let mut seen = Seen::default();
        let mut todo = vec![(self.entry, false)];
        while let Some((address, dirty)) = todo.pop() {
            if address == site {
                if dirty {
                    return false;
                }
                continue;
            }
            let Some(instruction) = self.instructions.get(&address) else { continue };
            if !seen.insert(address, dirty) {
                continue;
            }
            if self.growth.iter().any(|&(_, last)| last == address) {
                continue;
            }
            let dirty = dirty || dirties(instruction, needed);
            todo.extend(self.successors(address).map(|next| (next, dirty)));
        }
        true
    }
}

/// Addresses that were visited, each apart as clean and dirty.
#[derive(Default)]
struct Seen(BTreeSet<(u64, bool)>);

impl Seen {
    fn insert(&mut self, address: u64, dirty: bool) -> bool {
        self.0.insert((address, dirty))
    }
}

fn dirties(instruction: &Instruction, needed: Registers) -> bool {
    matches!(instruction.flow, Flow::Call(_)) || instruction.writes.intersects(needed)
}

fn cheapest(sites: impl Iterator<Item = Choice>) -> Option<Choice> {
    sites.min_by_key(|&(address, class, _)| (class, address))
}
