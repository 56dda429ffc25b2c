//! What cannot be ordered is refused: every `raise` of the reference that an order can reach, with
//! the condition under which it happens and the error that it is here, word for word.
//!
//! The reference is mosaicml-streaming 0.13.0, its files those of `streaming/base`. What it raises
//! and cannot occur here:
//!
//! | reference | condition | why not here |
//! | --- | --- | --- |
//! | dataset.py, `__init__` | both `streams` and `remote` or `local` | there is only a list of streams |
//! | dataset.py, `__init__` | `shuffle_seed` negative | `u64` |
//! | dataset.py, `load_state_dict` | the state takes more than a page of shared memory | there is none |
//! | dataset.py, `_share_work` | ids without five dimensions | internal |
//! | stream.py, `__init__` and `validate_weights` | two of `proportion`, `repeat`, `choose` | one [`Weight`] |
//! | stream.py, `__init__` | `choose` negative | `u64` |
//! | world.py, `replicate` | `replication` negative | `usize` |
//! | sampling.py, `get_sampling` | `choose`, `granularity`, `seed` or `epoch` negative | `u64` |
//! | batching/*.py | `num_canonical_nodes` is None | always derived |
//! | batching/*.py | `shuffle_block_size` is no integer | `u64` |
//!
//! The cache limit and sample numbers out of range (spanner.py) are no matter of the order:
//! tests/streaming.rs has them.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeSet;

use mds::order::{
    BatchingMethod, Error, OrderOptions, PartitionAlgo, Plan, SamplingMethod, ShuffleAlgo, State,
    StreamShape, Weight, World, parse_epoch_size,
};

/// Where the reference raises what, and when; our error and its text.
struct Refusal {
    reference: &'static str,
    ours: Error,
    text: &'static str,
}

const fn world(nodes: usize, ranks_per_node: usize) -> World {
    World { nodes, ranks_per_node, workers_per_rank: 1 }
}

fn stream(samples: u64, weight: Weight) -> StreamShape {
    StreamShape { shard_sizes: vec![samples], weight }
}

fn options() -> OrderOptions {
    OrderOptions { batch_size: Some(4), shuffle: true, ..OrderOptions::default() }
}

fn mixed(method: BatchingMethod) -> OrderOptions {
    OrderOptions { batching_method: method, ..options() }
}

/// Why no plan can be made of this.
fn of_plan(streams: &[StreamShape], options: OrderOptions, world: World) -> Error {
    Plan::new(streams, options, world).unwrap_err()
}

/// Why no epoch can begin, though a plan can be made.
fn of_epoch(streams: &[StreamShape], options: OrderOptions, world: World) -> Error {
    Plan::new(streams, options, world).unwrap().epoch(0, 0, None).unwrap_err()
}

/// Why 60 samples cannot be resumed at `sample` in a run of so many canonical nodes, which was
/// started on `nodes` physical ones.
fn of_resumption(
    options: OrderOptions,
    world: World,
    sample: u64,
    canonical: u64,
    nodes: u64,
) -> Error {
    let state = State {
        epoch: 0,
        sample_in_epoch: sample,
        num_canonical_nodes: canonical,
        shuffle_seed: 1,
        initial_physical_nodes: Some(nodes),
    };
    let plan = Plan::new(&[stream(60, Weight::Natural)], options, world).unwrap();
    plan.epoch(0, sample, Some(&state)).unwrap_err()
}

/// Why a launcher's variables are refused: `WORLD_SIZE`, `LOCAL_WORLD_SIZE` and `RANK`.
fn of_launcher(world_size: &str, local_world_size: &str, rank: &str) -> Error {
    let variable = |name: &str| {
        let variables =
            [("WORLD_SIZE", world_size), ("LOCAL_WORLD_SIZE", local_world_size), ("RANK", rank)];
        variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
    };
    World::from_launcher(variable, 1).unwrap_err()
}

