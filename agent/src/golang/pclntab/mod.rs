//! The pclntab of a Go program: functions by program counter and by name, source lines, stack depths, and the
//! functions that were inlined. Present in every Go binary, stripped or not.
//!
//! Addresses are link-time addresses. A return address belongs to the call before it: callers pass `pc - 1`.
//! A program with plugins has one for each module: those of plugins are found through the program's own, and their functions count
//! as its. Deliberately absent: Go before 1.18, and programs of several text sections (32-bit and ppc64 linkers split them).

mod func_id;
mod header;
mod inline;
pub mod locate;
mod values;

#[cfg(test)]
pub(crate) mod tests;

use super::bytes::{c_str, i32_at, u32_at};
use super::version::GoVersion;
use header::{Format, Header};

pub use func_id::FuncId;

/// Longest function or file name accepted. Instantiated generic functions have names of several kilobytes.
const MAX_NAME: usize = 32 * 1024;

/// Shown for a name that the tables do not contain.
const BAD_NAME: &str = "(unreadable name)";

/// Why a pclntab cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PcLnTabError {
    /// Known format, not read.
    #[error("function tables in the format of {0}; parkwarden reads those of Go 1.18 and later")]
    TooOld(&'static str),
    /// The table contradicts itself.
    #[error("malformed pclntab: {what} at offset {offset:#x}")]
    Malformed {
        /// What is wrong.
        what: &'static str,
        /// Bytes from the start of the table.
        offset: usize,
    },
}

/// A function of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Func<'t> {
    /// Address of the first instruction.
    pub entry: u64,
    /// Where the next function begins. Padding may precede it.
    pub end: u64,
    /// Full name, for example `net/http.(*conn).serve`.
    pub name: &'t str,
    /// Which special runtime function it is.
    pub id: FuncId,
    /// Properties that matter to unwinding.
    pub flags: FuncFlags,
    /// Of the `_func` record within the table.
    pub(super) record: usize,
    /// Whose table that is: 0 for the program's own, else a plugin's.
    module: usize,
}

/// `internal/abi.FuncFlag`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FuncFlags(u8);

impl FuncFlags {
    /// The outermost function of a stack: unwinding ends here, completely.
    pub fn top_frame(self) -> bool {
        self.0 & 1 != 0
    }

    /// Writes the stack pointer in a way that the tables do not describe: unwinding cannot pass it.
    pub fn sp_write(self) -> bool {
        self.0 & 2 != 0
    }

    /// Written in assembly.
    pub fn asm(self) -> bool {
        self.0 & 4 != 0
    }
}

impl Func<'_> {
    /// Whether a stack ends in this function: nothing called it.
    pub fn is_stack_bottom(&self) -> bool {
        self.flags.top_frame() || matches!(self.id, FuncId::Goexit | FuncId::Mstart | FuncId::Rt0Go)
    }
}

/// The function tables of one program. Those with the same contents are equal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PcLnTab {
    data: Vec<u8>,
    header: Header,
    text_start: u64,
    funcdata: Vec<u8>,
    func_ids: &'static [FuncId],
    /// Those of plugins.
    plugins: Vec<Self>,
}

impl PcLnTab {
    /// Takes the table's bytes (they may extend beyond its end) and the address its functions count from.
    pub fn new(data: Vec<u8>, text_start: u64, version: &GoVersion) -> Result<Self, PcLnTabError> {
        let header = Header::parse(&data)?;
        Ok(Self {
            data,
            header,
            text_start,
            funcdata: Vec::new(),
            func_ids: func_id::table(version),
            plugins: Vec::new(),
        })
    }

    /// Adds the bytes from `go:func.*` on, without which inlined functions and stack maps are unknown.
    pub fn set_funcdata(&mut self, bytes: Vec<u8>) {
        self.funcdata = bytes;
    }

    /// Adds the tables of plugins, whose functions count from where they are loaded, less what the program itself is loaded above
    /// its link-time addresses.
    pub fn set_plugins(&mut self, plugins: Vec<Self>) {
        self.plugins = plugins;
    }

    /// Bytes it holds.
    pub fn memory(&self) -> usize {
        self.data.capacity() + self.funcdata.capacity()
    }

