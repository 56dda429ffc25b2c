//! Reading a dataset: any sample by its number, from wherever its shards are.
//!
//! A [`StreamingDataset`] joins one or more [`Stream`]s, fetches shards into a cache as samples are
//! asked for, and knows the order in which each rank is to see them; a
//! [`Loader`](crate::Loader) walks that order. See the cache's rules in
//! [`StreamingDataset::open`].

mod options;

use std::fmt;
use std::sync::Arc;
use std::thread;

use crate::cache::{Addresses, CacheOptions, CacheStats, Pin, Place, SampleAt, ShardCache};
use crate::error::{Error, ErrorKind, Result};
use crate::format::{HashAlgorithm, Index, IndexOptions, Schema};
use crate::order::{Plan, StreamShape};
use crate::shard::{Sample, Shard};
use crate::storage::{RemoteOptions, Stop};

pub use options::{DatasetOptions, Stream};

/// Streams of shards as one list of samples, numbered stream by stream, shard by shard.
///
/// Cheap to share: all methods take `&self` and may be called from any thread.
pub struct StreamingDataset {
    cache: ShardCache,
    /// The number of the first sample of each shard, and at the end the number of samples.
    starts: Vec<u64>,
    /// Of each stream: the columns of its first shard that has samples. Never empty.
    schemas: Vec<Arc<Schema>>,
    fingerprint: String,
    plan: Plan,
    rank: usize,
    predownload: Option<usize>,
    /// Ends no wait: for those who ask for a sample and have no flag of their own.
    never: Stop,
}

impl fmt::Debug for StreamingDataset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamingDataset")
            .field("samples", &self.num_samples())
            .field("shards", &(self.starts.len() - 1))
            .field("fingerprint", &self.fingerprint)
            .finish_non_exhaustive()
    }
}

impl StreamingDataset {
    /// Opens the streams: reads each `index.json`, but no shard yet. Blocks.
    ///
    /// Where a stream's shards are read from:
    ///
    /// | `remote` | `local` | |
    /// | --- | --- | --- |
    /// | given | another folder | shards are copied to `local`, a cache that mirrors the remote |
    /// | – | given | read in place: nothing is copied, nothing is removed |
    /// | the same folder | given | read in place |
    /// | a folder | – | read in place |
    /// | a URL | – | shards are copied to a folder below the user's: [`UserCache`](crate::UserCache) |
    ///
    /// Compressed shards that have no raw file beside them and are read in place are decompressed
    /// into a private folder, never beside the originals. Several processes may share a cache;
    /// each shard is then fetched once. A cache that holds another dataset than the remote (its
    /// index differs), or files called like the shards without an index, is refused. If the remote
    /// cannot be reached, the cached index is used.
    ///
    /// Shards are mapped into memory. The files of a cache never change, but a dataset that is
    /// read in place must not be truncated or rewritten by others while it is open: as with any
    /// mapped file, that would end the process with a bus error or change samples under its feet.
    /// Set [`DatasetOptions::copy`] where that cannot be promised.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) if there is no dataset, [`Corrupt`](ErrorKind::Corrupt)
    /// or [`Unsupported`](ErrorKind::Unsupported) if its index cannot be used,
    /// [`AlreadyExists`](ErrorKind::AlreadyExists) if the cache holds another one,
    /// [`InvalidArgument`](ErrorKind::InvalidArgument) for streams and options that cannot work
    /// (an empty dataset among them), and the failures of the disk and the network.
    pub fn open(streams: Vec<Stream>, options: DatasetOptions) -> Result<Arc<Self>> {
        let cache_options = CacheOptions {
            limit: options.cache_limit,
            validate_hash: options.validate_hash,
            keep_zip: options.keep_zip,
            copy: options.copy,
            index: IndexOptions { pickle_bytes: options.pickle_bytes },
            remote: RemoteOptions {
                timeout: options.download_timeout,
                attempts: options.download_retry,
            },
        };
        let mut opened = Vec::with_capacity(streams.len());
        let mut shapes = Vec::with_capacity(streams.len());
        for (place, index) in open_places(&streams, &cache_options)? {
            if index.samples() == 0 {
                return Err(no_samples(place.shown()));
            }
            let shard_sizes = index.shards.iter().map(|shard| shard.samples).collect();
            let weight = streams[opened.len()].weight;
            shapes.push(StreamShape { shard_sizes, weight });
            opened.push((place, index));
        }
        let plan = Plan::new(&shapes, options.order, options.world)?;
        plan.place(options.rank)?;
        let schemas: Vec<_> = opened.iter().filter_map(|(_, index)| first_schema(index)).collect();
        if schemas.is_empty() {
            return Err(no_samples("without streams"));
        }
        Ok(Arc::new(Self {
            starts: starts(shapes.iter().flat_map(|shape| &shape.shard_sizes)),
            schemas,
            fingerprint: fingerprint(opened.iter().map(|(_, index)| index)),
            cache: ShardCache::new(opened, cache_options)?,
            plan,
            rank: options.rank,
            predownload: options.predownload,
            never: Stop::new(),
        }))
    }

