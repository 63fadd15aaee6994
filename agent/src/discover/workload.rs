//! Who a process belongs to: pod, container and owner where there is a cluster, else the unit it runs in.

use std::collections::BTreeMap;

use serde::Serialize;

use super::container::{self, Identity};
use super::process::Process;

/// See the module. What is not known is absent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Workload {
    /// Namespace of the pod.
    pub namespace: Option<String>,
    /// Name of the pod.
    pub pod: Option<String>,
    /// Uid of the pod.
    pub pod_uid: Option<String>,
    /// What Events call it, if that is another uid: so it is for pods that a kubelet runs from files.
    #[serde(skip)]
    pub event_uid: Option<String>,
    /// Name of the container within the pod.
    pub container: Option<String>,
    /// Id of the container, as its runtime names it.
    pub container_id: Option<String>,
    /// What made the pod.
    pub owner: Option<Owner>,
    /// systemd unit, for processes in no container.
    pub unit: Option<String>,
    /// The pod's labels, to choose by.
    #[serde(skip)]
    pub labels: BTreeMap<String, String>,
    /// Of the pod's annotations, parkwarden's own.
    #[serde(skip)]
    pub annotations: BTreeMap<String, String>,
}

/// What made a pod, as far up as is certain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Owner {
    /// For example `Deployment`.
    pub kind: String,
    /// Its name.
    pub name: String,
}

impl Workload {
    /// What a process's control groups alone tell; nothing when it is gone.
    pub fn of(process: &Process) -> Self {
        Self::local(&process.by_pid(|pid| Some(container::of(pid))).unwrap_or_default())
    }

    /// Namespace, pod and container, as metrics and alerts name them: a container that nobody has a name for has its id.
    pub fn labels(&self) -> [&str; 3] {
        let container = self.container.as_deref().or(self.container_id.as_deref());
        [self.namespace.as_deref(), self.pod.as_deref(), container].map(Option::unwrap_or_default)
    }

    /// What a process's control groups alone tell.
    pub fn local(identity: &Identity) -> Self {
        Self {
            pod_uid: identity.pod_uid.clone(),
            container_id: identity.container.clone(),
            unit: identity.unit.clone(),
            ..Self::default()
        }
    }
}
