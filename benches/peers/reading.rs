//! Reading as a user does, with the sums of bytes that show that both sides read the same.

use std::fs;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::time::Instant;

use mds::format::{Index, Value};
use mds::{DatasetOptions, Shard, ShardOptions, Stream, StreamingDataset};
use serde_json::json;

use crate::Result;
use crate::limits::{Object, object};

/// All columns of all samples, name by name, as the reference's dictionary holds them. The sum is
/// that of the column `id`.
pub(crate) fn decode(data: &Path) -> Result<Object> {
    let index = Index::parse(&fs::read(data.join("index.json"))?)?;
    let start = Instant::now();
    let (mut samples, mut sum) = (0u64, 0i64);
    for info in &index.shards {
        let shard = Shard::open(data, info, ShardOptions::default())?;
        for sample in shard.samples()? {
            let values = black_box(sample.values()?);
            samples += 1;
            if let Some(("id", Value::Int(id))) = values.first() {
                sum += id;
            }
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    Ok(object(json!({ "seconds": seconds, "samples": samples, "sum": sum })))
}

/// The column `tokens` of the samples that the file `order` names, by their number in the dataset.
pub(crate) fn random(data: PathBuf, order: &Path) -> Result<Object> {
    let order = fs::read(order)?;
    let dataset = StreamingDataset::open(vec![Stream::local(data)], DatasetOptions::default())?;
    let start = Instant::now();
    let mut total = Total::default();
    for &id in order.as_chunks().0 {
        let sample = dataset.sample(u32::from_le_bytes(id).into())?;
        total.add(&sample.value("tokens")?)?;
    }
    Ok(total.result(start))
}

/// The same from open shards, where each sample's shard and position are known before.
pub(crate) fn random_in_shards(data: &Path, order: &Path) -> Result<Object> {
    let order = fs::read(order)?;
    let index = Index::parse(&fs::read(data.join("index.json"))?)?;
    let mut places = Vec::new();
    for (shard, info) in index.shards.iter().enumerate() {
        places.extend((0..info.samples as usize).map(|position| (shard, position)));
    }
    let start = Instant::now();
    let open = |info| Shard::open(data, info, ShardOptions::default());
    let shards = index.shards.iter().map(open).collect::<mds::Result<Vec<_>>>()?;
    let mut total = Total::default();
    for &id in order.as_chunks().0 {
        let (shard, position) = places[u32::from_le_bytes(id) as usize];
        total.add(&shards[shard].sample(position)?.value("tokens")?)?;
    }
    Ok(total.result(start))
}

/// The column `tokens` of all samples, in place.
pub(crate) fn iterate(data: &Path) -> Result<Object> {
    let index = Index::parse(&fs::read(data.join("index.json"))?)?;
    let start = Instant::now();
    let mut total = Total::default();
    for info in &index.shards {
        let shard = Shard::open(data, info, ShardOptions::default())?;
        for sample in shard.samples()? {
            total.add(&sample.value("tokens")?)?;
        }
    }
    Ok(total.result(start))
}

/// What has been read.
#[derive(Default)]
struct Total {
    samples: u64,
    bytes: usize,
    sum: u64,
}

impl Total {
    fn add(&mut self, value: &Value<'_>) -> Result<()> {
        let Value::NdArray(array) = value else { return Err("the value is no array".into()) };
        self.samples += 1;
        self.bytes += array.data.len();
        self.sum += sum_bytes(&array.data);
        Ok(())
    }

    fn result(self, start: Instant) -> Object {
        let (seconds, Self { samples, bytes, sum }) = (start.elapsed().as_secs_f64(), self);
        object(json!({ "seconds": seconds, "samples": samples, "bytes": bytes, "sum": sum }))
    }
}

/// The sum of all bytes, with the vectors of the machine, as numpy's.
pub(crate) fn sum_bytes(bytes: &[u8]) -> u64 {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has AVX2, as was asked in the line before.
        return unsafe { sum_bytes_avx2(bytes) };
    }
    sum_lanes(bytes)
}

/// [`sum_lanes`], compiled for vectors of 32 bytes.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn sum_bytes_avx2(bytes: &[u8]) -> u64 {
    sum_lanes(bytes)
}

/// Adds pairs of bytes in 16-bit lanes of 64-bit words, which the compiler turns into vector code.
#[inline(always)]
fn sum_lanes(bytes: &[u8]) -> u64 {
    const EVEN: u64 = 0x00ff_00ff_00ff_00ff;
    // A lane takes two bytes of each word: 128 words are the most that cannot overflow it.
    const WORDS: usize = 128;
    let (words, rest) = bytes.as_chunks::<8>();
    let mut sum: u64 = rest.iter().map(|&byte| u64::from(byte)).sum();
    for block in words.chunks(WORDS) {
        let mut lanes = 0u64;
        for &word in block {
            let word = u64::from_le_bytes(word);
            // Cannot overflow; wrapping, because checks would keep this from becoming vector code.
            lanes = lanes.wrapping_add((word & EVEN) + ((word >> 8) & EVEN));
        }
        sum += (0..4).map(|lane| (lanes >> (16 * lane)) & 0xffff).sum::<u64>();
    }
    sum
}
