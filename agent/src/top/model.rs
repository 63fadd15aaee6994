//! What there is to show: each process with its latest report, and of earlier ones what makes a line. A pure value.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

use crate::detect::Series;
use crate::discover::describe::Description;
use crate::node::{Node, NodeProcess, ProcessKey, WatchState};
use crate::report::{Group, Numbers, Report};

/// Looks at a process that its lines are made of.
const POINTS: usize = 120;

/// Groups of a process that have a line of their own, the largest.
const GROUPS: usize = 20;

/// Everything that is shown.
#[derive(Debug, Default)]
pub struct Model {
    /// The processes, by pid.
    pub processes: BTreeMap<ProcessKey, Shown>,
    /// Processes that may not be looked at.
    pub unseen: usize,
    /// Whether all processes that were there at the beginning have been looked for.
    pub ready: bool,
    /// What was logged last.
    pub logged: Option<String>,
}

/// One process.
#[derive(Debug)]
pub struct Shown {
    /// Base name of its executable.
    pub name: String,
    /// User and command line.
    pub described: Description,
    /// What becomes of it.
    pub state: WatchState,
    /// What the last look found.
    pub report: Option<Arc<Report>>,
    /// Numbers of the last looks, the oldest first.
    pub history: VecDeque<Numbers>,
    /// By how many its goroutines have grown a second, over these looks.
    pub growth: f64,
    groups: HashMap<GroupId, VecDeque<u64>>,
}

/// Which group it is, from one look to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct GroupId(u64);

impl GroupId {
    /// Of a group: its `go` statement, where it stands and why.
    pub fn of(group: &Group) -> Self {
        let mut hasher = DefaultHasher::new();
        (&group.created_by, &group.start_function, &group.wait_reason).hash(&mut hasher);
        for frame in &group.stack {
            (&frame.function, &frame.file, frame.line).hash(&mut hasher);
        }
        Self(hasher.finish())
    }
}

impl Shown {
    /// A process that has just been found.
    pub fn new(name: String, described: Description, state: WatchState) -> Self {
        Self { name, described, state, report: None, history: VecDeque::new(), growth: 0.0, groups: HashMap::new() }
    }

    /// It has been looked at. Of a report that is known already nothing new is learned.
    pub fn looked(&mut self, report: Arc<Report>) {
        if self.report.as_ref().is_some_and(|known| Arc::ptr_eq(known, &report)) {
            return;
        }
        let numbers = Numbers::of(&report);
        if self.history.back().is_some_and(|last| last.seconds > numbers.seconds) {
            // Another watch of it.
            self.forget();
        }
        push(&mut self.history, numbers);
        self.growth = growth(&self.history);
        let counts: HashMap<GroupId, u64> =
            report.worst_first().into_iter().take(GROUPS).map(|group| (GroupId::of(group), group.count)).collect();
        self.groups.retain(|id, _| counts.contains_key(id));
        for (id, count) in counts {
            push(self.groups.entry(id).or_default(), count);
        }
        self.report = Some(report);
    }

    /// It is not watched, or not yet.
    fn forget(&mut self) {
        self.report = None;
        self.history.clear();
        self.groups.clear();
    }

    /// What the last look came to.
    pub fn numbers(&self) -> Option<&Numbers> {
        self.history.back()
    }

    /// The collector's share of the CPU, over the looks that are kept: the runtime adds it up at the end of each collection. None
    /// where there was no collection.
    pub fn gc_share(&self) -> Option<f64> {
        let of = |look: Option<&Numbers>| look.and_then(|look| look.gc);
        let ((gc, total), (gc_then, total_then)) = (of(self.history.back())?, of(self.history.front())?);
        let passed = total.saturating_sub(total_then);
        (passed > 0).then(|| gc.saturating_sub(gc_then) as f64 / passed as f64)
    }

    /// How many a group had at the last looks, the oldest first.
    pub fn counts(&self, group: GroupId) -> Vec<u64> {
        self.groups.get(&group).into_iter().flatten().copied().collect()
    }

    /// Its groups, the worst first.
    pub fn groups(&self) -> Vec<&Group> {
        self.report.as_deref().map_or_else(Vec::new, Report::worst_first)
    }
}

fn growth(looks: &VecDeque<Numbers>) -> f64 {
    let mut series = Series::default();
    for look in looks {
        series.push((look.seconds * 1e9) as u64, look.goroutines);
    }
    series.growth_per_second()
}

fn push<T>(line: &mut VecDeque<T>, value: T) {
    if line.len() == POINTS {
        line.pop_front();
    }
    line.push_back(value);
}

impl Model {
    /// Takes over what the supervisor knows now.
    pub fn follow(&mut self, node: &Node) {
        let processes = node.processes();
        (self.unseen, self.ready) = (node.unseen(), node.is_ready());
        self.processes.retain(|key, _| processes.iter().any(|process| process.key == *key));
        for process in processes {
            self.take(&process);
        }
    }

    fn take(&mut self, process: &NodeProcess) {
        let new = || Shown::new(process.exe_name().to_owned(), process.described.clone(), process.state());
        let shown = self.processes.entry(process.key).or_insert_with(new);
        if shown.name != process.exe_name() {
            // It has executed another program.
            *shown = new();
        }
        shown.state = process.state();
        match process.report() {
            Some(report) => shown.looked(report),
            None => shown.forget(),
        }
    }
}
