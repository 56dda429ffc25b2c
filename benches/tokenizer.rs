//! How fast text becomes GPT-2's ids: the committed sample on one thread and on two, and texts of
//! 1 MiB of one character, whose time must not grow with the square of their length.
//!
//! Larger and other text: `tokenizer_corpora.rs`.

use std::sync::atomic::{AtomicUsize, Ordering};

use convert::tokenizer::Tokenizer;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

#[path = "corpus/mod.rs"]
mod corpus;

fn sample(criterion: &mut Criterion) {
    let tokenizer = Tokenizer::load("gpt2").expect("it is built in");
    let documents = corpus::documents();
    let bytes: usize = documents.iter().map(String::len).sum();
    let mut group = criterion.benchmark_group("tokenize the sample");
    group.throughput(Throughput::Bytes(bytes as u64)).sample_size(20);
    for threads in [1, 2] {
        group.bench_function(format!("{threads} threads"), |bencher| {
            bencher.iter(|| {
                let next = AtomicUsize::new(0);
                let work = || {
                    while let Some(text) = documents.get(next.fetch_add(1, Ordering::Relaxed)) {
                        tokenizer.encode(text).expect("it is text");
                    }
                };
                std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
            });
        });
    }
    group.finish();
}

fn hostile(criterion: &mut Criterion) {
    let tokenizer = Tokenizer::load("gpt2").expect("it is built in");
    let mut group = criterion.benchmark_group("tokenize 1 MiB of one character");
    group.throughput(Throughput::Bytes(1 << 20)).sample_size(20);
    for character in ["a", " ", "\n", "🙂"] {
        let text = character.repeat((1 << 20) / character.len());
        group.bench_function(format!("{character:?}"), |bencher| {
            bencher.iter(|| tokenizer.encode(&text));
        });
    }
    group.finish();
}

criterion_group!(benches, sample, hostile);
criterion_main!(benches);
