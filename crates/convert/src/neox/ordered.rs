//! Work on many threads whose results come in the order of what it was done on.
//!
//! ```text
//! producer (one thread)        what is to be done, batch by batch
//!   -> workers (any order)     the work
//!   -> consumer (the caller)   the results, in the producer's order
//! ```
//!
//! Queues are bounded by number and by bytes, so that memory grows neither with the source nor with the
//! size of one document. Where the consumer ends early, the threads end at their next batch.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use crate::error::{Error, Result};
use crate::pipeline::POLL;

/// Bytes of batches between producer and consumer; a larger batch is there alone.
const BYTES_BETWEEN: usize = 64 << 20;

/// Takes a batch and its size in bytes; an error means that nobody wants another.
pub(super) type Put<'a, B> = dyn FnMut(B, usize) -> Result<()> + 'a;

/// Runs `work` on all that `produce` puts, on `workers` threads, and hands the results to `consume`.
///
/// # Errors
/// The first one in the producer's order, of `produce`, `work` or `consume`;
/// [`crate::ErrorKind::Interrupted`] once the flag is set.
pub(super) fn run<B: Send + 'static, T: Send + 'static>(
    produce: impl FnOnce(&mut Put<'_, B>) -> Result<()> + Send + 'static,
    work: impl Fn(B) -> Result<T> + Send + Sync + 'static,
    workers: usize,
    cancel: &AtomicBool,
    mut consume: impl FnMut(T) -> Result<()>,
) -> Result<()> {
    let workers = workers.max(1);
    let (jobs, todo) = sync_channel::<Job<B, T>>(2 * workers);
    let (slots, order) = sync_channel::<Slot<T>>(4 * workers);
    let room: Arc<Room> = Arc::default();
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
        let result = produce(&mut put);
        // Without this mark a dead thread would look like an end.
        let _ = slots.send(Slot::End(result));
    });
    let _closing = Closing(&room);
    loop {
        match wait(&order, cancel)? {
            Slot::Batch(result, bytes) => {
                consume(wait(&result, cancel)??)?;
                room.give_back(bytes);
            }
            // The producer may have noticed first that it shall stop.
            Slot::End(Err(_)) if cancel.load(Ordering::Relaxed) => return Err(Error::interrupted()),
            Slot::End(result) => return result,
        }
    }
}

struct Job<B, T> {
    batch: B,
    reply: SyncSender<Result<T>>,
}

/// A place in the order.
enum Slot<T> {
    /// The result of a batch of so many bytes, now or later.
    Batch(Receiver<Result<T>>, usize),
    End(Result<()>),
}

fn run_worker<B, T>(todo: &Mutex<Receiver<Job<B, T>>>, work: &impl Fn(B) -> Result<T>) {
    loop {
        let next = todo.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Job { batch, reply }) = next else { return };
        // A consumer that is gone needs no answer.
        let _ = reply.send(work(batch));
    }
}

fn wait<V>(queue: &Receiver<V>, cancel: &AtomicBool) -> Result<V> {
    loop {
        if cancel.load(Ordering::Relaxed) {
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

/// How many bytes are between producer and consumer.
#[derive(Default)]
struct Room {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    taken: usize,
    is_closed: bool,
}

impl Room {
    /// Waits until there is room for `bytes`, or for any number if nothing is there.
    fn take(&self, bytes: usize) -> Result<()> {
        let is_full = |state: &mut State| {
            !state.is_closed && state.taken > 0 && state.taken + bytes > BYTES_BETWEEN
        };
        let state = self.changed.wait_while(self.lock(), is_full);
        let mut state = state.unwrap_or_else(PoisonError::into_inner);
        if state.is_closed {
            return Err(Error::interrupted());
        }
        state.taken += bytes;
        Ok(())
    }

    fn give_back(&self, bytes: usize) {
        self.lock().taken -= bytes;
        self.changed.notify_one();
    }

    fn close(&self) {
        self.lock().is_closed = true;
        self.changed.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends the producer's wait when the consumer ends, however it does.
struct Closing<'a>(&'a Room);

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        self.0.close();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::time::Duration;

    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn results_come_in_the_order_of_the_source() {
        for workers in [1, 4] {
            let mut seen = Vec::new();
            run(
                |put| (0..500_u64).try_for_each(|n| put(n, 10)),
                |n| {
                    // Later ones would overtake.
                    thread::sleep(Duration::from_micros(500 - n));
                    Ok(n)
                },
                workers,
                &AtomicBool::new(false),
                |n| {
                    seen.push(n);
                    Ok(())
                },
            )
            .unwrap();
            assert!(seen.iter().copied().eq(0..500), "{seen:?}");
        }
    }

    #[test]
    fn the_first_error_in_order_is_the_error() {
        let fail = |n: u64| Error::invalid(format!("number {n}"), "nothing");
        let mut seen = 0;
        let result = run(
            move |put| {
                (0..9_u64).try_for_each(|n| put(n, 1))?;
                Err(fail(9))
            },
            move |n| if n == 5 || n == 7 { Err(fail(n)) } else { Ok(n) },
            4,
            &AtomicBool::new(false),
            |_| {
                seen += 1;
                Ok(())
            },
        );
        assert_eq!((seen, result.unwrap_err().to_string().as_str()), (5, "number 5; nothing"));

        let result = run(
            move |put| {
                put(1, 1)?;
                Err(fail(9))
            },
            Ok,
            1,
            &AtomicBool::new(false),
            |_| Ok(()),
        );
        assert_eq!(result.unwrap_err().to_string(), "number 9; nothing");
    }

    #[test]
    fn a_thread_that_dies_is_no_end() {
        let died = run(
            |put| put(1, 1),
            |_: i32| -> Result<()> { panic!("of the test") },
            1,
            &AtomicBool::new(false),
            |()| Ok(()),
        );
        assert_eq!(died.unwrap_err().kind(), ErrorKind::Internal);
    }

    #[test]
    fn the_producer_waits_for_room_and_ends_with_the_consumer() {
        let produced = Arc::new(AtomicUsize::new(0));
        let ended = Arc::new(AtomicBool::new(false));
        let (count, end) = (Arc::clone(&produced), Arc::clone(&ended));
        let cancel = AtomicBool::new(false);
        let mut most = 0;
        let result = run(
            move |put| {
                let result = (0..100).try_for_each(|n| {
                    count.fetch_add(1, Ordering::SeqCst);
                    // Two of these do not fit.
                    put(n, BYTES_BETWEEN / 2 + 1)
                });
                end.store(true, Ordering::SeqCst);
                result
            },
            Ok,
            2,
            &cancel,
            |n| {
                thread::sleep(Duration::from_millis(5));
                most = most.max(produced.load(Ordering::SeqCst) - n);
                if n == 10 {
                    cancel.store(true, Ordering::SeqCst);
                }
                Ok(())
            },
        );
        assert_eq!(result.unwrap_err().kind(), ErrorKind::Interrupted);
        assert!(most <= 2, "{most} were produced ahead");
        let begun = std::time::Instant::now();
        while !ended.load(Ordering::SeqCst) {
            assert!(begun.elapsed() < Duration::from_secs(10), "the producer goes on");
            thread::sleep(Duration::from_millis(1));
        }
        assert!(produced.load(Ordering::SeqCst) < 20);
    }
}
