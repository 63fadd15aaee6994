//! The incident in one sentence.

use super::{GroupLine, IncidentLine, Life, lives};
use crate::detect::Verdict;
use crate::words::numbers::{Clock, number, rate};
use crate::words::{goroutines, printable};

/// Index of the group that an incident is about: the one most certainly leaking, and of those the largest.
pub fn culprit(groups: &[GroupLine]) -> Option<usize> {
    let leaks = |group: &GroupLine| {
        group.strongest.is_some_and(Verdict::is_leak)
            && group.onset.is_some()
            && group.at_end.saturating_mul(2) >= group.peak
    };
    let candidates = groups.iter().enumerate().filter(|(_, group)| leaks(group));
    // Of equals the first, which the order of groups puts there for a reason.
    candidates.rev().max_by_key(|(_, group)| (group.strongest, group.at_end)).map(|(index, _)| index)
}

/// The sentence; `incident` is what it tells of if nothing leaks.
pub fn headline(
    groups: &[GroupLine],
    culprit: Option<usize>,
    incident: Option<&IncidentLine>,
    lives: &[Life],
    clock: Clock,
) -> String {
    let group = culprit.and_then(|index| groups.get(index));
    let of = group.map(|group| group.life).or_else(|| incident.map(|incident| incident.life));
    let Some(life) = of.map_or_else(|| lives.last(), |life| lives.get(life)) else {
        return "The recording holds nothing of this.".to_owned();
    };
    let last = lives::extent(life).map_or(0, |(_, last)| last);
    let until = match &life.ended {
        Some(ended) => format!("{} at {}", ended.how, clock.time(ended.ms)),
        None => format!("the last look at {}", clock.time(last)),
    };
    let Some((group, onset)) = group.and_then(|group| Some((group, group.onset?))) else {
        if let Some(incident) = incident {
            let until = incident.ended_ms.map_or(until, |ms| clock.time(ms));
            let from = clock.time(incident.from_ms);
            return format!("{}; from {from} until {until} UTC.", capitalized(&printable(&incident.headline)));
        }
        let live = life.segments.last().and_then(|segment| segment.live.last()).copied().unwrap_or(0);
        let ended = life
            .ended
            .as_ref()
            .map(|ended| format!(" It was watched until {} at {}.", ended.how, clock.time(ended.ms)));
        return format!(
            "Nothing behaves like a leak: {} at the last look, {} UTC.{}",
            goroutines(live).replacen(&live.to_string(), &number(live), 1),
            clock.time(life.segments.last().and_then(|segment| segment.ms.last()).copied().unwrap_or(last)),
            ended.unwrap_or_default(),
        );
    };
    let who = group.created_by.as_ref().map_or(&group.start_function, |place| &place.function);
    let surely = if group.strongest == Some(Verdict::Proven) { "" } else { "most likely " };
    let from = if onset.before_first_look {
        format!("since before the first look at {}", clock.time(onset.latest_ms))
    } else {
        format!("from {}", clock.time(onset.ms))
    };
    format!(
        "{} {surely}leaked {} goroutines {from}, {}, until {until} UTC.",
        printable(who),
        number(group.leaked()),
        rate(group.growth_per_second.unwrap_or_default()),
    )
}

fn capitalized(sentence: &str) -> String {
    let mut chars = sentence.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}
