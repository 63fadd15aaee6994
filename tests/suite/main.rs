//! Integration tests, one module a subject, in one binary.

mod agent;
mod bpf_object;
mod confined;
mod containers;
mod deploy;
mod fixtures;
mod golang;
mod golden;
mod hostile;
mod incident;
mod layouts;
mod matrix;
mod modes;
mod node_attack;
mod node_churn;
mod page;
mod processes;
mod ps;
mod reach;
mod recording;
mod servers;
mod snapshot;
mod timeline;
mod variables;
mod verdicts;
mod watch;
