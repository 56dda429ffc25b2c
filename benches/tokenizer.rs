//! How fast text becomes GPT-2's ids: the committed sample on one thread and on two, and texts of
//! 1 MiB of one character, whose time must not grow with the square of their length. Each time by a new
//! tokenizer: it caches words, and such a text is one word.
//!
//! Larger and other text: `tokenizer_corpora.rs`.

use std::sync::atomic::{AtomicUsize, Ordering};

use convert::tokenizer::Tokenizer;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};

#[path = "corpus/mod.rs"]
mod corpus;

fn load() -> Tokenizer {
    Tokenizer::load("gpt2").expect("it is built in")
}

fn sample(criterion: &mut Criterion) {
    let documents = corpus::documents();
    let bytes: usize = documents.iter().map(String::len).sum();
    let mut group = criterion.benchmark_group("tokenize the sample");
    group.throughput(Throughput::Bytes(bytes as u64)).sample_size(20);
    for threads in [1, 2] {
        group.bench_function(format!("{threads} threads"), |bencher| {
            bencher.iter_batched_ref(
                load,
                |tokenizer| {
                    let next = AtomicUsize::new(0);
                    let work = || {
                        while let Some(text) = documents.get(next.fetch_add(1, Ordering::Relaxed)) {
                            tokenizer.encode(text).expect("it is text");
                        }
                    };
                    std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
                },
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

fn hostile(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("tokenize 1 MiB of one character");
    group.throughput(Throughput::Bytes(1 << 20)).sample_size(20);
    for character in ["a", " ", "\n", "🙂"] {
        let text = character.repeat((1 << 20) / character.len());
        group.bench_function(format!("{character:?}"), |bencher| {
            bencher.iter_batched_ref(
                load,
                |tokenizer| tokenizer.encode(&text),
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, sample, hostile);
criterion_main!(benches);
