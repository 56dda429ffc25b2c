//! A shuffled epoch of 2,048-token samples through the loader, every token summed by the thread that
//! gets the batches: gathered into one buffer for each batch, or as slices of the shards, with some
//! numbers of worker threads. 128 MiB of tokens, in files that are in memory; the epoch before, which
//! maps them, is not measured.

use std::path::Path;
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use mds::format::{NdArray, Schema};
use mds::{
    BatchLoader, DatasetOptions, Loader, LoaderOptions, Rows, Sample, Stream, StreamingDataset,
    Writer, WriterOptions,
};

const SAMPLES: u64 = 16_384;
const TOKENS: usize = 2_048;
const BATCH: usize = 32;

fn write(dir: &Path) {
    let schema = Schema::new([("tokens", "ndarray:int32".parse().expect("an encoding"))]);
    let schema = schema.expect("one column");
    let mut writer =
        Writer::create(dir, schema, WriterOptions::default()).expect("an empty folder");
    for sample in 0..SAMPLES {
        let tokens: Vec<i32> =
            (0..TOKENS as u64).map(|at| ((sample * 7919 + at * 104_729) % 50_257) as i32).collect();
        writer.write(&[NdArray::from_i32(&tokens).into()]).expect("there is room");
    }
    writer.finish().expect("there is room");
}

/// One epoch, and with it the end of the loader's epoch.
fn drain<B: Send + 'static>(loader: &mut BatchLoader<B>, mut sum: impl FnMut(&B) -> u64) -> u64 {
    let mut total = 0;
    while let Some(batch) = loader.next_batch().expect("a sound dataset") {
        total += sum(&batch);
    }
    total
}

/// The sum of tokens of 32 bits, wherever they lie: those in shards are not aligned. They are below
/// 50,257, so that a batch of them has a sum below 2^32.
fn sum(bytes: &[u8]) -> u64 {
    let (tokens, _) = bytes.as_chunks::<4>();
    let add = |sum: u32, &token: &[u8; 4]| sum.wrapping_add(u32::from_le_bytes(token));
    tokens.iter().fold(0, add).into()
}

fn sum_sample(sample: &Sample) -> u64 {
    let value = sample.value("tokens").expect("the column was written");
    sum(&value.as_ndarray().expect("the column is of arrays").data)
}

fn epochs(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    write(folder.path());
    let mut options = DatasetOptions::default();
    options.order.batch_size = Some(BATCH);
    options.order.shuffle = true;
    let dataset = StreamingDataset::open(vec![Stream::local(folder.path())], options)
        .expect("the dataset was just written");
    let mut group = criterion.benchmark_group("epoch of tokens");
    group.sample_size(20);
    group.throughput(Throughput::Elements(SAMPLES));
    for num_workers in [0, 1, 2] {
        let options = LoaderOptions { num_workers, ..LoaderOptions::default() };
        let mut loader =
            BatchLoader::<Rows<i32>>::rows(Arc::clone(&dataset), options, "tokens", TOKENS)
                .expect("the column was written");
        let expected = drain(&mut loader, |batch| sum(bytemuck::cast_slice(batch.data())));
        group.bench_function(format!("one buffer, {num_workers} workers"), |bencher| {
            bencher.iter(|| {
                let total = drain(&mut loader, |batch| sum(bytemuck::cast_slice(batch.data())));
                assert_eq!(total, expected);
            });
        });
        let mut loader = Loader::new(Arc::clone(&dataset), options, Ok);
        group.bench_function(format!("zero-copy samples, {num_workers} workers"), |bencher| {
            bencher.iter(|| {
                let total = drain(&mut loader, |batch| batch.items.iter().map(sum_sample).sum());
                assert_eq!(total, expected);
            });
        });
    }
    group.finish();
}

criterion_group!(benches, epochs);
criterion_main!(benches);
