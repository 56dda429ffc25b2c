//! From an MDS dataset of text or tokens to batches of token ids, ahead of the model.
//!
//! A sample's way: the loader's threads read it and, where the dataset holds text, tokenise it
//! (`source.rs`); one thread takes the results in the exact order of the dataset and cuts them into
//! rows (`rows.rs`), so that the rows do not depend on the number of threads; finished batches wait
//! in a short queue for the training loop (`train.rs`). Evaluation is one pass over its split, in
//! order (`eval.rs`).

mod batch;
mod eval;
mod rows;
mod source;
mod train;

pub use batch::{IGNORED, TokenBatch};
pub use eval::{EvalData, EvalPass};
pub use rows::Piece;
pub use train::{DataState, TrainData};

/// What says which data is read, for the remedies in messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AskedBy {
    /// A recipe.
    Recipe,
    /// The flags of `evaluate`.
    Flags,
}

/// The place of this process among those that train together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replica {
    /// The number of this process, from 0.
    pub rank: usize,
    /// How many processes there are.
    pub world_size: usize,
}

impl Replica {
    /// One process alone.
    pub const fn single() -> Self {
        Self { rank: 0, world_size: 1 }
    }
}
