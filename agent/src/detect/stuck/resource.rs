//! They wait for something that a library hands out, and whose wait is not work: for a while nobody got any.

use super::Standing;

/// Thresholds that have to pass without anybody getting it.
const THRESHOLDS: u64 = 3;

pub(super) fn sign(standing: &Standing<'_>) -> Option<String> {
    let what = standing.resource().filter(|_| standing.wait.is_some())?;
    let unmoved = standing.unmoved(THRESHOLDS)?;
    Some(match unmoved.count {
        1 => format!("For {} s the goroutine that waits for {what} has not got it.", unmoved.seconds),
        count => format!("For {} s none of the {count} goroutines that wait for {what} has got it.", unmoved.seconds),
    })
}
