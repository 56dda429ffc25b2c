//! The samples of one batch: their shards are found once for each batch, not for each sample.

use std::fmt;
use std::sync::Arc;

use crate::dataset::StreamingDataset;
use crate::error::{Error, Result};
use crate::shard::{Sample, SampleRef, Shard};
use crate::storage::Stop;

/// The samples of one batch, which a loader gives to the function that makes the batch.
///
/// Nothing is copied: samples are slices of their mapped shards. Under a
/// [`cache_limit`](crate::DatasetOptions::cache_limit) no more than one shard at a time is kept
/// from being evicted, unless all samples are asked for [at once](Self::samples).
pub struct Picks<'a> {
    dataset: &'a StreamingDataset,
    ids: &'a [u64],
    stop: &'a Stop,
    held: &'a mut Held,
}

impl fmt::Debug for Picks<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Picks").field("ids", &self.ids).finish_non_exhaustive()
    }
}

impl Drop for Picks<'_> {
    fn drop(&mut self) {
        self.held.let_go();
    }
}

impl<'a> Picks<'a> {
    pub(super) fn new(
        dataset: &'a StreamingDataset,
        ids: &'a [u64],
        stop: &'a Stop,
        held: &'a mut Held,
    ) -> Self {
        held.let_go();
        Self { dataset, ids, stop, held }
    }

    /// The numbers of the samples, in their order. There is at least one.
    pub fn ids(&self) -> &'a [u64] {
        self.ids
    }

    /// Has `each` read every sample in order; the first argument is the position in the batch.
    /// Blocks while shards are fetched.
    ///
    /// # Errors
    /// The first error of `each`, which is told the sample unless it names a shard, or of fetching
    /// a shard.
    pub fn for_each(
        &mut self,
        mut each: impl FnMut(usize, SampleRef<'_>) -> Result<()>,
    ) -> Result<()> {
        let (ids, stop) = (self.ids, self.stop);
        let mut read = |position: usize, sample: SampleRef<'_>| {
            each(position, sample).map_err(|error| at_sample(error, ids[position]))
        };
        if !self.held.all {
            for (position, &id) in ids.iter().enumerate() {
                let (slot, at) = self.held.find(self.dataset, id, stop)?;
                read(position, self.held.shards[slot].sample(at)?)?;
                stop.check()?;
            }
            return Ok(());
        }
        let samples = self.samples()?;
        // One sample ahead, whose bytes the processor fetches while this one is read.
        let mut samples = samples.peekable();
        let mut position = 0;
        while let Some(sample) = samples.next() {
            samples.peek();
            read(position, sample?)?;
            position += 1;
        }
        stop.check()
    }

    /// All samples, in order, none of whose shards is evicted before the batch is made. Blocks
    /// while shards are fetched.
    ///
    /// # Errors
    /// As fetching the shards fails; each sample as [`Shard::sample`].
    pub fn samples(&mut self) -> Result<impl ExactSizeIterator<Item = Result<SampleRef<'_>>>> {
        self.held.find_all(self.dataset, self.ids, self.stop)?;
        let Held { shards, places, .. } = &*self.held;
        Ok(places.iter().map(|place| match place {
            Found::In(slot, at) => shards[*slot].sample(*at),
            Found::Early(sample) => sample.borrow(),
        }))
    }

    /// Has `each` take every sample in order, to keep if it likes.
    ///
    /// # Errors
    /// As [`for_each`](Self::for_each).
    pub fn for_each_owned(&mut self, mut each: impl FnMut(Sample) -> Result<()>) -> Result<()> {
        if self.held.all {
            self.held.find_all(self.dataset, self.ids, self.stop)?;
        }
        for (position, &id) in self.ids.iter().enumerate() {
            let found = match self.held.all {
                true => self.held.places[position].clone(),
                false => {
                    let (slot, at) = self.held.find(self.dataset, id, self.stop)?;
                    Found::In(slot, at)
                }
            };
            let sample = match found {
                Found::In(slot, at) => {
                    let shard = Arc::clone(&self.held.shards[slot]);
                    self.dataset.take(shard, at, id)?
                }
                Found::Early(sample) => sample,
            };
            each(sample).map_err(|error| at_sample(error, id))?;
            self.stop.check()?;
        }
        Ok(())
    }
}

/// Names the sample of the dataset, unless the error names a shard and the sample in it.
fn at_sample(error: Error, id: u64) -> Error {
    match error.position().shard {
        Some(_) => error,
        None => error.at_sample(id),
    }
}

/// The shards of the batch that a thread is making, and where to find its samples. Kept from batch
/// to batch, so that finding allocates nothing.
pub(super) struct Held {
    /// Whether all shards of a batch may be held at a time: not under a limit of the cache, which
    /// may be less than they need.
    all: bool,
    shards: Vec<Arc<Shard>>,
    /// For each shard of the dataset the batch that it was last found for, and its place in
    /// `shards` then.
    found: Vec<(u32, u32)>,
    /// Counts batches, so that `found` need not be cleared for each.
    batch: u32,
    /// Where each sample of the batch is.
    places: Vec<Found>,
}

/// Where a sample is.
#[derive(Clone)]
enum Found {
    /// At a position in one of the shards that are held.
    In(usize, usize),
    /// Here, before its shard.
    Early(Sample),
}

impl Held {
    pub(super) fn of(dataset: &StreamingDataset) -> Self {
        Self {
            all: !dataset.may_evict(),
            shards: Vec::new(),
            found: vec![(0, 0); dataset.num_shards()],
            batch: 0,
            places: Vec::new(),
        }
    }

    fn let_go(&mut self) {
        self.shards.clear();
        self.places.clear();
        self.batch = self.batch.wrapping_add(1);
        if self.batch == 0 {
            self.found.fill((0, 0));
            self.batch = 1;
        }
    }

    fn find_all(&mut self, dataset: &StreamingDataset, ids: &[u64], stop: &Stop) -> Result<()> {
        if self.places.len() == ids.len() && self.all {
            return Ok(());
        }
        // From here on all shards of the batch are held, whatever the cache may evict.
        self.let_go();
        let all = std::mem::replace(&mut self.all, true);
        let found = dataset.early(ids, stop).and_then(|early| {
            let mut early = early.into_iter();
            ids.iter().try_for_each(|&id| {
                let place = match early.next().flatten() {
                    Some(sample) => Found::Early(sample),
                    None => {
                        let (slot, at) = self.find(dataset, id, stop)?;
                        Found::In(slot, at)
                    }
                };
                self.places.push(place);
                Ok(())
            })
        });
        self.all = all;
        found
    }

    /// The place of the shard of sample `id` in `shards`, and the sample's position in it.
    fn find(&mut self, dataset: &StreamingDataset, id: u64, stop: &Stop) -> Result<(usize, usize)> {
        let (shard, position) = dataset.locate(id)?;
        let (batch, slot) = self.found[shard];
        if batch == self.batch && self.all {
            return Ok((slot as usize, position));
        }
        if !self.all {
            self.shards.clear();
        }
        self.shards.push(dataset.open_shard(shard, stop)?);
        let slot = self.shards.len() - 1;
        if self.all {
            // A batch has no more shards than samples, and those are fewer than 2^32.
            self.found[shard] = (self.batch, slot as u32);
        }
        Ok((slot, position))
    }
}
