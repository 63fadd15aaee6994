//! What is wrong with a scheduler, from several looks at it: one rule for each sign, all thresholds in one place.
//!
//! A look is one moment, and every moment of a healthy program shows somebody running and somebody waiting. So a rule wants
//! to see the same in (nearly) all looks of about a second. Deliberately absent: what is wrong over hours; recordings tell.

use std::collections::{BTreeMap, BTreeSet};

use super::sched::{Current, G_RUNNING, G_SYSCALL, Machine, P_RUNNING, Scheduler};
use super::signs::Sign;
use crate::discover::halted::Halted;

/// A goroutine that has run for so long without a break, by the runtime's own watch, which wants it to stop after 10 ms.
pub const NOT_PREEMPTED_NS: u64 = 100_000_000;
/// Share of looks in which something has to be seen.
pub const IN_LOOKS: f64 = 0.8;
/// Fewest looks that a rule about several looks goes by.
pub const FEWEST_LOOKS: usize = 5;
/// Goroutines that stand in system calls at the same time.
pub const MANY_IN_SYSCALLS: usize = 100;
/// Goroutines that wait for a P beside an idle one.
pub const LONG_QUEUE: u64 = 10;
/// Threads beyond GOMAXPROCS that are many, if they are also [`TIMES_PROCESSORS`] times as many.
pub const MANY_THREADS: u64 = 100;
/// See [`MANY_THREADS`].
pub const TIMES_PROCESSORS: u64 = 10;
/// Share of the time in which the process's control group was not let run.
pub const THROTTLED: f64 = 0.05;
/// Time to run that one in a hundred exceeds.
pub const LATENCY_NS: u64 = 20_000_000;
/// Fewest samples of it that tell of one in a hundred.
pub const FEWEST_SAMPLES: u64 = 100;
/// Fewest that tell of one in ten: where goroutines wait long, few begin to run.
pub const FEW_SAMPLES: u64 = 20;
/// A stop of the world that takes longer.
pub const STOPPING_NS: u64 = 50_000_000;

/// What was seen of one process.
#[derive(Debug)]
pub struct Seen<'a> {
    /// Looks at its scheduler, in order.
    pub looks: &'a [Scheduler],
    /// How long its control group was kept from running between the first and the last look, nanoseconds; summed over CPUs.
    pub throttled_ns: Option<u64>,
    /// Threads, as the runtime numbers them, that wait for events in the kernel: a loop of a C library may do so for ever.
    pub in_events: BTreeSet<u64>,
}

/// The function that starts at an address, for sentences.
pub type Names<'a> = dyn FnMut(u64) -> String + 'a;

/// All signs, the rules in order.
pub fn signs(seen: &Seen<'_>, names: &mut Names<'_>) -> Vec<Sign> {
    let rules: [fn(&Seen<'_>, &mut Names<'_>) -> Option<Sign>; 9] =
        [stopping, not_preempted, occupied, in_c, in_syscalls, queue_beside_idle, threads, throttled, latency];
    rules.iter().filter_map(|rule| rule(seen, names)).collect()
}

/// Those of the rules that mean the same if seconds lie between the looks. That the world is being stopped in one and in the next is
/// chance then, and of calls that last the stacks tell more than that they are in C.
pub fn signs_of_looks_apart(seen: &Seen<'_>, names: &mut Names<'_>) -> Vec<Sign> {
    let rules: [fn(&Seen<'_>, &mut Names<'_>) -> Option<Sign>; 7] =
        [not_preempted, occupied_before_others, in_syscalls, queue_beside_idle, threads, throttled, latency];
    rules.iter().filter_map(|rule| rule(seen, names)).collect()
}

/// The one sign of a process that does not run at all; what is seen of it otherwise looks as if nobody were preempted.
pub fn halted(by: Halted) -> Sign {
    match by {
        Halted::Stopped => Sign::new(
            "stopped",
            "a signal (SIGSTOP, SIGTSTP) or a tracer has stopped the process: nothing of it runs".to_owned(),
        ),
        Halted::Frozen => {
            Sign::new("frozen", "its control group is frozen (a paused container): nothing of it runs".to_owned())
        }
    }
}

