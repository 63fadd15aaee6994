//! Where the variables of a process's runtime are, for what [`runtime`](crate::runtime) reads of them.

use super::{NoVariable, Target, TargetError, variables};
use crate::golang::layout::{LayoutSource, Structs};
use crate::golang::layout_table::LayoutTable as _;
use crate::golang::{proof_layout, symbols, table};
use crate::runtime::vitals::Places;
use crate::runtime::{self, mem, sched};

impl Target {
    /// The structs that the runtime's numbers are read by: the table's, where its version is known and the binary does not
    /// contradict, because finding them in debugging information takes long.
    pub fn runtime_structs(&self) -> Structs {
        if self.binary.layout_source == LayoutSource::Dwarf
            && self.binary.layout_differs.is_empty()
            && let Ok(known) = table::bundled().structs(&self.binary.version, self.binary.arch)
        {
            return known.clone();
        }
        self.structs(runtime::READ)
    }

    /// Where the scheduler's variables are.
    pub fn scheduler_places(&self) -> Result<sched::Places, NoVariable> {
        let [sched, allp, allm] = self.locate_all(["runtime.sched", "runtime.allp", "runtime.allm"]);
        let [init_time, c_calls, extra, extra_in_use] = self.locate_all([
            "runtime.runtimeInitTime",
            "runtime.ncgocall",
            // Go 1.21 and later.
            "runtime.extraMLength",
            "runtime.extraMInUse",
        ]);
        Ok(sched::Places {
            sched: sched?,
            allp: allp?,
            allm: allm?,
            allgs: self.allgs,
            init_time: init_time.ok(),
            c_calls: c_calls.ok(),
            extra_threads: extra.ok().zip(extra_in_use.ok()).map(<[u64; 2]>::from),
        })
    }

    /// Where those of memory and collector are.
    pub fn memory_places(&self) -> Result<mem::Places, NoVariable> {
        let [memstats, controller, heap, work, limiter, sched, allp, cleanups] = self.locate_all([
            "runtime.memstats",
            "runtime.gcController",
            "runtime.mheap_",
            "runtime.work",
            "runtime.gcCPULimiter",
            "runtime.sched",
            "runtime.allp",
            // Go 1.25 and later.
            "runtime.gcCleanups",
        ]);
        let [queued, executed, starting_stack] = self.locate_all([
            // Go 1.25 and later.
            "runtime.finqueued",
            "runtime.finexecuted",
            "runtime.startingStackSize",
        ]);
        Ok(mem::Places {
            memstats: memstats?,
            controller: controller?,
            heap: heap?,
            work: work?,
            limiter: limiter?,
            sched: sched?,
            allp: allp?,
            cleanups: cleanups.ok(),
            finalizers: queued.ok().zip(executed.ok()).map(<[u64; 2]>::from),
            starting_stack: starting_stack.ok(),
        })
    }

    /// Heap and collector in brief; an error where the runtime cannot be read.
    pub fn memory_in_brief(&self) -> Result<mem::Brief, TargetError> {
        let [memstats, controller] = self.locate_all(["runtime.memstats", "runtime.gcController"]);
        let (memstats, controller) =
            (memstats.map_err(|reason| self.failed(reason))?, controller.map_err(|reason| self.failed(reason))?);
        mem::Brief::read(&self.memory, &self.runtime_structs(), memstats, controller)
            .map_err(|error| self.failed(error))
    }

    /// Where all is that a watch reads.
    pub fn vital_places(&self) -> Result<Places, NoVariable> {
        Ok(Places { sched: self.scheduler_places()?, mem: self.memory_places()? })
    }

    /// As [`Target::locate`], of several at once: the symbol table is gone through once.
    fn locate_all<const N: usize>(&self, names: [&'static str; N]) -> [Result<u64, NoVariable>; N] {
        let found = symbols::lookup(self.process.exe(), &self.binary.elf, &names).unwrap_or_default();
        let mut structs = None;
        let mut index = 0;
        names.map(|name| {
            let symbol = found.get(index).copied().flatten();
            index += 1;
            if let Some(symbol) = symbol {
                return Ok(symbol.address.wrapping_add(self.slide));
            }
            let wanted = [crate::golang::variables::WANTED, proof_layout::WANTED];
            let structs = structs.get_or_insert_with(|| self.structs(&wanted));
            variables::find(name, &self.process, &self.binary, structs, self.slide, &self.memory)
        })
    }
}
