//! What a cache has done since it was opened.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::room::Need;

/// What a dataset has fetched and evicted since it was opened, and how long its readers waited.
///
/// A shard counts as found or as fetched each time it is mapped into memory, not for each sample.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
#[non_exhaustive]
pub struct CacheStats {
    /// Bytes that came from remotes, as they are stored there.
    pub downloaded_bytes: u64,
    /// Shards that this process fetched or decompressed.
    pub fetched_shards: u64,
    /// Shards that lay in the cache already, or that another process brought.
    pub found_shards: u64,
    /// Samples that were read before their shards had arrived.
    pub early_samples: u64,
    /// Shards that had to go for want of room, and their bytes in the cache.
    pub evicted_shards: u64,
    /// See [`evicted_shards`](Self::evicted_shards).
    pub evicted_bytes: u64,
    /// Time for which readers waited for shards, over all their threads.
    pub wait: Duration,
}

impl CacheStats {
    /// Of the shards that were mapped, the part that lay in the cache; `None` before the first.
    pub fn hit_rate(&self) -> Option<f64> {
        let mapped = self.found_shards + self.fetched_shards;
        (mapped > 0).then(|| self.found_shards as f64 / mapped as f64)
    }
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    downloaded_bytes: AtomicU64,
    fetched_shards: AtomicU64,
    found_shards: AtomicU64,
    early_samples: AtomicU64,
    evicted_shards: AtomicU64,
    evicted_bytes: AtomicU64,
    wait_nanoseconds: AtomicU64,
}

impl Counters {
    pub(super) fn downloaded(&self, bytes: u64) {
        self.downloaded_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn fetched(&self) {
        self.fetched_shards.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn found(&self) {
        self.found_shards.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn early(&self) {
        self.early_samples.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn evicted(&self, bytes: u64) {
        self.evicted_shards.fetch_add(1, Ordering::Relaxed);
        self.evicted_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Counts the time until what is returned is dropped, if somebody waits.
    pub(super) fn wait(&self, need: Need) -> Option<Waiting<'_>> {
        (need == Need::Now).then(|| Waiting { counters: self, since: Instant::now() })
    }

    pub(super) fn stats(&self) -> CacheStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        CacheStats {
            downloaded_bytes: read(&self.downloaded_bytes),
            fetched_shards: read(&self.fetched_shards),
            found_shards: read(&self.found_shards),
            early_samples: read(&self.early_samples),
            evicted_shards: read(&self.evicted_shards),
            evicted_bytes: read(&self.evicted_bytes),
            wait: Duration::from_nanos(read(&self.wait_nanoseconds)),
        }
    }
}

pub(super) struct Waiting<'a> {
    counters: &'a Counters,
    since: Instant,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let waited = u64::try_from(self.since.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.counters.wait_nanoseconds.fetch_add(waited, Ordering::Relaxed);
    }
}
