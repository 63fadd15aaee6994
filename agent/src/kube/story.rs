//! What there is to tell of the leaks of one process, once each: that a leak is proven, and that one has been likely for
//! ten minutes. Pure: time and groups of reports come in, events to tell come out.

use std::collections::BTreeMap;
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use crate::detect::Verdict;
use crate::discover::workload::Workload;
use crate::report::Group;
use crate::words::{blocker, creator, goroutines, printable};

/// How long a leak is likely before it is told.
pub const LIKELY_FOR: Duration = Duration::from_secs(600);

/// Leaks remembered of one process; beyond that none are told.
const MAX_STORIES: usize = 1000;

/// Bytes of a sentence; the API takes 1024.
const MAX_SENTENCE: usize = 1000;

/// Goroutines that one `go` statement made and that wait at one place for one reason, by a number that is the same in
/// every process of that program, today and after a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupKey(u64);

/// A leak to tell of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeakEvent {
    /// What leaks.
    pub group: GroupKey,
    /// `Likely` or `Proven`.
    pub verdict: Verdict,
    /// The story.
    pub sentence: String,
}

/// What has been told of the leaks of one process.
#[derive(Debug, Default)]
pub struct LeakStories {
    stories: BTreeMap<GroupKey, Story>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Story {
    /// Since when it has been likely, or more, without a break.
    likely_since: Option<Duration>,
    /// What has been told.
    told: Option<Verdict>,
}

impl LeakStories {
    /// What the groups of a report at time `now` (of any clock that does not jump) give to tell. While the pod is not known
    /// nothing is told, and nothing forgotten.
    pub fn observe(&mut self, now: Duration, workload: &Workload, groups: &[Group]) -> Vec<LeakEvent> {
        let leaks = worst(groups);
        for (key, story) in &mut self.stories {
            if !leaks.contains_key(key) {
                story.likely_since = None;
            }
        }
        self.stories.retain(|_, story| story.likely_since.is_some() || story.told.is_some());

        let mut events = Vec::new();
        for (key, group) in leaks {
            if self.stories.len() >= MAX_STORIES && !self.stories.contains_key(&key) {
                continue;
            }
            let story = self.stories.entry(key).or_default();
            let since = *story.likely_since.get_or_insert(now);
            let due = match group.verdict {
                Verdict::Proven => true,
                Verdict::Stuck | Verdict::Likely => now.saturating_sub(since) >= LIKELY_FOR,
                Verdict::Idle => false,
            };
            if due && story.told < Some(group.verdict) && workload.pod.is_some() {
                story.told = Some(group.verdict);
                events.push(LeakEvent { group: key, verdict: group.verdict, sentence: sentence(workload, group) });
            }
        }
        events
    }
}

/// The groups that something is wrong with. Stacks can differ behind the place where goroutines block: the worst speaks for all.
pub fn worst(groups: &[Group]) -> BTreeMap<GroupKey, &Group> {
    let mut wrong: BTreeMap<GroupKey, &Group> = BTreeMap::new();
    for group in groups.iter().filter(|group| group.verdict > Verdict::Idle) {
        let worst = wrong.entry(GroupKey::of(group)).or_insert(group);
        if (group.verdict, group.count) > (worst.verdict, worst.count) {
            *worst = group;
        }
    }
    wrong
}

impl GroupKey {
    fn of(group: &Group) -> Self {
        let mut hash = Sha256::new();
        for place in [&group.created_by, &group.blocked_at] {
            match place {
                Some(place) => hash.update(format!("{}\0{}\0{}\0", place.function, place.file, place.line)),
                None => hash.update("\0"),
            }
        }
        hash.update(&group.wait_reason);
        Self(first_bytes(hash))
    }

    #[cfg(test)]
    pub(super) fn from_number(number: u64) -> Self {
        Self(number)
    }