impl Seen<'_> {
    fn ends(&self) -> Option<(&Scheduler, &Scheduler)> {
        Some((self.looks.first()?, self.looks.last()?))
    }

    fn span_ns(&self) -> u64 {
        self.ends().map_or(0, |(first, last)| last.read_ns.saturating_sub(first.read_ns))
    }

    /// Whether enough looks show it.
    fn mostly(&self, holds: impl Fn(&Scheduler) -> bool) -> bool {
        let seen = self.looks.iter().filter(|look| holds(look)).count();
        self.looks.len() >= FEWEST_LOOKS && seen as f64 >= self.looks.len() as f64 * IN_LOOKS
    }

    /// `20 looks in 1.0 s`
    fn span(&self) -> String {
        format!("{} looks in {:.1} s", self.looks.len(), self.span_ns() as f64 / 1e9)
    }

    /// Goroutines that some M had in all looks, each with what it was in the last.
    fn standing(&self, holds: impl Fn(&Machine, Current) -> bool) -> Vec<(&Machine, Current)> {
        let having = |look: &Scheduler, goid: u64| {
            look.machines.iter().any(|m| m.goroutine.is_some_and(|current| current.goid == goid && holds(m, current)))
        };
        let Some((_, last)) = self.ends().filter(|_| self.looks.len() >= FEWEST_LOOKS) else { return Vec::new() };
        let held = last.machines.iter().filter_map(|m| Some((m, m.goroutine?))).filter(|(m, g)| holds(m, *g));
        held.filter(|(_, g)| self.looks.iter().all(|look| having(look, g.goid))).collect()
    }
}

/// `3 goroutines (2 of main.spin, 1 of main.main)`
fn goroutines<'a>(who: impl Iterator<Item = &'a Current>, names: &mut Names<'_>) -> String {
    let mut by: BTreeMap<String, usize> = BTreeMap::new();
    for current in who {
        *by.entry(names(current.start_pc)).or_default() += 1;
    }
    let mut by: Vec<(String, usize)> = by.into_iter().collect();
    by.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    let all: usize = by.iter().map(|(_, count)| count).sum();
    if let [(name, 1)] = &by[..] {
        return format!("1 goroutine ({name})");
    }
    let named: Vec<String> = by.iter().take(3).map(|(name, count)| format!("{count} of {name}")).collect();
    format!("{all} goroutines ({}{})", named.join(", "), if by.len() > 3 { ", …" } else { "" })
}

/// The goroutine that a P runs.
fn running(look: &Scheduler, p: usize) -> Option<Current> {
    let p = look.processors.get(p).filter(|p| p.status == P_RUNNING)?;
    let m = look.machines.iter().find(|m| Some(m.id) == p.m)?;
    m.goroutine.filter(|current| current.status == G_RUNNING)
}

/// The world is being stopped, and somebody does not stop.
fn stopping(seen: &Seen<'_>, names: &mut Names<'_>) -> Option<Sign> {
    let last = seen.looks.last().filter(|last| last.stopping)?;
    let since = seen.looks.iter().rev().take_while(|look| look.stopping).last()?;
    let ns = last.read_ns.saturating_sub(since.read_ns);
    if ns < STOPPING_NS {
        return None;
    }
    let left: Vec<Current> = (0..last.processors.len()).filter_map(|p| running(last, p)).collect();
    let who = if left.is_empty() { "nobody that was seen".to_owned() } else { goroutines(left.iter(), names) };
    let says = format!(
        "the world has been stopping for {} ms at least and {} of {} Ps have not stopped: {who} runs on",
        ns / 1_000_000,
        last.stop_wait,
        last.gomaxprocs
    );
    Some(Sign::new("stopping", says).about(left.iter().map(|current| current.goid)))
}

/// Goroutines that the runtime has wanted to stop, and that run on. Those that hand their time to one another
/// (`runnext`) share a tick, so it has to be the same goroutine in two looks, without a stop in between.
fn not_preempted(seen: &Seen<'_>, names: &mut Names<'_>) -> Option<Sign> {
    let [.., before, last] = seen.looks else { return None };
    let mut found = Vec::new();
    for (index, p) in last.processors.iter().enumerate() {
        let (Some(then), Some(now)) = (running(before, index), running(last, index)) else { continue };
        let since = last.read_ns.saturating_sub(p.monitor_since_ns);
        let watched = p.sched_tick == p.monitor_tick && p.monitor_since_ns != 0 && !last.monitor_sleeps;
        let same = before.processors.get(index).is_some_and(|then| then.sched_tick == p.sched_tick);
        if watched && same && then == now && since >= NOT_PREEMPTED_NS {
            found.push((now, since));
        }
    }
    let longest = found.iter().map(|(_, since)| *since).max()?;
    let says = format!(
        "{} {} run for {} ms without a break, where the runtime asks for one after 10 ms",
        goroutines(found.iter().map(|(current, _)| current), names),
        if found.len() == 1 { "has" } else { "have" },
        longest / 1_000_000
    );
    Some(Sign::new("not preempted", says).about(found.iter().map(|(current, _)| current.goid)))
}

/// Whether somebody is ready to run and has no P, in most looks.
fn others_wait(seen: &Seen<'_>) -> bool {
    seen.mostly(|look| look.queued() > 0)
}

