//! Work on many threads whose results come in the order of what it was done on.
//!
//! ```text
//! producer (one thread)        what is to be done, batch by batch
//!   -> workers (any order)     the work
//!   -> Ordered::next           the results, in the producer's order
//! ```
//!
//! Queues are bounded by number and by bytes, so that memory grows neither with the source nor with the size of one
//! document. Dropping [`Ordered`] ends the threads: each stops at its next batch.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use crate::error::{Error, Result};

/// Bytes of batches that are put and whose results are not done with; a larger batch is there alone.
const BYTES_BETWEEN: usize = 64 << 20;

/// More than any machine has use for; a mistyped number shall not fill its memory.
pub(crate) const MOST_WORKERS: usize = 1024;

/// How long who waits takes to notice that it shall stop.
pub(crate) const POLL: Duration = Duration::from_millis(50);

/// Takes a batch and its size in bytes; an error means that nobody wants another.
pub(crate) type Put<'a, B> = dyn FnMut(B, usize) -> Result<()> + 'a;

/// The results of work that is under way.
pub(crate) struct Ordered<T> {
    order: Receiver<Slot<T>>,
    room: Arc<Room>,
    /// Bytes of the batch whose result was handed out last.
    last: usize,
    cancel: Arc<AtomicBool>,
}

/// A place in the order.
enum Slot<T> {
    /// The result of a batch of so many bytes, now or later.
    Batch(Receiver<T>, usize),
    /// Without this mark a dead thread would look like an end.
    End(Option<T>),
}

struct Job<B, T> {
    batch: B,
    reply: SyncSender<T>,
}

impl<T: Send + 'static> Ordered<T> {
    /// Runs `work` on all that `produce` puts, on `workers` threads, [`MOST_WORKERS`] at most. What `produce` returns, if
    /// anything, is the last result: why there are no more.
    pub(crate) fn start<B: Send + 'static>(
        produce: impl FnOnce(&mut Put<'_, B>) -> Option<T> + Send + 'static,
        work: impl Fn(B) -> T + Send + Sync + 'static,
        workers: usize,
        cancel: &Arc<AtomicBool>,
    ) -> Self {
        let workers = workers.clamp(1, MOST_WORKERS);
        let (jobs, todo) = sync_channel::<Job<B, T>>(2 * workers);
        let (slots, order) = sync_channel::<Slot<T>>(4 * workers);
        let room = Arc::new(Room::of(BYTES_BETWEEN));
        let (todo, work) = (Arc::new(Mutex::new(todo)), Arc::new(work));
        for _ in 0..workers {
            let (todo, work) = (Arc::clone(&todo), Arc::clone(&work));
            thread::spawn(move || run_worker(&todo, &*work));
        }
        let producers_room = Arc::clone(&room);
        thread::spawn(move || {
            let mut put = |batch, bytes| {
                let (reply, result) = sync_channel(1);
                producers_room.take(bytes)?;
                slots.send(Slot::Batch(result, bytes)).map_err(|_| Error::interrupted())?;
                jobs.send(Job { batch, reply }).map_err(|_| Error::interrupted())
            };
            let last = produce(&mut put);
            // Who is gone needs no end.
            let _ = slots.send(Slot::End(last));
        });
        Self { order, room, last: 0, cancel: Arc::clone(cancel) }
    }

    /// The next result; `None` after the last.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Interrupted`] once the cancel flag is set.
    pub(crate) fn next(&mut self) -> Result<Option<T>> {
        self.room.give_back(std::mem::take(&mut self.last));
        match self.wait(&self.order)? {
            Slot::Batch(result, bytes) => {
                self.last = bytes;
                self.wait(&result).map(Some)
            }
            // The producer may have noticed first that it shall stop.
            Slot::End(Some(_)) if self.cancel.load(Ordering::Relaxed) => Err(Error::interrupted()),
            Slot::End(last) => Ok(last),
        }
    }

    fn wait<V>(&self, queue: &Receiver<V>) -> Result<V> {
        loop {
            if self.cancel.load(Ordering::Relaxed) {
                return Err(Error::interrupted());
            }
            match queue.recv_timeout(POLL) {
                Ok(value) => return Ok(value),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(Error::internal("a thread of the work died"));
                }
            }
        }
    }
}

/// Ends the producer's wait.
impl<T> Drop for Ordered<T> {
    fn drop(&mut self) {
        self.room.close();
    }
}

