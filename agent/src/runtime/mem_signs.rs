//! What is wrong with a program's memory and its collector: one rule for each sign, all thresholds in one place. They are those
//! that people watch dashboards by.

use super::mem::{Memories, NO_GOAL, NO_LIMIT};
use super::signs::Sign;

/// Bytes of objects below this share of the heap in use: the rest are holes.
pub const FRAGMENTED: f64 = 0.5;
/// Holes that matter.
pub const HOLES: u64 = 64 << 20;
/// Bytes of objects above this share of the heap in use, look after look, while it grows: nothing in it is free.
pub const FULL: f64 = 0.85;
/// Growth between the first and the last look that matters.
pub const GROWN: u64 = 64 << 20;
/// The same as a share of what it was.
pub const GROWN_SHARE: f64 = 0.2;
/// Memory that is neither the heap in use nor given back.
pub const BESIDE_HEAP: u64 = 512 << 20;
/// Heap in use at every look, before and after collections.
pub const LARGE_HEAP: u64 = 2 << 30;
/// Share of the goal, and of looks in which the heap has it.
pub const NEAR_GOAL: f64 = 0.9;
/// Collections between the first and the last look with which nearness to the goal is a matter.
pub const OFTEN: u64 = 10;
/// Mean pause.
pub const LONG_PAUSE_NS: u64 = 50_000_000;
/// Pauses that a mean is taken of, at least.
pub const FEWEST_PAUSES: usize = 3;
/// Times as often as before: the newest quarter of the pauses against those before.
pub const MORE_OFTEN: f64 = 3.0;
/// Collections a second from which on that matters.
pub const OFTEN_A_SECOND: f64 = 2.0;
/// Share of the CPU from which on it does.
pub const FREQUENT_CPU: f64 = 0.05;
/// Pauses that how often they come is told by, at least.
pub const FEWEST_TO_COMPARE: usize = 64;
/// Share of all CPU time.
pub const GC_CPU: f64 = 0.25;
/// Share of the control group's limit.
pub const NEAR_GROUP_LIMIT: f64 = 0.9;
/// Timers that call the same.
pub const MANY_TIMERS: u64 = 10_000;

/// What was seen of one process.
#[derive(Debug)]
pub struct Seen<'a> {
    /// Looks at its memory, in order.
    pub looks: &'a [Memories],
    /// Use and limit of its control group.
    pub group: Option<(u64, u64)>,
    /// Timers that wait, by what they call.
    pub timers: &'a [(String, u64)],
}

/// All signs, the rules in order.
pub fn signs(seen: &Seen<'_>) -> Vec<Sign> {
    let rules: [fn(&Seen<'_>) -> Option<Sign>; 11] =
        [spiral, collector, near_goal, pauses, more_often, group, large, full, fragmented, beside_heap, timers];
    rules.iter().filter_map(|rule| rule(seen)).collect()
}

fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / (1 << 20) as f64)
}

fn percent(share: f64) -> String {
    format!("{:.0} %", share * 100.0)
}

/// The limit of memory is so low that the collector does little but run, until its limiter lets the heap grow.
fn spiral(seen: &Seen<'_>) -> Option<Sign> {
    let last = seen.looks.last()?;
    let share = share(seen)?;
    let full = last.heap_marked as f64 > last.memory_limit as f64 * NEAR_GOAL && share > GC_CPU;
    if last.memory_limit == NO_LIMIT || !(last.is_limited() || full) {
        return None;
    }
    let limiter = if last.is_limited() { "; its limiter keeps it from taking more than half" } else { "" };
    let says = format!(
        "{} are live and the memory limit is {}: the collector runs again and again ({} collections, {} of the CPU{limiter}); raise GOMEMLIMIT, or find what holds the heap",
        mib(last.heap_marked),
        mib(last.memory_limit),
        last.stats.num_gc,
        percent(share)
    );
    Some(Sign::new("memory limit", says))
}

