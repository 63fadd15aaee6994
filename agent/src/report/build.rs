//! From a session to its report.

use std::collections::BTreeMap;

use hashbrown::{HashMap, HashSet};

use super::{
    Cost, Goroutines, Group, Incident, LastCensus, LeakedMemory, Lost, MAX_GOIDS, Modes, Observed, ParkDurations,
    Precision, Proofs, Reach, Report, Ring, Runtime, SCHEMA, Span,
    beside::Beside,
    cost, labels,
    load::{Kin, Load, belong_together},
    started::{Parents, StartedBy, parents},
};
use crate::cause::CauseKind;
use crate::cause::library::Known;
use crate::cause::wait::{COROUTINE, Doing, Wait};
use crate::config::Rules;
use crate::detect::stuck::{self, Standing};
use crate::detect::{self, Suspect, Verdict};
use crate::golang::Frame;
use crate::memory::census::Status;
use crate::registry::Activity;
use crate::session::{GroupKey, Holding, Session};
use crate::words::{Place, is_system, seconds, start_function, wait_reason};

/// Steps up a chain of goroutines that wait for those they made.
const MAX_CHAIN: usize = 16;

/// Wake-ups by a timer that say that it is a loop.
const MIN_WAKES: u64 = 5;

/// Members of one group.
#[derive(Default)]
pub(super) struct Members {
    /// Since when each has been parked, and its goid: those of whom that is known.
    pub(super) parked: Vec<(u64, u64)>,
    pub(super) waiting: u64,
    stack_bytes: u64,
    start_pc: u64,
    /// Since when those have been parked whose parking was not seen: their age is a lower bound.
    lower_bounds: Vec<u64>,
    /// The most often that one of them was seen to run, if they do.
    samples: u64,
    /// Ids of those that the runtime's own leak profile has found.
    found_by_runtime: HashSet<u64>,
}

impl Report {
    /// The report of what `session` has seen so far, with goroutines parked longer than `threshold_ns`, judged
    /// by `rules`.
    pub fn of(session: &Session, threshold_ns: u64, rules: &Rules) -> Self {
        let goroutines = count_goroutines(session);
        let mut groups = groups(session, threshold_ns, rules);
        groups.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.goids.first().cmp(&b.goids.first())));
        let incidents = incidents(session, &mut groups);
        let parked = |group: &&Group| !group.loops && group.key.is_some_and(|key| matches!(key.doing, Doing::Waits(_)));
        let runtime = Runtime::of(session);
        let memory = LeakedMemory::of(session, &groups, runtime.as_ref(), rules);
        let parked_over_threshold = groups.iter().filter(parked).map(|group| group.count).sum();
        Self {
            schema: SCHEMA,
            target: session.header().target.clone(),
            observed: observed(session, threshold_ns),
            goroutines: Goroutines { parked_over_threshold, ..goroutines },
            incidents,
            groups,
            memory,
            park_durations: park_durations(session),
            runtime,
        }
    }
}

fn park_durations(session: &Session) -> Vec<ParkDurations> {
    let reasons = &session.header().wait_reasons;
    let of =
        |(number, lasted): (&u8, &_)| ParkDurations { wait_reason: wait_reason(reasons, *number), lasted: *lasted };
    let mut durations: Vec<ParkDurations> = session.registry().durations().iter().map(of).collect();
    durations.sort_by(|a, b| a.wait_reason.cmp(&b.wait_reason));
    durations
}

