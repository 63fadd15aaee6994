//! They wait for a lock, and for a while none of them has got it: whoever has it does not move either. A lock that changes hands
//! serves its waiters in turn (`sync.Mutex` hands over to the first of them once one has waited for a millisecond).

use super::Standing;
use crate::cause::wait::Wait;

pub(super) fn sign(standing: &Standing<'_>) -> Option<String> {
    if !matches!(standing.wait?, Wait::Mutex | Wait::RLock | Wait::Lock) {
        return None;
    }
    let unmoved = standing.unmoved(1)?;
    Some(match unmoved.count {
        1 => format!("For {} s the goroutine that waits for a lock here has not got it.", unmoved.seconds),
        count => {
            format!("For {} s none of the {count} goroutines that wait for a lock here has got it.", unmoved.seconds)
        }
    })
}
