//! From histories to their timeline.

use std::collections::HashMap;
use std::sync::Arc;

use super::axis::Axis;
use super::lives::{self, Rows};
use super::{
    Change, Example, GapSpan, GroupLife, GroupLine, IncidentLine, Life, Mark, MarkKind, Onset, SCHEMA, SiteLine,
    Timeline, headline, incidents, trend,
};
use crate::detect::Verdict;
use crate::record::{CreationSite, ExitKind, GroupHistory, History, RecordedGroup};
use crate::words::Place;
use crate::words::numbers::{self, Clock};
use crate::words::printable;

/// `go` statements shown by themselves; the others are summed.
const MAX_SITES: usize = 24;

/// Groups shown.
const MAX_GROUPS: usize = 100;

/// Marks shown.
const MAX_MARKS: usize = 400;

impl Timeline {
    /// The timeline of some processes.
    pub fn of(mut histories: Vec<History>) -> Self {
        let axis = Axis::of(&histories);
        let first = |history: &History| {
            let sample = history.watches.first().and_then(|watch| watch.samples.first());
            sample.map(|sample| axis.ms(history.boot, sample.at.mono_ns))
        };
        histories.retain(|history| first(history).is_some());
        histories.sort_by_key(first);

        let tallies = tally(&histories);
        let (groups, groups_left_out) = rank(&tallies);
        let group_rows: HashMap<&RecordedGroup, usize> =
            groups.iter().enumerate().map(|(row, tally)| (&*tally.group, row)).collect();
        let mut lines: Vec<GroupLine> = groups.iter().map(|tally| line(tally, &histories, &axis)).collect();
        let (sites, site_rows) = sites(&histories, &mut lines);
        let other = (sites.len() > site_rows.len()).then_some(site_rows.len());

        let mut lives: Vec<Life> = histories
            .iter()
            .map(|history| {
                let rows = Rows {
                    sites: history.sites.iter().map(|site| site_rows.get(site).copied()).collect(),
                    groups: history.groups.iter().map(|group| group_rows.get(&*group.group).copied()).collect(),
                    other,
                };
                lives::life(history, &axis, &rows)
            })
            .collect();
        lives::assign_lanes(&mut lives);
        for (index, life) in lives.iter_mut().enumerate() {
            life.culprit = headline::culprit_of(&lines, index);
        }

        let extents = || lives.iter().filter_map(lives::extent);
        let from_ms = extents().map(|(first, _)| first).min().unwrap_or(0);
        let to_ms = extents().map(|(_, last)| last).max().unwrap_or(0);
        // The start of a process belongs to its picture if it is near.
        let reach = (to_ms - from_ms) / 20 + 10_000;
        let starts = lives.iter().filter_map(|life| life.started_ms);
        let from_ms = starts.filter(|start| *start < from_ms && from_ms - start <= reach).min().unwrap_or(from_ms);
        let clock = Clock::of(from_ms, to_ms);
        let culprit = headline::culprit(&lines);
        let (incidents, incidents_left_out) = incidents::lines(&histories, &group_rows, &axis);
        let (mut marks, changes_left_out) = marks(&histories, &lives, &lines, &axis);
        marks.extend(incidents.iter().map(IncidentLine::mark));
        marks.sort_by_key(|mark| mark.ms);
        marks.retain(|mark| (from_ms..=to_ms).contains(&mark.ms));
        let mut notes = notes(&histories, groups_left_out);
        if changes_left_out > 0 {
            notes.push(format!("{changes_left_out} onsets and changes of verdicts are left out."));
        }
        if incidents_left_out > 0 {
            notes.push(format!("{incidents_left_out} more incidents, all smaller, are left out."));
        }
        Self {
            schema: SCHEMA,
            headline: headline::headline(&lines, culprit, incidents::finding(&incidents), &lives, clock),
            verdict: lines.iter().filter_map(|line| line.strongest).max(),
            culprit,
            from_ms,
            to_ms,
            gaps: gaps(&histories, &axis),
            lives,
            sites,
            groups: lines,
            incidents,
            marks,
            notes,
        }
    }
}

