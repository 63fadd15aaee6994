//! Goroutines that do not wait and yet do not get on: in one system call all the time, or running all the time.
//!
//! Two looks tell of a system call whether it is the same: the goroutine has not stopped running in between (`g.trackingSeq`), and
//! stands at the same place. Of one that runs they do not: it may have waited a thousand times. So whoever runs at two looks, one
//! after the other, is looked at many times at short intervals, and is forgotten if it waits once.

use hashbrown::HashMap;

use super::Busy;
use crate::cause::wait::Doing;
use crate::memory::census::{Census, Goroutine};

/// Goroutines looked at many times; each can only be on a processor or queue for one.
const MAX_SAMPLED: usize = 256;

/// See the module.
#[derive(Debug, Default)]
pub struct Active {
    goroutines: HashMap<u64, Kept>,
}

/// What is known of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    doing: Doing,
    /// When it was first seen so, `CLOCK_MONOTONIC` nanoseconds.
    pub since_ns: u64,
    /// Looks that found it so, one after the other.
    pub looks: u32,
    /// Times it was looked at besides, if it runs.
    pub samples: u64,
    stood: (u64, u64),
    tracking_seq: Option<u8>,
}

impl Kept {
    fn of(goroutine: &Goroutine, time_ns: u64) -> Option<Self> {
        let doing = Doing::of(goroutine);
        let active = match doing {
            Doing::Waits(_) => false,
            Doing::Syscall => goroutine.tracking_seq.is_some(),
            Doing::Runs => goroutine.status.runs(),
        };
        active.then_some(Self {
            doing,
            since_ns: time_ns,
            looks: 1,
            samples: 0,
            stood: goroutine.resume(),
            tracking_seq: goroutine.tracking_seq,
        })
    }

    /// Whether `now` is still what this was.
    fn continues(&self, now: &Self) -> bool {
        let same_call = (self.stood, self.tracking_seq) == (now.stood, now.tracking_seq);
        self.doing == now.doing && (self.doing == Doing::Runs || same_call)
    }
}

impl Active {
    /// Takes a census.
    pub(super) fn check(&mut self, census: &Census) {
        let before = std::mem::take(&mut self.goroutines);
        let kept = census.goroutines.iter().filter_map(|goroutine| {
            let now = Kept::of(goroutine, census.finished_ns)?;
            let kept = before.get(&goroutine.goid).filter(|then| then.continues(&now));
            let kept = kept.map_or(now, |then| Kept { looks: then.looks.saturating_add(1), ..*then });
            Some((goroutine.goid, kept))
        });
        self.goroutines = kept.collect();
    }

    /// Takes what looking many times at those that run has told.
    pub(super) fn sampled(&mut self, busy: &Busy) {
        self.goroutines.retain(|goid, kept| kept.doing != Doing::Runs || kept.looks < 2 || busy.goids.contains(goid));
        for goid in &busy.goids {
            if let Some(kept) = self.goroutines.get_mut(goid) {
                kept.samples = kept.samples.saturating_add(busy.samples.into());
            }
        }
    }

    /// Who ran at this look and the one before, and has to be looked at many times.
    pub fn to_sample(&self) -> Vec<u64> {
        let run = self.goroutines.iter().filter(|(_, kept)| kept.doing == Doing::Runs && kept.looks >= 2);
        let mut goids: Vec<u64> = run.map(|(goid, _)| *goid).collect();
        goids.sort_unstable();
        goids.truncate(MAX_SAMPLED);
        goids
    }

    /// What is known of a goroutine that is in the same system call as at the look before, or has run at all looks since one
    /// that was not the last.
    pub fn kept(&self, goroutine: &Goroutine) -> Option<&Kept> {
        let kept = self.goroutines.get(&goroutine.goid)?;
        let enough = match kept.doing {
            // Known from the samples that follow each look: those of this look have yet to come.
            Doing::Runs => kept.samples > 0,
            _ => kept.looks >= 2,
        };
        (enough && kept.doing == Doing::of(goroutine)).then_some(kept)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::census::Status;

    fn goroutine(status: Status, tracking_seq: u8) -> Goroutine {
        Goroutine { goid: 7, status, tracking_seq: Some(tracking_seq), syscall_sp: 64, ..Goroutine::default() }
    }

    fn look(active: &mut Active, time_ns: u64, goroutine: Goroutine) {
        active.check(&Census { finished_ns: time_ns, goroutines: vec![goroutine], ..Census::default() });
    }

    #[test]
    fn one_system_call_is_told_from_many() {
        let mut active = Active::default();
        let call = goroutine(Status::Syscall, 3);
        look(&mut active, 10, call);
        assert_eq!(active.kept(&call), None, "one look does not tell");
        look(&mut active, 20, call);
        assert_eq!(active.kept(&call).map(|kept| (kept.since_ns, kept.looks)), Some((10, 2)));
        let another = goroutine(Status::Syscall, 4);
        look(&mut active, 30, another);
        assert_eq!(active.kept(&another), None, "it has run in between");
    }

    #[test]
    fn who_runs_is_believed_only_after_many_looks_that_never_found_it_waiting() {
        let mut active = Active::default();
        let runs = goroutine(Status::Running, 0);
        look(&mut active, 10, runs);
        assert!(active.to_sample().is_empty());
        look(&mut active, 20, goroutine(Status::Runnable, 9));
        assert_eq!(active.to_sample(), [7]);
        assert_eq!(active.kept(&runs), None);
        active.sampled(&Busy { samples: 50, goids: vec![7] });
        look(&mut active, 30, runs);
        assert_eq!(active.kept(&runs).map(|kept| (kept.since_ns, kept.looks, kept.samples)), Some((10, 3, 50)));
        active.sampled(&Busy { samples: 50, goids: Vec::new() });
        assert_eq!(active.kept(&runs), None, "it waited once");
        look(&mut active, 40, runs);
        look(&mut active, 50, goroutine(Status::Waiting, 9));
        look(&mut active, 60, runs);
        assert!(active.to_sample().is_empty(), "it has begun anew");
    }
}
