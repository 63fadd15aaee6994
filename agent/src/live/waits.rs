//! What goroutines wait for, read from the running target: the state of their channels, mutexes and wait groups.

use super::{Target, TargetError};
use crate::cause::primitive::Primitive;
use crate::cause::wait::{Wait, primitives_of};
use crate::golang::Frame;
use crate::golang::proof_layout::ReachLayout;
use crate::memory::census::Goroutine;
use crate::memory::http_request;
use crate::memory::unwind::stands_still;

/// Channels of one `select` that are read.
const MAX_PRIMITIVES: usize = 16;

impl Target {
    /// What a goroutine of a census waits for. Empty where that cannot be told: for reasons that have no such thing, on
    /// versions whose structs are not known, and when it has moved since.
    pub fn waits_for(
        &self,
        goroutine: &Goroutine,
        reason: &str,
        stack: &[Frame],
    ) -> Result<Vec<Primitive>, TargetError> {
        let Some(wait) = Wait::of(reason, stack) else { return Ok(Vec::new()) };
        let binary = &self.binary;
        let Ok(layout) = ReachLayout::from_structs(&binary.structs, &binary.version, binary.arch) else {
            return Ok(Vec::new());
        };
        let mut addresses = primitives_of(&self.memory, &layout, wait, goroutine).unwrap_or_default();
        addresses.truncate(MAX_PRIMITIVES);
        let primitives = addresses
            .into_iter()
            .filter(|address| *address != 0)
            .map(|address| Primitive::read(&self.memory, &layout, wait, address, None))
            .collect();
        Ok(if self.still_stands(goroutine)? { primitives } else { Vec::new() })
    }

    /// Method and path of the HTTP request that a goroutine of a census serves, if it does, and has not moved since.
    pub fn serves(&self, goroutine: &Goroutine, stack: &[Frame]) -> Result<Option<String>, TargetError> {
        if !http_request::serves(stack) {
            return Ok(None);
        }
        let served = http_request::of(&self.memory, goroutine);
        Ok(if self.still_stands(goroutine)? { served } else { None })
    }

    fn still_stands(&self, goroutine: &Goroutine) -> Result<bool, TargetError> {
        let after =
            self.census.reread(&self.memory, &[goroutine.address]).map_err(|fault| self.memory_failed(fault))?;
        self.still_the_same()?;
        Ok(after.first().copied().flatten().is_some_and(|after| stands_still(goroutine, &after)))
    }
}