/// The collector's share of the CPU between the looks, if a collection ended meanwhile: until then the runtime's numbers are those of
/// the last one, which may be long ago.
fn share(seen: &Seen<'_>) -> Option<f64> {
    let (first, last) = (seen.looks.first()?, seen.looks.last()?);
    let total = last.total_cpu_ns.checked_sub(first.total_cpu_ns).filter(|total| *total > 0)?;
    Some(last.gc_cpu_ns.saturating_sub(first.gc_cpu_ns) as f64 / total as f64)
}

/// The collector takes much of the CPU.
fn collector(seen: &Seen<'_>) -> Option<Sign> {
    let (first, last) = (seen.looks.first()?, seen.looks.last()?);
    let share = share(seen)?;
    (share > GC_CPU).then(|| {
        let cycles = last.stats.num_gc.saturating_sub(first.stats.num_gc);
        let says = format!(
            "the collector took {} of the CPU between the looks ({cycles} collections meanwhile); the goal is {} with {} live",
            percent(share),
            if last.stats.next_gc == NO_GOAL { "none".to_owned() } else { mib(last.stats.next_gc) },
            mib(last.heap_marked)
        );
        Sign::new("collector", says)
    })
}

/// The heap is at its goal whenever looked at, and collections follow one another.
fn near_goal(seen: &Seen<'_>) -> Option<Sign> {
    let (first, last) = (seen.looks.first()?, seen.looks.last()?);
    let near = |look: &&Memories| {
        look.stats.next_gc != NO_GOAL && look.stats.alloc as f64 > look.stats.next_gc as f64 * NEAR_GOAL
    };
    let cycles = last.stats.num_gc.saturating_sub(first.stats.num_gc);
    let share = seen.looks.iter().filter(near).count() as f64 / seen.looks.len() as f64;
    (share >= NEAR_GOAL && cycles >= OFTEN).then(|| {
        let says = format!(
            "the heap was above {} of its goal of {} in {} of the looks, through {cycles} collections",
            percent(NEAR_GOAL),
            mib(last.stats.next_gc),
            percent(share)
        );
        Sign::new("near goal", says)
    })
}

/// Pauses are long.
fn pauses(seen: &Seen<'_>) -> Option<Sign> {
    let pauses = &seen.looks.last()?.pauses;
    let mean = pauses.iter().fold(0u64, |sum, pause| sum.saturating_add(pause.ns)) / (pauses.len() as u64).max(1);
    if pauses.len() < FEWEST_PAUSES || mean < LONG_PAUSE_NS {
        return None;
    }
    let longest = pauses.iter().map(|pause| pause.ns).max().unwrap_or(0);
    let says = format!(
        "the last {} collections stopped the program for {} ms each on average, for {} ms at most",
        pauses.len(),
        mean / 1_000_000,
        longest / 1_000_000
    );
    Some(Sign::new("pauses", says))
}

/// The control group is near its limit.
fn group(seen: &Seen<'_>) -> Option<Sign> {
    let (used, limit) = seen.group?;
    (used as f64 > limit as f64 * NEAR_GROUP_LIMIT).then(|| {
        let says = format!("its control group uses {} of {}; the kernel kills at the limit", mib(used), mib(limit));
        Sign::new("control group", says)
    })
}

/// Collections follow one another ever faster, and cost something.
fn more_often(seen: &Seen<'_>) -> Option<Sign> {
    let pauses = &seen.looks.last()?.pauses;
    if pauses.len() < FEWEST_TO_COMPARE || share(seen)? < FREQUENT_CPU {
        return None;
    }
    let quarter = pauses.len() / 4;
    let between = |newer: usize, older: usize| {
        let ns = pauses.get(newer)?.end_unix_ns.saturating_sub(pauses.get(older)?.end_unix_ns);
        (ns > 0).then(|| (older - newer) as f64 / ns as f64 * 1e9)
    };
    let (now, before) = (between(0, quarter)?, between(quarter, pauses.len() - 1)?);
    (now >= OFTEN_A_SECOND && now >= before * MORE_OFTEN).then(|| {
        let says = format!("{now:.1} collections a second, after {before:.1} a second before");
        Sign::new("more collections", says)
    })
}

