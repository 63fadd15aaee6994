//! Server-sent events: the processes of the node as they change, for pages that show them.
//!
//! A stream begins with all processes; from then on it tells of those that changed and those that are gone. What a reader has
//! not taken yet is waited for, not stored: it gets the state as it is then. Deliberately absent: endless streams. One ends
//! after a while, and whoever still wants it asks again, with a token that is still right.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::{Body, Bytes, Frame};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, MissedTickBehavior, interval};

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
    lasts: Duration,
}

impl Default for Events {
    fn default() -> Self {
        Self { places: Arc::new(Semaphore::new(AT_ONCE)), lasts: LASTS }
    }
}

/// The body of an answer that goes on. Who drops it ends the stream.
#[derive(Debug)]
pub struct Feed(mpsc::Receiver<Bytes>);

impl Events {
    /// A stream, if there is a place for one.
    pub fn stream(&self, node: Arc<Node>, records: bool) -> Option<Feed> {
        let place = Arc::clone(&self.places).try_acquire_owned().ok()?;
        // A reader that takes nothing holds one event, and its connection is closed when it has for too long.
        let (sender, receiver) = mpsc::channel(1);
        let until = Instant::now() + self.lasts;
        tokio::spawn(async move {
            let _place = place;
            tell(node, records, sender, until).await;
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

async fn tell(node: Arc<Node>, records: bool, sender: mpsc::Sender<Bytes>, until: Instant) {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut told, mut said) = (None, Instant::now());
    while Instant::now() < until {
        tokio::select! {
            _ = ticks.tick() => {}
            () = sender.closed() => return,
        }
        let looking = Arc::clone(&node);
        // Locks are waited for where that holds up nobody else.
        let Ok(now) = tokio::task::spawn_blocking(move || Told::now(&looking, records)).await else { return };
        let event = now.since(told.as_ref());
        let event = event.or_else(|| (said.elapsed() >= SAY_EVERY).then(|| ": nothing new\n\n".to_owned()));
        if let Some(event) = event {
            if sender.send(event.into()).await.is_err() {
                return;
            }
            said = Instant::now();
        }
        told = Some(now);
    }
}

/// What a stream has told: JSON of the agent, and of each process by its pid.
#[derive(Debug, PartialEq)]
struct Told {
    ready: bool,
    agent: String,
    processes: BTreeMap<u32, String>,
}

impl Told {
    fn now(node: &Node, records: bool) -> Self {
        let of = |process: ProcessAnswer| (process.pid, json(&process.unchanging()));
        let processes = node.processes().iter().map(|process| of(ProcessAnswer::of(process))).collect();
        Self { ready: node.is_ready(), agent: json(&AgentAnswer::of(node, records)), processes }
    }

    /// The event that brings a reader from `before` to this; none if it is the same.
    fn since(&self, before: Option<&Self>) -> Option<String> {
        if before == Some(self) {
            return None;
        }
        let known = |pid: &u32| before.and_then(|before| before.processes.get(pid));
        let changed = self.processes.iter().filter(|(pid, process)| known(pid) != Some(process));
        let changed: Vec<&str> = changed.map(|(_, process)| process.as_str()).collect();
        let before_pids = before.into_iter().flat_map(|before| before.processes.keys());
        let gone: Vec<String> =
            before_pids.filter(|pid| !self.processes.contains_key(pid)).map(ToString::to_string).collect();
        Some(format!(
            "event: {}\ndata: {{\"ready\":{},\"agent\":{},\"processes\":[{}],\"gone\":[{}]}}\n\n",
            if before.is_none() { "all" } else { "changes" },
            self.ready,
            self.agent,
            changed.join(","),
            gone.join(",")
        ))
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

    fn told(processes: &[(u32, &str)]) -> Told {
        let processes = processes.iter().map(|(pid, process)| (*pid, (*process).to_owned())).collect();
        Told { ready: true, agent: "{}".to_owned(), processes }
    }

    #[test]
    fn an_event_has_what_changed_and_what_is_gone_and_nothing_else() {
        let before = told(&[(1, "{\"a\":1}"), (2, "{\"b\":1}"), (3, "{\"c\":1}")]);
        let now = told(&[(1, "{\"a\":1}"), (2, "{\"b\":2}"), (4, "{\"d\":1}")]);
        assert_eq!(now.since(Some(&now)), None);
        let event = now.since(Some(&before)).expect("an event");
        let data = event.strip_prefix("event: changes\ndata: ").expect("changes").trim_end();
        let data: serde_json::Value = serde_json::from_str(data).expect("JSON on one line");
        assert_eq!(data["processes"], serde_json::json!([{ "b": 2 }, { "d": 1 }]));
        assert_eq!(data["gone"], serde_json::json!([3]));
        assert!(now.since(None).is_some_and(|event| event.starts_with("event: all\n") && event.contains("\"a\":1")));
    }

    #[test]
    fn streams_are_limited_and_end_and_their_places_come_back() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        runtime.expect("a runtime").block_on(async {
            let events = Events { lasts: EVERY / 2, ..Events::default() };
            let node = Arc::new(Node::default());
            let mut streams: Vec<Feed> = (0..AT_ONCE).filter_map(|_| events.stream(Arc::clone(&node), false)).collect();
            assert_eq!(streams.len(), AT_ONCE);
            assert!(events.stream(Arc::clone(&node), false).is_none(), "one too many");
            let mut last = streams.pop().expect("a stream");
            drop(streams);
            let first = last.0.recv().await.expect("all processes");
            assert!(first.starts_with(b"event: all\n"), "{first:?}");
            assert_eq!(last.0.recv().await, None, "it ends by itself");
            let all = u32::try_from(AT_ONCE).expect("a few");
            drop(events.places.acquire_many(all).await.expect("all places come back"));
        });
    }
}
