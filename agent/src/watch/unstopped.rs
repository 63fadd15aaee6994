//! When the running target is looked at for what nothing leads to any more: at first, when goroutines have come to stand, and
//! ever more seldom where nothing is found; never so often that it costs more than a share of a processor.

use std::sync::Arc;
use std::time::Duration;

use hashbrown::{HashMap, HashSet};

use super::Company;
use super::aside::Aside;
use super::commons::Turn;
use crate::cause::wait::Wait;
use crate::clock::now_ns;
use crate::config::{ReachConfig, WatchConfig, nanoseconds};
use crate::live::Target;
use crate::memory::census::Goroutine;
use crate::memory::unwind::has_not_run;
use crate::prove::{self, Program, ProofGroup, ProveError, Unreached};
use crate::reach::contents::Reads;
use crate::report::Report;
use crate::session::{Explained, GroupKey, Session, UnreachedTaken};

/// Longest rest between two looks that find nothing.
const LONGEST_REST: Duration = Duration::from_secs(600);

/// What may be read in all, as a multiple of what is kept: where more is needed the heap is too large, or too scattered.
const MOST_WINDOWS: u64 = 16;

/// See the module.
#[derive(Debug)]
pub(super) struct Unstopped {
    config: ReachConfig,
    interval: Duration,
    /// Looks in a row that decide.
    wanted: u32,
    company: Company,
    look: Aside<Looked>,
    turn: u64,
    /// When the next look is due at the latest, and before which there is none.
    next_ns: u64,
    earliest_ns: u64,
    rest: Duration,
    /// Groups that stood at the last look, with how many.
    stood: HashMap<GroupKey, u64>,
}

/// What a look came to.
#[derive(Debug)]
struct Looked {
    cpu: Duration,
    outcome: Result<Unreached, ProveError>,
}

impl Company {
    /// How much longer than a look's processor time the rest after it is.
    const fn rests(self) -> u32 {
        match self {
            // A fifth of a processor while somebody waits for the answer,
            Self::None => 4,
            // half a percent for ever.
            Self::Others => 200,
        }
    }
}

impl Unstopped {
    pub(super) fn new(config: &WatchConfig, company: Company) -> Self {
        Self {
            config: config.reach,
            interval: config.interval,
            wanted: config.rules.unreached_looks,
            company,
            look: Aside::default(),
            turn: 0,
            next_ns: 0,
            earliest_ns: 0,
            rest: config.interval,
            stood: HashMap::new(),
        }
    }

    /// Whether a look is due now.
    pub(super) fn is_due(&self, session: &Session, report: &Report) -> bool {
        let now = now_ns();
        if self.config.window_mib == 0 || self.look.is_busy() || now < self.earliest_ns {
            return false;
        }
        now >= self.next_ns && anybody_waits(session)
            || standing(report)
                .any(|(key, count)| self.stood.get(&key).is_none_or(|stood| count > stood + stood / 2 + 4))
    }

    /// Begins a look, which can take longer than the watch may wait; or tells why there can be none. The turn is the look's.
    pub(super) fn begin(
        &mut self,
        program: Result<Arc<Program>, String>,
        target: &Target,
        report: &Report,
        turn: Turn,
    ) -> Option<UnreachedTaken> {
        let program = match program {
            Ok(program) => program,
            Err(reason) => {
                // It stays so.
                self.config.window_mib = 0;
                return Some(UnreachedTaken {
                    time_ns: now_ns(),
                    cpu_seconds: 0.0,
                    outcome: Err(reason),
                    timed: Vec::new(),
                });
            }
        };
        // Each look takes some.
        self.turn = self.turn.wrapping_add(16);
        let window = u64::from(self.config.window_mib) << 20;
        let reads = Reads { window, most: window.saturating_mul(MOST_WINDOWS), turn: self.turn };
        let process = Arc::clone(target.process());
        self.look.begin("reach", move || {
            let _turn = turn;
            let (cpu, outcome) = prove::unreached(process.pid(), &program, reads);
            Looked { cpu, outcome }
        });
        self.stood = standing(report).collect();
        None
    }

