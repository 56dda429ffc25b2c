//! Shard files: how samples are gathered into them.
//!
//! ```text
//! offset 0          uint32  n            number of samples
//! offset 4          uint32  off[n+1]     offsets in this file: sample i is off[i]..off[i+1]
//! offset 4+4(n+1)   bytes   config       JSON, repeated in index.json; readers skip it
//! offset off[0]     bytes   the samples, back to back, to the end of the file
//! ```

use super::compression::MAX_SHARD_BYTES;
use super::config::ShardConfig;
use super::schema::Schema;
use crate::{Error, Result};

const WORD: usize = size_of::<u32>();

/// A complete shard file, not compressed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawShard {
    /// The file.
    pub bytes: Vec<u8>,
    /// How many samples it holds.
    pub samples: u32,
}

/// Gathers samples into shards by the rule of the reference: a sample that would take the shard
/// beyond the limit closes it first, even if it is empty.
///
/// So a shard may have exactly the limit's size, a sample beyond the limit gets a shard of its own,
/// and if the very first sample is such a one, shard 0 is empty.
#[derive(Debug)]
pub struct ShardBuilder {
    config: String,
    size_limit: Option<u64>,
    /// The end of each sample in `data`.
    ends: Vec<u32>,
    data: Vec<u8>,
    /// A buffer for the next shard, given back by [`recycle`](Self::recycle).
    spare: Vec<u8>,
}

impl ShardBuilder {
    /// A builder with an empty shard.
    pub fn new(schema: &Schema, config: ShardConfig) -> Self {
        Self {
            config: config.text(schema),
            size_limit: config.size_limit.filter(|&limit| limit > 0),
            ends: Vec::new(),
            data: Vec::new(),
            spare: Vec::new(),
        }
    }

    /// The size of the file with the samples so far.
    pub fn size(&self) -> u64 {
        let head = 2 * WORD + self.config.len();
        head as u64 + (self.ends.len() * WORD) as u64 + self.data.len() as u64
    }

    /// The number of samples in the shard at hand.
    pub fn samples(&self) -> u32 {
        self.ends.len() as u32
    }

    /// Adds an encoded sample. Returns the shard that had no room for it, if so; the sample then is
    /// the first of the next one.
    ///
    /// # Errors
    /// `InvalidArgument` if the shard would exceed 4 GiB. The sample is then not added, and the
    /// shard at hand stays as it was.
    pub fn push(&mut self, sample: &[u8]) -> Result<Option<RawShard>> {
        let cost = (sample.len() + WORD) as u64;
        let rolls_over = self.size_limit.is_some_and(|limit| limit < self.size() + cost);
        let size_before = if rolls_over { self.empty_size() } else { self.size() };
        if size_before + cost > MAX_SHARD_BYTES {
            return Err(Error::invalid(
                format!(
                    "the sample of {} bytes makes a shard of {} bytes",
                    sample.len(),
                    size_before + cost
                ),
                "set size_limit below 4gb, or split the sample: offsets in a shard have 32 bits",
            ));
        }
        let full = rolls_over.then(|| self.take());
        self.data.extend_from_slice(sample);
        // Below MAX_SHARD_BYTES, as checked above.
        self.ends.push(self.data.len() as u32);
        Ok(full)
    }

    /// The last shard, if it holds any sample.
    pub fn finish(mut self) -> Option<RawShard> {
        (!self.ends.is_empty()).then(|| self.take())
    }

    /// Gives the buffer of a shard back for the next one.
    pub fn recycle(&mut self, shard: RawShard) {
        self.spare = shard.bytes;
    }

    fn empty_size(&self) -> u64 {
        (2 * WORD + self.config.len()) as u64
    }

    /// Lays out the shard at hand and starts an empty one.
    fn take(&mut self) -> RawShard {
        let mut bytes = std::mem::take(&mut self.spare);
        bytes.clear();
        bytes.reserve_exact(self.size() as usize);
        let samples = self.samples();
        let first = (self.size() - self.data.len() as u64) as u32;
        bytes.extend_from_slice(&samples.to_le_bytes());
        bytes.extend_from_slice(&first.to_le_bytes());
        for end in &self.ends {
            bytes.extend_from_slice(&(first + end).to_le_bytes());
        }
        bytes.extend_from_slice(self.config.as_bytes());
        bytes.extend_from_slice(&self.data);
        self.ends.clear();
        self.data.clear();
        RawShard { bytes, samples }
    }
}

