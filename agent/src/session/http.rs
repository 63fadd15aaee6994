//! Which `go` statements are executed by goroutines that serve HTTP connections: what they start belongs to a request.

use hashbrown::{HashMap, HashSet};

use super::{CensusTaken, Symbols};
use crate::cause::Handler;
use crate::golang::goroutine::is_http_server;
use crate::memory::StackId;

/// See the module. Grows with the program's `go` statements, not with its goroutines.
#[derive(Debug, Default)]
pub(super) struct HttpConnections {
    /// Whether the goroutines of a creation site serve HTTP, for every site seen.
    servers: HashMap<u64, bool>,
    /// Creation sites whose goroutines handlers make.
    made: HashMap<u64, Handler>,
}

/// Creation sites remembered; a hostile program can show any number.
const MAX_SITES: usize = 65_536;

impl HttpConnections {
    /// Learns from a census. `serves` tells whether a stack is one that serves a request.
    pub(super) fn note(&mut self, taken: &CensusTaken, symbols: &Symbols, serves: impl Fn(StackId) -> bool) {
        let mut serving: HashMap<StackId, bool> = HashMap::new();
        // Of each connection whether it may be serving: one whose stack is not known may.
        let connections: HashMap<u64, bool> = taken
            .goroutines()
            .filter(|(goroutine, _)| self.is_connection(goroutine.creation_pc, symbols))
            .map(|(goroutine, stack)| {
                (goroutine.goid, stack.is_none_or(|stack| *serving.entry(stack).or_insert_with(|| serves(stack))))
            })
            .collect();
        if connections.is_empty() && self.made.is_empty() {
            return;
        }
        let here: HashSet<u64> = taken.census.goroutines.iter().map(|goroutine| goroutine.goid).collect();
        for goroutine in &taken.census.goroutines {
            let handler = match connections.get(&goroutine.parent_goid) {
                Some(true) => Handler::Serving,
                Some(false) => Handler::Done,
                None if self.made.contains_key(&goroutine.creation_pc) && !here.contains(&goroutine.parent_goid) => {
                    Handler::Done
                }
                None => continue,
            };
            if let Some(known) = self.made.get_mut(&goroutine.creation_pc) {
                *known = handler.max(*known);
            } else if self.made.len() < MAX_SITES {
                self.made.insert(goroutine.creation_pc, handler);
            }
        }
    }

    fn is_connection(&mut self, creation_pc: u64, symbols: &Symbols) -> bool {
        if let Some(known) = self.servers.get(&creation_pc) {
            return *known;
        }
        let frames = symbols.return_address(creation_pc);
        let serves = frames.first().is_some_and(|frame| is_http_server(&frame.function));
        if self.servers.len() < MAX_SITES {
            self.servers.insert(creation_pc, serves);
        }
        serves
    }

    /// Whether handlers make the goroutines of a creation site.
    pub(super) fn handler_of(&self, creation_pc: u64) -> Option<Handler> {
        self.made.get(&creation_pc).copied()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::golang::Frame;
    use crate::memory::census::{Census, Goroutine};

    const SERVE: u64 = 0x100;
    const HANDLER: u64 = 0x200;

    fn taken(goroutines: &[(u64, u64, u64)]) -> CensusTaken {
        let goroutines: Vec<Goroutine> = goroutines
            .iter()
            .map(|(goid, parent_goid, creation_pc)| Goroutine {
                goid: *goid,
                parent_goid: *parent_goid,
                creation_pc: *creation_pc,
                ..Goroutine::default()
            })
            .collect();
        let stacks = goroutines.iter().map(|goroutine| Some(StackId(goroutine.goid as u32))).collect();
        let census = Census { goroutines, ..Census::default() };
        CensusTaken { census, stacks, stack_moved: 0, stack_cut: 0, stack_unknown: 0 }
    }

    fn symbols() -> Symbols {
        let frame =
            |function: &str| Frame { function: function.to_owned(), file: String::new(), line: 1, inlined: false };
        let mut symbols = Symbols::default();
        let serve: Arc<[Frame]> = [frame("net/http.(*Server).Serve")].into();
        let handler: Arc<[Frame]> = [frame("main.handle")].into();
        symbols.extend(&[(crate::symbolize::call_of(SERVE), serve), (crate::symbolize::call_of(HANDLER), handler)]);
        symbols
    }

    #[test]
    fn what_a_handler_starts_outlives_it_when_it_serves_no_more() {
        let mut http = HttpConnections::default();
        let connection_and_its_goroutine = taken(&[(1, 0, 0), (2, 1, SERVE), (3, 2, HANDLER)]);
        http.note(&connection_and_its_goroutine, &symbols(), |stack| stack == StackId(2));
        assert_eq!(http.handler_of(HANDLER), Some(Handler::Serving));
        assert_eq!(http.handler_of(SERVE), None);
        http.note(&connection_and_its_goroutine, &symbols(), |_| false);
        assert_eq!(http.handler_of(HANDLER), Some(Handler::Done));
    }

    #[test]
    fn a_connection_that_is_gone_serves_no_more() {
        let mut http = HttpConnections::default();
        http.note(&taken(&[(2, 1, SERVE), (3, 2, HANDLER)]), &symbols(), |_| true);
        assert_eq!(http.handler_of(HANDLER), Some(Handler::Serving));
        http.note(&taken(&[(3, 2, HANDLER)]), &symbols(), |_| true);
        assert_eq!(http.handler_of(HANDLER), Some(Handler::Done));
    }
}
