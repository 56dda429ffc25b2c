//! Shuffled epochs through the loader, every token or byte summed by the thread that gets the batches.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use clap::ValueEnum;
use mds::format::Value;
use mds::shard::Field;
use mds::{
    Batch, BatchLoader, DatasetOptions, Loader, LoaderOptions, Rows, Sample, Stream,
    StreamingDataset,
};
use serde_json::json;

use crate::Result;
use crate::limits::{Object, object};
use crate::reading::sum_bytes;

/// What the loader delivers.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Way {
    /// Batches of tokens, gathered into one buffer each.
    Rows,
    /// Samples of tokens, each a slice of its shard.
    Tokens,
    /// Samples of text, each a slice of its shard.
    Text,
}

/// The second of two epochs in the order of `py1e`: the first one maps the shards and has its threads
/// and buffers.
pub(crate) fn epoch(
    data: PathBuf,
    way: Way,
    workers: usize,
    batch: usize,
    width: usize,
) -> Result<Object> {
    let mut options = DatasetOptions::default();
    options.order.batch_size = Some(batch);
    options.order.shuffle = true;
    let dataset = StreamingDataset::open(vec![Stream::local(data)], options)?;
    let options = LoaderOptions { num_workers: workers, ..LoaderOptions::default() };
    match way {
        Way::Rows => {
            let loader = BatchLoader::<Rows<i32>>::rows(dataset, options, "tokens", width)?;
            second(loader, add_rows)
        }
        Way::Tokens => second(samples(&dataset, options), add_tokens),
        Way::Text => {
            let (loader, text) = (samples(&dataset, options), text_field(&dataset)?);
            second(loader, |batch, total| add_text(batch, text, total))
        }
    }
}

pub(crate) fn add_rows(batch: Rows<i32>, total: &mut Total) -> Result<()> {
    let tokens = bytemuck::cast_slice(batch.data());
    total.samples += batch.ids().len() as u64;
    total.add(tokens, sum_tokens(tokens));
    Ok(())
}

pub(crate) fn add_tokens(batch: Batch<Sample>, total: &mut Total) -> Result<()> {
    for sample in batch.items {
        let Value::NdArray(array) = sample.value("tokens")? else {
            return Err("the column tokens is no array".into());
        };
        total.samples += 1;
        total.add(&array.data, sum_tokens(&array.data));
    }
    Ok(())
}

pub(crate) fn add_text(batch: Batch<Sample>, text: Field<str>, total: &mut Total) -> Result<()> {
    for sample in batch.items {
        let text = sample.borrow()?.get(text)?;
        total.samples += 1;
        total.add(text.as_bytes(), sum_bytes(text.as_bytes()));
    }
    Ok(())
}

/// What has been read.
#[derive(Default)]
pub(crate) struct Total {
    pub(crate) samples: u64,
    pub(crate) bytes: u64,
    pub(crate) sum: u64,
}

impl Total {
    fn add(&mut self, bytes: &[u8], sum: u64) {
        self.bytes += bytes.len() as u64;
        self.sum += sum;
    }
}

/// Samples as they are: the map function has nothing to do.
pub(crate) fn samples(dataset: &Arc<StreamingDataset>, options: LoaderOptions) -> Loader<Sample> {
    Loader::new(Arc::clone(dataset), options, Ok)
}

pub(crate) fn text_field(dataset: &StreamingDataset) -> Result<Field<str>> {
    let sample = dataset.sample(0)?;
    let mut fields = sample.fields();
    let text = fields.field("text");
    fields.build()?;
    Ok(text)
}

/// Runs two epochs, and reports the second.
fn second<B: Send + 'static>(
    mut loader: BatchLoader<B>,
    mut each: impl FnMut(B, &mut Total) -> Result<()>,
) -> Result<Object> {
    let mut epoch = || -> Result<(f64, Total)> {
        let mut total = Total::default();
        let start = Instant::now();
        while let Some(batch) = loader.next_batch()? {
            each(batch, &mut total)?;
        }
        Ok((start.elapsed().as_secs_f64(), total))
    };
    epoch()?;
    let (seconds, Total { samples, bytes, sum }) = epoch()?;
    Ok(object(json!({ "seconds": seconds, "samples": samples, "bytes": bytes, "sum": sum })))
}

/// The sum of tokens of 32 bits, wherever they lie: those in shards are not aligned.
fn sum_tokens(bytes: &[u8]) -> u64 {
    // So many of them cannot overflow 32 bits, as tokens are below 50,257.
    const BLOCK: usize = 1 << 15;
    let (tokens, _) = bytes.as_chunks::<4>();
    let sum = |block: &[[u8; 4]]| {
        block.iter().fold(0u32, |sum, &token| sum.wrapping_add(u32::from_le_bytes(token)))
    };
    tokens.chunks(BLOCK).map(|block| u64::from(sum(block))).sum()
}
