//! The incident in one sentence.

use std::cmp::Reverse;

use super::{GroupLife, GroupLine, IncidentLine, Life};
use crate::detect::Verdict;
use crate::golang::names::is_standard;
use crate::words::numbers::{Clock, number, rate};
use crate::words::{goroutines, printable};

/// Index of the group that an incident is about, in the order that reports have: the one most certainly leaking, and of those the
/// one with the most goroutines that a report counts.
pub fn culprit(groups: &[GroupLine]) -> Option<usize> {
    worst(groups, |group| group.in_life(group.life))
}

/// The same of one process.
pub fn culprit_of(groups: &[GroupLine], life: usize) -> Option<usize> {
    worst(groups, |group| group.in_life(life))
}

fn worst<'a>(groups: &'a [GroupLine], of: impl Fn(&'a GroupLine) -> Option<&'a GroupLife>) -> Option<usize> {
    // What was taken for a leak while it grew, and stands in the end behind somebody, is stuck.
    let leaks = |of: &&GroupLife| {
        let leaked = of.strongest.is_some_and(Verdict::is_leak) && of.verdict != Some(Verdict::Stuck);
        leaked && of.at_end.saturating_mul(2) >= of.peak
    };
    let candidates = groups.iter().enumerate().filter_map(|(index, group)| {
        let of = of(group).filter(leaks)?;
        let place = (&group.created_by, &group.start_function, &group.wait_reason);
        Some(((Reverse((of.strongest, of.parked_at_end)), place), index))
    });
    candidates.min().map(|(_, index)| index)
}

/// The sentence; `incident` is what it tells of if nothing leaks.
pub fn headline(
    groups: &[GroupLine],
    culprit: Option<usize>,
    incident: Option<&IncidentLine>,
    lives: &[Life],
    clock: Clock,
) -> String {
    let leak = culprit.and_then(|index| groups.get(index)).and_then(|group| Some((group, group.in_life(group.life)?)));
    if let Some((group, of)) = leak
        && let Some(life) = lives.get(group.life)
    {
        return leaked(group, of, life, clock);
    }
    if let Some(incident) = incident
        && let Some(life) = lives.get(incident.life)
    {
        return waited(incident, life, clock);
    }
    match lives.last() {
        None => "The recording holds nothing of this.".to_owned(),
        Some(life) => nothing(groups, lives.len() - 1, life, clock),
    }
}

fn leaked(group: &GroupLine, of: &GroupLife, life: &Life, clock: Clock) -> String {
    let surely = if of.strongest == Some(Verdict::Proven) { "" } else { "most likely " };
    let grew = || rate(of.growth_per_second.unwrap_or_default());
    let from = match (of.onset, of.told_ms) {
        (Some(onset), _) if onset.before_first_look => {
            format!(" since before the first look at {}, {}", clock.time(onset.latest_ms), grew())
        }
        (Some(onset), _) => format!(" from {}, {}", clock.time(onset.ms), grew()),
        (None, told) => format!(", seen from {} on", clock.time(told.unwrap_or_else(|| last_look(life)))),
    };
    let until = end(life, clock);
    format!("{} {surely}leaked {}{from}, until {until} UTC.", maker(group), many(of.parked_at_end))
}

/// That goroutines waited for one another.
fn waited(incident: &IncidentLine, life: &Life, clock: Clock) -> String {
    let until = incident.ended_ms.map_or_else(|| end(life, clock), |ms| clock.time(ms));
    let from = clock.time(incident.from_ms);
    format!("{}; from {from} until {until} UTC.", capitalized(&printable(&incident.headline)))
}

/// How it ended, or when it was last looked at.
fn end(life: &Life, clock: Clock) -> String {
    match &life.ended {
        Some(ended) => format!("{} at {}", ended.how, clock.time(ended.ms)),
        None => format!("the last look at {}", clock.time(last_look(life))),
    }
}

fn capitalized(sentence: &str) -> String {
    let mut chars = sentence.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

/// What is said of a process in which nothing leaks.
fn nothing(groups: &[GroupLine], index: usize, life: &Life, clock: Clock) -> String {
    let live = life.segments.last().and_then(|segment| segment.live.last()).copied().unwrap_or(0);
    let stuck = groups.iter().filter_map(|group| Some((group, group.in_life(index)?)));
    let stuck = stuck.filter(|(_, of)| of.verdict == Some(Verdict::Stuck));
    let but = stuck.max_by_key(|(_, of)| of.parked_at_end).filter(|_| life.stuck > 0).map(|(group, of)| {
        let of = if of.parked_at_end == life.stuck {
            String::new()
        } else {
            format!("{} of them ", number(of.parked_at_end))
        };
        format!(" Stuck: {}, {of}made by {}.", many(life.stuck), maker(group))
    });
    let ended = life.ended.as_ref();
    let ended = ended.map(|ended| format!(" It was watched until {} at {}.", ended.how, clock.time(ended.ms)));
    format!(
        "Nothing behaves like a leak: {} at the last look, {} UTC.{}{}",
        many(live),
        clock.time(last_look(life)),
        but.unwrap_or_default(),
        ended.unwrap_or_default(),
    )
}

/// The function that made them, or, if that is a library's, the program's that they are in, or run.
fn maker(group: &GroupLine) -> String {
    let Some(made) = group.created_by.as_ref().map(|place| &place.function) else {
        return printable(&group.start_function);
    };
    let in_program = group.in_program.as_ref().map(|place| &place.function);
    let own = in_program.or(Some(&group.start_function)).filter(|own| is_standard(made) && !is_standard(own));
    own.map_or_else(|| printable(made), |own| format!("{} (through {})", printable(own), printable(made)))
}

fn last_look(life: &Life) -> u64 {
    life.segments.last().and_then(|segment| segment.ms.last()).copied().unwrap_or(0)
}

/// `118 400 goroutines`.
pub fn many(count: u64) -> String {
    goroutines(count).replacen(&count.to_string(), &number(count), 1)
}
