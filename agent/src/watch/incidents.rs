//! When stacks are read for who waits for whom, and who holds the locks before which goroutines stand.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hashbrown::HashMap;

use super::aside::Aside;
use crate::cause::wait::Wait;
use crate::detect::Verdict;
use crate::live::Target;
use crate::memory::census::Census;
use crate::prove::{Program, ProveError};
use crate::reach::graph::{self, Graph, Link, Suspects};
use crate::report::{Group, Report};
use crate::session::{GroupKey, Holding, Session, Tied};
use crate::why;

/// Ids told of those that want one lock.
const MAX_WAITING: usize = 1000;

/// Members told of one incident.
const MAX_MEMBERS: usize = 1000;

/// Of a processor's time so much at most: one part in so many.
const SHARE: u32 = 200;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Incidents {
    /// Not before then again.
    next: Option<Instant>,
    /// Those that something was wrong with at the last look, and how many they were.
    accused: HashMap<GroupKey, u64>,
    look: Aside<Looked>,
}

/// What a look came to, and the census that it began with.
#[derive(Debug)]
struct Looked {
    took: Duration,
    before: Census,
    told: Result<Told, ProveError>,
}

/// What a look has told.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub(super) holdings: Vec<Holding>,
    pub(super) incidents: Vec<Tied>,
}

impl Incidents {
    /// Whether something is wrong with others than at the last look, or with more, or goroutines are stuck before a lock of which it
    /// is not known who has it; and the last look was long enough ago.
    pub(super) fn is_due(&self, report: &Report, session: &Session) -> bool {
        let is_news = |group: &Group| {
            let wants =
                matches!(Wait::of(&group.wait_reason, &group.stack), Some(Wait::Mutex | Wait::Lock | Wait::RLock));
            let held = || group.goids.iter().any(|goid| session.holdings().before(*goid).is_some());
            group.key.is_some_and(|key| self.accused.get(&key) != Some(&group.count)) || (wants && !held())
        };
        !self.look.is_busy()
            && self.next.is_none_or(|next| Instant::now() >= next)
            && report.groups.iter().any(|group| group.verdict > Verdict::Idle && is_news(group))
    }

    /// Begins a look: with many goroutines it can take longer than the watch may wait.
    pub(super) fn begin(&mut self, program: &Arc<Program>, target: &Target, session: &Session, report: &Report) {
        let accused = report.groups.iter().filter(|group| group.verdict > Verdict::Idle);
        self.accused = accused.filter_map(|group| Some((group.key?, group.count))).collect();
        let Some(before) = session.latest().map(|latest| latest.census.clone()) else { return };
        let (program, process) = (Arc::clone(program), Arc::clone(target.process()));
        self.look.begin("incidents", move || {
            let began = Instant::now();
            let told = why::graph_of(process.pid(), &program, &before, Suspects::Waiting).map(|graph| {
                let incidents = why::of_graph(&graph, &program, &before).incidents;
                Told { holdings: holdings(&graph), incidents: incidents.iter().map(tied).collect() }
            });
            Looked { took: began.elapsed(), before, told }
        });
    }

    /// What a look that was begun has told, once it has, of those that have not moved since; waits that long for it.
    pub(super) fn take(&mut self, session: &Session, wait: Duration) -> Option<Told> {
        let Looked { took, before, told } = self.look.take(wait)?;
        let rest = took.saturating_mul(SHARE).max(Duration::from_nanos(session.header().interval_ns));
        self.next = Some(Instant::now() + rest);
        let mut told = told.inspect_err(|error| log::info!("nothing is known of who waits for whom: {error}")).ok()?;
        let stand = graph::standing(&before, session.latest()?.census.goroutines.iter());
        told.holdings.retain(|holding| stand.contains(&holding.holder));
        told.incidents.retain(|tied| tied.roots.iter().all(|root| stand.contains(root)));
        Some(told)
    }
}

fn tied(incident: &why::Incident) -> Tied {
    let goids = |groups: &mut dyn Iterator<Item = &why::Standing>| -> Vec<u64> {
        groups.flat_map(|group| group.goids.iter().copied()).take(MAX_MEMBERS).collect()
    };
    Tied {
        headline: incident.headline.clone(),
        cycle: incident.cycle,
        count: incident.goroutines,
        roots: goids(&mut incident.groups.iter().filter(|group| group.distance == 0)),
        members: goids(&mut incident.groups.iter()),
    }
}

/// The locks of a graph, each with the one goroutine that holds it, or the only one that may.
fn holdings(graph: &Graph) -> Vec<Holding> {
    let mut found: HashMap<u64, (Vec<u64>, Holding)> = HashMap::new();
    for edge in graph.edges.iter().filter(|edge| matches!(edge.link, Link::Holds | Link::MayHold)) {
        let none = Holding { holder: edge.to, shown: false, lock: edge.primitive, waiting: Vec::new(), count: 0 };
        let (holders, holding) = found.entry(edge.primitive).or_insert_with(|| (Vec::new(), none));
        if !holders.contains(&edge.to) {
            holders.push(edge.to);
        }
        holding.shown |= edge.link == Link::Holds;
        holding.count += 1;
        if holding.waiting.len() < MAX_WAITING {
            holding.waiting.push(edge.from);
        }
    }
    let only = found.into_values().filter(|(holders, _)| holders.len() == 1);
    let mut holdings: Vec<Holding> = only.map(|(_, holding)| holding).collect();
    holdings.sort_by_key(|holding| (std::cmp::Reverse(holding.count), holding.lock));
    holdings
}
