//! From a dataset to batches: threads fetch shards ahead, decode and map samples, and batches come
//! out in the exact order of the [`Plan`](crate::order::Plan), however many threads there are.
//!
//! ```no_run
//! use mds::{DatasetOptions, Loader, LoaderOptions, Stream, StreamingDataset};
//!
//! # fn main() -> mds::Result<()> {
//! let mut options = DatasetOptions::default();
//! options.order.batch_size = Some(8);
//! options.order.shuffle = true;
//! let stream = Stream::cached("s3://bucket/c4", "/tmp/c4").split("train");
//! let dataset = StreamingDataset::open(vec![stream], options)?;
//!
//! let words = |sample: mds::Sample| Ok(sample.str("text")?.split_whitespace().count());
//! let mut loader = Loader::new(dataset, LoaderOptions::default(), words);
//! while let Some(batch) = loader.next_batch()? {
//!     println!("{:?}", batch.items);
//!     let checkpoint = loader.checkpoint(); // resumes after this batch
//! #   drop(checkpoint);
//! }
//! // The epoch is over; the next call begins the next one.
//! # Ok(())
//! # }
//! ```

mod ahead;
mod queue;

use std::fmt;
use std::sync::Arc;
use std::thread::JoinHandle;

use serde::{Deserialize, Serialize};

use crate::dataset::StreamingDataset;
use crate::error::{Error, ErrorKind, Result};
use crate::order::State;
use crate::shard::Sample;
use queue::{Epoch, Shared};

/// Threads that fetch shards ahead of use, where shards must be fetched.
const FETCHING_THREADS: usize = 4;

/// How a loader works; none of it changes what it delivers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoaderOptions {
    /// Threads that read and map samples. 0 does it in the thread that asks for batches.
    pub num_workers: usize,
    /// Batches that the threads may prepare before they are asked for, over all threads.
    pub prefetch_batches: usize,
}

impl Default for LoaderOptions {
    fn default() -> Self {
        Self { num_workers: 2, prefetch_batches: 4 }
    }
}

/// The samples of one step of one rank.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch<T> {
    /// The numbers of the samples; padding is left out, so a last batch may be short.
    pub ids: Vec<u64>,
    /// What the map function made of them.
    pub items: Vec<T>,
}

/// Where a loader stands, and in which dataset: what a checkpoint stores.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// The position, with the reference's field names.
    #[serde(flatten)]
    pub state: State,
    /// The [fingerprint](StreamingDataset::index_fingerprint) of the dataset, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index_fingerprint: Option<String>,
}

impl From<State> for Checkpoint {
    /// A position in a dataset that is not named, as the reference stores it.
    fn from(state: State) -> Self {
        Self { state, index_fingerprint: None }
    }
}

/// Delivers the batches of one rank, epoch after epoch.
///
/// Dropping a loader ends its threads and waits for them; a map function that is running is
/// waited for.
pub struct Loader<T> {
    shared: Arc<Shared<T>>,
    options: LoaderOptions,
    threads: Vec<JoinHandle<()>>,
    /// The state that the run was resumed from.
    resumed: Option<State>,
    epoch: u64,
    /// Samples of the epoch, over all ranks, that came before this loader began it.
    offset: u64,
    /// Set by the first error: what comes after it would be out of order.
    failed: bool,
}

impl<T> fmt::Debug for Loader<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loader")
            .field("options", &self.options)
            .field("epoch", &self.epoch)
            .field("offset", &self.offset)
            .finish_non_exhaustive()
    }
}

