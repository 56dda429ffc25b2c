//! The first samples of shards that are not here yet, read by ranges of the remote's objects.
//!
//! A batch of shuffled samples needs many shards at once, and waits for the last of them to arrive
//! whole. Meanwhile the offsets at the head of each and the samples themselves, some kilobytes,
//! come in two round trips. The shards are fetched as always.
//!
//! Read so are the first samples of a large shard that is neither compressed nor has a hash that is
//! to be checked: a sample alone cannot be compared with the hash of its shard, and none is served
//! that fails a check which was asked for. Whatever goes wrong here, the sample waits for its shard,
//! and the error, if it stays, is that of fetching the shard.

use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock};
use std::time::Duration;

use super::room::Need;
use super::{ShardCache, Slot, relock};
use crate::error::Result;
use crate::format::{Format, ShardInfo, ShardTable};
use crate::shard::{Sample, Shard, quickest_hash};
use crate::storage::{PartOnItsWay, Stop, Version};

/// Samples of one shard that are read before it arrives, at most.
const SAMPLES: u32 = 64;
/// Smaller shards arrive about as soon as parts of them. In bytes.
const LEAST_SHARD: u64 = 4 << 20;
/// Larger batches wait: the shards arrive before all of their samples.
const LARGEST_BATCH: usize = 64;
/// Parts that are on their way at a time: each has a connection.
const AT_A_TIME: usize = 32;
/// Longer samples wait: they would take the bandwidth of the shards. In bytes.
const LONGEST_SAMPLE: u64 = 256 << 10;
/// What has not come by then waits for its shard.
const LIMIT: Duration = Duration::from_secs(1);

/// How long shards wait for the first samples.
const AT_THE_GATE: Duration = Duration::from_millis(300);

/// What is known of a shard that is not here yet.
#[derive(Debug, Default)]
pub(super) struct Early {
    /// Samples that may still be read.
    left: AtomicU32,
    /// Set when it has been read.
    head: OnceLock<Head>,
}

/// The head of a shard whose samples are elsewhere.
#[derive(Debug)]
struct Head {
    shard: Arc<Shard>,
    table: ShardTable,
    version: Version,
}

/// Holds back what is fetched ahead until the first samples are here: shards take all the bandwidth.
#[derive(Debug, Default)]
pub(super) struct Gate {
    is_open: Mutex<bool>,
    opened: Condvar,
}

/// Opens the gate when the first early samples are here, or will not come.
struct Passing<'a>(&'a Gate);

impl Drop for Passing<'_> {
    fn drop(&mut self) {
        *relock(&self.0.is_open) = true;
        self.0.opened.notify_all();
    }
}

/// A sample of a batch: its number in the dataset, its shard, its position there.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SampleAt {
    pub(crate) id: u64,
    pub(crate) shard: usize,
    pub(crate) position: usize,
}

impl Early {
    /// Allows some samples to be read ahead of the shard, if it is of the kind.
    pub(super) fn of(info: &ShardInfo, validate_hash: bool) -> Self {
        let is_checked = validate_hash && quickest_hash(&info.raw_data).is_some();
        let is_plain = info.compression.is_none() && info.format == Format::Mds;
        let is_large = info.raw_data.bytes >= LEAST_SHARD;
        let left = if is_plain && is_large && !is_checked { SAMPLES } else { 0 };
        Self { left: AtomicU32::new(left), head: OnceLock::new() }
    }

    pub(super) fn is_over(&self) -> bool {
        self.left.load(Ordering::Relaxed) == 0
    }
}

impl ShardCache {
    /// Whether there are shards left of which a sample might be read early.
    pub(crate) fn may_be_early(&self) -> bool {
        !self.may_evict && self.early_shards.load(Ordering::Relaxed) > 0
    }

    /// Lets the first samples of an epoch come before whole shards are fetched ahead.
    pub(super) fn let_early_pass(&self) {
        if self.may_be_early() {
            let is_open = relock(&self.first_early.is_open);
            // Whoever reads no samples at all, or in another way, loses no more than this.
            let opened = &self.first_early.opened;
            let waited = opened.wait_timeout_while(is_open, AT_THE_GATE, |is_open| !*is_open);
            *waited.unwrap_or_else(|e| e.into_inner()).0 = true;
        }
    }

    /// Those of the samples of a batch that need not wait for their shards; nothing if all must.
    pub(crate) fn early(&self, samples: &[SampleAt], stop: &Stop) -> Vec<Option<Sample>> {
        let _pass = Passing(&self.first_early);
        if samples.len() > LARGEST_BATCH {
            return Vec::new();
        }
        let take = |sample: &SampleAt| self.take_early(sample).then_some(*sample);
        let wanted: Vec<_> = samples.iter().map(take).collect();
        if wanted.iter().flatten().next().is_none() {
            return Vec::new();
        }
        // One batch after the other, so that there are no more connections than for one.
        let _turn = relock(&self.early_turn);
        let _waiting = self.counters.wait(Need::Now);
        self.read_heads(wanted.iter().flatten().map(|sample| sample.shard).collect(), stop);
        self.read_samples(&wanted, stop)
    }

