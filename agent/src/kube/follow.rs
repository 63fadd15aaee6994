//! Follows the pods of one node: a list, then a watch from there, again and again.
//!
//! kube has a watcher for that. It does not tell when a watch stands again after an outage, which an operator wants to
//! know, so this is its simplest form: after any doubt it lists again, which for one node is cheap.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};
use futures_util::TryStreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams, WatchEvent, WatchParams};
use tokio::time::{Instant, error::Elapsed, sleep, timeout};

use super::error::words;
use super::pods::KnownPods;

/// The server ends a watch after this time; it has to be below 295 s.
const WATCH_SECONDS: u32 = 290;

/// A watch that says nothing for longer is dead: the server would have ended it.
const WATCH_SILENCE: Duration = Duration::from_secs(WATCH_SECONDS as u64 + 15);

/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(60);

/// A watch that ends sooner, and without a word, was refused.
const SHORTEST_WATCH: Duration = Duration::from_secs(1);

/// The longest time between tries, in first ones.
const MAX_DELAYS: u32 = 40;

/// A watch that stood that long has earned that failures count anew.
const STOOD: Duration = Duration::from_secs(120);

/// HTTP's "gone": the server has forgotten what followed the version asked for.
const GONE: u16 = 410;

/// Why following ended.
#[derive(Debug, thiserror::Error)]
enum FollowError {
    #[error("cannot list the pods of this node (needs get, list and watch on pods): {}", words(.0))]
    List(#[source] kube::Error),
    #[error("cannot watch the pods of this node (needs get, list and watch on pods): {}", words(.0))]
    Watch(#[source] kube::Error),
    #[error("the API server ended the watch: {0}")]
    Ended(String),
    #[error("the API server no longer knows the changes asked for")]
    Expired,
    #[error("the API server did not answer in time")]
    Silent(#[from] Elapsed),
    #[error("the API server gave no version to watch from")]
    NoVersion,
}

/// Growing delays that are kind to a server in trouble.
fn delays(first: Duration) -> ExponentialBackoff {
    let delays = ExponentialBuilder::default().with_min_delay(first).with_max_delay(MAX_DELAYS * first);
    delays.with_jitter().without_max_times().build()
}

/// Follows the pods of `node` for ever; after a failure it tries again after `first_delay`, then ever later.
pub(super) async fn follow(api: Api<Pod>, node: String, known: Arc<KnownPods>, first_delay: Duration) {
    let fields = format!("spec.nodeName={node}");
    let mut waits = delays(first_delay);
    let mut fresh = false;
    let mut outage: Option<Instant> = None;
    loop {
        let begun = Instant::now();
        let Err(error) = list_and_watch(&api, &fields, fresh, &known, &mut outage).await;
        known.failed();
        fresh = matches!(error, FollowError::Expired);
        if fresh {
            log::debug!("kubernetes: {error}");
        } else if known.disconnected() || outage.is_none() {
            log::warn!("kubernetes: {error}; what is known of pods stays in use, and parkwarden tries again");
            outage = Some(Instant::now());
        } else {
            log::debug!("kubernetes: {error}");
        }
        if begun.elapsed() > STOOD {
            waits = delays(first_delay);
        }
        sleep(waits.next().unwrap_or(ANSWER)).await;
    }
}

/// One list and the watches that follow it. With `fresh` not from the server's cache, which may be too old to watch from.
async fn list_and_watch(
    api: &Api<Pod>,
    fields: &str,
    fresh: bool,
    known: &KnownPods,
    outage: &mut Option<Instant>,
) -> Result<Infallible, FollowError> {
    // What has ended may be many, and no process is in it any more. Of what ends from now on, the watch tells how.
    let running = format!("{fields},status.phase!=Succeeded,status.phase!=Failed");
    let list = ListParams::default().fields(&running);
    let list = if fresh { list } else { list.match_any() };
    let list = timeout(ANSWER, api.list(&list)).await?.map_err(FollowError::List)?;
    let mut version =
        list.metadata.resource_version.filter(|version| !version.is_empty()).ok_or(FollowError::NoVersion)?;
    known.change(|store| store.replace(&list.items));
    known.listed();
    drop(list.items);

    let params = WatchParams::default().fields(fields).timeout(WATCH_SECONDS);
    loop {
        let begun = Instant::now();
        let mut told = false;
        let events = timeout(ANSWER, api.watch(&params, &version)).await?.map_err(expired_or(FollowError::Watch))?;
        let mut events = pin!(events);
        if known.connected()
            && let Some(since) = outage.take()
        {
            log::info!("kubernetes: the pods of this node are known again, after {} s", since.elapsed().as_secs());
        }
        while let Some(event) =
            timeout(WATCH_SILENCE, events.try_next()).await?.map_err(expired_or(FollowError::Watch))?
        {
            told = true;
            match event {
                WatchEvent::Added(pod) | WatchEvent::Modified(pod) => {
                    known.change(|store| store.apply(&pod));
                    version = pod.metadata.resource_version.ok_or(FollowError::NoVersion)?;
                }
                WatchEvent::Deleted(pod) => {
                    known.change(|store| store.remove(&pod));
                    version = pod.metadata.resource_version.ok_or(FollowError::NoVersion)?;
                }
                WatchEvent::Bookmark(bookmark) => version = bookmark.metadata.resource_version,
                WatchEvent::Error(status) if status.code == GONE => return Err(FollowError::Expired),
                WatchEvent::Error(status) => return Err(FollowError::Ended(status.message)),
            }
        }
        if !told && begun.elapsed() < SHORTEST_WATCH {
            return Err(FollowError::Ended("at once".to_owned()));
        }
    }
}

fn expired_or(other: fn(kube::Error) -> FollowError) -> impl Fn(kube::Error) -> FollowError {
    move |error| match error {
        kube::Error::Api(status) if status.code == GONE => FollowError::Expired,
        error => other(error),
    }
}
