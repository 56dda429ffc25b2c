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
//!
//! Tokens of samples that all have one length come as one buffer for each batch, which is used
//! again:
//!
//! ```no_run
//! use mds::{BatchLoader, Checkpoint, LoaderOptions, Rows};
//!
//! # fn main() -> mds::Result<()> {
//! # let dataset = mds::StreamingDataset::open(vec![], Default::default())?;
//! # let saved = String::new();
//! let options = LoaderOptions::default();
//! let loader = BatchLoader::<Rows<i32>>::rows(dataset, options, "tokens", 2048)?;
//! let mut loader = loader.resumed_at(Checkpoint::from_json(&saved)?)?;
//! while let Some(batch) = loader.next_batch()? {
//!     let tokens: &[i32] = batch.data(); // [samples, 2048]
//! #   _ = tokens;
//! }
//! let saved = loader.checkpoint().to_json()?;
//! # drop(saved);
//! # Ok(())
//! # }
//! ```
//!
//! What the reference calls `state_dict` is [`BatchLoader::checkpoint`], and its `load_state_dict`
//! is [`BatchLoader::resumed_at`]. Each reads what the other saved, and the world may change in
//! between.

mod ahead;
mod checkpoint;
mod ids;
mod picks;
mod queue;
mod rows;

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;

use crate::dataset::StreamingDataset;
use crate::error::{Error, ErrorKind, Result};
use crate::order::{EpochOrder, State};
use crate::shard::Sample;
pub use checkpoint::Checkpoint;
use ids::Epoch;
use picks::Held;
pub use picks::Picks;
use queue::{Make, Shared, panicked};
use rows::Gather;
pub use rows::{Number, Rows};

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

/// Delivers the batches of one rank, epoch after epoch, each made of its samples one by one.
pub type Loader<T> = BatchLoader<Batch<T>>;

/// Delivers the batches of one rank, epoch after epoch: each a `B`.
///
/// There are three ways to make a batch:
///
/// | | a batch is |
/// | --- | --- |
/// | [`Loader::new`] | what a function makes of each sample, and the numbers of the samples |
/// | [`BatchLoader::rows`] | one buffer of numbers, gathered from a column: [`Rows`] |
/// | [`BatchLoader::collated`] | what a function makes of all samples together |
///
/// Dropping a loader ends its threads and waits for them; a function that is running is waited
/// for.
pub struct BatchLoader<B> {
    shared: Arc<Shared<B>>,
    options: LoaderOptions,
    threads: Vec<JoinHandle<()>>,
    /// What the thread that asks for batches needs to make them itself.
    held: Option<Held>,
    /// The state that the run was resumed from.
    resumed: Option<State>,
    /// The order to begin with, where it is known already.
    order: Option<EpochOrder>,
    epoch: u64,
    /// Samples of the epoch, over all ranks, that came before this loader began it.
    offset: u64,
    /// Set by the first error: what comes after it would be out of order.
    failed: bool,
}

impl<B> fmt::Debug for BatchLoader<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BatchLoader")
            .field("options", &self.options)
            .field("epoch", &self.epoch)
            .field("offset", &self.offset)
            .finish_non_exhaustive()
    }
}

impl<T: Send + 'static> BatchLoader<Batch<T>> {
    /// A loader at the beginning of epoch 0. `map` runs on the loader's threads, once for each
    /// sample; its first error is returned instead of the batch. Threads start with the first
    /// batch that is asked for.
    pub fn new<F>(dataset: Arc<StreamingDataset>, options: LoaderOptions, map: F) -> Self
    where
        F: Fn(Sample) -> Result<T> + Send + Sync + 'static,
    {
        Self::collated(dataset, options, mapped(map))
    }

    /// A loader that delivers what the one that stood at `checkpoint` had not delivered yet. The
    /// world and the number of threads may differ from that one's.
    ///
    /// # Errors
    /// As [`resumed_at`](Self::resumed_at).
    pub fn resume<F>(
        dataset: Arc<StreamingDataset>,
        options: LoaderOptions,
        checkpoint: impl Into<Checkpoint>,
        map: F,
    ) -> Result<Self>
    where
        F: Fn(Sample) -> Result<T> + Send + Sync + 'static,
    {
        Self::new(dataset, options, map).resumed_at(checkpoint)
    }
}