/// The arguments of a dataset and its streams.
fn of_arguments() -> Vec<Refusal> {
    let one = || [stream(60, Weight::Natural)];
    vec![
        Refusal {
            reference: "dataset.py __init__, ValueError: neither `streams` nor `remote` nor `local`",
            ours: of_plan(&[], options(), world(1, 1)),
            text: "no streams were given; name at least one stream with at least one sample",
        },
        Refusal {
            reference: "dataset.py __init__, ValueError: `sampling_method` unknown",
            ours: "some".parse::<SamplingMethod>().unwrap_err(),
            text: "unknown sampling_method \"some\"; use one of balanced, fixed",
        },
        Refusal {
            reference: "dataset.py __init__, ValueError: `batching_method` unknown",
            ours: "by_stream".parse::<BatchingMethod>().unwrap_err(),
            text: "unknown batching_method \"by_stream\"; \
                   use one of random, stratified, per_stream, device_per_stream",
        },
        Refusal {
            reference: "shuffle/__init__.py get_shuffle, KeyError: `shuffle_algo` unknown",
            ours: "py3e".parse::<ShuffleAlgo>().unwrap_err(),
            text: "unknown shuffle_algo \"py3e\"; \
                   use one of naive, py1b, py1br, py1e, py1s, py2s",
        },
        Refusal {
            reference: "partition/__init__.py get_partitions, KeyError: `partition_algo` unknown",
            ours: "strict".parse::<PartitionAlgo>().unwrap_err(),
            text: "unknown partition_algo \"strict\"; use one of orig, relaxed",
        },
        Refusal {
            reference: "dataset.py __init__ and sampling.py, ValueError: `sampling_granularity` is 0",
            ours: of_plan(
                &one(),
                OrderOptions { sampling_granularity: 0, ..options() },
                world(1, 1),
            ),
            text: "sampling_granularity is 0; take at least 1 sample at a time",
        },
        Refusal {
            reference: "util.py number_abbrev_to_int, ValueError: no number, or an unknown suffix",
            ours: parse_epoch_size("1.5kb").unwrap_err(),
            text: "epoch_size \"1.5kb\" is not a sample count; write a whole number, \
                   or a number followed by k, m, b or t (thousands, millions, ...)",
        },
        Refusal {
            reference: "dataset.py __init__, ValueError: `epoch_size` is negative",
            ours: parse_epoch_size("-2k").unwrap_err(),
            text: "epoch_size \"-2k\" is not a sample count; write a whole number, \
                   or a number followed by k, m, b or t (thousands, millions, ...)",
        },
        Refusal {
            reference: "dataset.py __init__, RuntimeError: a stream contains no samples",
            ours: of_plan(&[one()[0].clone(), stream(0, Weight::Natural)], options(), world(1, 1)),
            text: "stream 1 contains no samples; remove it or write samples to it",
        },
        Refusal {
            reference: "dataset.py _get_work, ValueError: `batch_size` was not passed; \
                        batching/*.py, AssertionError: it is no integer",
            ours: of_epoch(
                &one(),
                OrderOptions { batch_size: None, ..OrderOptions::default() },
                world(1, 1),
            ),
            text: "batch_size is not set; \
                   set it to the samples per device and step, at least 1, to iterate",
        },
        Refusal {
            reference: "stream.py __init__, ValueError: `proportion` is negative",
            ours: of_plan(&[stream(60, Weight::Proportion(-0.5))], options(), world(1, 1)),
            text: "stream 0 has proportion -0.5; use a finite number of at least 0",
        },
        Refusal {
            reference: "stream.py __init__, ValueError: `repeat` is negative",
            ours: of_plan(&[stream(60, Weight::Repeat(-2.0))], options(), world(1, 1)),
            text: "stream 0 has repeat -2; use a finite number of at least 0",
        },
        Refusal {
            reference: "stream.py validate_weights, ValueError: relative and absolute weights",
            ours: of_plan(
                &[stream(60, Weight::Repeat(1.0)), stream(60, Weight::Proportion(1.0))],
                options(),
                world(1, 1),
            ),
            text: "stream 0 has no proportion while others have one; \
                   give every stream a proportion, or none",
        },
        Refusal {
            reference: "stream.py apply_weights, ValueError: `epoch_size` with absolute weights",
            ours: of_plan(
                &[stream(60, Weight::Natural), stream(60, Weight::Choose(9))],
                OrderOptions { epoch_size: Some(50), ..options() },
                world(1, 1),
            ),
            text: "epoch_size 50 was given, but stream 1 sets repeat or choose, which fix the size; \
                   remove epoch_size, or give proportions instead",
        },
        Refusal {
            reference: "stream.py apply_weights, ValueError of numpy: all proportions are 0 \
                        (all repeats or choices 0: dataset.py resample_streams, the same)",
            ours: of_plan(&[stream(60, Weight::Proportion(0.0))], options(), world(1, 1)),
            text: "the stream weights choose no samples; give at least one stream a weight above 0",
        },
    ]
}