fn observed(session: &Session, threshold_ns: u64) -> Observed {
    let header = session.header();
    let registry = session.registry();
    let kernel = session.probes();
    let ring_full = kernel.iter().map(|probe| probe.counters.ring_full).sum();
    let losses = session.losses();
    let anomalies = registry.anomalies();
    Observed {
        seconds: seconds(session.now_ns().saturating_sub(header.started_ns)),
        mode: session.mode(),
        modes: Modes::of(session),
        known: Precision::of(session),
        cost: Cost::of(session),
        threshold_seconds: seconds(threshold_ns),
        ended: session.end().map(|end| end.reason),
        events: registry.events(),
        lost: Lost {
            ring_full,
            read_fault: kernel.iter().map(|probe| probe.counters.read_fault).sum(),
            map_full: kernel.iter().map(|probe| probe.counters.map_full).sum(),
            decode_error: losses.decode_error,
            unknown_goroutine: anomalies.unknown_goroutine,
            registry_full: anomalies.registry_full,
            census_read_fault: losses.census_read_fault,
            stack_cut: losses.stack_cut,
            stack_unknown: losses.stack_unknown,
            groups_dropped: session.groups_dropped(),
        },
        anomalies,
        census: session.latest().map_or_else(LastCensus::default, |taken| LastCensus {
            seconds: seconds(taken.census.finished_ns.saturating_sub(taken.census.started_ns)),
            dead: taken.census.dead,
            moved: taken.stack_moved,
        }),
        ring: Ring { size_bytes: header.ring_bytes, fill_max_bytes: session.ring_fill_max(), lost: ring_full },
        probes: cost::probes(session),
        proofs: proofs(session),
        reach: reach(session),
    }
}

fn proofs(session: &Session) -> Option<Proofs> {
    let tally = session.proofs().tally();
    (tally.taken + tally.refused > 0).then(|| Proofs {
        taken: tally.taken,
        refused: tally.refused,
        refusal: tally.refusal.clone(),
        paused_seconds: tally.paused_seconds,
        longest_pause_seconds: tally.longest_pause_seconds,
        contradicted: tally.contradicted,
    })
}

fn reach(session: &Session) -> Option<Reach> {
    let tally = session.standing().tally();
    (tally.taken + tally.refused > 0).then(|| Reach {
        taken: tally.taken,
        refused: tally.refused,
        refusal: tally.refusal.clone(),
        cpu_seconds: (tally.cpu_seconds * 1e3).round() / 1e3,
    })
}

fn count_goroutines(session: &Session) -> Goroutines {
    let mut by_state: BTreeMap<String, u64> = BTreeMap::new();
    let mut waiting: HashMap<u8, u64> = HashMap::new();
    let (mut live, mut system) = (0, 0);
    if let Some(taken) = session.latest() {
        for (goroutine, _) in taken.goroutines() {
            live += 1;
            let is_system = is_system(session.symbols(), goroutine.start_pc);
            system += u64::from(is_system);
            if !is_system && goroutine.status.is_waiting() {
                *waiting.entry(goroutine.wait_reason).or_default() += 1;
            }
            *by_state.entry(goroutine.status.to_string()).or_default() += 1;
        }
    }
    let events = session.registry().events();
    let mut by_wait_reason: BTreeMap<String, u64> = BTreeMap::new();
    for (number, count) in waiting {
        *by_wait_reason.entry(wait_reason(&session.header().wait_reasons, number)).or_default() += count;
    }
    let (created, exited) = (events.created, events.exited);
    Goroutines { live, system, created, exited, parked_over_threshold: 0, by_state, by_wait_reason }
}

/// Groups of those that have been parked beyond the threshold, by the census and by no event since; of those that wake
/// up again and again, but pile up; and of those that are in one system call, or run, all the time.
fn groups(session: &Session, threshold_ns: u64, rules: &Rules) -> Vec<Group> {
    let Some(taken) = session.latest() else { return Vec::new() };
    let mut members: HashMap<GroupKey, Members> = HashMap::new();
    for (goroutine, stack) in taken.goroutines() {
        let Some(key) = session.case_of(goroutine, stack) else { continue };
        if is_system(session.symbols(), goroutine.start_pc) && !finalizes(session, &key) {
            continue;
        }
        let group = members.entry(key).or_default();
        group.waiting += 1;
        group.stack_bytes = group.stack_bytes.saturating_add(goroutine.stack_bytes());
        group.start_pc = goroutine.start_pc;
        if goroutine.status == Status::Leaked {
            group.found_by_runtime.insert(goroutine.goid);
        }
        if let Some(kept) = session.active().kept(goroutine) {
            group.parked.push((kept.since_ns, goroutine.goid));
            group.samples = group.samples.max(kept.samples);
        }
        let Some(known) = session.registry().get(goroutine.goid) else { continue };
        if goroutine.status.is_waiting() && known.state == Activity::Parked(goroutine.wait_reason) {
            group.parked.push((known.since_ns, goroutine.goid));
            if !known.exact {
                group.lower_bounds.push(known.since_ns);
            }
        }
    }
    let around = Around {
        site_counts: site_counts(session),
        load: Load::of(session, &members),
        beside: Beside::of(session),
        parents: parents(session),
    };
    let built =
        members.into_iter().filter_map(|(key, group)| build_group(session, &key, group, &around, threshold_ns, rules));
    let mut groups: Vec<Group> = built.collect();
    wait_for_stuck(session, &mut groups);
    groups
}

