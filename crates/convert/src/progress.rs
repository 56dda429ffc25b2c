//! Counters that a conversion keeps up to date and any other thread may read.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mds::writer::Timings;

/// What a conversion spends time on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Reading files and decompressing them.
    Read,
    /// Taking the text out of lines or rows.
    Parse,
    /// Making ids of text.
    Tokenise,
    /// Joining documents and filling shards with samples.
    Encode,
    /// Compressing shards.
    Compress,
    /// Hashing shards.
    Hash,
    /// Writing shards to the disk, until they are safe there, and uploading them.
    Write,
}

impl Stage {
    /// In the order of the data.
    pub const ALL: [Self; 7] = [
        Self::Read,
        Self::Parse,
        Self::Tokenise,
        Self::Encode,
        Self::Compress,
        Self::Hash,
        Self::Write,
    ];

    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read and decompress",
            Self::Parse => "parse",
            Self::Tokenise => "tokenise",
            Self::Encode => "encode",
            Self::Compress => "compress",
            Self::Hash => "hash",
            Self::Write => "write",
        }
    }
}

/// How far a conversion is.
#[derive(Debug, Default)]
pub struct Meter {
    bytes_read: AtomicU64,
    documents: AtomicU64,
    samples: AtomicU64,
    /// Nanoseconds of each stage, over all threads.
    stages: [AtomicU64; Stage::ALL.len()],
}

impl Meter {
    /// Bytes of the source files read so far, as they are stored (compressed).
    pub fn bytes_read(&self) -> u64 {
        self.bytes_read.load(Ordering::Relaxed)
    }

    /// Documents converted so far.
    pub fn documents(&self) -> u64 {
        self.documents.load(Ordering::Relaxed)
    }

    /// Samples written so far.
    pub fn samples(&self) -> u64 {
        self.samples.load(Ordering::Relaxed)
    }

    /// Counts bytes as read that need not be.
    pub(crate) fn pass_over(&self, bytes: u64) {
        self.bytes_read.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn set_documents(&self, count: u64) {
        self.documents.store(count, Ordering::Relaxed);
    }

    pub(crate) fn set_samples(&self, count: u64) {
        self.samples.store(count, Ordering::Relaxed);
    }

    /// The time that all threads together have spent on a stage so far; of shards when they are complete.
    pub fn stage(&self, stage: Stage) -> Duration {
        Duration::from_nanos(self.stages[stage as usize].load(Ordering::Relaxed))
    }

    /// Counts what `work` takes.
    pub(crate) fn time<T>(&self, stage: Stage, work: impl FnOnce() -> T) -> T {
        let started = Instant::now();
        let done = work();
        self.add_time(stage, started.elapsed());
        done
    }

    fn add_time(&self, stage: Stage, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.stages[stage as usize].fetch_add(nanos, Ordering::Relaxed);
    }

    /// Counts what a writer has spent on shards.
    pub(crate) fn add_timings(&self, timings: &Timings) {
        self.add_time(Stage::Compress, timings.compress());
        self.add_time(Stage::Hash, timings.hash());
        self.add_time(Stage::Write, timings.write());
    }
}

/// Counts what passes through it, on the meter and for itself.
pub(crate) struct Counted<R> {
    pub(crate) inner: R,
    pub(crate) meter: Arc<Meter>,
    pub(crate) count: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.meter.bytes_read.fetch_add(count as u64, Ordering::Relaxed);
        self.count.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}
