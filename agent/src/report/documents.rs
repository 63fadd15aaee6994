//! The documents of `mem --format json` and `sched --format json`.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::discover::info::TargetInfo;
use crate::runtime::mem::Memories;
use crate::runtime::sched::{Listed, Scheduler};
use crate::runtime::signs::Sign;
use crate::runtime::timers::Timers;

/// The document of `mem`.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct MemDocument {
    /// Version of this document.
    pub schema: u32,
    /// The process.
    pub target: TargetInfo,
    /// How often it was looked at.
    pub looks: usize,
    /// From the first look to the last.
    pub looked_seconds: f64,
    /// Memory and collector at the last look.
    pub memory: Memories,
    /// The plain numbers of it by the names of `runtime/metrics`.
    pub metrics: BTreeMap<&'static str, u64>,
    /// What its control group uses, where it has one with a limit.
    pub group_used_bytes: Option<u64>,
    /// The limit of its control group.
    pub group_limit_bytes: Option<u64>,
    /// Timers, by what they call.
    pub timers: Timers,
    /// What is unusual.
    pub signs: Vec<Sign>,
}

/// The document of `sched`; one a line with `--interval`.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SchedDocument {
    /// Version of this document.
    pub schema: u32,
    /// The process.
    pub target: TargetInfo,
    /// The scheduler at the last look.
    pub scheduler: Scheduler,
    /// Every goroutine, with `--detail`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub goroutines: Vec<Listed>,
    /// Goroutines alive, by status.
    pub by_status: BTreeMap<String, u64>,
    /// How often it was looked at.
    pub looks: usize,
    /// From the first look to the last.
    pub looked_seconds: f64,
    /// How long the quota of its control group kept it from running meanwhile.
    pub throttled_seconds: Option<f64>,
    /// What is unusual.
    pub signs: Vec<Sign>,
}