    /// What a look that was begun has found, once it has; waits that long for it.
    pub(super) fn take(&mut self, session: &Session, wait: Duration) -> Option<UnreachedTaken> {
        let Looked { cpu, outcome } = self.look.take(wait)?;
        let time_ns = now_ns();
        let mut timed = Vec::new();
        let outcome = match outcome {
            Ok(mut unreached) => {
                timed = std::mem::take(&mut unreached.timed).into_iter().map(explained).collect();
                log::debug!(
                    "a look at what {} MiB of heap lead to took {cpu:?}: nothing leads to {} goroutines in {} groups",
                    unreached.heap_bytes >> 20,
                    unreached.goroutines.len(),
                    unreached.groups.len()
                );
                Ok(still_standing(unreached, session))
            }
            Err(error) => Err(crate::exit::chain(&error)),
        };
        let undecided = outcome.as_ref().is_ok_and(|groups| {
            let mut goids = groups.iter().flat_map(|group| &group.goids);
            goids.any(|goid| session.standing().looks(*goid) + 1 < self.wanted)
        }) || timed
            .iter()
            .flat_map(|group: &Explained| &group.goids)
            .any(|goid| session.standing().timed(*goid).looks + 1 < self.wanted);
        self.rest = if undecided { self.interval } else { (2 * self.rest).min(LONGEST_REST) };
        self.earliest_ns = time_ns.saturating_add(nanoseconds(cpu * self.company.rests()));
        // An interval is a little longer or shorter each time.
        let rest = if undecided { Duration::ZERO } else { self.rest };
        self.next_ns = time_ns.saturating_add(nanoseconds(rest)).max(self.earliest_ns);
        Some(UnreachedTaken { time_ns, cpu_seconds: cpu.as_secs_f64(), outcome, timed })
    }
}

fn explained(group: ProofGroup) -> Explained {
    Explained { goids: group.goids, cause: group.cause, evidence: group.evidence, ..Explained::default() }
}

/// Of what a look led to nowhere, who has not moved by the last census.
fn still_standing(unreached: Unreached, session: &Session) -> Vec<Explained> {
    let census = session.latest().map(|latest| &latest.census);
    let now: HashMap<u64, &Goroutine> =
        census.into_iter().flat_map(|census| &census.goroutines).map(|goroutine| (goroutine.goid, goroutine)).collect();
    let stand: HashSet<u64> = unreached
        .goroutines
        .iter()
        .filter(|then| now.get(&then.goid).is_some_and(|now| has_not_run(then, now)))
        .map(|goroutine| goroutine.goid)
        .collect();
    let groups = unreached.groups.into_iter().map(|group| Explained {
        goids: group.goids.iter().copied().filter(|goid| stand.contains(goid)).collect(),
        ..explained(group)
    });
    groups.filter(|group| !group.goids.is_empty()).collect()
}

/// Whether anybody waits for what others would have to reach.
fn anybody_waits(session: &Session) -> bool {
    let reasons = &session.header().wait_reasons;
    let census = session.latest().map(|latest| &latest.census);
    let mut waiting = census.into_iter().flat_map(|census| &census.goroutines).filter(|g| g.status.is_waiting());
    waiting.any(|g| {
        let reason = reasons.get(usize::from(g.wait_reason)).map_or("", String::as_str);
        Wait::of_reason(reason).is_some() || reason == "semacquire"
    })
}

/// Groups that have stood long in a way that can be a leak and of which nothing is known yet, with how many.
fn standing(report: &Report) -> impl Iterator<Item = (GroupKey, u64)> {
    let long = report.groups.iter().filter(|group| !group.loops && group.proven < group.count);
    let candidates = long.filter(|group| Wait::of(&group.wait_reason, &group.stack).is_some());
    candidates.filter_map(|group| Some((group.key?, group.count)))
}
