//! Metric families in the making.

use std::collections::BTreeMap;

use prometheus::proto::{
    Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType, Quantile, Summary,
};

use super::definitions::{Definition, Kind, PROCESS};
use crate::words::short;

/// Characters of a label's value that are kept.
const MAX_VALUE: usize = 256;

/// What a series says.
pub enum Value<'a> {
    /// Of a gauge or counter.
    Number(f64),
    /// Bounds, counts of what lies between them, and the sum.
    Histogram(&'a [f64], &'a [u64], f64),
    /// Quantiles with their values, the count and the sum.
    Summary(&'a [(f64, f64)], u64, f64),
}

/// See the module.
#[derive(Default)]
pub struct Scrape {
    families: BTreeMap<&'static str, (Definition, Vec<Metric>)>,
    series: usize,
}

impl Scrape {
    /// Adds a series, with the values of all labels in their order.
    pub fn add(&mut self, definition: &Definition, values: &[&str], value: &Value<'_>) {
        let process: &[&str] = if definition.of_process { &PROCESS } else { &[] };
        let names = process.iter().chain(definition.labels);
        debug_assert_eq!(names.clone().count(), values.len(), "{}", definition.name);
        let labels = names.zip(values).map(|(name, value)| {
            let mut pair = LabelPair::default();
            pair.set_name((*name).to_owned());
            // Of a place the end is file and line.
            pair.set_value(short::cut_middle(value, MAX_VALUE));
            pair
        });
        let mut metric = Metric::from_label(labels.collect());
        match value {
            Value::Number(number) if definition.kind == Kind::Counter => {
                let mut counter = Counter::default();
                counter.set_value(*number);
                metric.set_counter(counter);
            }
            Value::Number(number) => {
                let mut gauge = Gauge::default();
                gauge.set_value(*number);
                metric.set_gauge(gauge);
            }
            Value::Summary(quantiles, count, sum) => metric.set_summary(summary(quantiles, *count, *sum)),
            Value::Histogram(bounds, counts, sum) => metric.set_histogram(histogram(bounds, counts, *sum)),
        }
        self.series += match value {
            Value::Number(_) => 1,
            // A bucket more than there are bounds, sum and count.
            Value::Histogram(bounds, ..) => bounds.len() + 3,
            Value::Summary(quantiles, ..) => quantiles.len() + 2,
        };
        self.families.entry(definition.name).or_insert_with(|| (*definition, Vec::new())).1.push(metric);
    }

    /// How many series there are.
    pub fn series(&self) -> usize {
        self.series
    }

    /// Adds all of another.
    pub fn append(&mut self, other: Self) {
        self.series += other.series;
        for (name, (definition, metrics)) in other.families {
            self.families.entry(name).or_insert_with(|| (definition, Vec::new())).1.extend(metrics);
        }
    }

    /// The families, by name.
    pub fn families(self) -> Vec<MetricFamily> {
        let family = |(definition, metrics): (Definition, Vec<Metric>)| {
            let mut family = MetricFamily::default();
            family.set_name(definition.name.to_owned());
            family.set_help(definition.help.to_owned());
            family.set_field_type(match definition.kind {
                Kind::Gauge => MetricType::GAUGE,
                Kind::Counter => MetricType::COUNTER,
                Kind::Histogram => MetricType::HISTOGRAM,
                Kind::Summary => MetricType::SUMMARY,
            });
            family.set_metric(metrics);
            family
        };
        self.families.into_values().map(family).collect()
    }
}

fn summary(quantiles: &[(f64, f64)], count: u64, sum: f64) -> Summary {
    let quantile = |(share, value): &(f64, f64)| {
        let mut quantile = Quantile::default();
        quantile.set_quantile(*share);
        quantile.set_value(*value);
        quantile
    };
    let mut summary = Summary::default();
    summary.set_sample_count(count);
    summary.set_sample_sum(sum);
    summary.set_quantile(quantiles.iter().map(quantile).collect());
    summary
}

fn histogram(bounds: &[f64], counts: &[u64], sum: f64) -> Histogram {
    let mut buckets = Vec::with_capacity(bounds.len());
    let mut cumulative = 0;
    for (bound, count) in bounds.iter().zip(counts) {
        cumulative += count;
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(*bound);
        bucket.set_cumulative_count(cumulative);
        buckets.push(bucket);
    }
    let mut histogram = Histogram::default();
    histogram.set_sample_count(counts.iter().sum());
    histogram.set_sample_sum(sum);
    histogram.set_bucket(buckets);
    histogram
}
