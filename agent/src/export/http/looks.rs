//! Looks at processes for profiles, a few at once. One whose memory does not answer holds up nobody for longer than a look may
//! take, and is not looked at again before it has answered.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// Looks at once.
const AT_ONCE: usize = 2;

/// How long a look waits for its turn, and how long it may take.
const WAIT_FOR_TURN: Duration = Duration::from_secs(10);
const WITHIN: Duration = Duration::from_secs(30);

/// Processes that may be waited for, each by a thread, before no further one is looked at.
const MAX_HUNG: usize = 16;

/// See the module. Its clones are the same.
#[derive(Clone, Debug)]
pub struct Looks {
    turns: Arc<Semaphore>,
    hung: Arc<Mutex<HashSet<u32>>>,
    within: Duration,
}

/// Why there is no look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoLook {
    /// Others have all turns.
    Busy,
    /// The process has not answered in time, this time or an earlier one.
    Hung,
    /// A bug: the log has its message.
    Panicked,
}

impl Default for Looks {
    fn default() -> Self {
        Self { turns: Arc::new(Semaphore::new(AT_ONCE)), hung: Arc::default(), within: WITHIN }
    }
}

impl Looks {
    /// Looks at a process, on a thread for it. It goes on when nobody waits for this any more.
    pub async fn look<T: Send + 'static>(
        &self,
        pid: u32,
        look: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, NoLook> {
        let here = self.clone();
        let looking = tokio::spawn(async move { here.take_turn(pid, look).await });
        looking.await.unwrap_or(Err(NoLook::Panicked))
    }

    async fn take_turn<T: Send + 'static>(
        &self,
        pid: u32,
        look: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, NoLook> {
        if self.hung.lock().contains(&pid) {
            return Err(NoLook::Hung);
        }
        let Ok(Ok(_turn)) = timeout(WAIT_FOR_TURN, self.turns.acquire()).await else { return Err(NoLook::Busy) };
        if self.hung.lock().len() >= MAX_HUNG {
            return Err(NoLook::Busy);
        }
        let mut looking = tokio::task::spawn_blocking(look);
        match timeout(self.within, &mut looking).await {
            Ok(looked) => looked.map_err(|_| NoLook::Panicked),
            Err(_) => {
                log::warn!("pid {pid} could not be looked at within {:?}", self.within);
                self.hung.lock().insert(pid);
                let here = self.clone();
                tokio::spawn(async move {
                    // Whatever it says now, it answers.
                    let _ = looking.await;
                    here.hung.lock().remove(&pid);
                });
                Err(NoLook::Hung)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn a_process_that_does_not_answer_takes_a_turn_for_a_while_and_no_second_one_until_it_has() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        runtime.expect("a runtime").block_on(async {
            let looks = Looks { within: Duration::from_millis(100), ..Looks::default() };
            let (answer, never) = channel::<()>();
            let hanging = looks.clone();
            let hanging = tokio::spawn(async move { hanging.look(7, move || never.recv().is_err()).await });
            tokio::task::yield_now().await;
            let looks = Looks { within: WITHIN, ..looks };
            assert_eq!(looks.look(8, || 8).await, Ok(8), "there is another turn");
            assert_eq!(hanging.await.expect("no panic"), Err(NoLook::Hung));
            assert_eq!(looks.look(7, || 7).await, Err(NoLook::Hung), "it still hangs");
            let both = tokio::join!(looks.look(8, || 8), looks.look(9, || 9));
            assert_eq!(both, (Ok(8), Ok(9)), "both turns are free");
            drop(answer);
            while looks.look(7, || 7).await == Err(NoLook::Hung) {
                tokio::task::yield_now().await;
            }
            assert_eq!(looks.look(7, || panic!("on purpose")).await, Err::<(), _>(NoLook::Panicked));
        });
    }
}