/// Much is in use all the time, and collections do not change that.
fn large(seen: &Seen<'_>) -> Option<Sign> {
    let (first, last) = (seen.looks.first()?, seen.looks.last()?);
    let least = seen.looks.iter().map(|look| look.stats.heap_inuse).min()?;
    let collected = last.stats.num_gc > first.stats.num_gc;
    (least > LARGE_HEAP && (collected || last.heap_marked > LARGE_HEAP)).then(|| {
        let says = format!(
            "{} of heap are in use and do not fall: collection {} left {} live",
            mib(last.stats.heap_inuse),
            last.stats.num_gc,
            mib(last.heap_marked)
        );
        Sign::new("large heap", says)
    })
}

/// The heap in use is full of objects, and grows.
fn full(seen: &Seen<'_>) -> Option<Sign> {
    let (first, last) = (&seen.looks.first()?.stats, &seen.looks.last()?.stats);
    let dense = |look: &&Memories| look.stats.alloc as f64 > look.stats.heap_inuse as f64 * FULL;
    let share = seen.looks.iter().filter(dense).count() as f64 / seen.looks.len() as f64;
    let grown = last.heap_inuse.saturating_sub(first.heap_inuse);
    (share >= NEAR_GOAL && grown >= GROWN && grown as f64 >= first.heap_inuse as f64 * GROWN_SHARE).then(|| {
        let says = format!(
            "the heap in use grew from {} to {}, and {} of it are objects: it grows because they stay",
            mib(first.heap_inuse),
            mib(last.heap_inuse),
            percent(last.alloc as f64 / last.heap_inuse as f64)
        );
        Sign::new("full heap", says)
    })
}

/// Spans are held by few objects each.
fn fragmented(seen: &Seen<'_>) -> Option<Sign> {
    let stats = &seen.looks.last()?.stats;
    let holes = stats.heap_inuse.saturating_sub(stats.alloc);
    let dense = stats.alloc as f64 / (stats.heap_inuse as f64).max(1.0);
    (holes > HOLES && dense < FRAGMENTED).then(|| {
        let says = format!(
            "{} of objects lie scattered over {} of heap in use: {} are holes that only objects of the same size can fill",
            mib(stats.alloc),
            mib(stats.heap_inuse),
            mib(holes)
        );
        Sign::new("fragmentation", says)
    })
}

/// Memory that the heap does not use.
fn beside_heap(seen: &Seen<'_>) -> Option<Sign> {
    let stats = &seen.looks.last()?.stats;
    let beside = stats.sys.saturating_sub(stats.heap_inuse).saturating_sub(stats.heap_released);
    (beside > BESIDE_HEAP).then(|| {
        let says = format!(
            "{} are held beside the heap in use: {} free but not given back, {} of stacks, {} of the collector",
            mib(beside),
            mib(stats.heap_idle.saturating_sub(stats.heap_released)),
            mib(stats.stack_sys),
            mib(stats.gc_sys)
        );
        Sign::new("beside the heap", says)
    })
}

/// Very many timers call the same.
fn timers(seen: &Seen<'_>) -> Option<Sign> {
    let (calls, count) = seen.timers.iter().max_by_key(|(_, count)| *count)?;
    (*count >= MANY_TIMERS).then(|| Sign::new("timers", format!("{count} timers of {calls} wait at the same time")))
}

#[cfg(test)]
mod tests {
    use super::super::mem::{MemStats, Pause};
    use super::*;

    fn healthy() -> Memories {
        Memories {
            stats: MemStats {
                alloc: 80 << 20,
                heap_inuse: 90 << 20,
                sys: 150 << 20,
                next_gc: 120 << 20,
                num_gc: 100,
                ..MemStats::default()
            },
            memory_limit: NO_LIMIT,
            heap_marked: 60 << 20,
            gc_percent: 100,
            pauses: vec![Pause { ns: 100_000, end_unix_ns: 1 }; 100],
            ..Memories::default()
        }
    }

    fn rules(change: impl Fn(&mut Memories), group: Option<(u64, u64)>, timers: u64) -> Vec<String> {
        let mut looks = vec![healthy(); 10];
        for (index, look) in looks.iter_mut().enumerate() {
            // Half of the time of the CPUs passes between looks; the collector gets none.
            look.total_cpu_ns = index as u64 * 100;
            look.stats.num_gc = 100 + index as u64 * 2;
            change(look);
        }
        let timers = [("time.AfterFunc calling main.f".to_owned(), timers)];
        let signs = signs(&Seen { looks: &looks, group, timers: &timers });
        signs.into_iter().map(|sign| sign.rule).collect()
    }

