//! The writer from end to end: real English text to shards in memory-backed files.
//!
//! `zstd` compresses the same 64 MiB shards without anything around it, on the same number of
//! threads: what the compressed writer can reach at best. On Linux the files go to /dev/shm.

mod corpus;

use std::hint::black_box;
use std::path::Path;
use std::thread;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use mds::format::{Encoding, HashAlgorithm, Schema, Value};
use mds::{Writer, WriterOptions};
use tempfile::TempDir;

/// Raw bytes of each dataset: twelve shards.
const TOTAL: usize = 12 << 26;

fn schema() -> Schema {
    Schema::new([("id", Encoding::Int), ("text", Encoding::Str)]).expect("two columns")
}

fn folder() -> TempDir {
    let memory = Path::new("/dev/shm");
    let made = if memory.is_dir() { TempDir::new_in(memory) } else { TempDir::new() };
    made.expect("a temporary folder")
}

fn write(texts: &[String], dir: &Path, options: WriterOptions) -> u64 {
    let mut writer = Writer::create(dir, schema(), options).expect("an empty folder");
    let mut id = 0;
    while writer.bytes() < TOTAL as u64 {
        let text = &texts[id % texts.len()];
        writer.write(&[Value::Int(id as i64), text.as_str().into()]).expect("a text");
        id += 1;
    }
    let bytes = writer.bytes();
    writer.finish().expect("there is room");
    bytes
}

/// The raw shards of the same dataset.
fn raw_shards(texts: &[String]) -> Vec<Vec<u8>> {
    let dir = folder();
    write(texts, dir.path(), WriterOptions::default());
    let mut paths: Vec<_> = std::fs::read_dir(dir.path())
        .expect("the folder")
        .map(|entry| entry.expect("a file").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "mds"))
        .collect();
    paths.sort();
    paths.iter().map(|path| std::fs::read(path).expect("a shard")).collect()
}

fn writers(criterion: &mut Criterion) {
    let texts = corpus::documents();
    let shards = raw_shards(&texts);
    let total: usize = shards.iter().map(Vec::len).sum();
    let mut group = criterion.benchmark_group("writer");
    group.sample_size(10);
    group.throughput(Throughput::Bytes(total as u64));
    let hashes = vec![HashAlgorithm::Sha1, HashAlgorithm::Xxh64];
    let zstd = Some("zstd".parse().expect("a compression"));
    for threads in [1, 2] {
        let plain = WriterOptions { threads: Some(threads), ..WriterOptions::default() };
        let zipped = WriterOptions { compression: zstd, ..plain.clone() };
        let hashed = WriterOptions { hashes: hashes.clone(), ..zipped.clone() };
        let fast = WriterOptions { hashes: vec![HashAlgorithm::Xxh64], ..zipped.clone() };
        for (name, options) in
            [("raw", plain), ("zstd", zipped), ("zstd, xxh64", fast), ("zstd, sha1, xxh64", hashed)]
        {
            group.bench_function(format!("{name}, {threads} threads"), |b| {
                b.iter_batched(
                    folder,
                    |dir| {
                        write(&texts, dir.path(), options.clone());
                        dir
                    },
                    BatchSize::PerIteration,
                );
            });
        }
        group.bench_function(format!("zstd alone, {threads} threads"), |b| {
            b.iter(|| {
                thread::scope(|scope| {
                    for part in 0..threads {
                        let mine = shards.iter().skip(part).step_by(threads);
                        scope.spawn(move || {
                            for shard in mine {
                                black_box(zstd::bulk::compress(shard, 3).expect("memory"));
                            }
                        });
                    }
                });
            });
        });
    }
    group.finish();
}

criterion_group!(benches, writers);
criterion_main!(benches);
