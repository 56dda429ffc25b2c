//! How long the order of one epoch of 10 million samples takes, per shuffle algorithm: one stream
//! of 10,000 shards, eight canonical nodes, one node of eight ranks; until the first batch, and all
//! of it. The reference needs 0.1-1.05 s for the shuffle and 0.2 s for the partition, for either.
//!
//! Longer epochs, and the reference beside them: `order_scale.rs`.

use criterion::{Criterion, criterion_group, criterion_main};
use mds::order::{OrderOptions, Plan, ShuffleAlgo, StreamShape, Weight, World};

fn epochs(criterion: &mut Criterion) {
    let stream = StreamShape { shard_sizes: vec![1_000; 10_000], weight: Weight::Natural };
    let world = World { nodes: 1, ranks_per_node: 8, workers_per_rank: 2 };
    let mut group = criterion.benchmark_group("epoch of 10M samples");
    group.sample_size(10);
    for algo in [None].into_iter().chain(ShuffleAlgo::ALL.iter().copied().map(Some)) {
        let options = OrderOptions {
            num_canonical_nodes: Some(8),
            batch_size: Some(16),
            shuffle: algo.is_some(),
            shuffle_algo: algo.unwrap_or_default(),
            ..OrderOptions::default()
        };
        let plan = Plan::new(std::slice::from_ref(&stream), options, world)
            .expect("one stream of full shards on one node fits every option");
        let name = algo.map_or("no shuffle", ShuffleAlgo::as_str);
        group.bench_function(format!("{name}/first batch"), |bencher| {
            bencher.iter(|| plan.epoch(0, 0, None).map(|order| order.rank_batches(0, 0).next()))
        });
        group.bench_function(format!("{name}/all"), |bencher| {
            bencher.iter(|| plan.epoch(0, 0, None).map(|order| order.to_vec()))
        });
    }
    group.finish();
}

criterion_group!(benches, epochs);
criterion_main!(benches);
