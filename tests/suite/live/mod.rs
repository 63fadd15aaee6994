//! What attaches probes, starts containers or looks into other processes, and so needs root and a kernel with BPF.
//! `cargo xtask test --skip live` leaves this folder out, and no other test.

mod agent;
mod alerts;
mod browser;
mod cases;
mod confined;
mod containers;
mod contributor;
mod creators;
mod habits;
mod health;
mod held;
mod holders;
mod hostile;
mod hung;
mod incident;
mod kinds;
mod launch;
mod library;
mod matrix;
mod modes;
mod node_attack;
mod node_churn;
mod oom;
mod processes;
mod reach;
mod recording;
mod removal;
mod runtime;
mod servers;
mod top;
mod verdicts;
pub(crate) mod watch;
mod why;
