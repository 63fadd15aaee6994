//! A finalizer, or a cleanup, that stands in the program's code. One goroutine runs all finalizers, one after the other, and a few
//! run cleanups: what has one is not freed until they get on.

use super::Standing;
use crate::cause::wait::Doing;

/// What runs finalizers (src/runtime/mfinal.go, until Go 1.24 and since) and cleanups (src/runtime/mcleanup.go, Go 1.25 and later).
pub const RUNNERS: [&str; 3] = ["runtime.runfinq", "runtime.runFinalizers", "runtime.runCleanups"];

pub(super) fn sign(standing: &Standing<'_>) -> Option<String> {
    let runs = RUNNERS.iter().any(|runner| standing.passes(runner));
    if !runs || standing.doing == Doing::Runs {
        return None;
    }
    let unmoved = standing.unmoved(1)?;
    Some(format!(
        "For {} s a finalizer or cleanup has not returned: those of other objects wait for it, and their memory is not freed.",
        unmoved.seconds
    ))
}
