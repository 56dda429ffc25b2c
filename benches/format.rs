//! The hot paths of the format: encoding a sample, filling a shard, checking a table of offsets and
//! reading samples (of 2 KiB: 512 tokens as int32, and an id), then whole datasets: what
//! `make bench-peers` compares with the reference, on less data.

mod corpus;

use std::hint::black_box;
use std::path::Path;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use mds::format::{
    Compression, Encoding, HashAlgorithm, Index, NdArray, Schema, ShardBuilder, ShardConfig,
    ShardTable, Value,
};
use mds::{DatasetOptions, Shard, ShardOptions, Stream, StreamingDataset, Writer, WriterOptions};

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
    for hash in
        [HashAlgorithm::Sha1, HashAlgorithm::Sha256, HashAlgorithm::Xxh64, HashAlgorithm::Xxh3_64]
    {
        group.bench_function(hash.name(), |b| b.iter(|| hash.hex(black_box(&bytes))));
    }
    group.finish();
}

/// Writes `documents` into a new folder.
fn write_text(out: &Path, documents: &[String], options: WriterOptions) -> Index {
    let columns = [("id", Encoding::Int), ("text", Encoding::Str), ("url", Encoding::Str)];
    let schema = Schema::new(columns).expect("three columns");
    let mut writer = Writer::create(out, schema, options).expect("the folder is new");
    for (id, text) in documents.iter().enumerate() {
        let values = [Value::Int(id as i64), text.as_str().into(), "https://example.org/".into()];
        writer.write(&values).expect("the values fit");
    }
    writer.finish().expect("there is room")
}

/// Writes samples of 2,048 tokens into a new folder: 64 MiB, more than fits the processor's caches.
fn write_tokens(out: &Path, samples: i32) -> Index {
    let encoding = "ndarray:int32".parse().expect("the name of an encoding");
    let schema = Schema::new([("tokens", encoding)]).expect("one column");
    let mut writer =
        Writer::create(out, schema, WriterOptions::default()).expect("the folder is new");
    for sample in 0..samples {
        let tokens: Vec<i32> = (0..2048).map(|i| (i * 37 + sample * 11) % 50_257).collect();
        writer.write(&[NdArray::from_i32(&tokens).into()]).expect("the values fit");
    }
    writer.finish().expect("there is room")
}

/// Adds the array as 64-bit words, so that every byte has been read.
fn sum_words(value: &Value<'_>) -> u64 {
    let Value::NdArray(array) = value else { return 0 };
    let (words, _) = array.data.as_chunks();
    words.iter().fold(0, |sum: u64, &word| sum.wrapping_add(u64::from_le_bytes(word)))
}

fn reading(criterion: &mut Criterion) {
    const TOKEN_SAMPLES: u64 = 8192;
    let parent = tempfile::tempdir().expect("a writable folder");
    let (text, tokens) = (parent.path().join("text"), parent.path().join("tokens"));
    let documents: Vec<String> = (0..8).flat_map(|_| corpus::documents()).collect();
    let text_index = write_text(&text, &documents, WriterOptions::default());
    let token_index = write_tokens(&tokens, TOKEN_SAMPLES as i32);
    let open = |folder: &Path, index: &Index| -> Vec<Shard> {
        let open = |info| Shard::open(folder, info, ShardOptions::default());
        index.shards.iter().map(open).collect::<Result<_, _>>().expect("just written")
    };

    let mut group = criterion.benchmark_group("read");
    group.sample_size(20);
    let bytes = |index: &Index| index.shards.iter().map(|shard| shard.raw_data.bytes).sum();
    group.throughput(Throughput::Bytes(bytes(&text_index)));
    group.bench_function("decode all columns", |b| {
        b.iter(|| {
            for shard in open(&text, &text_index) {
                for sample in shard.samples().expect("just written") {
                    black_box(sample.values().expect("just written"));
                }
            }
        });
    });
    group.throughput(Throughput::Bytes(bytes(&token_index)));
    group.bench_function("zero-copy iteration, summed", |b| {
        b.iter(|| {
            let shards = open(&tokens, &token_index);
            let samples = shards.iter().flat_map(|shard| shard.samples().expect("just written"));
            let value = |sample: mds::SampleRef<'_>| {
                sum_words(&sample.value("tokens").expect("just written"))
            };
            samples.map(value).fold(0, u64::wrapping_add)
        });
    });
    group.sample_size(100);
    group.throughput(Throughput::Bytes(8192));
    let streams = vec![Stream::local(&tokens)];
    let dataset = StreamingDataset::open(streams, DatasetOptions::default()).expect("just written");
    let mut id = 0;
    group.bench_function("random access to 2,048 tokens, summed", |b| {
        b.iter(|| {
            id = (id + 5003) % TOKEN_SAMPLES; // scattered, as a shuffled epoch reads
            let sample = dataset.sample(id).expect("just written");
            sum_words(&sample.value("tokens").expect("just written"))
        });
    });
    group.finish();
}

criterion_group!(benches, samples, shards, reading);
criterion_main!(benches);