impl GroupLine {
    /// The group in that process.
    pub fn in_life(&self, life: usize) -> Option<&GroupLife> {
        self.lives.iter().find(|of| of.life == life)
    }

    /// Who made them, for a person.
    pub fn who(&self) -> String {
        self.created_by.as_ref().map_or_else(|| printable(&self.start_function), Place::to_string)
    }
}

/// What there is of one group in all histories.
struct Tally {
    group: Arc<RecordedGroup>,
    /// For each history that has it: which, its index there, its highest count there.
    lives: Vec<(usize, usize, u64)>,
    strongest: Option<Verdict>,
}

impl Tally {
    fn peak(&self) -> u64 {
        self.lives.iter().map(|(.., peak)| *peak).max().unwrap_or(0)
    }

    /// The last life in which it was large.
    fn telling(&self) -> Option<usize> {
        let peak = self.peak();
        self.lives.iter().rev().find(|(.., of_life)| of_life * 2 >= peak).map(|(life, ..)| *life)
    }
}

fn tally(histories: &[History]) -> Vec<Tally> {
    let mut known: HashMap<Arc<RecordedGroup>, usize> = HashMap::new();
    let mut tallies: Vec<Tally> = Vec::new();
    for (life, history) in histories.iter().enumerate() {
        let mut peaks = vec![0; history.groups.len()];
        for (index, waiting, ..) in history.watches.iter().flat_map(|watch| &watch.samples).flat_map(|s| &s.groups) {
            if let Some(peak) = peaks.get_mut(*index) {
                *peak = (*waiting).max(*peak);
            }
        }
        for (index, (found, peak)) in history.groups.iter().zip(peaks).enumerate().filter(|(_, (_, peak))| *peak > 0) {
            let row = *known.entry(Arc::clone(&found.group)).or_insert_with(|| {
                tallies.push(Tally { group: Arc::clone(&found.group), lives: Vec::new(), strongest: None });
                tallies.len() - 1
            });
            let Some(tally) = tallies.get_mut(row) else { continue };
            tally.lives.push((life, index, peak));
            tally.strongest = tally.strongest.max(found.verdicts.iter().map(|verdict| verdict.judgement.verdict).max());
        }
    }
    tallies
}

/// The groups to show, and how many there are besides.
fn rank(tallies: &[Tally]) -> (Vec<&Tally>, usize) {
    let mut ranked: Vec<&Tally> = tallies.iter().collect();
    ranked.sort_by_cached_key(|tally| {
        (std::cmp::Reverse((tally.strongest, tally.peak())), tally.group.site.clone(), tally.group.wait_reason.clone())
    });
    ranked.truncate(MAX_GROUPS);
    let left_out = tallies.len() - ranked.len();
    (ranked, left_out)
}

fn line(tally: &Tally, histories: &[History], axis: &Axis) -> GroupLine {
    let telling = tally.telling().unwrap_or_default();
    let group = &tally.group;
    let mut line = GroupLine {
        site: 0,
        created_by: group.site.created_by.clone(),
        start_function: group.site.start_function.clone(),
        wait_reason: group.wait_reason.clone(),
        blocked_at: Place::of_blocking(&group.stack),
        in_program: Place::of_program(&group.stack, None),
        stack: group.stack.clone(),
        life: telling,
        verdict: None,
        strongest: tally.strongest,
        verdicts: Vec::new(),
        evidence: Vec::new(),
        cause: None,
        remedy: None,
        onset: None,
        growth_per_second: None,
        level: 0,
        at_end: 0,
        parked_at_end: 0,
        peak: tally.peak(),
        lives: Vec::new(),
        examples: Vec::new(),
    };
    for (life, index, _) in &tally.lives {
        let Some((history, found)) = histories.get(*life).and_then(|h| Some((h, h.groups.get(*index)?))) else {
            continue;
        };
        line.lives.push(in_life(*life, *index, history, tally.strongest, axis));
        line.examples.extend(examples(found, *life, history, axis));
        line.verdicts.extend(found.verdicts.iter().map(|verdict| Change {
            ms: axis.ms(history.boot, verdict.at.mono_ns),
            life: *life,
            verdict: verdict.judgement.verdict,
            evidence: verdict.judgement.evidence.clone(),
        }));
        if *life == telling
            && let Some(last) = found.verdicts.last()
        {
            line.evidence.clone_from(&last.latest_evidence);
            line.cause.clone_from(&last.judgement.cause);
            line.remedy.clone_from(&last.judgement.remedy);
        }
    }
    if let Some(of) = line.in_life(telling).cloned() {
        (line.verdict, line.onset, line.growth_per_second) = (of.verdict, of.onset, of.growth_per_second);
        (line.level, line.at_end, line.parked_at_end) = (of.level, of.at_end, of.parked_at_end);
    }
    line
}

