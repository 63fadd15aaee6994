//! Events on pods, written behind the agent's back: whoever has one to write never waits.
//!
//! An Event's name follows from what it tells, so one that was written before a restart of the agent is there already,
//! and is left as it is: creating Events is all that the agent has to be allowed.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBuilder};
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, PostParams};
use kube::{Client, Error};
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

use super::error::words;
use super::story::{LeakEvent, first_bytes};
use crate::discover::workload::Workload;

/// What `kubectl describe pod` shows as the reason.
const REASON: &str = "GoroutineLeak";

/// Who writes.
const COMPONENT: &str = "parkwarden";

/// Events that wait to be written; more are dropped.
const WAITING: usize = 64;

/// Events remembered so that none is written twice.
const REMEMBERED: usize = 4096;

/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(30);

/// Bytes of a pod's name that an Event's begins with; names may have 253.
const MAX_PREFIX: usize = 200;

/// How many Events are written, and how often a try that failed is repeated.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// At once.
    pub(super) burst: u32,
    /// And one more after each such time.
    pub(super) every: Duration,
    /// Time to the next try, at first.
    pub(super) retry: Duration,
    /// Tries that follow a failed one.
    pub(super) retries: usize,
}

impl Default for Pace {
    fn default() -> Self {
        // 16 tries, the last ones with 48 s between them, outlast the restart of an API server.
        Self { burst: 10, every: Duration::from_secs(60), retry: Duration::from_millis(800), retries: 16 }
    }
}

/// Writes Events, or does nothing where they are off or there is no cluster.
#[derive(Clone, Debug, Default)]
pub struct Events {
    writer: Option<Writer>,
}

#[derive(Clone, Debug)]
struct Writer {
    queue: mpsc::Sender<Job>,
    counters: Arc<Counters>,
}

/// What became of Events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EventCounts {
    /// Written, or found to be there already.
    pub written: u64,
    /// The same had been written before.
    pub repeated: u64,
    /// Too many waited.
    pub dropped: u64,
    /// The API would not have them, or did not answer for minutes.
    pub failed: u64,
}

#[derive(Debug, Default)]
struct Counters {
    written: AtomicU64,
    repeated: AtomicU64,
    dropped: AtomicU64,
    failed: AtomicU64,
}

#[derive(Debug)]
struct Job {
    namespace: String,
    pod: String,
    /// The pod's, as Events name it: `kubectl describe pod` shows those alone.
    uid: Option<String>,
    /// Of all that makes the Event the one it is.
    hash: u64,
    sentence: String,
    at: Timestamp,
}

impl Events {
    pub(super) fn start(client: Client, node: String, pace: Pace) -> Self {
        let (queue, jobs) = mpsc::channel(WAITING);
        let counters = Arc::new(Counters::default());
        tokio::spawn(write(client, node, pace, jobs, Arc::clone(&counters)));
        Self { writer: Some(Writer { queue, counters }) }
    }

