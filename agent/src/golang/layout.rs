//! Where the Go runtime keeps its fields: struct layouts, whatever they came from (the binary's DWARF, or the table
//! generated from the toolchains), and the typed view of them that the rest of parkwarden uses.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Where a layout came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum LayoutSource {
    /// The target's own debug information.
    Dwarf,
    /// The table generated from the Go toolchains by `cargo xtask layouts`.
    Table,
}

/// One field of a struct.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Field {
    /// Bytes from the start of the struct.
    pub offset: u32,
    /// Size in bytes.
    pub size: u32,
}

/// One struct of package runtime.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StructLayout {
    /// Size in bytes.
    pub size: u32,
    /// By name. Fields of embedded or nested structs that parkwarden needs are named by their path (`sched.sp`).
    pub fields: BTreeMap<String, Field>,
}

/// Structs by full name (`runtime.g`).
pub type Structs = BTreeMap<String, StructLayout>;

/// A layout that lacks what parkwarden needs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// The struct is not described.
    #[error("no layout of {0}")]
    NoStruct(&'static str),
    /// The struct is described, the field is not in it.
    #[error("{structure} has no field {field}")]
    NoField {
        /// Struct.
        structure: &'static str,
        /// Field.
        field: &'static str,
    },
    /// The field's size is not what every known version has.
    #[error("{structure}.{field} is {found} bytes, expected {expected}")]
    Size {
        /// Struct.
        structure: &'static str,
        /// Field.
        field: &'static str,
        /// As described.
        found: u32,
        /// As known.
        expected: u32,
    },
    /// The field lies outside its struct.
    #[error("{structure}.{field} at {offset} lies outside the struct's {size} bytes")]
    Outside {
        /// Struct.
        structure: &'static str,
        /// Field.
        field: &'static str,
        /// As described.
        offset: u32,
        /// Of the struct.
        size: u32,
    },
}

/// Offsets in `runtime.g` (`src/runtime/runtime2.go`), in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GLayout {
    /// Size of the struct.
    pub size: u32,
    /// `stack.lo`
    pub stack_lo: u32,
    /// `stack.hi`
    pub stack_hi: u32,
    /// `m`
    pub m: u32,
    /// `sched.sp`
    pub sched_sp: u32,
    /// `sched.pc`
    pub sched_pc: u32,
    /// `sched.bp`
    pub sched_bp: u32,
    /// `sched.lr`
    pub sched_lr: u32,
    /// `syscallsp`
    pub syscallsp: u32,
    /// `syscallpc`
    pub syscallpc: u32,
    /// `atomicstatus`, 4 bytes
    pub atomicstatus: u32,
    /// `goid`
    pub goid: u32,
    /// `waitsince`, nanoseconds of `nanotime`
    pub waitsince: u32,
    /// `waitreason`, 1 byte
    pub waitreason: u32,
    /// `parentGoid`; Go 1.21 and later
    pub parent_goid: Option<u32>,
    /// `gopc`
    pub gopc: u32,
    /// `startpc`
    pub startpc: u32,
    /// `waiting`: the list of sudogs
    pub waiting: u32,
    /// `trackingSeq`, 1 byte: one more each time the goroutine stops running
    pub tracking_seq: Option<u32>,
    /// `labels`: a pointer to what `runtime/pprof` sets
    pub labels: u32,
}

/// Offsets in `runtime.m`, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MLayout {
    /// `g0`
    pub g0: u32,
    /// `curg`
    pub curg: u32,
}

/// The layouts that watching needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuntimeLayout {
    /// `runtime.g`
    pub g: GLayout,
    /// `runtime.m`
    pub m: MLayout,
}