    /// The samples that one rank sees in one epoch, as the reference's `len`.
    pub fn len(&self) -> u64 {
        self.plan.samples_per_rank()
    }

    /// Never: a dataset without samples cannot be opened.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The samples of all streams, each counted once. Sample numbers are below this.
    pub fn num_samples(&self) -> u64 {
        self.starts[self.starts.len() - 1]
    }

    /// The columns of the first shard that has samples. All shards of a dataset usually have the
    /// same; a [`Sample`] always knows its own.
    pub fn schema(&self) -> &Schema {
        &self.schemas[0]
    }

    /// The same of each stream, in their order.
    pub fn schemas(&self) -> impl Iterator<Item = &Schema> {
        self.schemas.iter().map(|schema| &**schema)
    }

    /// A short name for exactly these shards: for one stream the fingerprint of its index. Store
    /// it in checkpoints, to notice when the data changed.
    pub fn index_fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// What has been fetched since the dataset was opened, and how long readers waited for it.
    pub fn stats(&self) -> CacheStats {
        self.cache.stats()
    }

    /// The order in which samples are served.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The number of this process among all ranks.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// Sample number `id`, fetching its shard first if need be. Blocks.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) if there is no such sample; otherwise as the shard cannot
    /// be fetched or is damaged: the error names it.
    pub fn sample(&self, id: u64) -> Result<Sample> {
        let (shard, position) = self.locate(id)?;
        self.take(self.cache.open(shard, &self.never)?, position, id)
    }

    /// A sample to keep.
    pub(crate) fn take(&self, shard: Arc<Shard>, position: usize, id: u64) -> Result<Sample> {
        let sample = Sample::new(shard, position, id);
        if self.may_evict() { sample.copied() } else { Ok(sample) }
    }

    /// The shard of sample `id`, and its position there.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) if there is no such sample.
    pub(crate) fn locate(&self, id: u64) -> Result<(usize, usize)> {
        let shard = self.shard_of(id).ok_or_else(|| {
            Error::new(
                ErrorKind::NotFound,
                format!("there is no sample {id}"),
                format!("the dataset has {} samples, numbered from 0", self.num_samples()),
            )
        })?;
        // The position fits: a shard has fewer than 2^32 samples, as checked when it is mapped.
        Ok((shard, (id - self.starts[shard]) as usize))
    }

    /// The shard that holds sample `id`.
    pub(crate) fn shard_of(&self, id: u64) -> Option<usize> {
        // Empty shards share their start with the next one; the last of equals has the sample.
        (id < self.num_samples()).then(|| self.starts.partition_point(|start| *start <= id) - 1)
    }

    /// Shard number `shard`, fetching it first if need be. Blocks until then or until `stop` goes up.
    pub(crate) fn open_shard(&self, shard: usize, stop: &Stop) -> Result<Arc<Shard>> {
        self.cache.open(shard, stop)
    }

