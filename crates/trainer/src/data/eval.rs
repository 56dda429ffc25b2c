//! Evaluation rows: one pass over the split, in its own order, as often as asked.

use std::time::Instant;

use convert::tokenizer::Tokenizer;

use super::batch::TokenBatch;
use super::rows::RowBuilder;
use super::source::Source;
use super::{AskedBy, Replica};
use crate::config::{Config, LoaderConfig};
use crate::error::Result;

/// The evaluation split.
#[derive(Debug)]
pub struct EvalData {
    source: Source,
    /// At most this many batches per pass.
    limit: Option<u64>,
}

impl EvalData {
    /// Opens the evaluation splits, one for each `eval_loader` of the configuration.
    ///
    /// # Errors
    /// As [`TrainData::open`](super::TrainData::open).
    pub fn open(config: &Config, tokenizer: &Tokenizer) -> Result<Vec<Self>> {
        let rows = config.device_eval_batch_size;
        let open = |loader: &LoaderConfig| {
            let limit = config.eval_subset_num_batches.or(loader.eval_subset_num_batches);
            let asked_by = AskedBy::Recipe;
            Self::of(loader, asked_by, rows, limit, config.model.vocab_size, tokenizer)
        };
        config.eval_loaders.iter().map(open).collect()
    }

    /// The configuration of its loader.
    pub fn loader(&self) -> &LoaderConfig {
        &self.source.config
    }

    /// The address of the split, for messages.
    pub fn address(&self) -> &str {
        self.source.address()
    }

    /// What says which data it is.
    pub fn asked_by(&self) -> AskedBy {
        self.source.asked_by
    }

    /// The split that `loader` names, in batches of `rows`, at most `limit` of them per pass, for a model that knows
    /// `vocab_size` tokens.
    ///
    /// # Errors
    /// As [`TrainData::open`](super::TrainData::open).
    pub fn of(
        loader: &LoaderConfig,
        asked_by: AskedBy,
        rows: usize,
        limit: Option<u64>,
        vocab_size: usize,
        tokenizer: &Tokenizer,
    ) -> Result<Self> {
        let replica = Replica::single();
        let source = Source::open(asked_by, loader, tokenizer, vocab_size, rows, replica)?;
        Ok(Self { source, limit })
    }

    /// One pass from the beginning, at most `eval_subset_num_batches` long.
    ///
    /// Where documents are joined, what does not fill the last row is left out.
    ///
    /// # Errors
    /// When the loader's threads cannot be started.
    pub fn pass(&self) -> Result<EvalPass> {
        Ok(EvalPass {
            loader: Some(self.source.loader(None)?),
            rows: self.source.row_builder(Vec::new(), Vec::new()),
            source: self.source.clone(),
            left: self.limit.unwrap_or(u64::MAX),
        })
    }

    /// Samples in the split.
    pub fn num_samples(&self) -> u64 {
        self.source.dataset.num_samples()
    }

    /// Batches in one pass, where that is known beforehand: where rows are whole samples.
    pub fn batches(&self) -> Option<u64> {
        let (samples, rows) = (self.source.dataset.len(), self.source.rows as u64);
        let all = match (self.source.joins_documents(), self.source.config.drop_last) {
            (true, _) => return self.limit,
            (false, true) => samples / rows,
            (false, false) => samples.div_ceil(rows),
        };
        Some(self.limit.map_or(all, |limit| limit.min(all)))
    }
}

/// The batches of one pass; ends after the first error.
#[derive(Debug)]
pub struct EvalPass {
    /// `None` once the end of the split was reached.
    loader: Option<mds::Loader<Vec<i32>>>,
    rows: RowBuilder,
    source: Source,
    left: u64,
}

impl EvalPass {
    /// A function that ends the pass from another thread: the batch that is waited for is then an error.
    pub fn stopper(&self) -> impl Fn() + Send + use<> {
        let stop = self.loader.as_ref().map(mds::Loader::stopper);
        move || stop.iter().for_each(|stop| stop())
    }

    fn make(&mut self) -> Result<Option<TokenBatch>> {
        let asked = Instant::now();
        let full = self.source.rows;
        let mut batch = TokenBatch::new(self.source.seq_len());
        loop {
            self.rows.fill(&mut batch, full);
            if batch.rows == full {
                break;
            }
            let Some(loader) = &mut self.loader else { break };
            match loader.next_batch()? {
                Some(sequences) => self.rows.take(&sequences, &mut batch),
                None => self.loader = None,
            }
        }
        batch.wait = asked.elapsed();
        let deliver = batch.rows == full || (batch.rows > 0 && !self.source.config.drop_last);
        Ok(deliver.then_some(batch))
    }
}

impl Iterator for EvalPass {
    type Item = Result<TokenBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            return None;
        }
        self.left -= 1;
        let made = self.make();
        if made.is_err() {
            self.left = 0;
        }
        made.transpose()
    }
}
