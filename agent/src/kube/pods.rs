//! The handle by which the rest of the agent asks for pods, and the state behind it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::RwLock;
use tokio::sync::watch;
use tokio::time::timeout;

use super::store::Store;
use crate::discover::container::Identity;
use crate::discover::workload::Workload;

/// Who processes belong to, as far as the cluster has told. Without a cluster: what control groups tell.
#[derive(Clone, Debug, Default)]
pub struct Pods {
    known: Option<Arc<KnownPods>>,
}

/// How well the pods of this node are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PodsStatus {
    /// They have been listed at least once.
    pub synced: bool,
    /// Changes arrive now; otherwise what is known ages.
    pub connected: bool,
    /// Lists and watches that failed.
    pub watch_errors: u64,
    /// Pods known.
    pub pods: usize,
    /// Pods for which there was no room.
    pub left_out: u64,
}

/// What is known of the pods of this node.
#[derive(Debug, Default)]
pub(super) struct KnownPods {
    store: RwLock<Store>,
    generation: watch::Sender<u64>,
    synced: AtomicBool,
    connected: AtomicBool,
    errors: AtomicU64,
}

impl Pods {
    pub(super) fn new(known: Arc<KnownPods>) -> Self {
        Self { known: Some(known) }
    }

    /// Who a process with these control groups belongs to. An answer without a pod is no reason to forget an earlier
    /// one: a pod can be gone before its processes are.
    pub fn workload(&self, identity: &Identity) -> Workload {
        match &self.known {
            Some(known) => known.store.read().workload(identity),
            None => Workload::local(identity),
        }
    }

    /// Why a container ended, in the kubelet's word, as soon as that is known; none if it is not within that time.
    pub async fn ended(&self, container: &str, within: Duration) -> Option<String> {
        let known = self.known.as_ref()?;
        let told = async {
            loop {
                let seen = self.generation();
                match known.ended(container) {
                    Some(reason) => return reason,
                    None => drop(self.changed(seen).await),
                }
            }
        };
        timeout(within, told).await.ok()
    }

    /// Whether there is nothing to wait for: no cluster, or its pods have been listed once.
    pub fn synced(&self) -> bool {
        self.known.as_ref().is_none_or(|known| known.synced.load(Ordering::Acquire))
    }

    /// Grows whenever [`Pods::workload`] or [`Pods::synced`] may answer otherwise than before.
    pub fn generation(&self) -> u64 {
        self.known.as_ref().map_or(0, |known| *known.generation.borrow())
    }

    /// Waits until the generation is another than the one seen, and returns that; for ever without a cluster.
    pub async fn changed(&self, seen: u64) -> u64 {
        if let Some(known) = &self.known
            // The sender is here, so it cannot be gone.
            && let Ok(generation) = known.generation.subscribe().wait_for(|generation| *generation != seen).await
        {
            return *generation;
        }
        std::future::pending().await
    }

    /// How well the pods are known; none without a cluster.
    pub fn status(&self) -> Option<PodsStatus> {
        let known = self.known.as_ref()?;
        let store = known.store.read();
        Some(PodsStatus {
            synced: known.synced.load(Ordering::Acquire),
            connected: known.connected.load(Ordering::Acquire),
            watch_errors: known.errors.load(Ordering::Relaxed),
            pods: store.len(),
            left_out: store.left_out(),
        })
    }
}

impl KnownPods {
    fn ended(&self, container: &str) -> Option<String> {
        self.store.read().ended(container).map(str::to_owned)
    }

    /// Changes what is known; `change` says whether it did.
    pub(super) fn change(&self, change: impl FnOnce(&mut Store) -> bool) {
        if change(&mut self.store.write()) {
            self.generation.send_modify(|generation| *generation += 1);
        }
    }

    /// What there is has been listed.
    pub(super) fn listed(&self) {
        if !self.synced.swap(true, Ordering::AcqRel) {
            self.generation.send_modify(|generation| *generation += 1);
        }
    }

    /// Whether changes did not arrive before.
    pub(super) fn connected(&self) -> bool {
        !self.connected.swap(true, Ordering::AcqRel)
    }

    /// Whether changes arrived before.
    pub(super) fn disconnected(&self) -> bool {
        self.connected.swap(false, Ordering::AcqRel)
    }

    pub(super) fn failed(&self) {
        self.errors.fetch_add(1, Ordering::Relaxed);
    }
}