/// The same, where others wait meanwhile: a batch that computes for hours is no news in each report.
fn occupied_before_others(seen: &Seen<'_>, names: &mut Names<'_>) -> Option<Sign> {
    occupied(seen, names).filter(|_| others_wait(seen))
}

/// The same goroutines have all Ps, look after look.
fn occupied(seen: &Seen<'_>, names: &mut Names<'_>) -> Option<Sign> {
    let (_, last) = seen.ends()?;
    let always = seen.standing(|m, current| m.p.is_some() && current.status == G_RUNNING);
    // A goroutine that is stopped each 10 ms is at times not running when it is looked at, so it is followed by looks.
    let mut often: BTreeMap<u64, (usize, Current)> = always.into_iter().map(|(_, g)| (g.goid, (0, g))).collect();
    for look in seen.looks {
        for p in 0..look.processors.len() {
            if let Some(current) = running(look, p) {
                often.entry(current.goid).or_insert((0, current)).0 += 1;
            }
        }
    }
    let enough = (seen.looks.len() as f64 * IN_LOOKS).ceil() as usize;
    let busy: Vec<Current> =
        often.values().filter(|(looks, _)| *looks >= enough).map(|(_, current)| *current).collect();
    if seen.looks.len() < FEWEST_LOOKS || (busy.len() as u64) < last.gomaxprocs || last.gomaxprocs == 0 {
        return None;
    }
    let ps = if last.gomaxprocs == 1 { "the only P is".to_owned() } else { format!("all {} Ps are", last.gomaxprocs) };
    let says = format!(
        "{ps} taken by the same goroutines, whenever looked at ({}): {}; {}",
        seen.span(),
        goroutines(busy.iter(), names),
        if others_wait(seen) {
            "others wait for them to be preempted"
        } else {
            "nobody else is ready: it may be their work"
        }
    );
    Some(Sign::new("occupied", says).about(busy.iter().map(|current| current.goid)))
}

/// Calls to C that do not return.
fn in_c(seen: &Seen<'_>, names: &mut Names<'_>) -> Option<Sign> {
    let (first, _) = seen.ends()?;
    let calls: BTreeMap<i64, u64> = first.machines.iter().map(|m| (m.id, m.c_calls)).collect();
    let mut found = seen.standing(|m, _| m.in_c);
    // The same call, not the next one.
    found.retain(|(m, _)| calls.get(&m.id) == Some(&m.c_calls) && !seen.in_events.contains(&m.thread_id));
    if found.is_empty() {
        return None;
    }
    let says = format!(
        "in calls to C that have not returned within {:.1} s: {}; each holds a thread",
        seen.span_ns() as f64 / 1e9,
        goroutines(found.iter().map(|(_, current)| current), names)
    );
    Some(Sign::new("in C", says).about(found.iter().map(|(_, current)| current.goid)))
}

/// Very many threads in system calls.
fn in_syscalls(seen: &Seen<'_>, names: &mut Names<'_>) -> Option<Sign> {
    let (first, _) = seen.ends()?;
    let then: BTreeMap<u64, u8> =
        first.machines.iter().filter_map(|m| m.goroutine).map(|current| (current.goid, current.runs)).collect();
    let mut found = seen.standing(|m, current| !m.in_c && current.status == G_SYSCALL);
    found.retain(|(_, current)| then.get(&current.goid) == Some(&current.runs));
    if found.len() < MANY_IN_SYSCALLS {
        return None;
    }
    let says = format!(
        "in system calls that have not returned within {:.1} s: {}; each holds a thread",
        seen.span_ns() as f64 / 1e9,
        goroutines(found.iter().map(|(_, current)| current), names)
    );
    Some(Sign::new("in system calls", says).about(found.iter().map(|(_, current)| current.goid)))
}

/// Work waits while Ps have none.
fn queue_beside_idle(seen: &Seen<'_>, _: &mut Names<'_>) -> Option<Sign> {
    if !seen.mostly(|look| look.idle_processors > 0 && look.queued() >= LONG_QUEUE) {
        return None;
    }
    let (_, last) = seen.ends()?;
    let says = format!(
        "{} goroutines wait for a P while {} of {} are idle ({}): no thread takes the work up",
        last.queued(),
        last.idle_processors,
        last.gomaxprocs,
        seen.span()
    );
    Some(Sign::new("queue beside idle", says))
}

