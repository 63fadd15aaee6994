//! Server-sent events: the processes of the node as they change, for pages that show them.
//!
//! A stream begins with all processes; from then on it tells of those that changed and those that are gone. What a reader has
//! not taken yet is waited for, not stored: it gets the state as it is then. All streams look at the same moments, and what there
//! is to tell is made once for all of them. Deliberately absent: endless streams. One ends after a while, and whoever still wants
//! it asks again, with a token that is still right.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::{Body, Bytes, Frame};
use tokio::sync::{Mutex, Semaphore, mpsc};
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::listing::{AgentAnswer, ProcessAnswer};
use crate::node::Node;

/// Streams at once.
const AT_ONCE: usize = 32;

/// How often it is looked for what changed.
const EVERY: Duration = Duration::from_secs(1);

/// How long a stream lasts: less than a connection may.
const LASTS: Duration = Duration::from_secs(60);

/// How long nothing is said at most: by then whoever is gone is found out.
const SAY_EVERY: Duration = Duration::from_secs(10);

/// See the module.
#[derive(Debug)]
pub struct Events {
    places: Arc<Semaphore>,
    every: Duration,
    lasts: Duration,
    looks: Arc<Looks>,
}

/// The body of an answer that goes on. Who drops it ends the stream.
#[derive(Debug)]
pub struct Feed(mpsc::Receiver<Bytes>);

impl Events {
    /// Streams of what `node` has, by an agent that records or not.
    pub fn new(node: Arc<Node>, records: bool) -> Self {
        Self::of(node, records, EVERY, LASTS)
    }

    fn of(node: Arc<Node>, records: bool, every: Duration, lasts: Duration) -> Self {
        let looks = Looks { node, records, began: Instant::now(), latest: Mutex::new(None) };
        Self { places: Arc::new(Semaphore::new(AT_ONCE)), every, lasts, looks: Arc::new(looks) }
    }

    /// A stream, if there is a place for one.
    pub fn stream(&self) -> Option<Feed> {
        let place = Arc::clone(&self.places).try_acquire_owned().ok()?;
        // A reader that takes nothing holds one event, and its connection is closed when it has for too long.
        let (sender, receiver) = mpsc::channel(1);
        let (looks, every, until) = (Arc::clone(&self.looks), self.every, Instant::now() + self.lasts);
        tokio::spawn(async move {
            let _place = place;
            tell(looks, sender, every, until).await;
        });
        Some(Feed(receiver))
    }
}

impl Body for Feed {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(context).map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
    }
}

async fn tell(looks: Arc<Looks>, sender: mpsc::Sender<Bytes>, every: Duration, until: Instant) {
    let mut ticks = looks.ticks(every);
    let (mut told, mut said): (Option<Arc<Told>>, _) = (None, Instant::now());
    while Instant::now() < until {
        let Some(now) = looks.latest(every / 2).await else { return };
        let event = now.since(told.as_deref());
        let event = event.or_else(|| (said.elapsed() >= SAY_EVERY).then(|| Bytes::from_static(b": nothing new\n\n")));
        if let Some(event) = event {
            if sender.send(event).await.is_err() {
                return;
            }
            said = Instant::now();
        }
        told = Some(now);
        tokio::select! {
            _ = ticks.tick() => {}
            () = sender.closed() => return,
        }
    }
}

/// Looks at the node, each for all streams: they look at the same moments, and one of them does it.
#[derive(Debug)]
struct Looks {
    node: Arc<Node>,
    records: bool,
    began: Instant,
    /// When the last one was, and what there was to tell.
    latest: Mutex<Option<(Instant, Arc<Told>)>>,
}

