//! Single stages of the order against vectors that the reference wrote (mosaicml-streaming 0.13.0 on
//! numpy 2.1.3): numpy's generator, shuffles, partitions, the sampling of shards, and worlds.
//!
//! tests/support/vectors.rs says where the vectors lie, and what is skipped.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use mds::order::partition::{Partition, PartitionRule};
use mds::order::rng::{Generator, SeedSequence};
use mds::order::sampling::{Draw, samples_per_shard};
use mds::order::shuffle::{SampleOrder, ShuffleRule};
use mds::order::{EpochOrder, OrderOptions, Plan, StreamShape, Weight, World};
use serde_json::Value;

#[path = "support/vectors.rs"]
mod vectors;
use vectors::*;

#[test]
fn some_vectors_are_there() {
    assert_some_vectors();
}

#[test]
fn numpy_generator() {
    for name in files("numpy_rng") {
        let file = vectors(&name);
        let seeds = array(&file["seeds"]);
        let named = seeds.iter().map(|case| (format!("seed {}", case["seed"]), case.clone()));
        run(&name, named, check_seed);
    }
}

fn check_seed(case: &Value) -> Check {
    let seed: u128 = quoted(&case["seed"]);
    let sequence = SeedSequence::new(seed);
    equal("pool", sequence.pool().map(u64::from).to_vec(), uints(&case["seedseq_pool"]))?;
    let words = array(&case["seedseq_u64x4"]).iter().map(quoted::<u64>).collect();
    equal("words", sequence.generate::<4>().to_vec(), words)?;

    let rng = || Generator::new(seed);
    let raw: Vec<u64> = array(&case["raw64"]).iter().map(quoted).collect();
    let mut words = rng();
    equal("raw64", raw.iter().map(|_| words.next_u64()).collect(), raw.clone())?;
    let theirs = doubles(&case["random10"]);
    let mut random = rng();
    equal("random", theirs.iter().map(|_| random.next_f64()).collect(), theirs.clone())?;

    let (low, high) = (&case["uniform"]["low"], &case["uniform"]["high"]);
    let (low, high) = (low.as_f64().unwrap(), high.as_f64().unwrap());
    let theirs = doubles(&case["uniform"]["out"]);
    let mut uniform = rng();
    let ours = theirs.iter().map(|_| uniform.uniform(low, high)).collect();
    equal("uniform", ours, theirs.clone())?;

    for (n, theirs) in case["permutation"].as_object().unwrap() {
        equal(&format!("permutation({n})"), rng().permutation(n.parse().unwrap()), units(theirs))?;
    }
    for kind in ["shuffle_array", "shuffle_list"] {
        for (n, theirs) in case[kind].as_object().unwrap() {
            let mut items: Vec<u64> = (0..n.parse().unwrap()).collect();
            rng().shuffle(&mut items);
            equal(&format!("{kind}({n})"), items, uints(theirs))?;
        }
    }
    check_integers(&case["integers"], rng)?;
    check_choice(&case["choice_no_replace"], rng)?;
    check_interleaved(&case["interleaved"], rng())
}

fn check_integers(cases: &Value, rng: impl Fn() -> Generator) -> Check {
    for case in array(cases) {
        let (low, high): (i64, i128) = (int(&case["low"]), quoted(&case["high"]));
        let count = u64::try_from(high - i128::from(low)).unwrap();
        let theirs: Vec<i64> = array(&case["out"]).iter().map(quoted).collect();
        let mut rng = rng();
        let ours = theirs.iter().map(|_| low + rng.integers(0, count) as i64).collect();
        equal(&format!("integers({low}, {high})"), ours, theirs.clone())?;
    }
    Ok(())
}

fn check_choice(cases: &Value, rng: impl Fn() -> Generator) -> Check {
    for case in array(cases) {
        let (n, k) = (uint(&case["pop"]), uint(&case["k"]));
        let ours = rng().choice(n, k);
        equal("number of choices", ours.len() as u64, k)?;
        // Only the beginning of a long choice is listed; the hash is of all of it.
        let theirs = uints(&case["out"]);
        equal(&format!("choice({n}, {k})"), ours[..theirs.len()].to_vec(), theirs)?;
        let bytes: Vec<u8> = ours.iter().flat_map(|chosen| chosen.to_le_bytes()).collect();
        let hash = mds::format::HashAlgorithm::Sha256.hex(&bytes);
        equal(
            &format!("hash of choice({n}, {k})"),
            hash.as_str(),
            case["sha256_le_i64"].as_str().unwrap(),
        )?;
    }
    Ok(())
}