/// Structs and the fields to look for in each, with the size a field must have where it is read by size; 0 means any.
///
/// Whoever reads structs of the runtime declares what it reads in such a list, beside the code that reads; the table of
/// layouts holds what the lists name, together, and nothing else.
pub type Wanted = [(&'static str, &'static [(&'static str, u32)])];

/// What watching reads.
pub const WANTED: &Wanted = &[
    (
        "runtime.g",
        &[
            ("stack.lo", 8),
            ("stack.hi", 8),
            ("m", 8),
            ("sched.sp", 8),
            ("sched.pc", 8),
            ("sched.bp", 8),
            ("sched.lr", 8),
            ("syscallsp", 8),
            ("syscallpc", 8),
            ("atomicstatus", 4),
            ("goid", 8),
            ("waitsince", 8),
            ("waitreason", 1),
            ("parentGoid", 8),
            ("gopc", 8),
            ("startpc", 8),
            ("waiting", 8),
            ("trackingSeq", 1),
            ("labels", 8),
        ],
    ),
    ("runtime.m", &[("g0", 8), ("curg", 8), ("alllink", 8)]),
    (
        "runtime.moduledata",
        &[
            ("text", 8),
            ("etext", 8),
            ("gofunc", 8),
            ("data", 8),
            ("edata", 8),
            ("bss", 8),
            ("ebss", 8),
            ("pclntable.array", 8),
            ("pclntable.len", 8),
            ("next", 8),
        ],
    ),
];

/// The lists together: each struct once, each of its fields once.
pub fn together(lists: &[&Wanted]) -> Vec<(&'static str, Vec<(&'static str, u32)>)> {
    let mut structs: BTreeMap<&str, Vec<(&str, u32)>> = BTreeMap::new();
    for (name, fields) in lists.iter().copied().flatten() {
        let known = structs.entry(name).or_default();
        for field in *fields {
            if !known.iter().any(|(name, _)| *name == field.0) {
                known.push(*field);
            }
        }
    }
    structs.into_iter().collect()
}

impl RuntimeLayout {
    /// The typed view of `structs`.
    pub fn from_structs(structs: &Structs) -> Result<Self, LayoutError> {
        let g = |field| offset(structs, WANTED, "runtime.g", field);
        let m = |field| offset(structs, WANTED, "runtime.m", field);
        Ok(Self {
            g: GLayout {
                size: structs.get("runtime.g").ok_or(LayoutError::NoStruct("runtime.g"))?.size,
                stack_lo: g("stack.lo")?,
                stack_hi: g("stack.hi")?,
                m: g("m")?,
                sched_sp: g("sched.sp")?,
                sched_pc: g("sched.pc")?,
                sched_bp: g("sched.bp")?,
                sched_lr: g("sched.lr")?,
                syscallsp: g("syscallsp")?,
                syscallpc: g("syscallpc")?,
                atomicstatus: g("atomicstatus")?,
                goid: g("goid")?,
                waitsince: g("waitsince")?,
                waitreason: g("waitreason")?,
                parent_goid: optional(g("parentGoid"))?,
                gopc: g("gopc")?,
                startpc: g("startpc")?,
                waiting: g("waiting")?,
                tracking_seq: optional(g("trackingSeq"))?,
                labels: g("labels")?,
            },
            m: MLayout { g0: m("g0")?, curg: m("curg")? },
        })
    }
}

/// A field that not every version has.
pub(super) fn optional(field: Result<u32, LayoutError>) -> Result<Option<u32>, LayoutError> {
    match field {
        Err(LayoutError::NoField { .. }) => Ok(None),
        other => other.map(Some),
    }
}

/// The offset of a field that is in the list `wanted`, with its size and bounds checked.
pub fn offset(
    structs: &Structs,
    wanted: &Wanted,
    structure: &'static str,
    field: &'static str,
) -> Result<u32, LayoutError> {
    let layout = structs.get(structure).ok_or(LayoutError::NoStruct(structure))?;
    let found = *layout.fields.get(field).ok_or(LayoutError::NoField { structure, field })?;
    let listed = wanted.iter().find(|(name, _)| *name == structure);
    let listed = listed.and_then(|(_, fields)| fields.iter().find(|(name, _)| *name == field));
    // What nobody declared is in no table: it would be found here and missing in a stripped program.
    let expected = listed.ok_or(LayoutError::NoField { structure, field })?.1;
    if expected != 0 && found.size != expected {
        return Err(LayoutError::Size { structure, field, found: found.size, expected });
    }
    match found.offset.checked_add(found.size) {
        Some(end) if end <= layout.size => Ok(found.offset),
        _ => Err(LayoutError::Outside { structure, field, offset: found.offset, size: layout.size }),
    }
}
