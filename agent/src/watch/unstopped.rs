//! When the running target is looked at for what nothing leads to any more: at first, when goroutines have come to stand, and
//! ever more seldom where nothing is found; never so often that it costs more than a share of a processor.

use std::time::Duration;

use hashbrown::HashMap;

use super::Company;
use crate::cause::wait::Wait;
use crate::clock::now_ns;
use crate::config::{ReachConfig, nanoseconds};
use crate::live::Target;
use crate::prove::{self, Program};
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
    company: Company,
    program: Option<Result<Box<Program>, String>>,
    turn: u64,
    /// When the next look is due at the latest, and before which there is none.
    next_ns: u64,
    earliest_ns: u64,
    rest: Duration,
    /// Groups that stood at the last look, with how many.
    stood: HashMap<GroupKey, u64>,
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
    pub(super) fn new(config: ReachConfig, interval: Duration, company: Company) -> Self {
        Self {
            config,
            interval,
            company,
            program: None,
            turn: 0,
            next_ns: 0,
            earliest_ns: 0,
            rest: interval,
            stood: HashMap::new(),
        }
    }

    /// Whether a look is due now.
    pub(super) fn is_due(&self, session: &Session, report: &Report) -> bool {
        let now = now_ns();
        if self.config.window_mib == 0 || now < self.earliest_ns {
            return false;
        }
        now >= self.next_ns && anybody_waits(session)
            || standing(report)
                .any(|(key, count)| self.stood.get(&key).is_none_or(|stood| count > stood + stood / 2 + 4))
    }

    /// Looks.
    pub(super) fn look(&mut self, target: &Target, session: &Session, report: &Report) -> UnreachedTaken {
        let program = self
            .program
            .get_or_insert_with(|| Program::of(target).map(Box::new).map_err(|error| crate::exit::chain(&error)));
        // Each look takes some.
        self.turn = self.turn.wrapping_add(16);
        let window = u64::from(self.config.window_mib) << 20;
        let reads = Reads { window, most: window.saturating_mul(MOST_WINDOWS), turn: self.turn };
        let looked = match program {
            Ok(program) => prove::unreached(target, program, reads),
            Err(reason) => {
                // It stays so.
                self.config.window_mib = 0;
                return UnreachedTaken { time_ns: now_ns(), cpu_seconds: 0.0, outcome: Err(reason.clone()) };
            }
        };
        self.stood = standing(report).collect();
        let time_ns = now_ns();
        let (cpu, outcome) = looked;
        let outcome = match outcome {
            Ok(unreached) => {
                log::debug!(
                    "a look at what {} MiB of heap lead to took {cpu:?}: nothing leads to {} goroutines in {} groups",
                    unreached.heap_bytes >> 20,
                    unreached.groups.iter().map(|group| group.count).sum::<u64>(),
                    unreached.groups.len()
                );
                let explained = unreached.groups.into_iter().map(|group| Explained {
                    goids: group.goids,
                    cause: group.cause,
                    evidence: group.evidence,
                });
                Ok(explained.collect::<Vec<_>>())
            }
            Err(error) => Err(crate::exit::chain(&error)),
        };
        let undecided = outcome.as_ref().is_ok_and(|groups| {
            let mut goids = groups.iter().flat_map(|group| &group.goids);
            goids.any(|goid| session.standing().looks(*goid) + 1 < crate::config::Rules::default().unreached_looks)
        });
        self.rest = if undecided { self.interval } else { (2 * self.rest).min(LONGEST_REST) };
        self.earliest_ns = time_ns.saturating_add(nanoseconds(cpu * self.company.rests()));
        // An interval is a little longer or shorter each time.
        let rest = if undecided { Duration::ZERO } else { self.rest };
        self.next_ns = time_ns.saturating_add(nanoseconds(rest)).max(self.earliest_ns);
        UnreachedTaken { time_ns, cpu_seconds: cpu.as_secs_f64(), outcome }
    }
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
