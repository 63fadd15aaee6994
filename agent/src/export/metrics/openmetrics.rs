//! Families as OpenMetrics text, version 1.0.0, for who asks for it; the Prometheus crate writes the older format alone.
//!
//! What differs: the family of a counter is named without `_total`, bounds and quantiles are always floats, and the end is said.
//! A counter whose family would be called as another is (`go_memstats_alloc_bytes_total` beside `go_memstats_alloc_bytes`) is of
//! the type `unknown`, by its whole name.

use std::collections::BTreeSet;
use std::fmt::{Display, Write as _};

use prometheus::proto::{LabelPair, Metric, MetricFamily, MetricType};

/// The content type of it.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Whether the values of `Accept` ask for it, and for nothing older rather.
pub fn is_wanted<'a>(accept: impl Iterator<Item = &'a str>) -> bool {
    let (mut open, mut text) = (0.0_f64, 0.0_f64);
    for range in accept.flat_map(|value| value.split(',')) {
        let mut parts = range.split(';').map(str::trim);
        let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
        let (mut quality, mut version) = (1.0, "1.0.0");
        for (name, value) in parts.filter_map(|part| part.split_once('=')) {
            match name.trim() {
                // What is no number is no wish.
                "q" => quality = value.trim().parse().unwrap_or(0.0),
                "version" => version = value.trim().trim_matches('"'),
                _ => {}
            }
        }
        match &*kind {
            "application/openmetrics-text" if version == "1.0.0" => open = open.max(quality),
            "text/plain" => text = text.max(quality),
            _ => {}
        }
    }
    open > 0.0 && open >= text
}

/// All of a scrape.
pub fn encode(families: &[MetricFamily]) -> Vec<u8> {
    let names: BTreeSet<&str> = families.iter().map(MetricFamily::name).collect();
    let mut text = String::new();
    for family in families {
        let name = family.name();
        let (family_name, kind) = match (family.get_field_type(), name.strip_suffix("_total")) {
            (MetricType::COUNTER, Some(base)) if !names.contains(base) => (base, "counter"),
            (MetricType::COUNTER | MetricType::UNTYPED, _) => (name, "unknown"),
            (MetricType::GAUGE, _) => (name, "gauge"),
            (MetricType::HISTOGRAM, _) => (name, "histogram"),
            (MetricType::SUMMARY, _) => (name, "summary"),
        };
        // Writing to a string does not fail.
        let _ = writeln!(text, "# TYPE {family_name} {kind}\n# HELP {family_name} {}", escaped(family.help()));
        for metric in family.get_metric() {
            add(&mut text, name, family.get_field_type(), metric);
        }
    }
    text.push_str("# EOF\n");
    text.into_bytes()
}

fn add(text: &mut String, name: &str, kind: MetricType, metric: &Metric) {
    let labels = metric.get_label();
    match kind {
        MetricType::COUNTER => sample(text, name, labels, None, number(metric.get_counter().get_value())),
        MetricType::HISTOGRAM => {
            let histogram = metric.get_histogram();
            let bucket = format!("{name}_bucket");
            for each in histogram.get_bucket() {
                let bound = canonical(each.upper_bound());
                sample(text, &bucket, labels, Some(("le", &bound)), each.cumulative_count());
            }
            sample(text, &bucket, labels, Some(("le", "+Inf")), histogram.get_sample_count());
            sample(text, &format!("{name}_sum"), labels, None, number(histogram.get_sample_sum()));
            sample(text, &format!("{name}_count"), labels, None, histogram.get_sample_count());
        }
        MetricType::SUMMARY => {
            let summary = metric.get_summary();
            for each in summary.get_quantile() {
                let quantile = canonical(each.quantile());
                sample(text, name, labels, Some(("quantile", &quantile)), number(each.value()));
            }
            sample(text, &format!("{name}_sum"), labels, None, number(summary.sample_sum()));
            sample(text, &format!("{name}_count"), labels, None, summary.sample_count());
        }
        MetricType::GAUGE | MetricType::UNTYPED => {
            sample(text, name, labels, None, number(metric.get_gauge().get_value()));
        }
    }
}

fn sample(text: &mut String, name: &str, labels: &[LabelPair], own: Option<(&str, &str)>, value: impl Display) {
    let pairs = labels.iter().map(|pair| (pair.name(), pair.value())).chain(own);
    let pairs: Vec<String> = pairs.map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
    let _ = if pairs.is_empty() {
        writeln!(text, "{name} {value}")
    } else {
        writeln!(text, "{name}{{{}}} {value}", pairs.join(","))
    };
}

/// A value as this format has it.
fn number(value: f64) -> String {
    match value {
        value if value.is_nan() => "NaN".to_owned(),
        f64::INFINITY => "+Inf".to_owned(),
        f64::NEG_INFINITY => "-Inf".to_owned(),
        value => value.to_string(),
    }
}

/// A bound or quantile, in the one form that there is of each: `1.0`, `0.0001`, `6.4e-08`.
fn canonical(value: f64) -> String {
    if !value.is_finite() {
        return number(value);
    }
    let text = format!("{value:?}");
    match text.split_once("e-") {
        Some((digits, exponent)) => format!("{digits}e-{exponent:0>2}"),
        None => text.replace('e', "e+"),
    }
}

/// A label's value or a help text, which may have any character.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\n', "\\n").replace('"', "\\\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_for_who_asks_for_it() {
        let wanted = |accept: &[&str]| is_wanted(accept.iter().copied());
        // Prometheus 2.42 and 3.5.
        assert!(wanted(&[
            "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
             text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
        ]));
        assert!(wanted(&[
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,text/plain;version=0.0.4;q=0.2"
        ]));
        assert!(wanted(&["text/plain; q=0.5", "Application/OpenMetrics-Text; version=\"1.0.0\""]));
        for other in [
            "*/*",
            "",
            "text/plain",
            "application/openmetrics-text;version=0.0.1",
            "application/openmetrics-text;q=0",
            "application/openmetrics-text;q=x",
            "application/openmetrics-text;q=0.1,text/plain",
            "application/openmetrics-text-of-another-kind",
        ] {
            assert!(!wanted(&[other]), "{other}");
        }
    }

    #[test]
    fn bounds_have_one_form() {
        let forms = [0.0, 1.0, 2.5, 0.0001, 6.4e-8, 1e-10, 100_000.0, 1e20, f64::INFINITY].map(canonical);
        assert_eq!(forms, ["0.0", "1.0", "2.5", "0.0001", "6.4e-08", "1e-10", "100000.0", "1e+20", "+Inf"]);
        assert_eq!([f64::NAN, f64::NEG_INFINITY, 3.0].map(number), ["NaN", "-Inf", "3"]);
        assert_eq!(escaped("a\"\\\n"), "a\\\"\\\\\\n");
    }
}
