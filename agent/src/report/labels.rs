//! The labels that a program has put on the goroutines of a group (`pprof.Do`): which tenant, which request.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::memory::labels::Labels;
use crate::words::{printable, short};

/// Keys told of one group, and values of a key.
const MAX_KEYS: usize = 8;
const MAX_VALUES: usize = 5;

/// Values named in text, and characters of one.
const MAX_NAMED: usize = 3;
const MAX_WIDTH: usize = 60;

/// A key, and what it says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct LabelValues {
    /// The label's key.
    pub key: String,
    /// How many of its goroutines have it, of those whose labels were read.
    pub count: u64,
    /// How many values there are.
    pub distinct: u64,
    /// The most frequent, with how many have each.
    pub values: Vec<(String, u64)>,
}

/// Of these goroutines' labels the most frequent keys and values.
pub(crate) fn most<'l>(all: impl Iterator<Item = &'l Labels>) -> Vec<LabelValues> {
    let mut by_key: BTreeMap<&str, BTreeMap<&str, u64>> = BTreeMap::new();
    for (key, value) in all.flatten() {
        *by_key.entry(key).or_default().entry(value).or_default() += 1;
    }
    let told = |(key, values): (&str, BTreeMap<&str, u64>)| {
        let (count, distinct) = (values.values().sum(), values.len() as u64);
        let mut values: Vec<(String, u64)> =
            values.into_iter().map(|(value, count)| (value.to_owned(), count)).collect();
        values.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        values.truncate(MAX_VALUES);
        LabelValues { key: key.to_owned(), count, distinct, values }
    };
    let mut keys: Vec<LabelValues> = by_key.into_iter().map(told).collect();
    keys.sort_by_key(|key| std::cmp::Reverse(key.count));
    keys.truncate(MAX_KEYS);
    keys
}

impl LabelValues {
    /// `tenant = a (98), b (12), 7 more values`.
    pub fn line(&self) -> String {
        let value = |(value, count): &(String, u64)| match value.as_str() {
            "" => format!("\"\" ({count})"),
            value => format!("{} ({count})", short::cut(&printable(value), MAX_WIDTH)),
        };
        let mut named: Vec<String> = self.values.iter().take(MAX_NAMED).map(value).collect();
        match self.distinct.saturating_sub(named.len() as u64) {
            0 => {}
            1 => named.push("1 more value".to_owned()),
            more => named.push(format!("{more} more values")),
        }
        format!("{} = {}", short::cut(&printable(&self.key), MAX_WIDTH), named.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_frequent_are_told_first() {
        let labels = |pairs: &[(&str, &str)]| -> Labels {
            pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
        };
        let mut all = vec![labels(&[("tenant", "b")])];
        all.extend((0..3).map(|_| labels(&[("tenant", "a"), ("handler", "/x\u{1b}[31m")])));
        all.extend(["c", "d"].map(|tenant| labels(&[("tenant", tenant)])));
        let lines: Vec<String> = most(all.iter()).iter().map(LabelValues::line).collect();
        assert_eq!(lines, ["tenant = a (3), b (1), c (1), 1 more value", "handler = /x\u{fffd}[31m (3)"]);
        assert!(most([].iter()).is_empty());
    }

    #[test]
    fn a_key_with_as_many_values_as_goroutines_is_no_more_than_its_count() {
        let all: Vec<Labels> =
            (0..1000).map(|id| [("trace".to_owned(), format!("{id:04}"))].into_iter().collect()).collect();
        let [trace] = &most(all.iter())[..] else { panic!("one key") };
        assert_eq!((trace.count, trace.distinct, trace.values.len()), (1000, 1000, MAX_VALUES));
        assert_eq!(trace.line(), "trace = 0000 (1), 0001 (1), 0002 (1), 997 more values");
    }
}
