//! Two timelines side by side, before and after a deploy: which creation sites are new or grew.
//!
//! A site is compared by its median and highest number of live goroutines and by its growth. Lines move between builds:
//! a site is the function that has the `go` statement and the function it starts.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use super::trend;
use crate::detect::Verdict;
use crate::record::History;
use crate::words::numbers::{self, number, rate};
use crate::words::printable;

/// Sites told of in text.
const MAX_SITES_SHOWN: usize = 40;

/// The document.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Comparison {
    /// [`super::SCHEMA`]
    pub schema: u32,
    /// The earlier side.
    pub before: Side,
    /// The later side.
    pub after: Side,
    /// Those that are new first, then those that grew most.
    pub sites: Vec<SiteChange>,
}

/// What one side is of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Side {
    /// Executables and pids.
    pub processes: Vec<(String, u32)>,
    /// The first look.
    pub from_unix_ms: u64,
    /// The last.
    pub to_unix_ms: u64,
    /// Looks.
    pub looks: usize,
}

/// A site on both sides.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SiteChange {
    /// What became of it.
    pub change: Change,
    /// The function with the `go` statement; the start function where no `go` statement is known.
    pub created_by: String,
    /// Where it is, on the later side if it is there.
    pub place: Option<String>,
    /// What it starts.
    pub start_function: String,
    /// Before.
    pub before: Measure,
    /// After.
    pub after: Measure,
}

/// What became of a site. The order is that of the document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
#[derive(strum::Display, strum::VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum Change {
    /// It was not there before.
    New,
    /// It has clearly more goroutines, or grows and did not.
    Grew,
    /// Nothing to speak of.
    Same,
    /// It has clearly fewer.
    Shrank,
    /// It is not there any more.
    Gone,
}

/// Live goroutines of a site on one side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Measure {
    /// At half of the looks there were at most so many.
    pub median: u64,
    /// The most at a look.
    pub peak: u64,
    /// How fast they grew, if they did.
    pub growth_per_second: Option<f64>,
    /// The strongest verdict of its groups.
    pub verdict: Option<Verdict>,
}

/// Compares two sides.
pub fn compare(before: &[History], after: &[History]) -> Comparison {
    let (mut was, mut is) = (measure(before), measure(after));
    let mut keys: Vec<(String, String)> = was.keys().chain(is.keys()).cloned().collect();
    keys.sort();
    keys.dedup();
    let mut sites: Vec<SiteChange> = keys
        .into_iter()
        .map(|key| {
            let (before, place_before) = was.remove(&key).unwrap_or_default();
            let (after, place) = is.remove(&key).unwrap_or_default();
            SiteChange {
                change: judge(&before, &after),
                created_by: key.0,
                place: place.or(place_before),
                start_function: key.1,
                before,
                after,
            }
        })
        .collect();
    sites.sort_by_key(|site| (site.change, std::cmp::Reverse(site.after.peak.saturating_sub(site.before.peak))));
    Comparison { schema: super::SCHEMA, before: side(before), after: side(after), sites }
}

fn judge(before: &Measure, after: &Measure) -> Change {
    // A tenth more, and a handful at least, is beyond what the hour of the day does to small numbers.
    let clearly_more = |more: &Measure, than: &Measure| {
        let margin = 5 + than.peak / 10;
        more.median > than.median + margin && more.peak > than.peak + margin
    };
    let leaks = |measure: &Measure| measure.verdict.is_some_and(Verdict::is_leak);
    match (before.peak, after.peak) {
        (0, 0) => Change::Same,
        (0, _) => Change::New,
        (_, 0) => Change::Gone,
        _ if clearly_more(after, before) => Change::Grew,
        _ if clearly_more(before, after) => Change::Shrank,
        _ if leaks(after) && !leaks(before) => Change::Grew,
        _ if leaks(before) && !leaks(after) => Change::Shrank,
        _ => Change::Same,
    }
}

fn side(histories: &[History]) -> Side {
    let samples = || histories.iter().flat_map(|history| &history.watches).flat_map(|watch| &watch.samples);
    let unix_ms = || samples().map(|sample| sample.at.unix_ns / 1_000_000);
    Side {
        processes: histories.iter().map(|history| (history.process.exe.clone(), history.process.pid)).collect(),
        from_unix_ms: unix_ms().min().unwrap_or(0),
        to_unix_ms: unix_ms().max().unwrap_or(0),
        looks: samples().count(),
    }
}

