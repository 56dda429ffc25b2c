//! Resumption: a run that goes on from a checkpoint serves what was left, in the same order, and what
//! holds when it goes on in another world.
//!
//! With the same canonical nodes and the same global batch, and an offset of whole global batches:
//!
//! | batching | the same world | other workers | other nodes or ranks |
//! | --- | --- | --- | --- |
//! | `random` | equal | equal | every full global batch has the same samples |
//! | `stratified` | equal | equal | every full global batch is equal |
//! | `per_stream` | equal | equal | the same samples, as long as no stream fills more or fewer batches |
//! | `device_per_stream` | equal | equal | nothing: its device batches are of another size |
//!
//! The last batch of an epoch may differ in another world, which repeats other samples to fill it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use mds::order::{
    BatchingMethod, EpochOrder, OrderOptions, Plan, ShuffleAlgo, State, StreamShape, Weight, World,
};
use mds::{DatasetOptions, Loader, LoaderOptions, Stream, StreamingDataset};

#[path = "support/orders.rs"]
mod orders;
mod support;
use orders::shuffles;
use support::{PLAIN, write};

const fn world(nodes: usize, ranks_per_node: usize, workers_per_rank: usize) -> World {
    World { nodes, ranks_per_node, workers_per_rank }
}

fn streams() -> Vec<StreamShape> {
    let stream = |shard_sizes: &[u64]| StreamShape {
        shard_sizes: shard_sizes.to_vec(),
        weight: Weight::Natural,
    };
    vec![stream(&[30, 17, 0, 26]), stream(&[40, 9]), stream(&[21, 33])]
}

fn options(method: BatchingMethod, shuffle: Option<ShuffleAlgo>) -> OrderOptions {
    OrderOptions {
        batching_method: method,
        shuffle: shuffle.is_some(),
        shuffle_algo: shuffle.unwrap_or_default(),
        shuffle_block_size: Some(60),
        batch_size: Some(4),
        num_canonical_nodes: Some(4),
        ..OrderOptions::default()
    }
}

/// Every combination of batching and shuffle, with a name for messages.
fn all_options() -> impl Iterator<Item = (String, OrderOptions)> {
    BatchingMethod::ALL.iter().flat_map(|&method| {
        shuffles().map(move |shuffle| {
            let name = shuffle.map_or("unshuffled", ShuffleAlgo::as_str);
            (format!("{method} {name}"), options(method, shuffle))
        })
    })
}

/// What each step of each rank serves, `[step][rank]`; steps of padding alone are not served.
fn steps(order: &EpochOrder) -> Vec<Vec<Vec<i64>>> {
    let steps = order.global_batches().map(|ids| {
        let ranks = ids.chunks(order.batch_size());
        ranks.map(|ids| ids.iter().copied().filter(|&id| id >= 0).collect()).collect()
    });
    steps.filter(|ranks: &Vec<Vec<i64>>| ranks.iter().any(|ids| !ids.is_empty())).collect()
}

/// The samples of each full global batch in the order of the ranks.
fn full_batches(order: &EpochOrder) -> Vec<Vec<i64>> {
    order.global_batches().filter(|ids| ids.iter().all(|&id| id >= 0)).collect()
}

fn sorted(mut ids: Vec<i64>) -> Vec<i64> {
    ids.sort_unstable();
    ids
}

fn sets(batches: Vec<Vec<i64>>) -> Vec<Vec<i64>> {
    batches.into_iter().map(sorted).collect()
}

#[test]
fn a_run_resumed_at_any_step_goes_on_as_if_it_had_not_stopped() {
    let mut resumed = 0;
    for (name, options) in all_options() {
        for world in [world(1, 2, 2), world(2, 2, 1), world(4, 1, 3)] {
            let plan = Plan::new(&streams(), options.clone(), world).unwrap();
            let global_batch = (world.ranks() * 4) as u64;
            let epochs: Vec<_> = (0..3).map(|e| plan.epoch(e, 0, None).unwrap()).collect();
            let [_, whole, next] = &epochs[..] else { panic!() };
            let whole = steps(whole);
            assert!(whole.len() >= 7, "{name}: {} steps", whole.len());
            for step in 0..=whole.len() {
                let at = format!("{name}, {world:?}, step {step} of {}", whole.len());
                // The state goes through a checkpoint's text.
                let state = plan.state(1, step as u64 * global_batch, None);
                let state: State =
                    serde_json::from_str(&serde_json::to_string(&state).unwrap()).unwrap();
                let rest = plan.epoch(state.epoch, state.sample_in_epoch, Some(&state)).unwrap();
                assert_eq!(steps(&rest), whole[step..], "{at}");
                assert_eq!(
                    plan.epoch(2, 0, Some(&state)).unwrap().to_vec(),
                    next.to_vec(),
                    "{at}: the next epoch"
                );
                resumed += 1;

                // Stopped and resumed a second time, half way to the end.
                let later = (step + whole.len()) / 2;
                let again = plan.state(1, later as u64 * global_batch, Some(&state));
                let rest = plan.epoch(1, again.sample_in_epoch, Some(&again)).unwrap();
                assert_eq!(steps(&rest), whole[later..], "{at}, then {later}");
            }
        }
    }
    assert!(resumed > 1000, "{resumed} resumptions");
}

