//! What the API says of pods, in the shape that version 1.20 and current ones give it.

use serde_json::{Value, json};

pub(super) const APP: &str = "a0c8ab9d8f7e6b5a4c3d2e1f00112233445566778899aabbccddeeff00112230";
pub(super) const NEXT: &str = "a1c8ab9d8f7e6b5a4c3d2e1f00112233445566778899aabbccddeeff00112231";
pub(super) const INIT: &str = "b0c8ab9d8f7e6b5a4c3d2e1f00112233445566778899aabbccddeeff00112232";
pub(super) const DEBUG: &str = "c0c8ab9d8f7e6b5a4c3d2e1f00112233445566778899aabbccddeeff00112233";
pub(super) const UID: &str = "0d1e2f3a-4b5c-6d7e-8f90-a1b2c3d4e5f6";

/// A pod of a deployment: container `app`, with `id` now.
pub(super) fn pod(id: &str, version: &str) -> Value {
    json!({
        "kind": "Pod", "apiVersion": "v1",
        "metadata": {
            "name": "cart-6d5f7c9b8-x2x4z", "generateName": "cart-6d5f7c9b8-", "namespace": "shop", "uid": UID,
            "resourceVersion": version, "creationTimestamp": "2026-11-23T12:00:00Z",
            "labels": {"app": "cart", "pod-template-hash": "6d5f7c9b8"},
            "annotations": {"parkwarden.io/threshold": "2m", "kubernetes.io/config.seen": "now", "other": "x"},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "cart-6d5f7c9b8",
                "uid": "11111111-2222-3333-4444-555555555555", "controller": true, "blockOwnerDeletion": true}],
            "managedFields": [{"manager": "kubelet", "operation": "Update", "apiVersion": "v1",
                "time": "2026-11-23T12:00:01Z", "fieldsType": "FieldsV1", "fieldsV1": {"f:status": {}}}],
        },
        "spec": {"nodeName": "node-1", "containers": [{"name": "app", "image": "cart", "aFieldOfTomorrow": {"x": 1}}]},
        "status": {
            "phase": "Running", "podIP": "10.0.0.1",
            "initContainerStatuses": [status("setup", &format!("containerd://{INIT}"))],
            "containerStatuses": [status("app", &format!("containerd://{id}"))],
            "ephemeralContainerStatuses": [status("debugger", &format!("cri-o://{DEBUG}"))],
        },
    })
}

fn status(name: &str, id: &str) -> Value {
    json!({
        "name": name, "containerID": id, "image": "x", "imageID": "", "ready": true, "restartCount": 0, "started": true,
        "state": {"running": {"startedAt": "2026-11-23T12:00:02Z"}}, "lastState": {},
    })
}

/// A pod that the kubelet runs from a file: its control groups name it by `uid_on_node`.
pub(super) fn static_pod(uid_on_node: &str, version: &str) -> Value {
    json!({
        "metadata": {
            "name": "etcd-node-1", "namespace": "kube-system", "uid": "99999999-8888-7777-6666-555555555555",
            "resourceVersion": version,
            "annotations": {"kubernetes.io/config.hash": uid_on_node, "kubernetes.io/config.mirror": uid_on_node},
            "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": "node-1", "controller": true,
                "uid": "11111111-2222-3333-4444-555555555555"}],
        },
        "status": {"phase": "Pending"},
    })
}

pub(super) fn list(version: &str, pods: &[Value]) -> Value {
    json!({"kind": "PodList", "apiVersion": "v1", "metadata": {"resourceVersion": version}, "items": pods})
}

/// One line of a watch.
pub(super) fn line(kind: &str, object: &Value) -> Vec<u8> {
    let mut line = json!({"type": kind, "object": object}).to_string().into_bytes();
    line.push(b'\n');
    line
}

pub(super) fn bookmark(version: &str) -> Vec<u8> {
    line("BOOKMARK", &json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"resourceVersion": version}}))
}

pub(super) fn failure(code: u16, reason: &str) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": format!("no: {reason}"),
        "reason": reason, "code": code})
}
