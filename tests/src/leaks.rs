//! What the Go program `leaks` says about its own goroutines, to compare parkwarden's reports with.

use std::collections::{BTreeMap, BTreeSet};

use parkwarden::report::{self, Report};
use parkwarden::snapshot::Snapshot;
use serde::Deserialize;

/// Everything the program says: each of its goroutines is in exactly one group.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Statement {
    /// Goroutines by creation site, blocking site and wait reason.
    pub classes: Vec<Group>,
    /// `runtime.NumGoroutine()`.
    pub num_goroutine: usize,
}

/// Goroutines of one creation site, one blocking site and one wait reason.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Group {
    /// One of [`CLASSES`], or empty for what the program runs besides its leaks.
    pub class: String,
    /// How many goroutines.
    pub count: usize,
    /// As in the header of a goroutine dump, such as `chan send`.
    pub wait_reason: String,
    /// The `go` statement; none for the main goroutine.
    pub created_by: Option<Place>,
    /// The first frame outside the packages runtime, sync and internal.
    pub blocked_at: Option<Place>,
    /// The goroutines' ids, ascending.
    pub goids: Vec<u64>,
}

/// A place in the program's source.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
pub struct Place {
    /// Qualified function name.
    pub function: String,
    /// File name as the compiler recorded it.
    pub file: String,
    /// Line number.
    pub line: u32,
}

/// The classes of leaks the program starts, in the order it starts them.
pub const CLASSES: [&str; 18] = [
    "chan-send",
    "chan-send-full",
    "chan-receive",
    "nil-chan-send",
    "nil-chan-receive",
    "select",
    "select-empty",
    "mutex",
    "rwmutex-rlock",
    "rwmutex-lock",
    "cond",
    "waitgroup",
    "sleep",
    "ticker",
    "time-after",
    "http-handler",
    "net-read",
    "syscall",
];

impl Statement {
    /// The groups of one class.
    pub fn of_class(&self, class: &str) -> impl Iterator<Item = &Group> {
        self.classes.iter().filter(move |group| group.class == class)
    }
}

/// The report's group for a group of the program's own statement.
pub fn group_of<'r>(report: &'r Report, said: &Group) -> Option<&'r report::Group> {
    let place =
        |place: &Option<Place>| place.as_ref().map(|place| (place.function.clone(), place.file.clone(), place.line));
    let ours = |place: &Option<parkwarden::words::Place>| {
        place.as_ref().map(|place| (place.function.clone(), place.file.clone(), place.line))
    };
    report.groups.iter().find(|group| {
        ours(&group.created_by) == place(&said.created_by)
            && ours(&group.blocked_at) == place(&said.blocked_at)
            && group.wait_reason == said.wait_reason
    })
}

/// Every leak the program made is reported with the right goroutines, places and reason, and no other of its
/// goroutines is in those groups.
///
/// # Panics
///
/// When it is not so.
pub fn assert_as_said(report: &Report, said: &Statement, what: &str) {
    for class in CLASSES {
        for expected in said.of_class(class) {
            if class == "syscall" {
                // Known to be the same call only from the second look on.
                if let Some(group) = group_of(report, expected) {
                    assert_eq!((group.wait_reason.as_str(), group.count), ("syscall", expected.count as u64), "{what}");
                }
                continue;
            }
            let group = group_of(report, expected)
                .unwrap_or_else(|| panic!("{what}: {class} is not reported: {expected:#?}\n{:#?}", report.groups));
            assert_eq!(group.count, expected.count as u64, "{what}: count of {class}");
            let goids: BTreeSet<u64> = group.goids.iter().copied().collect();
            assert_eq!(goids, expected.goids.iter().copied().collect(), "{what}: goroutines of {class}");
        }
    }
    assert_eq!(
        report.goroutines.live - report.goroutines.system,
        said.num_goroutine as u64,
        "{what}: runtime.NumGoroutine"
    );
}

/// Where goroutines were created, where they wait, and for what.
pub type Key = (Option<(String, String, u32)>, Option<(String, String, u32)>, String);

/// The program's goroutines by creation, blocking place and reason, as parkwarden sees them.
pub fn seen(snapshot: &Snapshot) -> BTreeMap<Key, u64> {
    let place = |place: &Option<parkwarden::words::Place>| {
        place.as_ref().map(|place| (place.function.clone(), place.file.clone(), place.line))
    };
    let mut counts = BTreeMap::new();
    for group in &snapshot.groups {
        for (reason, count) in &group.reasons {
            *counts.entry((place(&group.created_by), place(&group.blocked_at), reason.clone())).or_default() += count;
        }
    }
    counts
}

/// The same as the program says, of its leaks: what else it runs may move meanwhile.
pub fn said(statement: &Statement) -> BTreeMap<Key, u64> {
    let place =
        |place: &Option<Place>| place.as_ref().map(|place| (place.function.clone(), place.file.clone(), place.line));
    statement
        .classes
        .iter()
        .filter(|group| !group.class.is_empty())
        .map(|group| {
            ((place(&group.created_by), place(&group.blocked_at), group.wait_reason.clone()), group.count as u64)
        })
        .collect()
}

/// A snapshot has every leak of the program with the right count, and misses nothing.
///
/// # Panics
///
/// When it is not so.
pub fn assert_snapshot_as_said(snapshot: &Snapshot, statement: &Statement, what: &str) {
    let seen = seen(snapshot);
    for (key, count) in said(statement) {
        assert_eq!(seen.get(&key), Some(&count), "{what}: {key:?} in {seen:#?}");
    }
    assert_eq!(snapshot.goroutines.live - snapshot.goroutines.system, statement.num_goroutine as u64, "{what}");
    let lost = &snapshot.lost;
    assert_eq!((lost.census_read_fault, lost.stack_cut, lost.stack_unknown), (0, 0, 0), "{what}");
}