    /// Writes, in time, an Event on the workload's pod; nothing if it is not known. Never waits.
    pub fn leak(&self, workload: &Workload, leak: &LeakEvent) {
        let Some(writer) = &self.writer else { return };
        let (Some(namespace), Some(pod)) = (&workload.namespace, &workload.pod) else { return };
        let job = Job {
            namespace: namespace.clone(),
            pod: pod.clone(),
            uid: workload.event_uid.as_ref().or(workload.pod_uid.as_ref()).cloned(),
            hash: hash(workload, leak),
            sentence: leak.sentence.clone(),
            at: Timestamp::now(),
        };
        if writer.queue.try_send(job).is_err() {
            writer.counters.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// What became of all so far; none where there are no Events.
    pub fn counts(&self) -> Option<EventCounts> {
        let counters = &self.writer.as_ref()?.counters;
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Some(EventCounts {
            written: count(&counters.written),
            repeated: count(&counters.repeated),
            dropped: count(&counters.dropped),
            failed: count(&counters.failed),
        })
    }
}

/// Of pod, container, group and verdict.
fn hash(workload: &Workload, leak: &LeakEvent) -> u64 {
    let mut hash = Sha256::new();
    for part in [&workload.pod_uid, &workload.container] {
        hash.update(part.as_deref().unwrap_or_default());
        hash.update("\0");
    }
    hash.update(leak.group.number().to_be_bytes());
    hash.update(leak.verdict.to_string());
    first_bytes(hash)
}

async fn write(client: Client, node: String, pace: Pace, mut jobs: mpsc::Receiver<Job>, counters: Arc<Counters>) {
    let mut seen = Seen::default();
    let mut bucket = Bucket::new(pace, Instant::now());
    let mut failing = false;
    while let Some(job) = jobs.recv().await {
        if seen.contains(job.hash) {
            counters.repeated.fetch_add(1, Ordering::Relaxed);
            continue;
        }
        while let Err(wait) = bucket.take(Instant::now()) {
            sleep(wait).await;
        }
        match create(&client, &event(&job, &node), &job.namespace, pace).await {
            Ok(()) => {
                seen.insert(job.hash);
                counters.written.fetch_add(1, Ordering::Relaxed);
                failing = false;
            }
            Err(error) => {
                counters.failed.fetch_add(1, Ordering::Relaxed);
                if !std::mem::replace(&mut failing, true) {
                    log::warn!("kubernetes: cannot write an Event on pod {}/{}: {error}", job.namespace, job.pod);
                }
            }
        }
    }
}

/// Why an Event could not be written.
#[derive(Debug, thiserror::Error)]
enum WriteError {
    #[error("needs create on events: {}", words(.0))]
    Forbidden(#[source] Error),
    #[error("{}", words(.0))]
    Api(#[source] Error),
    #[error("the API server did not answer")]
    Silent,
}

async fn create(client: &Client, event: &Event, namespace: &str, pace: Pace) -> Result<(), WriteError> {
    let api: Api<Event> = Api::namespaced(client.clone(), namespace);
    let delays = ExponentialBuilder::default().with_min_delay(pace.retry).with_max_delay(60 * pace.retry).with_jitter();
    let mut delays = delays.with_max_times(pace.retries).build();
    loop {
        let error = match timeout(ANSWER, api.create(&PostParams::default(), event)).await {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(Error::Api(status))) if status.code == 409 => return Ok(()),
            Ok(Err(Error::Api(status))) if status.code == 403 => return Err(WriteError::Forbidden(Error::Api(status))),
            // Busy (429) and in trouble (5xx) will pass.
            Ok(Err(Error::Api(status))) if status.code < 500 && status.code != 429 => {
                return Err(WriteError::Api(Error::Api(status)));
            }
            Ok(Err(error)) => WriteError::Api(error),
            Err(_) => WriteError::Silent,
        };
        match delays.next() {
            Some(delay) => sleep(delay).await,
            None => return Err(error),
        }
    }
}

fn event(job: &Job, node: &str) -> Event {
    let mut prefix = job.pod.clone();
    prefix.truncate(prefix.floor_char_boundary(MAX_PREFIX));
    let prefix = prefix.trim_end_matches(['-', '.']);
    Event {
        metadata: ObjectMeta {
            name: Some(format!("{prefix}.{:016x}", job.hash)),
            namespace: Some(job.namespace.clone()),
            ..ObjectMeta::default()
        },
        involved_object: ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            name: Some(job.pod.clone()),
            namespace: Some(job.namespace.clone()),
            uid: job.uid.clone(),
            ..ObjectReference::default()
        },
        type_: Some("Warning".to_owned()),
        reason: Some(REASON.to_owned()),
        message: Some(job.sentence.clone()),
        count: Some(1),
        first_timestamp: Some(Time(job.at)),
        last_timestamp: Some(Time(job.at)),
        source: Some(EventSource { component: Some(COMPONENT.to_owned()), host: Some(node.to_owned()) }),
        reporting_component: Some(COMPONENT.to_owned()),
        reporting_instance: Some(node.to_owned()),
        ..Event::default()
    }
}

/// The last that were written.
#[derive(Debug, Default)]
struct Seen {
    set: HashSet<u64>,
    order: VecDeque<u64>,
}

impl Seen {
    fn contains(&self, hash: u64) -> bool {
        self.set.contains(&hash)
    }

    fn insert(&mut self, hash: u64) {
        if self.set.insert(hash) {
            self.order.push_back(hash);
        }
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.set.remove(&oldest);
        }
    }
}

/// Lets a burst pass, and then one after each time.
#[derive(Debug)]
struct Bucket {
    pace: Pace,
    left: u32,
    /// Since when the next is on its way.
    since: Instant,
}

impl Bucket {
    fn new(pace: Pace, now: Instant) -> Self {
        Self { pace, left: pace.burst, since: now }
    }

    /// Takes one, or says how long there is none.
    fn take(&mut self, now: Instant) -> Result<(), Duration> {
        while self.left < self.pace.burst && self.since + self.pace.every <= now {
            self.since += self.pace.every;
            self.left += 1;
        }
        if self.left == self.pace.burst {
            self.since = now;
        }
        if self.left == 0 {
            return Err(self.since + self.pace.every - now);
        }
        self.left -= 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_and_then_one_after_each_time() {
        let every = Duration::from_secs(60);
        let pace = Pace { burst: 3, every, ..Pace::default() };
        let begin = Instant::now();
        let mut bucket = Bucket::new(pace, begin);
        for _ in 0..3 {
            assert_eq!(bucket.take(begin), Ok(()));
        }
        assert_eq!(bucket.take(begin), Err(every));
        assert_eq!(bucket.take(begin + every / 2), Err(every / 2));
        assert_eq!(bucket.take(begin + every), Ok(()));
        assert_eq!(bucket.take(begin + every), Err(every));
        // After a long time no more than a burst.
        let later = begin + 100 * every;
        let passed = (0..10).filter(|_| bucket.take(later).is_ok()).count();
        assert_eq!(passed, 3);
        assert_eq!(bucket.take(later), Err(every));
    }

    #[test]
    fn only_the_last_are_remembered() {
        let mut seen = Seen::default();
        for hash in 0..=REMEMBERED as u64 {
            seen.insert(hash);
            seen.insert(hash);
        }
        assert!(!seen.contains(0) && seen.contains(1) && seen.contains(REMEMBERED as u64));
        assert_eq!(seen.set.len(), REMEMBERED);
    }
}
