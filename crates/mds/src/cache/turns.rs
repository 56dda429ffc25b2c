//! No more threads at work than there are processors.
//!
//! The shards of a first batch all arrive at about the same time. Unpacked two at a time on two
//! processors, the first ones are written to the disk while the others are unpacked, and none loses
//! the second-level cache, which holds one decompressor's window, to another.

use std::sync::{Condvar, Mutex};
use std::thread::available_parallelism;
use std::time::Duration;

use super::relock;
use crate::error::Result;
use crate::storage::Stop;

/// How soon those who wait see that they are to stop.
const PAUSE: Duration = Duration::from_millis(20);

/// A number of turns, each taken by one thread at a time.
#[derive(Debug)]
pub(super) struct Turns {
    free: Mutex<usize>,
    given_back: Condvar,
}

impl Turns {
    pub(super) fn one_for_each_processor() -> Self {
        let processors = available_parallelism().map_or(1, usize::from);
        Self { free: Mutex::new(processors), given_back: Condvar::new() }
    }

    /// Waits for a turn, which ends when it is dropped. Whoever has one waits for nobody, so all come.
    ///
    /// # Errors
    /// If the caller is to stop meanwhile.
    pub(super) fn wait(&self, stop: &Stop) -> Result<Turn<'_>> {
        let mut free = relock(&self.free);
        while *free == 0 {
            stop.check()?;
            free = self.given_back.wait_timeout(free, PAUSE).unwrap_or_else(|e| e.into_inner()).0;
        }
        *free -= 1;
        Ok(Turn(self))
    }
}

/// One of the [`Turns`].
#[derive(Debug)]
pub(super) struct Turn<'a>(&'a Turns);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        *relock(&self.0.free) += 1;
        self.0.given_back.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;

    use super::*;

    #[test]
    fn no_more_than_there_are_turns_are_at_work() {
        let turns = Turns { free: Mutex::new(2), given_back: Condvar::new() };
        let (at_work, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        let _turn = turns.wait(&Stop::new()).unwrap();
                        let now = at_work.fetch_add(1, Ordering::SeqCst) + 1;
                        most.fetch_max(now, Ordering::SeqCst);
                        thread::yield_now();
                        at_work.fetch_sub(1, Ordering::SeqCst);
                    }
                });
            }
        });
        assert_eq!(most.into_inner(), 2);
        assert_eq!(*relock(&turns.free), 2);
    }
}
