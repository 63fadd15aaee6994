//! Work that can take longer than a watch may wait: on a thread of its own, one piece at a time.

use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

/// See the module.
#[derive(Debug)]
pub(super) struct Aside<T> {
    under_way: Option<Receiver<T>>,
}

impl<T> Default for Aside<T> {
    fn default() -> Self {
        Self { under_way: None }
    }
}

impl<T: Send + 'static> Aside<T> {
    /// Whether something was begun that has not been taken.
    pub(super) fn is_busy(&self) -> bool {
        self.under_way.is_some()
    }

    /// Begins something, on a thread of this name.
    pub(super) fn begin(&mut self, name: &str, work: impl FnOnce() -> T + Send + 'static) {
        let (sender, receiver) = channel();
        let run = move || {
            // Of a watch that has ended nobody asks any more.
            let _ = sender.send(work());
        };
        match std::thread::Builder::new().name(name.to_owned()).spawn(run) {
            Ok(_) => self.under_way = Some(receiver),
            Err(error) => log::warn!("no thread {name}: {error}"),
        }
    }

    /// What has come of it, once something has; waits that long for it.
    pub(super) fn take(&mut self, wait: Duration) -> Option<T> {
        match self.under_way.as_ref()?.recv_timeout(wait) {
            Ok(done) => {
                self.under_way = None;
                Some(done)
            }
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => {
                self.under_way = None;
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_piece_of_work_is_taken_once_and_one_that_fails_never() {
        let mut aside = Aside::default();
        assert_eq!((aside.is_busy(), aside.take(Duration::ZERO)), (false, None));
        aside.begin("seven", || 7);
        assert!(aside.is_busy());
        assert_eq!((aside.take(Duration::from_secs(60)), aside.is_busy()), (Some(7), false));
        aside.begin("fails", || panic!("as it is to"));
        assert_eq!((aside.take(Duration::from_secs(60)), aside.is_busy()), (None, false));
    }
}
