//! What the Go program `leaks` says about its own goroutines, to compare parkwarden's reports with.

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
