//! Recordings: what was seen of programs over days, in one SQLite file that outlives them, parkwarden and the host.
//!
//! A [`Recorder`] takes an [`Interval`] of each process at each look, and survives whatever happens to the file: a full
//! disk stops it until there is room again, a damaged file is set aside. [`read`] gives it back. `schema.sql` is the
//! documentation of the tables; users query them with any SQLite tool.
//!
//! Deliberately absent: judgement. What the numbers mean is `detect`'s and `timeline`'s business.

mod build;
mod error;
mod history;
mod incidents;
mod interval;
mod read;
mod retention;
mod schema;
mod select;
mod store;
#[cfg(test)]
pub(crate) mod tests;
mod write;

pub use error::RecordError;
pub use history::{GroupHistory, History, IncidentHistory, Sample, Verdicts, Watched};
pub use interval::{
    CreationSite, CreationSiteCount, Example, Exit, ExitKind, Gap, GapCause, GroupCount, IncidentCount, Interval,
    Judgement, Moment, ProcessIdentity, RecordedGroup, Run, RuntimeSample, Usage, WatchEnd,
};
pub use read::{Reader, RecordedProcess};
pub use schema::VERSION;
pub use select::Selection;
pub use write::{Recorder, RecorderState, RecorderStatus, WatchId};