    /// Whether the sample may be read before its shard is here. Takes it off what may be.
    fn take_early(&self, sample: &SampleAt) -> bool {
        let slot = &self.slots[sample.shard];
        if slot.early.is_over() {
            return false;
        }
        let place = &self.places[slot.place];
        let is_here = !place.is_cache()
            || relock(&slot.state).mapped().is_some()
            || place.raw_files(&slot.info).is_ok_and(|files| files.data.exists());
        if is_here {
            self.end_early(slot);
            return false;
        }
        let less = |left: u32| left.checked_sub(1);
        let before = slot.early.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        if before == Ok(1) {
            self.early_shards.fetch_sub(1, Ordering::Relaxed);
        }
        before.is_ok()
    }

    /// Leaves all other samples to the shard, which is here or has to be waited for.
    fn end_early(&self, slot: &Slot) {
        if slot.early.left.swap(0, Ordering::Relaxed) > 0 {
            self.early_shards.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Reads the heads of those shards whose are not known yet.
    fn read_heads(&self, mut shards: Vec<usize>, stop: &Stop) {
        shards.sort_unstable();
        shards.dedup();
        shards.retain(|&shard| self.slots[shard].early.head.get().is_none());
        let head = |&shard: &usize| {
            let range = 0..ShardTable::head_bytes(self.slots[shard].info.samples);
            self.start_part(shard, range, None)
        };
        for some in shards.chunks(AT_A_TIME) {
            let on_their_way: Vec<_> = some.iter().map(head).collect();
            for (&shard, part) in some.iter().zip(on_their_way) {
                let slot = &self.slots[shard];
                let received = self.finish_part(part, stop);
                match received.and_then(|(bytes, version)| self.head(slot, &bytes, version)) {
                    Some(head) => drop(slot.early.head.set(head)),
                    None => self.end_early(slot),
                }
            }
        }
    }

    /// `None` if it is not the head of the shard that the index describes.
    fn head(&self, slot: &Slot, bytes: &[u8], version: Version) -> Option<Head> {
        let size = slot.info.raw_data.bytes;
        // Where versions cannot be told apart, the samples may be of another one than their head.
        let is_meant = version.size == size && version.is_known();
        let in_memory = usize::try_from(size).ok().filter(|_| is_meant)?;
        let table = ShardTable::parse_head(bytes, slot.info.samples, in_memory).ok()?;
        let shard = Shard::without_bytes(&slot.info).of_dataset(self.places[slot.place].shown());
        Some(Head { shard: Arc::new(shard), table, version })
    }

    fn read_samples(&self, wanted: &[Option<SampleAt>], stop: &Stop) -> Vec<Option<Sample>> {
        let start = |sample: SampleAt| {
            let head = self.slots[sample.shard].early.head.get()?;
            let range =
                (sample.position < head.table.len()).then(|| head.table.range(sample.position))?;
            let range = range.start as u64..range.end as u64;
            let is_short = range.end - range.start <= LONGEST_SAMPLE;
            is_short
                .then(|| (sample, head, self.start_part(sample.shard, range, Some(&head.version))))
        };
        let finish = |(sample, head, part): (SampleAt, &Head, _)| {
            let Some((bytes, _)) = self.finish_part(part, stop) else {
                self.end_early(&self.slots[sample.shard]);
                return None;
            };
            self.counters.early();
            Some(Sample::apart(Arc::clone(&head.shard), sample.position, sample.id, bytes.into()))
        };
        let some_at_a_time = wanted.chunks(AT_A_TIME).flat_map(|some| {
            let on_their_way: Vec<_> = some.iter().map(|sample| sample.and_then(start)).collect();
            on_their_way.into_iter().map(|part| part.and_then(finish))
        });
        some_at_a_time.collect()
    }

    fn start_part(
        &self,
        shard: usize,
        range: Range<u64>,
        version: Option<&Version>,
    ) -> Option<Result<PartOnItsWay>> {
        let slot = &self.slots[shard];
        let remote = self.places[slot.place].remote()?;
        let name = slot.info.raw_data.basename.as_str();
        Some(remote.start_part(name, range, version.cloned(), LIMIT))
    }

    fn finish_part(
        &self,
        part: Option<Result<PartOnItsWay>>,
        stop: &Stop,
    ) -> Option<(Vec<u8>, Version)> {
        let received = part?.and_then(|part| part.finish(stop));
        let (bytes, version) = received
            .inspect_err(|error| tracing::debug!(%error, "its samples wait for the whole shard"))
            .ok()??;
        self.counters.downloaded(bytes.len() as u64);
        Some((bytes, version))
    }
}
