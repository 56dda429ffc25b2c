//! Documents of any length to samples of exactly `length` tokens.
//!
//! Each document's ids, with the begin- and end-of-text ids around them, are appended to a running
//! buffer; whenever it holds `length` tokens, a sample is cut off its front. What is left when the
//! documents end is never a sample.

/// Joins documents and cuts samples. Its whole state is [`Concatenator::pending`].
///
/// ```
/// let mut concat = convert::concat::Concatenator::new(4, vec![], vec![0], true);
/// let mut samples = Vec::new();
/// for document in [[1, 2, 3].as_slice(), &[4, 5, 6, 7, 8, 9]] {
///     concat.push(document, |sample| samples.push(sample.to_vec()));
/// }
/// assert_eq!(samples, [[1, 2, 3, 0], [4, 5, 6, 7]]);
/// assert_eq!(concat.pending(), [8, 9, 0]);
/// ```
#[derive(Debug, Clone)]
pub struct Concatenator {
    length: usize,
    bos: Vec<u32>,
    eos: Vec<u32>,
    wrap: bool,
    buffer: Vec<u32>,
}

impl Concatenator {
    /// Cuts samples of `length` tokens (at least 1), with `bos` before and `eos` after each
    /// document. Without `wrap` the rest of the buffer is thrown away at each cut, so that every
    /// sample begins with a document; a document then yields one sample at most.
    pub fn new(length: usize, bos: Vec<u32>, eos: Vec<u32>, wrap: bool) -> Self {
        Self { length: length.max(1), bos, eos, wrap, buffer: Vec::new() }
    }

    /// Goes on where another one had `pending` left.
    pub fn resume(&mut self, pending: Vec<u32>) {
        self.buffer = pending;
    }

    /// Adds one document and hands each sample that it completes to `emit`, in order.
    pub fn push(&mut self, document: &[u32], mut emit: impl FnMut(&[u32])) {
        self.buffer.extend_from_slice(&self.bos);
        self.buffer.extend_from_slice(document);
        self.buffer.extend_from_slice(&self.eos);
        let mut start = 0;
        while self.buffer.len() - start >= self.length {
            emit(&self.buffer[start..start + self.length]);
            start = if self.wrap { start + self.length } else { self.buffer.len() };
        }
        self.buffer.drain(..start);
    }

    /// The tokens that wait for more documents.
    pub fn pending(&self) -> &[u32] {
        &self.buffer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(mut concat: Concatenator, documents: &[&[u32]]) -> (Vec<Vec<u32>>, Vec<u32>) {
        let mut out = Vec::new();
        for document in documents {
            concat.push(document, |sample| out.push(sample.to_vec()));
        }
        (out, concat.pending().to_vec())
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
    fn a_last_part_is_no_sample() {
        let (out, pending) = samples(Concatenator::new(4, vec![], vec![], true), &[&[1, 2, 3]]);
        assert!(out.is_empty());
        assert_eq!(pending, [1, 2, 3]);
    }
}
