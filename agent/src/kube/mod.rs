//! The cluster: whose pod a process is in, and Events on pods that leak.
//!
//! The agent asks the API for the pods of its own node alone, keeps what it knows while the API is away, and works without
//! a cluster. Deliberately absent: deployments, jobs and all else above a pod (its owner is read off the pod itself), and
//! every decision about what is watched or told.

mod connect;
mod error;
mod events;
mod follow;
mod pods;
mod store;
pub mod story;
#[cfg(test)]
mod tests;

pub use connect::{Cluster, StartError, start};
pub use events::{EventCounts, Events};
pub use pods::{Pods, PodsStatus};
pub use story::{LeakEvent, LeakStories};