/// Worlds that cannot be, and those in which the samples cannot be divided.
fn of_worlds() -> Vec<Refusal> {
    let one = || [stream(60, Weight::Natural)];
    let replicated = |replication| OrderOptions { replication: Some(replication), ..options() };
    let canonical = |nodes| OrderOptions { num_canonical_nodes: Some(nodes), ..options() };
    let orig = OrderOptions { partition_algo: PartitionAlgo::Orig, ..options() };
    vec![
        Refusal {
            reference: "distributed.py, ValueError of int(): a variable is no number",
            ours: of_launcher("eight", "4", "0"),
            text: "environment variable WORLD_SIZE is \"eight\", not a number; \
                   unset it or let the launcher set it",
        },
        Refusal {
            reference: "world.py _detect, ZeroDivisionError: LOCAL_WORLD_SIZE is 0",
            ours: of_launcher("8", "0", "0"),
            text: "a world of 0 nodes x 0 ranks x 1 workers serves no samples; \
                   each of the three must be at least 1",
        },
        Refusal {
            reference: "world.py replicate, ValueError: `replication` is not positive",
            ours: of_plan(&one(), replicated(0), world(2, 2)),
            text: "replication 0 does not divide the world of 4 ranks; choose a divisor of 4",
        },
        Refusal {
            reference: "world.py replicate, ValueError: `replication` does not divide the ranks",
            ours: of_plan(&one(), replicated(3), world(2, 2)),
            text: "replication 3 does not divide the world of 4 ranks; choose a divisor of 4",
        },
        Refusal {
            reference: "partition/orig.py, ValueError: more physical nodes, no multiple",
            ours: of_epoch(&one(), canonical(4), world(6, 1)),
            text: "num_canonical_nodes 4 and the 6 physical nodes do not divide one another; \
                   make one a multiple of the other",
        },
        Refusal {
            reference: "partition/orig.py, ValueError: more canonical nodes, no multiple",
            ours: of_epoch(&one(), canonical(7), world(3, 1)),
            text: "num_canonical_nodes 7 and the 3 physical nodes do not divide one another; \
                   make one a multiple of the other",
        },
        Refusal {
            reference: "partition/orig.py, ValueError: the same, in a resumption",
            ours: of_resumption(orig, world(6, 1), 24, 4, 4),
            text: "num_canonical_nodes 4 and the 6 physical nodes do not divide one another; \
                   make one a multiple of the other (the relaxed partition takes any number, \
                   when the checkpoint holds initial_physical_nodes)",
        },
        Refusal {
            reference: "partition/relaxed.py, ValueError: the global batch has changed",
            ours: of_resumption(
                OrderOptions { batch_size: Some(3), ..options() },
                world(6, 1),
                18,
                4,
                4,
            ),
            text: "the global batch of 18 samples is not a multiple of the 4 ranks \
                   that the run was started with; change batch_size so that it is",
        },
        Refusal {
            reference: "partition/relaxed.py, ZeroDivisionError: initial_physical_nodes is 0",
            ours: of_resumption(options(), world(6, 1), 24, 4, 0),
            text: "a world of 0 nodes x 1 ranks x 1 workers serves no samples; \
                   each of the three must be at least 1",
        },
        Refusal {
            reference: "partition/relaxed.py, ZeroDivisionError: num_canonical_nodes of a state is 0",
            ours: of_resumption(options(), world(1, 1), 0, 0, 1),
            text: "num_canonical_nodes is 0; use at least 1, or leave it out",
        },
        Refusal {
            reference: "partition/__init__.py, ValueError: resuming beyond the end",
            ours: of_resumption(options(), world(1, 2), 63, 1, 1),
            text: "cannot resume at sample 63 of an epoch that serves 62; \
                   the checkpoint belongs to another dataset or to other weights",
        },
        Refusal {
            reference: "partition/orig.py, ValueError of numpy: too few columns to repeat",
            ours: of_epoch(&[stream(3, Weight::Natural)], canonical(2), world(16, 1)),
            text: "3 samples in 2 canonical nodes are too few to fill 16 physical nodes; \
                   use fewer nodes, or set num_canonical_nodes to a multiple of 16",
        },
    ]
}

