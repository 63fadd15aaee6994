//! What there is beside a group that stands: connections that its goroutines belong to, and the places where those of its `go`
//! statement rest as a rule.

use std::cell::OnceCell;

use hashbrown::{HashMap, HashSet};

use crate::cause::io::Io;
use crate::detect::stuck::standstill::Rest;
use crate::golang::Frame;
use crate::memory::StackId;
use crate::session::{GroupKey, Session};
use crate::words::Place;

/// Looks that have to have seen goroutines come back to a place, for them to rest there.
const RETURNS: u32 = 3;

/// See the module.
pub(super) struct Beside<'s> {
    session: &'s Session,
    rests: HashMap<u64, Rest>,
    /// Looked for only when somebody asks.
    readers: OnceCell<Readers>,
}

/// Goroutines that read from connections.
#[derive(Default)]
struct Readers {
    goids: HashSet<u64>,
    /// Who made them, and in which function.
    made_by: HashSet<u64>,
    made_in: HashSet<(u64, String)>,
}

impl<'s> Beside<'s> {
    pub(super) fn of(session: &'s Session) -> Self {
        Self { session, rests: rests(session), readers: OnceCell::new() }
    }

    /// Where goroutines of this creation site rest between two pieces of work, if none of them is there.
    pub(super) fn rest(&self, creation_pc: u64) -> Option<&Rest> {
        self.rests.get(&creation_pc)
    }

    /// Whether one of these goroutines, told by their ids, was made by a reader of a connection, made one, or was made with one by
    /// the same function.
    pub(super) fn connection(&self, parked: &[(u64, u64)]) -> bool {
        let readers = self.readers.get_or_init(|| readers(self.session));
        let asked: HashSet<u64> = parked.iter().map(|(_, goid)| *goid).collect();
        let all = self.session.latest().into_iter().flat_map(|taken| taken.goroutines());
        all.filter(|(goroutine, _)| asked.contains(&goroutine.goid)).any(|(goroutine, _)| {
            readers.made_by.contains(&goroutine.goid)
                || readers.goids.contains(&goroutine.parent_goid)
                || made_in(self.session, goroutine.creation_pc)
                    .is_some_and(|function| readers.made_in.contains(&(goroutine.parent_goid, function)))
        })
    }
}

/// The function with the `go` statement.
fn made_in(session: &Session, creation_pc: u64) -> Option<String> {
    Place::of_creation(session.symbols(), creation_pc).map(|place| place.function)
}

fn readers(session: &Session) -> Readers {
    let mut readers = Readers::default();
    let mut read: HashMap<StackId, bool> = HashMap::new();
    for (goroutine, stack) in session.latest().into_iter().flat_map(|taken| taken.goroutines()) {
        let Some(key) = session.case_of(goroutine, stack) else { continue };
        // Whoever serves a request has a reader beside it that waits for the client to go: so it does where it hangs.
        let reads = *read.entry(key.stack).or_insert_with(|| {
            let stack: Vec<Frame> = session.stack_frames(key.stack).cloned().collect();
            Io::of(&stack).reads_network()
                && !stack.iter().any(|frame| frame.function == "net/http.(*connReader).backgroundRead")
        });
        if reads {
            readers.goids.insert(goroutine.goid);
            readers.made_by.insert(goroutine.parent_goid);
            readers.made_in.extend(made_in(session, goroutine.creation_pc).map(|f| (goroutine.parent_goid, f)));
        }
    }
    readers
}

/// The place that most looks saw goroutines of each `go` statement come back to, where nobody is at the last.
fn rests(session: &Session) -> HashMap<u64, Rest> {
    let is_empty = |key: &GroupKey| session.group_series(key).is_none_or(|series| series.last().1 == 0);
    let mut usual: HashMap<u64, (u32, GroupKey)> = HashMap::new();
    for (key, passage) in session.passages().places().filter(|(_, passage)| passage.returns >= RETURNS) {
        let known = usual.entry(key.creation_pc).or_insert((passage.returns, *key));
        *known = (*known).max((passage.returns, *key));
    }
    let usual = usual.into_iter().filter(|(_, (_, key))| is_empty(key));
    usual
        .map(|(creation_pc, (returns, key))| {
            let stack: Vec<Frame> = session.stack_frames(key.stack).cloned().collect();
            let place =
                Place::of_blocking(&stack).map_or_else(|| "another place".to_owned(), |place| place.to_string());
            (creation_pc, Rest { stack, place, returns })
        })
        .collect()
}