/// A group in one process. `strongest` is what it was in any.
fn in_life(life: usize, index: usize, history: &History, strongest: Option<Verdict>, axis: &Axis) -> GroupLife {
    let verdicts = history.groups.get(index).map_or(&[][..], |found| &found.verdicts);
    let told = verdicts.iter().find(|verdict| verdict.judgement.verdict.is_leak());
    let mut of = GroupLife {
        life,
        verdict: verdicts.last().map(|verdict| verdict.judgement.verdict),
        strongest: verdicts.iter().map(|verdict| verdict.judgement.verdict).max(),
        told_ms: told.map(|verdict| axis.ms(history.boot, verdict.at.mono_ns)),
        onset: None,
        growth_per_second: None,
        level: 0,
        at_end: 0,
        parked_at_end: 0,
        peak: 0,
    };
    grow(&mut of, index, history, strongest.is_some_and(Verdict::is_leak), axis);
    of
}

fn examples<'a>(
    found: &'a GroupHistory,
    life: usize,
    history: &'a History,
    axis: &'a Axis,
) -> impl Iterator<Item = Example> + 'a {
    let ms = |mono_ns| axis.ms(history.boot, mono_ns);
    found.examples.iter().map(move |(example, seen_ns)| Example {
        goid: example.goid,
        life,
        created_ms: example.created_ns.map(ms),
        parked_ms: ms(example.parked_ns),
        exact: example.exact,
        seen_ms: ms(*seen_ns),
    })
}

/// Onset, growth, the counts at the end and the highest.
fn grow(of: &mut GroupLife, index: usize, history: &History, leaks: bool, axis: &Axis) {
    let samples = history.watches.iter().flat_map(|watch| &watch.samples);
    let count = |sample: &crate::record::Sample| {
        sample.groups.iter().find(|(group, ..)| *group == index).map_or((0, 0), |found| (found.1, found.2))
    };
    // Growth is told by the clock that does not step.
    let looked = |sample| {
        (of.at_end, of.parked_at_end) = count(sample);
        of.peak = of.peak.max(of.at_end);
        (sample.at.mono_ns as f64 / 1e9, of.at_end as f64)
    };
    let points: Vec<(f64, f64)> = samples.map(looked).collect();
    let Some(fit) = trend::fit(&points) else { return };
    // What no verdict calls a leak comes and goes with the hour: only what at least doubled and stayed has an onset.
    if !leaks && (of.at_end * 2 < of.peak || fit.level * 2.0 > of.at_end as f64) {
        return;
    }
    let ms = |seconds: f64| axis.ms(history.boot, (seconds.max(0.0) * 1e9) as u64);
    // A millionth of a goroutine a second is beyond what counting can tell.
    of.growth_per_second = Some((fit.slope * 1e6).round() / 1e6);
    let started = history.process.started.map(|at| at.mono_ns as f64 / 1e9);
    let first = points.first().map_or(0.0, |(t, _)| *t);
    let onset = if fit.from_the_first && fit.level >= 2.0 {
        // Where the growth leads back to, if it was always the same, and not before there was a process.
        let back = (first - fit.level / fit.slope).max(started.unwrap_or(f64::MIN));
        Onset { ms: ms(back), earliest_ms: ms(started.unwrap_or(back)), latest_ms: ms(first), before_first_look: true }
    } else {
        of.level = fit.level.round() as u64;
        Onset { ms: ms(fit.onset), earliest_ms: ms(fit.earliest), latest_ms: ms(fit.latest), before_first_look: false }
    };
    of.onset = Some(onset);
}

