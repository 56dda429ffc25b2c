//! Token sequences of any length to rows of one length.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::batch::TokenBatch;
use crate::config::GroupMethod;

/// Tokens that wait, and what they are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Piece {
    /// The sample's number in the dataset.
    pub sample: u64,
    /// How many of its tokens wait.
    pub tokens: usize,
}

/// Cuts sequences into rows, one batch at a time. What did not fill a row waits for more.
#[derive(Clone, Debug)]
pub(super) struct RowBuilder {
    method: GroupMethod,
    seq_len: usize,
    /// What fills up a row that is too short.
    pad: i32,
    /// Joined sequences that no row was cut from yet ([`GroupMethod::Concat`] only).
    buffer: Vec<i32>,
    /// How much of the front of `buffer` is used up already.
    used: usize,
    /// What the rest of `buffer` is of, front to back.
    pieces: VecDeque<Piece>,
}

impl RowBuilder {
    /// Goes on with `buffer`, which is of `pieces`; both are empty at the start of a run.
    pub(super) fn new(
        method: GroupMethod,
        seq_len: usize,
        pad: i32,
        buffer: Vec<i32>,
        pieces: Vec<Piece>,
    ) -> Self {
        Self { method, seq_len, pad, buffer, used: 0, pieces: pieces.into() }
    }

    /// Joins a batch of sequences to what waits, or adds each as a row of `batch` where rows are
    /// whole samples.
    pub(super) fn take(&mut self, sequences: &mds::Batch<Vec<i32>>, batch: &mut TokenBatch) {
        let sequences = sequences.ids.iter().zip(&sequences.items);
        match self.method {
            GroupMethod::Truncate => {
                for (sample, sequence) in sequences {
                    batch.push_of(vec![*sample], sequence, self.pad);
                }
            }
            GroupMethod::Concat => {
                self.buffer.drain(..self.used);
                self.used = 0;
                for (sample, sequence) in sequences.filter(|(_, sequence)| !sequence.is_empty()) {
                    self.buffer.extend(sequence);
                    self.pieces.push_back(Piece { sample: *sample, tokens: sequence.len() });
                }
            }
        }
    }

    /// Cuts rows off the front of what waits until `batch` has `rows` of them or too little is
    /// left.
    pub(super) fn fill(&mut self, batch: &mut TokenBatch, rows: usize) {
        while batch.rows < rows && self.rest().len() >= self.seq_len {
            let samples = self.samples_of_a_row();
            batch.push_of(samples, &self.buffer[self.used..self.used + self.seq_len], self.pad);
            self.used += self.seq_len;
        }
    }

    /// Takes the pieces of the next row off the front.
    fn samples_of_a_row(&mut self) -> Vec<u64> {
        let (mut samples, mut wanted) = (Vec::new(), self.seq_len);
        while let Some(piece) = self.pieces.front_mut().filter(|_| wanted > 0) {
            let taken = piece.tokens.min(wanted);
            samples.push(piece.sample);
            wanted -= taken;
            piece.tokens -= taken;
            if piece.tokens == 0 {
                self.pieces.pop_front();
            }
        }
        samples
    }

    /// The tokens that wait.
    pub(super) fn rest(&self) -> &[i32] {
        &self.buffer[self.used..]
    }

    /// What [the tokens that wait](Self::rest) are of.
    pub(super) fn pieces(&self) -> Vec<Piece> {
        self.pieces.iter().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sequences(items: Vec<Vec<i32>>) -> mds::Batch<Vec<i32>> {
        mds::Batch { ids: (50..).take(items.len()).collect(), items }
    }

    #[test]
    fn joined_sequences_are_cut_without_loss_or_overlap() {
        let before = vec![Piece { sample: 40, tokens: 2 }];
        let mut rows = RowBuilder::new(GroupMethod::Concat, 3, 0, vec![1, 2], before);
        let mut batch = TokenBatch::new(3);
        let joined = sequences(vec![vec![3, 4], vec![], vec![5, 6, 7, 8, 9, 10, 11]]);
        rows.take(&joined, &mut batch);
        rows.fill(&mut batch, 2);
        assert_eq!(batch.tokens, [1, 2, 3, 4, 5, 6]);
        assert_eq!(batch.samples, [[40, 50], [50, 52]]);
        assert_eq!(rows.rest(), [7, 8, 9, 10, 11]);
        assert_eq!(rows.pieces(), [Piece { sample: 52, tokens: 5 }]);

        let mut batch = TokenBatch::new(3);
        rows.fill(&mut batch, 2);
        assert_eq!((batch.rows, rows.rest()), (1, &[10, 11][..]));
        rows.take(&sequences(vec![vec![12]]), &mut batch);
        rows.fill(&mut batch, 2);
        assert_eq!(batch.tokens, [7, 8, 9, 10, 11, 12]);
        assert_eq!(batch.samples, [vec![52], vec![52, 50]]);
        assert!(rows.rest().is_empty() && rows.pieces().is_empty());
    }

    #[test]
    fn tokens_of_an_older_checkpoint_are_of_no_known_sample() {
        let mut rows = RowBuilder::new(GroupMethod::Concat, 3, 0, vec![1, 2, 3, 4], Vec::new());
        let mut batch = TokenBatch::new(3);
        rows.fill(&mut batch, 1);
        assert_eq!(batch.samples, [Vec::<u64>::new()]);
    }

    #[test]
    fn whole_samples_are_cut_or_padded() {
        let mut rows = RowBuilder::new(GroupMethod::Truncate, 3, 9, Vec::new(), Vec::new());
        let mut batch = TokenBatch::new(3);
        rows.take(&sequences(vec![vec![1, 2, 3, 4], vec![5]]), &mut batch);
        assert_eq!(batch.tokens, [1, 2, 3, 5, 9, 9]);
        assert_eq!(batch.labels, [2, 3, -100, -100, -100, -100]);
        assert_eq!(batch.samples, [[50], [51]]);
    }
}