    #[test]
    fn each_rule_goes_by_its_threshold() {
        let none = Vec::<String>::new();
        assert_eq!(rules(|_| {}, Some((89, 100)), 9999), none);
        assert_eq!(rules(|_| {}, Some((91, 100)), 10_000), ["control group", "timers"]);
        assert_eq!(rules(|look| look.stats.alloc = 109 << 20, None, 0), ["near goal"]);
        assert_eq!(rules(|look| look.stats.alloc = 107 << 20, None, 0), none);
        assert_eq!(rules(|look| look.gc_cpu_ns = look.total_cpu_ns * 26 / 100, None, 0), ["collector"]);
        assert_eq!(rules(|look| look.gc_cpu_ns = look.total_cpu_ns * 25 / 100, None, 0), none);
        let idle = |look: &mut Memories| {
            (look.stats.gc_cpu_fraction, look.total_cpu_ns, look.gc_cpu_ns) = (0.5, 1000, 500);
            (look.memory_limit, look.limiter_on) = (64 << 20, true);
        };
        assert_eq!(rules(idle, None, 0), none, "what the last collection took, long ago");
        assert_eq!(rules(|look| look.pauses.iter_mut().for_each(|pause| pause.ns = 50_000_000), None, 0), ["pauses"]);
        let large = |look: &mut Memories| (look.stats.alloc, look.stats.heap_inuse) = (2 << 30, (2 << 30) + 1);
        assert_eq!(rules(large, None, 0), ["near goal", "large heap"]);
        let collected = |look: &mut Memories| {
            large(look);
            (look.stats.next_gc, look.stats.num_gc) = (4 << 30, 7);
        };
        assert_eq!(rules(collected, None, 0), none, "no collection yet, and the last one left little");
        let falls = |look: &mut Memories| {
            collected(look);
            look.stats.num_gc = look.total_cpu_ns;
            look.stats.heap_inuse = if look.total_cpu_ns == 500 { 2 << 30 } else { (2 << 30) + 1 };
        };
        assert_eq!(rules(falls, None, 0), none, "a collection made it smaller");
        let grows = |by: u64| {
            move |look: &mut Memories| {
                look.stats.heap_inuse = (100 << 20) + by * look.total_cpu_ns / 900;
                (look.stats.alloc, look.stats.next_gc) = (look.stats.heap_inuse / 100 * 86, 1 << 30);
            }
        };
        assert_eq!(rules(grows(64 << 20), None, 0), ["full heap"]);
        assert_eq!(rules(grows(63 << 20), None, 0), none);
        let often = |share: u64| {
            move |look: &mut Memories| {
                look.gc_cpu_ns = look.total_cpu_ns * share / 100;
                let at = |back: u64| if back <= 16 { 1000 - back * 100 / 16 } else { 900 - (back - 16) * 20 };
                look.pauses = (0..60).map(|back| Pause { ns: 1, end_unix_ns: at(back) * 1_000_000 }).collect();
                look.pauses.extend((0..4).map(|back| Pause { ns: 1, end_unix_ns: back }));
            }
        };
        assert_eq!(rules(often(6), None, 0), ["more collections"]);
        assert_eq!(rules(often(4), None, 0), none, "they cost little");
        assert_eq!(rules(|look| look.stats.heap_inuse = 161 << 20, None, 0), ["fragmentation"]);
        assert_eq!(rules(|look| look.stats.heap_inuse = 143 << 20, None, 0), none, "holes too small to matter");
        assert_eq!(rules(|look| look.stats.sys = (90 << 20) + (513 << 20), None, 0), ["beside the heap"]);
        let limited = |look: &mut Memories| look.memory_limit = 64 << 20;
        assert_eq!(rules(limited, None, 0), none, "a limit alone");
        let limited = |look: &mut Memories| (look.memory_limit, look.limiter_on) = (64 << 20, true);
        assert_eq!(rules(limited, None, 0), ["memory limit"]);
    }
}
