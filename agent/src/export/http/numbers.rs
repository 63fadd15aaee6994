//! What the server has done, for metrics.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

/// See the module.
#[derive(Debug, Default)]
pub struct HttpNumbers {
    accepted: AtomicU64,
    refused: AtomicU64,
    broken: AtomicU64,
    answers: Mutex<BTreeMap<(&'static str, u16), u64>>,
}

impl HttpNumbers {
    pub(in crate::export) fn accepted(&self) {
        self.accepted.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn broken(&self) {
        self.broken.fetch_add(1, Ordering::Relaxed);
    }

    pub(in crate::export) fn answered(&self, route: &'static str, status: u16) {
        *self.answers.lock().entry((route, status)).or_default() += 1;
    }

    /// Connections by what became of them: accepted; refused because there were too many; broken off, by either side.
    pub fn connections(&self) -> [(&'static str, u64); 3] {
        [
            ("accepted", self.accepted.load(Ordering::Relaxed)),
            ("refused", self.refused.load(Ordering::Relaxed)),
            ("broken", self.broken.load(Ordering::Relaxed)),
        ]
    }

    /// Answers by route and status.
    pub fn answers(&self) -> BTreeMap<(&'static str, u16), u64> {
        self.answers.lock().clone()
    }
}
