//! Several goroutines of one `go` statement send, and for a while nobody has received from any of them. A single one may be a
//! generator, which rests in its send until somebody wants the next value.

use super::Standing;
use crate::cause::wait::Wait;

/// Thresholds that have to pass without a send coming to its end.
const THRESHOLDS: u64 = 3;

pub(super) fn sign(standing: &Standing<'_>) -> Option<String> {
    let unmoved =
        standing.unmoved(THRESHOLDS).filter(|unmoved| standing.wait == Some(Wait::Send) && unmoved.count > 1)?;
    Some(format!(
        "For {} s nobody has received from any of the {} goroutines that send here.",
        unmoved.seconds, unmoved.count
    ))
}
