use std::sync::Arc;
use std::time::Duration;

use kube::Config;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::Notify;

use super::documents::*;
use super::server::{Answer, Chunk, Server};
use super::{cluster, pace, until};
use crate::discover::container::Identity;
use crate::discover::workload::{Owner, Workload};
use crate::kube::Pods;
use crate::kube::connect::connect;

fn of_container(pods: &Pods, id: &str) -> Workload {
    pods.workload(&Identity { container: Some(id.to_owned()), ..Identity::default() })
}

fn container_name(pods: &Pods, id: &str) -> Option<String> {
    of_container(pods, id).container
}

fn of_pod(pods: &Pods, uid: &str) -> Workload {
    pods.workload(&Identity { pod_uid: Some(uid.to_owned()), ..Identity::default() })
}

/// A watch that says these lines and then nothing.
fn watch(lines: impl IntoIterator<Item = Vec<u8>>) -> Answer {
    Answer::Stream(lines.into_iter().map(Chunk::Bytes).collect())
}

fn connected(pods: &Pods) -> bool {
    pods.status().is_some_and(|status| status.connected)
}

fn errors(pods: &Pods) -> u64 {
    pods.status().map_or(0, |status| status.watch_errors)
}

#[tokio::test]
async fn pods_are_named_as_they_come_change_and_go() {
    let (changed, repeated, gone) = (Arc::new(Notify::new()), Arc::new(Notify::new()), Arc::new(Notify::new()));
    let modified = line("MODIFIED", &pod(NEXT, "12"));
    // Lines arrive in pieces.
    let (head, tail) = modified.split_at(modified.len() / 2);
    let server = Server::start([
        Answer::Json(200, list("10", &[pod(APP, "7")])),
        Answer::Stream(vec![
            Chunk::Wait(Arc::clone(&changed)),
            Chunk::Bytes(head.to_vec()),
            Chunk::Bytes(tail.to_vec()),
            Chunk::Wait(Arc::clone(&repeated)),
            Chunk::Bytes(line("MODIFIED", &pod(NEXT, "13"))),
            Chunk::Bytes(line("ADDED", &static_pod("0d1e2f3a4b5c6d7e8f90a1b2c3d4e5f6", "14"))),
            Chunk::Wait(Arc::clone(&gone)),
            Chunk::Bytes(line("DELETED", &pod(NEXT, "15"))),
        ]),
    ])
    .await;
    let pods = cluster(&server).pods;
    until("the watch stands", || connected(&pods)).await;
    assert!(pods.synced());

    let app = of_container(&pods, APP);
    assert_eq!((app.namespace.as_deref(), app.pod.as_deref()), (Some("shop"), Some("cart-6d5f7c9b8-x2x4z")));
    assert_eq!((app.container.as_deref(), app.container_id.as_deref()), (Some("app"), Some(APP)));
    assert_eq!(app.pod_uid.as_deref(), Some(UID));
    assert_eq!(app.owner, Some(Owner { kind: "Deployment".into(), name: "cart".into() }));
    assert_eq!(app.labels.get("app").map(String::as_str), Some("cart"));
    assert_eq!(app.annotations, [("parkwarden.io/threshold".to_owned(), "2m".to_owned())].into());
    assert_eq!(container_name(&pods, INIT).as_deref(), Some("setup"));
    assert_eq!(container_name(&pods, DEBUG).as_deref(), Some("debugger"));
    assert_eq!(container_name(&pods, NEXT), None);
    // A container the API does not tell of yet.
    let early = pods.workload(&Identity { container: Some(NEXT.into()), pod_uid: Some(UID.into()), unit: None });
    assert_eq!((early.pod, early.container, early.container_id.as_deref()), (app.pod, None, Some(NEXT)));

    let before = pods.generation();
    changed.notify_one();
    assert_eq!(pods.changed(before).await, before + 1);
    assert_eq!((container_name(&pods, APP), container_name(&pods, NEXT).as_deref()), (None, Some("app")));
    assert_eq!(pods.generation(), before + 1);

    repeated.notify_one();
    until("a static pod is named", || of_pod(&pods, "0d1e2f3a4b5c6d7e8f90a1b2c3d4e5f6").pod.is_some()).await;
    // The same again, but for its version, was no change.
    assert_eq!(pods.generation(), before + 2);
    let etcd = of_pod(&pods, "0d1e2f3a4b5c6d7e8f90a1b2c3d4e5f6");
    assert_eq!(etcd.pod_uid.as_deref(), Some("99999999-8888-7777-6666-555555555555"));
    assert_eq!(etcd.event_uid.as_deref(), Some("0d1e2f3a4b5c6d7e8f90a1b2c3d4e5f6"));
    assert_eq!(etcd.owner.map(|owner| owner.kind).as_deref(), Some("Node"));

    gone.notify_one();
    until("the pod is gone", || of_pod(&pods, UID).pod.is_none()).await;
    assert_eq!(of_container(&pods, NEXT), Workload { container_id: Some(NEXT.into()), ..Workload::default() });
    assert_eq!((errors(&pods), pods.status().map(|status| status.pods)), (0, Some(1)));

    let asked: Vec<String> = server.asked().into_iter().map(|request| request.line).collect();
    let [first, second] = asked.as_slice() else { panic!("{asked:#?}") };
    assert!(first.starts_with("GET /api/v1/pods?") && second.starts_with("GET /api/v1/pods?"), "{asked:#?}");
    for asked in [first, second] {
        assert!(asked.contains("fieldSelector=spec.nodeName%3Dnode-1"), "{asked}");
    }
    assert!(first.contains("resourceVersion=0") && !first.contains("watch="), "{first}");
    assert!(second.contains("watch=true") && second.contains("resourceVersion=10"), "{second}");
    assert!(second.contains("allowWatchBookmarks=true") && second.contains("timeoutSeconds=290"), "{second}");
}