/// Groups of so many goroutines at least may belong together, which two can by chance; and of so many groups that is asked.
const MIN_LOCKSTEP: u64 = 5;
const MAX_LOCKSTEP: usize = 32;

/// Whether they run finalizers or cleanups, and are in the program's code: else such a goroutine is the runtime's own.
fn finalizes(session: &Session, key: &GroupKey) -> bool {
    let mut frames = session.stack_frames(key.stack);
    let first = frames.find(|frame| !frame.is_plumbing());
    first.is_some() && frames.any(|frame| stuck::finalizer::RUNNERS.contains(&frame.function.as_str()))
}

/// Incidents that are evidence of one group.
const MAX_INCIDENTS_OF_GROUP: usize = 3;

/// The incidents that one of `groups` has to do with of which something is wrong; each of their groups gets it as evidence.
fn incidents(session: &Session, groups: &mut [Group]) -> Vec<Incident> {
    let mut told = tied(session, groups);
    lockstep(session, groups, &mut told);
    told
}

/// Those that a look at the stacks has told.
fn tied(session: &Session, groups: &mut [Group]) -> Vec<Incident> {
    let mut told = Vec::new();
    let mut known = session.incidents().iter().peekable();
    if known.peek().is_none() {
        return told;
    }
    let index: HashMap<GroupKey, usize> =
        groups.iter().enumerate().filter_map(|(index, group)| Some((group.key?, index))).collect();
    let taken = session.latest().into_iter().flat_map(|taken| taken.goroutines());
    let cases: HashMap<u64, GroupKey> =
        taken.filter_map(|(goroutine, stack)| Some((goroutine.goid, session.case_of(goroutine, stack)?))).collect();
    for tied in known {
        let mut of: Vec<usize> = Vec::new();
        for goid in &tied.members {
            if let Some(group) = cases.get(goid).and_then(|key| index.get(key))
                && !of.contains(group)
            {
                of.push(*group);
            }
        }
        if !of.iter().any(|group| groups[*group].verdict > Verdict::Idle) {
            continue;
        }
        for group in &of {
            let sentence = format!("Part of one incident: {}.", tied.headline);
            let known =
                groups[*group].evidence.iter().filter(|known| known.starts_with("Part of one incident")).count();
            if known < MAX_INCIDENTS_OF_GROUP && !groups[*group].evidence.contains(&sentence) {
                groups[*group].evidence.push(sentence);
            }
        }
        // The same again and again, of other goroutines.
        if let Some(same) =
            told.iter_mut().find(|known: &&mut Incident| known.headline == tied.headline && known.groups == of)
        {
            same.times += 1;
            same.goroutines = same.goroutines.saturating_add(tied.count);
            continue;
        }
        told.push(Incident {
            times: 1,
            headline: tied.headline.clone(),
            goroutines: tied.count,
            cycle: tied.cycle,
            roots: tied.roots.iter().take(MAX_GOIDS).copied().collect(),
            groups: of,
        });
    }
    told
}

