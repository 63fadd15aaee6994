//! Processes of this host: opening one so that it stays the one that was meant, where it belongs, what it uses, how it
//! ended.

pub mod cgroup;
pub mod confinement;
pub mod container;
pub mod describe;
pub mod halted;
pub mod host;
pub mod info;
pub mod process;
pub mod threads;
pub mod usage;
pub mod workload;