/// Makes a batch by mapping each sample.
fn mapped<T>(
    map: impl Fn(Sample) -> Result<T> + Send + Sync + 'static,
) -> impl Fn(&mut Picks<'_>) -> Result<Batch<T>> + Send + Sync + 'static {
    move |picks| {
        let ids = picks.ids().to_vec();
        let mut items = Vec::with_capacity(ids.len());
        picks.for_each_owned(|sample| {
            // Caught here too, where it is known which sample it was.
            let mapped = catch_unwind(AssertUnwindSafe(|| map(sample)));
            items.push(mapped.unwrap_or_else(|panic| Err(panicked("map", panic.as_ref())))?);
            Ok(())
        })?;
        Ok(Batch { ids, items })
    }
}

impl<T: Number> BatchLoader<Rows<T>> {
    /// A loader at the beginning of epoch 0 whose batches are the numbers of a column, gathered
    /// into one buffer of `[samples, width]`.
    ///
    /// The column is an `ndarray` of `T`, of any shape with `width` numbers, or `bytes` that are
    /// such numbers, little-endian. Buffers of batches that were dropped are used again.
    ///
    /// # Errors
    /// [`InvalidArgument`](ErrorKind::InvalidArgument) if there is no such column or it cannot
    /// hold such rows. A single row that is longer or shorter is an error when its turn comes.
    pub fn rows(
        dataset: Arc<StreamingDataset>,
        options: LoaderOptions,
        column: &str,
        width: usize,
    ) -> Result<Self> {
        // Those that wait, and one with the caller; a second one while the caller exchanges them.
        let buffers = prefetch(options).saturating_add(2);
        let gather = Gather::new(dataset.shared_schema(), column, width, buffers)?;
        Ok(Self::collated(dataset, options, move |picks| gather.rows(picks)))
    }
}

/// Batches that may be ready or in the making: a thread that finds nothing to do for want of room
/// is no use.
fn prefetch(options: LoaderOptions) -> usize {
    options.prefetch_batches.max(options.num_workers).max(1)
}

impl<B: Send + 'static> BatchLoader<B> {
    /// A loader at the beginning of epoch 0 whose batches `make` makes of all their samples
    /// together. It runs on the loader's threads, once for each batch; its first error is returned
    /// instead of the batch.
    pub fn collated<F>(dataset: Arc<StreamingDataset>, options: LoaderOptions, make: F) -> Self
    where
        F: Fn(&mut Picks<'_>) -> Result<B> + Send + Sync + 'static,
    {
        let make: Make<B> = Box::new(make);
        Self {
            shared: Arc::new(Shared::new(dataset, make, prefetch(options))),
            options,
            threads: Vec::new(),
            held: None,
            resumed: None,
            order: None,
            epoch: 0,
            offset: 0,
            failed: false,
        }
    }

    /// This loader, which must not have delivered anything yet, moved to where another one stood at
    /// `checkpoint`. The world and the number of threads may differ from that one's.
    ///
    /// # Errors
    /// [`InvalidArgument`](ErrorKind::InvalidArgument) if the checkpoint names another dataset or an
    /// unknown version, or if this dataset and its world cannot go on from it. A checkpoint that
    /// names no dataset is taken, with a warning.
    pub fn resumed_at(mut self, checkpoint: impl Into<Checkpoint>) -> Result<Self> {
        let checkpoint = checkpoint.into();
        checkpoint.check(&self.shared.dataset)?;
        let state = checkpoint.state;
        let order =
            self.shared.dataset.plan().epoch(state.epoch, state.sample_in_epoch, Some(&state));
        self.order = Some(order?);
        (self.epoch, self.offset, self.resumed) = (state.epoch, state.sample_in_epoch, Some(state));
        Ok(self)
    }

    /// The next batch, or `None` once at the end of each epoch. Blocks until it is ready.
    ///
    /// # Errors
    /// The first error of the caller's function, of reading the batch's samples or of computing the
    /// epoch's order; a panic of the function is one too. The loader then has stopped: make a new
    /// one from [`checkpoint`](Self::checkpoint), which stands before the failed batch.
    pub fn next_batch(&mut self) -> Result<Option<B>> {
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

    /// Begins to fetch shards and to prepare batches, which otherwise waits for the first
    /// [`next_batch`](Self::next_batch): for programs that have other things to do first.
    ///
    /// # Errors
    /// As the order of the epoch cannot be computed or threads cannot be started.
    pub fn start(&mut self) -> Result<()> {
        if self.shared.has_epoch() { Ok(()) } else { self.begin_epoch() }
    }

    /// A function that stops this loader from another thread: what [`next_batch`](Self::next_batch)
    /// waits for is then given up, and it returns an error soon.
    pub fn stopper(&self) -> impl Fn() + Send + Sync + use<B> {
        let shared = Arc::clone(&self.shared);
        move || shared.stop()
    }

    fn advance(&mut self) -> Result<Option<B>> {
        self.shared.stop.check()?;
        self.start()?;
        let next = match self.options.num_workers {
            0 => {
                let held = self.held.get_or_insert_with(|| Held::of(&self.shared.dataset));
                self.shared.make_here(held)
            }
            _ => self.shared.take(|| self.threads.iter().all(JoinHandle::is_finished)),
        };
        if next.is_none() {
            self.shared.end_epoch();
            self.epoch = self.epoch.saturating_add(1);
            self.offset = 0;
        }
        next.transpose()
    }

    fn begin_epoch(&mut self) -> Result<()> {
        let dataset = &self.shared.dataset;
        let plan = dataset.plan();
        let place = plan.place(dataset.rank())?;
        let order = match self.order.take() {
            Some(order) => order,
            None => plan.epoch(self.epoch, self.offset, self.resumed.as_ref())?,
        };
        self.shared.begin_epoch(Epoch::new(order, place));
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

impl<B> BatchLoader<B> {
    /// The position after the batches delivered so far: what was prepared ahead does not count.
    /// After the last batch of an epoch it is the start of the next one, whether or not the `None`
    /// between them was fetched; a loader resumed from there begins with the next epoch's batches.
    pub fn state(&self) -> State {
        let plan = self.shared.dataset.plan();
        let (epoch, offset) = match self.shared.samples_delivered() {
            // All ranks have had as many samples as this one: only the last batch may be short.
            Some(samples) => (self.epoch, self.offset + samples * plan.world().ranks() as u64),
            None => (self.epoch.saturating_add(1), 0),
        };
        plan.state(epoch, offset, self.resumed.as_ref())
    }

    /// The [`state`](Self::state) together with the dataset's fingerprint.
    pub fn checkpoint(&self) -> Checkpoint {
        Checkpoint::new(self.state(), &self.shared.dataset)
    }
}

impl<B> Drop for BatchLoader<B> {
    fn drop(&mut self) {
        self.shared.stop();
        for thread in self.threads.drain(..) {
            // Panics of the map function are caught, so this has nothing to report.
            let _ = thread.join();
        }
    }
}