#[tokio::test]
async fn why_containers_ended_is_told_whatever_becomes_of_their_pods() {
    let state = |id: &str, reason: &str| {
        serde_json::json!({"terminated": {"containerID": format!("containerd://{id}"), "exitCode": 137, "reason": reason,
            "startedAt": "2026-11-23T12:00:02Z", "finishedAt": "2026-11-23T12:10:02Z"}})
    };
    // Restarted: the status is that of the next container, and has the end of the one before.
    let mut restarted = pod(NEXT, "12");
    restarted["status"]["containerStatuses"][0]["lastState"] = state(APP, "OOMKilled");
    // Not restarted: the pod has ended with it.
    let mut failed = pod(NEXT, "13");
    failed["status"]["phase"] = "Failed".into();
    failed["status"]["containerStatuses"][0]["state"] = state(NEXT, "Error");
    let ended = Arc::new(Notify::new());
    let server = Server::start([
        Answer::Json(200, list("10", &[pod(APP, "7")])),
        Answer::Stream(vec![
            Chunk::Wait(Arc::clone(&ended)),
            Chunk::Bytes(line("MODIFIED", &restarted)),
            Chunk::Bytes(line("MODIFIED", &failed)),
        ]),
    ])
    .await;
    let pods = cluster(&server).pods;
    until("the watch stands", || connected(&pods)).await;
    assert_eq!(pods.ended(APP, Duration::ZERO).await, None);
    let (asking, minute) = (pods.clone(), Duration::from_secs(60));
    let asked = tokio::spawn(async move { asking.ended(APP, minute).await });
    ended.notify_one();
    assert_eq!(asked.await.expect("no panic").as_deref(), Some("OOMKilled"));
    assert_eq!(pods.ended(NEXT, minute).await.as_deref(), Some("Error"));
    assert_eq!(pods.status().map(|status| status.pods), Some(0), "what has ended is none of the node's");

    // Of those that had ended before nobody asks; of those that end the watch is to tell.
    let asked: Vec<String> = server.asked().into_iter().map(|request| request.line).collect();
    assert!(asked[0].contains("status.phase%21%3DFailed") && !asked[1].contains("status.phase"), "{asked:#?}");
    assert_eq!(Pods::default().ended(APP, minute).await, None, "without a cluster nobody is waited for");
}

#[tokio::test]
async fn a_watch_that_ends_goes_on_where_it_was() {
    let ended = |version: &str, last| Answer::Stream(vec![Chunk::Bytes(bookmark(version)), last]);
    let server = Server::start([
        Answer::Json(200, list("10", &[])),
        ended("20", Chunk::End),
        ended("30", Chunk::Cut),
        watch([line("ADDED", &pod(APP, "31"))]),
    ])
    .await;
    let pods = cluster(&server).pods;
    until("the pod is named", || container_name(&pods, APP).is_some()).await;
    assert_eq!(errors(&pods), 0);
    let asked = server.asked();
    assert_eq!(asked.len(), 4, "{asked:#?}");
    for (request, version) in asked.iter().skip(1).zip(["10", "20", "30"]) {
        assert!(request.line.contains(&format!("resourceVersion={version}")), "{request:?}");
    }
}

#[tokio::test]
async fn expired_versions_lead_to_a_fresh_list() {
    let gone = failure(410, "Expired");
    for expired in [watch([line("ERROR", &gone)]), Answer::Json(410, gone.clone())] {
        let server = Server::start([
            Answer::Json(200, list("10", &[pod(APP, "9")])),
            expired,
            Answer::Json(200, list("90", &[pod(NEXT, "80")])),
            watch([]),
        ])
        .await;
        let pods = cluster(&server).pods;
        until("what changed meanwhile is known", || container_name(&pods, NEXT).is_some()).await;
        assert_eq!((container_name(&pods, APP), errors(&pods)), (None, 1));
        until("the watch stands", || server.asked().len() == 4).await;
        let asked = server.asked();
        // Not from a cache, which may be as old as before.
        assert!(!asked[2].line.contains("resourceVersion="), "{asked:#?}");
        assert!(asked[3].line.contains("resourceVersion=90"), "{asked:#?}");
    }
}

