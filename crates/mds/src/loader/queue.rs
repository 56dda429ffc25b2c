//! What a loader and its threads share: the batches of the epoch, which of them are taken, done
//! and delivered.

use std::any::Any;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use super::ahead::Ahead;
use super::ids::Epoch;
use super::picks::{Held, Picks};
use crate::cache::relock;
use crate::dataset::StreamingDataset;
use crate::error::{Error, ErrorKind, Result};
use crate::storage::Stop;

/// Makes a batch of its samples.
pub(super) type Make<B> = Box<dyn Fn(&mut Picks<'_>) -> Result<B> + Send + Sync>;

pub(super) struct Shared<B> {
    pub(super) dataset: Arc<StreamingDataset>,
    make: Make<B>,
    /// Batches that may be taken beyond those delivered.
    prefetch: usize,
    pub(super) stop: Stop,
    queue: Mutex<Queue<B>>,
    /// There may be something to do for workers.
    work: Condvar,
    /// There may be something to do for fetchers.
    fetch: Condvar,
    /// The batch that is waited for is done.
    done: Condvar,
}

pub(super) struct Queue<B> {
    /// `None` between epochs.
    pub(super) epoch: Option<Epoch>,
    /// The next batch for a worker.
    next: usize,
    done: BTreeMap<usize, Result<B>>,
    pub(super) ahead: Ahead,
    /// Workers and fetchers that wait. Where nobody does, waking would be a system call for nothing.
    idle_workers: usize,
    idle_fetchers: usize,
    /// Whether somebody waits for the batch that is to be delivered next.
    awaited: bool,
}

impl<B> Shared<B> {
    pub(super) fn new(dataset: Arc<StreamingDataset>, make: Make<B>, prefetch: usize) -> Self {
        let queue = Queue {
            epoch: None,
            next: 0,
            done: BTreeMap::new(),
            ahead: Ahead::default(),
            idle_workers: 0,
            idle_fetchers: 0,
            awaited: false,
        };
        Self {
            dataset,
            make,
            prefetch,
            stop: Stop::new(),
            queue: Mutex::new(queue),
            work: Condvar::new(),
            fetch: Condvar::new(),
            done: Condvar::new(),
        }
    }

    /// Has all threads return soon.
    pub(super) fn stop(&self) {
        self.stop.raise();
        // Taking the lock keeps a thread from missing the call between its check and its wait.
        drop(self.lock());
        self.work.notify_all();
        self.fetch.notify_all();
        self.done.notify_all();
    }

    pub(super) fn has_epoch(&self) -> bool {
        self.lock().epoch.is_some()
    }

    pub(super) fn begin_epoch(&self, epoch: Epoch) {
        let mut queue = self.lock();
        queue.epoch = Some(epoch);
        queue.next = 0;
        queue.done.clear();
        queue.ahead = Ahead::default();
        drop(queue);
        self.work.notify_all();
        self.fetch.notify_all();
    }

    pub(super) fn end_epoch(&self) {
        let mut queue = self.lock();
        queue.epoch = None;
        queue.ahead = Ahead::default();
    }

    /// Samples of this epoch handed out, without padding; `None` if that was all of them.
    pub(super) fn samples_delivered(&self) -> Option<u64> {
        let mut queue = self.lock();
        let Some(epoch) = &mut queue.epoch else { return Some(0) };
        (!epoch.is_over()).then(|| epoch.samples_delivered())
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Queue<B>> {
        relock(&self.queue)
    }

    /// Waits until the fetchers may look further ahead; the loader's drop or an error ends it too.
    pub(super) fn wait_to_fetch<'a>(
        &self,
        mut queue: MutexGuard<'a, Queue<B>>,
    ) -> MutexGuard<'a, Queue<B>> {
        queue.idle_fetchers += 1;
        let mut queue = self.fetch.wait(queue).unwrap_or_else(|poisoned| poisoned.into_inner());
        queue.idle_fetchers -= 1;
        queue
    }

    /// Makes batches until the loader goes away.
    pub(super) fn work(&self) {
        let mut held = Held::of(&self.dataset);
        let mut queue = self.lock();
        while !self.stop.is_raised() {
            let Some((number, ids)) = queue.claim(self.prefetch) else {
                queue.idle_workers += 1;
                queue = self.work.wait(queue).unwrap_or_else(|poisoned| poisoned.into_inner());
                queue.idle_workers -= 1;
                continue;
            };
            drop(queue);
            let made = self.make(&ids, &mut held);
            queue = self.lock();
            queue.done.insert(number, made);
            let next = queue.epoch.as_ref().map(Epoch::delivered);
            if queue.awaited && next == Some(number) {
                self.done.notify_one();
            }
        }
    }

    /// The next batch in order, made by the workers; `None` at the end of the epoch.
    pub(super) fn take(&self, all_gone: impl Fn() -> bool) -> Option<Result<B>> {
        let mut queue = self.lock();
        loop {
            let epoch = queue.epoch.as_mut()?;
            let next = epoch.delivered();
            if let Some(made) = queue.done.remove(&next) {
                return Some(self.deliver(queue, made));
            }
            if queue.epoch.as_mut()?.is_over() {
                return None;
            }
            let pause = Duration::from_secs(1);
            queue.awaited = true;
            queue = self.done.wait_timeout(queue, pause).unwrap_or_else(|e| e.into_inner()).0;
            queue.awaited = false;
            if all_gone() {
                return Some(Err(Error::new(
                    ErrorKind::Caller,
                    "the threads of the loader have ended early",
                    "make a new loader",
                )));
            }
        }
    }

    /// The next batch in order, made in this thread; `None` at the end of the epoch.
    pub(super) fn make_here(&self, held: &mut Held) -> Option<Result<B>> {
        let (_, ids) = self.lock().claim(1)?;
        // The order of the epoch may just have taken its time, and samples at hand are read without a wait.
        let made = self.stop.check().and_then(|()| self.make(&ids, held));
        Some(self.deliver(self.lock(), made))
    }

    fn deliver(&self, mut queue: MutexGuard<'_, Queue<B>>, made: Result<B>) -> Result<B> {
        if made.is_ok() {
            let Queue { epoch: Some(epoch), ahead, done, .. } = &mut *queue else { return made };
            epoch.deliver();
            ahead.release(epoch.delivered());
            // As long as many batches are ready there is no hurry: a worker that is woken for each
            // of them spends its time on waking.
            let ready = done.len();
            let work = queue.idle_workers > 0 && ready <= self.prefetch / 2;
            let fetch = queue.idle_fetchers > 0;
            drop(queue);
            if work {
                self.work.notify_all();
            }
            if fetch {
                self.fetch.notify_all();
            }
        }
        made
    }

    fn make(&self, ids: &[u64], held: &mut Held) -> Result<B> {
        let mut picks = Picks::new(&self.dataset, ids, &self.stop, held);
        // Nothing of this thread's is used after a panic of the caller's code.
        catch_unwind(AssertUnwindSafe(|| (self.make)(&mut picks)))
            .unwrap_or_else(|panic| Err(panicked("batch", panic.as_ref())))
    }
}

impl<B> Queue<B> {
    /// The next batch to be made and the numbers of its samples, if there is one within reach.
    fn claim(&mut self, prefetch: usize) -> Option<(usize, Arc<[u64]>)> {
        let epoch = self.epoch.as_mut()?;
        if self.next >= epoch.delivered().saturating_add(prefetch) {
            return None;
        }
        let ids = Arc::clone(epoch.batch(self.next)?);
        self.next += 1;
        Some((self.next - 1, ids))
    }
}

/// The error for a panic of the caller's function `which`.
pub(super) fn panicked(which: &str, panic: &(dyn Any + Send)) -> Error {
    let message = panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned());
    Error::new(
        ErrorKind::Caller,
        format!("the {which} function of the loader panicked: {message}"),
        "mend the function or leave the sample out",
    )
}