#[cfg(test)]
mod tests {
    use super::super::encoding::Encoding;
    use super::super::table::ShardTable;
    use super::*;
    use crate::ErrorKind;

    fn schema() -> Schema {
        Schema::new([("x", Encoding::Bytes)]).unwrap()
    }

    fn builder(size_limit: Option<u64>) -> ShardBuilder {
        ShardBuilder::new(&schema(), ShardConfig { size_limit, ..ShardConfig::default() })
    }

    /// The samples per shard when samples of these sizes are added.
    fn roll_over(size_limit: Option<u64>, sizes: &[usize]) -> Vec<u32> {
        let mut builder = builder(size_limit);
        let mut shards = Vec::new();
        for &size in sizes {
            let before = builder.size();
            if let Some(shard) = builder.push(&vec![0; size]).unwrap() {
                assert_eq!(shard.bytes.len() as u64, before);
                shards.push(shard.samples);
                builder.recycle(shard);
            }
        }
        shards.extend(builder.finish().map(|shard| shard.samples));
        shards
    }

    #[test]
    fn the_head_of_a_shard_is_that_of_the_reference() {
        let mut builder = builder(Some(1000));
        builder.push(b"ab").unwrap();
        builder.push(b"c").unwrap();
        let config = r#"{"column_encodings": ["bytes"], "column_names": ["x"], "column_sizes": [null], "compression": null, "format": "mds", "hashes": [], "size_limit": 1000, "version": 2}"#;
        let first = 16 + config.len() as u32;
        let mut expected = Vec::new();
        for word in [2, first, first + 2, first + 3] {
            expected.extend_from_slice(&word.to_le_bytes());
        }
        expected.extend_from_slice(config.as_bytes());
        expected.extend_from_slice(b"abc");
        let shard = builder.finish().unwrap();
        assert_eq!(shard, RawShard { bytes: expected, samples: 2 });
    }

    #[test]
    fn shards_roll_over_before_the_limit_is_exceeded() {
        // The limit is part of the config: keep its digits the same.
        let empty = builder(Some(200)).size();
        assert_eq!(builder(Some(999)).size(), empty);
        let two = empty + 2 * (10 + 4);
        assert_eq!(roll_over(Some(two), &[10; 5]), [2, 2, 1], "an exact fit stays");
        assert_eq!(roll_over(Some(two - 1), &[10; 5]), [1, 1, 1, 1, 1]);
        assert_eq!(roll_over(Some(two + 1), &[10; 5]), [2, 2, 1]);
        assert_eq!(roll_over(Some(two), &[500, 10, 10, 500, 500]), [0, 1, 2, 1, 1]);
        for none in [None, Some(0)] {
            assert_eq!(roll_over(none, &[500; 5]), [5]);
        }
        assert_eq!(roll_over(Some(two), &[]), [0u32; 0]);
    }

    #[test]
    fn shards_over_4_gib_are_refused() {
        let mut builder = builder(None);
        builder.push(&[7; 10]).unwrap();
        // Zeroed pages: the address space is reserved, but no memory is touched.
        let sample = vec![0; u32::MAX as usize - 100];
        let error = builder.push(&sample).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert_eq!(
            error.to_string(),
            format!(
                "the sample of 4294967195 bytes makes a shard of {} bytes; set size_limit below \
                 4gb, or split the sample: offsets in a shard have 32 bits",
                builder.size() + 4 + 4_294_967_195
            )
        );
        assert_eq!(builder.samples(), 1, "the shard stays as it was");
        let shard = builder.finish().unwrap();
        assert_eq!(
            ShardTable::parse(&shard.bytes, 1).unwrap().sample(&shard.bytes, 0).unwrap(),
            [7; 10]
        );
    }
}
