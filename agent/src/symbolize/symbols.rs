//! Names of the addresses a session has met.

use std::sync::Arc;

use hashbrown::HashMap;

use crate::golang::Frame;

/// Frames by the address that was looked up.
#[derive(Clone, Debug, Default)]
pub struct Symbols {
    frames: HashMap<u64, Arc<[Frame]>>,
}

/// The address to look up for a return address: the call lies just before it.
pub const fn call_of(return_address: u64) -> u64 {
    return_address.saturating_sub(1)
}

impl Symbols {
    /// Adds resolved addresses.
    pub fn extend(&mut self, resolved: &[(u64, Arc<[Frame]>)]) {
        self.frames.extend(resolved.iter().map(|(address, frames)| (*address, Arc::clone(frames))));
    }

    /// Whether `address` has been looked up.
    pub fn contains(&self, address: u64) -> bool {
        self.frames.contains_key(&address)
    }

    /// Frames of the instruction at `address`, innermost first; empty when it was never looked up.
    pub fn at(&self, address: u64) -> &[Frame] {
        self.frames.get(&address).map_or(&[], |frames| frames)
    }

    /// Frames of the call that returns to `address`.
    pub fn return_address(&self, address: u64) -> &[Frame] {
        self.at(call_of(address))
    }
}