    /// Those of the samples that need not wait for their shards; nothing if all must.
    pub(crate) fn early(&self, ids: &[u64], stop: &Stop) -> Result<Vec<Option<Sample>>> {
        if !self.cache.may_be_early() {
            return Ok(Vec::new());
        }
        let located = ids
            .iter()
            .map(|&id| self.locate(id).map(|(shard, position)| SampleAt { id, shard, position }));
        Ok(self.cache.early(&located.collect::<Result<Vec<_>>>()?, stop))
    }

    /// Shards of all streams.
    pub(crate) fn num_shards(&self) -> usize {
        self.starts.len() - 1
    }

    /// Whether shards may have to go from a cache for want of room.
    pub(crate) fn may_evict(&self) -> bool {
        self.cache.may_evict()
    }

    /// The columns that [`schema`](Self::schema) gives, with a share in them.
    pub(crate) fn shared_schema(&self) -> &Arc<Schema> {
        &self.schemas[0]
    }

    /// Fetches a shard before it is needed and keeps it from being evicted. `None` if the cache
    /// has no room for it now.
    pub(crate) fn open_ahead(&self, shard: usize, stop: &Stop) -> Result<Option<Pin>> {
        self.cache.open_ahead(shard, stop)
    }

    /// Whether shards can be read without fetching or decompressing anything.
    pub(crate) fn is_all_in_place(&self) -> bool {
        self.cache.is_all_in_place()
    }

    /// Samples that each rank fetches ahead of use: the reference's default is 8 batches.
    pub(crate) fn predownload(&self) -> usize {
        let batch_size = self.plan.options().batch_size;
        self.predownload.unwrap_or_else(|| batch_size.map_or(64, |size| size.saturating_mul(8)))
    }
}

/// Reads the indexes of all streams, of several at a time.
fn open_places(streams: &[Stream], options: &CacheOptions) -> Result<Vec<(Place, Index)>> {
    const AT_A_TIME: usize = 16;
    let open = |stream: &Stream| {
        let addresses = Addresses {
            remote: stream.remote.as_deref(),
            local: stream.local.as_deref(),
            split: stream.split.as_deref(),
        };
        Place::open(addresses, options)
    };
    let mut opened = Vec::with_capacity(streams.len());
    for some in streams.chunks(AT_A_TIME) {
        let places = thread::scope(|scope| {
            let (first, others) = (&some[0], &some[1..]);
            let others: Vec<_> = others.iter().map(|s| scope.spawn(move || open(s))).collect();
            let first = open(first);
            let others = others
                .into_iter()
                .map(|other| other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
            [first].into_iter().chain(others).collect::<Result<Vec<_>>>()
        })?;
        opened.extend(places);
    }
    Ok(opened)
}

fn no_samples(dataset: &str) -> Error {
    Error::invalid(
        format!("the dataset {dataset} has no samples"),
        "write samples to it or choose another split",
    )
}

fn first_schema(index: &Index) -> Option<Arc<Schema>> {
    let shard = index.shards.iter().find(|shard| shard.samples > 0);
    shard.map(|shard| Arc::clone(shard.schema()))
}

fn starts<'a>(sizes: impl Iterator<Item = &'a u64>) -> Vec<u64> {
    let mut starts = vec![0];
    let mut total = 0u64;
    for size in sizes {
        total = total.saturating_add(*size);
        starts.push(total);
    }
    starts
}

fn fingerprint<'a>(indices: impl Iterator<Item = &'a Index>) -> String {
    let each: Vec<String> = indices.map(Index::fingerprint).collect();
    match each.as_slice() {
        [only] => only.clone(),
        several => HashAlgorithm::Xxh3_128.hex(several.join("\n").as_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_found_past_empty_shards() {
        let sizes = [0, 1, 2, 0, 0, 3];
        assert_eq!(starts(sizes.iter()), [0, 0, 1, 3, 3, 3, 6]);
        let starts = starts(sizes.iter());
        let shard_of = |id: u64| starts.partition_point(|start| *start <= id) - 1;
        assert_eq!((0..6).map(shard_of).collect::<Vec<_>>(), [1, 2, 2, 5, 5, 5]);
    }
}