impl Looks {
    /// The moments at which all streams look.
    fn ticks(&self, every: Duration) -> tokio::time::Interval {
        let passed = self.began.elapsed().as_nanos() / every.as_nanos().max(1);
        let next = self.began + every * u32::try_from(passed + 1).unwrap_or(u32::MAX);
        let mut ticks = interval_at(next, every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        ticks
    }

    /// What there is to tell, as of a look that is no older than that; none if it failed.
    async fn latest(&self, age: Duration) -> Option<Arc<Told>> {
        let mut latest = self.latest.lock().await;
        if let Some((at, told)) = &*latest
            && at.elapsed() < age
        {
            return Some(Arc::clone(told));
        }
        let (at, node, records) = (Instant::now(), Arc::clone(&self.node), self.records);
        let before = latest.as_ref().map(|(_, told)| Arc::clone(told));
        // Locks are waited for where that holds up nobody else.
        let looked = tokio::task::spawn_blocking(move || Told::after(before, State::now(&node, records))).await;
        let told = looked.ok()?;
        *latest = Some((at, Arc::clone(&told)));
        Some(told)
    }
}

/// What there is to tell: JSON of the agent, and of each process by its pid.
#[derive(Debug, PartialEq)]
struct State {
    ready: bool,
    agent: String,
    processes: BTreeMap<u32, String>,
}

/// A state with its events, which are made once for all streams.
#[derive(Debug)]
struct Told {
    revision: u64,
    state: State,
    /// What brings a reader here from the revision before.
    changes: Bytes,
    /// What brings one here that knows nothing.
    all: OnceLock<Bytes>,
}

impl Told {
    /// The state as the revision after `before`, or that itself if nothing has changed.
    fn after(before: Option<Arc<Self>>, state: State) -> Arc<Self> {
        let (revision, changes) = match &before {
            Some(before) if before.state == state => return Arc::clone(before),
            Some(before) => (before.revision + 1, state.event(Some(&before.state))),
            None => (0, Bytes::new()),
        };
        Arc::new(Self { revision, state, changes, all: OnceLock::new() })
    }

    /// The event that brings a reader from `before` to this; none if it is the same.
    fn since(&self, before: Option<&Self>) -> Option<Bytes> {
        match before {
            None => Some(self.all.get_or_init(|| self.state.event(None)).clone()),
            Some(before) if before.revision == self.revision => None,
            Some(before) if before.revision + 1 == self.revision => Some(self.changes.clone()),
            // A reader that was slow.
            Some(before) => Some(self.state.event(Some(&before.state))),
        }
    }
}

impl State {
    fn now(node: &Node, records: bool) -> Self {
        let of = |process: ProcessAnswer| (process.pid, json(&process.unchanging()));
        let processes = node.processes().iter().map(|process| of(ProcessAnswer::of(process))).collect();
        Self { ready: node.is_ready(), agent: json(&AgentAnswer::of(node, records)), processes }
    }

