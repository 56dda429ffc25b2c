//! Training rows without end, prepared on a thread of their own.

use std::fmt;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use convert::tokenizer::Tokenizer;
use serde::{Deserialize, Serialize};

use super::batch::TokenBatch;
use super::rows::{Piece, RowBuilder};
use super::source::Source;
use super::{AskedBy, Replica};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::logging::Metric;

/// Batches that wait, ready, for the training loop.
const READY_BATCHES: usize = 2;
/// How often a wait for a batch asks whether it is to be given up.
const PAUSE: Duration = Duration::from_millis(50);

/// Where the training data stands, after the batches handed out so far.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DataState {
    /// The position in the dataset, and which dataset that is; `None` at the start of a run.
    pub position: Option<mds::Checkpoint>,
    /// Tokens of documents already read that did not fill a row yet.
    pub buffer: Vec<i32>,
    /// What those are of.
    #[serde(default)]
    pub pieces: Vec<Piece>,
}

/// The training rows of one rank: device batches without end, epoch after epoch.
///
/// Rows are made ahead on a thread, which begins with [`start`](Self::start) or the first batch asked for.
#[derive(Debug)]
pub struct TrainData {
    source: Source,
    state: DataState,
    feed: Option<Feed>,
    /// When [`cache_metrics`](Self::cache_metrics) were last taken, and the bytes downloaded until then.
    measured: (Instant, u64),
}

/// The thread that makes batches, and where they come out.
struct Feed {
    /// `None` only while the feed is being dropped.
    batches: Option<Receiver<Result<(TokenBatch, DataState)>>>,
    thread: Option<JoinHandle<()>>,
    /// Has the thread give up what it waits for.
    stop: Box<dyn Fn() + Send + Sync>,
}

impl TrainData {
    /// Opens the training split for this rank's share of the global batch.
    ///
    /// # Errors
    /// When there is no such dataset, it has neither text nor tokens, the tokenizer does not fit
    /// the model, or the global batch does not divide.
    pub fn open(config: &Config, tokenizer: &Tokenizer, replica: Replica) -> Result<Self> {
        let began = Instant::now();
        let rows = config.batch_plan(replica.world_size)?.device_batch;
        let vocab_size = config.model.vocab_size;
        let source = Source::open(
            AskedBy::Recipe,
            &config.train_loader,
            tokenizer,
            vocab_size,
            rows,
            replica,
        )?;
        if let Some(0) = batches_per_epoch(&source) {
            return Err(Error::Config(format!(
                "{} has {} samples, fewer than one batch of {rows}, and {origin}.drop_last \
                 leaves out a batch that is not full; lower global_train_batch_size or set \
                 {origin}.drop_last=false",
                source.address(),
                source.dataset.plan().epoch_size(),
                origin = config.train_loader.origin
            )));
        }
        Ok(Self { source, state: DataState::default(), feed: None, measured: (began, 0) })
    }

    /// Begins to fetch shards and to make batches, which otherwise waits for the first
    /// [`next_batch`](Self::next_batch): for a run that has a model to make first.
    ///
    /// # Errors
    /// When the threads cannot be started. What the data itself has against the run, the first batch says.
    pub fn start(&mut self) -> Result<()> {
        if self.feed.is_none() {
            self.feed = Some(Feed::start(&self.source, self.state.clone())?);
        }
        Ok(())
    }

    /// The next device batch. Waits until it is ready; how long is in [`TokenBatch::wait`].
    ///
    /// # Errors
    /// When the dataset cannot be read, or a sample does not fit the model. The position stays
    /// before the failed batch.
    pub fn next_batch(&mut self) -> Result<TokenBatch> {
        let batch = self.next_batch_unless(|| false)?;
        Ok(batch.expect("a wait that is never over ends with a batch or an error"))
    }

    /// The next device batch, as [`next_batch`](Self::next_batch), or `None` where it is not ready yet and
    /// `is_over` says that nobody waits for it any more: it is asked some times a second. The batch is not
    /// lost, and the next call hands it out.
    ///
    /// # Errors
    /// As [`next_batch`](Self::next_batch).
    pub fn next_batch_unless(&mut self, is_over: impl Fn() -> bool) -> Result<Option<TokenBatch>> {
        let asked = Instant::now();
        self.start()?;
        let outcome = match &self.feed {
            Some(feed) => feed.next(is_over),
            None => Err(Feed::ended()),
        };
        match outcome {
            Ok(Some((mut batch, state))) => {
                self.state = state;
                batch.wait = asked.elapsed();
                Ok(Some(batch))
            }
            Ok(None) => Ok(None),
            Err(error) => {
                self.feed = None;
                Err(error)
            }
        }
    }

