//! Shard files: how samples are gathered into them.
//!
//! An MDS shard is one file:
//!
//! ```text
//! offset 0          uint32  n            number of samples
//! offset 4          uint32  off[n+1]     offsets in this file: sample i is off[i]..off[i+1]
//! offset 4+4(n+1)   bytes   config       JSON, repeated in index.json; readers skip it
//! offset off[0]     bytes   the samples, back to back, to the end of the file
//! ```
//!
//! In the [text formats](super::Format) the first three parts are a file of their own, `.meta`, and
//! the offsets are those of the data file. Separated values begin with a line of column names.

use super::compression::MAX_SHARD_BYTES;
use super::config::ShardConfig;
use super::schema::Schema;
use super::table::ShardTable;
use crate::huge_pages::ask_for_huge_pages;
use crate::{Error, Result};

const WORD: usize = size_of::<u32>();

/// The complete files of a shard, not compressed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawShard {
    /// The data file.
    pub bytes: Vec<u8>,
    /// The file of offsets, for formats with one.
    pub meta: Option<Vec<u8>>,
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
    /// For formats with a file of offsets, what stands before the first sample in the data file.
    text_header: Option<String>,
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
            text_header: config.format.has_meta().then(|| config.format.header(schema)),
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

    /// The size that counts against the limit: of the MDS file with the samples so far, or of the
    /// lines of text so far.
    pub fn size(&self) -> u64 {
        self.empty_size() + (self.ends.len() * self.word()) as u64 + self.samples_size() as u64
    }

    /// The size of the samples so far.
    fn samples_size(&self) -> usize {
        self.ends.last().map_or(0, |&end| end as usize)
    }

    /// The size of the words and the config that go before the samples or into a file of their own.
    fn head_size(&self) -> usize {
        (2 + self.ends.len()) * WORD + self.config.len()
    }

    /// What counting a sample takes in the file of the samples.
    fn word(&self) -> usize {
        if self.text_header.is_some() { 0 } else { WORD }
    }

    /// The number of samples in the shard at hand.
    pub fn samples(&self) -> u32 {
        self.ends.len() as u32
    }

    /// Whether adding a sample of `length` bytes would close the shard at hand first.
    pub(crate) fn rolls_over(&self, length: usize) -> bool {
        let cost = (length + self.word()) as u64;
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
        let header = self.text_header.as_ref().map_or(0, String::len);
        let size = before + (length + self.word() + header) as u64;
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
        self.count(sample.len());
    }

    /// Has `encode` put a sample behind those of the shard at hand, where it saves a copy, and
    /// returns its length. It is not one of them before it is [counted](Self::count); until then,
    /// nothing but [`tail`](Self::tail) may follow.
    pub(crate) fn encode(
        &mut self,
        encode: impl FnOnce(&mut Vec<u8>) -> Result<()>,
    ) -> Result<usize> {
        self.make_room(0);
        let start = self.data.len();
        encode(&mut self.data)?;
        Ok(self.data.len() - start)
    }

    /// Makes the encoded sample of this length one of the shard at hand.
    pub(crate) fn count(&mut self, length: usize) {
        // Below MAX_SHARD_BYTES, as `check_size` has found.
        self.ends.push((self.samples_size() + length) as u32);
    }

    /// Takes the encoded sample of this length, which is not counted, off the shard at hand.
    pub(crate) fn tail(&mut self, length: usize) -> Vec<u8> {
        self.data.split_off(self.data.len() - length)
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
        if self.text_header.is_some() { 0 } else { (2 * WORD + self.config.len()) as u64 }
    }

    /// Makes sure that the shard at hand, its head included, fits in its buffer with one more
    /// sample of `length` bytes.
    fn make_room(&mut self, length: usize) {
        if self.data.capacity() == 0 {
            self.data = self.spares.pop().unwrap_or_default();
            self.data.clear();
        }
        if self.ends.is_empty() && self.data.is_empty() {
            self.data.resize(self.room, 0);
        }
        let header = self.text_header.as_ref().map_or(0, String::len);
        let needed = self.room + header + self.size() as usize + self.word() + length;
        if needed <= self.data.capacity() {
            return;
        }
        let size = self.data.len();
        let usual = self.size_limit.and_then(|limit| usize::try_from(limit + limit / ROOM).ok());
        if let Some(usual) = usual.filter(|&usual| needed <= usual) {
            // The whole shard at once: pages that stay unused cost no memory. If there is no room
            // for the limit, there may be for the data.
            if self.data.try_reserve_exact(usual - size).is_ok() {
                ask_for_huge_pages(&mut self.data);
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
        let head = self.text_header.as_ref().map_or_else(|| self.head_size(), String::len);
        let mut bytes = std::mem::take(&mut self.data);
        let mut start = bytes.len() - size;
        if start < head {
            bytes.resize(head + size, 0);
            bytes.copy_within(start..start + size, head);
            start = head;
        }
        let skip = start - head;
        let meta = match &self.text_header {
            None => {
                self.write_head(&mut bytes[skip..start], head);
                None
            }
            Some(header) => {
                bytes[skip..start].copy_from_slice(header.as_bytes());
                let mut meta = vec![0; self.head_size()];
                self.write_head(&mut meta, head);
                Some(meta)
            }
        };
        self.ends.clear();
        let most = self.size_limit.map_or(0, |limit| limit / ROOM);
        self.room = (head + head / 8).min(most as usize);
        RawShard { bytes, meta, samples, skip }
    }

    /// Fills `head` with the number of samples, their offsets, of which the first is `first`, and
    /// the config.
    fn write_head(&self, head: &mut [u8], first: usize) {
        let (words, config) = head.split_at_mut(head.len() - self.config.len());
        let first = first as u32;
        let ends = self.ends.iter().map(|&end| first + end);
        let values = [self.samples(), first].into_iter().chain(ends);
        for (word, value) in words.as_chunks_mut::<WORD>().0.iter_mut().zip(values) {
            *word = value.to_le_bytes();
        }
        config.copy_from_slice(self.config.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::super::encoding::Encoding;
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
        assert_eq!(shard, RawShard { bytes: expected, meta: None, samples: 2, skip: 0 });
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
            assert_eq!(
                table.config_text(&shard.bytes, false),
                builder(limit).config_text().as_bytes()
            );
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
}
