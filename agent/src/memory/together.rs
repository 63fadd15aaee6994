//! Reading very much of a live process: in pieces, several at the same time.
//!
//! Who reads little does it alone: a thread costs more than it saves.

use super::{Fault, Memory};

/// Items that are worth further threads.
const MANY: usize = 64 << 10;
/// Threads at most: a few use up what the memory can give.
const MAX_THREADS: usize = 4;

/// As many threads as may run at the same time, and `most` at most.
pub fn threads(most: usize) -> usize {
    std::thread::available_parallelism().map_or(1, usize::from).min(most)
}

/// Does `work` for `items` in pieces of so many, and hands each result on, in the order of the items.
pub fn in_pieces<I: Sync, T: Send, E: From<Fault>>(
    memory: &dyn Memory,
    items: &[I],
    piece: usize,
    work: impl Fn(&dyn Memory, &[I]) -> Result<T, Fault> + Sync,
    mut take: impl FnMut(&[I], T) -> Result<(), E>,
) -> Result<(), E> {
    let piece = piece.max(1);
    let together = memory.for_threads().filter(|_| items.len() >= MANY);
    let Some(together) = together else {
        return items.chunks(piece).try_for_each(|piece| take(piece, work(memory, piece)?));
    };
    for wave in items.chunks(piece.saturating_mul(threads(MAX_THREADS))) {
        let mut pieces = wave.chunks(piece);
        let first = pieces.next().unwrap_or_default();
        let work = &work;
        std::thread::scope(|scope| {
            let others: Vec<_> = pieces.map(|piece| (piece, scope.spawn(move || work(together, piece)))).collect();
            take(first, work(together, first)?)?;
            others.into_iter().try_for_each(|(piece, thread)| match thread.join() {
                Ok(done) => take(piece, done?),
                Err(panic) => std::panic::resume_unwind(panic),
            })
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::process::ProcessMemory;

    #[test]
    fn results_come_in_order_whoever_did_the_work() {
        let memory = ProcessMemory::new(std::process::id());
        for count in [0, 1, 1000, MANY + 17] {
            let words: Vec<u64> = (0..count as u64).collect();
            let mut found = Vec::new();
            let read = |memory: &dyn Memory, words: &[u64]| {
                words
                    .iter()
                    .map(|word| memory.read_u64(std::ptr::from_ref(word).addr() as u64))
                    .collect::<Result<Vec<_>, _>>()
            };
            let done: Result<(), Fault> = in_pieces(&memory, &words, 1024, read, |piece, words| {
                assert_eq!(piece, words);
                found.extend(words);
                Ok(())
            });
            assert_eq!((done, found), (Ok(()), words));
        }
        let bad = vec![8u64; MANY];
        let done: Result<(), Fault> =
            in_pieces(&memory, &bad, 1024, |memory, piece| memory.read_u64(piece[0]), |_, _| Ok(()));
        assert_eq!(done, Err(Fault::Unmapped { address: 8, len: 8 }));
    }
}