    /// What was fetched since the run began, and how long the threads that read waited for it: under
    /// `data/`. The bytes per second are those since this was last asked. Nothing where the dataset is
    /// read in place.
    pub fn cache_metrics(&mut self) -> Vec<Metric<'static>> {
        let stats = self.source.dataset.stats();
        let Some(hit_rate) = stats.hit_rate() else { return Vec::new() };
        let now = (Instant::now(), stats.downloaded_bytes);
        let before = std::mem::replace(&mut self.measured, now);
        let pace = (now.1 - before.1) as f64 / (now.0 - before.0).as_secs_f64();
        vec![
            ("data/downloaded_bytes", stats.downloaded_bytes.into()),
            ("data/download_bytes_per_second", pace.into()),
            ("data/fetched_shards", stats.fetched_shards.into()),
            ("data/early_samples", stats.early_samples.into()),
            ("data/evicted_shards", stats.evicted_shards.into()),
            ("data/evicted_bytes", stats.evicted_bytes.into()),
            ("data/cache_hit_rate", hit_rate.into()),
            ("data/wait_seconds", stats.wait.as_secs_f64().into()),
        ]
    }

    /// Where the data stands after the last batch handed out; batches that were only made ready
    /// do not count.
    pub fn state(&self) -> DataState {
        self.state.clone()
    }

    /// Continues from a saved position.
    ///
    /// # Errors
    /// When the position is one in another dataset.
    pub fn restore(&mut self, state: DataState) -> Result<()> {
        let here = self.source.dataset.index_fingerprint();
        let saved = state.position.as_ref().and_then(|at| at.index_fingerprint.as_deref());
        if saved.is_some_and(|saved| saved != here) {
            return Err(Error::Checkpoint(format!(
                "the checkpoint was made with another dataset than {} (index {} there, {here} \
                 here); train on that dataset",
                self.source.address(),
                saved.unwrap_or_default()
            )));
        }
        self.feed = None;
        self.state = state;
        Ok(())
    }

    /// Batches per epoch, where rows are whole samples; `None` where documents are joined, which
    /// have no epochs.
    pub fn batches_per_epoch(&self) -> Option<u64> {
        batches_per_epoch(&self.source)
    }

    /// Samples in the split.
    pub fn num_samples(&self) -> u64 {
        self.source.dataset.num_samples()
    }
}

fn batches_per_epoch(source: &Source) -> Option<u64> {
    let (samples, rows) = (source.dataset.len(), source.rows as u64);
    match (source.joins_documents(), source.config.drop_last) {
        (true, _) => None,
        (false, true) => Some(source.dataset.num_samples().min(samples) / rows),
        (false, false) => Some(samples.div_ceil(rows)),
    }
}

impl Feed {
    fn start(source: &Source, state: DataState) -> Result<Self> {
        let loader = source.loader(state.position.clone())?;
        let stop = Box::new(loader.stopper());
        let rows = source.row_builder(state.buffer, state.pieces);
        let maker = Maker { loader, rows, source: source.clone() };
        let (sender, receiver) = sync_channel(READY_BATCHES);
        let thread = std::thread::Builder::new()
            .name("train-data".into())
            .spawn(move || maker.run(&sender))
            .map_err(|e| Error::Data(format!("cannot start the thread that reads data: {e}")))?;
        Ok(Self { batches: Some(receiver), thread: Some(thread), stop })
    }

    /// What the thread makes next; `None` once that is not there yet and `is_over`.
    fn next(&self, is_over: impl Fn() -> bool) -> Result<Option<(TokenBatch, DataState)>> {
        let batches = self.batches.as_ref().ok_or_else(Self::ended)?;
        loop {
            match batches.recv_timeout(PAUSE) {
                Ok(made) => return made.map(Some),
                Err(RecvTimeoutError::Timeout) if is_over() => return Ok(None),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Err(Self::ended()),
            }
        }
    }

    fn ended() -> Error {
        Error::Data("the thread that reads training data has ended; run again".into())
    }
}

impl fmt::Debug for Feed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Feed").field("thread", &self.thread).finish_non_exhaustive()
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        // A closed channel ends the thread at its next batch, and that may be a long download away.
        self.batches = None;
        (self.stop)();
        if let Some(thread) = self.thread.take() {
            // A panic there would be a defect, and was reported on stderr by the thread itself.
            let _ = thread.join();
        }
    }
}

/// Makes batches of rows out of the loader's sequences.
struct Maker {
    loader: mds::Loader<Vec<i32>>,
    rows: RowBuilder,
    source: Source,
}

impl Maker {
    fn run(mut self, sender: &SyncSender<Result<(TokenBatch, DataState)>>) {
        loop {
            let made = self.make();
            let failed = made.is_err();
            if sender.send(made).is_err() || failed {
                return;
            }
        }
    }

    fn make(&mut self) -> Result<(TokenBatch, DataState)> {
        let mut batch = TokenBatch::new(self.source.seq_len());
        // Two ends of an epoch without a row between them: nothing will ever come.
        let mut fruitless_epochs = 0;
        let mut before = self.rows.rest().len();
        loop {
            self.rows.fill(&mut batch, self.source.rows);
            if batch.rows == self.source.rows {
                break;
            }
            match self.loader.next_batch()? {
                Some(sequences) => {
                    self.rows.take(&sequences, &mut batch);
                    let short = batch.rows < self.source.rows;
                    if !self.source.joins_documents() && short {
                        match self.source.config.drop_last {
                            true => batch = TokenBatch::new(self.source.seq_len()),
                            false => break,
                        }
                    }
                }
                None => {
                    let grown = self.rows.rest().len() + batch.tokens.len() > before;
                    fruitless_epochs = if grown { 0 } else { fruitless_epochs + 1 };
                    before = self.rows.rest().len() + batch.tokens.len();
                    if fruitless_epochs == 2 {
                        return Err(Error::Data(format!(
                            "{} has no tokens at all; convert a source that has text",
                            self.source.address()
                        )));
                    }
                }
            }
        }
        let state = DataState {
            position: Some(self.loader.checkpoint()),
            buffer: self.rows.rest().to_vec(),
            pieces: self.rows.pieces(),
        };
        Ok((batch, state))
    }
}
