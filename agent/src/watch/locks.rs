//! When stacks are read for who holds a lock before which goroutines stand.

use std::time::{Duration, Instant};

use hashbrown::HashMap;

use crate::cause::wait::Wait;
use crate::detect::Verdict;
use crate::live::Target;
use crate::prove::Program;
use crate::reach::graph::{Graph, Link};
use crate::report::{Group, Report};
use crate::session::{Holding, Session};
use crate::why;

/// Ids told of those that want one lock.
const MAX_WAITING: usize = 1000;

/// Of a processor's time so much at most: one part in so many.
const SHARE: u32 = 200;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Locks {
    /// Not before then again.
    next: Option<Instant>,
}

impl Locks {
    /// Whether goroutines are stuck before a lock of which it is not known who has it, and the last look was long enough ago.
    pub(super) fn is_due(&self, report: &Report, session: &Session) -> bool {
        let wants = |group: &&Group| {
            matches!(Wait::of(&group.wait_reason, &group.stack), Some(Wait::Mutex | Wait::Lock | Wait::RLock))
        };
        let stuck = report.groups.iter().filter(wants).filter(|group| group.verdict > Verdict::Idle);
        let mut unknown =
            stuck.filter(|group| !group.goids.iter().any(|goid| session.holdings().before(*goid).is_some()));
        self.next.is_none_or(|next| Instant::now() >= next) && unknown.next().is_some()
    }

    /// Looks once.
    pub(super) fn look(&mut self, target: &Target, session: &Session) -> Vec<Holding> {
        let began = Instant::now();
        let found = session.latest().map(|latest| {
            let program = Program::of(target)?;
            why::graph_of(target, &program, &latest.census)
        });
        let took = began.elapsed();
        self.next =
            Some(Instant::now() + took.saturating_mul(SHARE).max(Duration::from_nanos(session.header().interval_ns)));
        match found {
            Some(Ok(graph)) => holdings(&graph),
            Some(Err(error)) => {
                log::info!("nothing is known of who holds locks: {error}");
                Vec::new()
            }
            None => Vec::new(),
        }
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