/// The sites to show, and which row each has. Gives the groups their sites.
fn sites(histories: &[History], lines: &mut [GroupLine]) -> (Vec<SiteLine>, HashMap<CreationSite, usize>) {
    let mut peaks: HashMap<&CreationSite, (u64, u64)> = HashMap::new();
    for history in histories {
        for watch in &history.watches {
            for (index, live, ..) in watch.samples.iter().flat_map(|sample| &sample.sites) {
                if let Some(site) = history.sites.get(*index) {
                    let (peak, _) = peaks.entry(site).or_default();
                    *peak = (*live).max(*peak);
                }
            }
        }
    }
    let last = histories.last();
    let last_sample = last.and_then(|history| history.watches.last()?.samples.last());
    for (index, live, ..) in last_sample.map_or(&[][..], |sample| &sample.sites) {
        if let Some(site) = last.and_then(|history| history.sites.get(*index)) {
            peaks.entry(site).or_default().1 = *live;
        }
    }
    let leaking = |site: &CreationSite| {
        lines.iter().any(|line| {
            line.strongest > Some(Verdict::Idle)
                && line.created_by == site.created_by
                && line.start_function == site.start_function
        })
    };
    let mut ranked: Vec<(bool, u64, u64, &CreationSite)> =
        peaks.iter().map(|(site, (peak, at_end))| (leaking(site), *peak, *at_end, *site)).collect();
    ranked.sort_by(|a, b| (b.0, b.1).cmp(&(a.0, a.1)).then_with(|| a.3.cmp(b.3)));
    let all = ranked.len();
    ranked.truncate(MAX_SITES);
    let mut sites: Vec<SiteLine> = ranked
        .iter()
        .map(|(leaking, peak, at_end, site)| SiteLine {
            name: site.created_by.as_ref().map_or(&site.start_function, |place| &place.function).clone(),
            created_by: site.created_by.clone(),
            start_function: site.start_function.clone(),
            leaking: *leaking,
            at_end: *at_end,
            peak: *peak,
        })
        .collect();
    let rows: HashMap<CreationSite, usize> =
        ranked.iter().enumerate().map(|(row, (.., site))| ((*site).clone(), row)).collect();
    let unlisted = histories.iter().flat_map(|h| &h.watches).flat_map(|w| &w.samples).any(|s| s.unlisted > 0);
    if all > sites.len() || unlisted {
        sites.push(SiteLine {
            name: "other go statements".to_owned(),
            created_by: None,
            start_function: String::new(),
            leaking: false,
            at_end: 0,
            peak: 0,
        });
    }
    for line in lines {
        let site = CreationSite { created_by: line.created_by.clone(), start_function: line.start_function.clone() };
        line.site = rows.get(&site).copied().unwrap_or(rows.len());
    }
    (sites, rows)
}

/// When each leak began in each process.
fn onsets(lines: &[GroupLine]) -> impl Iterator<Item = Mark> + '_ {
    let began = |line: &GroupLine, of: &GroupLife| {
        let onset = of.onset.filter(|_| of.strongest.is_some_and(Verdict::is_leak))?;
        let (ms, text) = match onset.before_first_look {
            true => (onset.latest_ms, format!("{} leaked already at the first look", line.who())),
            false => (onset.ms, format!("{} began to leak, by its growth", line.who())),
        };
        Some(Mark { ms, kind: MarkKind::Onset, text, life: of.life })
    };
    lines.iter().flat_map(move |line| line.lives.iter().filter_map(move |of| began(line, of)))
}

