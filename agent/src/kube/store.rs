//! The pods of this node by container id and by uid: a pure value, fed with what the API says.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ContainerStateTerminated, ContainerStatus, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::discover::container::Identity;
use crate::discover::workload::{Owner, Workload};

/// Pods kept; a kubelet runs 110 unless told otherwise.
const MAX_PODS: usize = 1000;

/// Ended containers remembered.
const MAX_ENDED: usize = 1000;

/// Labels, and containers, kept of one pod.
const MAX_OF_POD: usize = 256;

/// Annotations that are parkwarden's.
const ANNOTATIONS: &str = "parkwarden.io/";

/// Pods that the kubelet runs from files have two uids: their control groups have this one.
const UID_ON_NODE: &str = "kubernetes.io/config.hash";

/// And Events on them have this one.
const UID_OF_EVENTS: &str = "kubernetes.io/config.mirror";

/// The label that a deployment's replica sets give their pods; their names end with it.
const TEMPLATE_HASH: &str = "pod-template-hash";

/// What is kept of a pod.
#[derive(Debug, PartialEq)]
struct Record {
    /// Without a container.
    workload: Workload,
    /// Names of its containers, by id.
    containers: BTreeMap<String, String>,
    /// If it is not the API's.
    uid_on_node: Option<String>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Store {
    pods: HashMap<String, Arc<Record>>,
    by_container: HashMap<String, Arc<Record>>,
    by_uid_on_node: HashMap<String, Arc<Record>>,
    ended: Ended,
    left_out: u64,
}

/// Why containers ended, by their ids, in one word of the kubelet's: the last that did.
#[derive(Debug, Default)]
struct Ended {
    reasons: HashMap<String, String>,
    order: VecDeque<String>,
}

impl Ended {
    /// Takes note; whether it is news.
    fn tell(&mut self, id: &str, reason: &str) -> bool {
        if self.reasons.insert(id.to_owned(), reason.to_owned()).is_some() {
            return false;
        }
        self.order.push_back(id.to_owned());
        if self.order.len() > MAX_ENDED
            && let Some(oldest) = self.order.pop_front()
        {
            self.reasons.remove(&oldest);
        }
        true
    }
}

impl Store {
    /// Pods there are.
    pub(super) fn len(&self) -> usize {
        self.pods.len()
    }

    /// Pods for which there was no room.
    pub(super) fn left_out(&self) -> u64 {
        self.left_out
    }

    /// Who a process with these control groups belongs to.
    pub(super) fn workload(&self, identity: &Identity) -> Workload {
        let container = identity.container.as_ref();
        let record = container.and_then(|id| self.by_container.get(id)).or_else(|| {
            let uid = identity.pod_uid.as_ref()?;
            self.pods.get(uid).or_else(|| self.by_uid_on_node.get(uid))
        });
        let Some(record) = record else { return Workload::local(identity) };
        Workload {
            container: container.and_then(|id| record.containers.get(id)).cloned(),
            container_id: container.cloned(),
            unit: identity.unit.clone(),
            ..record.workload.clone()
        }
    }

    /// Why a container ended, if it is known to have: `OOMKilled`, `Error`, `Completed`...
    pub(super) fn ended(&self, container: &str) -> Option<&str> {
        self.ended.reasons.get(container).map(String::as_str)
    }

    /// A pod is new or has changed; whether that changes who anything belongs to, or tells of a container's end.
    pub(super) fn apply(&mut self, pod: &Pod) -> bool {
        let ended = self.note_ended(pod);
        // What has ended uses memory here and there, and no process is in it any more.
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        if matches!(phase, Some("Succeeded" | "Failed")) {
            return pod.metadata.uid.as_ref().is_some_and(|uid| self.remove_uid(uid)) | ended;
        }
        self.keep(pod) | ended
    }

    fn note_ended(&mut self, pod: &Pod) -> bool {
        let mut news = false;
        for container in statuses(pod) {
            for state in terminated(container) {
                if let Some(id) = state.container_id.as_deref().and_then(bare) {
                    news |= self.ended.tell(id, state.reason.as_deref().unwrap_or_default());
                }
            }
        }
        news
    }

    fn keep(&mut self, pod: &Pod) -> bool {
        let Some((uid, record)) = Record::of(pod) else { return false };
        if self.pods.get(&uid).is_some_and(|known| **known == record) {
            return false;
        }
        self.remove_uid(&uid);
        if self.pods.len() >= MAX_PODS {
            self.left_out += 1;
            return false;
        }
        let record = Arc::new(record);
        for id in record.containers.keys() {
            self.by_container.insert(id.clone(), Arc::clone(&record));
        }
        if let Some(uid) = &record.uid_on_node {
            self.by_uid_on_node.insert(uid.clone(), Arc::clone(&record));
        }
        self.pods.insert(uid, record);
        true
    }

