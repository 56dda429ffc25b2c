//! An order is the same from wherever it is looked at: whole, step by step, rank by rank, worker by
//! worker, from the middle, in any thread and on any number of processors.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::io::Write;
use std::process::Command;
use std::thread;

use mds::format::HashAlgorithm;
use mds::order::{
    BatchingMethod, EpochOrder, OrderOptions, Plan, ShuffleAlgo, StreamShape, Weight, World,
};

#[path = "support/orders.rs"]
mod orders;
use orders::shuffles;

fn options(method: BatchingMethod, shuffle: Option<ShuffleAlgo>) -> OrderOptions {
    OrderOptions {
        batching_method: method,
        shuffle: shuffle.is_some(),
        shuffle_algo: shuffle.unwrap_or_default(),
        batch_size: Some(5),
        ..OrderOptions::default()
    }
}

/// Checks every way to look at an order against the whole of it.
fn check_views(name: &str, order: &EpochOrder) {
    let World { nodes, ranks_per_node, workers_per_rank } = order.world();
    let (size, batches) = (order.batch_size(), order.batches_per_rank());
    let step = size * nodes * ranks_per_node;
    let whole = order.to_vec();
    assert_eq!(whole.len(), batches * step, "{name}");
    assert_eq!(order.batches_per_worker() * workers_per_rank, batches, "{name}");
    assert!(whole.iter().any(|&id| id >= 0), "{name}");

    let steps: Vec<&[i64]> = whole.chunks(step).collect();
    assert!(order.global_batches().eq(steps.iter().copied()), "{name}: global batches");
    assert_eq!(order.global_batches().len(), batches, "{name}");
    for first in [1, batches / 3, batches - 1] {
        let rest = order.global_batches().skip(first);
        assert!(rest.eq(steps[first..].iter().copied()), "{name}: from step {first}");
        let one = order.global_batches().nth(first);
        assert_eq!(one.as_deref(), Some(steps[first]), "{name}: step {first}");
    }
    let third = order.global_batches().step_by(3);
    assert!(third.eq(steps.iter().copied().step_by(3)), "{name}: every third step");
    let mut read = order.global_batches();
    assert_eq!(read.nth(batches), None, "{name}: beyond the end");
    assert_eq!((read.next(), read.len()), (None, 0), "{name}: beyond the end");

    let ranks = (0..nodes).flat_map(|node| (0..ranks_per_node).map(move |rank| (node, rank)));
    thread::scope(|scope| {
        for (number, (node, rank)) in ranks.enumerate() {
            let (order, steps) = (order.clone(), &steps);
            scope.spawn(move || {
                let mine = |step: usize| &steps[step][number * size..(number + 1) * size];
                let all = (0..batches).map(mine);
                assert!(order.rank_batches(node, rank).eq(all), "{name}: rank {node}/{rank}");
                let middle = batches / 2;
                assert!(
                    order.rank_batches(node, rank).skip(middle).eq((middle..batches).map(mine)),
                    "{name}: rank {node}/{rank} from {middle}"
                );
                for worker in 0..workers_per_rank {
                    let its = (worker..batches).step_by(workers_per_rank).flat_map(mine);
                    assert!(
                        order.worker(node, rank, worker).iter().eq(its),
                        "{name}: worker {node}/{rank}/{worker}"
                    );
                }
            });
        }
    });
}

#[test]
fn all_views_of_an_epoch_agree() {
    let stream = |weight| StreamShape {
        shard_sizes: (0..30).map(|i| if i % 7 == 3 { 0 } else { 3 + i * 11 % 29 }).collect(),
        weight,
    };
    let streams = [Weight::Natural, Weight::Repeat(1.7), Weight::Choose(300)].map(stream);
    let world =
        |nodes, ranks_per_node, workers_per_rank| World { nodes, ranks_per_node, workers_per_rank };
    let methods = BatchingMethod::ALL.iter();
    for (&method, shuffle) in methods.flat_map(|m| shuffles().map(move |s| (m, s))) {
        // Blocks of a few samples and blocks of more than all.
        for (block, nodes) in [(40, 2), (700, 4), (1 << 20, 6)] {
            let options = OrderOptions {
                num_canonical_nodes: Some(nodes),
                shuffle_block_size: Some(block),
                ..options(method, shuffle)
            };
            let name = format!("{method} {shuffle:?} block {block}, {nodes} canonical nodes");
            let plan = |world| Plan::new(&streams, options.clone(), world).unwrap();
            let first = plan(world(2, 1, 3));
            check_views(&name, &first.epoch(3, 0, None).unwrap());
            let state = first.state(3, 10 * 20, None);
            // The order of other nodes is dealt out anew, if they do not divide.
            for other in [world(2, 2, 1), world(4, 1, 2)] {
                let divides = nodes.is_multiple_of(other.nodes as u64);
                if method == BatchingMethod::DevicePerStream && !divides {
                    continue;
                }
                let rest = plan(other).epoch(3, state.sample_in_epoch, Some(&state)).unwrap();
                check_views(&format!("{name}, resumed in {other:?}"), &rest);
            }
        }
    }
}

