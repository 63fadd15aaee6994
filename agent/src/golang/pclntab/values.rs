//! The tables that give a value for each program counter of a function: file, line, stack depth, inlining index.

use crate::golang::bytes::{u32_at, uvarint};

use super::{Func, PcLnTab};

/// Steps of tables that one question may decode. The longest functions known, generated ones, take some hundred
/// thousand; a hostile table would take any number.
pub(super) const MAX_STEPS: usize = 1 << 20;

/// `PCDATA_InlTreeIndex`.
pub(super) const PCDATA_INL_TREE_INDEX: u32 = 2;

const PCSP: usize = 16;
const PCFILE: usize = 20;
const PCLN: usize = 24;
const CU_OFFSET: usize = 32;

impl PcLnTab {
    /// How far the stack pointer is below its value at entry when `pc` is about to run; `pc` lies in `func`.
    pub fn sp_delta(&self, func: &Func<'_>, pc: u64) -> Option<u32> {
        let table = self.of(func);
        let value = table.value(func, table.own_table(func, PCSP)?, pc, &mut { MAX_STEPS })?;
        u32::try_from(value).ok()
    }

    /// The value of `pcdata` table `table` of `func` at `pc`; -1 where the table says nothing.
    pub fn pcdata(&self, func: &Func<'_>, table: u32, pc: u64) -> Option<i32> {
        self.pcdata_within(func, table, pc, &mut { MAX_STEPS })
    }

    /// As [`PcLnTab::pcdata`] in no more than `budget` steps, which it lowers.
    pub(super) fn pcdata_within(&self, func: &Func<'_>, table: u32, pc: u64, budget: &mut usize) -> Option<i32> {
        let of = self.of(func);
        of.value(func, of.pcdata_table(func, table)?, pc, budget)
    }

    /// File and line of `pc`, which lies in `func`. For inlined code, where the inlined function was written.
    pub fn file_line(&self, func: &Func<'_>, pc: u64) -> Option<(&str, u32)> {
        self.file_line_within(func, pc, &mut { MAX_STEPS })
    }

    /// As [`PcLnTab::file_line`] in no more than `budget` steps, which it lowers.
    pub(super) fn file_line_within(&self, func: &Func<'_>, pc: u64, budget: &mut usize) -> Option<(&str, u32)> {
        let of = self.of(func);
        let file = of.value(func, of.own_table(func, PCFILE)?, pc, budget)?;
        let line = of.value(func, of.own_table(func, PCLN)?, pc, budget)?;
        Some((of.file(func, file)?, u32::try_from(line).ok()?))
    }

    fn own_table(&self, func: &Func<'_>, field: usize) -> Option<u32> {
        u32_at(&self.data, func.record.checked_add(field)?).filter(|table| *table != 0)
    }

    /// File number `number` of the compilation unit of `func`.
    fn file(&self, func: &Func<'_>, number: i32) -> Option<&str> {
        let unit = u32_at(&self.data, func.record.checked_add(CU_OFFSET)?)? as usize;
        let index = unit.checked_add(usize::try_from(number).ok()?)?;
        let slot = self.header.cutab.checked_add(index.checked_mul(4)?)?;
        let offset = u32_at(&self.data, slot).filter(|offset| *offset != u32::MAX)?;
        self.text(self.header.filetab.checked_add(offset as usize)?)
    }

    /// The highest value of `pcdata` table `table` of `func`, looking at no more than `budget` steps, which it lowers.
    pub(super) fn highest_pcdata(&self, func: &Func<'_>, table: u32, budget: &mut usize) -> Option<i32> {
        self.steps(func, self.pcdata_table(func, table)?, budget).map(|(value, _)| value).max()
    }

    fn value(&self, func: &Func<'_>, table: u32, pc: u64, budget: &mut usize) -> Option<i32> {
        self.steps(func, table, budget).find(|(_, end)| pc < *end).map(|(value, _)| value)
    }

    /// `runtime.pcvalue`: pairs of varints (value delta in zigzag, program counter delta). Gives each value with the
    /// program counter it ends at, while `budget` lasts.
    fn steps(&self, func: &Func<'_>, table: u32, budget: &mut usize) -> impl Iterator<Item = (i32, u64)> {
        let mut at = self.header.pctab.checked_add(table as usize);
        let mut value = -1i32;
        let mut reached = func.entry;
        let mut first = true;
        std::iter::from_fn(move || {
            *budget = budget.checked_sub(1)?;
            let at = at.as_mut()?;
            let delta = u32::try_from(uvarint(&self.data, at)?).ok()?;
            // A zero ends the table, except that the first value may be the initial one.
            if delta == 0 && !first {
                return None;
            }
            first = false;
            let delta = ((delta >> 1) as i32) ^ -((delta & 1) as i32);
            value = value.wrapping_add(delta);
            let advance = uvarint(&self.data, at)?.checked_mul(u64::from(self.header.quantum))?;
            reached = reached.checked_add(advance)?;
            Some((value, reached))
        })
    }
}
