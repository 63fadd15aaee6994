use std::time::Duration;

use serde_json::json;

use super::documents::failure;
use super::server::{Answer, Request, Server};
use super::{cluster, cluster_at, pace, until};
use crate::detect::Verdict;
use crate::discover::workload::Workload;
use crate::kube::story::{GroupKey, LeakEvent};
use crate::kube::{EventCounts, Events};

fn cart() -> Workload {
    Workload {
        namespace: Some("shop".into()),
        pod: Some("cart-6d5f7c9b8-x2x4z".into()),
        pod_uid: Some(super::documents::UID.into()),
        container: Some("app".into()),
        ..Workload::default()
    }
}

fn leak(group: u64, verdict: Verdict) -> LeakEvent {
    LeakEvent { group: GroupKey::from_number(group), verdict, sentence: "container app: 12 goroutines".into() }
}

/// The list of pods is asked for on the same server, and told nothing.
fn posts(server: &Server) -> Vec<Request> {
    server.asked().into_iter().filter(|request| request.line.starts_with("POST ")).collect()
}

/// A server whose first answer, to the list of pods, has been given.
async fn server(answers: impl IntoIterator<Item = Answer>) -> Server {
    Server::start([Answer::Silence].into_iter().chain(answers)).await
}

async fn started(server: &Server) -> Events {
    let events = cluster(server).events;
    until("pods are asked for", || server.asked().len() == 1).await;
    events
}

fn created() -> Answer {
    Answer::Json(201, json!({"metadata": {"name": "x", "namespace": "shop"}, "involvedObject": {}}))
}

fn counts(events: &Events) -> EventCounts {
    events.counts().expect("Events")
}

#[tokio::test]
async fn an_event_tells_of_its_pod_once() {
    let server = server([created(), created(), created()]).await;
    let events = started(&server).await;
    events.leak(&cart(), &leak(1, Verdict::Likely));
    events.leak(&cart(), &leak(1, Verdict::Likely));
    events.leak(&cart(), &leak(1, Verdict::Proven));
    let sidecar = Workload { container: Some("sidecar".into()), ..cart() };
    events.leak(&sidecar, &leak(1, Verdict::Proven));
    // Of nobody's pod there is nothing to tell.
    events.leak(&Workload::default(), &leak(2, Verdict::Proven));
    until("all are through", || counts(&events).written == 3).await;
    assert_eq!(counts(&events), EventCounts { written: 3, repeated: 1, ..EventCounts::default() });

    let posts = posts(&server);
    assert_eq!(posts.len(), 3, "{posts:#?}");
    let names: std::collections::BTreeSet<_> =
        posts.iter().map(|post| post.body["metadata"]["name"].to_string()).collect();
    assert_eq!(names.len(), 3, "{names:?}");
    let Request { line, body } = &posts[0];
    assert!(line.starts_with("POST /api/v1/namespaces/shop/events"), "{line}");
    let name = body["metadata"]["name"].as_str().expect("a name");
    assert!(name.starts_with("cart-6d5f7c9b8-x2x4z."), "{name}");
    assert_eq!(body["metadata"]["namespace"], "shop");
    assert_eq!(
        body["involvedObject"],
        json!({"apiVersion": "v1", "kind": "Pod", "namespace": "shop", "name": "cart-6d5f7c9b8-x2x4z",
            "uid": super::documents::UID})
    );
    assert_eq!((&body["type"], &body["reason"]), (&json!("Warning"), &json!("GoroutineLeak")));
    assert_eq!((&body["message"], &body["count"]), (&json!("container app: 12 goroutines"), &json!(1)));
    assert_eq!(body["source"], json!({"component": "parkwarden", "host": "node-1"}));
    assert_eq!(body["firstTimestamp"], body["lastTimestamp"]);
    assert!(body["firstTimestamp"].as_str().is_some_and(|time| time.ends_with('Z')), "{body:#}");
}

#[tokio::test]
async fn an_event_on_a_static_pod_names_it_as_its_kubelet_does() {
    let server = server([created()]).await;
    let events = started(&server).await;
    let mirrored = Workload { event_uid: Some("0d1e2f3a4b5c6d7e8f90a1b2c3d4e5f6".into()), ..cart() };
    events.leak(&mirrored, &leak(1, Verdict::Proven));
    until("it is written", || counts(&events).written == 1).await;
    assert_eq!(posts(&server)[0].body["involvedObject"]["uid"], "0d1e2f3a4b5c6d7e8f90a1b2c3d4e5f6");
}

#[tokio::test]
async fn what_an_earlier_agent_wrote_is_there_already() {
    let (first, second) = (server([created()]).await, server([Answer::Json(409, failure(409, "AlreadyExists"))]).await);
    for server in [&first, &second] {
        let events = started(server).await;
        events.leak(&cart(), &leak(1, Verdict::Proven));
        until("it is through", || counts(&events).written == 1).await;
        assert_eq!(counts(&events).failed, 0);
    }
    assert_eq!(posts(&first)[0].body["metadata"]["name"], posts(&second)[0].body["metadata"]["name"]);
}

#[tokio::test]
async fn trouble_passes_and_refusals_do_not() {
    let server = server([
        Answer::Json(500, failure(500, "InternalError")),
        Answer::Raw(b""),
        Answer::Json(429, failure(429, "TooManyRequests")),
        created(),
        Answer::Json(403, failure(403, "Forbidden")),
        Answer::Json(404, failure(404, "NotFound")),
        Answer::Json(503, failure(503, "ServiceUnavailable")),
        Answer::Json(503, failure(503, "ServiceUnavailable")),
        Answer::Json(503, failure(503, "ServiceUnavailable")),
        Answer::Json(503, failure(503, "ServiceUnavailable")),
        // What failed may be told again.
        created(),
    ])
    .await;
    let events = started(&server).await;
    events.leak(&cart(), &leak(1, Verdict::Proven));
    until("it is written in the end", || counts(&events).written == 1).await;
    for group in [2, 3, 4] {
        events.leak(&cart(), &leak(group, Verdict::Proven));
    }
    until("three are given up", || counts(&events).failed == 3).await;
    events.leak(&cart(), &leak(4, Verdict::Proven));
    until("the last is told after all", || counts(&events).written == 2).await;
    assert_eq!(posts(&server).len(), 11);
    assert_eq!(counts(&events), EventCounts { written: 2, failed: 3, ..EventCounts::default() });
}

#[tokio::test]
async fn callers_never_wait_and_what_is_too_much_is_counted() {
    let server = server([]).await;
    let events = started(&server).await;
    for group in 0..1000 {
        events.leak(&cart(), &leak(group, Verdict::Proven));
    }
    // Nothing has run meanwhile: 64 wait, and the rest is dropped.
    assert_eq!(counts(&events), EventCounts { dropped: 1000 - 64, ..EventCounts::default() });
}

#[tokio::test]
async fn events_are_written_at_a_bounded_rate() {
    let server = server((0..5).map(|_| created())).await;
    let slow = super::Pace { burst: 3, every: Duration::from_secs(3600), ..pace() };
    let events = cluster_at(&server, slow).events;
    until("pods are asked for", || server.asked().len() == 1).await;
    for group in 0..5 {
        events.leak(&cart(), &leak(group, Verdict::Proven));
    }
    until("a burst is written", || counts(&events).written == 3).await;
    // The next two wait for an hour: time alone could show that they do, and the bucket's own test does.
    assert_eq!(posts(&server).len(), 3);
}
