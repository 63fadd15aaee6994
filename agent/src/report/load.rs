//! Growth that is load: connections whose other side is alive, and what grows in step with them. A service to which more and more
//! clients connect has more and more goroutines, and none of them leaks.
//!
//! A reader of a connection that comes back to its wait has been sent something, so somebody lives at the other end. What a
//! program keeps beside each connection (a writer, a timer's loop, a watch on its context) is made with it, by it, or makes it,
//! and there are as many, or twice or three times as many. A leak is not in step for long: its goroutines stay when connections
//! end. What is found to be reachable by nothing, or proven, is no load whatever else grows.

use std::cell::OnceCell;

use hashbrown::{HashMap, HashSet};

use super::build::Members;
use crate::cause::io::Io;
use crate::cause::library::Known;
use crate::golang::Frame;
use crate::session::{GroupKey, Session};
use crate::words::Place;

/// Groups of connections that others are compared with.
const MAX_CONNECTIONS: usize = 64;
/// Goroutines beside one connection.
const MAX_BESIDE: u64 = 4;
/// How many in a hundred are enough for all.
const ENOUGH_PERCENT: u64 = 90;

/// Readers of connections, nearly all of which have come back to their wait.
struct Connections {
    key: GroupKey,
    /// How many wait.
    waiting: u64,
    /// Those that waited then, and how many seconds ago that was.
    moved: u64,
    seconds: u64,
}

/// See the module. Asked only of groups that grow, so that who made whom is looked up only then.
pub(super) struct Load<'s> {
    session: &'s Session,
    connections: Vec<Connections>,
    kin: OnceCell<Kin>,
}

impl<'s> Load<'s> {
    pub(super) fn of(session: &'s Session, members: &HashMap<GroupKey, Members>) -> Self {
        Self { session, connections: connections(session, members), kin: OnceCell::new() }
    }

    /// The sentence that says that the growth of a group may be load, if it may.
    pub(super) fn says(&self, key: &GroupKey) -> Option<String> {
        let stack: Vec<Frame> = self.session.stack_frames(key.stack).cloned().collect();
        if let Some(known) = Known::of(&self.session.reason_of(key), &stack).filter(|known| known.load) {
            return Some(format!("May be load: each {}.", known.does.trim_end_matches(',')));
        }
        if let Some(one) = self.connections.iter().find(|one| one.key == *key) {
            return Some(format!(
                "May be load: of the {} that waited here {} s ago nearly all have been sent something since.",
                one.moved, one.seconds
            ));
        }
        let session = self.session;
        let one = self.connections.iter().find(|one| {
            key.creation_pc != one.key.creation_pc
                && in_step(session, key, &one.key)
                && self.kin.get_or_init(|| Kin::of(session)).are(session, key, &one.key)
        })?;
        let place = Place::of_creation(session.symbols(), one.key.creation_pc);
        let made = place.map_or_else(String::new, |place| format!(", made by {place}"));
        let count = one.waiting;
        Some(format!("May be load: grows in step with {count} connections whose other side is alive{made}."))
    }
}

/// Whether there are as many of one group as of the other, now and before, and they were made by one another or by the same.
pub(super) fn belong_together(session: &Session, kin: &Kin, one: &GroupKey, other: &GroupKey) -> bool {
    one.creation_pc != other.creation_pc && in_step(session, one, other) && kin.are(session, one, other)
}

/// Largest first.
fn connections(session: &Session, members: &HashMap<GroupKey, Members>) -> Vec<Connections> {
    let mut found: Vec<Connections> = members
        .iter()
        .filter_map(|(key, members)| {
            if session.reason_of(key) != "IO wait" {
                return None;
            }
            let stack: Vec<Frame> = session.stack_frames(key.stack).cloned().collect();
            if !Io::of(&stack).reads_network() {
                return None;
            }
            let (moved, seconds) = moved(session, key, members)?;
            Some(Connections { key: *key, waiting: members.waiting, moved, seconds })
        })
        .collect();
    found.sort_by_key(|one| std::cmp::Reverse((one.moved, one.key)));
    found.truncate(MAX_CONNECTIONS);
    found
}

