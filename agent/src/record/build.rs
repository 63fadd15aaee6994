//! From a session to what is recorded of one look.

use hashbrown::HashMap;

use super::interval::{
    CreationSite, CreationSiteCount, Example, GroupCount, IncidentCount, Interval, Judgement, Moment, RecordedGroup,
    RuntimeSample, Usage,
};
use crate::detect::Verdict;
use crate::golang::Frame;
use crate::report::{self, Report};
use crate::runtime::mem::{NO_GOAL, NO_LIMIT};
use crate::session::{GroupKey, Session};
use crate::words::Place;
use crate::words::{is_system, start_function};

/// Groups recorded of one look; those with the strongest verdict and the most goroutines.
pub const MAX_GROUPS: usize = 200;

/// Creation sites recorded of one look; those with the most goroutines.
pub const MAX_SITES: usize = 200;

/// Goroutines recorded of a leaking group.
pub const MAX_EXAMPLES: usize = 20;

/// Incidents recorded of one look; those with the most goroutines come first in a report.
const MAX_INCIDENTS: usize = 20;

/// Goroutines recorded of those that the others of an incident wait for, and groups of it.
const MAX_ROOTS: usize = 20;
const MAX_CHAIN: usize = 12;

/// Frames recorded of a stack.
const MAX_FRAMES: usize = 64;

/// Bytes recorded of a name; generic functions have long ones, hostile binaries longer.
const MAX_NAME: usize = 1024;

impl Interval {
    /// What the last look of `session`, whose report is `report`, found; none before the first. `now` is when this is
    /// called.
    pub fn of(session: &Session, report: &Report, usage: Option<Usage>, now: Moment) -> Option<Self> {
        let taken = session.latest()?;
        let (mut live, mut system) = (0, 0);
        let mut by_site: HashMap<(u64, u64), u64> = HashMap::new();
        let mut by_key: HashMap<(GroupKey, u64), u64> = HashMap::new();
        for (goroutine, stack) in taken.goroutines() {
            if is_system(session.symbols(), goroutine.start_pc) {
                system += 1;
                continue;
            }
            live += 1;
            *by_site.entry((goroutine.creation_pc, goroutine.start_pc)).or_default() += 1;
            if let Some(key) = session.case_of(goroutine, stack) {
                *by_key.entry((key, goroutine.start_pc)).or_default() += 1;
            }
        }
        let mut sites = sites(session, by_site);
        let (mut groups, by_key) = groups(session, report, by_key);
        let unlisted = (sites.len().saturating_sub(MAX_SITES) + groups.len().saturating_sub(MAX_GROUPS)) as u64;
        sites.truncate(MAX_SITES);
        groups.truncate(MAX_GROUPS);
        let lost = &report.observed.lost;
        Some(Self {
            at: now.at_mono(taken.census.finished_ns),
            live,
            system,
            parked: report.goroutines.parked_over_threshold,
            events_lost: lost.ring_full + lost.read_fault + lost.decode_error + lost.registry_full,
            usage,
            runtime: runtime(report),
            sites,
            groups,
            incidents: report.incidents.iter().take(MAX_INCIDENTS).map(|it| incident(it, report, &by_key)).collect(),
            unlisted,
        })
    }
}

fn runtime(report: &Report) -> Option<RuntimeSample> {
    let runtime = report.runtime.as_ref()?;
    let now = runtime.now.as_ref()?;
    let (memory, stats) = (&now.memory, &now.memory.stats);
    let between = runtime.between.unwrap_or_default();
    Some(RuntimeSample {
        heap_live_bytes: memory.heap_live,
        heap_goal_bytes: Some(stats.next_gc).filter(|goal| *goal != NO_GOAL),
        memory_limit_bytes: Some(memory.memory_limit).filter(|limit| *limit != NO_LIMIT),
        collections: stats.num_gc,
        gc_cpu_ns: memory.gc_cpu_ns,
        available_cpu_ns: memory.total_cpu_ns,
        gc_pause_ns: stats.pause_total_ns,
        longest_pause_ns: between.longest_pause_ns,
        runnable: runtime.runnable,
        latency_p99_ns: between.latency_p99_ns,
        threads: now.scheduler.threads,
    })
}

/// Largest first.
fn sites(session: &Session, live: HashMap<(u64, u64), u64>) -> Vec<CreationSiteCount> {
    // Two addresses can be one statement: what is the same to a reader is one site.
    let mut sites: HashMap<CreationSite, CreationSiteCount> = HashMap::new();
    for ((creation_pc, start_pc), count) in live {
        let site = creation_site(session, creation_pc, start_pc);
        let empty = CreationSiteCount { site: site.clone(), live: 0, created: 0, exited: 0 };
        sites.entry(site).or_insert(empty).live += count;
    }
    for seen in session.registry().sites() {
        if let Some(known) = sites.get_mut(&creation_site(session, seen.creation_pc, seen.start_pc)) {
            known.created += seen.created;
            known.exited += seen.exited;
        }
    }
    let mut sites: Vec<CreationSiteCount> = sites.into_values().collect();
    sites.sort_by(|a, b| b.live.cmp(&a.live).then_with(|| a.site.cmp(&b.site)));
    sites
}