    /// What has changed since `before`, or all.
    fn event(&self, before: Option<&Self>) -> Bytes {
        let known = |pid: &u32| before.and_then(|before| before.processes.get(pid));
        let changed = self.processes.iter().filter(|(pid, process)| known(pid) != Some(process));
        let changed: Vec<&str> = changed.map(|(_, process)| process.as_str()).collect();
        let before_pids = before.into_iter().flat_map(|before| before.processes.keys());
        let gone: Vec<String> =
            before_pids.filter(|pid| !self.processes.contains_key(pid)).map(ToString::to_string).collect();
        let event = format!(
            "event: {}\ndata: {{\"ready\":{},\"agent\":{},\"processes\":[{}],\"gone\":[{}]}}\n\n",
            if before.is_none() { "all" } else { "changes" },
            self.ready,
            self.agent,
            changed.join(","),
            gone.join(",")
        );
        event.into()
    }
}

/// JSON on one line.
fn json(value: &impl serde::Serialize) -> String {
    // Every value here has a form in JSON.
    serde_json::to_string(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::discover::describe::Description;
    use crate::node::{NodeProcess, ProcessKey};

    fn state(processes: &[(u32, &str)]) -> State {
        let processes = processes.iter().map(|(pid, process)| (*pid, (*process).to_owned())).collect();
        State { ready: true, agent: "{}".to_owned(), processes }
    }

    #[test]
    fn an_event_has_what_changed_and_what_is_gone_and_nothing_else() {
        let before = Told::after(None, state(&[(1, "{\"a\":1}"), (2, "{\"b\":1}"), (3, "{\"c\":1}")]));
        let now = || state(&[(1, "{\"a\":1}"), (2, "{\"b\":2}"), (4, "{\"d\":1}")]);
        let after = Told::after(Some(Arc::clone(&before)), now());
        let same = Told::after(Some(Arc::clone(&after)), now());
        assert!(Arc::ptr_eq(&same, &after) && same.since(Some(&after)).is_none(), "nothing has changed");
        let event = after.since(Some(&before)).expect("an event");
        let data = event.strip_prefix(b"event: changes\ndata: ").expect("changes");
        let data: serde_json::Value = serde_json::from_slice(data.trim_ascii_end()).expect("JSON on one line");
        assert_eq!(data["processes"], serde_json::json!([{ "b": 2 }, { "d": 1 }]));
        assert_eq!(data["gone"], serde_json::json!([3]));
        // Whoever was slow is told of all that has changed meanwhile.
        let last = Told::after(Some(after), state(&[(1, "{\"a\":2}"), (2, "{\"b\":2}"), (3, "{\"c\":1}")]));
        let event = last.since(Some(&before)).expect("an event");
        assert_eq!(event, state(&[(1, "{\"a\":2}"), (2, "{\"b\":2}"), (3, "{\"c\":1}")]).event(Some(&before.state)));
        assert!(event.ends_with(b"\"processes\":[{\"a\":2},{\"b\":2}],\"gone\":[]}\n\n"), "{event:?}");
    }

    fn run(test: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        runtime.expect("a runtime").block_on(test);
    }

    #[test]
    fn streams_are_limited_and_end_and_their_places_come_back() {
        run(async {
            let events = Events::of(Arc::default(), false, EVERY, EVERY / 2);
            let mut streams: Vec<Feed> = (0..AT_ONCE).filter_map(|_| events.stream()).collect();
            assert_eq!(streams.len(), AT_ONCE);
            assert!(events.stream().is_none(), "one too many");
            let mut last = streams.pop().expect("a stream");
            drop(streams);
            let first = last.0.recv().await.expect("all processes");
            assert!(first.starts_with(b"event: all\n"), "{first:?}");
            assert_eq!(last.0.recv().await, None, "it ends by itself");
            let all = u32::try_from(AT_ONCE).expect("a few");
            drop(events.places.acquire_many(all).await.expect("all places come back"));
        });
    }

    #[test]
    fn all_streams_are_told_the_same_bytes_and_who_takes_none_has_nothing_stored() {
        run(async {
            let node = Arc::new(Node::default());
            let events = Events::of(Arc::clone(&node), false, EVERY / 20, LASTS);
            let mut streams: Vec<Feed> = (0..AT_ONCE).filter_map(|_| events.stream()).collect();
            let idle = streams.pop().expect("a stream");
            let mut told = Vec::new();
            for pid in 1..=8 {
                let mut first: Option<Bytes> = None;
                for stream in &mut streams {
                    let event = stream.0.recv().await.expect("an event");
                    let first = first.get_or_insert_with(|| event.clone());
                    assert!(std::ptr::eq(first.as_ptr(), event.as_ptr()), "made once for all: {first:?} {event:?}");
                }
                let (_, latest) = events.looks.latest.lock().await.clone().expect("a look");
                told.push(Arc::downgrade(&latest));
                let key = ProcessKey { pid, start_ticks: 1 };
                let process = NodeProcess::new(key, "/srv/cart".to_owned(), Description::default(), None, None);
                node.insert(Arc::new(process));
            }
            // The first, which the idle reader waits with, the latest, and one that is just being told.
            let kept = told.iter().filter(|told| told.strong_count() > 0).count();
            assert!(kept <= 3, "{kept} of {} states are kept", told.len());
            drop(idle);
        });
    }
}