/// Groups with which something is wrong, that belong together and to no incident yet, as incidents of their own.
fn lockstep(session: &Session, groups: &mut [Group], told: &mut Vec<Incident>) {
    let known: HashSet<usize> = told.iter().flat_map(|incident| incident.groups.iter().copied()).collect();
    let mut alone: Vec<(usize, GroupKey)> = groups
        .iter()
        .enumerate()
        .filter(|(index, group)| group.verdict > Verdict::Idle && group.count >= MIN_LOCKSTEP && !known.contains(index))
        .filter_map(|(index, group)| Some((index, group.key?)))
        .take(MAX_LOCKSTEP)
        .collect();
    if alone.len() < 2 {
        return;
    }
    let kin = Kin::of(session);
    while let Some((first, key)) = alone.first().copied() {
        let (of, others): (Vec<_>, Vec<_>) =
            alone.iter().skip(1).partition(|(_, other)| belong_together(session, &kin, &key, other));
        alone = others;
        if of.is_empty() {
            continue;
        }
        let of: Vec<usize> = std::iter::once(first).chain(of.into_iter().map(|(index, _)| index)).collect();
        let places: Vec<String> = of
            .iter()
            .map(|group| {
                let group = &groups[*group];
                let place = group.in_program.as_ref().or(group.blocked_at.as_ref());
                let at = place.map_or_else(String::new, |place| format!(" at {place}"));
                format!("{} [{}]{at}", group.count, group.wait_reason)
            })
            .collect();
        let headline = format!(
            "goroutines that belong together, because one made the other or the same made both: {}",
            places.join("; ")
        );
        of.iter().for_each(|group| groups[*group].evidence.push(format!("Part of one incident: {headline}.")));
        let goroutines = of.iter().map(|group| groups[*group].count).sum();
        told.push(Incident { headline, times: 1, goroutines, cycle: false, roots: Vec::new(), groups: of });
    }
}

/// Locks told of one group.
const MAX_LOCKS: usize = 3;

/// What goroutines that stand hold while others want it; and whether that is shown.
fn holds(session: &Session, told: &[(u64, u64)]) -> Vec<(bool, String)> {
    let holdings = told.iter().flat_map(|(since, goid)| session.holdings().of(*goid).map(move |held| (since, held)));
    let sentence = |(since, Holding { holder, shown, lock, count, .. }): (&u64, &Holding)| {
        let waited = session.now_ns().saturating_sub(*since) / 1_000_000_000;
        let (how, holds) = match shown {
            true => (" (its deferred unlock has not run)", "holds"),
            false => ("", "may hold"),
        };
        let they = if *count == 1 { "one other wants".to_owned() } else { format!("{count} others want") };
        (
            *shown,
            format!(
                "Goroutine {holder} {holds} the lock at {lock:#x}{how}, which {they}, and has itself waited for {waited} s."
            ),
        )
    };
    holdings.map(sentence).take(MAX_LOCKS).collect()
}

/// Who has the lock before which goroutines stand, and what it does.
fn held_by(session: &Session, told: &[(u64, u64)]) -> Option<String> {
    let Holding { holder, shown, .. } = told.iter().find_map(|(_, goid)| session.holdings().before(*goid))?;
    let (goroutine, stack) = session.latest()?.goroutines().find(|(goroutine, _)| goroutine.goid == *holder)?;
    let key = session.case_of(goroutine, stack)?;
    let stack: Vec<Frame> = session.stack_frames(key.stack).cloned().collect();
    let at = Place::of_blocking(&stack).map_or_else(String::new, |place| format!(" at {place}"));
    let holds = if *shown { "holds it: its deferred unlock has not run; it" } else { "may hold it; it" };
    let for_ever = session.proofs().proven(*holder).map_or("", |_| ", and is proven: it can never run again");
    Some(format!("Goroutine {holder} {holds} stands in {}{at}{for_ever}.", session.reason_of(&key)))
}

/// Whoever waits for goroutines that it made, all of which are stuck, is stuck itself.
fn wait_for_stuck(session: &Session, groups: &mut [Group]) {
    let Some(taken) = session.latest() else { return };
    let waits =
        |group: &Group| matches!(Wait::of(&group.wait_reason, &group.stack), Some(Wait::WaitGroup | Wait::Receive));
    // Up a chain of them, one step at a time.
    for _ in 0..MAX_CHAIN {
        let stuck: HashSet<GroupKey> =
            groups.iter().filter(|group| group.verdict > Verdict::Idle).filter_map(|group| group.key).collect();
        if stuck.is_empty() || !groups.iter().any(|group| group.verdict == Verdict::Idle && waits(group)) {
            return;
        }
        let mut made: HashMap<u64, (u64, u64)> = HashMap::new();
        for (goroutine, stack) in taken.goroutines() {
            let key = session.case_of(goroutine, stack);
            let (all, standing) = made.entry(goroutine.parent_goid).or_default();
            *all += 1;
            *standing += u64::from(key.is_some_and(|key| stuck.contains(&key)));
        }
        let mut any = false;
        for group in groups.iter_mut().filter(|group| group.verdict == Verdict::Idle && waits(group)) {
            // All of those that are told by their ids.
            let of = group.goids.iter().filter_map(|goid| made.get(goid));
            let (all, standing) = of.fold((0, 0), |(all, standing), (a, s)| (all + a, standing + s));
            if all > 0 && all == standing {
                group.verdict = Verdict::Stuck;
                group.evidence.push(format!("All {all} goroutines it made that are left are stuck."));
                any = true;
            }
        }
        if !any {
            return;
        }
    }
}

