//! The columns of the table of processes: what each is called, says, and is ordered by. A new column is a new row of each table
//! here.

use std::cmp::Ordering;

use clap::ValueEnum;

use super::model::Shown;
use crate::node::{ProcessKey, WatchState};
use crate::report::Numbers;
use crate::words::numbers::signed_rate;
use crate::words::{printable, short};

/// A column.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Column {
    /// Process id.
    Pid,
    /// Name of the executable.
    Name,
    /// The worst that is said of any of its goroutines: proven, likely, stuck or idle; then how many those are.
    #[default]
    Verdict,
    /// Goroutines of the program, those of the runtime left out.
    Goroutines,
    /// Goroutines that do not grow in number and wait for what does not come.
    Stuck,
    /// Goroutines that leak or behave like it.
    Leaked,
    /// By how many goroutines it grows, over the last looks.
    Growth,
    /// Bytes of stacks and heap that stuck and leaked goroutines hold.
    Held,
    /// Bytes of heap objects.
    Heap,
    /// The collector's share of the CPU that the program could use, in percent, over the last looks.
    Gc,
    /// Goroutines that are ready to run and wait for a processor.
    Runnable,
    /// What watching costs the program, in percent of a core.
    Cost,
}

impl Column {
    /// Its title.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Pid => "PID",
            Self::Name => "NAME",
            Self::Verdict => "VERDICT",
            Self::Goroutines => "GOROUT",
            Self::Stuck => "STUCK",
            Self::Leaked => "LEAKED",
            Self::Growth => "GROWTH",
            Self::Held => "HELD",
            Self::Heap => "HEAP",
            Self::Gc => "GC%",
            Self::Runnable => "RUN",
            Self::Cost => "COST",
        }
    }

    /// Cells that its values need; [`Column::Name`] has what is left.
    pub const fn width(self) -> u16 {
        match self {
            Self::Pid | Self::Verdict => 7,
            Self::Name => 0,
            Self::Goroutines | Self::Leaked => 6,
            Self::Growth => 8,
            Self::Stuck | Self::Held | Self::Heap => 5,
            Self::Gc | Self::Runnable => 3,
            Self::Cost => 4,
        }
    }

    /// Whether it has words, not numbers.
    pub const fn is_text(self) -> bool {
        matches!(self, Self::Name | Self::Verdict)
    }

    /// What it says, for `--help` and for the view's own help.
    pub fn says(self) -> String {
        let value = self.to_possible_value();
        value.and_then(|value| value.get_help().map(ToString::to_string)).unwrap_or_default()
    }

    /// The next in the table, or the one before.
    pub fn beside(self, forward: bool) -> Self {
        let all = Self::value_variants();
        let at = all.iter().position(|column| *column == self).unwrap_or(0);
        let next = if forward { at + 1 } else { at + all.len() - 1 };
        all[next % all.len()]
    }

    /// What it has of a process.
    pub fn cell(self, key: ProcessKey, process: &Shown) -> String {
        let of = |text: fn(&Numbers) -> String| process.numbers().map_or_else(|| "-".to_owned(), text);
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        match self {
            Self::Pid => key.pid.to_string(),
            Self::Name => printable(&process.name),
            Self::Verdict => match process.numbers() {
                Some(numbers) => numbers.verdict.map_or_else(|| "-".to_owned(), |verdict| verdict.to_string()),
                None => state(&process.state).to_owned(),
            },
            Self::Goroutines => of(|numbers| short::count(numbers.goroutines)),
            Self::Stuck => of(|numbers| short::count(numbers.stuck)),
            Self::Leaked => of(|numbers| short::count(numbers.leaked)),
            Self::Growth => or_dash(process.numbers().map(|_| signed_rate(process.growth))),
            Self::Held => of(|numbers| short::bytes(numbers.held)),
            Self::Heap => or_dash(process.numbers().and_then(|numbers| numbers.heap).map(short::bytes)),
            Self::Gc => or_dash(process.gc_share().map(|share| short::percent(100.0 * share))),
            Self::Runnable => or_dash(process.numbers().and_then(|numbers| numbers.runnable).map(short::count)),
            Self::Cost => of(|numbers| short::percent(numbers.cost)),
        }
    }

    /// What comes first: the worst or largest; of words the first. Processes of which nothing is known come last, then pids decide.
    pub fn order(self, a: (ProcessKey, &Shown), b: (ProcessKey, &Shown)) -> Ordering {
        let numbers = |of: fn(&Numbers) -> Option<u64>| b.1.numbers().and_then(of).cmp(&a.1.numbers().and_then(of));
        let floats = |of: fn(&Shown) -> Option<f64>| {
            of(b.1).unwrap_or(f64::NEG_INFINITY).total_cmp(&of(a.1).unwrap_or(f64::NEG_INFINITY))
        };
        let worst = |process: &Shown| {
            process.numbers().map(|numbers| (numbers.verdict, numbers.leaked, numbers.stuck, numbers.goroutines))
        };
        match self {
            Self::Pid => Ordering::Equal,
            Self::Name => a.1.name.cmp(&b.1.name),
            Self::Verdict => worst(b.1).cmp(&worst(a.1)),
            Self::Goroutines => numbers(|numbers| Some(numbers.goroutines)),
            Self::Stuck => numbers(|numbers| Some(numbers.stuck)),
            Self::Leaked => numbers(|numbers| Some(numbers.leaked)),
            Self::Growth => floats(|process| process.numbers().map(|_| process.growth)),
            Self::Held => numbers(|numbers| Some(numbers.held)),
            Self::Heap => numbers(|numbers| numbers.heap),
            Self::Gc => floats(Shown::gc_share),
            Self::Runnable => numbers(|numbers| numbers.runnable),
            Self::Cost => floats(|process| process.numbers().map(|numbers| numbers.cost)),
        }
        .then_with(|| a.0.cmp(&b.0))
    }
}

/// What becomes of a process, in the place of a verdict.
const fn state(state: &WatchState) -> &'static str {
    match state {
        WatchState::Starting => "starts",
        WatchState::Watched => "watched",
        WatchState::Unselected { .. } => "skipped",
        WatchState::Refused { .. } => "refused",
    }
}
