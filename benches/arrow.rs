//! Shards as Arrow record batches and back: texts, and arrays of 512 tokens as int32.

use std::hint::black_box;
use std::path::Path;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use mds::arrow::BatchRows;
use mds::format::{NdArray, Schema, Value};
use mds::{Shard, ShardOptions, Writer, WriterOptions};

const SAMPLES: usize = 10_000;

/// A dataset of one shard with one column.
fn one_column(dir: &Path, encoding: &str, value: impl Fn(usize) -> Value<'static>) -> Shard {
    let schema = Schema::new([("x", encoding.parse().expect("the name of an encoding"))]);
    let schema = schema.expect("one column");
    let options = WriterOptions { size_limit: None, ..WriterOptions::default() };
    let mut writer = Writer::create(dir, schema, options).expect("a new directory");
    for id in 0..SAMPLES {
        writer.write(&[value(id)]).expect("the value fits");
    }
    let index = writer.finish().expect("the disk has room");
    let options = ShardOptions::default().copied().without_hashes();
    Shard::open(dir, &index.shards[0], options).expect("it was just written")
}

fn arrow(criterion: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let tokens = |id: usize| {
        let tokens: Vec<i32> = (0..512).map(|i| (i * 37 + id as i32 * 11) % 50_257).collect();
        Value::NdArray(NdArray::from_i32(&tokens))
    };
    let ascii = |id: usize| Value::from(format!("sample {id} ").repeat(170));
    let unicode = |id: usize| Value::from(format!("Muster für {id} ").repeat(130));
    let cases = [
        ("text, ascii", one_column(&dir.path().join("ascii"), "str", ascii)),
        ("text, unicode", one_column(&dir.path().join("unicode"), "str", unicode)),
        ("ndarray:int32", one_column(&dir.path().join("list"), "ndarray:int32", tokens)),
        ("ndarray:int32:512", one_column(&dir.path().join("fixed"), "ndarray:int32:512", tokens)),
    ];
    let mut group = criterion.benchmark_group("to_record_batch");
    group.sample_size(20);
    for (name, shard) in &cases {
        group.throughput(Throughput::Bytes(shard.bytes().len() as u64));
        group.bench_function(*name, |b| b.iter(|| shard.to_record_batch()));
    }
    group.finish();
    let mut group = criterion.benchmark_group("batch rows");
    group.sample_size(20);
    for (name, shard) in &cases {
        let batch = shard.to_record_batch().expect("a sound shard");
        let rows = BatchRows::new(shard.schema(), &batch).expect("the columns of the shard");
        group.throughput(Throughput::Bytes(shard.bytes().len() as u64));
        group.bench_function(*name, |b| {
            let (mut values, mut sample) = (Vec::new(), Vec::new());
            b.iter(|| {
                for row in 0..rows.len() {
                    rows.read(row, &mut values).expect("it came from a shard");
                    shard.schema().encode_sample(&values, &mut sample).expect("as it came");
                    black_box(&sample);
                }
            });
        });
    }
    group.finish();
}

criterion_group!(benches, arrow);
criterion_main!(benches);
