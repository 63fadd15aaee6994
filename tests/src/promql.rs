//! Queries of rules and dashboards, held against the metrics that there are. Whether they parse, promtool tells.

use std::collections::BTreeSet;

use parkwarden::export::metrics::definitions::{ALL, Definition, Kind, PROCESS};
use parkwarden::export::metrics::runtime;

/// Labels that Prometheus adds to whatever it scrapes.
const SCRAPED: [&str; 2] = ["instance", "job"];

/// What a query can be grouped by: the labels of all metrics in it.
///
/// # Panics
///
/// When it names a metric that there is not, or selects or groups by a label that its metrics do not have.
pub fn labels(query: &str) -> BTreeSet<&'static str> {
    let mut all: BTreeSet<&'static str> = BTreeSet::new();
    let is_metric = |word: &str| ["parkwarden_", "go_", "process_"].iter().any(|begin| word.starts_with(begin));
    for (name, rest) in words(query).filter(|(word, _)| is_metric(word)) {
        let own = labels_of(name).unwrap_or_else(|| panic!("{name} is no metric of the agent: {query}"));
        for label in selected(rest) {
            assert!(own.contains(label), "{name} has no label {label}: {query}");
        }
        all.extend(own);
    }
    assert!(!all.is_empty(), "it is about none of the agent's metrics: {query}");
    for (_, rest) in words(query).filter(|(word, _)| matches!(*word, "by" | "on" | "without" | "ignoring")) {
        let listed = rest.trim_start().strip_prefix('(').and_then(|rest| rest.split_once(')'));
        let (listed, _) = listed.unwrap_or_else(|| panic!("labels in parentheses are expected: {query}"));
        for label in listed.split(',').map(str::trim) {
            assert!(all.contains(label), "there is no label {label}: {query}");
        }
    }
    all
}

/// Every word, with what is behind it; nothing within quotes.
fn words(query: &str) -> impl Iterator<Item = (&str, &str)> {
    let mut rest = query;
    std::iter::from_fn(move || {
        loop {
            let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | ':');
            let start = rest.find(|c| is_part(c) || c == '"')?;
            if let Some(quoted) = rest[start..].strip_prefix('"') {
                rest = quoted.split_once('"').map_or("", |(_, after)| after);
                continue;
            }
            let end = rest[start..].find(|c| !is_part(c)).map_or(rest.len(), |length| start + length);
            let word = (&rest[start..end], &rest[end..]);
            rest = &rest[end..];
            return Some(word);
        }
    })
}

/// The labels of a selector that begins here, if one does.
fn selected(rest: &str) -> Vec<&str> {
    let Some(matchers) = rest.strip_prefix('{') else { return Vec::new() };
    let followed_by_operator = |(_, rest): &(&str, &str)| rest.trim_start().starts_with(['=', '!']);
    let end = end_of_selector(matchers);
    words(&matchers[..end]).filter(followed_by_operator).map(|(word, _)| word).collect()
}

fn end_of_selector(matchers: &str) -> usize {
    let mut quoted = false;
    let end = matchers.find(|c| {
        quoted ^= c == '"';
        c == '}' && !quoted
    });
    end.unwrap_or_else(|| panic!("a selector does not end: {matchers}"))
}

/// The labels of a series of the agent's.
fn labels_of(series: &str) -> Option<BTreeSet<&'static str>> {
    let is = |metric: &&Definition| {
        matches!(
            (metric.kind, series.strip_prefix(metric.name)),
            (Kind::Histogram, Some("_bucket" | "_sum" | "_count"))
                | (Kind::Summary, Some("" | "_sum" | "_count"))
                | (Kind::Gauge | Kind::Counter, Some(""))
        )
    };
    let metric = ALL.iter().chain(runtime::ALL.iter().map(|row| &row.definition)).find(is)?;
    let bucket = match metric.kind {
        Kind::Histogram if series.ends_with("_bucket") => &["le"][..],
        Kind::Summary if series == metric.name => &["quantile"],
        _ => &[],
    };
    let process: &[&str] = if metric.of_process { &PROCESS } else { &[] };
    Some(process.iter().chain(metric.labels).chain(bucket).chain(&SCRAPED).copied().collect())
}
