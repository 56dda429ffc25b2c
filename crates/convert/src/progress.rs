//! Counters that a conversion keeps up to date and any other thread may read.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// How far a conversion is.
#[derive(Debug, Default)]
pub struct Meter {
    bytes_read: AtomicU64,
    documents: AtomicU64,
    samples: AtomicU64,
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

    pub(crate) fn add_documents(&self, count: u64) {
        self.documents.fetch_add(count, Ordering::Relaxed);
    }

    pub(crate) fn set_samples(&self, count: u64) {
        self.samples.store(count, Ordering::Relaxed);
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
