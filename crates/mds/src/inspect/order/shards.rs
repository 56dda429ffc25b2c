//! The shards that the order is about: how many samples and bytes each has, and which holds a
//! sample.

use super::streams::{Dataset, StreamSpec};
use super::{Failure, Source};
use mds::ErrorKind;
use mds::order::StreamShape;

/// A stream as it was found.
#[derive(Debug)]
pub(super) struct StreamInfo {
    /// Its address, or its sizes as they were given.
    pub(super) name: String,
    pub(super) shape: StreamShape,
    /// Numbers of its first sample and its first shard among all streams.
    pub(super) first_sample: u64,
    pub(super) first_shard: usize,
}

/// All shards of all streams, numbered through.
#[derive(Debug)]
pub(super) struct Shards {
    /// The number of the first sample of each shard, and at the end the number of samples.
    starts: Vec<u64>,
    /// Bytes of each shard in a cache, and to download.
    pub(super) raw: Vec<u64>,
    pub(super) stored: Vec<u64>,
    /// The shard of every `2^shift`th sample: where to look for those after it.
    hints: Vec<u32>,
    shift: u32,
}

/// Finds the shards of all streams. Reads the indexes of datasets, no shard.
pub(super) fn find(
    specs: &[StreamSpec],
    split: Option<&str>,
) -> Result<(Vec<StreamInfo>, Shards), Failure> {
    let mut streams = Vec::with_capacity(specs.len());
    let (mut starts, mut raw, mut stored) = (vec![0_u64], Vec::new(), Vec::new());
    for spec in specs {
        let (name, sizes) = match &spec.dataset {
            Dataset::Remote(address) => {
                let source = Source::find(address.clone(), split)?;
                let shards = &source.index.shards;
                raw.extend(shards.iter().map(|shard| shard.raw_bytes()));
                stored.extend(shards.iter().map(|shard| shard.stored_bytes()));
                let sizes: Vec<u64> = shards.iter().map(|shard| shard.samples).collect();
                (source.remote.address().to_owned(), sizes)
            }
            Dataset::Sizes { given, sizes } => {
                let largest = sizes.iter().copied().max().unwrap_or(0).max(1);
                let bytes = |size: &u64| {
                    (u128::from(spec.bytes) * u128::from(*size) / u128::from(largest)) as u64
                };
                raw.extend(sizes.iter().map(bytes));
                stored.extend(sizes.iter().map(bytes));
                (given.clone(), sizes.clone())
            }
        };
        let mut end = starts[starts.len() - 1];
        let (first_sample, first_shard) = (end, starts.len() - 1);
        for size in &sizes {
            end = end.saturating_add(*size);
            starts.push(end);
        }
        let shape = StreamShape { shard_sizes: sizes, weight: spec.weight };
        streams.push(StreamInfo { name, shape, first_sample, first_shard });
    }
    let shards = Shards::new(starts, raw, stored);
    shards.check()?;
    Ok((streams, shards))
}

impl Shards {
    fn new(starts: Vec<u64>, raw: Vec<u64>, stored: Vec<u64>) -> Self {
        let mut shards = Self { starts, raw, stored, hints: Vec::new(), shift: 0 };
        // A few hints for each shard: the search then is short, and the table small.
        let most = 4 * shards.len() as u64 + 1;
        while shards.samples() >> shards.shift > most {
            shards.shift += 1;
        }
        let blocks = shards.samples() >> shards.shift;
        let last = shards.len().saturating_sub(1) as u32;
        shards.hints = (0..=blocks)
            .map(|block| shards.search(block << shards.shift, 0, last))
            .chain([last])
            .collect();
        shards
    }

    /// Refuses more than can be counted here: a bit is kept of each sample, and a sum of the bytes.
    fn check(&self) -> Result<(), Failure> {
        const MOST_SAMPLES: u64 = 1 << 35;
        const MOST_BYTES: u128 = 1 << 60;
        let refuse = |what: String, remedy: String| {
            Err(Failure::Dataset(mds::Error::new(ErrorKind::InvalidArgument, what, remedy)))
        };
        if self.samples() > MOST_SAMPLES {
            return refuse(
                format!("the streams have {} samples, more than can be followed", self.samples()),
                format!("give streams of at most {MOST_SAMPLES} samples"),
            );
        }
        let bytes: u128 = self.raw.iter().chain(&self.stored).map(|bytes| u128::from(*bytes)).sum();
        if bytes > MOST_BYTES {
            return refuse(
                format!("the shards have {bytes} bytes, more than can be added up"),
                format!("lower shard_bytes, so that all shards have at most {MOST_BYTES}"),
            );
        }
        Ok(())
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.starts.len() - 1
    }

    /// Samples of all shards.
    pub(super) fn samples(&self) -> u64 {
        self.starts[self.starts.len() - 1]
    }

    /// The shard that holds a sample.
    pub(super) fn of(&self, sample: u64) -> u32 {
        let block = (sample >> self.shift) as usize;
        self.search(sample, self.hints[block], self.hints[block + 1])
    }

    /// The last shard from `first` to `last` that begins at or before a sample. Empty shards share
    /// their start with the next one; the last of equals has the sample.
    fn search(&self, sample: u64, first: u32, last: u32) -> u32 {
        let after = &self.starts[first as usize + 1..=last as usize];
        first + after.partition_point(|start| *start <= sample) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_found_in_shards_of_any_size() {
        let sizes = [0_u64, 3, 0, 0, 1, 900, 0, 1, 1, 5000, 2, 0];
        let shard_of: Vec<u32> = (0_u32..)
            .zip(sizes)
            .flat_map(|(shard, size)| std::iter::repeat_n(shard, size as usize))
            .collect();
        let mut starts = vec![0];
        starts.extend(sizes.iter().scan(0, |end, size| {
            *end += size;
            Some(*end)
        }));
        let shards = Shards::new(starts, vec![1; 12], vec![1; 12]);
        assert!(shards.shift > 0, "the hints are fewer than the samples");
        for (sample, shard) in shard_of.iter().enumerate() {
            assert_eq!(shards.of(sample as u64), *shard, "sample {sample}");
        }
    }
}
