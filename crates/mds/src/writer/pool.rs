//! The threads that finish shards while the caller fills the next one.
//!
//! Whatever is done first, entries are in the order of the shards. At most `threads` shards are
//! being finished; with the one that is being filled, that bounds the memory: each shard in work
//! takes its own size and that of its compressed form.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::{self, JoinHandle};

use super::publish::Publisher;
use crate::format::{RawShard, ShardInfo};
use crate::{Error, ErrorKind, Result};

#[derive(Debug)]
pub(super) struct Pool {
    pub(super) publisher: Arc<Publisher>,
    /// How many shards may be in work; with 1 they are finished on the caller's thread.
    limit: usize,
    threads: Vec<JoinHandle<()>>,
    /// `None` once no more shards come.
    jobs: Option<mpsc::Sender<Job>>,
    waiting: Arc<Mutex<mpsc::Receiver<Job>>>,
    results: mpsc::Receiver<Done>,
    report: mpsc::Sender<Done>,
    /// Set by a thread that failed, so that the caller need not look at `results` at each sample.
    failed: Arc<AtomicBool>,
    /// How many shards were handed in, those before [`resume_at`](Self::resume_at) included.
    submitted: u64,
    in_work: usize,
    entries: BTreeMap<u64, ShardInfo>,
    /// Memory for compressed files, where the caller's thread makes them.
    zip: Vec<u8>,
    /// Shards whose memory is free again.
    spares: Vec<RawShard>,
}

#[derive(Debug)]
struct Job {
    number: u64,
    shard: RawShard,
}

#[derive(Debug)]
struct Done {
    number: u64,
    shard: RawShard,
    result: Result<ShardInfo>,
}

impl Pool {
    /// Starts no thread yet.
    pub(super) fn new(publisher: Publisher, limit: usize) -> Self {
        let (jobs, waiting) = mpsc::channel();
        let (report, results) = mpsc::channel();
        Self {
            publisher: Arc::new(publisher),
            limit,
            threads: Vec::new(),
            jobs: Some(jobs),
            waiting: Arc::new(Mutex::new(waiting)),
            results,
            report,
            failed: Arc::default(),
            submitted: 0,
            in_work: 0,
            entries: BTreeMap::new(),
            zip: Vec::new(),
            spares: Vec::new(),
        }
    }

    /// Goes on after shards that are in place already.
    pub(super) fn resume_at(&mut self, entries: Vec<ShardInfo>) {
        self.submitted = entries.len() as u64;
        self.entries = (0..).zip(entries).collect();
    }

    /// How many shards were handed in.
    pub(super) fn submitted(&self) -> u64 {
        self.submitted
    }

    /// The memory of shards that are done.
    pub(super) fn spares(&mut self) -> impl Iterator<Item = RawShard> {
        self.spares.drain(..)
    }

    /// The failure of a shard that was handed in before, if one has failed.
    pub(super) fn check(&mut self) -> Result<()> {
        if !self.failed.load(Ordering::Acquire) {
            return Ok(());
        }
        while self.in_work > 0 {
            self.collect_one()?;
        }
        Ok(())
    }

    /// Waits until one more shard may be handed in.
    fn wait_for_room(&mut self) -> Result<()> {
        while let Ok(done) = self.results.try_recv() {
            self.collect(done)?;
        }
        while self.limit > 1 && self.in_work >= self.limit {
            self.collect_one()?;
        }
        Ok(())
    }

    /// Hands in the next shard, once there is room for it.
    pub(super) fn submit(&mut self, shard: RawShard) -> Result<()> {
        self.wait_for_room()?;
        let number = self.submitted;
        self.submitted += 1;
        if self.limit <= 1 {
            let entry = self.publisher.publish(number, &shard, &mut self.zip)?;
            self.entries.insert(number, entry);
            self.spares.push(shard);
            return Ok(());
        }
        if self.threads.len() <= self.in_work {
            self.start_thread()?;
        }
        let sent = self.jobs.as_ref().is_some_and(|jobs| jobs.send(Job { number, shard }).is_ok());
        if !sent {
            return Err(threads_are_gone());
        }
        self.in_work += 1;
        Ok(())
    }

    /// The entries of the shards that are done, up to the first that is not.
    pub(super) fn done(&mut self) -> Result<Vec<ShardInfo>> {
        while let Ok(done) = self.results.try_recv() {
            self.collect(done)?;
        }
        let in_order = (0..).zip(&self.entries).take_while(|(next, (number, _))| next == *number);
        Ok(in_order.map(|(_, (_, entry))| entry.clone()).collect())
    }

    /// Waits for all shards and returns their entries in order, up to the first that failed before.
    pub(super) fn finish(&mut self) -> Result<Vec<ShardInfo>> {
        while self.in_work > 0 {
            self.collect_one()?;
        }
        self.close();
        self.done()
    }

    /// Ends the threads: each finishes what it has begun, or leaves it if `stop` is up.
    pub(super) fn close(&mut self) {
        self.jobs = None;
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }

    fn collect_one(&mut self) -> Result<()> {
        let done = self.results.recv().map_err(|_| threads_are_gone())?;
        self.collect(done)
    }

    fn collect(&mut self, Done { number, shard, result }: Done) -> Result<()> {
        self.in_work -= 1;
        self.spares.push(shard);
        self.entries.insert(number, result?);
        Ok(())
    }

    fn start_thread(&mut self) -> Result<()> {
        let publisher = Arc::clone(&self.publisher);
        let waiting = Arc::clone(&self.waiting);
        let report = self.report.clone();
        let failed = Arc::clone(&self.failed);
        let work = move || {
            let mut zip = Vec::new();
            loop {
                // Only one thread waits at a time; the others wait for it.
                let job = waiting.lock().unwrap_or_else(PoisonError::into_inner).recv();
                let Ok(Job { number, shard }) = job else { return };
                let publish = AssertUnwindSafe(|| publisher.publish(number, &shard, &mut zip));
                let result = catch_unwind(publish).unwrap_or_else(|_| Err(threads_are_gone()));
                let is_err = result.is_err();
                let reported = report.send(Done { number, shard, result });
                if is_err {
                    failed.store(true, Ordering::Release);
                }
                if reported.is_err() {
                    return;
                }
            }
        };
        let name = format!("mds-writer-{}", self.threads.len());
        let thread = thread::Builder::new().name(name).spawn(work);
        self.threads.push(
            thread
                .map_err(|error| Error::io(error, "cannot start a thread that finishes shards"))?,
        );
        Ok(())
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.publisher.stop.raise();
        self.close();
    }
}

fn threads_are_gone() -> Error {
    Error::new(
        ErrorKind::Io,
        "a thread that finishes shards has died",
        "look for its panic message, and write the dataset again",
    )
}