    /// A pod is gone; whether it was known.
    pub(super) fn remove(&mut self, pod: &Pod) -> bool {
        self.note_ended(pod) | pod.metadata.uid.as_ref().is_some_and(|uid| self.remove_uid(uid))
    }

    /// These are all pods there are; whether that changes who anything belongs to.
    pub(super) fn replace(&mut self, pods: &[Pod]) -> bool {
        let listed: std::collections::HashSet<&String> =
            pods.iter().filter_map(|pod| pod.metadata.uid.as_ref()).collect();
        let gone: Vec<String> = self.pods.keys().filter(|uid| !listed.contains(uid)).cloned().collect();
        for uid in &gone {
            self.remove_uid(uid);
        }
        let mut changed = !gone.is_empty();
        for pod in pods {
            changed |= self.apply(pod);
        }
        changed
    }

    fn remove_uid(&mut self, uid: &str) -> bool {
        let Some(record) = self.pods.remove(uid) else { return false };
        // What another pod has taken over since stays.
        let own = |map: &mut HashMap<String, Arc<Record>>, key: &String| {
            if map.get(key).is_some_and(|entry| Arc::ptr_eq(entry, &record)) {
                map.remove(key);
            }
        };
        for id in record.containers.keys() {
            own(&mut self.by_container, id);
        }
        if let Some(uid) = &record.uid_on_node {
            own(&mut self.by_uid_on_node, uid);
        }
        true
    }
}

impl Record {
    /// The pod's uid and what is kept of it; nothing of what has no name.
    fn of(pod: &Pod) -> Option<(String, Self)> {
        let ObjectMeta { name: Some(name), namespace: Some(namespace), uid: Some(uid), .. } = &pod.metadata else {
            return None;
        };
        let labels: BTreeMap<String, String> =
            pod.metadata.labels.iter().flatten().take(MAX_OF_POD).map(owned).collect();
        let annotations = pod.metadata.annotations.as_ref();
        let own = annotations.into_iter().flatten().filter(|(key, _)| key.starts_with(ANNOTATIONS));
        let uid_on_node = annotations.and_then(|all| all.get(UID_ON_NODE)).filter(|other| *other != uid).cloned();
        let workload = Workload {
            namespace: Some(namespace.clone()),
            pod: Some(name.clone()),
            pod_uid: Some(uid.clone()),
            event_uid: annotations.and_then(|all| all.get(UID_OF_EVENTS)).cloned(),
            owner: owner(&pod.metadata),
            labels,
            annotations: own.take(MAX_OF_POD).map(owned).collect(),
            ..Workload::default()
        };
        Some((uid.clone(), Self { workload, containers: containers(pod), uid_on_node }))
    }
}

fn owned((key, value): (&String, &String)) -> (String, String) {
    (key.clone(), value.clone())
}

/// Names by id of containers of all kinds, and of those that ran before them: a process may outlive the news.
fn containers(pod: &Pod) -> BTreeMap<String, String> {
    statuses(pod).flat_map(|container| ids(container).map(|id| (id.to_owned(), container.name.clone()))).collect()
}

fn statuses(pod: &Pod) -> impl Iterator<Item = &ContainerStatus> {
    let all = pod.status.iter().flat_map(|status| {
        [&status.container_statuses, &status.init_container_statuses, &status.ephemeral_container_statuses]
    });
    all.flatten().flatten().take(MAX_OF_POD)
}

fn ids(container: &ContainerStatus) -> impl Iterator<Item = &str> {
    let before = terminated(container).filter_map(|state| state.container_id.as_ref());
    container.container_id.iter().chain(before).filter_map(|id| bare(id))
}

/// The container's own end, and that of the one that ran before it.
fn terminated(container: &ContainerStatus) -> impl Iterator<Item = &ContainerStateTerminated> {
    let states = [&container.state, &container.last_state].map(|state| state.as_ref()?.terminated.as_ref());
    states.into_iter().flatten()
}

/// A container's id without the runtime before it: `containerd://…`.
fn bare(id: &str) -> Option<&str> {
    Some(id.split_once("://")?.1).filter(|id| !id.is_empty())
}

/// What made the pod: its controller; of a deployment's replica set the deployment. A job stays one: its name alone does
/// not tell of what cron job it is.
fn owner(metadata: &ObjectMeta) -> Option<Owner> {
    let owners = metadata.owner_references.as_ref()?;
    let owner = owners.iter().find(|owner| owner.controller == Some(true)).or_else(|| owners.first())?;
    let hash = metadata.labels.as_ref().and_then(|labels| labels.get(TEMPLATE_HASH));
    let deployment = hash.and_then(|hash| owner.name.strip_suffix(hash.as_str())?.strip_suffix('-'));
    Some(match deployment {
        Some(name) if owner.kind == "ReplicaSet" && !name.is_empty() => {
            Owner { kind: "Deployment".to_owned(), name: name.to_owned() }
        }
        _ => Owner { kind: owner.kind.clone(), name: owner.name.clone() },
    })
}
