//! What a writer spends its time on.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How long all threads of a writer together have worked on shards so far.
#[derive(Debug, Default)]
pub struct Timings {
    compress: AtomicU64,
    hash: AtomicU64,
    write: AtomicU64,
}

impl Timings {
    /// Compressing.
    pub fn compress(&self) -> Duration {
        of(&self.compress)
    }

    /// Hashing, before and after compression.
    pub fn hash(&self) -> Duration {
        of(&self.hash)
    }

    /// Writing files until they are safe on the disk, and uploading them.
    pub fn write(&self) -> Duration {
        of(&self.write)
    }

    pub(super) fn while_compressing<T>(&self, work: impl FnOnce() -> T) -> T {
        add(&self.compress, work)
    }

    pub(super) fn while_hashing<T>(&self, work: impl FnOnce() -> T) -> T {
        add(&self.hash, work)
    }

    pub(super) fn while_writing<T>(&self, work: impl FnOnce() -> T) -> T {
        add(&self.write, work)
    }
}

fn of(nanos: &AtomicU64) -> Duration {
    Duration::from_nanos(nanos.load(Ordering::Relaxed))
}

fn add<T>(nanos: &AtomicU64, work: impl FnOnce() -> T) -> T {
    let started = Instant::now();
    let done = work();
    let took = u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX);
    nanos.fetch_add(took, Ordering::Relaxed);
    done
}
