//! The pclntab's stack tables at the addresses where a process runs.

use std::sync::Arc;

use crate::golang::pclntab::{FuncId, PcLnTab};
use crate::memory::unwind::{FrameShape, StackTables};

/// See the module.
#[derive(Clone, Debug)]
pub struct LoadedTables {
    pclntab: Arc<PcLnTab>,
    slide: u64,
}

impl LoadedTables {
    /// The tables of a program loaded `slide` above its link-time addresses.
    pub fn new(pclntab: Arc<PcLnTab>, slide: u64) -> Self {
        Self { pclntab, slide }
    }

    /// Entry of the function at `pc`.
    pub fn entry(&self, pc: u64) -> Option<u64> {
        Some(self.pclntab.func(pc.wrapping_sub(self.slide))?.entry.wrapping_add(self.slide))
    }

    /// Name of the function at `pc`.
    pub fn function(&self, pc: u64) -> Option<&str> {
        Some(self.pclntab.func(pc.wrapping_sub(self.slide))?.name)
    }

    /// Whether the compiler made the function at `pc`, to call another one.
    pub fn is_wrapper(&self, pc: u64) -> bool {
        self.pclntab.func(pc.wrapping_sub(self.slide)).is_some_and(|func| func.id == FuncId::Wrapper)
    }
}

impl StackTables for LoadedTables {
    fn shape(&self, pc: u64) -> Option<FrameShape> {
        let pc = pc.wrapping_sub(self.slide);
        let func = self.pclntab.func(pc)?;
        let outermost = func.is_stack_bottom();
        let sp_delta = if outermost { 0 } else { u64::from(self.pclntab.sp_delta(&func, pc)?) };
        let injected = matches!(func.id, FuncId::AsyncPreempt | FuncId::Sigpanic | FuncId::DebugCall);
        Some(FrameShape { sp_delta, outermost, injected })
    }
}