/// The goroutine in which package os/signal waits for signals, in what the runtime counts as a system call: every program that
/// asks for signals has one.
fn is_signal_loop(stack: &[Frame]) -> bool {
    stack.iter().any(|frame| frame.function == "os/signal.signal_recv")
}

/// Created and exited by events, for each creation site.
fn site_counts(session: &Session) -> HashMap<u64, (u64, u64)> {
    let mut counts: HashMap<u64, (u64, u64)> = HashMap::new();
    for site in session.registry().sites() {
        let (created, exited) = counts.entry(site.creation_pc).or_default();
        *created += site.created;
        *exited += site.exited;
    }
    for (creation_pc, by_kernel_created, by_kernel_exited) in session.registry().counted() {
        let (created, exited) = counts.entry(creation_pc).or_default();
        *created = created.saturating_add(by_kernel_created);
        *exited = exited.saturating_add(by_kernel_exited);
    }
    counts
}

/// What is said of goroutines that nothing but a timer can wake, if there are several: one may be meant to run as long as its
/// program does.
fn only_by_timer(session: &Session, members: &Members, rules: &Rules) -> Option<String> {
    let woken = members.parked.iter().map(|(_, goid)| session.standing().timed(*goid));
    let many: Vec<u64> = woken
        .filter(|woken| woken.looks >= rules.unreached_looks && woken.times >= MIN_WAKES)
        .map(|woken| woken.times)
        .collect();
    let least = many.iter().min().filter(|_| many.len() > 1)?;
    Some(format!(
        "Only a timer wakes {} of {}, {least} times or more each so far; no other case can ever happen: in {} or more looks at the \
         running program nothing but their own stacks led to any.",
        many.len(),
        members.parked.len(),
        rules.unreached_looks
    ))
}

/// Said of them when they pile up.
const SWITCHES_UNSEEN: &str = "Whether they have moved is not known: switches between coroutines leave no trace that could be seen from \
    outside. Only --prove could show that nothing leads to them any more.";

/// What piles up until timers end it is bounded: by its growth, as one watch saw it, for as long as the timers take.
fn levels_off(growth_per_second: f64) -> String {
    format!(
        "If they end when their timers wake them, they level off at about {} for each minute that a timer takes: a watch shorter than \
         that cannot tell.",
        (60.0 * growth_per_second).ceil()
    )
}

/// What a group is judged beside.
struct Around<'s> {
    /// Created and exited by events, for each creation site.
    site_counts: HashMap<u64, (u64, u64)>,
    load: Load<'s>,
    beside: Beside<'s>,
    parents: Parents,
}

/// Whether a timer is among what goroutines of a group wait for; none where that was not read.
fn waits_for_timer(session: &Session, told: &[(u64, u64)]) -> Option<bool> {
    let waits = told.iter().find_map(|(_, goid)| session.proofs().waits(*goid))?;
    let kind = waits.cause.as_ref().map(|cause| cause.kind);
    Some(matches!(kind, Some(CauseKind::TimerLoop | CauseKind::TimerNeverFires)))
}

