//! The tables that give a value for each program counter of a function: file, line, stack depth, inlining index.

use crate::golang::bytes::{u32_at, uvarint};

use super::{Func, PcLnTab};

/// Most steps decoded of one table. The longest functions known (generated tables) have some hundred thousand.
const MAX_STEPS: usize = 1 << 20;

/// `PCDATA_InlTreeIndex`.
pub(super) const PCDATA_INL_TREE_INDEX: u32 = 2;

const PCSP: usize = 16;
const PCFILE: usize = 20;
const PCLN: usize = 24;
const CU_OFFSET: usize = 32;

impl PcLnTab {
    /// How far the stack pointer is below its value at entry when `pc` is about to run; `pc` lies in `func`.
    pub fn sp_delta(&self, func: &Func<'_>, pc: u64) -> Option<u32> {
        let value = self.value(func, self.own_table(func, PCSP)?, pc)?;
        u32::try_from(value).ok()
    }

    /// The value of `pcdata` table `table` of `func` at `pc`; -1 where the table says nothing.
    pub fn pcdata(&self, func: &Func<'_>, table: u32, pc: u64) -> Option<i32> {
        self.value(func, self.pcdata_table(func, table)?, pc)
    }

    /// File and line of `pc`, which lies in `func`. For inlined code, where the inlined function was written.
    pub fn file_line(&self, func: &Func<'_>, pc: u64) -> Option<(&str, u32)> {
        let file = self.value(func, self.own_table(func, PCFILE)?, pc)?;
        let line = self.value(func, self.own_table(func, PCLN)?, pc)?;
        Some((self.file(func, file)?, u32::try_from(line).ok()?))
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
        let steps = self.steps(func, self.pcdata_table(func, table)?).take(*budget);
        steps.inspect(|_| *budget -= 1).map(|(value, _)| value).max()
    }

    fn value(&self, func: &Func<'_>, table: u32, pc: u64) -> Option<i32> {
        self.steps(func, table).find(|(_, end)| pc < *end).map(|(value, _)| value)
    }

    /// `runtime.pcvalue`: pairs of varints (value delta in zigzag, program counter delta). Gives each value with the
    /// program counter it ends at.
    fn steps(&self, func: &Func<'_>, table: u32) -> impl Iterator<Item = (i32, u64)> {
        let mut at = self.header.pctab.checked_add(table as usize);
        let mut value = -1i32;
        let mut reached = func.entry;
        (0..MAX_STEPS).map_while(move |step| {
            let at = at.as_mut()?;
            let delta = u32::try_from(uvarint(&self.data, at)?).ok()?;
            if delta == 0 && step > 0 {
                return None;
            }
            let delta = ((delta >> 1) as i32) ^ -((delta & 1) as i32);
            value = value.wrapping_add(delta);
            let advance = uvarint(&self.data, at)?.checked_mul(u64::from(self.header.quantum))?;
            reached = reached.checked_add(advance)?;
            Some((value, reached))
        })
    }
}
