//! Token sequences of any length to rows of one length.

use super::batch::TokenBatch;
use crate::config::GroupMethod;

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
}

impl RowBuilder {
    /// Goes on with `buffer`, empty at the start of a run.
    pub(super) fn new(method: GroupMethod, seq_len: usize, pad: i32, buffer: Vec<i32>) -> Self {
        Self { method, seq_len, pad, buffer, used: 0 }
    }

    /// Joins a batch of sequences to what waits, or adds each as a row of `batch` where rows are
    /// whole samples.
    pub(super) fn take(&mut self, sequences: &[Vec<i32>], batch: &mut TokenBatch) {
        match self.method {
            GroupMethod::Truncate => {
                for sequence in sequences {
                    batch.push(sequence, self.pad);
                }
            }
            GroupMethod::Concat => {
                self.buffer.drain(..self.used);
                self.used = 0;
                self.buffer.extend(sequences.iter().flatten());
            }
        }
    }

    /// Cuts rows off the front of what waits until `batch` has `rows` of them or too little is
    /// left.
    pub(super) fn fill(&mut self, batch: &mut TokenBatch, rows: usize) {
        while batch.rows < rows && self.rest().len() >= self.seq_len {
            batch.push(&self.buffer[self.used..self.used + self.seq_len], self.pad);
            self.used += self.seq_len;
        }
    }

    /// The tokens that wait.
    pub(super) fn rest(&self) -> &[i32] {
        &self.buffer[self.used..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn joined_sequences_are_cut_without_loss_or_overlap() {
        let mut rows = RowBuilder::new(GroupMethod::Concat, 3, 0, vec![1, 2]);
        let mut batch = TokenBatch::new(3);
        rows.take(&[vec![3, 4], vec![], vec![5, 6, 7, 8, 9, 10, 11]], &mut batch);
        rows.fill(&mut batch, 2);
        assert_eq!(batch.tokens, [1, 2, 3, 4, 5, 6]);
        assert_eq!(rows.rest(), [7, 8, 9, 10, 11]);

        let mut batch = TokenBatch::new(3);
        rows.fill(&mut batch, 2);
        assert_eq!((batch.rows, rows.rest()), (1, &[10, 11][..]));
        rows.take(&[vec![12]], &mut batch);
        rows.fill(&mut batch, 2);
        assert_eq!(batch.tokens, [7, 8, 9, 10, 11, 12]);
        assert!(rows.rest().is_empty());
    }

    #[test]
    fn whole_samples_are_cut_or_padded() {
        let mut rows = RowBuilder::new(GroupMethod::Truncate, 3, 9, Vec::new());
        let mut batch = TokenBatch::new(3);
        rows.take(&[vec![1, 2, 3, 4], vec![5]], &mut batch);
        assert_eq!(batch.tokens, [1, 2, 3, 5, 9, 9]);
        assert_eq!(batch.labels, [2, 3, -100, -100, -100, -100]);
    }
}