/// The group of `members`, if any of them has been parked longer than `threshold_ns`, if it is known that one of them can never
/// run again, or if they pile up.
fn build_group(
    session: &Session,
    key: &GroupKey,
    mut members: Members,
    around: &Around<'_>,
    threshold_ns: u64,
    rules: &Rules,
) -> Option<Group> {
    members.parked.sort_unstable();
    let parked_by = session.now_ns().saturating_sub(threshold_ns);
    let parked_since: Vec<u64> = members.parked.iter().map(|(since, _)| *since).collect();
    let over_threshold = parked_since.partition_point(|since| *since <= parked_by);
    // Of whom it is known that nothing leads to them, it does not matter how long they have been parked.
    let proofs = session.proofs();
    let is_proven = |goid| proofs.proven(goid).is_some() || members.found_by_runtime.contains(&goid);
    let is_unreached = |goid| session.standing().looks(goid) >= rules.unreached_looks;
    let lost = |(_, goid): &(u64, u64)| is_proven(*goid) || is_unreached(*goid);
    let over_threshold = if members.parked.iter().any(lost) { members.parked.len() } else { over_threshold };
    let by_timer = only_by_timer(session, &members, rules);
    let loops = over_threshold == 0 || by_timer.is_some();
    let wait_reason = session.reason_of(key);
    // Connections on which something happens now and then are no leak, however many there are.
    if loops && (wait_reason == "IO wait" || !matches!(key.doing, Doing::Waits(_))) {
        return None;
    }
    let (created, exited) = around.site_counts.get(&key.creation_pc).copied().unwrap_or_default();
    let none = crate::detect::Series::default();
    let waiting = session.group_series(key).unwrap_or(&none);
    let suspect = Suspect {
        waiting,
        live: session.live_series(key.creation_pc).unwrap_or(&none),
        gone: session.gone_series(key.creation_pc).unwrap_or(&none),
        parked_since: &parked_since,
        // Of what was watched only now and then by probes the rest is not known.
        created: if session.saw_births() { created } else { 0 },
        exited: if session.saw_births() { exited } else { 0 },
    };
    let passage = session.passages().of(key);
    let (mut verdict, mut evidence) = detect::judge(&suspect, session.looks(), rules);
    let may_be_load = if verdict == Verdict::Likely { around.load.says(key) } else { None };
    let is_load = may_be_load.is_some();
    if let Some(sentence) = may_be_load {
        verdict = Verdict::Idle;
        evidence.push(sentence);
    }
    let switched = verdict == Verdict::Likely && wait_reason == COROUTINE;
    let moves_unseen = switched && !members.parked.iter().any(lost);
    if switched {
        // The last says that they have not moved.
        evidence.pop();
    }
    if moves_unseen {
        verdict = Verdict::Idle;
        evidence.push(SWITCHES_UNSEEN.to_owned());
    }
    if loops && verdict == Verdict::Idle && !is_load && by_timer.is_none() {
        return None;
    }
    let stack: Vec<Frame> = session.stack_frames(key.stack).cloned().collect();
    if is_signal_loop(&stack) {
        return None;
    }
    let wait = Wait::of(&wait_reason, &stack);
    let known = Known::of(&wait_reason, &stack);
    let ended = exited.max(suspect.gone.last().1);
    let passed = stuck::outlier::Passed { all: passage.left, slow: passage.lingered };
    let standing = Standing {
        doing: key.doing,
        ended,
        wait,
        known,
        stack: &stack,
        waiting,
        live: suspect.live,
        passed,
        beside_connection: stuck::outlier::may_be(ended, passed) && around.beside.connection(&members.parked),
        by_timer: if known.is_some_and(|known| known.timer) {
            Some(true)
        } else {
            waits_for_timer(session, &members.parked)
        },
        rest: around.beside.rest(key.creation_pc),
        parked_since: &parked_since,
        first_look_ns: session.looks().first_ns,
        now_ns: session.now_ns(),
        threshold_ns,
    };
    // Time in which nothing of it runs says nothing of who stands.
    let halted = session.runtime().halted().is_some();
    let signs = if halted { Vec::new() } else { stuck::signs(&standing) };
    let asks = stuck::asks(&standing) || moves_unseen;
    let verdict = if signs.is_empty() { verdict } else { verdict.max(Verdict::Stuck) };
    evidence.extend(signs);
    let told = if loops { &members.parked[..] } else { &members.parked[..over_threshold] };
    let count = told.len() as u64;
    let lower_bounds = members.lower_bounds.iter().filter(|since| loops || **since <= parked_by).count();
    if lower_bounds > 0 {
        evidence.push(format!(
            "{lower_bounds} of {count} were parked before they were first seen: their time is a lower bound."
        ));
    }
    match key.doing {
        Doing::Waits(_) => {}
        Doing::Syscall => evidence.push(match count {
            1 => "It has held a thread of the process all the time.".to_owned(),
            count => format!("Each of them has held a thread of the process all the time: {count} threads."),
        }),
        Doing::Runs => evidence.push(format!(
            "At each of {} looks at short intervals, spread over that time, it ran or was ready to run.",
            members.samples
        )),
    }
    let by_runtime = told.iter().filter(|(_, goid)| members.found_by_runtime.contains(goid)).count();
    let unreached = told.iter().filter(|(_, goid)| is_unreached(*goid)).count() as u64;
    let proven = told.iter().filter(|(_, goid)| is_proven(*goid)).count() as u64;
    if proven > 0 {
        evidence.push(format!("{proven} of {count} are proven: they can never run again."));
    }
    if by_runtime > 0 {
        evidence.push(format!("The runtime's own leak profile has found {by_runtime} of them."));
    }
    let holds = if wait_reason == COROUTINE { Vec::new() } else { holds(session, told) };
    let verdict = if !halted && holds.iter().any(|(shown, _)| *shown) { verdict.max(Verdict::Stuck) } else { verdict };
    evidence.extend(holds.into_iter().map(|(_, sentence)| sentence));
    evidence.extend(held_by(session, told));
    let verdict = if unreached > 0 || by_timer.is_some() { verdict.max(Verdict::Likely) } else { verdict };
    if unreached > 0 && proven < count {
        evidence.push(format!(
            "In each of {} or more looks at the running program nothing led to what {unreached} of {count} wait for.",
            rules.unreached_looks
        ));
    }
    let has_timer = wait_reason == "sleep" || by_timer.is_none() && standing.by_timer == Some(true);
    evidence.extend(by_timer);
    if has_timer && verdict == Verdict::Likely && unreached == 0 {
        evidence.push(levels_off(waiting.growth_per_second()));
    }
    let as_proven = told.iter().find_map(|(_, goid)| proofs.proven(*goid));
    let explained = as_proven.or_else(|| told.iter().find_map(|(_, goid)| session.standing().explained(*goid)));
    let explained = explained.or_else(|| told.iter().find_map(|(_, goid)| proofs.waits(*goid)));
    if proven > 0 || verdict > Verdict::Idle {
        evidence.extend(explained.into_iter().flat_map(|explained| explained.evidence.iter().cloned()));
    }
    let now_ns = session.now_ns();
    // What was there at the first look is no growth, though it took a second look to see that it stays.
    let first_ns = session.looks().first_ns;
    let stayed = members.parked.last().is_some_and(|(since, _)| *since <= first_ns);
    let age = |entry: Option<&(u64, u64)>| entry.map_or(0.0, |(since, _)| seconds(now_ns.saturating_sub(*since)));
    let mut group = Group {
        key: Some(*key),
        verdict: if proven > 0 { Verdict::Proven } else { verdict },
        count,
        waiting: members.waiting,
        loops,
        growth_per_second: if stayed { 0.0 } else { waiting.growth_per_second() },
        wait_reason,
        created_by: Place::of_creation(session.symbols(), key.creation_pc),
        started_by: StartedBy::of(session, key.creation_pc, told.iter().map(|(_, goid)| *goid), &around.parents),
        labels: labels::most(told.iter().filter_map(|(_, goid)| session.labels().of(*goid))),
        start_function: start_function(session.symbols(), members.start_pc),
        blocked_at: Place::of_blocking(&stack),
        in_program: Place::of_program(&stack, session.header().target.module.as_deref()),
        stack,
        parked_seconds: Span { min: age(told.last()), max: age(told.first()) },
        goids: told.iter().take(MAX_GOIDS).map(|(_, goid)| *goid).collect(),
        stack_bytes: members.stack_bytes,
        heap_bytes: as_proven.and_then(|proven| proven.heap_bytes),
        heap_kinds: as_proven.map_or_else(Vec::new, |proven| proven.heap_kinds.clone()),
        proven,
        cause: None,
        evidence,
        asks,
    };
    if group.verdict > Verdict::Idle {
        let handler = session.handler_of(key.creation_pc);
        let known = explained.and_then(|explained| explained.cause.clone());
        group.cause = known.or_else(|| group.explain(&[], handler));
    }
    Some(group)
}