    /// The tables of plugins.
    pub fn plugins(&self) -> &[Self] {
        &self.plugins
    }

    /// The table that a function is in.
    fn of(&self, func: &Func<'_>) -> &Self {
        func.module.checked_sub(1).and_then(|plugin| self.plugins.get(plugin)).unwrap_or(self)
    }

    /// What `runtime.moduledata` begins with when the table `data` is at `vaddr`: the addresses of the table and of
    /// its parts, each but the first followed by a length and a capacity.
    pub fn moduledata_pointers(data: &[u8], vaddr: u64) -> Result<[u64; 7], PcLnTabError> {
        let header = Header::parse(data)?;
        let functab = header.functab;
        let parts = [0, header.funcname, header.cutab, header.filetab, header.pctab, functab, functab];
        Ok(parts.map(|offset| vaddr.wrapping_add(offset as u64)))
    }

    /// The text start the header names; zero from Go 1.26 on and in position-independent programs.
    pub fn header_text_start(data: &[u8]) -> Result<u64, PcLnTabError> {
        Ok(Header::parse(data)?.text_start)
    }

    /// Whether `header` begins a table of at most `size` bytes.
    fn is_header(header: &[u8], size: u64) -> bool {
        Header::parse_sized(header, size).is_ok()
    }

    /// The address that functions count from.
    pub fn text_start(&self) -> u64 {
        self.text_start
    }

    /// Number of functions.
    pub fn len(&self) -> usize {
        self.header.nfunc
    }

