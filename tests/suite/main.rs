//! Integration tests, one module a subject, in one binary.

mod fixtures;
mod golden;
mod processes;
mod watch;