/// What happened, and how many onsets and changes of verdicts are left out.
fn marks(histories: &[History], lives: &[Life], lines: &[GroupLine], axis: &Axis) -> (Vec<Mark>, usize) {
    let mut marks = Vec::new();
    for (index, life) in lives.iter().enumerate() {
        if let Some(ms) = life.started_ms {
            let again = lives.iter().take(index).any(|before| before.exe == life.exe && before.lane == life.lane);
            let kind = if again { MarkKind::Restart } else { MarkKind::Start };
            marks.push(Mark { ms, kind, text: format!("pid {} started", life.pid), life: index });
        }
        if let Some(ended) = &life.ended {
            let kind = match ended.kind {
                ExitKind::OomKilled => MarkKind::OomKill,
                ExitKind::Signaled(_) | ExitKind::PerhapsOomKilled => MarkKind::Killed,
                ExitKind::Exited(_) => MarkKind::Exit,
                ExitKind::Replaced | ExitKind::Unknown => MarkKind::End,
            };
            marks.push(Mark { ms: ended.ms, kind, text: format!("pid {}: {}", life.pid, ended.how), life: index });
        }
    }
    for (index, history) in histories.iter().enumerate() {
        let samples: Vec<_> = history.watches.iter().flat_map(|watch| &watch.samples).map(|s| s.at).collect();
        for pair in samples.windows(2) {
            let [a, b] = pair else { continue };
            let step = i128::from(b.unix_ns) - i128::from(a.unix_ns) - i128::from(b.mono_ns) + i128::from(a.mono_ns);
            if step.unsigned_abs() > 2_000_000_000 {
                let way = if step > 0 { "forward" } else { "back" };
                let by = numbers::span(u64::try_from(step.unsigned_abs() / 1_000_000).unwrap_or(u64::MAX));
                let text = format!("the wall clock went {way} by {by}");
                marks.push(Mark { ms: axis.ms(history.boot, b.mono_ns), kind: MarkKind::Clock, text, life: index });
            }
        }
    }
    let mut changes: Vec<Mark> = onsets(lines).collect();
    for line in lines {
        let mut before = (0, Verdict::Idle);
        for change in &line.verdicts {
            if before.0 != change.life {
                before = (change.life, Verdict::Idle);
            }
            if change.verdict != before.1 {
                let text = format!("{}: {}", line.who(), change.verdict);
                changes.push(Mark { ms: change.ms, kind: MarkKind::Verdict, text, life: change.life });
            }
            before.1 = change.verdict;
        }
    }
    // Beyond the limit the changes of the least groups go, not what happened to the processes.
    let room = MAX_MARKS.saturating_sub(marks.len());
    let left_out = changes.len().saturating_sub(room);
    changes.truncate(room);
    marks.extend(changes);
    marks.sort_by_key(|mark| mark.ms);
    (marks, left_out)
}

fn gaps(histories: &[History], axis: &Axis) -> Vec<GapSpan> {
    let mut gaps = Vec::new();
    for (life, history) in histories.iter().enumerate() {
        gaps.extend(history.gaps.iter().map(|gap| GapSpan {
            from_ms: axis.ms(history.boot, gap.from.mono_ns),
            to_ms: axis.ms(history.boot, gap.to.mono_ns),
            cause: gap.cause,
            blind: gap.cause.is_blind(),
            text: gap.detail.clone(),
            life,
        }));
    }
    gaps.sort_by_key(|gap| gap.from_ms);
    gaps
}

fn notes(histories: &[History], groups_left_out: usize) -> Vec<String> {
    let mut notes = Vec::new();
    let most = histories.iter().map(|h| h.watches.iter().map(|w| w.samples.len()).sum::<usize>()).max().unwrap_or(0);
    if most > lives::MAX_POINTS {
        notes.push(format!(
            "Of {most} looks at a process {} are shown, each as it was; --since and --until show all of a shorter time.",
            lives::MAX_POINTS
        ));
    }
    if groups_left_out > 0 {
        notes.push(format!("{groups_left_out} more groups, all smaller or idle, are left out."));
    }
    let unlisted = histories.iter().flat_map(|h| &h.watches).flat_map(|w| &w.samples).map(|s| s.unlisted).max();
    if let Some(unlisted) = unlisted.filter(|unlisted| *unlisted > 0) {
        notes.push(format!("At one look {unlisted} sites and groups were too many to record by themselves."));
    }
    notes
}