/// Strongest verdict first, then largest; and which is which.
fn groups(
    session: &Session,
    report: &Report,
    waiting: HashMap<(GroupKey, u64), u64>,
) -> (Vec<GroupCount>, HashMap<GroupKey, RecordedGroup>) {
    // What is the same to a reader is one group, also if it comes from two addresses or in two stacks.
    let mut groups: HashMap<RecordedGroup, GroupCount> = HashMap::new();
    let mut by_key: HashMap<GroupKey, RecordedGroup> = HashMap::new();
    for ((key, start_pc), count) in waiting {
        let group = RecordedGroup {
            site: creation_site(session, key.creation_pc, start_pc),
            wait_reason: session.reason_of(&key),
            stack: stack(session.stack_frames(key.stack)),
        };
        let empty = GroupCount { group: group.clone(), waiting: 0, parked: 0, judgement: None, examples: Vec::new() };
        groups.entry(group.clone()).or_insert(empty).waiting += count;
        by_key.insert(key, group);
    }
    for reported in &report.groups {
        let group = reported.key.as_ref().and_then(|key| by_key.get(key));
        if let Some(count) = group.and_then(|group| groups.get_mut(group)) {
            count.parked += reported.count;
            judge(session, count, reported);
        }
    }
    let mut groups: Vec<GroupCount> = groups.into_values().collect();
    let rank = |count: &GroupCount| {
        let verdict = count.judgement.as_ref().map(|judgement| judgement.verdict);
        std::cmp::Reverse((verdict, count.parked, count.waiting))
    };
    groups.sort_by(|a, b| {
        let place = |count: &GroupCount| (count.group.site.clone(), count.group.wait_reason.clone());
        rank(a).cmp(&rank(b)).then_with(|| place(a).cmp(&place(b)))
    });
    (groups, by_key)
}

fn incident(told: &report::Incident, report: &Report, by_key: &HashMap<GroupKey, RecordedGroup>) -> IncidentCount {
    let mut roots = told.roots.clone();
    roots.sort_unstable();
    roots.truncate(MAX_ROOTS);
    let mut groups: Vec<RecordedGroup> = Vec::new();
    for group in told.groups.iter().filter_map(|index| by_key.get(report.groups.get(*index)?.key.as_ref()?)) {
        if groups.len() < MAX_CHAIN && !groups.contains(group) {
            groups.push(group.clone());
        }
    }
    IncidentCount { headline: short(&told.headline), goroutines: told.goroutines, cycle: told.cycle, roots, groups }
}

/// Adds what the report says of a group, or of a part of it.
fn judge(session: &Session, count: &mut GroupCount, reported: &report::Group) {
    if count.judgement.as_ref().is_none_or(|known| known.verdict < reported.verdict) {
        count.judgement = Some(Judgement {
            verdict: reported.verdict,
            evidence: reported.evidence.clone(),
            cause: reported.cause.as_ref().map(|cause| cause.sentence.clone()),
            remedy: reported.cause.as_ref().map(|cause| cause.remedy.clone()),
        });
    }
    if reported.verdict > Verdict::Idle {
        let room = MAX_EXAMPLES.saturating_sub(count.examples.len());
        let parked = reported.goids.iter().filter_map(|goid| Some((*goid, session.registry().get(*goid)?)));
        count.examples.extend(parked.take(room).map(|(goid, goroutine)| Example {
            goid,
            created_ns: goroutine.created_ns.map(std::num::NonZeroU64::get),
            parked_ns: goroutine.since_ns,
            exact: goroutine.exact,
        }));
    }
}

fn creation_site(session: &Session, creation_pc: u64, start_pc: u64) -> CreationSite {
    CreationSite {
        created_by: Place::of_creation(session.symbols(), creation_pc).map(short_place),
        start_function: short(&start_function(session.symbols(), start_pc)),
    }
}

fn stack<'a>(frames: impl Iterator<Item = &'a Frame>) -> Vec<Frame> {
    let short_frame =
        |frame: &Frame| Frame { function: short(&frame.function), file: short(&frame.file), ..frame.clone() };
    frames.take(MAX_FRAMES).map(short_frame).collect()
}

fn short_place(place: Place) -> Place {
    Place { function: short(&place.function), file: short(&place.file), line: place.line }
}

fn short(name: &str) -> String {
    name[..name.floor_char_boundary(MAX_NAME)].to_owned()
}