    /// Never: a table without functions is refused.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All functions in the order of their addresses.
    pub fn functions(&self) -> impl Iterator<Item = Func<'_>> {
        (0..self.header.nfunc).filter_map(|index| self.nth(index))
    }

    /// The function that contains `pc`.
    pub fn func(&self, pc: u64) -> Option<Func<'_>> {
        let mut plugins = self.plugins.iter().enumerate();
        self.own_func(pc)
            .or_else(|| plugins.find_map(|(index, plugin)| Some(Func { module: index + 1, ..plugin.own_func(pc)? })))
    }

    fn own_func(&self, pc: u64) -> Option<Func<'_>> {
        let offset = u32::try_from(pc.checked_sub(self.text_start)?).ok()?;
        if offset >= self.entry_offset(self.header.nfunc)? {
            return None;
        }
        let (mut low, mut high) = (0, self.header.nfunc);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.entry_offset(middle)? <= offset { low = middle + 1 } else { high = middle }
        }
        let func = self.nth(low.checked_sub(1)?)?;
        (func.entry <= pc && pc < func.end).then_some(func)
    }

    /// The function called `name`. Where an assembly function and the compiler's wrapper for it share a name, the
    /// one that is not the wrapper.
    pub fn function_named(&self, name: &str) -> Option<Func<'_>> {
        self.functions_named(&[name]).pop().flatten()
    }

    /// The functions called `names`, in that order, in one pass over the table.
    pub fn functions_named(&self, names: &[&str]) -> Vec<Option<Func<'_>>> {
        let mut found: Vec<Option<Func<'_>>> = vec![None; names.len()];
        for index in 0..self.header.nfunc {
            let Some(name_at) = self.record(index).and_then(|record| self.name_offset(record)) else { continue };
            let Some(rest) = self.data.get(name_at..) else { continue };
            for (slot, name) in found.iter_mut().zip(names) {
                let matches = rest.starts_with(name.as_bytes()) && rest.get(name.len()) == Some(&0);
                if matches && slot.is_none_or(|func| func.id == FuncId::Wrapper) {
                    *slot = self.nth(index).or(*slot);
                }
            }
        }
        found
    }

    fn functab(&self, index: usize) -> usize {
        // Within `data` for indices up to `nfunc`: the header was checked.
        self.header.functab + index * 8
    }

    /// Start of function `index` from the text start; for `nfunc`, the end of the last function.
    fn entry_offset(&self, index: usize) -> Option<u32> {
        u32_at(&self.data, self.functab(index))
    }

    /// Where the `_func` of function `index` is.
    fn record(&self, index: usize) -> Option<usize> {
        let offset = u32_at(&self.data, self.functab(index) + 4)?;
        self.header.functab.checked_add(offset as usize).filter(|at| *at < self.data.len())
    }

    fn nth(&self, index: usize) -> Option<Func<'_>> {
        if index >= self.header.nfunc {
            return None;
        }
        let (start, end) = (self.entry_offset(index)?, self.entry_offset(index + 1)?);
        let record = self.record(index)?;
        let name = self.name_offset(record).and_then(|at| self.text(at)).unwrap_or(BAD_NAME);
        let tail = record.checked_add(self.header.format.func_size() - 4)?;
        let &[id, flags, _, _] = self.data.get(tail..tail.checked_add(4)?)? else { return None };
        Some(Func {
            entry: self.text_start.checked_add(u64::from(start))?,
            end: self.text_start.checked_add(u64::from(end))?,
            name,
            id: self.func_id(id),
            flags: FuncFlags(flags),
            record,
            module: 0,
        })
    }

    fn func_id(&self, number: u8) -> FuncId {
        self.func_ids.get(usize::from(number)).copied().unwrap_or(FuncId::Unknown(number))
    }

    fn name_offset(&self, record: usize) -> Option<usize> {
        self.header.funcname.checked_add(usize::try_from(i32_at(&self.data, record.checked_add(4)?)?).ok()?)
    }

    fn text(&self, at: usize) -> Option<&str> {
        std::str::from_utf8(c_str(&self.data, at, MAX_NAME)?).ok()
    }

    /// Table `index` of `func`'s `pcdata`, as an offset into the pctab.
    fn pcdata_table(&self, func: &Func<'_>, index: u32) -> Option<u32> {
        if index >= self.npcdata(func)? {
            return None;
        }
        let at = func.record.checked_add(self.header.format.func_size())?;
        u32_at(&self.data, at.checked_add(index as usize * 4)?).filter(|table| *table != 0)
    }

    fn npcdata(&self, func: &Func<'_>) -> Option<u32> {
        u32_at(&self.data, func.record.checked_add(28)?)
    }

    /// The bytes of `func`'s `funcdata` number `index`, up to the end of what was loaded: what lies there says how
    /// long it is.
    pub fn funcdata(&self, func: &Func<'_>, index: u8) -> Option<&[u8]> {
        let table = self.of(func);
        let offset = table.funcdata_offset(func, index)?;
        table.funcdata.get(offset as usize..)
    }

    /// Size of `func`'s arguments and results on the stack in bytes; `None` for the few functions in assembly whose
    /// arguments are not fixed.
    pub fn args_size(&self, func: &Func<'_>) -> Option<u32> {
        u32::try_from(i32_at(&self.of(func).data, func.record.checked_add(8)?)?).ok()
    }

    /// The bytes this was made from: the table, and what [`PcLnTab::set_funcdata`] was given.
    pub fn bytes(&self) -> (&[u8], &[u8]) {
        (&self.data, &self.funcdata)
    }

    fn funcdata_offset(&self, func: &Func<'_>, index: u8) -> Option<u32> {
        let base = func.record.checked_add(self.header.format.func_size())?;
        let count = *self.data.get(base - 1)?;
        if index >= count {
            return None;
        }
        let at = base.checked_add(self.npcdata(func)? as usize * 4)?.checked_add(usize::from(index) * 4)?;
        u32_at(&self.data, at).filter(|offset| *offset != u32::MAX)
    }

    /// The highest offset from `go:func.*` that any function uses: how much of it to load.
    pub fn last_funcdata(&self) -> u32 {
        let mut last = 0;
        for func in self.functions() {
            let count = self.data.get(func.record + self.header.format.func_size() - 1).copied().unwrap_or(0);
            for index in 0..count {
                last = last.max(self.funcdata_offset(&func, index).unwrap_or(0));
            }
        }
        last
    }
}

/// Whether `bytes` begin like a pclntab, for searching a binary without sections.
fn looks_like_header(bytes: &[u8]) -> bool {
    let [magic @ .., 0, 0, 1 | 4, 8] = bytes else { return false };
    header::MAGICS.iter().any(|(known, _)| known == magic)
}

impl Format {
    fn inlined_call(self) -> inline::Shape {
        match self {
            Self::Go118 => inline::GO_118,
            Self::Go120 => inline::GO_120,
        }
    }
}