/// Calls of all kinds on one generator, which share its half word.
fn check_interleaved(case: &Value, mut rng: Generator) -> Check {
    for call in array(&case["calls"]) {
        for (name, theirs) in call.as_object().unwrap() {
            match name.as_str() {
                "shuffle_list" | "shuffle_array" => {
                    let mut items: Vec<u64> = (0..array(theirs).len() as u64).collect();
                    rng.shuffle(&mut items);
                    equal(name, items, uints(theirs))?;
                }
                "uniform(0,1,3)" => {
                    let ours = (0..3).map(|_| rng.uniform(0.0, 1.0)).collect();
                    equal(name, ours, doubles(theirs))?;
                }
                "integers(10,100)" => equal(name, rng.integers(10, 100), uint(theirs))?,
                "integers(0,2**40)" => equal(name, rng.integers(0, 1 << 40), uint(theirs))?,
                "choice(20,5)" => equal(name, rng.choice(20, 5), uints(theirs))?,
                _ => return Err(format!("unknown call {name}")),
            }
        }
    }
    let half = (uint(&case["end_has_uint32"]) == 1).then(|| uint(&case["end_uinteger"]));
    equal("half word at the end", rng.buffered_half().map(u64::from), half)
}

#[test]
fn shuffles() {
    run_files("primitives/shuffle", |case| {
        let rule = ShuffleRule {
            algo: quoted(&case["algo"]),
            canonical_nodes: uint(&case["num_canonical_nodes"]),
            seed: uint(&case["seed"]),
            epoch: uint(&case["epoch"]),
            block: uint(&case["block_size"]),
        };
        let ours = SampleOrder::shuffled(Draw::whole(uints(&case["shard_sizes"]), 0), &rule);
        let Some(ours) = accepted(case, ours)? else { return Ok(()) };
        equal(&rule.algo.to_string(), ours.to_vec(), uints(&case["out"]))
    });
}

#[test]
fn partitions() {
    run_files("primitives/partition", |case| {
        let world = World {
            nodes: size(&case["physical_nodes"]),
            ranks_per_node: size(&case["ranks_per_node"]),
            workers_per_rank: size(&case["workers_per_rank"]),
        };
        let partition = Partition::new(&PartitionRule {
            algo: quoted(&case["algo"]),
            samples: uint(&case["num_samples"]),
            canonical_nodes: uint(&case["num_canonical_nodes"]),
            world,
            initial_nodes: case["initial_physical_nodes"].as_u64(),
            batch_size: size(&case["batch_size"]),
            drop_first: uint(&case["drop_first"]),
        });
        let Some(partition) = accepted(case, partition)? else { return Ok(()) };
        let order = EpochOrder::of_positions(partition);
        equal("shape", shape(&order), array(&case["shape"]).iter().map(size).collect())?;
        equal("positions", flat(&order), ints(&case["flat"]))
    });
}

#[test]
fn samplings() {
    run_files("primitives/sampling", |case| {
        let epoch = if case["use_epoch"] == true { uint(&case["epoch"]) } else { 0 };
        let ours = samples_per_shard(
            &uints(&case["shard_sizes"]),
            uint(&case["choose"]),
            uint(&case["granularity"]),
            u128::from(uint(&case["seed"]) + epoch),
        );
        equal("samples per shard", ours.map_err(|e| e.to_string())?, uints(&case["out"]))
    });
}

#[test]
fn worlds() {
    run_files("primitives/world", |case| {
        let replication = size(&case["replication"]);
        let physical = World {
            nodes: size(&case["nodes"]),
            ranks_per_node: size(&case["ranks_per_node"]),
            workers_per_rank: size(&case["workers_per_rank"]),
        };
        let stream = StreamShape { shard_sizes: vec![1], weight: Weight::Natural };
        let options = OrderOptions { replication: Some(replication), ..OrderOptions::default() };
        let plan = Plan::new(&[stream], options, physical).map_err(|e| e.to_string())?;
        let world = plan.world();
        let mut ours = Vec::new();
        for rank in 0..physical.ranks() {
            let place = plan.place(rank).map_err(|e| e.to_string())?;
            for worker in 0..world.workers_per_rank {
                ours.push([place.node, place.rank, worker, world.nodes, world.ranks_per_node]);
            }
        }
        let rows = array(&case["rows_node_rank_worker_nodes_ranks"]);
        let theirs = rows.iter().map(|row| std::array::from_fn(|i| size(&row[i]))).collect();
        equal("rows", ours, theirs)
    });
}