    /// The number.
    pub fn number(self) -> u64 {
        self.0
    }
}

/// Enough of a hash to tell things apart.
pub(super) fn first_bytes(hash: Sha256) -> u64 {
    hash.finalize().iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// What an Event says: whose container it is, and [`told`].
fn sentence(workload: &Workload, group: &Group) -> String {
    let container =
        workload.container.as_deref().map_or_else(|| "a container".to_owned(), |name| format!("container {name}"));
    truncate(format!("{}: {}", printable(&container), told(group)))
}

/// For example: `120 goroutines made by main.poll /src/main.go:42 can never run again: they wait at main.poll.func1
/// /src/main.go:47 [chan send], the first for 2h 5m, and 3.2 more come every second; each sends on an unbuffered channel that
/// nobody can receive from any more`.
pub fn told(group: &Group) -> String {
    let (count, verdict) = match group.verdict {
        Verdict::Proven => (group.proven, "can never run again"),
        Verdict::Stuck => (group.count, "are stuck"),
        _ => (if group.loops { group.waiting } else { group.count }, "behave like a leak"),
    };
    let mut sentence = format!(
        "{} made by {} {verdict}: they wait at {} [{}]",
        goroutines(count),
        creator(group.created_by.as_ref()),
        blocker(group.blocked_at.as_ref()),
        printable(&group.wait_reason),
    );
    if !group.loops {
        sentence.push_str(&format!(", the first for at least {}", duration(group.parked_seconds.max)));
    }
    sentence.push_str(&growth(group.growth_per_second));
    if let Some(cause) = &group.cause {
        sentence.push_str(&format!("; each {}", printable(&cause.sentence)));
    }
    truncate(sentence)
}

fn duration(seconds: f64) -> String {
    // What a report holds is no negative number, and far below what a duration can be; a broken one is 0.
    let seconds = Duration::try_from_secs_f64(seconds).unwrap_or_default().as_secs();
    humantime::format_duration(Duration::from_secs(seconds)).to_string()
}

/// In the unit that gives a number a reader can grasp.
fn growth(per_second: f64) -> String {
    let units = [(1.0, "second"), (60.0, "minute"), (3600.0, "hour")];
    let fits = units.iter().map(|(seconds, unit)| (per_second * seconds, unit)).find(|(count, _)| *count >= 1.0);
    fits.map_or_else(String::new, |(count, unit)| format!(", and {count:.1} more come every {unit}"))
}

fn truncate(mut sentence: String) -> String {
    if sentence.len() > MAX_SENTENCE {
        sentence.truncate(sentence.floor_char_boundary(MAX_SENTENCE));
        sentence.push('…');
    }
    sentence
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cause::{Cause, CauseKind};
    use crate::golang::Frame;
    use crate::report::{Span, StartedBy};
    use crate::words::Place;

    fn pod() -> Workload {
        Workload { pod: Some("cart-1".into()), container: Some("cart".into()), ..Workload::default() }
    }

    fn group(creator: &str, verdict: Verdict) -> Group {
        let place =
            |function: &str, line| Place { function: function.to_owned(), file: "/src/main.go".to_owned(), line };
        let function = "runtime.gopark".to_owned();
        let frame = Frame { function, file: "/go/proc.go".to_owned(), line: 435, inlined: false };
        let sentence = "sends on an unbuffered channel that nobody can receive from any more".to_owned();
        Group {
            key: None,
            verdict,
            count: 120,
            waiting: 120,
            loops: false,
            growth_per_second: 3.2,
            wait_reason: "chan send".to_owned(),
            created_by: Some(place(creator, 42)),
            started_by: StartedBy::default(),
            labels: Vec::new(),
            start_function: format!("{creator}.func1"),
            blocked_at: Some(place(&format!("{creator}.func1"), 47)),
            in_program: None,
            stack: vec![frame],
            parked_seconds: Span { min: 1.0, max: 7500.4 },
            goids: vec![7],
            stack_bytes: 0,
            heap_bytes: None,
            heap_kinds: Vec::new(),
            proven: if verdict == Verdict::Proven { 120 } else { 0 },
            cause: Some(Cause { kind: CauseKind::SendNobodyReceives, sentence, remedy: String::new() }),
            evidence: Vec::new(),
            asks: false,
        }
    }

    fn at(minutes: u64) -> Duration {
        Duration::from_secs(60 * minutes)
    }

    fn verdicts(events: &[LeakEvent]) -> Vec<Verdict> {
        events.iter().map(|event| event.verdict).collect()
    }

    #[test]
    fn likely_is_told_after_ten_minutes_without_a_break_and_once() {
        let (mut stories, likely) = (LeakStories::default(), vec![group("main.a", Verdict::Likely)]);
        for minute in 0..10 {
            assert!(stories.observe(at(minute), &pod(), &likely).is_empty(), "{minute}");
        }
        assert_eq!(verdicts(&stories.observe(at(10), &pod(), &likely)), [Verdict::Likely]);
        assert!(stories.observe(at(11), &pod(), &likely).is_empty());
        assert!(stories.observe(at(30), &pod(), &likely).is_empty());
    }

    #[test]
    fn a_break_begins_the_ten_minutes_anew() {
        for pause in [vec![group("main.a", Verdict::Idle)], Vec::new()] {
            let (mut stories, likely) = (LeakStories::default(), vec![group("main.a", Verdict::Likely)]);
            assert!(stories.observe(at(0), &pod(), &likely).is_empty());
            assert!(stories.observe(at(9), &pod(), &pause).is_empty());
            assert!(stories.observe(at(10), &pod(), &likely).is_empty());
            assert!(stories.observe(at(19), &pod(), &likely).is_empty());
            assert_eq!(stories.observe(at(20), &pod(), &likely).len(), 1);
        }
    }

    #[test]
    fn proven_is_told_at_once_and_once_whatever_was_told_before() {
        let (likely, proven) = ([group("main.a", Verdict::Likely)], [group("main.a", Verdict::Proven)]);
        let mut stories = LeakStories::default();
        assert_eq!(verdicts(&stories.observe(at(0), &pod(), &proven)), [Verdict::Proven]);
        assert!(stories.observe(at(1), &pod(), &proven).is_empty());
        // It is no news that it is likely too, nor that it is proven again.
        assert!(stories.observe(at(2), &pod(), &likely).is_empty());
        assert!(stories.observe(at(20), &pod(), &likely).is_empty());
        assert!(stories.observe(at(21), &pod(), &proven).is_empty());

        let mut stories = LeakStories::default();
        stories.observe(at(0), &pod(), &likely);
        assert_eq!(verdicts(&stories.observe(at(10), &pod(), &likely)), [Verdict::Likely]);
        assert_eq!(verdicts(&stories.observe(at(11), &pod(), &proven)), [Verdict::Proven]);
    }

    #[test]
    fn leaks_wait_for_the_name_of_their_pod() {
        let (mut stories, proven) = (LeakStories::default(), vec![group("main.a", Verdict::Proven)]);
        assert!(stories.observe(at(0), &Workload::default(), &proven).is_empty());
        assert_eq!(verdicts(&stories.observe(at(1), &pod(), &proven)), [Verdict::Proven]);
    }

    #[test]
    fn groups_are_told_apart_by_both_places_and_the_reason() {
        let a = group("main.a", Verdict::Proven);
        let mut b = a.clone();
        b.blocked_at.as_mut().expect("a place").line += 1;
        let c = Group { wait_reason: "select".into(), ..a.clone() };
        let mut d = group("main.d", Verdict::Proven);
        d.created_by = None;
        // Only what lies behind the blocking place differs.
        let same = Group { count: 1, proven: 1, stack: Vec::new(), ..a.clone() };
        let mut stories = LeakStories::default();
        let events = stories.observe(at(0), &pod(), &[same, a, b, c, d]);
        assert_eq!(events.len(), 4, "{events:#?}");
        assert!(events.iter().any(|event| event.sentence.contains(": 120 goroutines made by main.a ")), "{events:#?}");
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let groups: Vec<Group> = (0..3 * MAX_STORIES).map(|n| group(&format!("main.f{n}"), Verdict::Proven)).collect();
        let mut stories = LeakStories::default();
        assert_eq!(stories.observe(at(0), &pod(), &groups).len(), MAX_STORIES);
        // What is gone and was never told is forgotten.
        let mut stories = LeakStories::default();
        stories.observe(at(0), &pod(), &[group("main.a", Verdict::Likely)]);
        stories.observe(at(1), &pod(), &[]);
        assert!(stories.stories.is_empty());
    }

    #[test]
    fn the_story_in_one_sentence() {
        assert_eq!(
            sentence(&pod(), &group("main.a", Verdict::Proven)),
            "container cart: 120 goroutines made by main.a /src/main.go:42 can never run again: they wait at main.a.func1 \
             /src/main.go:47 [chan send], the first for at least 2h 5m, and 3.2 more come every second; each sends on an \
             unbuffered channel that nobody can receive from any more"
        );
        let slow = Group {
            growth_per_second: 0.05,
            loops: true,
            cause: None,
            created_by: None,
            waiting: 1,
            ..group("main.a", Verdict::Likely)
        };
        assert_eq!(
            sentence(&Workload::default(), &slow),
            "a container: 1 goroutine made by the runtime, by no go statement behave like a leak: they wait at \
             main.a.func1 /src/main.go:47 [chan send], and 3.0 more come every minute"
        );
    }

    #[test]
    fn long_and_hostile_names_make_a_short_and_printable_sentence() {
        let mut hostile = group("main.a", Verdict::Proven);
        hostile.created_by.as_mut().expect("a place").function = format!("\x1b[2J\n{}", "ü".repeat(2000));
        hostile.parked_seconds.max = f64::NAN;
        let sentence = sentence(&pod(), &hostile);
        assert!(sentence.len() <= MAX_SENTENCE + '…'.len_utf8());
        assert!(!sentence.contains(char::is_control) && sentence.ends_with('…'));
    }
}
