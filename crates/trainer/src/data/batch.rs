//! Rows of tokens and their labels.

use std::time::Duration;

/// The label of a position that the loss leaves out.
pub const IGNORED: i32 = -100;

/// A batch of token ids and the labels to predict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenBatch {
    /// Token ids, `[rows, seq_len]`, row by row.
    pub tokens: Vec<i32>,
    /// The token that follows each position, `[rows, seq_len]`; [`IGNORED`] at the last position of
    /// every row and wherever padding would have to be predicted.
    pub labels: Vec<i32>,
    /// The samples that each row was taken from, in their order, by their numbers in the dataset; `[rows]` lists.
    pub samples: Vec<Vec<u64>>,
    /// Number of rows.
    pub rows: usize,
    /// Tokens per row.
    pub seq_len: usize,
    /// How long the caller had to wait for this batch.
    pub wait: Duration,
}

impl TokenBatch {
    /// An empty batch of rows of `seq_len` tokens.
    pub fn new(seq_len: usize) -> Self {
        Self {
            tokens: Vec::new(),
            labels: Vec::new(),
            samples: Vec::new(),
            rows: 0,
            seq_len,
            wait: Duration::ZERO,
        }
    }

    /// Adds a row that is of no dataset; one shorter than `seq_len` is filled up with `pad`, which is never a label.
    pub fn push(&mut self, row: &[i32], pad: i32) {
        self.push_of(Vec::new(), row, pad);
    }

    /// Adds a row as [`push`](Self::push) does, taken from `samples`.
    pub fn push_of(&mut self, samples: Vec<u64>, row: &[i32], pad: i32) {
        self.samples.push(samples);
        let row = &row[..row.len().min(self.seq_len)];
        self.tokens.extend_from_slice(row);
        self.tokens.resize((self.rows + 1) * self.seq_len, pad);
        self.labels.extend(row.iter().skip(1));
        self.labels.resize((self.rows + 1) * self.seq_len, IGNORED);
        self.rows += 1;
    }

    /// How many positions have a label.
    pub fn labelled(&self) -> usize {
        self.labels.iter().filter(|label| **label != IGNORED).count()
    }

    /// The samples that the batch was taken from, in their order. One that goes over several rows is listed once.
    pub fn sample_ids(&self) -> Vec<u64> {
        let mut ids: Vec<u64> = self.samples.iter().flatten().copied().collect();
        ids.dedup();
        ids
    }

    /// Rows `start..end` as a batch of their own: a microbatch.
    ///
    /// # Panics
    /// When the range reaches past the last row.
    pub fn slice(&self, rows: std::ops::Range<usize>) -> Self {
        let range = rows.start * self.seq_len..rows.end * self.seq_len;
        Self {
            tokens: self.tokens[range.clone()].to_vec(),
            labels: self.labels[range].to_vec(),
            samples: self.samples[rows.clone()].to_vec(),
            rows: rows.len(),
            seq_len: self.seq_len,
            wait: self.wait,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_the_tokens_shifted_left() {
        let mut batch = TokenBatch::new(4);
        batch.push(&[1, 2, 3, 4], 9);
        batch.push(&[5, 6, 7, 8, 99], 9);
        assert_eq!(batch.tokens, [1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(batch.labels, [2, 3, 4, IGNORED, 6, 7, 8, IGNORED]);
        assert_eq!((batch.rows, batch.labelled()), (2, 6));
        assert_eq!(batch.slice(1..2).tokens, [5, 6, 7, 8]);
    }

    #[test]
    fn a_sample_of_several_rows_is_listed_once() {
        let mut batch = TokenBatch::new(2);
        batch.push_of(vec![7, 3], &[1, 2], 9);
        batch.push_of(vec![3], &[3, 4], 9);
        batch.push_of(vec![3, 5], &[5, 6], 9);
        assert_eq!(batch.sample_ids(), [7, 3, 5]);
        assert_eq!(batch.slice(1..3).samples, [vec![3], vec![3, 5]]);
    }

    #[test]
    fn padding_is_never_a_label() {
        let mut batch = TokenBatch::new(4);
        batch.push(&[1, 2], 9);
        batch.push(&[], 9);
        assert_eq!(batch.tokens, [1, 2, 9, 9, 9, 9, 9, 9]);
        assert_eq!(batch.labels, [2, -100, -100, -100, -100, -100, -100, -100]);
    }
}
