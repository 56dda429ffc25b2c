//! Shuffled epochs through the loader, every token or byte summed by the thread that gets the batches.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use clap::ValueEnum;
use mds::shard::{Field, FieldType};
use mds::{
    BatchLoader, DatasetOptions, Loader, LoaderOptions, Rows, Sample, Stream, StreamingDataset,
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
            second(loader, |batch, total| {
                total.samples += batch.ids().len() as u64;
                total.add(bytemuck::cast_slice(batch.data()), sum_tokens(batch.data()));
                Ok(())
            })
        }
        Way::Tokens => {
            let (loader, tokens) =
                (samples(&dataset, options), field::<[i32]>(&dataset, "tokens")?);
            second(loader, |batch, total| {
                for sample in batch.items {
                    let tokens = sample.borrow()?.get(tokens)?;
                    total.samples += 1;
                    total.add(bytemuck::cast_slice(&tokens), sum_tokens(&tokens));
                }
                Ok(())
            })
        }
        Way::Text => {
            let (loader, text) = (samples(&dataset, options), field::<str>(&dataset, "text")?);
            second(loader, |batch, total| {
                for sample in batch.items {
                    let text = sample.borrow()?.get(text)?;
                    total.samples += 1;
                    total.add(text.as_bytes(), sum_bytes(text.as_bytes()));
                }
                Ok(())
            })
        }
    }
}

/// What has been read.
#[derive(Default)]
struct Total {
    samples: u64,
    bytes: u64,
    sum: u64,
}

impl Total {
    fn add(&mut self, bytes: &[u8], sum: u64) {
        self.bytes += bytes.len() as u64;
        self.sum += sum;
    }
}

/// Samples as they are: the map function has nothing to do.
fn samples(dataset: &Arc<StreamingDataset>, options: LoaderOptions) -> Loader<Sample> {
    Loader::new(Arc::clone(dataset), options, Ok)
}

fn field<T: FieldType + ?Sized>(dataset: &StreamingDataset, name: &str) -> Result<Field<T>> {
    let sample = dataset.sample(0)?;
    let mut fields = sample.shard().fields();
    let field = fields.field(name);
    fields.build()?;
    Ok(field)
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

/// The sum of tokens, which are not negative.
fn sum_tokens(tokens: &[i32]) -> u64 {
    // Two to the 15th of them cannot overflow 32 bits, as tokens are below 50,257.
    let blocks = tokens.chunks(1 << 15);
    blocks
        .map(|block| u64::from(block.iter().fold(0u32, |sum, &t| sum.wrapping_add(t as u32))))
        .sum()
}
