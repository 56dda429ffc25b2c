//! What a loader and its threads share: the batches of the epoch, which of them are taken, done
//! and delivered.

use std::any::Any;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use super::Batch;
use super::ahead::Ahead;
use crate::cache::relock;
use crate::dataset::StreamingDataset;
use crate::error::{Error, ErrorKind, Result};
use crate::shard::Sample;
use crate::storage::Stop;

pub(super) type Map<T> = Box<dyn Fn(Sample) -> Result<T> + Send + Sync>;

/// The ids of one rank in one epoch, `[batch][position]` flat; -1 is padding.
#[derive(Debug, Default)]
pub(super) struct Epoch {
    pub(super) ids: Vec<i64>,
    pub(super) batch_size: usize,
}

impl Epoch {
    fn batches(&self) -> usize {
        self.ids.len().checked_div(self.batch_size).unwrap_or(0)
    }

    fn batch(&self, batch: usize) -> &[i64] {
        &self.ids[batch * self.batch_size..(batch + 1) * self.batch_size]
    }
}

pub(super) struct Shared<T> {
    pub(super) dataset: Arc<StreamingDataset>,
    map: Map<T>,
    /// Batches that may be taken beyond those delivered.
    prefetch: usize,
    pub(super) stop: Stop,
    queue: Mutex<Queue<T>>,
    /// There may be something to do for workers and fetchers.
    work: Condvar,
    /// A batch is done.
    done: Condvar,
}

pub(super) struct Queue<T> {
    /// `None` between epochs.
    pub(super) epoch: Option<Arc<Epoch>>,
    /// The next batch for a worker.
    next: usize,
    /// Batches handed out.
    pub(super) delivered: usize,
    done: BTreeMap<usize, Result<Batch<T>>>,
    pub(super) ahead: Ahead,
}

impl<T> Shared<T> {
    pub(super) fn new(dataset: Arc<StreamingDataset>, map: Map<T>, prefetch: usize) -> Self {
        let queue = Queue {
            epoch: None,
            next: 0,
            delivered: 0,
            done: BTreeMap::new(),
            ahead: Ahead::default(),
        };
        Self {
            dataset,
            map,
            prefetch,
            stop: Stop::new(),
            queue: Mutex::new(queue),
            work: Condvar::new(),
            done: Condvar::new(),
        }
    }

    /// Has all threads return soon.
    pub(super) fn stop(&self) {
        self.stop.raise();
        // Taking the lock keeps a thread from missing the call between its check and its wait.
        drop(self.lock());
        self.work.notify_all();
        self.done.notify_all();
    }

    pub(super) fn has_epoch(&self) -> bool {
        self.lock().epoch.is_some()
    }

    pub(super) fn begin_epoch(&self, epoch: Epoch) {
        let mut queue = self.lock();
        queue.epoch = Some(Arc::new(epoch));
        (queue.next, queue.delivered) = (0, 0);
        queue.done.clear();
        queue.ahead = Ahead::default();
        drop(queue);
        self.work.notify_all();
    }

    pub(super) fn end_epoch(&self) {
        let mut queue = self.lock();
        queue.epoch = None;
        queue.delivered = 0;
        queue.ahead = Ahead::default();
    }

    /// Samples of this epoch handed out, without padding; `None` if that was all of them.
    pub(super) fn samples_delivered(&self) -> Option<u64> {
        let queue = self.lock();
        let Some(epoch) = &queue.epoch else { return Some(0) };
        let end = queue.delivered * epoch.batch_size;
        (queue.delivered < epoch.batches())
            .then(|| epoch.ids[..end].iter().filter(|id| **id >= 0).count() as u64)
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Queue<T>> {
        relock(&self.queue)
    }

    /// Waits for work; the loader's drop or an error wakes it too.
    pub(super) fn wait_for_work<'a>(
        &self,
        queue: MutexGuard<'a, Queue<T>>,
    ) -> MutexGuard<'a, Queue<T>> {
        self.work.wait(queue).unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Makes batches until the loader goes away.
    pub(super) fn work(&self) {
        let mut queue = self.lock();
        while !self.stop.is_raised() {
            let Some((epoch, batch)) = queue.claim(self.prefetch) else {
                queue = self.wait_for_work(queue);
                continue;
            };
            drop(queue);
            let made = self.make(epoch.batch(batch));
            queue = self.lock();
            queue.done.insert(batch, made);
            self.done.notify_all();
        }
    }

    /// The next batch in order, made by the workers; `None` at the end of the epoch.
    pub(super) fn take(&self, all_gone: impl Fn() -> bool) -> Option<Result<Batch<T>>> {
        let mut queue = self.lock();
        loop {
            let total = queue.epoch.as_ref().map_or(0, |epoch| epoch.batches());
            if queue.delivered >= total {
                return None;
            }
            let next = queue.delivered;
            if let Some(made) = queue.done.remove(&next) {
                return Some(self.deliver(queue, made));
            }
            let pause = Duration::from_secs(1);
            queue = self.done.wait_timeout(queue, pause).unwrap_or_else(|e| e.into_inner()).0;
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
    pub(super) fn make_here(&self) -> Option<Result<Batch<T>>> {
        let (epoch, batch) = self.lock().claim(1)?;
        let made = self.make(epoch.batch(batch));
        Some(self.deliver(self.lock(), made))
    }

    fn deliver(
        &self,
        mut queue: MutexGuard<'_, Queue<T>>,
        made: Result<Batch<T>>,
    ) -> Result<Batch<T>> {
        if made.is_ok() {
            queue.delivered += 1;
            let delivered = queue.delivered;
            queue.ahead.release(delivered);
            drop(queue);
            self.work.notify_all();
        }
        made
    }

    fn make(&self, ids: &[i64]) -> Result<Batch<T>> {
        let mut batch = Batch { ids: Vec::new(), items: Vec::new() };
        for id in ids.iter().filter_map(|id| u64::try_from(*id).ok()) {
            let sample = self.dataset.sample_until(id, &self.stop)?;
            // Nothing of this thread's is used after a panic of the caller's code.
            let mapped = catch_unwind(AssertUnwindSafe(|| (self.map)(sample)));
            let item = mapped.unwrap_or_else(|panic| Err(panicked(panic.as_ref())));
            batch.items.push(item.map_err(|e| match e.position().shard {
                Some(_) => e,
                None => e.at_sample(id),
            })?);
            batch.ids.push(id);
            self.stop.check()?;
        }
        Ok(batch)
    }
}

impl<T> Queue<T> {
    /// The next batch to be made, if there is one within reach.
    fn claim(&mut self, prefetch: usize) -> Option<(Arc<Epoch>, usize)> {
        let epoch = self.epoch.as_ref()?;
        if self.next >= epoch.batches().min(self.delivered.saturating_add(prefetch)) {
            return None;
        }
        self.next += 1;
        Some((Arc::clone(epoch), self.next - 1))
    }
}

fn panicked(panic: &(dyn Any + Send)) -> Error {
    let message = panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned());
    Error::new(
        ErrorKind::Caller,
        format!("the map function of the loader panicked: {message}"),
        "mend the function or leave the sample out",
    )
}
