//! Which `go` statements are executed by goroutines that serve HTTP connections: what they start belongs to a request.

use hashbrown::{HashMap, HashSet};

use super::Symbols;
use crate::golang::goroutine::is_http_server;
use crate::memory::census::Census;

/// See the module. Grows with the program's `go` statements, not with its goroutines.
#[derive(Debug, Default)]
pub(super) struct HttpConnections {
    /// Whether the goroutines of a creation site serve HTTP, for every site seen.
    servers: HashMap<u64, bool>,
    made: HashSet<u64>,
}

/// Creation sites remembered; a hostile program can show any number.
const MAX_SITES: usize = 65_536;

impl HttpConnections {
    /// Learns from a census.
    pub(super) fn note(&mut self, census: &Census, symbols: &Symbols) {
        let mut serves = |creation_pc: u64| {
            if let Some(known) = self.servers.get(&creation_pc) {
                return *known;
            }
            let frames = symbols.return_address(creation_pc);
            let serves = frames.first().is_some_and(|frame| is_http_server(&frame.function));
            if self.servers.len() < MAX_SITES {
                self.servers.insert(creation_pc, serves);
            }
            serves
        };
        let connections: HashSet<u64> = census
            .goroutines
            .iter()
            .filter(|goroutine| serves(goroutine.creation_pc))
            .map(|goroutine| goroutine.goid)
            .collect();
        if connections.is_empty() {
            return;
        }
        for goroutine in &census.goroutines {
            if connections.contains(&goroutine.parent_goid) && self.made.len() < MAX_SITES {
                self.made.insert(goroutine.creation_pc);
            }
        }
    }

    /// Whether goroutines made at `creation_pc` are made by one that serves a connection.
    pub(super) fn makes(&self, creation_pc: u64) -> bool {
        self.made.contains(&creation_pc)
    }
}