/// Far more threads than Ps.
fn threads(seen: &Seen<'_>, _: &mut Names<'_>) -> Option<Sign> {
    let (_, last) = seen.ends()?;
    let many = last.threads >= last.gomaxprocs.saturating_add(MANY_THREADS)
        && last.threads >= last.gomaxprocs.saturating_mul(TIMES_PROCESSORS);
    if !many {
        return None;
    }
    let in_c = last.machines.iter().filter(|m| m.in_c).count();
    let in_syscalls = last
        .machines
        .iter()
        .filter(|m| !m.in_c && m.goroutine.is_some_and(|current| current.status == G_SYSCALL))
        .count();
    let says = format!(
        "{} threads for {} Ps: {in_syscalls} in system calls, {in_c} in C, {} idle; the runtime never ends idle ones, and \
         ends the program at 10 000",
        last.threads, last.gomaxprocs, last.idle_threads
    );
    Some(Sign::new("threads", says))
}

/// The kernel keeps the control group from running.
fn throttled(seen: &Seen<'_>, _: &mut Names<'_>) -> Option<Sign> {
    let span = seen.span_ns();
    let throttled = seen.throttled_ns?;
    if span == 0 || (throttled as f64) < span as f64 * THROTTLED {
        return None;
    }
    let says = format!(
        "the CPU quota of its control group has kept its threads from running for {} ms in {} ms (summed over CPUs), which \
         looks like a slow scheduler from inside",
        throttled / 1_000_000,
        span / 1_000_000
    );
    Some(Sign::new("throttled", says))
}

/// Goroutines that are ready wait long for a P.
fn latency(seen: &Seen<'_>, _: &mut Names<'_>) -> Option<Sign> {
    let (first, last) = seen.ends()?;
    let fresh = last.latency.as_ref()?.since(first.latency.as_ref()?);
    let (one_in, quantile) = match fresh.total() {
        FEWEST_SAMPLES.. => ("a hundred", 0.99),
        FEW_SAMPLES.. => ("ten", 0.9),
        _ => return None,
    };
    let high = fresh.quantile(quantile).filter(|high| *high >= LATENCY_NS)?;
    let says = format!(
        "one in {one_in} goroutines that are ready waits {} ms or longer for a P ({} samples in {:.1} s)",
        high / 1_000_000,
        fresh.total(),
        seen.span_ns() as f64 / 1e9
    );
    Some(Sign::new("latency", says))
}

#[cfg(test)]
mod tests {
    use super::super::histogram::Histogram;
    use super::super::sched::Processor;
    use super::*;

    fn looks(count: u64, change: impl Fn(&mut Scheduler)) -> Vec<Scheduler> {
        let look = |index: u64| {
            let mut look = Scheduler {
                read_ns: index * 50_000_000,
                gomaxprocs: 2,
                threads: 5,
                processors: vec![Processor::default(); 2],
                ..Scheduler::default()
            };
            change(&mut look);
            look
        };
        (0..count).map(look).collect()
    }

    fn rules(looks: &[Scheduler], throttled_ns: Option<u64>) -> Vec<String> {
        let signs = signs(&Seen { looks, throttled_ns, in_events: BTreeSet::new() }, &mut |_| "main.f".to_owned());
        signs.into_iter().map(|sign| sign.rule).collect()
    }

    #[test]
    fn nothing_is_no_sign() {
        assert_eq!(rules(&[], None), Vec::<String>::new());
        assert_eq!(rules(&looks(20, |_| {}), Some(0)), Vec::<String>::new());
    }

    #[test]
    fn a_queue_beside_idle_ps_is_one_if_it_stays() {
        let waiting = |look: &mut Scheduler| (look.idle_processors, look.run_queue) = (1, 12);
        assert_eq!(rules(&looks(20, waiting), None), ["queue beside idle"]);
        assert_eq!(rules(&looks(4, waiting), None), Vec::<String>::new(), "too few looks");
        let busy = |look: &mut Scheduler| look.run_queue = 12;
        assert_eq!(rules(&looks(20, busy), None), Vec::<String>::new(), "no P is idle");
    }

    #[test]
    fn threads_throttling_and_latency_go_by_their_thresholds() {
        let threads = |count| looks(20, move |look| look.threads = count);
        assert_eq!(rules(&threads(102), None), ["threads"]);
        assert_eq!(rules(&threads(101), None), Vec::<String>::new());
        // The looks span 950 ms.
        assert_eq!(rules(&looks(20, |_| {}), Some(48_000_000)), ["throttled"]);
        assert_eq!(rules(&looks(20, |_| {}), Some(47_000_000)), Vec::<String>::new());
        let mut slow =
            looks(20, |look| look.latency = Some(Histogram { counts: vec![0; 160], ..Histogram::default() }));
        let bucket = (0..160).find(|bucket| Histogram::lower_bound(*bucket) >= LATENCY_NS).expect("a bucket");
        for (count, expected) in [(100, &["latency"][..]), (20, &["latency"]), (19, &[])] {
            if let Some(histogram) = &mut slow.last_mut().expect("a look").latency {
                histogram.counts[bucket] = count;
            }
            assert_eq!(rules(&slow, None), expected, "{count} samples");
        }
    }
}