impl<T: Send + 'static> Loader<T> {
    /// A loader at the beginning of epoch 0. `map` runs on the loader's threads, once for each
    /// sample; its first error is returned instead of the batch. Threads start with the first
    /// batch that is asked for.
    pub fn new<F>(dataset: Arc<StreamingDataset>, options: LoaderOptions, map: F) -> Self
    where
        F: Fn(Sample) -> Result<T> + Send + Sync + 'static,
    {
        Self::at(dataset, options, Box::new(map), None)
    }

    /// A loader that delivers what the one that stood at `checkpoint` had not delivered yet. The
    /// world and the number of threads may differ from that one's.
    ///
    /// # Errors
    /// [`InvalidArgument`](ErrorKind::InvalidArgument) if the checkpoint names another dataset.
    pub fn resume<F>(
        dataset: Arc<StreamingDataset>,
        options: LoaderOptions,
        checkpoint: impl Into<Checkpoint>,
        map: F,
    ) -> Result<Self>
    where
        F: Fn(Sample) -> Result<T> + Send + Sync + 'static,
    {
        let Checkpoint { state, index_fingerprint } = checkpoint.into();
        if let Some(saved) = index_fingerprint.filter(|s| s != dataset.index_fingerprint()) {
            return Err(Error::invalid(
                format!(
                    "the checkpoint was made with another dataset (index {saved}) \
                     than this one (index {})",
                    dataset.index_fingerprint()
                ),
                "resume with the dataset of the checkpoint or start afresh",
            ));
        }
        Ok(Self::at(dataset, options, Box::new(map), Some(state)))
    }

    fn at(
        dataset: Arc<StreamingDataset>,
        options: LoaderOptions,
        map: queue::Map<T>,
        resumed: Option<State>,
    ) -> Self {
        // A thread that finds nothing to do for want of room is no use.
        let prefetch = options.prefetch_batches.max(options.num_workers).max(1);
        Self {
            shared: Arc::new(Shared::new(dataset, map, prefetch)),
            options,
            threads: Vec::new(),
            epoch: resumed.map_or(0, |state| state.epoch),
            offset: resumed.map_or(0, |state| state.sample_in_epoch),
            resumed,
            failed: false,
        }
    }

    /// The next batch, or `None` once at the end of each epoch. Blocks until it is ready.
    ///
    /// # Errors
    /// The first error of the map function, of reading the batch's samples or of computing the
    /// epoch's order; a panic of the map function is one too. The loader then has stopped: make a
    /// new one from [`checkpoint`](Self::checkpoint), which stands before the failed batch.
    pub fn next_batch(&mut self) -> Result<Option<Batch<T>>> {
        if self.failed {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                "the loader has stopped after an error",
                "make a new one with Loader::resume",
            ));
        }
        let batch = self.advance();
        if batch.is_err() {
            self.failed = true;
            self.shared.stop();
        }
        batch
    }

    fn advance(&mut self) -> Result<Option<Batch<T>>> {
        if !self.shared.has_epoch() {
            self.begin_epoch()?;
        }
        loop {
            let next = match self.options.num_workers {
                0 => self.shared.make_here(),
                _ => self.shared.take(|| self.threads.iter().all(JoinHandle::is_finished)),
            };
            match next {
                // Only padding, before other batches of this rank.
                Some(Ok(batch)) if batch.ids.is_empty() => {}
                Some(batch) => return batch.map(Some),
                None => {
                    self.shared.end_epoch();
                    self.epoch += 1;
                    self.offset = 0;
                    return Ok(None);
                }
            }
        }
    }

    fn begin_epoch(&mut self) -> Result<()> {
        let dataset = &self.shared.dataset;
        let plan = dataset.plan();
        let place = plan.place(dataset.rank())?;
        let order = plan.epoch(self.epoch, self.offset, self.resumed.as_ref())?;
        let mut ids: Vec<i64> = order.rank_batches(place.node, place.rank).flatten().collect();
        // Batches at the end that are padding only are no batches of this rank.
        let used = ids.iter().rposition(|id| *id >= 0).map_or(0, |last| last + 1);
        ids.truncate(used.next_multiple_of(order.batch_size()));
        self.shared.begin_epoch(Epoch { ids, batch_size: order.batch_size() });
        if self.threads.is_empty() {
            self.start_threads()?;
        }
        Ok(())
    }

    fn start_threads(&mut self) -> Result<()> {
        let fetching = if self.shared.dataset.is_all_in_place() { 0 } else { FETCHING_THREADS };
        let workers = (0..self.options.num_workers).map(|i| (format!("mds-worker-{i}"), true));
        let fetchers = (0..fetching).map(|i| (format!("mds-fetch-{i}"), false));
        for (name, works) in workers.chain(fetchers) {
            let shared = Arc::clone(&self.shared);
            let run = move || if works { shared.work() } else { shared.fetch_ahead() };
            let thread = std::thread::Builder::new().name(name).spawn(run).map_err(|e| {
                Error::new(
                    ErrorKind::Io,
                    format!("cannot start a thread of the loader ({e})"),
                    "lower num_workers or raise the limit on threads",
                )
            })?;
            self.threads.push(thread);
        }
        Ok(())
    }
}

impl<T> Loader<T> {
    /// The position after the batches delivered so far: what was prepared ahead does not count.
    /// After the last batch of an epoch it is the start of the next one, whether or not the `None`
    /// between them was fetched; a loader resumed from there begins with the next epoch's batches.
    pub fn state(&self) -> State {
        let plan = self.shared.dataset.plan();
        let (epoch, offset) = match self.shared.samples_delivered() {
            // All ranks have had as many samples as this one: only the last batch may be short.
            Some(samples) => (self.epoch, self.offset + samples * plan.world().ranks() as u64),
            None => (self.epoch + 1, 0),
        };
        plan.state(epoch, offset, self.resumed.as_ref())
    }

    /// The [`state`](Self::state) together with the dataset's fingerprint.
    pub fn checkpoint(&self) -> Checkpoint {
        let fingerprint = self.shared.dataset.index_fingerprint().to_owned();
        Checkpoint { state: self.state(), index_fingerprint: Some(fingerprint) }
    }
}

impl<T> Drop for Loader<T> {
    fn drop(&mut self) {
        self.shared.stop();
        for thread in self.threads.drain(..) {
            // Panics of the map function are caught, so this has nothing to report.
            let _ = thread.join();
        }
    }
}