/// Shuffles that do not work, and streams that do not fill their batches.
fn of_batches() -> Vec<Refusal> {
    let block = |algo, block| OrderOptions {
        shuffle_algo: algo,
        shuffle_block_size: Some(block),
        ..options()
    };
    let two = |small| [stream(60, Weight::Natural), stream(small, Weight::Natural)];
    vec![
        Refusal {
            reference: "shuffle/py1e.py, ValueError: a canonical node without samples",
            ours: of_epoch(
                &[stream(3, Weight::Natural)],
                OrderOptions { num_canonical_nodes: Some(4), ..options() },
                world(1, 1),
            ),
            text: "py1e cannot shuffle 3 samples in 4 canonical nodes, one of which stays empty; \
                   set num_canonical_nodes to at most 3, or use py1s",
        },
        Refusal {
            reference: "shuffle/py1e.py, ValueError of numpy: no block size to draw",
            ours: of_epoch(&two(60), block(ShuffleAlgo::Py1e, 0), world(1, 1)),
            text: "shuffle_block_size 0 is too small for py1e; use at least 1",
        },
        Refusal {
            reference: "shuffle/py1br.py, ValueError of numpy: no stagger to draw",
            ours: of_epoch(&two(60), block(ShuffleAlgo::Py1br, 1), world(1, 1)),
            text: "shuffle_block_size 1 is too small for py1br; use at least 2",
        },
        Refusal {
            reference: "shuffle/py1b.py of 0.10, ValueError of range(): a block of 0",
            ours: of_epoch(&two(60), block(ShuffleAlgo::Py1b, 0), world(1, 1)),
            text: "shuffle_block_size 0 is too small for py1b; use at least 1",
        },
        Refusal {
            reference: "batching/device_per_stream.py, ValueError: a stream's part of the block is 0",
            ours: of_epoch(
                &two(60),
                OrderOptions {
                    batching_method: BatchingMethod::DevicePerStream,
                    ..block(ShuffleAlgo::Py1s, 1)
                },
                world(1, 1),
            ),
            text: "shuffle_block_size 0 is too small for py1s; use at least 1 \
                   (this is the part of stream 0: raise the whole block or the stream's proportion)",
        },
        Refusal {
            reference: "batching/device_per_stream.py, ValueError: canonical and physical nodes",
            ours: of_epoch(
                &two(60),
                OrderOptions {
                    num_canonical_nodes: Some(2),
                    ..mixed(BatchingMethod::DevicePerStream)
                },
                world(4, 1),
            ),
            text: "batching_method device_per_stream needs num_canonical_nodes (2) to be a multiple \
                   of the 4 physical nodes; change num_canonical_nodes",
        },
        Refusal {
            reference: "batching/device_per_stream.py, ValueError: no full device batch of a stream",
            ours: of_epoch(&two(3), mixed(BatchingMethod::DevicePerStream), world(1, 1)),
            text: "stream 1 has too few samples to fill one batch of 4; \
                   lower batch_size, choose more of the stream or remove it",
        },
        Refusal {
            reference: "batching/per_stream.py, ValueError: no full global batch of a stream",
            ours: of_epoch(&two(5), mixed(BatchingMethod::PerStream), world(1, 2)),
            text: "stream 1 has too few samples to fill one batch of 8; \
                   lower batch_size, choose more of the stream or remove it",
        },
        Refusal {
            reference: "batching/stratified.py, ValueError: no sample of a stream in a batch",
            ours: of_epoch(&two(3), mixed(BatchingMethod::Stratified), world(1, 1)),
            text: "stream 1 has no sample in a global batch of 4 \
                   (its proportion is 0.047619047619047616); \
                   raise batch_size, raise the stream's proportion or remove the stream",
        },
    ]
}