/// By creating function and start function: the measure, and the place.
fn measure(histories: &[History]) -> BTreeMap<(String, String), (Measure, Option<String>)> {
    let mut series: BTreeMap<(String, String), BTreeMap<(usize, usize), u64>> = BTreeMap::new();
    let mut places: BTreeMap<(String, String), String> = BTreeMap::new();
    let mut verdicts: BTreeMap<(String, String), Verdict> = BTreeMap::new();
    let key = |site: &crate::record::CreationSite| {
        let by = site.created_by.as_ref().map_or(&site.start_function, |place| &place.function);
        (by.clone(), site.start_function.clone())
    };
    let mut times: Vec<Vec<f64>> = Vec::new();
    for (life, history) in histories.iter().enumerate() {
        let keys: Vec<_> = history.sites.iter().map(key).collect();
        for (site, key) in history.sites.iter().zip(&keys) {
            if let Some(place) = &site.created_by {
                places.insert(key.clone(), format!("{}:{}", place.file, place.line));
            }
        }
        for group in &history.groups {
            if let Some(verdict) = group.verdicts.iter().map(|change| change.judgement.verdict).max() {
                let known = verdicts.entry(key(&group.group.site)).or_insert(verdict);
                *known = verdict.max(*known);
            }
        }
        let samples: Vec<_> = history.watches.iter().flat_map(|watch| &watch.samples).collect();
        for (look, sample) in samples.iter().enumerate() {
            for (site, live, ..) in &sample.sites {
                if let Some(key) = keys.get(*site) {
                    *series.entry(key.clone()).or_default().entry((life, look)).or_default() += live;
                }
            }
        }
        times.push(samples.iter().map(|sample| sample.at.mono_ns as f64 / 1e9).collect());
    }
    let looks: usize = times.iter().map(Vec::len).sum();
    series
        .into_iter()
        .map(|(key, counts)| {
            // Looks without any count as zero.
            let mut sorted: Vec<u64> = counts.values().copied().collect();
            sorted.sort_unstable();
            let zeros = looks - sorted.len();
            let median = (looks / 2).checked_sub(zeros).and_then(|at| sorted.get(at)).copied().unwrap_or(0);
            let last = times.len().saturating_sub(1);
            let points: Vec<(f64, f64)> = times
                .last()
                .map_or(&[][..], Vec::as_slice)
                .iter()
                .enumerate()
                .map(|(look, t)| (*t, counts.get(&(last, look)).copied().unwrap_or(0) as f64))
                .collect();
            let measure = Measure {
                median,
                peak: sorted.last().copied().unwrap_or(0),
                growth_per_second: trend::fit(&points).map(|fit| fit.slope),
                verdict: verdicts.get(&key).copied(),
            };
            let place = places.get(&key).cloned();
            (key, (measure, place))
        })
        .collect()
}

/// The comparison for a person.
pub fn render(comparison: &Comparison) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = write(&mut out, comparison);
    out
}

fn write(out: &mut String, comparison: &Comparison) -> std::fmt::Result {
    for (name, side) in [("before", &comparison.before), ("after", &comparison.after)] {
        let processes: Vec<String> =
            side.processes.iter().map(|(exe, pid)| format!("pid {pid} {}", printable(exe))).collect();
        writeln!(
            out,
            "{name:<7} {} to {} UTC, {} looks: {}",
            numbers::full(side.from_unix_ms),
            numbers::full(side.to_unix_ms),
            side.looks,
            processes.join(", ")
        )?;
    }
    let changed: Vec<&SiteChange> = comparison.sites.iter().filter(|site| site.change != Change::Same).collect();
    if changed.is_empty() {
        return writeln!(out, "\nNo go statement is new, grew or shrank.");
    }
    writeln!(out, "\nCHANGE  MEDIAN           PEAK             GROWTH      GO STATEMENT")?;
    for site in changed.iter().take(MAX_SITES_SHOWN) {
        let pair = |a: u64, b: u64| format!("{} → {}", number(a), number(b));
        writeln!(
            out,
            "{:<7} {:<16} {:<16} {:<11} {}{}",
            site.change,
            pair(site.before.median, site.after.median),
            pair(site.before.peak, site.after.peak),
            site.after.growth_per_second.map_or("-".to_owned(), |growth| format!("+{}", rate(growth))),
            printable(&site.created_by),
            site.place.as_ref().map(|place| format!(" {}", printable(place))).unwrap_or_default(),
        )?;
    }
    let same = comparison.sites.len() - changed.len();
    writeln!(out, "\n{same} more without a change to speak of.")
}
