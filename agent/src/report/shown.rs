//! How much of a report is shown as text, and how.

use anstyle::{AnsiColor, Style};

use super::Group;
use crate::detect::Verdict;
use crate::golang::names::package;

/// See the module.
#[derive(Clone, Debug)]
pub struct Shown {
    /// Rows of the table at most.
    pub rows: usize,
    /// Groups told in full at most.
    pub details: usize,
    /// Frames of a stack at most.
    pub frames: usize,
    /// Whether idle groups are told in full too, and the probes one by one.
    pub all: bool,
    /// Which groups.
    pub filter: Filter,
    /// Whether verdicts have colours.
    pub color: bool,
    /// Columns of the terminal, if there is one.
    pub width: Option<usize>,
}

impl Default for Shown {
    fn default() -> Self {
        Self { rows: 20, details: 5, frames: 12, all: false, filter: Filter::default(), color: false, width: None }
    }
}

/// Groups that somebody wants to see. What is not given fits every group.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Those made, started or blocked in a package whose path ends so.
    pub package: Option<String>,
    /// Those whose wait reason has this in it.
    pub reason: Option<String>,
    /// Those with this verdict, or a worse one.
    pub verdict: Option<Verdict>,
    /// Those with so many goroutines at least.
    pub min_count: u64,
}

impl Filter {
    /// Whether a group is wanted.
    pub fn fits(&self, group: &Group) -> bool {
        let is_of = |function: &str, wanted: &str| {
            let package = package(function);
            package.strip_suffix(wanted).is_some_and(|before| before.is_empty() || before.ends_with('/'))
        };
        let within = |wanted: &String| {
            let places = [&group.created_by, &group.blocked_at, &group.in_program].into_iter().flatten();
            places.map(|place| place.function.as_str()).chain([group.start_function.as_str()]).any(|f| is_of(f, wanted))
        };
        group.count >= self.min_count
            && self.verdict.is_none_or(|verdict| group.verdict >= verdict)
            && self.reason.as_ref().is_none_or(|reason| group.wait_reason.contains(reason.as_str()))
            && self.package.as_ref().is_none_or(within)
    }
}

impl Shown {
    /// A verdict as text of this width, in its colour.
    pub(super) fn verdict(&self, verdict: Verdict, width: usize) -> String {
        let text = format!("{:<width$}", verdict.to_string().to_uppercase());
        if !self.color {
            return text;
        }
        let style = match verdict {
            Verdict::Proven => Style::new().fg_color(Some(AnsiColor::Red.into())).bold(),
            Verdict::Likely => Style::new().fg_color(Some(AnsiColor::Yellow.into())).bold(),
            Verdict::Stuck => Style::new().fg_color(Some(AnsiColor::Magenta.into())).bold(),
            Verdict::Idle => Style::new().dimmed(),
        };
        format!("{style}{text}{style:#}")
    }

    /// A heading.
    pub(super) fn heading(&self, text: &str) -> String {
        let bold = Style::new().bold();
        if self.color { format!("{bold}{text}{bold:#}") } else { text.to_owned() }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::report::{Span, StartedBy};
    use crate::words::Place;

    pub(in crate::report) fn group(function: &str, reason: &str, verdict: Verdict, count: u64) -> Group {
        let place = Place { function: function.to_owned(), file: "main.go".to_owned(), line: 7 };
        Group {
            key: None,
            verdict,
            count,
            waiting: count,
            loops: false,
            growth_per_second: 0.0,
            wait_reason: reason.to_owned(),
            created_by: Some(place),
            started_by: StartedBy::default(),
            labels: Vec::new(),
            start_function: "net/http.(*conn).serve".to_owned(),
            blocked_at: None,
            in_program: None,
            stack: Vec::new(),
            parked_seconds: Span { min: 1.0, max: 2.0 },
            goids: Vec::new(),
            stack_bytes: 2048,
            heap_bytes: None,
            heap_kinds: Vec::new(),
            proven: 0,
            cause: None,
            evidence: Vec::new(),
            asks: false,
        }
    }

    #[test]
    fn a_filter_wants_all_that_it_says() {
        let group = group("example.com/shop/cart.(*Cart).add", "chan send", Verdict::Stuck, 5);
        let fits = |filter: Filter| filter.fits(&group);
        assert!(fits(Filter::default()));
        for package in ["cart", "shop/cart", "example.com/shop/cart", "http", "net/http"] {
            assert!(fits(Filter { package: Some(package.to_owned()), ..Filter::default() }), "{package}");
        }
        for package in ["art", "shop", "main"] {
            assert!(!fits(Filter { package: Some(package.to_owned()), ..Filter::default() }), "{package}");
        }
        assert!(fits(Filter { reason: Some("send".to_owned()), verdict: Some(Verdict::Stuck), ..Filter::default() }));
        assert!(!fits(Filter { verdict: Some(Verdict::Likely), ..Filter::default() }));
        assert!(
            fits(Filter { min_count: 5, ..Filter::default() }) && !fits(Filter { min_count: 6, ..Filter::default() })
        );
    }

    #[test]
    fn colours_are_only_where_they_are_wanted() {
        let plain = Shown::default();
        assert_eq!(plain.verdict(Verdict::Idle, 6), "IDLE  ");
        let coloured = Shown { color: true, ..plain };
        assert!(
            coloured.verdict(Verdict::Proven, 6).contains("\u{1b}[") && coloured.heading("x").ends_with("\u{1b}[0m")
        );
    }
}
