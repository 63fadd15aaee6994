//! The kernel side: loading the BPF object, attaching its programs to a target, and reading what they send.
//!
//! The only module that knows aya. An [`Attachment`] is RAII: dropping it removes the probes, and so does the death of
//! this process, however it dies: a process that ends with it holds them, see [`keeper`].

mod attach;
pub mod calibrate;
pub mod check;
mod held;
mod keeper;
pub mod kernel;
mod lifecycle;
mod load;
pub mod measure;
mod object;
mod programs;
mod stream;
mod uprobe;

pub use attach::{AttachError, Attachment, Removed};
pub use keeper::Refused;
pub use lifecycle::{Lifecycles, OomVictims};
pub use load::{Options, Prober};
pub use object::{LoadError, object_digest};
pub use programs::{EMPTY, Uprobes};
pub use stream::{Bell, EventStream};