#[tokio::test]
async fn whatever_a_server_says_is_survived_and_asked_again() {
    let mut nameless = pod(APP, "1");
    nameless["metadata"]["uid"] = serde_json::Value::Null;
    let mut wrong = pod(APP, "1");
    wrong["status"]["containerStatuses"] = serde_json::json!("none");
    let versionless = serde_json::json!({"metadata": {}, "items": []});
    let list_of = |pods: &[serde_json::Value]| Answer::Json(200, list("10", pods));
    let script = vec![
        Answer::Raw(b"SSH-2.0-OpenSSH_9.2p1\r\n"),
        Answer::Raw(b""),
        Answer::Raw(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"metadata\":"),
        Answer::Raw(b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 6\r\nconnection: close\r\n\r\n<html>"),
        Answer::Json(403, failure(403, "Forbidden")),
        Answer::Json(429, failure(429, "TooManyRequests")),
        Answer::Json(200, serde_json::json!([])),
        Answer::Json(200, versionless),
        list_of(&[wrong]),
        // From here on watches, each after a list.
        list_of(&[nameless]),
        Answer::Json(403, failure(403, "Forbidden")),
        list_of(&[]),
        watch([b"\xff\xfe no JSON\n".to_vec()]),
        list_of(&[]),
        watch([line("ERROR", &failure(500, "InternalError"))]),
        list_of(&[]),
        watch([line("SURPRISE", &pod(APP, "11"))]),
        list_of(&[]),
        Answer::Stream(vec![Chunk::End]),
        list_of(&[]),
        watch([line("ADDED", &{
            let mut pod = pod(APP, "11");
            pod["metadata"]["resourceVersion"] = serde_json::Value::Null;
            pod
        })]),
        list_of(&[]),
        watch([line("ADDED", &pod(NEXT, "12"))]),
    ];
    let (answers, failures) = (script.len(), 15);
    let server = Server::start(script).await;
    let pods = cluster(&server).pods;
    assert!(!pods.synced());
    until("the last watch tells of a pod", || container_name(&pods, NEXT).is_some()).await;
    assert_eq!((server.asked().len(), errors(&pods)), (answers, failures));
    assert!(connected(&pods) && pods.synced());
}

#[tokio::test]
async fn a_server_that_does_not_speak_tls_is_no_cluster() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("an address");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.write_all(b"HTTP/1.0 400 Bad Request\r\n\r\n").await;
        }
    });
    let config = Config::new(format!("https://{address}").parse().expect("a URL"));
    let pods = connect(config, "node-1".to_owned(), true, pace()).expect("a client").pods;
    until("it is given up again and again", || errors(&pods) > 2).await;
    assert!(!pods.synced() && !connected(&pods));
}

#[tokio::test]
async fn what_is_known_stays_while_the_server_is_away() {
    let server = Server::start([Answer::Json(200, list("10", &[pod(APP, "7")])), watch([])]).await;
    let pods = cluster(&server).pods;
    until("the watch stands", || connected(&pods)).await;
    let (address, generation) = (server.address, pods.generation());
    server.stop().await;
    until("the outage is noticed", || !connected(&pods) && errors(&pods) > 2).await;
    assert_eq!(container_name(&pods, APP).as_deref(), Some("app"));
    assert!(pods.synced());
    assert_eq!(pods.generation(), generation);

    let other = serde_json::json!({"metadata": {"name": "b", "namespace": "shop", "uid": "b", "resourceVersion": "2"}});
    let _server = Server::at(address, [Answer::Json(200, list("50", &[pod(NEXT, "40"), other])), watch([])]).await;
    until("the watch stands again", || connected(&pods)).await;
    assert_eq!((container_name(&pods, APP), container_name(&pods, NEXT).as_deref()), (None, Some("app")));
    assert!(pods.generation() > generation);
}

#[tokio::test]
async fn more_pods_than_a_node_can_run_are_left_out() {
    let many: Vec<_> = (0..1100)
        .map(
            |n| serde_json::json!({"metadata": {"name": format!("p{n}"), "namespace": "x", "uid": format!("uid-{n}")}}),
        )
        .collect();
    let server = Server::start([Answer::Json(200, list("10", &many)), watch([])]).await;
    let pods = cluster(&server).pods;
    until("the watch stands", || connected(&pods)).await;
    let status = pods.status().expect("a cluster");
    assert_eq!((status.pods, status.left_out), (1000, 100));
    assert_eq!(of_pod(&pods, "uid-999").pod.as_deref(), Some("p999"));
    assert_eq!(of_pod(&pods, "uid-1000").pod, None);
}

#[test]
fn without_a_cluster_control_groups_tell() {
    let pods = Pods::default();
    let unit = Identity { unit: Some("cart.service".into()), ..Identity::default() };
    assert_eq!(pods.workload(&unit), Workload { unit: unit.unit.clone(), ..Workload::default() });
    assert!(pods.synced() && pods.status().is_none());
}