/// What the reference takes, and then fails at, or serves something else than was asked for.
fn stricter() -> Vec<Refusal> {
    let large = |samples, weight| [stream(samples, weight)];
    let unshuffled = || OrderOptions { shuffle: false, ..options() };
    vec![
        Refusal {
            reference: "drops the ranks that fill no node",
            ours: of_launcher("7", "4", "0"),
            text: "7 ranks cannot be spread over nodes of 4 ranks; start the same number of ranks \
                   on every node (WORLD_SIZE must be a multiple of LOCAL_WORLD_SIZE)",
        },
        Refusal {
            reference: "fails with an index that is out of range when an epoch begins",
            ours: of_launcher("8", "4", "8"),
            text: "rank 8 does not exist in a world of 8 ranks; ranks are numbered from 0",
        },
        Refusal {
            reference: "takes 0 for a number that was left out",
            ours: of_plan(
                &large(60, Weight::Natural),
                OrderOptions { num_canonical_nodes: Some(0), ..options() },
                world(1, 1),
            ),
            text: "num_canonical_nodes is 0; use at least 1, or leave it out",
        },
        Refusal {
            reference: "serves epochs of nothing for ever",
            ours: of_epoch(
                &[stream(600, Weight::Proportion(1.0)), stream(60, Weight::Proportion(9.0))],
                OrderOptions { epoch_size: Some(20), ..mixed(BatchingMethod::Stratified) },
                world(1, 8),
            ),
            text: "stream 1 has too few samples to fill one batch of 29; \
                   lower batch_size, choose more of the stream or remove it",
        },
        Refusal {
            reference: "computes with what is left of NaN as an integer",
            ours: of_plan(&large(60, Weight::Proportion(f64::NAN)), options(), world(1, 1)),
            text: "stream 0 has proportion NaN; use a finite number of at least 0",
        },
        Refusal {
            reference: "runs out of memory",
            ours: of_plan(&large(60, Weight::Natural), options(), world(1 << 20, 1 << 20)),
            text: "a world of 1048576 nodes x 1048576 ranks x 1 workers is too large; \
                   give the real numbers, whose product must be less than 4294967296 (2^32)",
        },
        Refusal {
            reference: "runs out of memory",
            ours: of_plan(&large(1 << 53, Weight::Natural), options(), world(1, 1)),
            text: "an epoch of 9007199254740992 samples is too long to be ordered; \
                   set epoch_size to at most 4503599627370496 (2^52) samples",
        },
        Refusal {
            reference: "runs out of memory",
            ours: of_epoch(
                &large(1 << 32, Weight::Natural),
                OrderOptions { shuffle_algo: ShuffleAlgo::Naive, ..options() },
                world(1, 1),
            ),
            text: "naive would shuffle all 4294967296 samples in memory at once; use py1e, or \
                   another shuffle_algo that works in parts, or set epoch_size to less than \
                   4294967296 (2^32) samples",
        },
        Refusal {
            reference: "runs out of memory",
            ours: of_epoch(
                &large(60, Weight::Natural),
                OrderOptions { batch_size: Some(1 << 28), ..unshuffled() },
                World { workers_per_rank: u32::MAX as usize, ..world(1, 1) },
            ),
            text: "repeats and padding make an order of 1152921504338411520 ids, more than can be \
                   counted; lower batch_size, num_canonical_nodes or the number of workers",
        },
        Refusal {
            reference: "runs out of memory",
            ours: of_plan(
                &[stream(60, Weight::Natural), stream(60, Weight::Natural)],
                OrderOptions { epoch_size: Some(u64::MAX), ..options() },
                world(1, 1),
            ),
            text: "an epoch of 18446744073709551615 samples is too long to be ordered; \
                   set epoch_size to at most 4503599627370496 (2^52) samples",
        },
        Refusal {
            reference: "runs out of memory",
            ours: of_epoch(
                &large(60, Weight::Natural),
                OrderOptions { batch_size: Some(usize::MAX), ..mixed(BatchingMethod::PerStream) },
                world(1, 2),
            ),
            text: "a global batch of 36893488147419103230 samples is too large; \
                   lower batch_size or the ranks, so that their product is at most 268435456",
        },
        Refusal {
            reference: "ValueError of numpy's choice, with a shortfall of all samples",
            ours: of_plan(
                &[stream(60, Weight::Proportion(1e308)), stream(60, Weight::Proportion(1e308))],
                options(),
                world(1, 1),
            ),
            text: "the streams' proportions are too large to be added; \
                   divide all of them by the largest",
        },
        Refusal {
            reference: "runs out of memory",
            ours: of_epoch(
                &large(60, Weight::Natural),
                OrderOptions { num_canonical_nodes: Some(1 << 25), ..options() },
                world(1, 1),
            ),
            text: "num_canonical_nodes 33554432 is too large; use at most 16777216",
        },
        Refusal {
            reference: "runs out of memory",
            ours: of_epoch(&large(1 << 33, Weight::Choose(5)), unshuffled(), world(1, 1)),
            text: "8589934592 picks of 1 samples are too many to choose among; \
                   raise sampling_granularity to at least 3",
        },
        Refusal {
            reference: "runs out of memory",
            ours: of_epoch(&large(1, Weight::Choose(1 << 30)), unshuffled(), world(1, 1)),
            text: "the epoch takes 1073741824 parts of shards, more than 268435456, which can be \
                   kept in memory; lower repeat, choose or epoch_size",
        },
    ]
}

