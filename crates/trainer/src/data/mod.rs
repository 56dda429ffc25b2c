//! From an MDS dataset of text or tokens to batches of token ids, ahead of the model.

mod batch;

pub use batch::{IGNORED, TokenBatch};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Where training data stands, after the batches handed out so far.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DataState {
    /// Tokens of documents already read that did not fill a row yet.
    pub buffer: Vec<i32>,
}

/// The training rows of one rank, without end.
#[derive(Debug)]
pub struct TrainData {}

impl TrainData {
    /// The next device batch.
    ///
    /// # Errors
    /// When the dataset cannot be read, or holds what the configuration does not allow.
    pub fn next_batch(&mut self) -> Result<TokenBatch> {
        Err(Error::Data("the training data reader is not finished".into()))
    }

    /// Where the data stands after the last batch handed out.
    pub fn state(&self) -> DataState {
        DataState { buffer: Vec::new() }
    }

    /// Continues from a saved position.
    ///
    /// # Errors
    /// When the state belongs to another dataset.
    pub fn restore(&mut self, _state: DataState) -> Result<()> {
        Ok(())
    }

    /// Batches per epoch, where rows are whole samples; `None` where documents are joined.
    pub fn batches_per_epoch(&self) -> Option<u64> {
        None
    }
}