fn run_worker<B, T>(todo: &Mutex<Receiver<Job<B, T>>>, work: &impl Fn(B) -> T) {
    loop {
        let next = todo.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Job { batch, reply }) = next else { return };
        // Who is gone needs no answer.
        let _ = reply.send(work(batch));
    }
}

/// Bytes that are between two threads, of which there is a limit; what is larger than that is there alone.
pub(crate) struct Room {
    limit: usize,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    taken: usize,
    is_closed: bool,
}

impl Room {
    pub(crate) fn of(limit: usize) -> Self {
        Self { limit, state: Mutex::default(), changed: Condvar::new() }
    }

    /// Waits until there is room for `bytes`, or for any number if nothing is there.
    ///
    /// # Errors
    /// [`ErrorKind::Interrupted`](crate::ErrorKind::Interrupted) once it is closed.
    pub(crate) fn take(&self, bytes: usize) -> Result<()> {
        let is_full = |state: &mut State| {
            !state.is_closed && state.taken > 0 && state.taken + bytes > self.limit
        };
        let state = self.changed.wait_while(self.lock(), is_full);
        let mut state = state.unwrap_or_else(PoisonError::into_inner);
        if state.is_closed {
            return Err(Error::interrupted());
        }
        state.taken += bytes;
        Ok(())
    }

    pub(crate) fn give_back(&self, bytes: usize) {
        self.lock().taken -= bytes;
        self.changed.notify_one();
    }

    /// Ends every wait.
    pub(crate) fn close(&self) {
        self.lock().is_closed = true;
        self.changed.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn results_come_in_the_order_of_the_source() {
        for workers in [1, 4] {
            let mut results = Ordered::start(
                |put| (0..500_u64).try_for_each(|n| put(n, 10)).err().map(|_| u64::MAX),
                |n| {
                    // Later ones would overtake.
                    thread::sleep(Duration::from_micros(500 - n));
                    n
                },
                workers,
                &Arc::default(),
            );
            for n in 0..500 {
                assert_eq!(results.next().unwrap(), Some(n));
            }
            assert_eq!(results.next().unwrap(), None);
        }
    }

    #[test]
    fn what_the_producer_ends_with_comes_last() {
        let mut results = Ordered::start(
            |put| put(1, 1).is_ok().then_some(9),
            |n| {
                thread::sleep(Duration::from_millis(5));
                n
            },
            4,
            &Arc::default(),
        );
        assert_eq!(results.next().unwrap(), Some(1));
        assert_eq!(results.next().unwrap(), Some(9));
    }

    #[test]
    fn a_thread_that_dies_is_no_end() {
        let work = |_: i32| panic!("of the test");
        let mut worker =
            Ordered::<()>::start(|put| put(1, 1).err().map(drop), work, 1, &Arc::default());
        assert_eq!(worker.next().unwrap_err().kind(), ErrorKind::Internal);
        let produce = |_: &mut Put<'_, ()>| panic!("of the test");
        let mut producer = Ordered::<()>::start(produce, drop, 1, &Arc::default());
        assert_eq!(producer.next().unwrap_err().kind(), ErrorKind::Internal);
    }

    #[test]
    fn the_producer_waits_for_room_and_ends_with_the_consumer() {
        let produced = Arc::new(AtomicUsize::new(0));
        let ended = Arc::new(AtomicBool::new(false));
        let (count, end) = (Arc::clone(&produced), Arc::clone(&ended));
        let cancel = Arc::<AtomicBool>::default();
        let mut results = Ordered::start(
            move |put| {
                let result = (0..100).try_for_each(|n| {
                    count.fetch_add(1, Ordering::SeqCst);
                    // Two of these do not fit.
                    put(n, BYTES_BETWEEN / 2 + 1)
                });
                end.store(true, Ordering::SeqCst);
                result.err().map(|_| usize::MAX)
            },
            |n| n,
            2,
            &cancel,
        );
        for n in 0..=10 {
            assert_eq!(results.next().unwrap(), Some(n));
            thread::sleep(Duration::from_millis(5));
            let ahead = produced.load(Ordering::SeqCst) - n;
            assert!(ahead <= 2, "{ahead} were produced ahead");
        }
        cancel.store(true, Ordering::SeqCst);
        assert_eq!(results.next().unwrap_err().kind(), ErrorKind::Interrupted);
        drop(results);
        let begun = std::time::Instant::now();
        while !ended.load(Ordering::SeqCst) {
            assert!(begun.elapsed() < Duration::from_secs(10), "the producer goes on");
            thread::sleep(Duration::from_millis(1));
        }
        assert!(produced.load(Ordering::SeqCst) < 20);
    }
}