#[test]
fn a_resumed_loader_goes_on_as_if_it_had_not_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let folders: Vec<_> = (0..3).map(|i| dir.path().join(i.to_string())).collect();
    for (folder, samples) in folders.iter().zip([45, 50, 40]) {
        write(folder, samples, &PLAIN);
    }
    for (number, (name, order)) in all_options().enumerate() {
        let rank = number % 2;
        let open = || {
            let options = DatasetOptions {
                order: order.clone(),
                world: world(1, 2, 1),
                rank,
                ..DatasetOptions::default()
            };
            StreamingDataset::open(folders.iter().map(Stream::local).collect(), options).unwrap()
        };
        let workers = |num_workers| LoaderOptions { num_workers, prefetch_batches: 3 };
        let map = |sample: mds::Sample| Ok(sample.id());
        let next = |loader: &mut Loader<u64>| loader.next_batch().unwrap().map(|batch| batch.items);

        // An epoch, its end, and the beginning of the next one.
        let mut loader = Loader::new(open(), workers(2), map);
        let mut whole = Vec::new();
        let mut checkpoints = vec![loader.checkpoint()];
        while whole.iter().filter(|batch: &&Option<_>| batch.is_none()).count() < 1 {
            whole.push(next(&mut loader));
            checkpoints.push(loader.checkpoint());
        }
        whole.extend((0..3).map(|_| next(&mut loader)));
        let steps = checkpoints.len() - 2;
        assert!(steps > 10, "{name}: {steps} steps");

        for step in [1, 2 + number % 7, steps - 1] {
            let checkpoint = checkpoints[step].clone();
            let mut loader = Loader::resume(open(), workers(step % 3), checkpoint, map).unwrap();
            for (ahead, theirs) in whole[step..].iter().enumerate() {
                assert_eq!(&next(&mut loader), theirs, "{name}: {step} + {ahead}");
            }
        }
    }
}

/// Samples of a global batch, which stays the same in all worlds of a run.
const GLOBAL_BATCH: usize = 24;

fn plan_in(streams: &[StreamShape], options: &OrderOptions, world: World) -> Plan {
    let batch_size = Some(GLOBAL_BATCH / world.ranks());
    Plan::new(streams, OrderOptions { batch_size, ..options.clone() }, world).unwrap()
}

/// The full global batches of an epoch that is served in several worlds, `each` in all but the last.
fn served_in(
    streams: &[StreamShape],
    options: &OrderOptions,
    worlds: &[World],
    each: usize,
) -> Vec<Vec<i64>> {
    let (mut served, mut state) = (Vec::new(), None);
    for (number, &world) in worlds.iter().enumerate() {
        let plan = plan_in(streams, options, world);
        let offset = (served.len() * GLOBAL_BATCH) as u64;
        let order = plan.epoch(1, offset, state.as_ref()).unwrap();
        let last = number + 1 == worlds.len();
        served.extend(full_batches(&order).into_iter().take(if last { usize::MAX } else { each }));
        let offset = (served.len() * GLOBAL_BATCH) as u64;
        state = Some(plan.state(1, offset, state.as_ref()));
    }
    served
}

/// From 1 rank to 2, 4 and 8, on one node, on as many nodes, and on both.
const GROWING: [[World; 4]; 3] = [
    [world(1, 1, 1), world(1, 2, 1), world(1, 4, 1), world(1, 8, 1)],
    [world(1, 1, 2), world(2, 1, 2), world(4, 1, 2), world(8, 1, 2)],
    [world(1, 1, 1), world(1, 2, 3), world(2, 2, 1), world(2, 4, 2)],
];

/// Six nodes of two ranks, then four: the number of nodes, 4, and that of canonical nodes, 6, do not
/// divide one another.
const RELAXED: [World; 2] = [world(6, 2, 1), world(4, 2, 1)];

fn long_streams(extra: u64) -> Vec<StreamShape> {
    let stream = |samples: u64| StreamShape {
        shard_sizes: vec![samples / 3, samples / 2, samples - samples / 3 - samples / 2],
        weight: Weight::Natural,
    };
    vec![stream(305 + extra), stream(250 + 3 * extra), stream(101 + 2 * extra)]
}

fn elastic(method: BatchingMethod, shuffle: Option<ShuffleAlgo>, nodes: u64) -> OrderOptions {
    OrderOptions { num_canonical_nodes: Some(nodes), ..options(method, shuffle) }
}

/// Compares two runs up to where one of them has no full batch any more: the last one may be full
/// only in a world that repeats more samples.
fn assert_same(name: &str, ours: &[Vec<i64>], theirs: &[Vec<i64>]) {
    assert!(ours.len().abs_diff(theirs.len()) <= 1, "{name}: {} {}", ours.len(), theirs.len());
    let common = ours.len().min(theirs.len());
    assert!(common > 15, "{name}: {common} full batches");
    assert_eq!(ours[..common], theirs[..common], "{name}");
}