/// How many of them waited some time ago, a quarter of today's at least, if nearly all have moved since; and how long ago.
fn moved(session: &Session, key: &GroupKey, members: &Members) -> Option<(u64, u64)> {
    // Those that have gone on to wait elsewhere have not come back.
    let live = session.live_series(key.creation_pc)?.last().1;
    if members.waiting.saturating_mul(2) < live {
        return None;
    }
    let now_ns = session.now_ns();
    let mut since: Vec<u64> = members.parked.iter().map(|(since, _)| *since).collect();
    since.sort_unstable();
    let mut points: Vec<(u64, u64)> = session.group_series(key)?.points().collect();
    points.pop();
    let (time_ns, then) = points.into_iter().rev().find(|(time_ns, then)| {
        let still = since.partition_point(|since| since <= time_ns) as u64;
        *then > 0
            && then.saturating_mul(4) >= members.waiting
            && still.saturating_mul(100) <= then.saturating_mul(100 - ENOUGH_PERCENT)
    })?;
    Some((then, now_ns.saturating_sub(time_ns) / 1_000_000_000))
}

/// Whether there are as many goroutines of one `go` statement as of the other, or twice or three times as many, now and before.
fn in_step(session: &Session, one: &GroupKey, other: &GroupKey) -> bool {
    let (Some(one), Some(other)) = (session.live_series(one.creation_pc), session.live_series(other.creation_pc))
    else {
        return false;
    };
    let looks = session.looks();
    let middle = looks.first_ns.midpoint(looks.last_ns);
    (1..=MAX_BESIDE).any(|times| {
        [looks.first_ns, middle, looks.last_ns].into_iter().all(|at| {
            let (one, other) = (one.at(at), other.at(at).saturating_mul(times));
            // One may be made a little before the other, and the first few were there before.
            one.abs_diff(other) <= 2 + other / 10
        })
    })
}

/// Who made whom.
pub(super) struct Kin {
    /// The goroutines of each creation site, with the one that made each.
    by_site: HashMap<u64, Vec<(u64, u64)>>,
}

impl Kin {
    pub(super) fn of(session: &Session) -> Self {
        let mut by_site: HashMap<u64, Vec<(u64, u64)>> = HashMap::new();
        for (goroutine, _) in session.latest().into_iter().flat_map(|taken| taken.goroutines()) {
            by_site.entry(goroutine.creation_pc).or_default().push((goroutine.goid, goroutine.parent_goid));
        }
        Self { by_site }
    }

    /// Whether those of one `go` statement were made by those of the other, or made them, or the same goroutine made both in the
    /// same function.
    fn are(&self, session: &Session, one: &GroupKey, other: &GroupKey) -> bool {
        let (Some(ones), Some(others)) = (self.by_site.get(&one.creation_pc), self.by_site.get(&other.creation_pc))
        else {
            return false;
        };
        let goids = |of: &[(u64, u64)]| of.iter().map(|(goid, _)| *goid).collect::<HashSet<u64>>();
        let parents = |of: &[(u64, u64)]| of.iter().map(|(_, parent)| *parent).collect::<HashSet<u64>>();
        let nearly_all = |of: &[(u64, u64)], made_by: &HashSet<u64>| {
            let made = of.iter().filter(|(_, parent)| made_by.contains(parent)).count() as u64;
            made.saturating_mul(100) >= (of.len() as u64).saturating_mul(ENOUGH_PERCENT)
        };
        let function = |key: &GroupKey| Place::of_creation(session.symbols(), key.creation_pc).map(|at| at.function);
        let together = || function(one).is_some() && function(one) == function(other);
        nearly_all(ones, &goids(others))
            || nearly_all(others, &goids(ones))
            || (together() && nearly_all(ones, &parents(others)))
    }
}
