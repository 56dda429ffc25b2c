//! Shard files: how samples are gathered into them, and how their offsets are read.
//!
//! ```text
//! offset 0          uint32  n            number of samples
//! offset 4          uint32  off[n+1]     offsets in this file: sample i is off[i]..off[i+1]
//! offset 4+4(n+1)   bytes   config       JSON, repeated in index.json; readers skip it
//! offset off[0]     bytes   the samples, back to back, to the end of the file
//! ```

use std::ops::Range;

use serde::Serialize;

use super::compression::{Compression, MAX_SHARD_BYTES};
use super::hash::HashAlgorithm;
use super::json::to_python_json;
use super::schema::Schema;
use crate::{Error, Result};

const WORD: usize = size_of::<u32>();

/// How shards are written. All of it is repeated in each shard and in the index.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ShardConfig {
    /// The compression of the files, if any.
    pub compression: Option<Compression>,
    /// The hashes of the files, in ascending order of their names.
    pub hashes: Vec<HashAlgorithm>,
    /// The largest size of a shard before compression, in bytes. `None` or 0 for no limit but that
    /// of the format, 4 GiB.
    pub size_limit: Option<u64>,
}

/// The JSON text in the head of every shard. The fields are in the order of `sort_keys=True`.
#[derive(Serialize)]
struct ConfigText {
    column_encodings: Vec<String>,
    column_names: Vec<String>,
    column_sizes: Vec<Option<u32>>,
    compression: Option<String>,
    format: &'static str,
    hashes: Vec<&'static str>,
    size_limit: Option<u64>,
    version: u32,
}

impl ShardConfig {
    fn text(&self, schema: &Schema) -> String {
        let columns = schema.columns();
        to_python_json(&ConfigText {
            column_encodings: columns.iter().map(|c| c.encoding.to_string()).collect(),
            column_names: columns.iter().map(|c| c.name.clone()).collect(),
            column_sizes: schema.sizes().to_vec(),
            compression: self.compression.map(|c| c.to_string()),
            format: "mds",
            hashes: self.hashes.iter().map(|hash| hash.name()).collect(),
            size_limit: self.size_limit,
            version: 2,
        })
    }
}

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

/// The offsets of the samples of one shard, checked once so that reading a sample is a slice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardTable {
    /// One more than there are samples.
    offsets: Vec<u32>,
}

impl ShardTable {
    /// Reads the head of a shard file and checks it against the file's size and the number of
    /// samples in the index.
    ///
    /// # Errors
    /// `Corrupt`, with the byte, if the head is cut short, the number of samples is not
    /// `expected_samples`, or the offsets do not ascend from the end of the head to the end of the
    /// file.
    pub fn parse(bytes: &[u8], expected_samples: u64) -> Result<Self> {
        let size = bytes.len();
        let cut_short = || corrupt(format!("the shard is cut short: it has {size} bytes"), size);
        let (samples, rest) = bytes.split_first_chunk::<WORD>().ok_or_else(cut_short)?;
        let samples = u32::from_le_bytes(*samples);
        if u64::from(samples) != expected_samples {
            return Err(corrupt(
                format!(
                    "the shard holds {samples} samples, but the index declares {expected_samples}"
                ),
                0,
            ));
        }
        // On a 32-bit machine too the table of a file in memory is shorter than usize::MAX.
        let table_size = (samples as usize + 1).checked_mul(WORD).ok_or_else(cut_short)?;
        let table = rest.get(..table_size).ok_or_else(cut_short)?;
        let offsets: Vec<u32> =
            table.as_chunks::<WORD>().0.iter().map(|&word| u32::from_le_bytes(word)).collect();
        Self::check(&offsets, WORD + table_size, size)?;
        Ok(Self { offsets })
    }

    /// `head` is the size of the count and the offsets.
    fn check(offsets: &[u32], head: usize, size: usize) -> Result<()> {
        let first = offsets.first().map_or(0, |&offset| offset as usize);
        if first < head {
            return Err(corrupt(
                format!("the first sample begins at byte {first}, inside the table of offsets"),
                WORD,
            ));
        }
        if let Some(i) = offsets.windows(2).position(|pair| pair[0] > pair[1]) {
            return Err(corrupt(
                format!(
                    "the sample ends at byte {}, before its beginning at byte {}",
                    offsets[i + 1],
                    offsets[i]
                ),
                WORD * (i + 2),
            )
            .at_sample(i as u64));
        }
        let last = offsets.last().map_or(0, |&offset| offset as usize);
        if last != size {
            return Err(corrupt(
                format!("the samples end at byte {last}, but the shard has {size} bytes"),
                WORD * offsets.len(),
            ));
        }
        Ok(())
    }

    /// The number of samples.
    pub fn len(&self) -> usize {
        self.offsets.len() - 1
    }

    /// Whether the shard holds no sample, which is legal.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Where sample `i` lies in the file.
    ///
    /// # Panics
    /// If `i` is not below [`len`](Self::len), as indexing a slice does.
    pub fn range(&self, i: usize) -> Range<usize> {
        self.offsets[i] as usize..self.offsets[i + 1] as usize
    }

    /// Sample `i` of the file that this table was read from.
    ///
    /// # Errors
    /// `NotFound` if there is no such sample, `Corrupt` if `bytes` is shorter than the file was.
    pub fn sample<'a>(&self, bytes: &'a [u8], i: usize) -> Result<&'a [u8]> {
        if i >= self.len() {
            return Err(Error::new(
                crate::ErrorKind::NotFound,
                format!("there is no sample {i} in the shard"),
                format!("it has {} samples, numbered from 0", self.len()),
            ));
        }
        let range = self.range(i);
        bytes.get(range.clone()).ok_or_else(|| {
            corrupt(format!("the shard is cut short: it has {} bytes", bytes.len()), range.start)
                .at_sample(i as u64)
        })
    }
}

fn corrupt(what: impl Into<String>, byte: usize) -> Error {
    Error::corrupt(what, "fetch the shard again, or write it again from its source")
        .at_byte(byte as u64)
}
