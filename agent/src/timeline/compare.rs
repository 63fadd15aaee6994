//! Two timelines side by side, before and after a deploy: which creation sites are new or grew.
//!
//! A site is compared by its median and highest number of live goroutines and by its growth, of all processes of a side together.
//! Lines move between builds: a site is the function that has the `go` statement and the function it starts.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use super::trend;
use crate::detect::Verdict;
use crate::record::{CreationSite, History, Moment};
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
    /// At half of the looks there were at most so many, in all processes that lived then.
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
fn measure(histories: &[History]) -> BTreeMap<SiteKey, (Measure, Option<String>)> {
    let mut places: BTreeMap<SiteKey, String> = BTreeMap::new();
    let mut verdicts: BTreeMap<SiteKey, Verdict> = BTreeMap::new();
    let key = |site: &CreationSite| {
        let by = site.created_by.as_ref().map_or(&site.start_function, |place| &place.function);
        (by.clone(), site.start_function.clone())
    };
    let mut looks: Vec<Look> = Vec::new();
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
        for sample in history.watches.iter().flat_map(|watch| &watch.samples) {
            let mut counts: BTreeMap<SiteKey, u64> = BTreeMap::new();
            for (site, live, ..) in &sample.sites {
                if let Some(key) = keys.get(*site) {
                    *counts.entry(key.clone()).or_default() += live;
                }
            }
            looks.push(Look { at: sample.at, life, counts });
        }
    }
    let (moments, totals) = over_time(looks);
    // Since all of those that were there in the end had begun.
    let whole = moments.iter().rposition(|moment| moment.begins).unwrap_or(0);
    totals
        .into_iter()
        .map(|(key, total)| {
            let points: Vec<(f64, f64)> = (whole..moments.len())
                .map(|moment| (moments[moment].mono_ns as f64 / 1e9, total.at(moment) as f64))
                .collect();
            let measure = Measure {
                median: total.median(moments.len()),
                peak: total.changes.iter().map(|(_, count)| *count).max().unwrap_or(0),
                growth_per_second: trend::fit(&points).map(|fit| fit.slope),
                verdict: verdicts.get(&key).copied(),
            };
            let place = places.get(&key).cloned();
            (key, (measure, place))
        })
        .collect()
}

/// Function with the `go` statement, and the function it starts.
type SiteKey = (String, String);

/// One look at one of the processes.
struct Look {
    at: Moment,
    /// Which process.
    life: usize,
    counts: BTreeMap<SiteKey, u64>,
}

/// When one of the processes was looked at.
struct Seen {
    mono_ns: u64,
    /// Whether it is the first look at that process.
    begins: bool,
}

/// Goroutines of all processes over time, by when their number changed: which look of all, and to what.
#[derive(Default)]
struct Total {
    changes: Vec<(usize, u64)>,
}

impl Total {
    /// So many more at this look, or fewer.
    fn change(&mut self, look: usize, by: i64) {
        let before = self.changes.last().map_or(0, |(_, count)| *count);
        self.changes.push((look, before.saturating_add_signed(by)));
    }

    fn at(&self, look: usize) -> u64 {
        let after = self.changes.partition_point(|(at, _)| *at <= look);
        after.checked_sub(1).map_or(0, |before| self.changes[before].1)
    }

    /// Of so many looks.
    fn median(&self, looks: usize) -> u64 {
        let begins = self.changes.first().map_or(looks, |(at, _)| *at);
        let ends = self.changes.iter().skip(1).map(|(at, _)| *at).chain([looks]);
        let mut lasted: Vec<(u64, usize)> =
            self.changes.iter().zip(ends).map(|((at, count), end)| (*count, end - at)).chain([(0, begins)]).collect();
        lasted.sort_unstable();
        let mut before = 0;
        let middle = lasted.iter().find(|(_, looks_there)| {
            before += looks_there;
            before > looks / 2
        });
        middle.map_or(0, |(count, _)| *count)
    }
}

/// All looks in order, and of each site the goroutines of all processes that lived then, as they were last seen.
fn over_time(mut looks: Vec<Look>) -> (Vec<Seen>, BTreeMap<SiteKey, Total>) {
    looks.sort_by_key(|look| (look.at.unix_ns, look.life));
    let last: BTreeMap<usize, usize> = looks.iter().enumerate().map(|(index, look)| (look.life, index)).collect();
    let mut totals: BTreeMap<SiteKey, Total> = BTreeMap::new();
    let mut living: BTreeMap<usize, &BTreeMap<SiteKey, u64>> = BTreeMap::new();
    let mut seen = Vec::new();
    for (index, look) in looks.iter().enumerate() {
        // One that is not looked at any more has ended.
        let ended = living.extract_if(.., |life, _| last.get(life).is_some_and(|last| *last < index));
        let mut gone: Vec<&BTreeMap<SiteKey, u64>> = ended.map(|(_, counts)| counts).collect();
        let before = living.insert(look.life, &look.counts);
        gone.extend(before);
        let mut changes: BTreeMap<&SiteKey, i64> = BTreeMap::new();
        for (counts, sign) in gone.into_iter().map(|counts| (counts, -1)).chain([(&look.counts, 1)]) {
            for (key, count) in counts {
                let change = changes.entry(key).or_default();
                *change = change.saturating_add(sign * i64::try_from(*count).unwrap_or(i64::MAX));
            }
        }
        for (key, by) in changes.into_iter().filter(|(_, by)| *by != 0) {
            totals.entry(key.clone()).or_default().change(index, by);
        }
        seen.push(Seen { mono_ns: look.at.mono_ns, begins: before.is_none() });
    }
    (seen, totals)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn look(second: u64, life: usize, count: u64) -> Look {
        let at = Moment { mono_ns: second * 1_000_000_000, unix_ns: second * 1_000_000_000 };
        Look { at, life, counts: BTreeMap::from([(("main.serve".to_owned(), "main.work".to_owned()), count)]) }
    }

    #[test]
    fn processes_that_run_beside_each_other_are_added_up() {
        // One has 3 all the time; the other comes at 2.5 s with 4, which become 5, and is last seen at 5.5 s.
        let mut looks: Vec<Look> = (0..10).map(|second| look(second, 0, 3)).collect();
        looks.extend([(2, 4), (3, 4), (4, 5), (5, 5)].map(|(second, count)| {
            let mut look = look(second, 1, count);
            look.at.unix_ns += 500_000_000;
            look
        }));
        let (seen, totals) = over_time(looks);
        let total = totals.values().next().expect("a site");
        let counts: Vec<u64> = (0..seen.len()).map(|look| total.at(look)).collect();
        assert_eq!(counts, [3, 3, 3, 7, 7, 7, 7, 8, 8, 8, 3, 3, 3, 3]);
        assert_eq!(seen.iter().filter(|seen| seen.begins).count(), 2);
        assert_eq!((total.median(seen.len()), total.changes.len()), (7, 4));
    }

    #[test]
    fn a_site_that_is_not_there_at_first_counts_as_none() {
        let mut total = Total::default();
        total.change(6, 9);
        assert_eq!((total.median(10), total.median(13), total.at(5), total.at(6)), (0, 9, 0, 9));
    }
}
