//! The table of offsets at the head of a shard, checked once so that reading a sample is a slice.

use std::ops::Range;

use super::damage::Damage;
use crate::{Error, Result};

const WORD: usize = size_of::<u32>();

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
        Self::parse_head(bytes, expected_samples, bytes.len())
    }

    /// [`parse`](Self::parse) of the first bytes of a file of `size` bytes:
    /// [`head_bytes`](Self::head_bytes) are enough.
    pub(crate) fn parse_head(bytes: &[u8], expected_samples: u64, size: usize) -> Result<Self> {
        let (offsets, head) = read_offsets(bytes, expected_samples)?;
        let first = offsets.first().copied().unwrap_or(0);
        if (first as usize) < head {
            return Err(at(WORD, Damage::FirstOffset { offset: first }));
        }
        check_order(&offsets, size)?;
        Ok(Self { offsets })
    }

    /// The size of the count and the offsets of so many samples, in bytes.
    pub(crate) const fn head_bytes(samples: u64) -> u64 {
        (samples + 2) * WORD as u64
    }

    /// Reads the `.meta` file of a text format, whose offsets are those of a data file of
    /// `data_bytes` bytes.
    ///
    /// # Errors
    /// As [`parse`](Self::parse).
    pub fn parse_meta(meta: &[u8], expected_samples: u64, data_bytes: u64) -> Result<Self> {
        let (offsets, _) = read_offsets(meta, expected_samples)?;
        check_order(&offsets, usize::try_from(data_bytes).unwrap_or(usize::MAX))?;
        Ok(Self { offsets })
    }

    /// The size of what stands before the first sample, in bytes.
    pub(crate) fn first_offset(&self) -> usize {
        self.offsets.first().map_or(0, |&offset| offset as usize)
    }

    /// The number of samples that a file with this head claims to hold, for want of an index.
    pub(crate) fn claimed_samples(head: &[u8]) -> u64 {
        head.first_chunk::<WORD>().map_or(0, |word| u32::from_le_bytes(*word).into())
    }

    /// The JSON text in the head of an MDS shard, or at the end of a file of offsets, from which
    /// this table was read.
    pub(crate) fn config_text<'a>(&self, head: &'a [u8], is_meta: bool) -> &'a [u8] {
        let start = WORD * (1 + self.offsets.len());
        let end = if is_meta { head.len() } else { self.first_offset().max(start) };
        head.get(start..end).unwrap_or_default()
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
            at(range.start, Damage::CutShort { bytes: bytes.len() as u64 }).at_sample(i as u64)
        })
    }
}

/// The offsets and the size of the count and the offsets together.
fn read_offsets(bytes: &[u8], expected_samples: u64) -> Result<(Vec<u32>, usize)> {
    let size = bytes.len();
    let cut_short = || at(size, Damage::CutShort { bytes: size as u64 });
    let (samples, rest) = bytes.split_first_chunk::<WORD>().ok_or_else(cut_short)?;
    let samples = u32::from_le_bytes(*samples);
    if u64::from(samples) != expected_samples {
        let found = samples.into();
        return Err(at(0, Damage::SampleCount { found, declared: expected_samples }));
    }
    // On a 32-bit machine too the table of a file in memory is shorter than usize::MAX.
    let table_size = (samples as usize + 1).checked_mul(WORD).ok_or_else(cut_short)?;
    let table = rest.get(..table_size).ok_or_else(cut_short)?;
    let words = table.as_chunks::<WORD>().0;
    Ok((words.iter().map(|&word| u32::from_le_bytes(word)).collect(), WORD + table_size))
}

/// Refuses offsets that go backwards or do not end with the file of the samples.
fn check_order(offsets: &[u32], size: usize) -> Result<()> {
    if let Some(i) = offsets.windows(2).position(|pair| pair[0] > pair[1]) {
        let damage = Damage::OffsetsDescend { begin: offsets[i], end: offsets[i + 1] };
        return Err(at(WORD * (i + 2), damage).at_sample(i as u64));
    }
    let end = offsets.last().copied().unwrap_or(0);
    if end as usize != size {
        return Err(at(WORD * offsets.len(), Damage::SamplesEnd { end, bytes: size as u64 }));
    }
    Ok(())
}

fn at(byte: usize, damage: Damage) -> Error {
    Error::from(damage).at_byte(byte as u64)
}

#[cfg(test)]
mod tests {
    use super::super::{Encoding, Schema, ShardBuilder, ShardConfig};
    use super::*;
    use crate::ErrorKind;

    const REMEDY: &str = "fetch the shard again, or write it again from its source";

    fn builder(size_limit: Option<u64>) -> ShardBuilder {
        let schema = Schema::new([("x", Encoding::Bytes)]).unwrap();
        ShardBuilder::new(&schema, ShardConfig { size_limit, ..ShardConfig::default() })
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
        let shard = builder(Some(1)).push(b"too large").unwrap().unwrap();
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
