//! The time axis: wall-clock milliseconds of monotonic times, that never run backwards.
//!
//! Where the wall clock was set back, the times before are moved back as far, because what followed later was closer to
//! when somebody looked at the clock. Where it was set forward, or the machine slept, the jump stays: those hours did
//! pass, or were thought to have.

use std::collections::BTreeMap;

use crate::record::{History, Moment};

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Axis {
    /// For each boot, the offset of the wall clock from each monotonic time on, ascending.
    boots: BTreeMap<u64, Vec<(u64, i128)>>,
}

impl Axis {
    /// The axis of everything in `histories`.
    pub fn of(histories: &[History]) -> Self {
        let mut hosts: BTreeMap<&str, BTreeMap<u64, Vec<Moment>>> = BTreeMap::new();
        for history in histories {
            let moments = history.watches.iter().flat_map(|watch| watch.samples.iter().map(|sample| sample.at));
            let exit = history.exit.as_ref().map(|exit| exit.at);
            hosts.entry(&history.host).or_default().entry(history.boot).or_default().extend(moments.chain(exit));
        }
        let mut boots = BTreeMap::new();
        for of_host in hosts.into_values() {
            // The beginning of the boot after: no earlier boot of the host reaches into it.
            let mut limit: Option<i128> = None;
            for (boot, mut moments) in of_host.into_iter().rev() {
                moments.sort_unstable();
                let offset = |at: &Moment| i128::from(at.unix_ns) - i128::from(at.mono_ns);
                let beyond = match (limit, moments.last()) {
                    (Some(limit), Some(last)) => (i128::from(last.unix_ns) - limit).max(0),
                    _ => 0,
                };
                let mut offsets: Vec<(u64, i128)> =
                    moments.iter().map(|at| (at.mono_ns, offset(at) - beyond)).collect();
                let mut least = i128::MAX;
                for (_, offset) in offsets.iter_mut().rev() {
                    least = least.min(*offset);
                    *offset = least;
                }
                limit = offsets.first().map(|(mono, offset)| i128::from(*mono) + offset).or(limit);
                boots.insert(boot, offsets);
            }
        }
        Self { boots }
    }

    /// A monotonic time of a boot as Unix milliseconds.
    pub fn ms(&self, boot: u64, mono_ns: u64) -> u64 {
        let offsets = self.boots.get(&boot).map_or(&[][..], Vec::as_slice);
        let after = offsets.partition_point(|(mono, _)| *mono < mono_ns);
        let offset = offsets.get(after).or(offsets.last()).map_or(0, |(_, offset)| *offset);
        u64::try_from((i128::from(mono_ns) + offset) / 1_000_000).unwrap_or(0)
    }
}
