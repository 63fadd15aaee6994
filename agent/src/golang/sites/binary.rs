//! The functions of a parsed binary, found in its pclntab, which stripped binaries have too.

use std::collections::BTreeMap;

use super::{FunctionRange, Functions, names};
use crate::golang::Source;
use crate::golang::binary::GoBinary;

/// [`Functions`] of a [`GoBinary`] and the bytes it was parsed from.
pub struct BinaryFunctions<'a> {
    binary: &'a GoBinary,
    source: &'a dyn Source,
    ranges: BTreeMap<String, FunctionRange>,
    /// By function, one that it is inlined into; `None` when that is not known.
    inlined: Option<BTreeMap<String, String>>,
}

impl<'a> BinaryFunctions<'a> {
    /// Looks up what planning may ask for, in one pass over the function table.
    pub fn new(binary: &'a GoBinary, source: &'a dyn Source) -> Self {
        let names = names();
        let asked: Vec<&str> = names.iter().map(String::as_str).collect();
        let found = binary.pclntab.functions_named(&asked);
        let ranges = names.iter().zip(found).filter_map(|(name, func)| {
            let func = func?;
            Some((name.clone(), FunctionRange { name: name.clone(), entry: func.entry, end: func.end }))
        });
        let ranges = ranges.collect();
        let inlined = binary.pclntab.inlined_into(&asked).map(|copies| {
            names.iter().zip(copies).filter_map(|(name, into)| Some((name.clone(), into?.to_owned()))).collect()
        });
        Self { binary, source, ranges, inlined }
    }
}

impl Functions for BinaryFunctions<'_> {
    fn find(&self, name: &str) -> Option<FunctionRange> {
        self.ranges.get(name).cloned()
    }

    fn code(&self, range: &FunctionRange) -> Option<Vec<u8>> {
        let func = self.binary.pclntab.func(range.entry).filter(|func| func.end == range.end)?;
        self.binary.code(self.source, &func).ok()
    }

    fn inlined_into(&self, name: &str) -> Option<String> {
        match &self.inlined {
            Some(inlined) => inlined.get(name).cloned(),
            // Not to be told from a binary where it is.
            None => Some("a function that is not known, the inlining trees being too large".to_owned()),
        }
    }
}
