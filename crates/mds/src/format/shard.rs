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
    /// Within this crate, how many bytes stand before the file in `bytes`; 0 in the public
    /// interface.
    pub(crate) skip: usize,
}

impl RawShard {
    /// The file, wherever in the buffer it begins.
    pub(crate) fn file(&self) -> &[u8] {
        &self.bytes[self.skip..]
    }

    /// Moves the file to the start of its buffer.
    fn aligned(mut self) -> Self {
        self.bytes.drain(..std::mem::take(&mut self.skip));
        self
    }
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
    /// The end of each sample among the samples.
    ends: Vec<u32>,
    /// Room for the head, then the samples, back to back. [`take`](Self::take) puts the head before
    /// them, in place: a shard is never in memory twice.
    data: Vec<u8>,
    /// How many bytes at the start of `data` are kept for the head: what the last one took, and a
    /// bit more. If that does not do, the samples are moved.
    room: usize,
    /// Buffers for the next shards, given back by [`recycle`](Self::recycle).
    spares: Vec<Vec<u8>>,
}

/// At most this part of the size limit is kept for the head. Only samples below about 60 bytes have
/// larger ones.
const ROOM: u64 = 16;

/// What a buffer without a size limit grows by at least, in bytes.
const GROWTH: usize = 1 << 20;

impl ShardBuilder {
    /// A builder with an empty shard.
    pub fn new(schema: &Schema, config: ShardConfig) -> Self {
        Self {
            config: config.text(schema),
            size_limit: config.size_limit.filter(|&limit| limit > 0),
            ends: Vec::new(),
            data: Vec::new(),
            room: 0,
            spares: Vec::new(),
        }
    }

    /// The JSON text in the head of every shard.
    pub(crate) fn config_text(&self) -> &str {
        &self.config
    }

    /// Starts with the samples of a shard that was written before, as if they had just been added.
    pub(crate) fn restore(&mut self, bytes: &[u8], table: &ShardTable) -> Result<()> {
        for i in 0..table.len() {
            // The table's offsets have 32 bits, so the size is in bounds.
            self.add(table.sample(bytes, i)?);
        }
        Ok(())
    }

    /// The size of the file with the samples so far.
    pub fn size(&self) -> u64 {
        let head = 2 * WORD + self.config.len();
        head as u64 + (self.ends.len() * WORD) as u64 + self.samples_size() as u64
    }

    /// The size of the samples so far.
    fn samples_size(&self) -> usize {
        // `data` is empty, without any room, until there is a sample.
        self.data.len().saturating_sub(self.room)
    }

    /// The number of samples in the shard at hand.
    pub fn samples(&self) -> u32 {
        self.ends.len() as u32
    }

    /// Whether adding a sample of `length` bytes would close the shard at hand first.
    pub(crate) fn rolls_over(&self, length: usize) -> bool {
        let cost = (length + WORD) as u64;
        self.size_limit.is_some_and(|limit| limit < self.size() + cost)
    }

    /// Adds an encoded sample. Returns the shard that had no room for it, if so; the sample then is
    /// the first of the next one.
    ///
    /// # Errors
    /// `InvalidArgument` if the shard would exceed 4 GiB. The sample is then not added, and the
    /// shard at hand stays as it was.
    pub fn push(&mut self, sample: &[u8]) -> Result<Option<RawShard>> {
        self.check_size(sample.len())?;
        let full = self.rolls_over(sample.len()).then(|| self.take().aligned());
        self.add(sample);
        Ok(full)
    }

    /// Refuses a sample of `length` bytes that would make a shard of more than 4 GiB.
    pub(crate) fn check_size(&self, length: usize) -> Result<()> {
        let before = if self.rolls_over(length) { self.empty_size() } else { self.size() };
        let size = before + (length + WORD) as u64;
        if size > MAX_SHARD_BYTES {
            return Err(Error::invalid(
                format!("the sample of {length} bytes makes a shard of {size} bytes"),
                "set size_limit below 4gb, or split the sample: offsets in a shard have 32 bits",
            ));
        }
        Ok(())
    }

    /// Adds a sample that passed [`check_size`](Self::check_size) to the shard at hand, whatever
    /// the limit.
    pub(crate) fn add(&mut self, sample: &[u8]) {
        self.make_room(sample.len());
        self.data.extend_from_slice(sample);
        // Below MAX_SHARD_BYTES.
        self.ends.push(self.samples_size() as u32);
    }

    /// The last shard, if it holds any sample.
    pub fn finish(mut self) -> Option<RawShard> {
        self.take_last().map(RawShard::aligned)
    }

    /// [`finish`](Self::finish) that leaves the file where it is.
    pub(crate) fn take_last(&mut self) -> Option<RawShard> {
        (!self.ends.is_empty()).then(|| self.take())
    }

    /// Gives the buffer of a shard back for a later one.
    pub fn recycle(&mut self, shard: RawShard) {
        let RawShard { bytes, .. } = shard;
        // One sample beyond the limit must not cost its memory for ever.
        let usual = |limit: u64| bytes.capacity() as u64 <= limit.saturating_mul(2);
        if self.size_limit.is_some_and(usual) {
            self.spares.push(bytes);
        }
    }

