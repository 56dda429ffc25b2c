//! The hot paths of the format: encoding a sample, filling a shard, checking a table of offsets,
//! reading samples and making Arrow batches of them. Samples of 2 KiB: 512 tokens as int32, and an
//! id; for Arrow also texts.

use std::hint::black_box;
use std::path::Path;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use mds::arrow::BatchRows;
use mds::format::{
    Compression, Encoding, HashAlgorithm, NdArray, Schema, ShardBuilder, ShardConfig, ShardTable,
    Value,
};
use mds::{Shard, ShardOptions, Writer, WriterOptions};

const SAMPLES: usize = 10_000;

fn schema() -> Schema {
    let tokens = "ndarray:int32:512".parse().expect("the name of an encoding");
    Schema::new([("id", Encoding::Int), ("tokens", tokens)]).expect("two columns")
}

/// The values of one sample.
fn values(id: i64) -> [Value<'static>; 2] {
    let tokens: Vec<i32> = (0..512).map(|i| (i * 37 + id as i32 * 11) % 50_257).collect();
    [Value::Int(id), Value::NdArray(NdArray::from_i32(&tokens))]
}

/// A shard of [`SAMPLES`] samples.
fn shard(schema: &Schema) -> Vec<u8> {
    let mut builder = ShardBuilder::new(schema, ShardConfig::default());
    let mut sample = Vec::new();
    for id in 0..SAMPLES {
        schema.encode_sample(&values(id as i64), &mut sample).expect("the values fit");
        builder.push(&sample).expect("20 MB fit");
    }
    builder.finish().expect("there are samples").bytes
}

fn samples(criterion: &mut Criterion) {
    let schema = schema();
    let bytes = shard(&schema);
    let table = ShardTable::parse(&bytes, SAMPLES as u64).expect("a sound shard");
    let mut group = criterion.benchmark_group("sample");
    group.throughput(Throughput::Elements(1));
    let (one, mut out) = (values(1), Vec::new());
    group.bench_function("encode", |b| {
        b.iter(|| schema.encode_sample(black_box(&one), &mut out));
    });
    let mut i = 0;
    let mut next = move || {
        i = (i + 7919) % SAMPLES; // scattered, as a shuffled epoch reads
        i
    };
    group.bench_function("read bytes", |b| {
        b.iter(|| table.sample(&bytes, next()).and_then(|sample| schema.column_bytes(sample, 1)));
    });
    group.bench_function("decode", |b| {
        b.iter(|| table.sample(&bytes, next()).and_then(|sample| schema.decode_sample(sample)));
    });
    group.finish();
}

fn shards(criterion: &mut Criterion) {
    let schema = schema();
    let bytes = shard(&schema);
    let zstd = Compression::Zstd(None);
    let zip = zstd.compress(&bytes).expect("there is memory");
    let mut group = criterion.benchmark_group("shard");
    group.sample_size(20);
    group.throughput(Throughput::Bytes(bytes.len() as u64));
    group.bench_function("parse table", |b| {
        b.iter(|| ShardTable::parse(black_box(&bytes), SAMPLES as u64));
    });
    let one = values(1);
    group.bench_function("build", |b| {
        let mut sample = Vec::new();
        b.iter(|| {
            let mut builder = ShardBuilder::new(&schema, ShardConfig::default());
            for _ in 0..SAMPLES {
                schema.encode_sample(&one, &mut sample).expect("the values fit");
                builder.push(&sample).expect("20 MB fit");
            }
            builder.finish()
        });
    });
    group.bench_function("zstd compress", |b| b.iter(|| zstd.compress(black_box(&bytes))));
    group.bench_function("zstd decompress", |b| {
        b.iter(|| zstd.decompress(black_box(&zip), bytes.len() as u64));
    });
    for hash in [HashAlgorithm::Sha256, HashAlgorithm::Xxh3_64] {
        group.bench_function(hash.name(), |b| b.iter(|| hash.hex(black_box(&bytes))));
    }
    group.finish();
}

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

criterion_group!(benches, samples, shards, arrow);
criterion_main!(benches);