#[test]
fn every_refusal_says_what_is_wrong_and_what_to_do() {
    let mut wrong = Vec::new();
    for Refusal { reference, ours, text } in all() {
        if ours.to_string() != text {
            wrong.push(format!("{reference}:\n  {ours}\n  expected {text}"));
        }
        let (what, remedy) = text.split_once("; ").unwrap();
        assert!(!what.is_empty() && !remedy.is_empty() && !remedy.contains(';'), "{text}");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn all() -> impl Iterator<Item = Refusal> {
    [of_arguments(), of_worlds(), of_batches(), stricter()].into_iter().flatten()
}

#[test]
fn every_error_that_there_is_has_a_refusal() {
    let source = include_str!("../crates/mds/src/order/error.rs");
    let (_, declared) = source.split_once("pub enum Error {\n").unwrap();
    let (declared, _) = declared.split_once("\n}\n").unwrap();
    let name = |text: &str| text.split(|c: char| !c.is_alphanumeric()).next().unwrap().to_owned();
    let declared: BTreeSet<String> = declared
        .lines()
        .filter_map(|line| line.strip_prefix("    "))
        .filter(|line| line.starts_with(|first: char| first.is_ascii_uppercase()))
        .map(name)
        .collect();
    let refused: BTreeSet<String> =
        all().map(|refusal| name(&format!("{:?}", refusal.ours))).collect();
    assert!(declared.len() > 20);
    assert_eq!(refused, declared);
}