    fn empty_size(&self) -> u64 {
        (2 * WORD + self.config.len()) as u64
    }

    /// Makes sure that the shard at hand, its head included, fits in its buffer with one more
    /// sample of `length` bytes.
    fn make_room(&mut self, length: usize) {
        if self.data.capacity() == 0 {
            self.data = self.spares.pop().unwrap_or_default();
            self.data.clear();
        }
        if self.ends.is_empty() {
            self.data.resize(self.room, 0);
        }
        let needed = self.room + self.size() as usize + WORD + length;
        if needed <= self.data.capacity() {
            return;
        }
        let size = self.data.len();
        let usual = self.size_limit.and_then(|limit| usize::try_from(limit + limit / ROOM).ok());
        if let Some(usual) = usual.filter(|&usual| needed <= usual) {
            // The whole shard at once: pages that stay unused cost no memory. If there is no room
            // for the limit, there may be for the data.
            if self.data.try_reserve_exact(usual - size).is_ok() {
                return;
            }
        }
        // A quarter more, since nobody knows how much is to come.
        let target = needed.max(size + size / 4 + GROWTH);
        self.data.reserve_exact(target - size);
    }

    /// Lays out the shard at hand and starts an empty one.
    pub(crate) fn take(&mut self) -> RawShard {
        let samples = self.samples();
        let size = self.samples_size();
        let head = self.size() as usize - size;
        let mut bytes = std::mem::take(&mut self.data);
        let mut start = bytes.len() - size;
        if start < head {
            bytes.resize(head + size, 0);
            bytes.copy_within(start..start + size, head);
            start = head;
        }
        let skip = start - head;
        let (words, config) = bytes[skip..start].split_at_mut(head - self.config.len());
        let ends = self.ends.iter().map(|&end| head as u32 + end);
        let values = [samples, head as u32].into_iter().chain(ends);
        for (word, value) in words.as_chunks_mut::<WORD>().0.iter_mut().zip(values) {
            *word = value.to_le_bytes();
        }
        config.copy_from_slice(self.config.as_bytes());
        self.ends.clear();
        let most = self.size_limit.map_or(0, |limit| limit / ROOM);
        self.room = (head + head / 8).min(most as usize);
        RawShard { bytes, samples, skip }
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

    /// The number of samples that a shard file claims to hold, for want of an index.
    pub(crate) fn claimed_samples(bytes: &[u8]) -> u64 {
        bytes.first_chunk::<WORD>().map_or(0, |word| u32::from_le_bytes(*word).into())
    }

    /// The JSON text in the head of the file that this table was read from.
    pub(crate) fn config_text<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        let start = WORD * (1 + self.offsets.len());
        let end = self.offsets.first().map_or(start, |&offset| offset as usize);
        bytes.get(start..end).unwrap_or_default()
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

#[cfg(test)]
mod tests {
    use super::super::encoding::Encoding;
    use super::*;
    use crate::ErrorKind;

    const REMEDY: &str = "fetch the shard again, or write it again from its source";

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
        assert_eq!(shard, RawShard { bytes: expected, samples: 2, skip: 0 });
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

    #[test]
    fn a_restored_shard_goes_on_as_if_it_had_never_been_closed() {
        let limit = Some(300);
        let samples: Vec<Vec<u8>> = (0..40).map(|i| vec![i; 1 + usize::from(i) * 7 % 23]).collect();
        let mut shards = Vec::new();
        let mut builder_of_all = builder(limit);
        for sample in &samples {
            shards.extend(builder_of_all.push(sample).unwrap());
        }
        shards.extend(builder_of_all.finish());
        assert!(shards.len() > 3);
        let mut done = 0;
        for (number, shard) in shards.iter().enumerate() {
            let table = ShardTable::parse(&shard.bytes, shard.samples.into()).unwrap();
            assert_eq!(table.config_text(&shard.bytes), builder(limit).config_text().as_bytes());
            done += table.len();
            let mut restored = builder(limit);
            restored.restore(&shard.bytes, &table).unwrap();
            let mut again = Vec::new();
            for sample in &samples[done..] {
                again.extend(restored.push(sample).unwrap());
            }
            again.extend(restored.finish());
            assert_eq!(again, shards[number..]);
        }
    }

    #[test]
    fn a_shard_beyond_the_limit_is_restored_whole() {
        let mut first = builder(Some(200));
        assert_eq!(first.push(&[1; 500]).unwrap().unwrap().samples, 0);
        let shard = first.finish().unwrap();
        let table = ShardTable::parse(&shard.bytes, 1).unwrap();
        let mut restored = builder(Some(200));
        restored.restore(&shard.bytes, &table).unwrap();
        assert_eq!(restored.finish().unwrap(), shard);
    }

    #[test]
    fn buffers_fit_their_shards_and_are_used_again() {
        let mut builder = builder(Some(1 << 16));
        let shard = loop {
            if let Some(shard) = builder.push(&[3; 100]).unwrap() {
                break shard;
            }
        };
        assert_eq!(shard.bytes.capacity(), (1 << 16) + (1 << 12), "reserved at once");
        let address = shard.bytes.as_ptr();
        builder.recycle(shard);
        let second = loop {
            if let Some(shard) = builder.push(&[3; 100]).unwrap() {
                break shard;
            }
        };
        assert_ne!(second.bytes.as_ptr(), address, "it was being filled already");
        let third = loop {
            if let Some(shard) = builder.push(&[3; 100]).unwrap() {
                break shard;
            }
        };
        assert_eq!(third.bytes.as_ptr(), address);
    }

    /// The head is put before the samples whether the room that was kept for it does or not.
    #[test]
    fn heads_of_any_size_are_laid_out_in_place() {
        let sizes = [300, 1, 1, 900, 2, 400, 60, 0, 0, 300];
        let mut moved = builder(Some(8000));
        let mut in_place = builder(Some(8000));
        let (mut skips, mut shards) = (Vec::new(), Vec::new());
        for i in 0..1000usize {
            let sample = vec![i as u8; sizes[i / 100]];
            if in_place.rolls_over(sample.len()) {
                let shard = in_place.take();
                skips.push(shard.skip);
                shards.push((shard.file().to_vec(), shard.samples));
                in_place.recycle(shard);
            }
            in_place.add(&sample);
            if let Some(shard) = moved.push(&sample).unwrap() {
                assert_eq!((&shard.bytes, shard.skip), (&shards.last().unwrap().0, 0));
                ShardTable::parse(&shard.bytes, shard.samples.into()).unwrap();
            }
        }
        assert!(skips.contains(&0) && skips.iter().any(|&skip| skip > 0), "{skips:?}");
        assert_eq!(in_place.finish(), moved.finish());
    }

    fn example() -> Vec<u8> {
        let mut builder = builder(None);
        for sample in [b"abc".as_slice(), b"d", b"ef"] {
            builder.push(sample).unwrap();
        }
        builder.finish().unwrap().bytes
    }

    #[test]
    fn samples_are_slices_of_the_file() {
        let bytes = example();
        let table = ShardTable::parse(&bytes, 3).unwrap();
        assert_eq!(table.len(), 3);
        assert_eq!(&bytes[table.range(0)], b"abc");
        assert_eq!(table.sample(&bytes, 2).unwrap(), b"ef");
        assert_eq!(
            table.sample(&bytes, 3).unwrap_err().to_string(),
            "there is no sample 3 in the shard; it has 3 samples, numbered from 0"
        );
        let cut = bytes.len() - 1;
        assert_eq!(
            table.sample(&bytes[..cut], 2).unwrap_err().to_string(),
            format!(
                "sample 2, byte {}: the shard is cut short: it has {cut} bytes; {REMEDY}",
                cut - 1
            )
        );
    }

    #[test]
    fn an_empty_shard_is_legal() {
        let shard = builder(None).take();
        let table = ShardTable::parse(&shard.bytes, 0).unwrap();
        assert!(table.is_empty());
    }

    #[test]
    fn damaged_tables_are_corrupt() {
        let good = example();
        let message = |bytes: &[u8], samples| {
            let error = ShardTable::parse(bytes, samples).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt);
            error.to_string()
        };
        for cut in [0, 3, 4, 19] {
            assert_eq!(
                message(&good[..cut], 3),
                format!("byte {cut}: the shard is cut short: it has {cut} bytes; {REMEDY}")
            );
        }
        let size = good.len();
        assert_eq!(
            message(&good[..size - 1], 3),
            format!(
                "byte 16: the samples end at byte {size}, but the shard has {} bytes; {REMEDY}",
                size - 1
            )
        );
        let longer = [good.as_slice(), &[0]].concat();
        assert_eq!(
            message(&longer, 3),
            format!(
                "byte 16: the samples end at byte {size}, but the shard has {} bytes; {REMEDY}",
                size + 1
            )
        );
        assert_eq!(
            message(&good, 4),
            format!("byte 0: the shard holds 3 samples, but the index declares 4; {REMEDY}")
        );
        let with = |byte: usize, word: u32| {
            let mut bytes = good.clone();
            bytes[byte..byte + 4].copy_from_slice(&word.to_le_bytes());
            bytes
        };
        assert_eq!(
            message(&with(4, 19), 3),
            format!(
                "byte 4: the first sample begins at byte 19, inside the table of offsets; {REMEDY}"
            )
        );
        let first = size - 6;
        assert_eq!(
            message(&with(8, first as u32 - 1), 3),
            format!(
                "sample 0, byte 8: the sample ends at byte {}, before its beginning at byte \
                 {first}; {REMEDY}",
                first - 1
            )
        );
        assert_eq!(
            message(&with(12, u32::MAX), 3),
            format!(
                "sample 2, byte 16: the sample ends at byte {size}, before its beginning at byte \
                 4294967295; {REMEDY}"
            )
        );
        assert_eq!(
            message(&u32::MAX.to_le_bytes(), u32::MAX.into()),
            format!("byte 4: the shard is cut short: it has 4 bytes; {REMEDY}")
        );
    }
}