/// So long that every pass over it is shared among threads.
fn long_order(method: BatchingMethod, shuffle: Option<ShuffleAlgo>, shards: u64) -> EpochOrder {
    let stream = StreamShape {
        shard_sizes: (0..shards).map(|shard| 20_000 + shard * 37 % 2_000).collect(),
        weight: Weight::Natural,
    };
    let options = OrderOptions {
        batch_size: Some(64),
        num_canonical_nodes: Some(2),
        shuffle_block_size: Some(50_000),
        ..options(method, shuffle)
    };
    let world = World { nodes: 1, ranks_per_node: 4, workers_per_rank: 2 };
    Plan::new(&[stream], options, world).unwrap().epoch(1, 0, None).unwrap()
}

#[test]
fn a_long_order_is_the_same_as_a_whole_and_step_by_step() {
    for shuffle in [ShuffleAlgo::Py1br, ShuffleAlgo::Py1e] {
        let order = long_order(BatchingMethod::Random, Some(shuffle), 440);
        let whole = order.to_vec();
        let steps: Vec<&[i64]> = whole.chunks(4 * 64).collect();
        for first in (0..steps.len()).step_by(steps.len() / 20) {
            let some: Vec<_> = order.global_batches().skip(first).take(20).collect();
            assert_eq!(some, steps[first..(first + 20).min(steps.len())], "{shuffle} {first}");
        }
        let mut ids = whole;
        ids.retain(|&id| id >= 0);
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), (0..440).map(|s| 20_000 + s * 37 % 2_000).sum::<usize>());
    }
}

/// A hash of long orders, as this process computes them.
fn hashes() -> String {
    let random = shuffles().map(|shuffle| (BatchingMethod::Random, shuffle));
    let others = BatchingMethod::ALL.iter().map(|&method| (method, Some(ShuffleAlgo::Py1e)));
    let hash = |(method, shuffle)| {
        let ids = long_order(method, shuffle, 60).to_vec();
        let bytes: Vec<u8> = ids.into_iter().flat_map(i64::to_le_bytes).collect();
        HashAlgorithm::Xxh3_128.hex(&bytes).as_str().to_owned()
    };
    random.into_iter().chain(others).map(hash).collect::<Vec<_>>().join(" ")
}

/// The environment variable that makes a copy of this test tell its hashes.
const CHILD: &str = "MDS_ORDER_HASHES_TO";

#[test]
fn the_number_of_processors_does_not_matter() {
    let processors = thread::available_parallelism().unwrap().get();
    if let Some(file) = std::env::var_os(CHILD) {
        std::fs::write(file, format!("{processors}: {}", hashes())).unwrap();
        return;
    }
    let Some(processor) = first_processor().filter(|_| processors > 1) else {
        notice("SKIPPED: there are no processors to choose among");
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("hashes");
    let mut child = Command::new("taskset");
    child.args(["-c", &processor]).arg(std::env::current_exe().unwrap());
    child.args(["--exact", "the_number_of_processors_does_not_matter"]).env(CHILD, &file);
    match child.output() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            notice("SKIPPED: there is no taskset to restrict a process to one processor");
        }
        output => {
            let output = output.unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            // It had one processor indeed, and has computed the same.
            assert_eq!(std::fs::read_to_string(file).unwrap(), format!("1: {}", hashes()));
        }
    }
}

/// A processor that this process may run on.
fn first_processor() -> Option<String> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
    list.trim().split(['-', ',']).next().map(str::to_owned)
}

/// Written past the capture of the test harness, so that a passing run says what it skipped.
fn notice(text: &str) {
    let _ = writeln!(std::io::stderr(), "order_views: {text}");
}

#[test]
fn of_streams_alike_the_last_ones_get_the_samples_that_are_left_over() {
    for (alike, global_batch) in [(3, 8), (5, 8), (7, 8), (40, 64)] {
        let stream = StreamShape { shard_sizes: vec![64], weight: Weight::Natural };
        let options = OrderOptions {
            batch_size: Some(global_batch),
            ..options(BatchingMethod::Stratified, None)
        };
        let plan = Plan::new(&vec![stream; alike], options, World::default()).unwrap();
        let (each, more) = (global_batch / alike, global_batch % alike);
        let parts: Vec<usize> = (0..alike).map(|s| each + usize::from(s >= alike - more)).collect();
        let order = plan.epoch(0, 0, None).unwrap();
        assert!(order.batches_per_rank() > 10);
        for ids in order.global_batches() {
            let of = |stream| ids.iter().filter(|&&id| id / 64 == stream as i64).count();
            assert_eq!((0..alike).map(of).collect::<Vec<_>>(), parts);
        }
    }
}
