//! Documents of any length to samples of exactly `length` tokens.
//!
//! Each document's ids, with the begin- and end-of-text ids around them, are appended to a running
//! buffer; whenever it holds `length` tokens, a sample is cut off its front. What is left when the
//! documents end is never a sample.

use serde::{Deserialize, Serialize};

/// Joins documents and cuts samples. Its whole state is [`Concatenator::pending`].
///
/// ```
/// let mut concat = convert::concat::Concatenator::new(4, vec![], vec![0], true);
/// let mut samples = Vec::new();
/// for document in [[1, 2, 3].as_slice(), &[4, 5, 6, 7, 8, 9]] {
///     concat.push(document, |sample| samples.push((sample.ids.to_vec(), sample.sequence_ids())));
/// }
/// assert_eq!(samples[0], (vec![1, 2, 3, 0], vec![0, 0, 0, 0]));
/// assert_eq!(samples[1], (vec![4, 5, 6, 7], vec![0, 0, 0, 0]));
/// assert_eq!(concat.pending().ids, [8, 9, 0]);
/// ```
#[derive(Debug, Clone)]
pub struct Concatenator {
    length: usize,
    bos: Vec<u32>,
    eos: Vec<u32>,
    wrap: bool,
    pending: Pending,
}

/// Tokens that wait to become a sample.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    /// The tokens.
    pub ids: Vec<u32>,
    /// Where documents begin among them.
    pub starts: Vec<usize>,
}

/// A sample that was cut.
#[derive(Debug, Clone, Copy)]
pub struct Cut<'a> {
    /// Its tokens, `[length]`.
    pub ids: &'a [u32],
    /// Where documents begin in the buffer that it was cut from, and where it begins there itself.
    starts: &'a [usize],
    offset: usize,
}

impl Cut<'_> {
    /// For each token, how many documents have begun since the first token of the sample: `[length]`, from 0.
    pub fn sequence_ids(&self) -> Vec<i32> {
        let end = self.offset + self.ids.len();
        let mut ids = vec![0; self.ids.len()];
        for &start in self.starts.iter().filter(|&&start| self.offset < start && start < end) {
            ids[start - self.offset..].iter_mut().for_each(|id| *id += 1);
        }
        ids
    }
}

impl Concatenator {
    /// Cuts samples of `length` tokens (at least 1), with `bos` before and `eos` after each
    /// document. Without `wrap` the rest of the buffer is thrown away at each cut, so that every
    /// sample begins with a document; a document then yields one sample at most.
    pub fn new(length: usize, bos: Vec<u32>, eos: Vec<u32>, wrap: bool) -> Self {
        Self { length: length.max(1), bos, eos, wrap, pending: Pending::default() }
    }

    /// Goes on where another one had `pending` left.
    pub fn resume(&mut self, pending: Pending) {
        self.pending = pending;
    }

    /// Adds one document and hands each sample that it completes to `emit`, in order.
    pub fn push(&mut self, document: &[u32], mut emit: impl FnMut(Cut<'_>)) {
        let Pending { ids, starts } = &mut self.pending;
        starts.push(ids.len());
        for part in [&*self.bos, document, &*self.eos] {
            ids.extend_from_slice(part);
        }
        let mut offset = 0;
        while ids.len() - offset >= self.length {
            emit(Cut { ids: &ids[offset..offset + self.length], starts, offset });
            offset = if self.wrap { offset + self.length } else { ids.len() };
        }
        if offset > 0 {
            ids.drain(..offset);
            starts.retain(|&start| start >= offset);
            starts.iter_mut().for_each(|start| *start -= offset);
        }
    }

    /// The tokens that wait for more documents.
    pub fn pending(&self) -> &Pending {
        &self.pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(mut concat: Concatenator, documents: &[&[u32]]) -> (Vec<Vec<u32>>, Vec<u32>) {
        let mut out = Vec::new();
        for document in documents {
            concat.push(document, |sample| out.push(sample.ids.to_vec()));
        }
        (out, concat.pending().ids.clone())
    }

    #[test]
    fn documents_run_on_across_samples() {
        let concat = Concatenator::new(3, vec![7], vec![8, 9], true);
        let (out, pending) = samples(concat, &[&[1], &[2, 3, 4, 5, 6], &[]]);
        assert_eq!(out, [[7, 1, 8], [9, 7, 2], [3, 4, 5], [6, 8, 9], [7, 8, 9]]);
        assert!(pending.is_empty());
    }

    #[test]
    fn without_wrap_the_rest_of_a_cut_is_thrown_away() {
        let concat = Concatenator::new(3, vec![], vec![0], false);
        let (out, pending) = samples(concat, &[&[1, 2, 3, 4, 5, 6, 7], &[8], &[9, 9], &[5]]);
        assert_eq!(out, [[1, 2, 3], [8, 0, 9]]);
        assert_eq!(pending, [5, 0]);
    }

    #[test]
    fn sequence_ids_count_the_documents_of_a_sample() {
        let mut concat = Concatenator::new(4, vec![], vec![0], true);
        let mut ids = Vec::new();
        for document in [&[1][..], &[2, 3], &[4, 5, 6, 7, 8], &[], &[9, 9]] {
            concat.push(document, |sample| ids.push(sample.sequence_ids()));
        }
        // 1 0 2 3 | 0 4 5 6 | 7 8 0 0 | 9 9 0
        assert_eq!(ids, [[0, 0, 1, 1], [0, 1, 1, 1], [0, 0, 0, 1]]);
        assert_eq!(concat.pending(), &Pending { ids: vec![9, 9, 0], starts: vec![0] });
        let mut resumed = Concatenator::new(4, vec![], vec![0], true);
        resumed.resume(concat.pending().clone());
        resumed.push(&[1], |sample| ids.push(sample.sequence_ids()));
        assert_eq!(ids[3], [0, 0, 0, 1]);
    }

    #[test]
    fn a_last_part_is_no_sample() {
        let (out, pending) = samples(Concatenator::new(4, vec![], vec![], true), &[&[1, 2, 3]]);
        assert!(out.is_empty());
        assert_eq!(pending, [1, 2, 3]);
    }
}
