//! Incidents as text for a terminal.

use std::fmt::Write as _;

use super::{Incident, Link, Standing, WhyReport};
use crate::words::group::GroupText;
use crate::words::{blocker, creator, goroutines, printable, within};

/// Incidents shown in full.
const MAX_INCIDENTS_SHOWN: usize = 10;
/// Groups of each.
const MAX_GROUPS_SHOWN: usize = 10;
/// Frames of the stack of whoever the others wait for.
const MAX_FRAMES_SHOWN: usize = 12;
/// Ids shown.
const MAX_GOIDS_SHOWN: usize = 8;

/// The report for a person.
pub fn render(report: &WhyReport) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = write_report(&mut out, report);
    out
}

fn write_report(out: &mut String, report: &WhyReport) -> std::fmt::Result {
    let target = &report.target;
    writeln!(
        out,
        "parkwarden: pid {} {} ({}, {})",
        target.pid,
        printable(&target.exe),
        target.go_version,
        target.arch
    )?;
    writeln!(
        out,
        "  {} live; {} of the program's have not run for {:.1} s",
        goroutines(report.goroutines),
        report.standing,
        report.stood_seconds
    )?;
    for incident in report.incidents.iter().take(MAX_INCIDENTS_SHOWN) {
        write_incident(out, incident)?;
    }
    match report.incidents.len() {
        0 => writeln!(out, "\nNo goroutine is seen to wait for another.")?,
        some if some > MAX_INCIDENTS_SHOWN => {
            writeln!(out, "\n… and {} more incidents (all of them: --format json).", some - MAX_INCIDENTS_SHOWN)?;
        }
        _ => {}
    }
    if !report.others.is_empty() {
        writeln!(out, "\nStanding, and neither waiting for others that stand nor waited for, as far as stacks tell:")?;
        for group in report.others.iter().take(MAX_GROUPS_SHOWN) {
            writeln!(
                out,
                "  {} [{}] at {}, made by {}",
                goroutines(group.count),
                printable(&group.wait_reason),
                blocker(group.blocked_at.as_ref()),
                creator(group.created_by.as_ref())
            )?;
            // Who receives has nothing to do as a rule.
            let matters = group.wait_reason == "chan send" || report.others.len() == 1;
            could(group).filter(|_| matters).map_or(Ok(()), |could| writeln!(out, "    {could}"))?;
        }
    }
    Ok(())
}

fn write_incident(out: &mut String, incident: &Incident) -> std::fmt::Result {
    writeln!(out, "\nINCIDENT {}.", printable(&incident.headline))?;
    for group in incident.groups.iter().take(MAX_GROUPS_SHOWN) {
        write_group(out, incident, group)?;
    }
    match incident.groups.len().saturating_sub(MAX_GROUPS_SHOWN) {
        0 => Ok(()),
        more => writeln!(out, "  … and {more} more groups"),
    }
}

fn write_group(out: &mut String, incident: &Incident, group: &Standing) -> std::fmt::Result {
    writeln!(
        out,
        "\n  {} [{}], for {:.0} s or longer{}",
        goroutines(group.count),
        printable(&group.wait_reason),
        group.seconds,
        if group.distance == 0 { "" } else { ", behind those above" }
    )?;
    let mut evidence: Vec<String> = group.waits_for.iter().map(ToString::to_string).collect();
    evidence.extend(links(incident, group));
    evidence.extend(could(group));
    if !group.serves.is_empty() {
        evidence.push(format!("serves {}", group.serves.join(", ")));
    }
    let root = group.distance == 0;
    GroupText {
        created_by: Some(creator(group.created_by.as_ref())),
        runs: Some(&group.start_function),
        blocked_at: Some(blocker(group.blocked_at.as_ref())),
        in_program: within(group.in_program.as_ref(), group.blocked_at.as_ref()),
        cause: group.cause.as_ref().filter(|_| root).map(|cause| cause.sentence.as_str()),
        remedy: group.cause.as_ref().filter(|_| root).map(|cause| cause.remedy.as_str()),
        evidence: &evidence,
        goids: Some((&group.goids[..group.goids.len().min(MAX_GOIDS_SHOWN)], group.count > MAX_GOIDS_SHOWN as u64)),
        stack: if root { &group.stack } else { &[] },
        frames: MAX_FRAMES_SHOWN,
        ..GroupText::default()
    }
    .write(out)
}

/// For whom those of a group wait, in words.
fn links(incident: &Incident, group: &Standing) -> Vec<String> {
    let mut told: Vec<String> = Vec::new();
    for waits in incident.waits.iter().filter(|waits| group.goids.contains(&waits.from)) {
        let to = waits.to;
        let sentence = match waits.link {
            Link::Holds => format!("goroutine {to} holds it: its deferred unlock has not run"),
            Link::MayHold => format!(
                "goroutine {to} may hold it: its stack refers to it in a function that locks, or its deferred calls may unlock it"
            ),
            Link::Member => format!("goroutine {to} has yet to call Done: it is deferred"),
            Link::MayServe => {
                format!(
                    "goroutine {to} could receive, and no other that stands is seen to; it waits for something else"
                )
            }
            Link::Made => format!("goroutine {to}, which it made, stands too"),
        };
        if !told.contains(&sentence) {
            told.push(sentence);
        }
        if told.len() == MAX_GOIDS_SHOWN {
            break;
        }
    }
    told
}

/// Who could get a group on that stands at a channel.
fn could(group: &Standing) -> Option<String> {
    let does = match group.wait_reason.as_str() {
        "chan send" => "receive",
        "chan receive" => "send or close",
        _ => return None,
    };
    let goids: Vec<String> = group.could.iter().take(MAX_GOIDS_SHOWN).map(u64::to_string).collect();
    Some(match (&goids[..], group.could.len().saturating_sub(goids.len())) {
        ([], _) => format!("of those that stand none is seen to lead to the channel and {does}"),
        ([one], _) => format!("goroutine {one} could {does}: its stack leads to the channel"),
        (some, 0) => format!("goroutines {} could {does}: their stacks lead to the channel", some.join(", ")),
        (some, more) => {
            format!("goroutines {} and {more} more could {does}: their stacks lead to the channel", some.join(", "))
        }
    })
}
