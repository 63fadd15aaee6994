//! Stacks of inlined calls at a program counter (`runtime.inlineUnwinder`).

use crate::golang::Frame;
use crate::golang::bytes::i32_at;

use super::values::{MAX_STEPS, PCDATA_INL_TREE_INDEX};
use super::{BAD_NAME, Func, PcLnTab};

/// `FUNCDATA_InlTree`.
const FUNCDATA_INL_TREE: u8 = 3;

/// Deepest inlining followed. The compiler's budget keeps real ones far below.
const MAX_DEPTH: usize = 256;

/// Most table entries looked at in search of inlined copies. The runtime has some ten thousand.
const MAX_SEARCH: usize = 1 << 20;

/// Where `runtime.inlinedCall` keeps its fields.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    size: usize,
    name: usize,
    parent_pc: usize,
}

/// `{parent int16, funcID, _ uint8, file, line, func_, parentPc int32}`
pub(super) const GO_118: Shape = Shape { size: 20, name: 12, parent_pc: 16 };
/// `{funcID uint8, _ [3]byte, nameOff, parentPc, startLine int32}`
pub(super) const GO_120: Shape = Shape { size: 16, name: 4, parent_pc: 8 };

impl PcLnTab {
    /// The calls that `pc` stands in, innermost first: functions inlined there, then the function that contains
    /// it. Empty when no function does.
    pub fn frames(&self, pc: u64) -> Vec<Frame> {
        match self.func(pc) {
            Some(func) => self.frames_in(&func, pc),
            None => Vec::new(),
        }
    }

    /// As [`PcLnTab::frames`], for a `pc` in `func`.
    pub fn frames_in(&self, func: &Func<'_>, pc: u64) -> Vec<Frame> {
        let mut frames = Vec::new();
        let mut pc = pc;
        let mut budget = MAX_STEPS;
        while frames.len() < MAX_DEPTH {
            let inlined = self.inlined_call(func, pc, &mut budget);
            let (file, line) = self.file_line_within(func, pc, &mut budget).unwrap_or(("", 0));
            frames.push(Frame {
                function: inlined.map_or(func.name, |(name, _)| name).to_owned(),
                file: file.to_owned(),
                line,
                inlined: inlined.is_some(),
            });
            match inlined.and_then(|(_, parent)| parent) {
                Some(parent) => pc = parent,
                None => break,
            }
        }
        // A chain that the tables do not end still ends in the function that contains it.
        if let Some(last) = frames.last_mut().filter(|last| last.inlined) {
            last.function = func.name.to_owned();
            last.inlined = false;
        }
        frames
    }

    /// Names of the functions inlined into `func`, each as often as it is, `limit` at most.
    pub fn inlined_in<'t>(&'t self, func: &Func<'t>, limit: usize) -> impl Iterator<Item = &'t str> {
        let mut budget = MAX_SEARCH;
        let highest = self.highest_pcdata(func, PCDATA_INL_TREE_INDEX, &mut budget);
        let calls = highest.and_then(|highest| usize::try_from(highest).ok()).map_or(0, |highest| highest + 1);
        let func = *func;
        (0..calls.min(limit)).map_while(move |index| self.inlining(&func, index)).map(|(name, _)| name)
    }

    /// For each of `names` a function of package runtime, other than itself, that contains an inlined copy of it.
    /// Unexported functions of that package are inlined nowhere else. `None` when the tables are too long to tell.
    pub fn inlined_into(&self, names: &[&str]) -> Option<Vec<Option<&str>>> {
        let mut found: Vec<Option<&str>> = vec![None; names.len()];
        let mut budget = MAX_SEARCH;
        for func in self.functions().filter(|func| func.name.starts_with("runtime.")) {
            let highest = self.highest_pcdata(&func, PCDATA_INL_TREE_INDEX, &mut budget);
            let calls = highest.and_then(|highest| usize::try_from(highest).ok()).map_or(0, |highest| highest + 1);
            // Where the tree ends in what was loaded, there is nothing more to find.
            for (name, _) in (0..calls.min(budget)).map_while(|index| self.inlining(&func, index)) {
                budget -= 1;
                let wanted = names.iter().position(|wanted| *wanted == name && name != func.name);
                if let Some(slot) = wanted.and_then(|index| found.get_mut(index)) {
                    slot.get_or_insert(func.name);
                }
            }
            if budget == 0 {
                return None;
            }
        }
        Some(found)
    }

    /// Name of the function inlined at `pc`, and a program counter at its call site if the tables name one.
    fn inlined_call(&self, func: &Func<'_>, pc: u64, budget: &mut usize) -> Option<(&str, Option<u64>)> {
        self.inlining(func, usize::try_from(self.pcdata_within(func, PCDATA_INL_TREE_INDEX, pc, budget)?).ok()?)
    }

    /// Entry `index` of the inlining tree of `func`: what was inlined, and a program counter at its call site.
    fn inlining(&self, func: &Func<'_>, index: usize) -> Option<(&str, Option<u64>)> {
        let of = self.of(func);
        let tree = of.funcdata(func, FUNCDATA_INL_TREE)?;
        let shape = of.header.format.inlined_call();
        let call = tree.get(index.checked_mul(shape.size)?..)?.get(..shape.size)?;
        let name = usize::try_from(i32_at(call, shape.name)?).ok()?;
        let name = of.header.funcname.checked_add(name).and_then(|at| of.text(at)).unwrap_or(BAD_NAME);
        let parent = u64::try_from(i32_at(call, shape.parent_pc)?).ok();
        let parent = parent.and_then(|parent| func.entry.checked_add(parent)).filter(|parent| *parent < func.end);
        Some((name, parent))
    }
}