#[test]
fn random_batches_keep_their_samples_in_a_growing_world() {
    let streams = long_streams(0);
    for shuffle in shuffles() {
        let options = elastic(BatchingMethod::Random, shuffle, 8);
        let whole = served_in(&streams, &options, &GROWING[0][..1], 0);
        for worlds in &GROWING {
            for each in [1, 5] {
                let grown = served_in(&streams, &options, worlds, each);
                let name = format!("{shuffle:?} {worlds:?} {each}");
                // Which rank gets which, and the order within a batch, may change.
                assert_same(&name, &sets(grown), &sets(whole.clone()));
            }
        }
        let in_world = |world| served_in(&streams, &options, &[world], 0);
        // Equal to the last sample where the ranks go through the samples alike,
        assert_same("1 x 4 and 4 x 1", &in_world(world(1, 4, 1)), &in_world(world(4, 1, 1)));
        // and only there.
        assert_ne!(in_world(world(1, 1, 1))[0], in_world(world(1, 4, 1))[0]);
        assert_ne!(in_world(world(1, 4, 1))[0], in_world(world(2, 2, 1))[0]);

        let options = elastic(BatchingMethod::Random, shuffle, 6);
        let whole = served_in(&streams, &options, &RELAXED[..1], 0);
        let moved = served_in(&streams, &options, &RELAXED, 5);
        assert_same("relaxed", &sets(moved), &sets(whole));
    }
}

#[test]
fn stratified_batches_are_the_same_in_a_growing_world_to_the_last_sample() {
    let streams = long_streams(0);
    for shuffle in shuffles() {
        let options = elastic(BatchingMethod::Stratified, shuffle, 8);
        let whole = served_in(&streams, &options, &GROWING[0][..1], 0);
        for worlds in GROWING.iter().map(|worlds| &worlds[..]).chain([&RELAXED[..]]) {
            for each in [1, 5] {
                let grown = served_in(&streams, &options, worlds, each);
                assert_same(&format!("{shuffle:?} {worlds:?} {each}"), &grown, &whole);
            }
        }
    }
}

/// How many global batches come from each stream.
fn counts(streams: &[StreamShape], batches: &[Vec<i64>]) -> Vec<usize> {
    let mut first = 0;
    let of_stream = |stream: &StreamShape| {
        let end = first + stream.shard_sizes.iter().sum::<u64>() as i64;
        let count = batches.iter().filter(|ids| (first..end).contains(&ids[0])).count();
        first = end;
        count
    };
    streams.iter().map(of_stream).collect()
}

#[test]
fn per_stream_batches_keep_their_samples_while_no_stream_gets_more_of_them() {
    let (mut same, mut other) = (0, 0);
    for (extra, nodes) in (0..12).flat_map(|extra| [(extra, 1), (extra, 8)]) {
        let streams = long_streams(extra);
        for shuffle in [None, Some(ShuffleAlgo::Py1e), Some(ShuffleAlgo::Py1s)] {
            let options = elastic(BatchingMethod::PerStream, shuffle, nodes);
            let whole = served_in(&streams, &options, &GROWING[0][..1], 0);
            for worlds in &GROWING {
                let all_alike = worlds.iter().all(|&world| {
                    let batches = served_in(&streams, &options, &[world], 0);
                    counts(&streams, &batches) == counts(&streams, &whole)
                });
                let grown = served_in(&streams, &options, worlds, 3);
                let equal = sets(grown) == sets(whole.clone());
                if all_alike {
                    assert!(equal, "{extra} {nodes} {shuffle:?} {worlds:?}");
                    same += 1;
                } else {
                    // Repeated samples filled one more batch, and all batches are drawn anew.
                    other += usize::from(!equal);
                }
            }
        }
    }
    assert!(same > 20 && other > 20, "same {same} times, other {other} times");

    for shuffle in shuffles() {
        let options = elastic(BatchingMethod::PerStream, shuffle, 6);
        let whole = served_in(&long_streams(0), &options, &RELAXED[..1], 0);
        let moved = served_in(&long_streams(0), &options, &RELAXED, 5);
        assert_same("relaxed", &sets(moved), &sets(whole));
    }
}

#[test]
fn other_workers_change_nothing() {
    for (name, options) in all_options() {
        for (nodes, ranks_per_node) in [(1, 1), (1, 3), (2, 2)] {
            let plan = |workers| {
                let world = world(nodes, ranks_per_node, workers);
                Plan::new(&streams(), options.clone(), world).unwrap()
            };
            let (plan, others) = (plan(1), [plan(2), plan(3), plan(5)]);
            let whole = steps(&plan.epoch(1, 0, None).unwrap());
            for other in &others {
                let at = format!("{name}: {:?}", other.world());
                assert_eq!(steps(&other.epoch(1, 0, None).unwrap()), whole, "{at}");
                let state = plan.state(1, (3 * plan.world().ranks() * 4) as u64, None);
                let rest = other.epoch(1, state.sample_in_epoch, Some(&state)).unwrap();
                assert_eq!(steps(&rest), whole[3..], "{at}, resumed");
            }
        }
    }
}
